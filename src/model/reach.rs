//! Whether a domain's DNS leads here, as far as that is remembered between looks at it.

use crate::base::clock::Timestamp;

/// What looks from outside and visitors told of a domain. Default: nothing yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct ReachMemory {
    /// When a visitor's handshake was last seen, to the minute; noted once a day at most.
    pub visited: Option<Timestamp>,
    /// Since when every look has found that the name surely leads elsewhere.
    pub elsewhere_since: Option<Timestamp>,
    /// When that was last found.
    pub elsewhere_at: Option<Timestamp>,
    /// Since when we have not been reached, whatever the cause: others answer, nobody does, the name has no address. What
    /// could not be found out neither sets nor ends it.
    pub unreached_since: Option<Timestamp>,
    /// Since when looks have found a content delivery network in front of the name; nothing where the last that found anybody
    /// found none.
    pub fronted_since: Option<Timestamp>,
    /// Since when the domain is called moved.
    pub moved_at: Option<Timestamp>,
}

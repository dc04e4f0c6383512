//! What changed, for those who keep copies: an entry names the thing and never carries it.

use uuid::Uuid;

/// How far a reader has read. The default has read nothing: its reader is told to take a fresh copy
/// ([`FeedStatus::Restart`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The store's incarnation: it changes when a fail-over or a restored backup may have lost a tail.
    pub epoch: Option<Uuid>,
    /// The last entry read of each shard; a missing shard counts as 0.
    pub positions: Vec<u64>,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What kind of thing.
    pub kind: ChangeKind,
    /// Which: a name pattern, a tenant's slug, a CA's id.
    pub key: String,
}

/// The kinds of thing that readers keep copies of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// A domain was registered, changed or removed, or its certificate was replaced.
    Domain,
    /// A tenant was declared or removed.
    Tenant,
    /// Material of a CA.
    Material,
    /// A kind that a newer version wrote: skipped.
    Unknown,
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// The entries, in commit order within each shard.
    pub entries: Vec<Change>,
    /// Where to read on.
    pub cursor: Cursor,
    /// Whether the entries are all there is.
    pub status: FeedStatus,
}

/// Whether a reader may go on from its cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedStatus {
    /// Up to date.
    Complete,
    /// More entries wait: read again at once.
    More,
    /// The cursor is older than the feed, or of another epoch, or of none: take a fresh copy, then go on from the new
    /// cursor, which stands where the feed stood before the copy. What is kept stays servable meanwhile.
    Restart,
}

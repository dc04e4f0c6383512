//! The audit chains: one per tenant and one of the platform's own, each link holding the hash of the one before.
//!
//! # The canonical form of a link
//!
//! `hash = SHA-256(previous hash || fields)`, where the first link's previous hash is 32 zero bytes, and the fields are
//! these, each as its length (8 bytes, big-endian) and its bytes: `vestibule audit 1`; the owner (the tenant's slug,
//! nothing for the platform); the sequence number (8 bytes, big-endian); the time (8 bytes, big-endian, milliseconds
//! since 1970); the actor's word; the kind; the subject; the detail as JSON without white space, the keys of every object
//! in the order of their bytes.
//!
//! A chain tells of every change and removal within it. That its newest links were cut off shows only against a hash
//! kept elsewhere.

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::digest;
use serde_json::Value;

use crate::store::record::AuditRecord;

/// Where a chain stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The sequence number of the newest link; 0 where there is none.
    pub sequence: u64,
    /// Its hash; zeros where there is none.
    pub hash: [u8; 32],
}

/// A chain that was tampered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainError {
    /// A link is missing, or out of place: the one after this number.
    Gap(u64),
    /// The link with this number was changed, or the one before it was.
    Changed(u64),
}

impl fmt::Display for ChainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gap(after) => write!(f, "the event after number {after} is missing"),
            Self::Changed(number) => write!(f, "event number {number} was changed"),
        }
    }
}

impl std::error::Error for ChainError {}

/// Checks that `events` continue the chain from `from`, and tells where it stands behind them.
///
/// # Errors
/// [`ChainError`] names the first link that does not fit.
pub fn verify_chain<'a>(
    from: Link,
    events: impl IntoIterator<Item = &'a AuditRecord>,
) -> Result<Link, ChainError> {
    events.into_iter().try_fold(from, |before, event| {
        if before.sequence.checked_add(1) != Some(event.sequence) {
            return Err(ChainError::Gap(before.sequence));
        }
        let hash = hash_of(&before.hash, event);
        match hash == event.hash {
            true => Ok(Link {
                sequence: event.sequence,
                hash,
            }),
            false => Err(ChainError::Changed(event.sequence)),
        }
    })
}

/// The hash of `event` as the link behind the one with the hash `previous`; its own `hash` is not looked at.
#[must_use]
pub fn hash_of(previous: &[u8; 32], event: &AuditRecord) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(previous);
    let mut field = |bytes: &[u8]| {
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    };
    field(b"vestibule audit 1");
    field(event.owner.as_str().as_bytes());
    field(&event.sequence.to_be_bytes());
    field(&event.at.as_millis().to_be_bytes());
    field(event.actor.as_str().as_bytes());
    field(event.kind.as_bytes());
    field(event.subject.as_bytes());
    field(canonical(&event.detail).as_bytes());
    let mut hash = [0; 32];
    for (to, from) in hash.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    hash
}

/// JSON without white space, the keys of every object in the order of their bytes.
#[must_use]
pub fn canonical(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let sorted: BTreeMap<&str, &Value> = members
                .iter()
                .map(|(key, value)| (key.as_str(), value))
                .collect();
            let texts: Vec<String> = sorted
                .into_iter()
                .map(|(key, value)| format!("{}:{}", Value::from(key), canonical(value)))
                .collect();
            format!("{{{}}}", texts.join(","))
        }
        Value::Array(items) => {
            let texts: Vec<String> = items.iter().map(canonical).collect();
            format!("[{}]", texts.join(","))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Timestamp;
    use crate::model::TenantId;
    use crate::store::record::{AuditActor, KeyOwner};
    use serde_json::json;

    fn chain(length: u64) -> Vec<AuditRecord> {
        let mut link = Link::default();
        let next = |sequence| {
            let mut event = AuditRecord {
                owner: KeyOwner::Tenant(TenantId::parse("acme").unwrap()),
                sequence,
                at: Timestamp::from_seconds(1_800_000_000),
                actor: AuditActor::System,
                kind: "domain.registered".to_owned(),
                subject: format!("n{sequence}.example.com"),
                detail: json!({"b": [1, {"z": null, "a": true}], "a": "\"\n"}),
                hash: [0; 32],
            };
            event.hash = hash_of(&link.hash, &event);
            link.hash = event.hash;
            event
        };
        (1..=length).map(next).collect()
    }

    #[test]
    fn the_canonical_form_is_final() {
        let hash: String = chain(1)[0]
            .hash
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(
            hash,
            "ebce190c1a0d154ee6db059a754ac130be241b36701d9f4c199892708af11466"
        );
        assert_eq!(
            canonical(&chain(1)[0].detail),
            r#"{"a":"\"\n","b":[1,{"a":true,"z":null}]}"#
        );
    }

    #[test]
    fn an_untouched_chain_verifies_in_one_go_and_page_by_page() {
        let events = chain(5);
        let end = verify_chain(Link::default(), &events).unwrap();
        assert_eq!((end.sequence, end.hash), (5, events[4].hash));
        let middle = verify_chain(Link::default(), &events[..2]).unwrap();
        assert_eq!(verify_chain(middle, &events[2..]), Ok(end));
    }

    #[test]
    fn every_change_and_removal_is_found() {
        let check = |change: &dyn Fn(&mut Vec<AuditRecord>), expected| {
            let mut events = chain(5);
            change(&mut events);
            assert_eq!(verify_chain(Link::default(), &events), Err(expected));
        };
        check(&|e| drop(e.remove(2)), ChainError::Gap(2));
        check(&|e| drop(e.remove(0)), ChainError::Gap(0));
        check(&|e| e.swap(1, 2), ChainError::Gap(1));
        check(&|e| e[1].subject.push('x'), ChainError::Changed(2));
        check(&|e| e[1].kind.push('x'), ChainError::Changed(2));
        check(&|e| e[1].detail = json!({}), ChainError::Changed(2));
        check(&|e| e[1].actor = AuditActor::Hook, ChainError::Changed(2));
        check(&|e| e[1].at = Timestamp::EPOCH, ChainError::Changed(2));
        check(&|e| e[1].owner = KeyOwner::Platform, ChainError::Changed(2));
        check(&|e| e[1].hash[0] ^= 1, ChainError::Changed(2));
        // A link that was changed together with its own hash is found by the next one.
        let rehash = |events: &mut Vec<AuditRecord>| {
            events[1].subject.push('x');
            events[1].hash = hash_of(&events[0].hash, &events[1]);
        };
        check(&rehash, ChainError::Changed(3));
    }
}

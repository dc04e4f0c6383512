//! Lists of revoked certificates (RFC 5280 §5) of authorities of our own: what is kept of them from one to the next, when
//! they are signed anew, and what port 80 gives to whoever asks.
//!
//! Signed and kept by [`crate::certs::accounts::Accounts`]. A list is good for the authority's `crl_lifetime` and signed
//! anew when half of that is over, so that whoever fetches one has half of it left and an outage as long as the other
//! half harms nobody.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use dashmap::DashMap;

use crate::base::clock::Timestamp;
use crate::ca::{CaError, ListAuthority, ListKey, NewList, RevokedSerial};
use crate::model::issuer_key::IssuerKey;
use crate::model::revocation::RevocationReason;

/// A list begins to be good a little in the past, for clients whose clock is slow; a tenth of its lifetime at most.
const BACKDATE: Duration = Duration::from_secs(60 * 60);
/// A list that begins so much later than now was signed while our clock was ahead.
const AHEAD: Duration = Duration::from_secs(300);

/// The lists as port 80 gives them, in the memory of this process. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Lists(Arc<DashMap<IssuerKey, Arc<PublishedList>>>);

/// A list as port 80 gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedList {
    /// The list, DER.
    pub der: Bytes,
    /// Another for every content: an entity tag (RFC 9110 §8.8.3) with its quotes.
    pub tag: String,
    /// When the next one is there, at the latest.
    pub next_update: Timestamp,
}

impl Lists {
    /// The list of the key with this identifier.
    #[must_use]
    pub fn find(&self, key: &str) -> Option<Arc<PublishedList>> {
        self.0.get(key).map(|list| Arc::clone(&list))
    }

    /// Gives `list` for `key` from now on.
    pub fn publish(&self, key: &IssuerKey, list: PublishedList) {
        self.0.insert(key.clone(), Arc::new(list));
    }

    /// Gives the lists of `kept` from now on, and those of `before` that are not among them no more.
    pub(super) fn publish_kept(&self, kept: &Kept, before: &Kept) {
        for list in &kept.lists {
            // What cannot be read is signed anew when it is due.
            if let Ok(der) = STANDARD.decode(&list.der) {
                self.publish(&list.key, published(der, list.next_update));
            }
        }
        for gone in &before.lists {
            if !kept.lists.iter().any(|list| list.key == gone.key) {
                self.0.remove(&gone.key);
            }
        }
    }
}

fn published(der: Vec<u8>, next_update: Timestamp) -> PublishedList {
    let digest = digest::digest(&digest::SHA256, &der);
    let digest = digest.as_ref().iter().take(16);
    let digest: String = digest.map(|b| format!("{b:02x}")).collect();
    PublishedList {
        der: Bytes::from(der),
        tag: format!("\"{digest}\""),
        next_update,
    }
}

/// The lists of one authority, or of one tenant's part of it, as the store keeps them.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Kept {
    lists: Vec<KeptList>,
}

/// The list of one key, as signed last.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct KeptList {
    key: IssuerKey,
    /// When everything that the key signed has ended.
    until: Timestamp,
    number: u64,
    this_update: Timestamp,
    next_update: Timestamp,
    /// The list, DER in base64.
    der: String,
    revoked: Vec<Entry>,
}

/// A revoked certificate.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Entry {
    /// Its serial number, lower-case hexadecimal.
    pub(super) serial: String,
    /// Since when it is revoked.
    pub(super) at: Timestamp,
    /// Why.
    pub(super) reason: RevocationReason,
    /// When it ends by itself.
    pub(super) until: Timestamp,
}

/// A certificate to be put on the list of the key that signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Revoked {
    pub(super) by: IssuerKey,
    pub(super) entry: Entry,
}

/// What lists are wanted for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted<'a> {
    /// What is due.
    Due,
    /// A further certificate is revoked.
    With(&'a Revoked),
    /// The keys sign none after these, which are good until everything has ended that they signed.
    Last,
}

impl Kept {
    /// Whether one of them is this key's.
    pub(super) fn holds(&self, key: &IssuerKey) -> bool {
        self.lists.iter().any(|list| list.key == *key)
    }

    /// Without the lists of keys whose certificates have all ended.
    pub(super) fn without_ended(&self, now: Timestamp) -> Self {
        let lists = self.lists.iter().filter(|list| now < list.until);
        Self {
            lists: lists.cloned().collect(),
        }
    }

    /// When the first of the lists is to be signed anew, or to be dropped where its key is not there to sign it;
    /// nothing where there is none.
    pub(super) fn due_at(&self, is_there: impl Fn(&IssuerKey) -> bool) -> Option<Timestamp> {
        let due = self.lists.iter().map(|list| match is_there(&list.key) {
            true => list.due_at(),
            false => list.until,
        });
        due.min()
    }

    /// The lists as they are to be from now on: what is due is signed anew, what a further certificate is revoked on, and what is
    /// to be the last; a key that has none gets one, and one whose certificates have all ended loses it. A key that the authority does not have any
    /// more keeps its last list.
    pub(super) fn renewed(
        &self,
        authority: &dyn ListAuthority,
        wanted: Wanted<'_>,
        now: Timestamp,
    ) -> Result<Self, CaError> {
        let keys = authority.list_keys();
        let revoked = match wanted {
            Wanted::With(revoked) => Some(revoked),
            Wanted::Due | Wanted::Last => None,
        };
        if let Some(revoked) = revoked
            && !keys.iter().any(|key| key.key == revoked.by)
        {
            let nothing = NewList {
                number: 0,
                this_update: now,
                next_update: now,
                revoked: &[],
            };
            // Says which key it is and that it is gone.
            authority.sign_list(&revoked.by, &nothing)?;
        }
        let is_kept =
            |list: &&KeptList| now < list.until && !keys.iter().any(|key| key.key == list.key);
        let mut lists: Vec<KeptList> = self.lists.iter().filter(is_kept).cloned().collect();
        for key in &keys {
            let before = self.lists.iter().find(|list| list.key == key.key);
            let entry = revoked.filter(|revoked| revoked.by == key.key);
            let entry = entry.map(|revoked| &revoked.entry);
            let good_until = match wanted {
                Wanted::Last => key.until,
                Wanted::Due | Wanted::With(_) => now.plus(authority.list_lifetime()),
            };
            let stays = |list: &&KeptList| match wanted {
                Wanted::Last => list.next_update == key.until,
                Wanted::Due | Wanted::With(_) => {
                    !list.is_due(entry, authority.list_lifetime(), now)
                }
            };
            lists.push(match before.filter(stays) {
                Some(list) => KeptList {
                    until: key.until,
                    ..list.clone()
                },
                None => signed(authority, (key, good_until), (before, entry), now)?,
            });
        }
        Ok(Self { lists })
    }
}

impl KeptList {
    fn due_at(&self) -> Timestamp {
        let half = self.next_update.since(self.this_update) / 2;
        self.this_update.plus(half).min(self.until)
    }

    fn is_due(&self, entry: Option<&Entry>, lifetime: Duration, now: Timestamp) -> bool {
        let is_same =
            |old: &Entry, entry: &Entry| old.serial == entry.serial && old.reason == entry.reason;
        let is_new = |entry: &Entry| !self.revoked.iter().any(|old| is_same(old, entry));
        entry.is_some_and(is_new)
            || self.due_at() <= now
            || now.plus(AHEAD) < self.this_update
            || now.plus(lifetime) < self.next_update
    }
}

/// The next list of a key, good until then, with one more entry or none.
fn signed(
    authority: &dyn ListAuthority,
    (key, good_until): (&ListKey, Timestamp),
    (before, entry): (Option<&KeptList>, Option<&Entry>),
    now: Timestamp,
) -> Result<KeptList, CaError> {
    // RFC 5280 §3.3: an entry stays until it was on a list that was made after the certificate's end.
    let stays = |entry: &&Entry| before.is_none_or(|before| before.this_update <= entry.until);
    let old = before.map(|before| before.revoked.as_slice());
    let old = old.unwrap_or_default().iter().filter(stays);
    let mut revoked: Vec<Entry> = old.cloned().collect();
    if let Some(entry) = entry {
        match revoked.iter_mut().find(|old| old.serial == entry.serial) {
            // Revoked since then, though for another reason.
            Some(old) => old.reason = entry.reason,
            None => revoked.push(entry.clone()),
        }
    }
    let lifetime = authority.list_lifetime();
    let serials: Vec<RevokedSerial> = revoked.iter().map(Entry::to_serial).collect();
    // Not below the seconds of today, so that it grows even where a backup was restored.
    let today = u64::try_from(now.as_seconds()).unwrap_or_default();
    let number = before.map_or(0, |before| before.number.saturating_add(1));
    let list = NewList {
        number: number.max(today),
        this_update: now.minus(BACKDATE.min(lifetime / 10)),
        next_update: good_until,
        revoked: &serials,
    };
    let der = authority.sign_list(&key.key, &list)?;
    Ok(KeptList {
        key: key.key.clone(),
        until: key.until,
        number: list.number,
        this_update: list.this_update,
        next_update: list.next_update,
        der: STANDARD.encode(der),
        revoked,
    })
}

impl Entry {
    fn to_serial(&self) -> RevokedSerial {
        RevokedSerial {
            serial: octets(&self.serial),
            at: self.at,
            reason: self.reason,
        }
    }
}

/// The octets of a number in hexadecimal of ours: pairs of digits.
fn octets(hexadecimal: &str) -> Vec<u8> {
    let pairs = hexadecimal.as_bytes().chunks(2);
    let octet = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.filter_map(octet).collect()
}

#[cfg(test)]
mod tests;

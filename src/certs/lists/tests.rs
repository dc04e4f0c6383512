//! What is signed when, with an authority that writes down what it is asked to sign.

use std::sync::Mutex;

use super::*;
use crate::model::certificate::CaId;

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
const LIFETIME: Duration = Duration::from_secs(86_400);

/// What was signed: key, number, serial numbers.
type Signed = (String, u64, Vec<Vec<u8>>);

struct Scribe {
    keys: Vec<ListKey>,
    signed: Mutex<Vec<Signed>>,
}

impl Scribe {
    fn with(keys: &[u8]) -> Self {
        let key = |byte: &u8| ListKey {
            key: key(*byte),
            until: NOW.plus(LIFETIME * 100),
        };
        Self {
            keys: keys.iter().map(key).collect(),
            signed: Mutex::default(),
        }
    }

    fn signed(&self) -> Vec<Signed> {
        std::mem::take(&mut self.signed.lock().unwrap())
    }
}

impl ListAuthority for Scribe {
    fn list_keys(&self) -> Vec<ListKey> {
        self.keys.clone()
    }

    fn list_lifetime(&self) -> Duration {
        LIFETIME
    }

    fn sign_list(&self, key: &IssuerKey, list: &NewList<'_>) -> Result<Vec<u8>, CaError> {
        if !self.keys.iter().any(|known| known.key == *key) {
            return Err(CaError::Material {
                ca: CaId::new("own"),
                slot: key.to_string(),
                why: "gone".to_owned(),
            });
        }
        let serials = list.revoked.iter().map(|entry| entry.serial.clone());
        let signed = (key.to_string(), list.number, serials.collect());
        self.signed.lock().unwrap().push(signed);
        Ok(list.number.to_be_bytes().to_vec())
    }
}

fn key(byte: u8) -> IssuerKey {
    IssuerKey::from_bytes(&[byte])
}

fn revoked(by: u8, serial: &str, until: Timestamp) -> Revoked {
    Revoked {
        by: key(by),
        entry: Entry {
            serial: serial.to_owned(),
            at: NOW,
            reason: RevocationReason::KeyCompromise,
            until,
        },
    }
}

fn due(kept: &Kept) -> Timestamp {
    kept.due_at(|_| true).unwrap()
}

#[test]
fn a_list_is_signed_when_half_of_its_time_is_over_and_not_before() {
    let scribe = Scribe::with(&[1]);
    let first = Kept::default().renewed(&scribe, Wanted::Due, NOW).unwrap();
    let number = 1_800_000_000;
    assert_eq!(scribe.signed(), [("01".to_owned(), number, Vec::new())]);
    assert!(NOW.plus(LIFETIME / 3) < due(&first) && due(&first) < NOW.plus(LIFETIME / 2));
    let before = due(&first).minus(Duration::from_millis(1));
    assert_eq!(first.renewed(&scribe, Wanted::Due, before).unwrap(), first);
    assert_eq!(scribe.signed(), []);
    let second = first.renewed(&scribe, Wanted::Due, due(&first)).unwrap();
    assert!(scribe.signed()[0].1 > number);
    assert!(due(&second) > due(&first));
}

#[test]
fn numbers_grow_within_a_second_and_over_a_clock_that_went_back() {
    let scribe = Scribe::with(&[1]);
    let end = NOW.plus(LIFETIME);
    let mut kept = Kept::default().renewed(&scribe, Wanted::Due, NOW).unwrap();
    for serial in ["41", "42"] {
        kept = kept
            .renewed(&scribe, Wanted::With(&revoked(1, serial, end)), NOW)
            .unwrap();
    }
    // The list says that it begins later than this.
    kept.renewed(&scribe, Wanted::Due, NOW.minus(LIFETIME))
        .unwrap();
    let signed = scribe.signed();
    let numbers: Vec<u64> = signed.iter().map(|(_, number, _)| *number).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    assert_eq!(numbers.len(), 4);
    assert_eq!(signed[3].2, [vec![0x41], vec![0x42]]);
}

#[test]
fn an_entry_leaves_after_a_list_that_was_made_beyond_the_certificates_end() {
    let scribe = Scribe::with(&[1]);
    let end = NOW.plus(LIFETIME);
    let mut kept = Kept::default()
        .renewed(&scribe, Wanted::With(&revoked(1, "41", end)), NOW)
        .unwrap();
    let mut last_with_it = NOW;
    while kept.lists[0].revoked.len() == 1 {
        last_with_it = kept.lists[0].this_update;
        kept = kept.renewed(&scribe, Wanted::Due, due(&kept)).unwrap();
    }
    assert!(last_with_it > end);
}

#[test]
fn what_is_revoked_twice_is_listed_once_and_signed_once() {
    let scribe = Scribe::with(&[1]);
    let revoked = revoked(1, "41", NOW.plus(LIFETIME));
    let kept = Kept::default()
        .renewed(&scribe, Wanted::With(&revoked), NOW)
        .unwrap();
    let again = kept.renewed(&scribe, Wanted::With(&revoked), NOW).unwrap();
    assert_eq!(again, kept);
    assert_eq!(scribe.signed().len(), 1);
}

#[test]
fn each_key_has_its_list_until_everything_that_it_signed_has_ended() {
    let scribe = Scribe::with(&[2, 1]);
    let end = NOW.plus(LIFETIME * 100);
    let kept = Kept::default()
        .renewed(&scribe, Wanted::With(&revoked(1, "41", end)), NOW)
        .unwrap();
    let serials: Vec<_> = scribe
        .signed()
        .into_iter()
        .map(|(key, _, serials)| (key, serials.len()))
        .collect();
    assert_eq!(serials, [("02".to_owned(), 0), ("01".to_owned(), 1)]);
    // The earlier key is gone: its last list stays, and is looked at no more before its end.
    let fewer = Scribe::with(&[2]);
    let later = NOW.plus(LIFETIME * 10);
    let kept = kept.renewed(&fewer, Wanted::Due, later).unwrap();
    assert_eq!(kept.lists.len(), 2);
    let next = kept.due_at(|known| *known == key(2)).unwrap();
    assert!(later < next);
    assert!(
        kept.renewed(&fewer, Wanted::With(&revoked(1, "42", end)), later)
            .is_err(),
        "nobody can sign that any more"
    );
    let kept = kept.renewed(&fewer, Wanted::Due, end).unwrap();
    assert_eq!(kept.lists.len(), 1);
}

#[test]
fn what_is_published_is_what_is_kept() {
    let lists = Lists::default();
    let scribe = Scribe::with(&[1, 2]);
    let kept = Kept::default().renewed(&scribe, Wanted::Due, NOW).unwrap();
    lists.publish_kept(&kept, &Kept::default());
    let found = lists.find("01").unwrap();
    assert_eq!(found.der, 1_800_000_000_u64.to_be_bytes().as_slice());
    assert_eq!(found.next_update, NOW.plus(LIFETIME));
    let row = serde_json::to_vec(&kept).unwrap();
    assert_eq!(serde_json::from_slice::<Kept>(&row).unwrap(), kept);
    let end = NOW.plus(LIFETIME * 100);
    let fewer = kept.renewed(&Scribe::with(&[2]), Wanted::Due, end).unwrap();
    lists.publish_kept(&fewer, &kept);
    assert!(lists.find("01").is_none() && lists.find("02").is_some());
}

#[test]
fn a_graver_reason_is_on_the_list_at_once_with_the_time_of_the_first() {
    let scribe = Scribe::with(&[1]);
    let mut entry = revoked(1, "41", NOW.plus(LIFETIME));
    entry.entry.reason = RevocationReason::Superseded;
    let first = Kept::default()
        .renewed(&scribe, Wanted::With(&entry), NOW)
        .unwrap();
    let later = NOW.plus(Duration::from_secs(60));
    // Said again, nothing is signed.
    assert_eq!(
        first.renewed(&scribe, Wanted::With(&entry), later).unwrap(),
        first
    );
    entry.entry.reason = RevocationReason::KeyCompromise;
    entry.entry.at = later;
    let second = first.renewed(&scribe, Wanted::With(&entry), later).unwrap();
    let [list] = &second.lists[..] else {
        panic!("one key, one list");
    };
    let told: Vec<_> = list.revoked.iter().map(|it| (it.reason, it.at)).collect();
    assert_eq!(told, [(RevocationReason::KeyCompromise, NOW)]);
    assert_eq!(scribe.signed().len(), 2);
}

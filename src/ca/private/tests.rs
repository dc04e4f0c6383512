//! What it issues, what it keeps, and what it lists.

use x509_parser::extensions::ParsedExtension;

use super::*;
use crate::ca::authority::{NewList, RevokedSerial};
use crate::model::issuer_key::IssuerKey;
use crate::model::revocation::RevocationReason;

fn private(lifetime: Duration) -> Private {
    let settings = Settings {
        leaf_lifetime: lifetime,
        ..Settings::default()
    };
    let clock = Clock::manual(Timestamp::from_seconds(1_800_000_000));
    Private::new(CaId::new("internal"), settings, clock)
}

async fn issue(private: &Private, account: &dyn Account, names: &[&str]) -> Vec<Vec<u8>> {
    let names: Vec<_> = names
        .iter()
        .map(|n| NamePattern::parse(n).unwrap())
        .collect();
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::new(Vec::new())
        .unwrap()
        .serialize_request(&key)
        .unwrap();
    let url = account
        .order(&NewOrder::of(&names))
        .await
        .unwrap()
        .url()
        .to_owned();
    let mut order = account.resume(&url).await.unwrap();
    order.finalize(request.der()).await.unwrap();
    assert_eq!(order.status(), OrderStatus::Valid);
    assert_eq!(private.id().as_str(), "internal");
    order
        .certificate(crate::base::clock::monotonic())
        .await
        .unwrap()
}

#[tokio::test]
async fn signs_short_lived_leaves_that_chain_to_its_root() {
    let private = private(Duration::from_secs(20));
    let opened = private.open(Vec::new(), private.clock.now()).await.unwrap();
    let account = opened.account;
    let chain = issue(&private, &*account, &["a.test", "*.b.test"]).await;
    let parsed: Vec<_> = chain
        .iter()
        .map(Vec::as_slice)
        .chain(account.root())
        .map(|der| x509_parser::parse_x509_certificate(der).unwrap().1)
        .collect();
    assert_eq!(parsed.len(), 3);
    for pair in parsed.windows(2) {
        pair[0]
            .verify_signature(Some(pair[1].public_key()))
            .unwrap();
        assert_eq!(pair[0].issuer(), pair[1].subject());
    }
    let leaf = &parsed[0];
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(
        names.critical,
        "without a subject the names are critical (RFC 5280 §4.2.1.6)"
    );
    let names: Vec<_> = names
        .value
        .general_names
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(names, ["DNSName(a.test)", "DNSName(*.b.test)"]);
    let validity = leaf.validity();
    let (from, to) = (
        validity.not_before.timestamp(),
        validity.not_after.timestamp(),
    );
    assert_eq!((from, to), (1_799_999_998, 1_800_000_020));
    assert!(!leaf.is_ca() && leaf.subject().iter().next().is_none());
    assert!(
        leaf.extended_key_usage()
            .unwrap()
            .unwrap()
            .value
            .server_auth
    );
}

#[tokio::test]
async fn keeps_root_and_issuing_ca_and_replaces_an_issuing_ca_near_its_end() {
    let private = private(DAY);
    let first = private.open(Vec::new(), private.clock.now()).await.unwrap();
    let slots: Vec<_> = first.made.iter().map(|made| made.slot.as_str()).collect();
    assert_eq!(slots, [ROOT, ISSUING]);
    let again = private
        .open(first.made.clone(), private.clock.now())
        .await
        .unwrap();
    assert!(again.made.is_empty());
    assert_eq!(again.account.root(), first.account.root());

    private.clock.advance(ISSUING_LIFETIME - ISSUING_RESERVE);
    assert!(first.account.usable_until() <= private.clock.now());
    let renewed = private
        .open(first.made.clone(), private.clock.now())
        .await
        .unwrap();
    let slots: Vec<_> = renewed.made.iter().map(|made| made.slot.as_str()).collect();
    assert_eq!(slots, [EARLIER, ISSUING]);
    assert_eq!(renewed.account.root(), first.account.root());
}

#[tokio::test]
async fn material_that_is_no_key_is_an_error_that_names_the_slot() {
    let private = private(DAY);
    let mut kept = private
        .open(Vec::new(), private.clock.now())
        .await
        .unwrap()
        .made;
    kept[1].secret = Secret::new(b"nonsense".to_vec());
    let error = private.open(kept, private.clock.now()).await.unwrap_err();
    assert!(matches!(error, CaError::Material { slot, .. } if slot == ISSUING));
}

#[tokio::test]
async fn an_order_url_of_another_kind_is_no_order() {
    let private = private(DAY);
    let opened = private.open(Vec::new(), private.clock.now()).await.unwrap();
    for url in [
        "https://ca.test/order/1",
        "private-order:",
        "private-order:-",
    ] {
        let order = opened.account.resume(url).await.map(|_order| ());
        assert!(matches!(order, Err(CaError::NoSuchOrder { .. })), "{url}");
    }
}

/// The list that `key` signs, with one revoked certificate.
fn list_of(account: &dyn Account, key: &IssuerKey, now: Timestamp) -> Vec<u8> {
    let revoked = RevokedSerial {
        serial: vec![0x40, 0x01],
        at: now,
        reason: RevocationReason::KeyCompromise,
    };
    let list = NewList {
        number: 7,
        this_update: now,
        next_update: now.plus(DAY),
        revoked: &[revoked],
    };
    account.lists().unwrap().sign_list(key, &list).unwrap()
}

#[tokio::test]
async fn leaves_name_the_list_of_the_key_that_signed_them() {
    let mut private = private(DAY);
    private.settings.list_base = Some("http://edge.test".to_owned());
    let opened = private.open(Vec::new(), private.clock.now()).await.unwrap();
    let chain = issue(&private, &*opened.account, &["a.test"]).await;
    let keys = opened.account.lists().unwrap().list_keys();
    assert_eq!(keys.len(), 1);
    let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    let points = leaf.extensions().iter().find_map(|extension| {
        if let ParsedExtension::CRLDistributionPoints(points) = extension.parsed_extension() {
            Some(format!("{points:?}"))
        } else {
            None
        }
    });
    let url = format!("http://edge.test{}", keys[0].key.list_path());
    assert!(points.unwrap().contains(&url), "{url}");
    let list = list_of(&*opened.account, &keys[0].key, private.clock.now());
    let (_, list) = x509_parser::parse_x509_crl(&list).unwrap();
    let (_, issuing) = x509_parser::parse_x509_certificate(&chain[1]).unwrap();
    list.verify_signature(issuing.public_key()).unwrap();
    assert_eq!(list.issuer(), issuing.subject());
    assert_eq!(list.crl_number().unwrap().to_string(), "7");
    let entry = list.iter_revoked_certificates().next().unwrap();
    assert_eq!(entry.raw_serial(), [0x40, 0x01]);
    assert_eq!(entry.reason_code().unwrap().1.0, 1);
}

#[tokio::test]
async fn after_rotation_the_key_before_goes_on_signing_its_list_until_its_certificate_ends() {
    let private = private(DAY);
    let tenant = TenantId::parse("acme").unwrap();
    let tenants = Private {
        settings: Settings {
            sharing: Sharing::PerTenant,
            ..private.settings.clone()
        },
        ..private
    };
    let domain = NamePattern::parse("acme.test").unwrap();
    let own = tenants.confined_to(&tenant, &[domain]).unwrap();
    let clock = tenants.clock.clone();
    let first = own.open(Vec::new(), clock.now()).await.unwrap();
    let before = first.account.lists().unwrap().list_keys();
    clock.advance(ISSUING_LIFETIME - ISSUING_RESERVE);
    let second = own.open(first.made.clone(), clock.now()).await.unwrap();
    let slots: Vec<_> = second.made.iter().map(|made| made.slot.as_str()).collect();
    assert_eq!(slots, ["earlier:acme", "issuing:acme"]);
    assert!(
        slots
            .iter()
            .all(|slot| own.belongs_to(slot) == Some(&tenant))
    );
    let keys = second.account.lists().unwrap().list_keys();
    assert_eq!((keys.len(), &keys[1..]), (2, &before[..]));
    let list = list_of(&*second.account, &before[0].key, clock.now());
    let (_, list) = x509_parser::parse_x509_crl(&list).unwrap();
    let (_, issuing) = x509_parser::parse_x509_certificate(&first.made[1].public).unwrap();
    list.verify_signature(issuing.public_key()).unwrap();

    // As it is opened at the next start, and when nothing that the key signed is left.
    let kept = |made: &[Material]| [&first.made[..1], made].concat();
    let again = own.open(kept(&second.made), clock.now()).await.unwrap();
    assert_eq!(again.account.lists().unwrap().list_keys(), keys);
    clock.advance(ISSUING_RESERVE);
    let later = own.open(kept(&second.made), clock.now()).await.unwrap();
    assert_eq!(later.account.lists().unwrap().list_keys(), keys[..1]);
}

//! Chains as other authorities make them, good and bad.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PKCS_ECDSA_P521_SHA512, PKCS_ED25519, SanType,
};
use time::OffsetDateTime;

use super::*;

const NOW: i64 = 1_800_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(NOW + seconds)
}

fn dates(params: &mut CertificateParams, from: i64, to: i64) {
    params.not_before = OffsetDateTime::from_unix_timestamp(NOW + from).unwrap();
    params.not_after = OffsetDateTime::from_unix_timestamp(NOW + to).unwrap();
}

/// A root, and an issuing authority below it.
struct World {
    root: Vec<u8>,
    issuing: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    dates(&mut params, -1000, 1000);
    params
}

fn world() -> World {
    let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let root_params = authority("root");
    let root = root_params.self_signed(&root_key).unwrap().der().to_vec();
    let root_issuer = Issuer::new(root_params, root_key);
    let params = authority("issuing");
    let issuing = params.signed_by(&key, &root_issuer).unwrap();
    World {
        root,
        issuing: issuing.der().to_vec(),
        issuer: Issuer::new(params, key),
    }
}

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    dates(&mut params, -10, 10);
    params
}

impl World {
    fn leaf(&self, params: &CertificateParams, key: &KeyPair) -> Vec<u8> {
        params.signed_by(key, &self.issuer).unwrap().der().to_vec()
    }

    fn checked(
        &self,
        params: &CertificateParams,
        key: &KeyPair,
        above: &[&Vec<u8>],
    ) -> Result<Checked, CheckError> {
        let mut chain = vec![self.leaf(params, key)];
        chain.extend(above.iter().map(|&der| der.clone()));
        check(&chain, Secret::new(key.serialize_der()), at(0))
    }
}

#[test]
fn a_good_chain_is_taken_without_its_root() {
    let (world, key) = (world(), KeyPair::generate().unwrap());
    let params = params(&["shop.acme.test", "*.acme.test", "shop.acme.test"]);
    for above in [vec![&world.issuing], vec![&world.issuing, &world.root]] {
        let checked = world.checked(&params, &key, &above).unwrap();
        let names: Vec<String> = checked.names.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["shop.acme.test", "*.acme.test"]);
        assert_eq!(checked.chain, std::slice::from_ref(&world.issuing));
        assert_eq!(checked.leaf.not_after, at(10));
        assert_eq!(checked.key.expose(), key.serialize_der());
    }
    let ed25519 = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    assert!(world.checked(&params, &ed25519, &[&world.issuing]).is_ok());
}

#[test]
fn what_no_client_would_accept_is_refused() {
    let (world, key) = (world(), KeyPair::generate().unwrap());
    let refuses = |change: &dyn Fn(&mut CertificateParams), expected: CheckError| {
        let mut params = params(&["a.test"]);
        change(&mut params);
        let found = world.checked(&params, &key, &[&world.issuing]).unwrap_err();
        assert_eq!(found, expected, "{found}");
    };
    refuses(&|p| dates(p, -10, 0), CheckError::Expired(at(0)));
    refuses(&|p| dates(p, 301, 400), CheckError::NotYetValid(at(301)));
    refuses(&|p| p.subject_alt_names.clear(), CheckError::NoNames);
    // Whether it has names or not: what is wrong is that it signs.
    let signs = IsCa::Ca(BasicConstraints::Unconstrained);
    refuses(&|p| p.is_ca = signs, CheckError::Authority);
    let intermediate = |p: &mut CertificateParams| {
        p.is_ca = signs;
        p.subject_alt_names.clear();
    };
    refuses(&intermediate, CheckError::Authority);
    let ip = |p: &mut CertificateParams| {
        p.subject_alt_names
            .push(SanType::IpAddress("192.0.2.1".parse().unwrap()));
    };
    refuses(&ip, CheckError::OtherName("192.0.2.1".to_owned()));
    let client = |p: &mut CertificateParams| {
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    };
    refuses(&client, CheckError::Chain(ChainError::NoServer));
    let many: Vec<String> = (0..=MOST_NAMES).map(|n| format!("n{n}.test")).collect();
    let many = CertificateParams::new(many).unwrap().subject_alt_names;
    refuses(
        &|p| p.subject_alt_names.clone_from(&many),
        CheckError::TooManyNames(MOST_NAMES + 1),
    );
}

#[test]
fn a_chain_that_does_not_build_is_refused() {
    let (world, key) = (world(), KeyPair::generate().unwrap());
    let params = params(&["a.test"]);
    let refused = |above: &[&Vec<u8>]| world.checked(&params, &key, above).unwrap_err();
    assert_eq!(refused(&[]), CheckError::Incomplete);
    let broken = CheckError::Chain(ChainError::BrokenLink(0));
    assert_eq!(refused(&[&world.root]), broken);
    let other = self::world();
    assert_eq!(refused(&[&other.issuing]), broken);
    let not_read = CheckError::Chain(ChainError::Unreadable(1));
    assert_eq!(refused(&[&b"junk".to_vec()]), not_read);
    let alone = params.self_signed(&key).unwrap().der().to_vec();
    let key = Secret::new(key.serialize_der());
    assert_eq!(
        check(&[alone], key, at(0)).unwrap_err(),
        CheckError::SelfSigned
    );
}

#[test]
fn a_key_of_another_certificate_or_of_a_kind_that_browsers_refuse_is_refused() {
    let (world, key) = (world(), KeyPair::generate().unwrap());
    let params = params(&["a.test"]);
    let chain = [world.leaf(&params, &key), world.issuing.clone()];
    let check = |key: &[u8]| check(&chain, Secret::new(key.to_vec()), at(0)).unwrap_err();
    let other = KeyPair::generate().unwrap();
    assert_eq!(check(&other.serialize_der()), CheckError::OtherKey);
    assert_eq!(check(b"no key"), CheckError::UnusableKey);
    let large = KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).unwrap();
    let refused = world.checked(&params, &large, &[&world.issuing]);
    assert_eq!(refused.unwrap_err(), CheckError::UnusableKey);
}

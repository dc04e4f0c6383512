//! Archives as Caddy writes them, and hostile ones.

use std::io::Cursor;

use tar::{Builder, Header};

use super::*;

const ISSUER: &str = "acme-v02.api.letsencrypt.org-directory";
const DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";
const ACCOUNT: &str = "https://acme-v02.api.letsencrypt.org/acme/acct/7";

/// An archive with these files, as Caddy writes them.
fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        archive
            .append_data(&mut header, path, content.as_bytes())
            .unwrap();
    }
    archive.into_inner().unwrap()
}

fn opened(archive: Vec<u8>) -> Result<Export<Cursor<Vec<u8>>>, ExportError> {
    Export::open(Cursor::new(archive))
}

fn metadata() -> String {
    // As Caddy 2.11 wrote it, shortened.
    format!(
        "{{\"sans\":[\"a.test\"],\"issuer_data\":{{\"url\":\"https://acme/cert\",\"ca\":\"{DIRECTORY}\",\
         \"account\":\"{ACCOUNT}\",\"renewal_info\":{{\"_uniqueIdentifier\":\"x.y\"}}}}}}"
    )
}

fn registration() -> String {
    format!(
        "{{\"status\":\"valid\",\"contact\":[\"mailto:ops@example.com\"],\"location\":\"{ACCOUNT}\"}}"
    )
}

fn shown(export: &mut Export<Cursor<Vec<u8>>>) -> Vec<String> {
    let mut shown = Vec::new();
    while let Some(found) = export.next_certificate().unwrap() {
        shown.push(match found {
            Ok(certificate) => format!(
                "{} {} {} {:?} {:?}",
                certificate.name,
                certificate.chain.expose_str().unwrap(),
                certificate.key.expose_str().unwrap(),
                certificate.directory.as_deref(),
                certificate.account.as_deref(),
            ),
            Err(left_out) => format!("{}: {}", left_out.what, left_out.why),
        });
    }
    shown
}

#[test]
fn certificates_and_the_account_are_found_whatever_their_order() {
    let (metadata, registration) = (metadata(), registration());
    let long = format!("{}.example.test", ["a"; 60].join("."));
    let path = |name: &str, ending: &str| format!("certificates/{ISSUER}/{name}/{name}{ending}");
    let paths = [
        (path("wildcard_.a.test", ".key"), "wild key"),
        (path("a.test", ".json"), metadata.as_str()),
        (
            format!("acme/{ISSUER}/users/ops@example.com/ops.key"),
            "account key",
        ),
        (path("a.test", ".key"), "key"),
        (path(&long, ".crt"), "long chain"),
        (path("wildcard_.a.test", ".crt"), "wild chain"),
        (
            format!("acme/{ISSUER}/users/ops@example.com/ops.json"),
            registration.as_str(),
        ),
        (path("a.test", ".crt"), "chain"),
        (path(&long, ".key"), "long key"),
        ("last_clean.json".to_owned(), "{}"),
        ("pki/authorities/local/root.key".to_owned(), "never read"),
        (format!("acme/{ISSUER}/challenge_tokens/a.test.json"), "{}"),
    ];
    let files: Vec<(&str, &str)> = paths
        .iter()
        .map(|(path, text)| (path.as_str(), *text))
        .collect();
    let mut export = opened(archive(&files)).unwrap();
    let [Ok(account)] = &export.accounts().unwrap()[..] else {
        panic!("one account");
    };
    assert_eq!(account.url, ACCOUNT);
    assert_eq!(account.directory.as_deref(), Some(DIRECTORY));
    assert_eq!(account.key.expose(), b"account key");
    let known = format!("a.test chain key Some({DIRECTORY:?}) Some({ACCOUNT:?})");
    let long = format!("{long} long chain long key None None");
    let expected = [
        long,
        known,
        "wildcard_.a.test wild chain wild key None None".to_owned(),
    ];
    assert_eq!(shown(&mut export), expected);
}

#[test]
fn what_is_incomplete_or_caddys_own_is_left_out_with_its_reason() {
    let large = "x".repeat(64 * 1024 + 1);
    let mut export = opened(archive(&[
        ("certificates/local/l.test/l.test.crt", "chain"),
        ("certificates/local/l.test/l.test.key", "key"),
        ("certificates/other/keyless.test/keyless.test.crt", "chain"),
        ("certificates/other/large.test/large.test.crt", &large),
        ("certificates/other/large.test/large.test.key", "key"),
        ("acme/other/users/default/default.json", "{}"),
        ("acme/other/users/default/default.key", "key"),
    ]))
    .unwrap();
    let shown = shown(&mut export);
    assert!(shown[0].starts_with("l.test: Caddy's own CA"), "{shown:?}");
    assert!(shown[1].starts_with("keyless.test: the archive lacks"));
    assert!(shown[2].starts_with("large.test: the archive lacks"));
    let accounts = export.accounts().unwrap();
    let left_out = accounts[0].as_ref().err().unwrap();
    assert!(left_out.why.contains("location"), "{left_out:?}");
}

#[test]
fn a_file_that_is_no_export_is_refused() {
    let text = b"certificate".repeat(100);
    let error = opened(text).unwrap_err();
    assert!(matches!(error, ExportError::NoArchive), "{error}");
    let other = archive(&[("etc/passwd", "root"), ("certificates/a.pem", "x")]);
    let error = opened(other).unwrap_err();
    assert!(matches!(error, ExportError::NoCertificates), "{error}");
    assert!(matches!(
        opened(Vec::new()).unwrap_err(),
        ExportError::NoCertificates
    ));
}

#[test]
fn nothing_of_a_key_that_is_taken_for_an_export_is_told() {
    const CANARY: &str = "MHcCAQEEICanary";
    let body = CANARY.repeat(100);
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{body}");
    // Behind another line it is no PEM for us; in an archive, its header is damaged.
    let mut damaged = archive(&[("certificates/i/a.test/a.test.key", &body)]);
    damaged.extend_from_slice(body.as_bytes());
    let begun = damaged.split_off(512);
    for (file, expected) in [
        (pem.clone(), "certificate import --chain FILE --key FILE"),
        (format!("\n{pem}"), "caddy storage export"),
        (body.clone(), "caddy storage export"),
        (String::from_utf8(begun).unwrap(), "caddy storage export"),
    ] {
        let error = opened(file.into_bytes()).unwrap_err();
        assert!(std::error::Error::source(&error).is_none());
        let told = format!("{error} {error:?}");
        assert!(told.contains(expected), "{told}");
        assert!(!told.contains("Canary"), "{told}");
    }
}

#[test]
fn a_hostile_archive_costs_little_and_reaches_no_file() {
    // A path that leads elsewhere is a key like any other: nothing is opened by it.
    let mut header = Header::new_gnu();
    header.set_size(5);
    let path = b"certificates/../../etc/passwd/passwd.crt";
    header.as_old_mut().name[..path.len()].copy_from_slice(path);
    header.set_cksum();
    let mut climbing = Builder::new(Vec::new());
    climbing.append(&header, &b"chain"[..]).unwrap();
    let good = archive(&[("certificates/i/a.test/a.test.crt", "chain")]);
    let mut bytes = climbing.into_inner().unwrap();
    bytes.truncate(bytes.len() - 1024);
    bytes.extend_from_slice(&good);
    let mut export = opened(bytes).unwrap();
    assert_eq!(shown(&mut export).len(), 1);

    // Links are passed over, and so is a long name without end.
    let mut link = Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    let mut links = Builder::new(Vec::new());
    let path = "certificates/i/a.test/a.test.key";
    links.append_link(&mut link, path, "/etc/shadow").unwrap();
    let mut long = Header::new_gnu();
    long.set_entry_type(tar::EntryType::GNULongName);
    long.set_size(1 << 20);
    long.set_cksum();
    links.append(&long, &vec![b'a'; 1 << 20][..]).unwrap();
    let mut bytes = links.into_inner().unwrap();
    bytes.truncate(bytes.len() - 1024);
    bytes.extend_from_slice(&good);
    let mut export = opened(bytes).unwrap();
    assert!(shown(&mut export)[0].contains("lacks its .crt or its .key"));

    // A header that promises more than there is ends the archive.
    let mut promising = Header::new_gnu();
    promising
        .set_path("certificates/i/b.test/b.test.crt")
        .unwrap();
    promising.set_size(u64::MAX / 4);
    promising.set_cksum();
    let mut bytes = good;
    bytes.truncate(bytes.len() - 1024);
    bytes.extend_from_slice(promising.as_bytes());
    // Whether it ends or is refused, nothing is allocated for what is not there.
    if let Ok(mut export) = opened(bytes) {
        assert_eq!(shown(&mut export).len(), 2);
    }
}

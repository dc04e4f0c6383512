//! A zone signed by BIND's tools, and unbound, which validates it: signatures and resolver as the world has them.

use std::path::Path;
use std::process::Command;

use super::place::{Place, port};
use super::process::{Process, command};

/// The zone; its names `good` and `bogus` lead to the story's own address.
const ZONE: &str = "example.com";

/// A validating resolver in the place of the story's name server. It knows the zone alone.
pub(crate) struct SignedZone {
    _resolver: Process,
}

impl SignedZone {
    /// Signed, and then the address of `bogus` replaced, as whoever forges an answer would.
    pub(crate) fn start(place: &Place) -> Self {
        let address = place.address();
        let zone = format!(
            "$ORIGIN {ZONE}.\n$TTL 5\n@ IN SOA ns admin 1 3600 600 86400 5\n@ IN NS ns\nns IN A {address}\n\
             good IN A {address}\nbogus IN A 192.0.2.1\n"
        );
        place.write("zone/plain", &zone);
        let folder = place.folder().join("zone");
        run(
            &folder,
            "dnssec-keygen",
            &["-q", "-a", "ECDSAP256SHA256", "-f", "KSK", ZONE],
        );
        run(
            &folder,
            "dnssec-signzone",
            &["-S", "-z", "-o", ZONE, "-f", "signed", "plain"],
        );
        let signed = std::fs::read_to_string(folder.join("signed")).unwrap();
        let forged = signed.replace("192.0.2.1", &address.to_string());
        assert_ne!(signed, forged);
        place.write("zone/signed", &forged);
        let key = std::fs::read_dir(&folder).unwrap().find_map(|entry| {
            let path = entry.unwrap().path();
            let is_key = path.extension().is_some_and(|ending| ending == "key");
            is_key.then(|| std::fs::read_to_string(path).unwrap())
        });
        place.write("zone/anchor", &key.unwrap());
        let config = place.write("zone/unbound.conf", &config(place, &folder));
        let mut start = command("/usr/sbin/unbound");
        start.arg("-d").arg("-c").arg(config);
        let mut resolver = Process::start("unbound", &mut start);
        resolver.wait_for_line("start of service");
        Self {
            _resolver: resolver,
        }
    }
}

fn config(place: &Place, folder: &Path) -> String {
    let (address, port) = (place.address(), port::DNS);
    let file = |name: &str| format!("{:?}", folder.join(name));
    let (anchor, zone) = (file("anchor"), file("signed"));
    format!(
        "server:\n  directory: {folder:?}\n  username: \"\"\n  chroot: \"\"\n  pidfile: \"\"\n  use-syslog: no\n  \
         num-threads: 1\n  verbosity: 1\n  interface: {address}@{port}\n  access-control: 127.0.0.0/8 allow\n  \
         module-config: \"validator iterator\"\n  trust-anchor-file: {anchor}\n  ede: yes\n  \
         local-zone: \".\" always_nxdomain\n  local-zone: \"{ZONE}.\" transparent\n\
         auth-zone:\n  name: \"{ZONE}\"\n  zonefile: {zone}\n  for-upstream: yes\n  for-downstream: no\n  \
         fallback-enabled: no\nremote-control:\n  control-enable: no\n"
    )
}

fn run(folder: &Path, program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap_or_else(|error| {
            panic!("{program} does not start: {error}; scripts/test installs it")
        });
    assert!(output.status.success(), "{program}: {output:?}");
}

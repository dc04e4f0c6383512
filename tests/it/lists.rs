//! Lists of revoked certificates: fetched by curl over port 80, judged by OpenSSL.

use std::process::Command;
use std::time::Duration;

use crate::support::edge::{Edge, Setup};
use crate::support::openssl::openssl;
use crate::support::place::Place;
use crate::support::upstream::Upstream;
use crate::support::wait;

/// Where clients reach port 80, as far as certificates say.
const HOST: &str = "edge.example.net";

/// A client who checks certificates in files of the story's folder against the list that they name.
struct Checker<'a> {
    edge: &'a Edge,
    place: &'a Place,
}

impl Checker<'_> {
    fn file(&self, name: &str) -> String {
        let path = self.place.folder().join(name);
        path.to_str().unwrap().to_owned()
    }

    /// Where a certificate says that its list is.
    fn list_url(&self, certificate: &str) -> String {
        let file = self.file(certificate);
        let said = openssl(&[
            "x509",
            "-noout",
            "-ext",
            "crlDistributionPoints",
            "-in",
            &file,
        ]);
        let (_, url) = said.split_once("URI:").unwrap_or_else(|| panic!("{said}"));
        url.lines().next().unwrap().trim().to_owned()
    }

    /// Fetches the list, and writes it down as PEM.
    #[track_caller]
    fn fetch(&self, url: &str) {
        let http = self.edge.http();
        let connect = format!("::{}:{}", http.ip(), http.port());
        let [der, pem] = ["list.der", "list.pem"].map(|name| self.file(name));
        let fetched = Command::new("curl")
            .args([
                "--silent",
                "--fail",
                "--noproxy",
                "*",
                "--connect-to",
                &connect,
            ])
            .args(["--output", &der, url])
            .status()
            .unwrap();
        assert!(fetched.success(), "{url}: {fetched}");
        let said = openssl(&["crl", "-inform", "DER", "-in", &der, "-out", &pem]);
        assert_eq!(said, "");
    }

    /// Whether the issuing certificate that comes with a certificate signed the list.
    fn list_signature(&self, certificate: &str) -> String {
        let whole = std::fs::read_to_string(self.file(certificate)).unwrap();
        let mut begins = whole.match_indices("-----BEGIN CERTIFICATE-----");
        let (issuing, _) = begins.nth(1).unwrap();
        let (_, issuing) = whole.split_at(issuing);
        self.place.write("issuing.pem", issuing);
        let [list, issuing] = ["list.pem", "issuing.pem"].map(|name| self.file(name));
        openssl(&[
            "crl", "-noout", "-verify", "-CAfile", &issuing, "-in", &list,
        ])
    }

    fn verify(&self, certificate: &str) -> String {
        let [list, file] = ["list.pem", certificate].map(|name| self.file(name));
        let root = self.edge.trusted().to_str().unwrap();
        openssl(&[
            "verify",
            "-crl_check",
            "-CRLfile",
            &list,
            "-CAfile",
            root,
            "-untrusted",
            &file,
            &file,
        ])
    }

    fn number(&self) -> u64 {
        let said = openssl(&["crl", "-noout", "-crlnumber", "-in", &self.file("list.pem")]);
        let number = said.trim().trim_start_matches("crlNumber=0x");
        u64::from_str_radix(number, 16).unwrap_or_else(|error| panic!("{said}: {error}"))
    }

    /// Fetches until the list has a greater number.
    fn number_above(&self, least: u64, url: &str) -> u64 {
        wait::until("the list is signed anew", || {
            self.fetch(url);
            Some(self.number()).filter(|number| *number > least)
        })
    }
}

/// A private CA of which each tenant has its own, whose lists are good for 16 s.
fn short_lists(place: &Place, upstream: &Upstream) -> Setup {
    let private = "kind = \"private\"";
    let short = format!("{private}\nper_tenant = true\ncrl_lifetime = \"16s\"");
    Setup::new(place)
        .private_ca(Duration::from_secs(86_400))
        .replace(private, &short)
        .replace("[edge]", &format!("[edge]\ncname_target = \"{HOST}\""))
        .upstream(upstream)
        .tenant("acme", &["shop.acme.com"])
}

fn issue_client(setup: &Setup, name: &str, file: &str) {
    let issue = ["certificate", "issue-client", "--tenant", "acme"];
    setup.succeed(&[&issue[..], &["--name", name, "--out", file]].concat());
}

#[test]
fn the_list_that_certificates_name_is_there_and_stays_good_over_restarts() {
    let place = Place::claim();
    let upstream = Upstream::start(&place);
    let setup = short_lists(&place, &upstream);
    let edge = setup.start();
    let client = Checker {
        edge: &edge,
        place: &place,
    };
    issue_client(&setup, "robot", &client.file("robot.pem"));
    let url = client.list_url("robot.pem");
    assert!(url.starts_with(&format!("http://{HOST}:")), "{url}");
    client.fetch(&url);
    let said = client.list_signature("robot.pem");
    assert!(said.contains("verify OK"), "{said}");
    let said = client.verify("robot.pem");
    assert!(said.contains("robot.pem: OK"), "{said}");

    // Asked again it is not sent again, until there is another.
    let asked = || edge.get_plain(&url);
    wait::until("the list has not changed since", || {
        let tag = asked().answered().field("etag").unwrap().to_owned();
        let header = format!("If-None-Match: {tag}");
        let again = asked().with(["--header", &header]).answered();
        (again.status == 304).then_some(())
    });
    let first = client.number();
    let second = client.number_above(first, &url);
    drop(edge);

    let edge = setup.start();
    let client = Checker {
        edge: &edge,
        place: &place,
    };
    client.number_above(second, &url);
    let said = client.verify("robot.pem");
    assert!(said.contains("robot.pem: OK"), "{said}");
}

#[test]
fn a_client_whose_key_leaked_is_on_the_list_and_passes_no_check_any_more() {
    let place = Place::claim();
    let upstream = Upstream::start(&place);
    let setup = short_lists(&place, &upstream);
    let edge = setup.start();
    let client = Checker {
        edge: &edge,
        place: &place,
    };
    issue_client(&setup, "robot", &client.file("robot.pem"));
    let listed = setup.succeed(&["certificate", "list", "--tenant", "acme", "--json"]);
    let robot = listed
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .find(|certificate| certificate["client"] == "robot");
    let robot = robot.unwrap_or_else(|| panic!("{listed}"));
    let listed = setup.succeed(&["certificate", "list", "--tenant", "acme"]);
    let line = listed.lines().find(|line| line.contains("  robot  "));
    let line = line.unwrap_or_else(|| panic!("{listed}"));
    assert!(line.contains(robot["serial"].as_str().unwrap()), "{listed}");
    let id = robot["id"].as_str().unwrap();
    setup.succeed(&["certificate", "revoke", id, "--compromised"]);
    let url = client.list_url("robot.pem");
    wait::until("the client is refused", || {
        client.fetch(&url);
        let said = client.verify("robot.pem");
        said.contains("certificate revoked").then_some(())
    });
    // Its key was never here: nothing is left to destroy.
    let shown = wait::until("the job is done", || {
        let shown = setup.succeed(&["certificate", "show", id]);
        (shown.contains("revoked") && !shown.contains("next step")).then_some(shown)
    });
    assert!(!shown.contains("key destroyed"), "{shown}");
    // And it served nothing that could have been replaced.
    assert!(!shown.contains("replaced"), "{shown}");
}

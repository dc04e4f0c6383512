//! What the story's name server answers: by default every name leads to the story's own address.

use std::net::IpAddr;

use super::curl;
use super::place::{Place, port};

/// The name server that the CA asks, and the edge where a story says so.
pub(crate) struct Dns {
    management: String,
}

impl Dns {
    pub(crate) fn of(place: &Place) -> Self {
        Self {
            management: format!("http://{}", place.at(port::DNS_MANAGEMENT)),
        }
    }

    /// The name leads to these addresses alone.
    pub(crate) fn leads(&self, name: &str, addresses: &[IpAddr]) {
        for path in ["clear-a", "clear-aaaa", "clear-cname", "clear-servfail"] {
            self.say(path, &serde_json::json!({ "host": absolute(name) }));
        }
        for (path, of_family) in [
            ("add-a", IpAddr::is_ipv4 as fn(&IpAddr) -> bool),
            ("add-aaaa", IpAddr::is_ipv6),
        ] {
            let addresses: Vec<&IpAddr> = addresses.iter().filter(|one| of_family(one)).collect();
            if !addresses.is_empty() {
                self.say(
                    path,
                    &serde_json::json!({ "host": absolute(name), "addresses": addresses }),
                );
            }
        }
    }

    /// The name is an alias.
    pub(crate) fn alias(&self, name: &str, target: &str) {
        self.say(
            "set-cname",
            &serde_json::json!({ "host": absolute(name), "target": absolute(target) }),
        );
    }

    /// Who may certify the name and those below it.
    pub(crate) fn permits(&self, name: &str, tag: &str, value: &str) {
        let policy = serde_json::json!({ "tag": tag, "value": value });
        let said = serde_json::json!({ "host": absolute(name), "policies": [policy] });
        self.say("add-caa", &said);
    }

    /// The name's servers fail.
    pub(crate) fn fails(&self, name: &str) {
        self.say(
            "set-servfail",
            &serde_json::json!({ "host": absolute(name) }),
        );
    }

    fn say(&self, path: &str, what: &serde_json::Value) {
        let url = format!("{}/{path}", self.management);
        let answer = curl::get(&url)
            .with(["--data".to_owned(), what.to_string()])
            .answered();
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    }
}

fn absolute(name: &str) -> String {
    format!("{name}.")
}

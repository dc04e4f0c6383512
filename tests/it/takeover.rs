//! A user moves over from Caddy, without a call to the CA.

use std::thread;
use std::time::Duration;

use crate::support::caddy::Caddy;
use crate::support::edge::Setup;
use crate::support::pebble::{Pebble, Terms};
use crate::support::place::Place;
use crate::support::rounds;
use crate::support::upstream::Upstream;

/// Names that are visited at the same time.
const AT_ONCE: usize = 20;

#[test]
fn names_of_caddy_are_served_without_asking_the_ca() {
    let place = Place::claim();
    let mut pebble = Pebble::start(&place);
    let upstream = Upstream::start(&place);
    // Caddy orders ten at once and one a second from then on.
    let names: Vec<String> = (0..rounds(20).min(200))
        .map(|number| format!("n{number}.example.com"))
        .collect();
    for name in &names {
        upstream.allow(name);
    }
    let caddy = Caddy::start(&place, &pebble, &upstream);
    for part in names.chunks(AT_ONCE) {
        thread::scope(|scope| {
            for name in part {
                scope.spawn(|| caddy.visit(name));
            }
        });
    }
    let export = caddy.export();
    let export = export.to_str().unwrap();
    let requests = pebble.requests();

    let setup = Setup::new(&place)
        .ca(&pebble)
        .upstream(&upstream)
        .section(&format!(
            "[on_demand]\nask = \"http://{}/allow\"",
            upstream.address()
        ));
    let edge = setup.start();
    let first = setup.succeed(&["import", "caddy", export]);
    // The account is one more.
    let all = format!("{} imported, 0 unchanged, 0 skipped", names.len() + 1);
    assert!(first.contains(&all), "{first}");
    let again = setup.succeed(&["import", "caddy", export]);
    let all = format!(
        "0 imported, {} unchanged, 0 skipped; nothing",
        names.len() + 1
    );
    assert!(again.contains(&all), "{again}");

    assert_eq!(pebble.requests(), requests, "the CA was asked");
    pebble.stop();
    for name in &names {
        let answer = edge.get(&format!("https://{name}/")).answered();
        assert_eq!(answer.status, 200, "{name}");
    }
    let listed = setup.succeed(&["certificate", "list", "--json"]);
    assert_eq!(
        listed.matches("\"origin\":\"imported\"").count(),
        names.len()
    );
}

#[test]
fn what_caddy_ordered_is_renewed_by_its_account_and_says_what_it_replaces() {
    const NAME: &str = "shop.example.com";
    let place = Place::claim();
    let terms = Terms {
        lifetime: Duration::from_secs(60),
        ..Terms::default()
    };
    let pebble = Pebble::start_with(&place, terms);
    let upstream = Upstream::start(&place);
    upstream.allow(NAME);
    let caddy = Caddy::start(&place, &pebble, &upstream);
    caddy.visit(NAME);
    let export = caddy.export();
    let accounts = pebble.accounts();

    let setup = Setup::new(&place)
        .ca(&pebble)
        .upstream(&upstream)
        .tenant("acme", &[NAME])
        .replace("obtain = \"at-once\"", "obtain = \"at-first-visit\"");
    let edge = setup.start();
    setup.succeed(&["import", "caddy", export.to_str().unwrap()]);
    let shown = setup.succeed(&["domain", "show", NAME]);
    assert!(shown.contains("tenant       acme (from file)"), "{shown}");
    let renewed = ["kind=\"renewal\"", "outcome=\"issued\""];
    edge.wait_for_metric("proxy_issuances_total", &renewed, 1.0);
    // Placed by the account that ordered the first; another would be a second one, and could not replace it.
    assert_eq!(pebble.accounts(), accounts);
    assert_eq!(pebble.replaced(), 1);
}

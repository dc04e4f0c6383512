//! Renewal, with certificates that live for seconds.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::edge::{Edge, Setup};
use crate::support::pebble::{Pebble, Terms};
use crate::support::place::Place;
use crate::support::upstream::Upstream;
use crate::support::visitor::Visitor;

const NAME: &str = "shop.example.com";
const RENEWED: &[&str] = &["kind=\"renewal\"", "outcome=\"issued\""];

#[test]
fn renewals_swap_under_load_and_no_request_fails() {
    let place = Place::claim();
    let terms = Terms {
        lifetime: Duration::from_secs(20),
        ..Terms::default()
    };
    let pebble = Pebble::start_with(&place, terms);
    let upstream = Upstream::start(&place);
    let edge = Setup::new(&place)
        .ca(&pebble)
        .upstream(&upstream)
        .tenant("acme", &[NAME])
        .start();
    edge.wait_for_metric("proxy_issuances_total", &["outcome=\"issued\""], 1.0);

    let load = Load::default();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| load.new_connections(&edge));
            scope.spawn(|| load.one_connection(&edge));
        }
        // A failed wait must end the load too, or the scope waits for ever.
        let stop = StopAtEnd(&load.done);
        edge.wait_for_metric("proxy_issuances_total", RENEWED, 2.0);
        drop(stop);
    });

    let failures = load.failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{failures:#?}");
    let certificates = load.certificates.into_inner().unwrap();
    assert!(
        certificates.len() >= 2,
        "new connections met {} certificates",
        certificates.len()
    );
    // Each renewal is one order.
    let renewals = edge.metrics().sum("proxy_issuances_total", RENEWED);
    let orders = u32::try_from(pebble.orders()).unwrap();
    assert!(f64::from(orders) <= renewals + 2.0, "{orders} orders");
}

/// Visitors that never rest.
#[derive(Default)]
struct Load {
    done: AtomicBool,
    failures: Mutex<Vec<String>>,
    certificates: Mutex<Vec<Vec<u8>>>,
}

impl Load {
    fn new_connections(&self, edge: &Edge) {
        while !self.done.load(Ordering::SeqCst) {
            let asked = Visitor::connect(edge.https(), NAME, edge.trusted())
                .and_then(|mut visitor| Ok((visitor.certificate(), visitor.get("/")?.0.status)));
            match asked {
                Ok((certificate, 200)) => {
                    let mut certificates = self.certificates.lock().unwrap();
                    if !certificates.contains(&certificate) {
                        certificates.push(certificate);
                    }
                }
                Ok((_, status)) => self.failed(format!("status {status}")),
                Err(error) => self.failed(format!("new connection: {error}")),
            }
        }
    }

    fn one_connection(&self, edge: &Edge) {
        let mut visitor = Visitor::connect(edge.https(), NAME, edge.trusted()).unwrap();
        while !self.done.load(Ordering::SeqCst) {
            match visitor.get("/") {
                Ok((head, _)) if head.status == 200 && !head.closes => {}
                Ok((head, _)) => return self.failed(format!("{head:?}")),
                Err(error) => return self.failed(format!("open connection: {error}")),
            }
        }
    }

    fn failed(&self, why: String) {
        self.failures.lock().unwrap().push(why);
    }
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

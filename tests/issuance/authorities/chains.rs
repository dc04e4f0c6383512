//! Which of the chains that a CA offers is served.

use super::*;

/// The common names of the subject of a certificate and of its issuer.
fn names_of(der: &[u8]) -> [String; 2] {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).unwrap();
    [certificate.subject(), certificate.issuer()].map(|name| {
        let name = name.iter_common_name().next().unwrap();
        name.as_str().unwrap().to_owned()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_the_chains_that_an_authority_offers_the_preferred_one_is_served() {
    let place = Place::claim();
    let environment = [("PEBBLE_ALTERNATE_ROOTS", "2")];
    let pebble = Pebble::start_with(&place, &json!({}), &environment);
    let [wanted, _] = names_of(&pebble.issuing_root(2));
    let served_by = async |preferred: &str, name: &str| {
        let preferring = acme::Settings {
            preferred_chain: Some(preferred.to_owned()),
            ..settings(&pebble)
        };
        let engine = Engine::start(&place, Kind::Acme(preferring), short()).await;
        engine.run();
        engine.register(name).await;
        let credential = engine.obtain(name).await.unwrap();
        engine.tasks.cancel();
        engine.tasks.finish(PATIENCE).await;
        let [_, issuer] = names_of(credential.certified.cert.last().unwrap());
        issuer
    };
    assert_eq!(served_by(&wanted, "a.example.com").await, wanted);
    // One that is not offered is no reason to serve none.
    let default = served_by("No Such Root X1", "b.example.com").await;
    assert_eq!(names_of(&pebble.issuing_root(0))[0], default);
    assert_ne!(default, wanted);
}

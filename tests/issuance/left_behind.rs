//! The states in which a crash may leave an order, each made on purpose.

use rcgen::{KeyPair, PublicKeyData as _};

use super::pebble::{Pebble, Place};
use super::{Engine, Stage};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_left_behind_is_taken_up_in_every_state() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let engine = Engine::with_pebble(&place, &pebble).await;
    let mut expected = Vec::new();
    for (name, stage, orders) in [
        ("placed.example.com", Stage::Placed, 1),
        ("proved.example.com", Stage::Proved, 1),
        ("handed-in.example.com", Stage::HandedIn, 1),
        // Nothing can be done with a failed order: one more is placed, and no third.
        ("failed.example.com", Stage::Failed, 2),
    ] {
        engine.register(name).await;
        let key = KeyPair::generate().unwrap();
        let order = engine.order(name, &key, stage).await;
        engine.leave(name, order.url(), &key).await;
        expected.push((name, key, orders));
    }
    let left: usize = expected.len();
    assert_eq!(pebble.orders(), left);
    engine.run();
    let mut placed = 0;
    for (name, key, orders) in &expected {
        let credential = engine.obtain(name).await.unwrap();
        let (_, leaf) = x509_parser::parse_x509_certificate(&credential.certified.cert[0]).unwrap();
        let same_key = leaf.public_key().raw == key.subject_public_key_info();
        assert_eq!(same_key, *orders == 1, "{name}: a new order has a new key");
        assert_eq!(engine.job(name).await.order_url, None, "{name}");
        placed += orders;
    }
    assert_eq!(pebble.orders(), placed);
    assert_eq!(pebble.issued(), left);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_the_authority_does_not_know_is_placed_anew() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let engine = Engine::with_pebble(&place, &pebble).await;
    engine.register("gone.example.com").await;
    let url = pebble.directory().replace("/dir", "/my-order/unknown");
    let key = KeyPair::generate().unwrap();
    engine.leave("gone.example.com", &url, &key).await;
    engine.run();
    engine.obtain("gone.example.com").await.unwrap();
    assert_eq!(pebble.orders(), 1);
}

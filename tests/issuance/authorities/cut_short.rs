//! The making of an account, cut short at any point.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_nobody_kept_is_found_by_its_key_and_no_second_is_made() {
    let place = Place::claim();
    let pebble = Pebble::start_with(&place, &bound(MAC_KEY.0), &[]);
    let tasks = Tasks::new();
    let with_binding = acme::Settings {
        binding: Some(Binding {
            key_id: "kid-1".to_owned(),
            hmac_key: Secret::new(MAC_KEY.1.to_vec()),
        }),
        ..settings(&pebble)
    };
    let ca = adapter(&with_binding, &tasks);
    let key = ca.first_key(&[]).unwrap().unwrap();
    assert!(key.public.is_empty());
    // Kept, a key is the account's, whatever the authority knows of it.
    assert!(ca.first_key(std::slice::from_ref(&key)).unwrap().is_none());
    // Killed before the authority was told.
    let made = works(&*ca, vec![key.clone()]).await.unwrap();
    assert_eq!((made[0].slot == key.slot, pebble.accounts()), (true, 1));
    // Killed after it had made the account, before that was kept: the binding is not used again, and not needed.
    let without = adapter(&settings(&pebble), &tasks);
    let found = works(&*without, vec![key]).await.unwrap();
    assert_eq!((&found[0].public, pebble.accounts()), (&made[0].public, 1));
}

//! Authorities opened by several at once.

use super::*;

#[tokio::test]
async fn two_processes_that_open_a_private_ca_at_once_end_up_with_one_root() {
    let world = World::new(quick()).await;
    let open = || {
        let private = Private::new(
            CaId::new("internal"),
            private::Settings::default(),
            world.clock.clone(),
        );
        let accounts = Accounts::new(accounts::Parts {
            authorities: vec![Arc::new(private)],
            store: Arc::clone(&world.parts.store),
            vault: world.parts.vault.clone(),
            clock: world.clock.clone(),
            tasks: world.tasks.clone(),
        });
        async move { accounts.root(&CaId::new("internal")).await.unwrap() }
    };
    let (one, two, three) = tokio::join!(open(), open(), open());
    assert!(one.is_some());
    assert!(one == two && two == three);
}

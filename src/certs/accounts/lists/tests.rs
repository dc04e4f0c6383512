//! Lists in a real store, by real private CAs, of processes that come and go.

use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::base::clock::Clock;
use crate::ca::private::{Private, Settings};
use crate::certs::accounts::Parts;
use crate::certs::vault::Vault;
use crate::keys;
use crate::store::Store;
use crate::store::embedded::{self, Embedded};
use crate::store::record::{AuditActor, KeyOwner};

const CA: &str = "own";

/// A machine: its disk, its clock, its configuration.
struct Machine {
    folder: tempfile::TempDir,
    clock: Clock,
    sharing: Sharing,
}

/// A process on it.
struct Process {
    accounts: Accounts,
    tasks: Tasks,
}

impl Machine {
    fn new(sharing: Sharing) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            clock: Clock::manual(Timestamp::from_seconds(1_800_000_000)),
            sharing,
        }
    }

    async fn store(&self, tasks: &Tasks) -> Arc<dyn Store> {
        let settings = embedded::Settings::in_folder(self.folder.path().join("data"));
        let opened = Embedded::open(settings, self.clock.clone(), tasks).await;
        Arc::new(opened.unwrap())
    }

    async fn start(&self) -> Process {
        let tasks = Tasks::new();
        let store = self.store(&tasks).await;
        let key_file = self.folder.path().join("kek");
        let vault = Vault::unlock(Arc::clone(&store), &keys::Settings { key_file }).await;
        let settings = Settings {
            sharing: self.sharing,
            ..Settings::default()
        };
        let private = Private::new(CaId::new(CA), settings, self.clock.clone());
        let accounts = Accounts::new(Parts {
            authorities: vec![Arc::new(private)],
            store,
            vault: vault.unwrap(),
            clock: self.clock.clone(),
            tasks: tasks.clone(),
        });
        Process { accounts, tasks }
    }
}

fn tenant(slug: &str) -> TenantId {
    TenantId::parse(slug).unwrap()
}

impl Process {
    /// A client's certificate, and the key that signed it.
    async fn issue(&self, of: &str) -> (Vec<u8>, IssuerKey) {
        let account = self
            .accounts
            .account_for(&tenant(of), &[], &CaId::new(CA))
            .await
            .unwrap();
        let key = KeyPair::generate().unwrap();
        let request = CertificateParams::new(Vec::new())
            .unwrap()
            .serialize_request(&key)
            .unwrap();
        let clients = account.clients().unwrap();
        let chain = clients.certify(&tenant(of), "robot", request.der());
        let leaf = chain.unwrap().swap_remove(0);
        let (_, parsed) = x509_parser::parse_x509_certificate(&leaf).unwrap();
        let by = signed_by(&parsed).unwrap();
        (leaf, by)
    }

    async fn revoke(&self, of: &str, leaf: &[u8]) -> bool {
        let ca = CaId::new(CA);
        self.accounts
            .put_on_list((&tenant(of), &ca), leaf, RevocationReason::Superseded)
            .await
            .unwrap()
    }

    /// The number of the published list, and whether the certificate is on it.
    fn published(&self, by: &IssuerKey, leaf: &[u8]) -> Option<(u64, bool)> {
        let list = self.accounts.lists().find(by.as_str())?;
        let (_, list) = x509_parser::parse_x509_crl(&list.der).unwrap();
        let (_, leaf) = x509_parser::parse_x509_certificate(leaf).unwrap();
        let number = list.crl_number().unwrap().to_string().parse().unwrap();
        let mut entries = list.iter_revoked_certificates();
        let listed = entries.any(|entry| entry.raw_serial() == leaf.raw_serial());
        Some((number, listed))
    }

    fn end(self) {
        self.tasks.cancel();
    }
}

#[tokio::test]
async fn a_revoked_certificate_is_on_the_list_at_once_and_after_every_start() {
    for sharing in [Sharing::Everyone, Sharing::PerTenant] {
        let machine = Machine::new(sharing);
        let first = machine.start().await;
        let (leaf, by) = first.issue("acme").await;
        let (other, _) = first.issue("acme").await;
        let (number, listed) = first.published(&by, &leaf).unwrap();
        assert!(!listed, "there is a list before anything is revoked");
        assert!(first.revoke("acme", &leaf).await);
        let (next, listed) = first.published(&by, &leaf).unwrap();
        assert!(number < next && listed);
        assert_eq!(first.published(&by, &other), Some((next, false)));
        // Once more changes nothing.
        assert!(first.revoke("acme", &leaf).await);
        assert_eq!(first.published(&by, &leaf), Some((next, true)));
        first.end();

        let second = machine.start().await;
        assert_eq!(second.published(&by, &leaf), None);
        second.accounts.read_lists().await;
        assert_eq!(second.published(&by, &leaf), Some((next, true)));
    }
}

#[tokio::test]
async fn what_was_signed_before_sharing_changed_keeps_its_list_and_is_revoked() {
    for (before, after) in [
        (Sharing::Everyone, Sharing::PerTenant),
        (Sharing::PerTenant, Sharing::Everyone),
    ] {
        let mut machine = Machine::new(before);
        let first = machine.start().await;
        let (leaf, by) = first.issue("acme").await;
        let (number, _) = first.published(&by, &leaf).unwrap();
        first.end();

        machine.sharing = after;
        let second = machine.start().await;
        second.accounts.read_lists().await;
        assert_eq!(second.published(&by, &leaf), Some((number, false)));
        assert!(second.revoke("acme", &leaf).await);
        let (next, listed) = second.published(&by, &leaf).unwrap();
        assert!(number < next && listed);
        let (other, by_other) = second.issue("acme").await;
        assert!(by_other != by && second.revoke("acme", &other).await);
        assert!(second.published(&by_other, &other).unwrap().1);
        // Both are signed anew in time.
        machine.clock.advance(Duration::from_secs(12 * 3600));
        second.accounts.renew_due().await;
        let (last, listed) = second.published(&by, &leaf).unwrap();
        assert!(next < last && listed);
        assert!(second.published(&by_other, &other).unwrap().1);
        second.end();

        machine.sharing = before;
        let third = machine.start().await;
        third.accounts.read_lists().await;
        assert_eq!(third.published(&by, &leaf), Some((last, true)));
        let (again, by_again) = third.issue("acme").await;
        assert!(by_again == by && third.revoke("acme", &again).await);
        assert!(third.published(&by, &again).unwrap().1);
        assert!(third.published(&by_other, &other).unwrap().1);
    }
}

#[tokio::test]
async fn a_list_is_signed_anew_in_time_also_when_that_was_due_while_nothing_ran() {
    let machine = Machine::new(Sharing::Everyone);
    let first = machine.start().await;
    let (leaf, by) = first.issue("acme").await;
    first.revoke("acme", &leaf).await;
    let (number, _) = first.published(&by, &leaf).unwrap();
    let wait = first.accounts.renew_due().await;
    assert!(wait > Duration::ZERO);
    assert_eq!(first.published(&by, &leaf), Some((number, true)));
    machine.clock.advance(Duration::from_secs(12 * 3600));
    first.accounts.renew_due().await;
    let (next, listed) = first.published(&by, &leaf).unwrap();
    assert!(number < next && listed);
    first.end();

    machine.clock.advance(Duration::from_secs(3 * 86_400));
    let second = machine.start().await;
    second.accounts.read_lists().await;
    assert_eq!(second.published(&by, &leaf), Some((next, true)));
    second.accounts.renew_due().await;
    let (last, listed) = second.published(&by, &leaf).unwrap();
    assert!(next < last && listed);
}

#[tokio::test]
async fn two_processes_lose_none_of_each_others_revocations() {
    let machine = Machine::new(Sharing::Everyone);
    let (one, two) = (machine.start().await, machine.start().await);
    let (first, by) = one.issue("acme").await;
    let (second, _) = two.issue("acme").await;
    tokio::join!(one.revoke("acme", &first), two.revoke("acme", &second));
    one.accounts.read_lists().await;
    for leaf in [&first, &second] {
        assert!(one.published(&by, leaf).unwrap().1);
    }
}

#[tokio::test]
async fn what_another_signed_is_not_revoked() {
    let (ours, theirs) = (
        Machine::new(Sharing::Everyone),
        Machine::new(Sharing::Everyone),
    );
    let (leaf, _) = theirs.start().await.issue("acme").await;
    let process = ours.start().await;
    let ca = CaId::new(CA);
    for leaf in [leaf.as_slice(), b"no certificate"] {
        let refused = process
            .accounts
            .put_on_list((&tenant("acme"), &ca), leaf, RevocationReason::Unspecified)
            .await;
        let error = refused.unwrap_err();
        assert!(matches!(
            &*error,
            AccountError::Ca(CaError::Material { .. })
        ));
    }
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_named_and_stops_no_issuing() {
    let machine = Machine::new(Sharing::Everyone);
    let process = machine.start().await;
    spoil(&process, SLOT).await;
    let (leaf, _) = process.issue("acme").await;
    let ca = CaId::new(CA);
    let refused = process
        .accounts
        .put_on_list((&tenant("acme"), &ca), &leaf, RevocationReason::Unspecified)
        .await;
    assert!(refused.unwrap_err().to_string().contains(SLOT));
}

async fn put_tenant(process: &Process, slug: &str) {
    let put = Operation::PutTenant {
        id: tenant(slug),
        source: crate::model::domain::Source::File,
    };
    let store = &process.accounts.0.store;
    let by = Deadline::after(PATIENCE);
    let scope = TenantScope::operator();
    store
        .apply(by, &scope, Batch::new().then(put))
        .await
        .unwrap();
}

/// The newest data key of a tenant.
async fn data_key(process: &Process, slug: &str) -> Option<u32> {
    let owner = KeyOwner::Tenant(tenant(slug));
    let store = &process.accounts.0.store;
    let by = Deadline::after(PATIENCE);
    let found = store.data_key(by, &owner, None).await.unwrap();
    found.map(|record| record.id)
}

#[tokio::test]
async fn a_destroyed_tenants_issuing_key_certifies_nobody_and_its_last_list_lasts() {
    let machine = Machine::new(Sharing::PerTenant);
    let process = machine.start().await;
    let (revoked, by) = process.issue("acme").await;
    let (good, _) = process.issue("acme").await;
    process.revoke("acme", &revoked).await;
    put_tenant(&process, "acme").await;

    let accounts = &process.accounts;
    accounts.end_lists(&tenant("acme")).await.unwrap();
    let vault = &accounts.0.vault;
    let destroyed = vault.destroy(&tenant("acme"), AuditActor::Operator).await;
    destroyed.unwrap().unwrap();
    accounts.forget_tenant(&tenant("acme"));
    let (number, listed) = process.published(&by, &revoked).unwrap();
    assert!(listed);

    // Its list is good as long as anything that the key signed, over starts too, and nothing is made to keep it.
    machine.clock.advance(Duration::from_secs(700 * 86_400));
    process.end();
    let process = machine.start().await;
    for _ in 0..2 {
        process.accounts.read_lists().await;
        process.accounts.renew_due().await;
    }
    assert_eq!(process.published(&by, &revoked), Some((number, true)));
    let list = process.accounts.lists().find(by.as_str()).unwrap();
    assert!(machine.clock.now() < list.next_update);
    assert_eq!(data_key(&process, "acme").await, None);
    // Nothing more can be put on it.
    let (acme, ca) = (tenant("acme"), CaId::new(CA));
    let late = process
        .accounts
        .put_on_list((&acme, &ca), &good, RevocationReason::Superseded);
    let refused = late.await.unwrap_err();
    assert!(
        matches!(&*refused, AccountError::Ca(CaError::Material { why, .. }) if why.contains("destroyed")),
        "{refused:?}"
    );
    assert_eq!(data_key(&process, "acme").await, None);

    // A tenant that comes back has another issuing key.
    let (_, next) = process.issue("acme").await;
    assert_ne!(next, by);
    assert_eq!(data_key(&process, "acme").await, Some(2));
    // And once all has ended, the last list goes.
    machine.clock.advance(Duration::from_secs(31 * 86_400));
    process.accounts.read_lists().await;
    process.accounts.renew_due().await;
    assert_eq!(process.published(&by, &revoked), None);
    assert!(process.published(&next, &revoked).is_some());
}

#[tokio::test]
async fn a_last_list_that_was_signed_in_vain_is_followed_by_others() {
    let machine = Machine::new(Sharing::PerTenant);
    let process = machine.start().await;
    let (leaf, by) = process.issue("acme").await;
    process.accounts.end_lists(&tenant("acme")).await.unwrap();
    let (last, _) = process.published(&by, &leaf).unwrap();
    process.accounts.end_lists(&tenant("acme")).await.unwrap();
    assert_eq!(process.published(&by, &leaf), Some((last, false)));
    assert!(process.revoke("acme", &leaf).await);
    let (next, listed) = process.published(&by, &leaf).unwrap();
    assert!(last < next && listed);
}

/// Writes what is no list in the place of one.
async fn spoil(process: &Process, slot: &str) {
    let shared = &process.accounts.0;
    let row = MaterialRecord {
        ca: CaId::new(CA),
        slot: slot.to_owned(),
        public: b"{".to_vec(),
        sealed: Vec::new(),
        created_at: shared.clock.now(),
    };
    let by = Deadline::after(PATIENCE);
    let put = Batch::new().then(Operation::PutMaterial(row));
    let applied = shared.store.apply(by, &TenantScope::upkeep(), put).await;
    applied.unwrap();
}

#[tokio::test]
async fn a_row_that_cannot_be_read_hides_no_other_tenants_list() {
    let machine = Machine::new(Sharing::PerTenant);
    let first = machine.start().await;
    let issued = [first.issue("acme").await, first.issue("globex").await];
    spoil(&first, "lists:acme").await;
    first.end();
    let second = machine.start().await;
    second.accounts.read_lists().await;
    let [acme, globex] = issued.map(|(leaf, by)| second.published(&by, &leaf));
    assert!(acme.is_none() && globex.is_some());
}

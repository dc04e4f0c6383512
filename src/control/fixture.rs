//! For tests: a real store, and what control builds on it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::{Clock, Timestamp};
use crate::base::published::Published;
use crate::base::secret::Secret;
use crate::base::task::Tasks;
use crate::certs::credential::{Credential, sealed_as};
use crate::certs::load::Loader;
use crate::certs::resolver::Resolver;
use crate::certs::vault::Vault;
use crate::control::declare::{Completeness, Declaration, DeclaredTenant};
use crate::control::domains::Domains;
use crate::control::publish::{Parts, Publisher};
use crate::keys;
use crate::model::certificate::{CaId, CertificateFacts, CertificateId};
use crate::model::domain::Source;
use crate::model::revocation::{Revocation, RevocationOrder, RevocationReason};
use crate::model::standing::CertificateStanding;
use crate::model::{DnsName, NamePattern, Snapshot, TenantId, TenantScope};
use crate::store::batch::Operation;
use crate::store::embedded::{self, Embedded};
use crate::store::record::{AuditRecord, CertificateRecord, DomainRecord, KeyOwner};
use crate::store::{Batch, Deadline, PageRequest, Store};
use crate::telemetry::metrics::Metrics;

pub(super) struct World {
    folder: tempfile::TempDir,
    pub(super) embedded: Embedded,
    pub(super) store: Arc<dyn Store>,
    pub(super) vault: Vault,
    pub(super) snapshot: Published<Snapshot>,
    pub(super) resolver: Resolver,
    pub(super) tasks: Tasks,
}

impl World {
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tasks = Tasks::new();
        let settings = embedded::Settings::in_folder(folder.path().join("data"));
        let embedded = Embedded::open(settings, Clock::system(), &tasks)
            .await
            .unwrap();
        let store: Arc<dyn Store> = Arc::new(embedded.clone());
        let keys = keys::Settings {
            key_file: folder.path().join("kek"),
        };
        let vault = Vault::unlock(Arc::clone(&store), &keys).await.unwrap();
        Self {
            folder,
            embedded,
            store,
            vault,
            snapshot: Published::new(Snapshot::empty()),
            resolver: Resolver::new(1 << 20),
            tasks,
        }
    }

    /// The file of the key-encryption key.
    pub(super) fn key_file(&self) -> PathBuf {
        self.folder.path().join("kek")
    }

    /// Starts the publisher and waits until it has read everything.
    pub(super) async fn publisher(&self) -> Publisher {
        let parts = Parts {
            store: Arc::clone(&self.store),
            snapshot: self.snapshot.clone(),
            resolver: self.resolver.clone(),
            loader: Loader::new(self.vault.clone()),
            metrics: Metrics::new(0),
        };
        let publisher = Publisher::start(parts, &self.tasks);
        within(publisher.complete()).await;
        publisher
    }

    pub(super) async fn domains(&self) -> Domains {
        let publisher = self.publisher().await;
        Domains::new(Arc::clone(&self.store), publisher, self.resolver.clone())
    }

    pub(super) async fn apply(&self, batch: Batch) {
        let scope = TenantScope::operator();
        self.store.apply(soon(), &scope, batch).await.unwrap();
    }

    pub(super) async fn register(&self, slug: &str, name: &str, source: Source) {
        self.apply(registration(slug, name, source)).await;
    }

    pub(super) async fn domain(&self, name: &str) -> Option<DomainRecord> {
        let scope = TenantScope::operator();
        let found = self.store.domain(soon(), &scope, &pattern(name)).await;
        found.unwrap()
    }

    /// Stores a certificate and points the domain to it, without telling anybody: as another process does.
    pub(super) async fn certify(&self, slug: &str, name: &str) -> Arc<Credential> {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let key = Secret::new(made.signing_key.serialize_der());
        let now = Clock::system().now();
        let facts = CertificateFacts {
            id: CertificateId::new(),
            tenant: tenant(slug),
            names: vec![pattern(name)],
            ca: CaId::new("test"),
            serial: "01".to_owned(),
            not_before: Timestamp::EPOCH,
            not_after: now.plus(Duration::from_secs(86_400)),
        };
        let leaf = made.cert.der().to_vec();
        let owner = KeyOwner::Tenant(tenant(slug));
        let sealed_as = sealed_as(&pattern(name));
        let sealed = self.vault.seal(&owner, &sealed_as, &key);
        let record = CertificateRecord {
            facts: facts.clone(),
            leaf: leaf.clone(),
            chain: Vec::new(),
            sealed_key: sealed.await.unwrap(),
            standing: CertificateStanding::default(),
            created_at: now,
        };
        let batch = Batch::new()
            .then(Operation::PutCertificate(Box::new(record)))
            .then(Operation::PointDomain {
                pattern: pattern(name),
                certificate: facts.id,
            });
        self.apply(batch).await;
        Arc::new(Credential::from_der(facts, leaf, Vec::new(), &key).unwrap())
    }

    pub(super) async fn events(&self, owner: &KeyOwner) -> Vec<AuditRecord> {
        let (scope, page) = (TenantScope::operator(), PageRequest::first());
        let events = self.store.events(soon(), &scope, owner, &page).await;
        events.unwrap().items
    }

    pub(super) async fn kinds(&self, slug: &str) -> Vec<String> {
        let events = self.events(&KeyOwner::Tenant(tenant(slug))).await;
        events.into_iter().map(|event| event.kind).collect()
    }

    /// Waits until the snapshot is as wanted.
    pub(super) async fn becomes(&self, wanted: impl Fn(&Snapshot) -> bool) {
        let mut versions = self.snapshot.watch();
        within(async {
            while !wanted(&self.snapshot.load()) {
                versions.changed().await.unwrap();
            }
        })
        .await;
    }

    pub(super) fn owner(&self, text: &str) -> Option<String> {
        let snapshot = self.snapshot.load();
        let known = snapshot.domain(&name(text));
        known.map(|known| known.tenant.to_string())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

pub(super) fn registration(slug: &str, name: &str, source: Source) -> Batch {
    Batch::new()
        .then(Operation::PutTenant {
            id: tenant(slug),
            source,
        })
        .then(Operation::PutDomain {
            pattern: pattern(name),
            tenant: tenant(slug),
            source,
            upstream: None,
        })
}

/// What makes a certificate one whose key is known to others.
pub(super) fn revoked(certificate: CertificateId) -> Operation {
    let (reason, order) = (
        RevocationReason::KeyCompromise,
        RevocationOrder::RevokedFirst,
    );
    let revocation = Revocation {
        revoked_at: Some(Timestamp::EPOCH),
        ..Revocation::asked(reason, order, Timestamp::EPOCH)
    };
    let standing = CertificateStanding {
        revocation: Some(revocation),
        ..CertificateStanding::default()
    };
    Operation::SetCertificateStanding {
        certificate,
        standing: Box::new(standing),
    }
}

pub(super) fn declared(tenants: &[(&str, &[&str])], completeness: Completeness) -> Declaration {
    let tenants = tenants.iter().map(|(id, domains)| DeclaredTenant {
        id: tenant(id),
        domains: domains.iter().map(|name| pattern(name)).collect(),
        file: format!("{id}.toml").into(),
    });
    Declaration {
        tenants: tenants.collect(),
        completeness,
        ..Declaration::default()
    }
}

pub(super) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future)
        .await
        .unwrap()
}

pub(super) fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(30))
}

pub(super) fn tenant(slug: &str) -> TenantId {
    TenantId::parse(slug).unwrap()
}

pub(super) fn pattern(text: &str) -> NamePattern {
    NamePattern::parse(text).unwrap()
}

pub(super) fn name(text: &str) -> DnsName {
    DnsName::parse(text).unwrap()
}

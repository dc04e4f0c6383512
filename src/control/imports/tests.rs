//! Imports over the embedded store.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use time::OffsetDateTime;

use super::*;
use crate::certs::load::Loader;
use crate::control::caller::Caller;
use crate::control::fixture::{World, pattern, soon, tenant};
use crate::model::domain::Source;
use crate::store::job::JobRecord;

const DAY: i64 = 86_400;

struct Bringer {
    world: World,
    imports: Imports,
    issuer: Issuer<'static, KeyPair>,
    issuing: String,
}

impl Bringer {
    async fn new() -> Self {
        let world = World::new().await;
        let imports = Imports::new(Parts {
            store: Arc::clone(&world.store),
            vault: world.vault.clone(),
            publisher: world.publisher().await,
            clock: Clock::system(),
            certificates: Published::new(certs::Settings::default()),
        });
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "issuing");
        let key = KeyPair::generate().unwrap();
        let issuing = params.self_signed(&key).unwrap().pem();
        Self {
            world,
            imports,
            issuer: Issuer::new(params, key),
            issuing,
        }
    }

    /// A certificate for these names that is valid for `days` from yesterday on.
    fn made(&self, names: &[&str], days: i64) -> Import {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        let now = Clock::system().now().as_seconds();
        let at = |seconds| OffsetDateTime::from_unix_timestamp(now + seconds).unwrap();
        params.not_before = at(-DAY);
        params.not_after = at((days - 1) * DAY);
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        Import {
            chain: format!("{}{}", leaf.pem(), self.issuing).into_bytes(),
            key: Secret::from(key.serialize_pem()),
            tenant: None,
            domains: Vec::new(),
        }
    }

    async fn import(&self, import: &Import) -> Result<Imported, ImportError> {
        let grant = Caller::Operator.grant();
        self.imports.certificate(&grant, import.clone()).await
    }

    async fn refused(&self, import: &Import) -> String {
        let before = self.state().await;
        let text = self.import(import).await.unwrap_err().to_string();
        assert_eq!(self.state().await, before, "{text}");
        text
    }

    /// Everything that an import may change.
    async fn state(&self) -> (Vec<DomainRecord>, Vec<CertificateRecord>, Vec<JobRecord>) {
        let (scope, page) = (crate::model::TenantScope::operator(), PageRequest::first());
        let store = &self.world.store;
        let domains = store.domains(soon(), &scope, None, &page).await.unwrap();
        let certificates = store.certificates(soon(), &scope, None, &page).await;
        let jobs = store.jobs(soon(), &scope, None, &page).await.unwrap();
        (domains.items, certificates.unwrap().items, jobs.items)
    }

    /// What a visitor of `name` gets: from memory, or else from the store.
    async fn served(&self, name: &str) -> CertificateId {
        let now = Clock::system().now();
        let name = crate::control::fixture::name(name);
        if let Some(credential) = self.world.resolver.get(&name, now) {
            return credential.facts.id;
        }
        let found = self
            .world
            .store
            .resolve(soon(), &name)
            .await
            .unwrap()
            .unwrap();
        let loader = Loader::new(self.world.vault.clone());
        let (certificate, key) = (found.certificate.unwrap(), found.data_key);
        let loaded = loader.load(&found.domain, certificate, key.as_ref()).await;
        loaded.unwrap().facts.id
    }
}

#[tokio::test]
async fn an_imported_certificate_serves_every_domain_that_it_covers_at_once() {
    let bringer = Bringer::new().await;
    for name in ["a.test", "*.a.test", "x.a.test", "b.test", "other.test"] {
        bringer.world.register("acme", name, Source::File).await;
    }
    let import = bringer.made(&["a.test", "*.a.test", "b.test"], 90);
    let imported = bringer.import(&import).await.unwrap();
    assert_eq!(imported.change, Change::Imported);
    let names: Vec<String> = imported.domains.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["a.test", "b.test", "x.a.test", "*.a.test"]);
    for name in ["a.test", "y.a.test", "x.a.test", "b.test"] {
        assert_eq!(bringer.served(name).await, imported.facts.id, "{name}");
    }
    let (domains, certificates, jobs) = bringer.state().await;
    let other = domains.iter().find(|d| d.pattern == pattern("other.test"));
    assert_eq!(other.unwrap().certificate, None);
    let [certificate] = &certificates[..] else {
        panic!("one certificate for all");
    };
    assert_eq!(certificate.standing.origin, Origin::Imported);
    // Each is looked at before the end, so that an order takes over in time.
    assert_eq!(jobs.len(), 4);
    for job in jobs {
        let (now, end) = (Clock::system().now(), imported.facts.not_after);
        assert!(now < job.run_at && job.run_at < end, "{}", job.key);
    }
    assert_eq!(bringer.world.kinds("acme").await, ["certificate.imported"]);
}

#[tokio::test]
async fn a_second_import_changes_nothing_and_says_so() {
    let bringer = Bringer::new().await;
    bringer.world.register("acme", "a.test", Source::Api).await;
    let import = bringer.made(&["a.test"], 90);
    let first = bringer.import(&import).await.unwrap();
    let before = bringer.state().await;
    let second = bringer.import(&import).await.unwrap();
    assert_eq!(second.change, Change::Unchanged);
    assert_eq!(second.facts, first.facts);
    assert_eq!(bringer.state().await, before);
}

#[tokio::test]
async fn an_older_certificate_takes_the_place_of_a_newer_one_in_memory() {
    let bringer = Bringer::new().await;
    bringer.world.register("acme", "a.test", Source::Api).await;
    let import = bringer.made(&["a.test"], 90);
    let mut newer = bringer.made(&["a.test"], 60);
    newer.tenant = Some(tenant("acme"));
    let newer = bringer.import(&newer).await.unwrap();
    let grant = Caller::Operator.grant();
    let found = bringer.imports.domain(&grant, &pattern("a.test")).await;
    let store = &bringer.world.store;
    let record = store
        .certificate(soon(), grant.scope(), newer.facts.id)
        .await;
    let loader = Loader::new(bringer.world.vault.clone());
    let domain = found.unwrap().unwrap();
    let loaded = loader.load(&domain, record.unwrap().unwrap(), None).await;
    bringer.world.resolver.put(&loaded.unwrap());
    assert_eq!(bringer.served("a.test").await, newer.facts.id);
    let older = bringer.import(&import).await.unwrap();
    assert_eq!(bringer.served("a.test").await, older.facts.id);
}

#[tokio::test]
async fn a_wrong_name_and_an_expired_certificate_are_refused_with_nothing_changed() {
    let bringer = Bringer::new().await;
    bringer.world.register("acme", "a.test", Source::File).await;
    bringer
        .world
        .register("globex", "g.test", Source::File)
        .await;
    let kept = bringer
        .import(&bringer.made(&["a.test"], 90))
        .await
        .unwrap();
    let refused = async |names: &[&str], days, expected: &str| {
        let text = bringer.refused(&bringer.made(names, days)).await;
        assert!(text.contains(expected), "{text}");
    };
    refused(&["b.test"], 90, "b.test is not a registered domain").await;
    refused(
        &["a.test", "b.test"],
        90,
        "b.test is not a domain of the tenant",
    )
    .await;
    refused(
        &["a.test", "g.test"],
        90,
        "several tenants, acme and globex",
    )
    .await;
    refused(&["a.test"], 1, "expired at").await;
    let mut other_key = bringer.made(&["a.test"], 90);
    other_key.key = bringer.made(&["a.test"], 90).key;
    let text = bringer.refused(&other_key).await;
    assert!(
        text.contains("does not belong to the first certificate"),
        "{text}"
    );
    let mut of_globex = bringer.made(&["a.test"], 90);
    of_globex.tenant = Some(tenant("globex"));
    let text = bringer.refused(&of_globex).await;
    assert!(text.contains("a.test belongs to another tenant"), "{text}");
    assert_eq!(bringer.served("a.test").await, kept.facts.id);
}

#[tokio::test]
async fn the_key_lies_sealed_in_the_store() {
    let bringer = Bringer::new().await;
    bringer.world.register("acme", "a.test", Source::File).await;
    let import = bringer.made(&["a.test"], 90);
    let key = material::key(&import.key).unwrap();
    bringer.import(&import).await.unwrap();
    let (_, certificates, _) = bringer.state().await;
    let sealed = &certificates[0].sealed_key;
    let clear = key.expose();
    assert!(
        !sealed
            .windows(16)
            .any(|part| clear.windows(16).any(|it| it == part))
    );
}

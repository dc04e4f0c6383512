//! Imports over the embedded store.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use time::OffsetDateTime;

use super::bring::{Brought, BroughtAccount, Fate, Taken};
use super::*;
use crate::ca::{self, CaSettings, Kind, acme};
use crate::certs::accounts;
use crate::certs::load::Loader;
use crate::control::caller::Caller;
use crate::control::fixture::{World, pattern, soon, tenant};
use crate::model::domain::Source;
use crate::model::revocation::{Revocation, RevocationOrder, RevocationReason};
use crate::store::job::JobRecord;

const DAY: i64 = 86_400;
const DIRECTORY: &str = "https://ca.test/dir";
const ACCOUNT: &str = "https://ca.test/acct/7";

/// One ACME authority, which is never asked.
fn authorities(world: &World) -> Accounts {
    let authorities = ca::Settings {
        authorities: vec![CaSettings {
            id: CaId::new("le"),
            kind: Kind::Acme(acme::Settings::new(DIRECTORY)),
        }],
    };
    let clock = Clock::system();
    Accounts::new(accounts::Parts {
        authorities: ca::authorities(&authorities, &world.tasks, &clock).unwrap(),
        store: Arc::clone(&world.store),
        vault: world.vault.clone(),
        clock,
        tasks: world.tasks.clone(),
    })
}

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
            accounts: authorities(&world),
            unregistered: Unregistered::PerName,
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
        let key = KeyPair::generate().unwrap().serialize_pem();
        self.made_on(&Secret::from(key), names, days)
    }

    /// The same on a key of the caller's.
    fn made_on(&self, key: &Secret, names: &[&str], days: i64) -> Import {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        let now = Clock::system().now().as_seconds();
        let at = |seconds| OffsetDateTime::from_unix_timestamp(now + seconds).unwrap();
        params.not_before = at(-DAY);
        params.not_after = at((days - 1) * DAY);
        let pair = KeyPair::from_pem(key.expose_str().unwrap()).unwrap();
        let leaf = params.signed_by(&pair, &self.issuer).unwrap();
        Import {
            chain: format!("{}{}", leaf.pem(), self.issuing).into_bytes(),
            key: key.clone(),
            tenant: None,
            domains: Vec::new(),
        }
    }

    fn brought(import: &Import) -> Brought {
        Brought {
            chain: Secret::new(import.chain.clone()),
            key: import.key.clone(),
            directory: Some(DIRECTORY.to_owned()),
            account: Some(ACCOUNT.to_owned()),
        }
    }

    async fn bring(&self, import: &Import) -> Taken {
        self.bring_to(import, None).await
    }

    async fn bring_to(&self, import: &Import, tenant: Option<&TenantId>) -> Taken {
        let (grant, brought) = (Caller::Operator.grant(), Self::brought(import));
        self.imports.bring(&grant, &brought, tenant).await.unwrap()
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
    // The one before it is known as such, and its key ends in time; the one that serves has no end.
    let (_, certificates, _) = bringer.state().await;
    for record in certificates {
        let (standing, before) = (record.standing, record.facts.id == newer.facts.id);
        let successor = before.then_some(older.facts.id);
        assert_eq!(standing.superseded_by, successor);
        assert_eq!(standing.retire_at.is_some(), before);
    }
}

#[tokio::test]
async fn a_certificate_that_was_revoked_here_does_not_come_back() {
    let bringer = Bringer::new().await;
    bringer.world.register("acme", "a.test", Source::Api).await;
    let import = bringer.made(&["a.test"], 90);
    let first = bringer.import(&import).await.unwrap();
    let other = bringer.made(&["a.test"], 90);
    bringer.import(&other).await.unwrap();
    let standing = CertificateStanding {
        revocation: Some(Revocation::asked(
            RevocationReason::KeyCompromise,
            RevocationOrder::ReplacedFirst,
            Clock::system().now(),
        )),
        ..CertificateStanding::default()
    };
    let revoked = Batch::new().then(Operation::SetCertificateStanding {
        certificate: first.facts.id,
        standing: Box::new(standing),
    });
    let grant = Caller::Operator.grant();
    let store = &bringer.world.store;
    store.apply(soon(), grant.scope(), revoked).await.unwrap();
    let text = bringer.refused(&import).await;
    assert!(text.contains("bring another, on another key"), "{text}");
    // Nor does the key that others have, in another certificate.
    let again = bringer.made_on(&import.key, &["a.test"], 60);
    let text = bringer.refused(&again).await;
    assert!(text.contains("because others have that key"), "{text}");
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

fn reason(taken: &Taken) -> &str {
    match &taken.fate {
        Fate::Skipped(why) => why,
        Fate::Imported | Fate::Unchanged => panic!("{taken:?}"),
    }
}

#[tokio::test]
async fn what_another_server_kept_serves_here_with_its_account_noted() {
    let bringer = Bringer::new().await;
    bringer.world.register("acme", "a.test", Source::File).await;
    let (known, new) = (bringer.made(&["a.test"], 90), bringer.made(&["b.test"], 90));
    for (import, name, owner) in [(&known, "a.test", "acme"), (&new, "b.test", "ask:b.test")] {
        let taken = bringer.bring(import).await;
        assert_eq!(taken.fate, Fate::Imported, "{name}");
        assert_eq!(taken.tenant.unwrap().as_str(), owner);
        bringer.served(name).await;
        assert_eq!(bringer.world.owner(name).as_deref(), Some(owner));
        let domain = bringer.world.domain(name).await.unwrap();
        let expected = match owner {
            "acme" => Source::File,
            _ => Source::Hook,
        };
        assert_eq!(domain.source, expected, "{name}");
    }
    let (_, certificates, jobs) = bringer.state().await;
    assert_eq!(jobs.len(), 2);
    for certificate in certificates {
        // The renewal says what it replaces where authority and account are the same.
        assert_eq!(certificate.facts.ca, CaId::new("le"));
        assert_eq!(certificate.standing.account.as_deref(), Some(ACCOUNT));
        assert_eq!(certificate.standing.origin, Origin::Imported);
    }
    let before = bringer.state().await;
    assert_eq!(bringer.bring(&known).await.fate, Fate::Unchanged);
    assert_eq!(bringer.bring(&new).await.fate, Fate::Unchanged);
    assert_eq!(bringer.state().await, before);
}

#[tokio::test]
async fn each_that_is_left_out_has_its_reason_and_changes_nothing() {
    let bringer = Bringer::new().await;
    bringer.world.register("acme", "a.test", Source::File).await;
    bringer
        .world
        .register("acme", "*.w.test", Source::File)
        .await;
    bringer
        .world
        .register("globex", "g.test", Source::File)
        .await;
    let older = bringer.made(&["a.test"], 90);
    let renewed = bringer
        .import(&bringer.made(&["a.test"], 90))
        .await
        .unwrap();
    let before = bringer.state().await;
    let skips = async |import: &Import, expected: &str| {
        let taken = bringer.bring(import).await;
        let why = reason(&taken);
        assert!(why.contains(expected), "{why}");
        assert_eq!(bringer.state().await, before, "{why}");
    };
    skips(&bringer.made(&["b.test"], 1), "expired at").await;
    skips(
        &bringer.made(&["x.w.test"], 90),
        "served as part of *.w.test",
    )
    .await;
    skips(
        &bringer.made(&["a.test", "g.test"], 90),
        "several tenants: acme, globex",
    )
    .await;
    skips(&bringer.made(&["*.v.test"], 90), "allows no wildcards").await;
    skips(&older, "a.test is served with a newer certificate").await;
    let mut keyless = bringer.made(&["b.test"], 90);
    keyless.key = Secret::from("none".to_owned());
    skips(&keyless, "there is no private key").await;
    assert_eq!(bringer.served("a.test").await, renewed.facts.id);
    // A wildcard goes where the operator says.
    let wildcard = bringer.made(&["*.v.test"], 90);
    let taken = bringer.bring_to(&wildcard, Some(&tenant("moved"))).await;
    assert_eq!(taken.fate, Fate::Imported);
    assert_eq!(bringer.world.owner("x.v.test").as_deref(), Some("moved"));
}

#[tokio::test]
async fn an_account_is_taken_over_once_and_never_in_the_place_of_another() {
    let bringer = Bringer::new().await;
    let grant = Caller::Operator.grant();
    let account = |directory: &str, url: &str| BroughtAccount {
        directory: directory.to_owned(),
        url: url.to_owned(),
        key: Secret::from(KeyPair::generate().unwrap().serialize_pem()),
    };
    let ours = account(DIRECTORY, ACCOUNT);
    let fate = async |account: &BroughtAccount| {
        let fate = bringer.imports.account(&grant, account).await;
        fate.unwrap()
    };
    let elsewhere = fate(&account("https://other.test/dir", ACCOUNT)).await;
    assert!(matches!(elsewhere, Fate::Skipped(why) if why.contains("no [[ca]] has the directory")));
    assert_eq!(fate(&ours).await, Fate::Imported);
    assert_eq!(fate(&ours).await, Fate::Unchanged);
    let second = fate(&account(DIRECTORY, "https://ca.test/acct/8")).await;
    assert!(matches!(second, Fate::Skipped(why) if why.contains("has an account already")));
    let slot = format!("account:{DIRECTORY}");
    let store = &bringer.world.store;
    let kept = store.material(soon(), &CaId::new("le"), &slot).await;
    assert_eq!(kept.unwrap().unwrap().public, ACCOUNT.as_bytes());
    let events = bringer.world.events(&KeyOwner::Platform).await;
    assert!(
        events
            .iter()
            .any(|event| event.kind == "ca.account_imported")
    );
}

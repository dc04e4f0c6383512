//! Certificate work and control: what changes things while visitors are served.

use std::sync::Arc;

use futures_util::FutureExt as _;

use crate::app::ground::Ground;
use crate::app::start::StartError;
use crate::base::published::Published;
use crate::base::task::Tasks;
use crate::ca::Configured;
use crate::certs;
use crate::certs::accounts::{self, Accounts};
use crate::certs::authorities;
use crate::certs::budget::{self, Keeper};
use crate::certs::challenge::Challenges;
use crate::certs::gauges::Gauges;
use crate::certs::issuance::{self, Issuer};
use crate::certs::load::Loader;
use crate::certs::on_demand::OnDemand;
use crate::certs::on_demand::answer;
use crate::certs::outcome::Outcomes;
use crate::certs::permission::{Mode, Permission};
use crate::certs::preflight::watch::Watch;
use crate::certs::preflight::{self, Preflight};
use crate::certs::resolver::Resolver;
use crate::certs::revocation::{self, work::Revoker};
use crate::certs::upkeep::Upkeep;
use crate::certs::vault::keeping::Keeping;
use crate::config::settings::Settings;
use crate::control::declare::{Declaration, reconcile};
use crate::control::domains::Domains;
use crate::control::imports::bring::Unregistered;
use crate::control::imports::{self, Imports};
use crate::control::names;
use crate::control::publish::{self, Publisher};
use crate::dns::examine::Examiner;
use crate::dns::{self, Dns};
use crate::model::edge::Edge;
use crate::model::{NamePattern, Snapshot};
use crate::telemetry::readiness::{Condition, Health};

/// Bytes of credentials kept in memory: about 100,000 of them.
const CREDENTIALS: usize = 256 * 1024 * 1024;

/// The handles that the rest is wired to.
pub(super) struct Work {
    pub(super) snapshot: Published<Snapshot>,
    pub(super) resolver: Resolver,
    pub(super) challenges: Challenges,
    pub(super) on_demand: OnDemand,
    pub(super) issuer: Issuer,
    pub(super) revoker: Revoker,
    pub(super) accounts: Accounts,
    pub(super) configured: Configured,
    pub(super) preflight: Preflight,
    pub(super) certificates: Published<certs::Settings>,
    pub(super) choices: Published<Arc<authorities::Choices>>,
    pub(super) shares: Published<budget::Settings>,
    pub(super) budget: Keeper,
    pub(super) declaration: Published<Arc<Declaration>>,
    pub(super) imports: Imports,
}

/// What is made on the way, and needed by several steps.
struct Halves<'a> {
    settings: &'a Settings,
    ground: &'a Ground,
    tasks: &'a Tasks,
    snapshot: Published<Snapshot>,
    resolver: Resolver,
    outcomes: Outcomes,
    challenges: Challenges,
    preflight: Preflight,
    permission: Option<Permission>,
    certificates: Published<certs::Settings>,
    choices: Published<Arc<authorities::Choices>>,
    budget: Keeper,
}

impl Work {
    /// Starts it all in the control group: names are read and followed, challenges answered, due jobs worked on, and
    /// handshakes that want a certificate answered.
    pub(super) fn start(
        settings: &Settings,
        ground: &Ground,
        edge: &Published<Edge>,
    ) -> Result<Self, StartError> {
        let tasks = &ground.groups.control;
        let snapshot = Published::new(Snapshot::empty());
        names::tell(snapshot.clone(), ground.readiness.clone(), tasks);
        let resolver = Resolver::new(CREDENTIALS);
        let publisher = publish(ground, &snapshot, &resolver);
        let declaration = Published::new(Arc::new(settings.declaration.clone()));
        // What was left out is in the log.
        drop(reconcile::start(
            Arc::clone(&ground.store),
            publisher.clone(),
            &declaration,
            tasks,
        ));
        let dns = Dns::new(&settings.dns).map_err(StartError::while_doing("use the resolvers"))?;
        dns::upstreams::start(dns.clone(), publisher.upstreams().clone(), tasks);

        let (challenges, questions) = Challenges::channel(snapshot.clone());
        tasks.spawn(
            "challenges",
            questions.answer(Arc::clone(&ground.store), tasks.clone()),
        );
        let domains = Domains::new(
            Arc::clone(&ground.store),
            publisher.clone(),
            resolver.clone(),
        );
        let certificates = Published::new(settings.certificates);
        let preflight = Preflight::new(preflight::Parts {
            examiner: Examiner::new(&settings.dns)
                .map_err(StartError::while_doing("use the resolvers"))?,
            challenges: challenges.clone(),
            edge: edge.clone(),
            settings: certificates.clone(),
            clock: ground.clock.clone(),
        });
        let shares = Published::new(settings.budget.clone());
        let budget = Keeper::new(
            Arc::clone(&ground.store),
            shares.clone(),
            ground.metrics.clone(),
        );
        tasks.spawn("budget", budget.clone().watch(tasks.clone()));
        let halves = Halves {
            settings,
            ground,
            tasks,
            permission: permission(settings, &domains, ground)?,
            snapshot,
            resolver,
            outcomes: Outcomes::new(),
            challenges,
            preflight,
            certificates,
            choices: Published::new(Arc::new(settings.declaration.choices.clone())),
            budget,
        };
        let (accounts, configured) = halves.accounts(dns)?;
        let issuer = halves.issue(&accounts);
        let imports = halves.imports(publisher.clone(), &accounts);
        halves.keep_keys();
        let revoker = halves.revoke(&accounts);
        let on_demand = halves.answer_handshakes(&issuer, publisher);
        Ok(Self {
            snapshot: halves.snapshot,
            resolver: halves.resolver,
            challenges: halves.challenges,
            on_demand,
            issuer,
            revoker,
            accounts,
            configured,
            preflight: halves.preflight,
            certificates: halves.certificates,
            choices: halves.choices,
            shares,
            budget: halves.budget,
            declaration,
            imports,
        })
    }
}

fn publish(ground: &Ground, snapshot: &Published<Snapshot>, resolver: &Resolver) -> Publisher {
    let parts = publish::Parts {
        store: Arc::clone(&ground.store),
        snapshot: snapshot.clone(),
        resolver: resolver.clone(),
        loader: Loader::new(ground.vault.clone()),
        metrics: ground.metrics.clone(),
    };
    Publisher::start(parts, &ground.groups.control)
}

/// Publishes one name ahead of the others. Where that fails, it comes with them.
async fn publish_now(publisher: Publisher, pattern: NamePattern) {
    if let Err(error) = publisher.refresh(pattern.clone()).await {
        tracing::warn!(domain = %pattern, %error, "a name that a visitor asks for is not published yet");
    }
}

fn permission(
    settings: &Settings,
    domains: &Domains,
    ground: &Ground,
) -> Result<Option<Permission>, StartError> {
    let Some(hook) = settings.permission.clone() else {
        // Without a hook, none fails.
        ground
            .readiness
            .set(Condition::PermissionHook, Health::Well);
        return Ok(None);
    };
    let told = (ground.metrics.clone(), ground.readiness.clone());
    Permission::new(hook, domains.registrar(), told, &ground.groups.control)
        .map(Some)
        .map_err(StartError::while_doing("use the permission hook"))
}

impl Halves<'_> {
    fn accounts(&self, dns: Dns) -> Result<(Accounts, Configured), StartError> {
        let configured = Configured::default()
            .changed_to(&self.settings.ca, self.tasks, &self.ground.clock)
            .map_err(|(_, error)| error)
            .map_err(StartError::while_doing(
                "use the configured certification authorities",
            ))?;
        let parts = accounts::Parts {
            authorities: configured.adapters(),
            store: Arc::clone(&self.ground.store),
            vault: self.ground.vault.clone(),
            clock: self.ground.clock.clone(),
            tasks: self.tasks.clone(),
        };
        let watch = authorities::Parts {
            dns: Some(dns),
            choices: self.choices.clone(),
            metrics: self.ground.metrics.clone(),
            readiness: self.ground.readiness.clone(),
            ..authorities::Parts::default()
        };
        let accounts = Accounts::watched(parts, watch);
        let watching = accounts.authorities().clone().run();
        self.tasks.spawn("authorities", watching);
        let lists = accounts.clone().keep_lists(self.tasks.clone());
        self.tasks.spawn("revocation-lists", lists);
        Ok((accounts, configured))
    }

    /// Works on due jobs, and looks after domains that have none.
    fn issue(&self, accounts: &Accounts) -> Issuer {
        let ground = self.ground;
        let parts = issuance::Parts {
            store: Arc::clone(&ground.store),
            vault: ground.vault.clone(),
            accounts: accounts.clone(),
            budget: self.budget.clone(),
            permission: self.permission.clone(),
            challenges: self.challenges.clone(),
            preflight: Some(self.preflight.clone()),
            resolver: self.resolver.clone(),
            outcomes: self.outcomes.clone(),
            metrics: ground.metrics.clone(),
            readiness: ground.readiness.clone(),
            clock: ground.clock.corrected(),
            settings: self.certificates.clone(),
        };
        let issuer = Issuer::new(parts, ground.holder.id());
        let running = issuer.clone().run(self.tasks.clone());
        self.tasks.spawn("issuer", running);
        let upkeep = Upkeep {
            preflight: Some(self.preflight.clone()),
            store: Arc::clone(&ground.store),
            accounts: accounts.clone(),
            metrics: ground.metrics.clone(),
            clock: ground.clock.corrected(),
            settings: self.certificates.clone(),
        };
        self.tasks.spawn("upkeep", upkeep.run(self.tasks.clone()));
        let nudged = issuer.clone();
        let watch = Watch {
            store: Arc::clone(&ground.store),
            preflight: self.preflight.clone(),
            resolver: self.resolver.clone(),
            nudge: Arc::new(move || nudged.nudge()),
            clock: ground.clock.corrected(),
        };
        self.tasks.spawn("watch", watch.run(self.tasks.clone()));
        let gauges = Gauges {
            store: Arc::clone(&ground.store),
            accounts: accounts.clone(),
            resolver: self.resolver.clone(),
            clock: ground.clock.clone(),
            metrics: ground.metrics.clone(),
            readiness: ground.readiness.clone(),
        };
        self.tasks.spawn("gauges", gauges.run(self.tasks.clone()));
        issuer
    }

    /// Goes over the data keys, and finishes an exchange that was broken off.
    fn keep_keys(&self) {
        let keeping = Keeping {
            vault: self.ground.vault.clone(),
            metrics: self.ground.metrics.clone(),
            readiness: self.ground.readiness.clone(),
        };
        self.tasks.spawn("keys", keeping.run(self.tasks.clone()));
    }

    fn imports(&self, publisher: Publisher, accounts: &Accounts) -> Imports {
        let hook = self.settings.permission.as_ref().map(|hook| hook.mode);
        Imports::new(imports::Parts {
            store: Arc::clone(&self.ground.store),
            vault: self.ground.vault.clone(),
            publisher,
            clock: self.ground.clock.clone(),
            certificates: self.certificates.clone(),
            accounts: accounts.clone(),
            unregistered: match hook {
                Some(Mode::Simple) => Unregistered::PerName,
                Some(Mode::Rich) => Unregistered::NamedByHook,
                None => Unregistered::Refused,
            },
        })
    }

    /// Works on revocations that were asked for.
    fn revoke(&self, accounts: &Accounts) -> Revoker {
        let ground = self.ground;
        let parts = revocation::work::Parts {
            store: Arc::clone(&ground.store),
            vault: ground.vault.clone(),
            accounts: accounts.clone(),
            resolver: self.resolver.clone(),
            metrics: ground.metrics.clone(),
            clock: ground.clock.corrected(),
        };
        let revoker = Revoker::new(parts, ground.holder.id());
        let running = revoker.clone().run(self.tasks.clone());
        self.tasks.spawn("revoker", running);
        revoker
    }

    fn answer_handshakes(&self, issuer: &Issuer, publisher: Publisher) -> OnDemand {
        let verdicts = self.permission.as_ref().map(Permission::verdicts);
        let waits = &self.settings.on_demand;
        let (on_demand, wanted) = OnDemand::channel(waits, self.snapshot.clone(), verdicts);
        let nudged = issuer.clone();
        let parts = answer::Parts {
            store: Arc::clone(&self.ground.store),
            snapshot: self.snapshot.clone(),
            resolver: self.resolver.clone(),
            loader: Loader::new(self.ground.vault.clone()),
            permission: self.permission.clone(),
            outcomes: self.outcomes.clone(),
            nudge: Arc::new(move || nudged.nudge()),
            publish: Arc::new(move |pattern| publish_now(publisher.clone(), pattern).boxed()),
            clock: self.ground.clock.corrected(),
        };
        answer::start(parts, waits.clone(), wanted, self.tasks);
        on_demand
    }
}

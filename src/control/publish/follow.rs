//! The task behind [`Publisher`](super::Publisher).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::base::backoff::{Backoff, jittered};
use crate::base::published::Published;
use crate::control::declare::{Declaration, Warning};
use crate::control::publish::{Parts, Request, routes};
use crate::model::domain::DomainState;
use crate::model::route::Upstream;
use crate::model::snapshot::KnownDomain;
use crate::model::{NamePattern, Snapshot, TenantScope};
use crate::store::feed::{ChangeKind, Changes, Cursor, FeedStatus};
use crate::store::record::DomainRecord;
use crate::store::{Deadline, PageRequest, StoreError, Unreadable};

/// For one call of the store.
const CALL: Duration = Duration::from_secs(5);
/// How often the feed is read where nothing announces a change: other processes' changes.
const POLL: Duration = Duration::from_secs(1);
/// Entries of the feed read at once.
const MOST_ENTRIES: usize = 500;
/// The first number of names that is published before all have been read; then twice that, and so on, so that the
/// copies together cost no more than the index itself.
const FIRST_PART: usize = 2_000;
/// Warnings about domains that are kept.
const MOST_WARNINGS: usize = 100;
/// Between attempts to read everything.
const RETRY: Backoff = Backoff {
    first: Duration::from_millis(200),
    factor: 2,
    most: Duration::from_secs(5),
};

pub(super) struct Follower {
    parts: Parts,
    requests: mpsc::Receiver<Request>,
    upstreams: Published<Vec<Arc<Upstream>>>,
    warnings: Published<Vec<Warning>>,
    of_routes: Vec<Warning>,
    of_domains: BTreeMap<NamePattern, Warning>,
    of_records: BTreeMap<NamePattern, Warning>,
    cursor: Cursor,
    is_failing: bool,
}

impl Follower {
    pub(super) fn new(
        parts: Parts,
        requests: mpsc::Receiver<Request>,
        upstreams: Published<Vec<Arc<Upstream>>>,
        warnings: Published<Vec<Warning>>,
    ) -> Self {
        Self {
            parts,
            requests,
            upstreams,
            warnings,
            of_routes: Vec::new(),
            of_domains: BTreeMap::new(),
            of_records: BTreeMap::new(),
            cursor: Cursor::default(),
            is_failing: false,
        }
    }

    pub(super) async fn run(mut self) {
        let mut wake = self.parts.store.wake();
        self.read_everything().await;
        loop {
            tokio::select! {
                biased;
                request = self.requests.recv() => match request {
                    Some(request) => self.answer(request, None).await,
                    None => return,
                },
                // A store that tells of nothing is polled.
                Ok(()) = wake.changed() => self.follow().await,
                () = tokio::time::sleep(jittered(POLL, 0.2, rand::random())) => self.follow().await,
            }
        }
    }

    /// Reads what changed since the last time; on failure it is read again the next time.
    async fn follow(&mut self) {
        loop {
            let store = &self.parts.store;
            let read = store
                .changes(Deadline::after(CALL), &self.cursor, MOST_ENTRIES)
                .await;
            let followed = match read {
                Ok(changes) if changes.status == FeedStatus::Restart => {
                    tracing::info!("the store's feed begins anew: reading every domain again");
                    return self.read_everything().await;
                }
                Ok(changes) => self.take_in(changes).await,
                Err(error) => Err(error),
            };
            let followed = self.noted(followed);
            self.measure();
            if followed != Some(FeedStatus::More) {
                return;
            }
        }
    }

    /// Publishes what a page of the feed names, with one copy of each shard, then moves the cursor.
    async fn take_in(&mut self, changes: Changes) -> Result<FeedStatus, StoreError> {
        let mut patterns: Vec<NamePattern> = changes
            .entries
            .iter()
            .filter(|change| change.kind == ChangeKind::Domain)
            .filter_map(|change| NamePattern::parse(&change.key).ok())
            .collect();
        patterns.sort_unstable();
        patterns.dedup();
        let mut records = Vec::with_capacity(patterns.len());
        for pattern in patterns {
            match self.read(&pattern).await {
                Ok(record) => records.push((pattern, record)),
                Err(StoreError::Corrupt(what)) => {
                    // It would stop the feed for everybody else; the last good state goes on serving.
                    tracing::error!(domain = %pattern, what, "a domain's record cannot be read");
                    self.warn_of_record(pattern, &what);
                }
                Err(error) => return Err(error),
            }
        }
        let replaced = self.publish(records, None);
        self.reload(replaced).await;
        self.cursor = changes.cursor;
        Ok(changes.status)
    }

    async fn read(&self, pattern: &NamePattern) -> Result<Option<DomainRecord>, StoreError> {
        let scope = TenantScope::upkeep();
        let store = &self.parts.store;
        store.domain(Deadline::after(CALL), &scope, pattern).await
    }

    /// Puts records into the snapshot in force and into the one being built, and takes out of the resolver what is not
    /// served any more. Gives those whose credential in memory has been replaced in the store.
    fn publish(
        &mut self,
        records: Vec<(NamePattern, Option<DomainRecord>)>,
        mut building: Option<&mut Snapshot>,
    ) -> Vec<DomainRecord> {
        let mut replaced = Vec::new();
        if records.is_empty() {
            return replaced;
        }
        let mut next = (*self.parts.snapshot.get()).clone();
        for (pattern, record) in records {
            self.of_records.remove(&pattern);
            let known = record.as_ref().and_then(known);
            if self.align_resolver(&pattern, record.as_ref()) == Kept::Outdated {
                replaced.extend(record);
            }
            self.check_upstream(&pattern, known.as_ref(), &next);
            for snapshot in [Some(&mut next), building.as_deref_mut()]
                .into_iter()
                .flatten()
            {
                match &known {
                    Some(known) => snapshot.put([(pattern.clone(), known.clone())]),
                    None => snapshot.remove(&pattern),
                }
            }
        }
        self.parts.snapshot.publish(next);
        self.publish_warnings();
        replaced
    }

    /// What is not served any more, or is another tenant's now, leaves the memory.
    fn align_resolver(&self, pattern: &NamePattern, record: Option<&DomainRecord>) -> Kept {
        let served = record.filter(|record| record.state.is_served());
        let Some(kept) = self.parts.resolver.peek(pattern) else {
            // A load may be under way: what it read before this change is not to be put.
            if served.is_none() {
                self.parts.resolver.remove(pattern);
            }
            return Kept::InLine;
        };
        let certificate = served
            .filter(|record| record.tenant == *kept.tenant())
            .and_then(|record| record.certificate);
        match certificate {
            Some(id) if id == kept.facts.id => Kept::InLine,
            Some(_) => Kept::Outdated,
            None => {
                self.parts.resolver.remove(pattern);
                Kept::InLine
            }
        }
    }

    /// Loads what replaced the credentials of these domains. Until then, and where that fails, the old ones serve.
    async fn reload(&self, replaced: Vec<DomainRecord>) {
        for domain in replaced {
            let ticket = self.parts.resolver.ticket();
            let Some(id) = domain.certificate else {
                continue;
            };
            let scope = TenantScope::certificate_work(domain.tenant.clone());
            let store = &self.parts.store;
            match store.certificate(Deadline::after(CALL), &scope, id).await {
                Ok(Some(certificate)) => {
                    match self.parts.loader.load(&domain, certificate, None).await {
                        Ok(credential) => {
                            let resolver = &self.parts.resolver;
                            resolver.put_chosen(&domain.pattern, &credential, ticket);
                        }
                        Err(error) => stays(&domain, &error),
                    }
                }
                Ok(None) => {}
                Err(error) => stays(&domain, &error),
            }
        }
    }

    async fn answer(&mut self, request: Request, building: Option<&mut Snapshot>) {
        match request {
            Request::Refresh(pattern, done) => {
                let result = match self.read(&pattern).await {
                    Ok(record) => {
                        let replaced = self.publish(vec![(pattern, record)], building);
                        self.reload(replaced).await;
                        Ok(())
                    }
                    Err(error) => Err(error),
                };
                // Who asked may have gone.
                let _gone = done.send(result);
            }
            Request::Declare(declaration, done) => {
                self.declare(&declaration, building);
                let _gone = done.send(());
            }
        }
    }

    fn declare(&mut self, declaration: &Declaration, building: Option<&mut Snapshot>) {
        let built = routes::build(declaration, &self.upstreams.load());
        let mut next = (*self.parts.snapshot.get()).clone();
        next.set_routes(built.routes.clone());
        if let Some(building) = building {
            building.set_routes(built.routes);
        }
        for warning in &built.warnings {
            tracing::warn!(
                subject = warning.subject,
                detail = warning.detail,
                "left out"
            );
        }
        self.of_routes = built.warnings;
        for (pattern, known) in next.iter() {
            if known.upstream.is_some() {
                self.check_upstream(&pattern, Some(known), &next);
            }
        }
        self.upstreams.publish(built.upstreams);
        self.parts.snapshot.publish(next);
        self.publish_warnings();
    }

    /// Reads all domains, with retries for ever, answering requests in between; then what changed meanwhile.
    async fn read_everything(&mut self) {
        let mut failures = 0;
        while let Err(error) = self.rebuild().await {
            failures += 1;
            self.noted::<()>(Err(error));
            let pause = jittered(RETRY.after(failures), 0.2, rand::random());
            self.serve_requests_for(pause).await;
        }
        self.noted(Ok(()));
        self.measure();
    }

    async fn serve_requests_for(&mut self, pause: Duration) {
        let until = tokio::time::sleep(pause);
        tokio::pin!(until);
        loop {
            tokio::select! {
                () = &mut until => return,
                Some(request) = self.requests.recv() => self.answer(request, None).await,
            }
        }
    }

    async fn rebuild(&mut self) -> Result<(), StoreError> {
        // The position is taken first: what changes while pages are read is read again from the feed.
        let cursor = self.feed_end().await?;
        let current = self.parts.snapshot.get();
        let mut building = Snapshot::empty();
        building.set_routes((**current.routes()).clone());
        let is_first = !current.is_complete();
        drop(current);
        self.of_records.clear();
        let mut part = FIRST_PART;
        let mut replaced = Vec::new();
        let mut page = PageRequest::first();
        loop {
            let (store, scope) = (&self.parts.store, TenantScope::upkeep());
            let read = store
                .domains(Deadline::after(CALL), &scope, None, &page)
                .await?;
            for record in &read.items {
                if self.align_resolver(&record.pattern, Some(record)) == Kept::Outdated {
                    replaced.push(record.clone());
                }
                let known = known(record);
                self.check_upstream(&record.pattern, known.as_ref(), &building);
                building.put(known.map(|known| (record.pattern.clone(), known)));
            }
            for unreadable in &read.unreadable {
                self.keep_last(unreadable, &mut building);
            }
            if is_first && building.len() >= part {
                part = building.len() * 2;
                let part = with_known_of(&self.parts.snapshot.load(), &building);
                self.parts.snapshot.publish(part);
            }
            while let Ok(request) = self.requests.try_recv() {
                self.answer(request, Some(&mut building)).await;
            }
            match read.next {
                Some(next) => page = PageRequest::following(next),
                None => break,
            }
        }
        for pattern in self.parts.resolver.patterns() {
            if building.exact(&pattern).is_none() {
                self.align_resolver(&pattern, None);
            }
        }
        building.mark_complete();
        self.parts.snapshot.publish(building);
        self.publish_warnings();
        self.reload(replaced).await;
        self.cursor = cursor;
        Ok(())
    }

    /// What was last known of a name whose record cannot be read goes on serving.
    fn keep_last(&mut self, unreadable: &Unreadable, building: &mut Snapshot) {
        let Ok(pattern) = NamePattern::parse(&unreadable.key) else {
            return;
        };
        let current = self.parts.snapshot.get();
        let known = current.exact(&pattern);
        building.put(known.map(|known| (pattern.clone(), KnownDomain::clone(known))));
        drop(current);
        self.warn_of_record(pattern, &unreadable.why);
    }

    /// The feed's position now.
    async fn feed_end(&self) -> Result<Cursor, StoreError> {
        let mut cursor = Cursor::default();
        loop {
            let read = self
                .parts
                .store
                .changes(Deadline::after(CALL), &cursor, PageRequest::MOST)
                .await?;
            cursor = read.cursor;
            if read.status != FeedStatus::More {
                return Ok(cursor);
            }
        }
    }

    /// A domain whose upstream is not configured stays known, for its name must not be given away; its requests fail.
    fn check_upstream(
        &mut self,
        pattern: &NamePattern,
        known: Option<&KnownDomain>,
        in_force: &Snapshot,
    ) {
        let upstream = known.and_then(|known| known.upstream.as_ref());
        let missing = upstream.filter(|name| in_force.routes().to_upstream(name).is_none());
        let detail = missing.map(|name| {
            format!(
                "the permission hook chose the upstream {:?}, which is not configured: add a [[upstream]] of that name",
                name.as_str()
            )
        });
        self.warn(pattern, detail);
    }

    fn warn_of_record(&mut self, pattern: NamePattern, why: &str) {
        if self.of_records.len() < MOST_WARNINGS {
            let warning = Warning {
                subject: pattern.to_string(),
                detail: format!(
                    "its stored record cannot be read ({why}): what was last known of it serves on; restore a backup"
                ),
            };
            self.of_records.insert(pattern, warning);
        }
    }

    /// Keeps a warning about a domain until it is taken back by `None`; the log has it once.
    fn warn(&mut self, pattern: &NamePattern, detail: Option<String>) {
        let known = self.of_domains.get(pattern).map(|known| &known.detail);
        match detail {
            Some(detail) if known == Some(&detail) => {}
            Some(detail) if known.is_some() || self.of_domains.len() < MOST_WARNINGS => {
                tracing::warn!(domain = %pattern, detail, "a domain is not served as it should be");
                let warning = Warning {
                    subject: pattern.to_string(),
                    detail,
                };
                self.of_domains.insert(pattern.clone(), warning);
            }
            Some(_) => {}
            None => {
                self.of_domains.remove(pattern);
            }
        }
    }

    fn publish_warnings(&self) {
        let all: Vec<Warning> = self
            .of_routes
            .iter()
            .chain(self.of_domains.values())
            .chain(self.of_records.values())
            .cloned()
            .collect();
        if **self.warnings.load() != all {
            self.warnings.publish(all);
        }
    }

    /// Logs the first failure in a row and the recovery, not each poll in between.
    fn noted<T>(&mut self, result: Result<T, StoreError>) -> Option<T> {
        match result {
            Ok(value) => {
                if self.is_failing {
                    tracing::info!("the store can be followed again");
                }
                self.is_failing = false;
                Some(value)
            }
            Err(error) => {
                if !self.is_failing {
                    tracing::warn!(%error, "the store cannot be followed: the last snapshot goes on serving");
                }
                self.is_failing = true;
                None
            }
        }
    }

    fn measure(&self) {
        let known = self.parts.snapshot.load().len();
        self.parts.metrics.domains.set((), known);
    }
}

/// What is being built, and the names that were asked for one by one before it came to them.
fn with_known_of(in_force: &Snapshot, building: &Snapshot) -> Snapshot {
    let mut both = building.clone();
    let asked_for = in_force.iter();
    let asked_for = asked_for.filter(|(pattern, _)| building.exact(pattern).is_none());
    both.put(asked_for.map(|(pattern, known)| (pattern, KnownDomain::clone(known))));
    both
}

/// How a credential in memory stands to the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    /// It is the record's, or there is none.
    InLine,
    /// The record points to another certificate of the same tenant.
    Outdated,
}

fn stays(domain: &DomainRecord, error: &(dyn std::error::Error + 'static)) {
    tracing::warn!(
        domain = %domain.pattern, tenant = %domain.tenant, error, cause = error.source(),
        "a replaced certificate cannot be loaded: the one before it serves on"
    );
}

/// A record as traffic sees it; nothing where the name is not registered any more.
fn known(record: &DomainRecord) -> Option<KnownDomain> {
    match record.state {
        DomainState::Deleting | DomainState::Tombstoned => None,
        DomainState::PendingDns
        | DomainState::Verifying
        | DomainState::Issuing
        | DomainState::Active
        | DomainState::Renewing
        | DomainState::Degraded
        | DomainState::Moved
        | DomainState::Suspended => Some(KnownDomain {
            tenant: record.tenant.clone(),
            served: record.state.is_served(),
            upstream: record.upstream.clone(),
        }),
    }
}

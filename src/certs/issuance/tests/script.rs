//! A CA that does what a test tells it to, order by order, and otherwise what it should.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;

use crate::base::backoff::Backoff;
use crate::base::clock::{Instant, Timestamp};
use crate::base::secret::Secret;
use crate::ca::error::{CaError, Document, Step};
use crate::ca::private::Private;
use crate::ca::{
    Acceptance, Account, CertificateAuthority, Challenge, Material, Meta, NewOrder, Opened, Order,
    OrderStatus, RenewalInfo, RevokedLeaf, TellsRenewal,
};
use crate::certs::authorities::{self, breaker};
use crate::model::NamePattern;
use crate::model::certificate::CaId;
use crate::model::challenge::ChallengeKind;

const HOUR: Duration = Duration::from_secs(3600);

/// What the CA does with an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Does {
    /// What it should.
    Well,
    /// Refuses, and the order is spoilt.
    Refuses,
    /// Could not validate the name, and the order is spoilt.
    Invalidates,
    /// Says that it is busy, for an hour.
    Busy,
    /// Fails in passing.
    Fails,
    /// Certifies another name.
    OtherName,
    /// Never answers the request.
    Hangs,
}

/// An answer about a renewal.
type Renewal = Result<Option<RenewalInfo>, CaError>;

#[derive(Debug)]
pub(super) struct Script {
    ca: Private,
    directory: OnceLock<&'static str>,
    next: Mutex<VecDeque<Does>>,
    closed: Mutex<VecDeque<CaError>>,
    refusals: Mutex<VecDeque<CaError>>,
    renewals: Mutex<VecDeque<Renewal>>,
    tells: AtomicBool,
    /// Whether nothing of it can be reached.
    away: AtomicBool,
    /// How often it was asked about a renewal.
    pub(super) asked: AtomicUsize,
    /// What each order asked for said that it replaces.
    pub(super) replaced: Mutex<Vec<Option<Vec<u8>>>>,
    pub(super) placed: AtomicUsize,
    pub(super) resumed: AtomicUsize,
}

impl Script {
    pub(super) fn new(ca: Private) -> Self {
        Self {
            ca,
            directory: OnceLock::new(),
            next: Mutex::default(),
            closed: Mutex::default(),
            refusals: Mutex::default(),
            renewals: Mutex::default(),
            tells: AtomicBool::default(),
            away: AtomicBool::default(),
            asked: AtomicUsize::default(),
            replaced: Mutex::default(),
            placed: AtomicUsize::new(0),
            resumed: AtomicUsize::new(0),
        }
    }

    /// Is one from now on that names are proved to.
    pub(super) fn is_public(&self) {
        self.directory.set("https://ca.test/directory").unwrap();
    }

    /// Adds to the script.
    pub(super) fn will(&self, does: Does) {
        self.next.lock().unwrap().push_back(does);
    }

    /// Does well from the next order on.
    pub(super) fn forget(&self) {
        self.next.lock().unwrap().clear();
    }

    /// Refuses the next order that is asked for; further ones the one after.
    pub(super) fn will_refuse(&self, error: CaError) {
        self.refusals.lock().unwrap().push_back(error);
    }

    /// Cannot be reached from now on, or again.
    pub(super) fn goes(&self) {
        self.away.store(true, Ordering::SeqCst);
    }

    /// Can be reached again.
    pub(super) fn comes_back(&self) {
        self.away.store(false, Ordering::SeqCst);
    }

    fn reached(&self) -> Result<(), CaError> {
        match self.away.load(Ordering::SeqCst) {
            false => Ok(()),
            true => Err(CaError::Deadline {
                ca: self.ca.id().clone(),
                step: Step::NewOrder,
            }),
        }
    }

    /// Lets nobody have an account the next time.
    pub(super) fn will_not_open(&self, error: CaError) {
        self.closed.lock().unwrap().push_back(error);
    }

    /// Tells of renewals from now on; by default when it likes, and these answers first.
    pub(super) fn will_tell(&self, answers: Vec<Renewal>) {
        self.tells.store(true, Ordering::SeqCst);
        self.renewals.lock().unwrap().extend(answers);
    }

    fn does(&self) -> Does {
        let mut next = self.next.lock().unwrap();
        next.pop_front().unwrap_or(Does::Well)
    }
}

/// A refusal with a problem document of this type.
pub(super) fn refused(kind: &str, retry_after: Option<Duration>) -> CaError {
    CaError::Refused {
        ca: CaId::new("test"),
        step: Step::Finalize,
        document: Box::new(Document {
            kind: kind.to_owned(),
            detail: "in its own words".to_owned(),
            parts: Vec::new(),
            challenge: None,
        }),
        retry_after,
    }
}

/// An authority that is away is looked at again within milliseconds.
pub(super) fn watch() -> authorities::Parts {
    let pauses = Backoff {
        first: Duration::from_millis(2),
        factor: 2,
        most: Duration::from_millis(8),
    };
    authorities::Parts {
        breaker: breaker::Settings {
            pauses,
            ..breaker::Settings::default()
        },
        ..authorities::Parts::default()
    }
}

/// The CA of a test: a private CA that keeps to the script.
#[derive(Clone, Debug)]
pub(super) struct Scripted(pub(super) Arc<Script>);

#[async_trait]
impl CertificateAuthority for Scripted {
    fn id(&self) -> &CaId {
        self.0.ca.id()
    }

    fn directory(&self) -> Option<&str> {
        self.0.directory.get().copied()
    }

    fn slots(&self) -> Vec<String> {
        self.0.ca.slots()
    }

    fn certifies(&self, pattern: &NamePattern) -> bool {
        !pattern.is_wildcard()
    }

    async fn revoke_by_key(
        &self,
        leaf: RevokedLeaf<'_>,
        key: &Secret,
    ) -> Result<Acceptance, CaError> {
        self.0.ca.revoke_by_key(leaf, key).await
    }

    async fn open(&self, kept: Vec<Material>, now: Timestamp) -> Result<Opened, CaError> {
        let closed = self.0.closed.lock().unwrap().pop_front();
        if let Some(error) = closed {
            return Err(error);
        }
        let opened = self.0.ca.open(kept, now).await?;
        let account = ScriptedAccount {
            script: Arc::clone(&self.0),
            account: opened.account,
        };
        Ok(Opened {
            account: Arc::new(account),
            made: opened.made,
        })
    }

    async fn meta(&self) -> Result<Meta, CaError> {
        self.0.reached()?;
        self.0.ca.meta().await
    }

    fn next_key(&self, kept: &[Material]) -> Result<Option<Material>, CaError> {
        self.0.ca.next_key(kept)
    }

    async fn change_key(&self, kept: Vec<Material>) -> Result<Opened, CaError> {
        self.0.ca.change_key(kept).await
    }
}

#[derive(Debug)]
struct ScriptedAccount {
    script: Arc<Script>,
    account: Arc<dyn Account>,
}

impl ScriptedAccount {
    fn order(&self, order: Box<dyn Order>) -> Box<dyn Order> {
        Box::new(ScriptedOrder {
            order,
            account: Arc::clone(&self.account),
            does: self.script.does(),
            spoilt: false,
        })
    }
}

#[async_trait]
impl Account for ScriptedAccount {
    fn usable_until(&self) -> Timestamp {
        self.account.usable_until()
    }

    fn url(&self) -> Option<&str> {
        Some("https://ca.test/account/1")
    }

    fn root(&self) -> Option<&[u8]> {
        self.account.root()
    }

    fn tells_renewal(&self) -> TellsRenewal {
        match self.script.tells.load(Ordering::SeqCst) {
            true => TellsRenewal::Perhaps,
            false => TellsRenewal::No,
        }
    }

    async fn renewal_info(&self, _leaf: &[u8]) -> Renewal {
        self.script.asked.fetch_add(1, Ordering::SeqCst);
        let next = self.script.renewals.lock().unwrap().pop_front();
        next.unwrap_or_else(|| Ok(Some(RenewalInfo::default())))
    }

    async fn revoke(&self, leaf: RevokedLeaf<'_>) -> Result<Acceptance, CaError> {
        self.account.revoke(leaf).await
    }

    async fn order(&self, wanted: &NewOrder<'_>) -> Result<Box<dyn Order>, CaError> {
        self.script.reached()?;
        let replaces = wanted.replaces.map(<[u8]>::to_vec);
        self.script.replaced.lock().unwrap().push(replaces);
        let refusal = self.script.refusals.lock().unwrap().pop_front();
        if let Some(error) = refusal {
            return Err(error);
        }
        self.script.placed.fetch_add(1, Ordering::SeqCst);
        Ok(self.order(self.account.order(wanted).await?))
    }

    async fn resume(&self, url: &str) -> Result<Box<dyn Order>, CaError> {
        self.script.resumed.fetch_add(1, Ordering::SeqCst);
        Ok(self.order(self.account.resume(url).await?))
    }
}

struct ScriptedOrder {
    order: Box<dyn Order>,
    account: Arc<dyn Account>,
    does: Does,
    spoilt: bool,
}

#[async_trait]
impl Order for ScriptedOrder {
    fn url(&self) -> &str {
        self.order.url()
    }

    fn status(&self) -> OrderStatus {
        match self.spoilt {
            true => OrderStatus::Invalid,
            false => self.order.status(),
        }
    }

    async fn challenges(&mut self, _kinds: &[ChallengeKind]) -> Result<Vec<Challenge>, CaError> {
        Ok(Vec::new())
    }

    async fn begin(&mut self) -> Result<(), CaError> {
        Ok(())
    }

    async fn settle(&mut self, _by: Instant) -> Result<OrderStatus, CaError> {
        Ok(self.status())
    }

    async fn finalize(&mut self, request: &[u8]) -> Result<(), CaError> {
        match self.does {
            Does::Well => self.order.finalize(request).await,
            Does::Refuses => {
                self.spoilt = true;
                Err(refused("caa", None))
            }
            Does::Invalidates => {
                self.spoilt = true;
                let mut error = refused("connection", None);
                if let CaError::Refused { step, .. } = &mut error {
                    *step = Step::Authorization;
                }
                Err(error)
            }
            Does::Fails => Err(refused("serverInternal", None)),
            Does::Busy => Err(refused("serverInternal", Some(HOUR))),
            Does::OtherName => {
                let other = [NamePattern::parse("other.test").unwrap()];
                self.order = self.account.order(&NewOrder::of(&other)).await?;
                self.order.finalize(request).await
            }
            Does::Hangs => std::future::pending().await,
        }
    }

    async fn certificate(&mut self, by: Instant) -> Result<Vec<Vec<u8>>, CaError> {
        self.order.certificate(by).await
    }
}

//! An ACME order (RFC 8555 §7.1.3 and §7.4), driven by our own polling: quick at first, for a visitor waits.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use instant_acme::{AuthorizationStatus, ChallengeStatus, ChallengeType};

use super::chains::{self, Chain, Chains};
use super::repeat_stale_nonce;
use super::transport::{Line, document};
use crate::base::clock::{Instant, monotonic};
use crate::ca::authority::{Challenge, Order, OrderStatus};
use crate::ca::error::{CaError, Document, Step};
use crate::model::DnsName;
use crate::model::challenge::ChallengeKind;

/// The wait before the first look at an order; it grows by half each time.
const FIRST_LOOK: Duration = Duration::from_millis(10);
/// The longest wait between two looks, where the authority does not ask for a longer one.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// From this wait on, an interval that the authority suggests is kept. Before it a few quick looks spare the visitor
/// seconds, for most validations are over within one.
const HEED_FROM: Duration = Duration::from_millis(200);
/// Looks in a row that may fail in passing.
const MOST_PASSING: u32 = 4;

pub(super) struct AcmeOrder {
    order: instant_acme::Order,
    status: OrderStatus,
    /// How each name is proved, by the identifier as the authority writes it.
    chosen: Vec<(String, ChallengeKind)>,
    line: Line,
    chains: Option<Arc<Chains>>,
}

impl AcmeOrder {
    pub(super) fn new(
        mut order: instant_acme::Order,
        line: Line,
        chains: Option<Arc<Chains>>,
    ) -> Self {
        let status = status(order.state().status);
        Self {
            order,
            status,
            chosen: Vec::new(),
            line,
            chains,
        }
    }

    /// Looks at the order until it has left `state`.
    async fn leave(&mut self, state: OrderStatus, step: Step, by: Instant) -> Result<(), CaError> {
        let mut pace = Pace::new();
        let mut passing = 0;
        while self.status == state {
            let wait = pace.next();
            if monotonic() + wait > by {
                return Err(CaError::Deadline {
                    ca: self.line.id().clone(),
                    step,
                });
            }
            tokio::time::sleep(wait).await;
            match self.look(step).await {
                Ok(suggested) => {
                    passing = 0;
                    pace.suggest(suggested);
                }
                Err(error) if error.is_passing() && passing < MOST_PASSING => passing += 1,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn look(&mut self, step: Step) -> Result<Option<Duration>, CaError> {
        let mut attempts = 0;
        let seen = loop {
            match self.line.watch(step, self.order.refresh()).await {
                Err(error) if error.is_bad_nonce() && attempts < super::MOST_STALE => attempts += 1,
                Err(error) => return Err(error),
                Ok((_state, seen)) => break seen,
            }
        };
        self.status = status(self.order.state().status);
        Ok(seen.retry_after)
    }

    /// The chain that the authority gives by default, and where the others are.
    async fn fetch(&mut self) -> Result<(Chain, Vec<String>), CaError> {
        let mut attempts = 0;
        let (pem, seen) = loop {
            let call = self.order.certificate();
            match self.line.watch(Step::Certificate, call).await {
                Err(error) if error.is_bad_nonce() && attempts < super::MOST_STALE => attempts += 1,
                result => break result?,
            }
        };
        let garbled = |why: &str| self.garbled(Step::Certificate, why);
        let pem = pem.ok_or_else(|| garbled("no certificate in a valid order"))?;
        let chain = chains::read(pem.as_bytes()).map_err(|why| garbled(&why))?;
        Ok((chain, seen.alternates))
    }

    /// Fetches the authorizations that have not been fetched yet, so that going through them asks nobody: an
    /// iteration that fails half-way passes over the one it failed at.
    async fn fetch_authorizations(&mut self) -> Result<(), CaError> {
        let order = &mut self.order;
        repeat_stale_nonce!(self.line, Step::Authorization, async {
            let mut authorizations = order.authorizations();
            while let Some(authorization) = authorizations.next().await {
                authorization?;
            }
            Ok(())
        })
    }

    /// Why the order is invalid: the challenge that failed says it best (RFC 8555 §8.2).
    async fn failure(&mut self) -> CaError {
        let of_order = self.order.state().error.as_ref().map(document);
        let document = match self.failed_challenge().await {
            Ok(Some(document)) => document,
            Ok(None) | Err(_) => of_order.unwrap_or_else(|| Document {
                kind: String::new(),
                detail: "the order is invalid, and the authority does not say why".to_owned(),
                parts: Vec::new(),
                challenge: None,
            }),
        };
        CaError::Refused {
            ca: self.line.id().clone(),
            step: Step::Authorization,
            document: Box::new(document),
            retry_after: None,
        }
    }

    async fn failed_challenge(&mut self) -> Result<Option<Document>, CaError> {
        self.fetch_authorizations().await?;
        let mut authorizations = self.order.authorizations();
        while let Some(mut authorization) =
            next_authorization(&self.line, &mut authorizations).await?
        {
            repeat_stale_nonce!(self.line, Step::Authorization, async {
                authorization.refresh().await.map(|_state| ())
            })?;
            let failed = authorization.challenges.iter().find_map(|challenge| {
                let problem = challenge.error.as_ref()?;
                Some(Document {
                    challenge: kind_of(&challenge.r#type),
                    ..document(problem)
                })
            });
            if failed.is_some() {
                return Ok(failed);
            }
        }
        Ok(None)
    }

    fn garbled(&self, step: Step, why: &str) -> CaError {
        CaError::Garbled {
            ca: self.line.id().clone(),
            step,
            why: why.to_owned(),
        }
    }
}

async fn next_authorization<'a>(
    line: &Line,
    authorizations: &'a mut instant_acme::Authorizations<'_>,
) -> Result<Option<instant_acme::AuthorizationHandle<'a>>, CaError> {
    let next = async { authorizations.next().await.transpose() };
    line.call(Step::Authorization, next).await
}

const fn status(status: instant_acme::OrderStatus) -> OrderStatus {
    match status {
        instant_acme::OrderStatus::Pending => OrderStatus::Pending,
        instant_acme::OrderStatus::Ready => OrderStatus::Ready,
        instant_acme::OrderStatus::Processing => OrderStatus::Processing,
        instant_acme::OrderStatus::Valid => OrderStatus::Valid,
        instant_acme::OrderStatus::Invalid => OrderStatus::Invalid,
    }
}

const fn type_of(kind: ChallengeKind) -> ChallengeType {
    match kind {
        ChallengeKind::Http01 => ChallengeType::Http01,
        ChallengeKind::TlsAlpn01 => ChallengeType::TlsAlpn01,
    }
}

/// As the authority writes it.
fn word_of(r#type: &ChallengeType) -> String {
    match r#type {
        ChallengeType::Http01 => "http-01".to_owned(),
        ChallengeType::Dns01 => "dns-01".to_owned(),
        ChallengeType::TlsAlpn01 => "tls-alpn-01".to_owned(),
        ChallengeType::DeviceAttest01 => "device-attest-01".to_owned(),
        ChallengeType::Unknown(word) => word.clone(),
        other => format!("{other:?}"),
    }
}

fn kind_of(r#type: &ChallengeType) -> Option<ChallengeKind> {
    ChallengeKind::ALL
        .into_iter()
        .find(|kind| type_of(*kind) == *r#type)
}

/// The kind that the authority works on already, or else the first of `kinds` among those `offered`.
fn choose(offered: &[instant_acme::Challenge], kinds: &[ChallengeKind]) -> Option<ChallengeKind> {
    let begun = offered
        .iter()
        .filter(|challenge| challenge.status == ChallengeStatus::Processing)
        .find_map(|challenge| kind_of(&challenge.r#type));
    let is_offered = |kind: &&ChallengeKind| {
        offered
            .iter()
            .any(|challenge| challenge.r#type == type_of(**kind))
    };
    begun.or_else(|| kinds.iter().find(is_offered).copied())
}

#[async_trait]
impl Order for AcmeOrder {
    fn url(&self) -> &str {
        self.order.url()
    }

    fn status(&self) -> OrderStatus {
        self.status
    }

    async fn challenges(&mut self, kinds: &[ChallengeKind]) -> Result<Vec<Challenge>, CaError> {
        let mut found = Vec::new();
        self.chosen.clear();
        self.fetch_authorizations().await?;
        let mut authorizations = self.order.authorizations();
        while let Some(mut authorization) =
            next_authorization(&self.line, &mut authorizations).await?
        {
            if authorization.status != AuthorizationStatus::Pending {
                continue;
            }
            let offered: Vec<String> = authorization
                .challenges
                .iter()
                .map(|challenge| word_of(&challenge.r#type))
                .collect();
            let chosen = choose(&authorization.challenges, kinds)
                .and_then(|kind| Some((kind, authorization.challenge(type_of(kind))?)));
            let Some((kind, challenge)) = chosen else {
                return Err(CaError::NotOffered {
                    ca: self.line.id().clone(),
                    offered,
                });
            };
            let name = challenge.identifier().to_string();
            let host = DnsName::parse(&name).map_err(|error| CaError::Garbled {
                ca: self.line.id().clone(),
                step: Step::Authorization,
                why: format!("the authority wants a proof for {name:?}: {error}"),
            })?;
            self.chosen.push((name, kind));
            found.push(Challenge {
                kind,
                host,
                token: challenge.token.clone(),
                key_authorization: challenge.key_authorization().as_str().to_owned(),
            });
        }
        Ok(found)
    }

    async fn begin(&mut self) -> Result<(), CaError> {
        self.fetch_authorizations().await?;
        let mut authorizations = self.order.authorizations();
        while let Some(mut authorization) =
            next_authorization(&self.line, &mut authorizations).await?
        {
            if authorization.status != AuthorizationStatus::Pending {
                continue;
            }
            let name = authorization.identifier().to_string();
            let kind = self.chosen.iter().find(|(of, _)| *of == name);
            let Some((_, kind)) = kind else {
                continue;
            };
            // One that the authority works on already (a resumed order) is not to be begun again.
            if let Some(mut challenge) = authorization.challenge(type_of(*kind))
                && challenge.status == ChallengeStatus::Pending
            {
                repeat_stale_nonce!(self.line, Step::Authorization, challenge.set_ready())?;
            }
        }
        Ok(())
    }

    async fn settle(&mut self, by: Instant) -> Result<OrderStatus, CaError> {
        self.leave(OrderStatus::Pending, Step::Authorization, by)
            .await?;
        if self.status == OrderStatus::Invalid {
            return Err(self.failure().await);
        }
        Ok(self.status)
    }

    async fn finalize(&mut self, request: &[u8]) -> Result<(), CaError> {
        let result =
            repeat_stale_nonce!(self.line, Step::Finalize, self.order.finalize_csr(request));
        match result {
            Ok(()) => {
                self.status = status(self.order.state().status);
                Ok(())
            }
            // The answer to an earlier hand-in was lost: the order itself tells how far it is.
            Err(error) => match self.look(Step::Finalize).await {
                Ok(_) if self.status != OrderStatus::Ready => Ok(()),
                Ok(_) | Err(_) => Err(error),
            },
        }
    }

    async fn certificate(&mut self, by: Instant) -> Result<Vec<Vec<u8>>, CaError> {
        self.leave(OrderStatus::Processing, Step::Certificate, by)
            .await?;
        if self.status == OrderStatus::Invalid {
            return Err(self.failure().await);
        }
        let (chain, alternates) = self.fetch().await?;
        match &self.chains {
            Some(chains) => Ok(chains.choose(&self.line, chain, &alternates).await),
            None => Ok(chain),
        }
    }
}

/// The waits between looks.
struct Pace {
    wait: Duration,
    suggested: Option<Duration>,
}

impl Pace {
    const fn new() -> Self {
        Self {
            wait: FIRST_LOOK,
            suggested: None,
        }
    }

    const fn suggest(&mut self, suggested: Option<Duration>) {
        self.suggested = suggested;
    }

    fn next(&mut self) -> Duration {
        let wait = match self.suggested {
            Some(suggested) if self.wait >= HEED_FROM => suggested.max(self.wait),
            _ => self.wait,
        };
        self.wait = (self.wait * 3 / 2).min(LONGEST_WAIT);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_quickly_at_first_and_then_as_the_authority_suggests() {
        let mut pace = Pace::new();
        let quick: Vec<_> = (0..8).map(|_| pace.next().as_millis()).collect();
        assert_eq!(quick, [10, 15, 22, 33, 50, 75, 113, 170]);
        pace.suggest(Some(Duration::from_secs(3)));
        assert_eq!(pace.next(), Duration::from_secs(3));
        pace.suggest(None);
        let last = (0..20).map(|_| pace.next()).last();
        assert_eq!(last, Some(LONGEST_WAIT));
    }
}

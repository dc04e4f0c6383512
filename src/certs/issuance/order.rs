//! One order, from its placing or taking up to the chain that came of it.

use std::sync::Arc;

use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use rustls_pki_types::PrivatePkcs8KeyDer;

use super::again::Again;
use super::attempt::{Attempt, Known};
use super::failure::{Cause, Failure};
use super::proof::{self, Proof};
use crate::base::secret::Secret;
use crate::ca::{Account, CaError, Challenge, Order, OrderStatus};
use crate::certs::accounts::AccountError;
use crate::certs::challenge::{Challenges, kept_as};
use crate::certs::credential::sealed_as;
use crate::certs::policy::IssuancePermit;
use crate::model::NamePattern;
use crate::model::certificate::CaId;
use crate::model::challenge::ChallengeKind;
use crate::store::ApplyError;
use crate::store::batch::{Batch, Guard, Operation};
use crate::store::job::SavedOrder;
use crate::store::record::DomainRecord;

/// How long a committed answer to a challenge outlives the attempt that made it, at most: a successor replaces it.
const SLACK: std::time::Duration = std::time::Duration::from_secs(600);

/// An order with the key that it is for.
struct Placed {
    account: Arc<dyn Account>,
    order: Box<dyn Order>,
    key: KeyPair,
    sealed_key: Vec<u8>,
    /// What must be answered.
    challenges: Vec<Challenge>,
}

/// What is to be ordered, and the domain it is for as last read.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub permit: &'a IssuancePermit,
    pub known: &'a Known,
    pub domain: &'a DomainRecord,
}

/// What came of an order: unchecked.
pub(super) struct Obtained {
    /// The chain, DER, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// The key that was ordered for.
    pub key: KeyPair,
    /// The same, sealed.
    pub sealed_key: Vec<u8>,
    /// The account that ordered it.
    pub account: Arc<dyn Account>,
}

impl Attempt<'_> {
    /// Takes up the order that an earlier run left, or places one, and sees it through.
    pub(super) async fn obtain(&self, wanted: Wanted<'_>) -> Result<Obtained, Failure> {
        let ca = wanted.permit.ca();
        self.may_call(ca).await?;
        let account = self.account(ca).await?;
        let placed = match self.resume(wanted, ca, &account).await? {
            Some(placed) => placed,
            None => self.place(wanted, account).await?,
        };
        self.see_through(placed).await
    }

    async fn account(&self, ca: &CaId) -> Result<Arc<dyn Account>, Failure> {
        let mut again = Again::until(self.by);
        let names = std::slice::from_ref(self.pattern);
        loop {
            let opened = self.parts.accounts.account_for(self.tenant, names, ca);
            let error = match opened.await {
                Ok(account) => return Ok(account),
                Err(error) => error,
            };
            let passes = match &*error {
                AccountError::Ca(passing) => again.wait_after(passing).await,
                AccountError::NotConfigured(_)
                | AccountError::Vault(_)
                | AccountError::Store(_)
                | AccountError::Kept(_)
                | AccountError::Busy(_) => false,
            };
            if !passes {
                return Err(Cause::Account(error).into());
            }
        }
    }

    /// The saved order, in whatever state it is, unless nothing can be done with it any more.
    async fn resume(
        &self,
        wanted: Wanted<'_>,
        ca: &CaId,
        account: &Arc<dyn Account>,
    ) -> Result<Option<Placed>, Failure> {
        let Some(saved) = self.job.order.as_ref().filter(|saved| saved.ca == *ca) else {
            return Ok(None);
        };
        // Whoever cannot open the key must not order anew: the key-encryption key is wrong, and that is to be seen.
        let key = self
            .parts
            .vault
            .open(&self.owner(), &sealed_as(self.pattern), &saved.sealed_key)
            .await
            .map_err(Cause::Vault)?;
        let key = PrivatePkcs8KeyDer::from(key.expose());
        let key = KeyPair::try_from(&key).map_err(Cause::Key)?;
        let mut order = match account.resume(&saved.url).await {
            Ok(order) => order,
            Err(CaError::NoSuchOrder { .. }) => return Ok(None),
            Err(error) if error.is_account_gone() => return Ok(None),
            Err(error) => return Err(Cause::Ca(error).into()),
        };
        tracing::info!(domain = %self.pattern, %ca, order = saved.url, status = order.status().as_str(), "order taken up");
        let challenges = match order.status() {
            OrderStatus::Invalid => return Ok(None),
            OrderStatus::Pending => {
                let kinds = wanted.permit.methods();
                order.challenges(kinds).await.map_err(Cause::Ca)?
            }
            OrderStatus::Ready | OrderStatus::Processing | OrderStatus::Valid => Vec::new(),
        };
        Ok(Some(Placed {
            account: Arc::clone(account),
            order,
            key,
            sealed_key: saved.sealed_key.clone(),
            challenges,
        }))
    }

    async fn place(
        &self,
        wanted: Wanted<'_>,
        account: Arc<dyn Account>,
    ) -> Result<Placed, Failure> {
        let ca = wanted.permit.ca();
        let key = KeyPair::generate().map_err(Cause::Key)?;
        let sealed_key = self
            .parts
            .vault
            .seal(
                &self.owner(),
                &sealed_as(self.pattern),
                &Secret::new(key.serialize_der()),
            )
            .await
            .map_err(Cause::Vault)?;
        let (mut order, account) = self.new_order(&wanted, account).await?;
        let saved = SavedOrder {
            ca: ca.clone(),
            url: order.url().to_owned(),
            sealed_key: sealed_key.clone(),
        };
        let kinds = wanted.permit.methods();
        // The authority is asked what to prove while the order is being saved; it is told nothing yet.
        let asked = async {
            if order.status() == OrderStatus::Pending {
                order.challenges(kinds).await
            } else {
                Ok(Vec::new())
            }
        };
        let (saved, challenges) = tokio::join!(self.save(&wanted, saved), asked);
        saved?;
        let challenges = challenges.map_err(Cause::Ca)?;
        Ok(Placed {
            account,
            order,
            key,
            sealed_key,
            challenges,
        })
    }

    /// Saves the order, and with it the domain's state: unless the domain changed meanwhile, for it may have been
    /// suspended.
    async fn save(&self, wanted: &Wanted<'_>, order: SavedOrder) -> Result<(), Failure> {
        let save = Batch::new().then(Operation::SaveOrder {
            key: self.job.claim.key.clone(),
            order: Some(order),
        });
        let now = self.parts.clock.now();
        let state = wanted.known.begun(self, now).name();
        if state == wanted.domain.state {
            return self.commit(&save).await;
        }
        let version = Guard::DomainVersion(self.pattern.clone(), wanted.domain.version);
        let with_state = save.clone().guard(version).then(Operation::SetDomainState {
            pattern: self.pattern.clone(),
            state,
            problem: wanted.domain.problem.clone(),
        });
        match self.commit(&with_state).await {
            Err(Failure {
                cause: Cause::Refused(ApplyError::GuardFailed(_)),
                ..
            }) => self.commit(&save).await,
            result => result,
        }
    }

    async fn see_through(&self, mut placed: Placed) -> Result<Obtained, Failure> {
        let kinds = proof::kinds_of(&placed.challenges);
        let answers = self.answer(std::mem::take(&mut placed.challenges)).await?;
        let mut again = Again::until(self.by);
        let chain = loop {
            let result = drive(&mut *placed.order, &placed.key, (self, &kinds)).await;
            let cause = match result {
                Ok(chain) => break chain,
                Err(cause) if placed.order.status() == OrderStatus::Invalid => {
                    return Err(cause.with_dead_order());
                }
                Err(cause) => cause,
            };
            let passes = match cause.ca_error() {
                Some(error) => again.wait_after(error).await,
                None => false,
            };
            if !passes {
                return Err(cause.into());
            }
            self.look_again(&mut placed, &kinds).await;
        };
        drop(answers);
        Ok(Obtained {
            chain,
            key: placed.key,
            sealed_key: placed.sealed_key,
            account: placed.account,
        })
    }

    /// How far an order has come, itself tells; its challenges are answered already.
    async fn look_again(&self, placed: &mut Placed, kinds: &[ChallengeKind]) {
        let Ok(mut order) = placed.account.resume(placed.order.url()).await else {
            return;
        };
        let known = order.status() != OrderStatus::Pending || order.challenges(kinds).await.is_ok();
        if known {
            placed.order = order;
        }
    }

    /// Commits the answers, then publishes them here: from then on every node gives them.
    async fn answer(&self, challenges: Vec<Challenge>) -> Result<Answers, Failure> {
        let mut batch = Batch::new();
        for challenge in &challenges {
            batch = batch.then(Operation::PutChallenge {
                host: challenge.host.clone(),
                token: kept_as(challenge).to_owned(),
                key_authorization: challenge.key_authorization.clone(),
                lifetime: self.settings.job_deadline.saturating_add(SLACK),
            });
        }
        if !challenges.is_empty() {
            self.commit(&batch).await?;
        }
        for challenge in &challenges {
            self.parts.challenges.publish(
                &challenge.host,
                kept_as(challenge),
                &challenge.key_authorization,
            );
        }
        Ok(Answers {
            challenges: self.parts.challenges.clone(),
            published: challenges,
        })
    }
}

/// From challenges answered to the chain.
async fn drive(
    order: &mut dyn Order,
    key: &KeyPair,
    (attempt, kinds): (&Attempt<'_>, &[ChallengeKind]),
) -> Result<Vec<Vec<u8>>, Cause> {
    let mut proved: &[ChallengeKind] = &[];
    if order.status() == OrderStatus::Pending {
        order.begin().await.map_err(Cause::Ca)?;
        let settled = order.settle(attempt.by).await.map_err(Cause::Ca);
        if let Err(cause) = &settled
            && proof::concerns_kind(cause)
        {
            attempt.remember(kinds, Proof::Failed).await;
        }
        settled?;
        proved = kinds;
    }
    // Remembering takes a write, and the authority some time to sign: both at once.
    let finish = finish(order, key, attempt);
    let (chain, ()) = tokio::join!(finish, attempt.remember(proved, Proof::Passed));
    chain
}

/// From a proved name to the chain.
async fn finish(
    order: &mut dyn Order,
    key: &KeyPair,
    attempt: &Attempt<'_>,
) -> Result<Vec<Vec<u8>>, Cause> {
    if order.status() == OrderStatus::Ready {
        let request = request(attempt.pattern, key).map_err(Cause::Key)?;
        order.finalize(&request).await.map_err(Cause::Ca)?;
    }
    order.certificate(attempt.by).await.map_err(Cause::Ca)
}

/// The certificate request (RFC 2986): the name as subject alternative name, no subject.
fn request(pattern: &NamePattern, key: &KeyPair) -> Result<Vec<u8>, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::DnsName(pattern.to_string().try_into()?)];
    Ok(params.serialize_request(key)?.der().to_vec())
}

/// Published answers; withdrawn here when dropped. The store drops them with the end of the job.
struct Answers {
    challenges: Challenges,
    published: Vec<Challenge>,
}

impl Drop for Answers {
    fn drop(&mut self) {
        for challenge in &self.published {
            self.challenges
                .withdraw(&challenge.host, kept_as(challenge));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::DnsName;

    #[test]
    fn an_order_withdraws_no_answer_but_its_own() {
        let challenges = Challenges::default();
        let host = DnsName::parse("shop.acme.com").unwrap();
        let (own, others) = ("DGyRejmCefe7v4NfDGDKfA", "DGyRejmCefe7v4NfDGDKfB");
        let challenge = Challenge {
            kind: ChallengeKind::Http01,
            host: host.clone(),
            token: own.to_owned(),
            key_authorization: "proof".to_owned(),
        };
        for token in [own, others] {
            challenges.publish(&host, token, "proof");
        }
        drop(Answers {
            challenges: challenges.clone(),
            published: vec![challenge],
        });
        assert!(challenges.published_here(&host, own).is_none());
        // That of a check of the name that goes on meanwhile.
        assert!(challenges.published_here(&host, others).is_some());
    }
}

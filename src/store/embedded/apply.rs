//! A batch: guards, operations, audit events, in this order, in one savepoint.

use uuid::Uuid;

use crate::model::TenantScope;
use crate::store::batch::{Applied, ApplyError, Batch, Guard, Operation};
use crate::store::embedded::challenges::Answer;
use crate::store::embedded::domains::Registration;
use crate::store::embedded::jobs::{Request, request_upkeep};
use crate::store::embedded::retirement::{cancel, destroy_key};
use crate::store::embedded::transaction::Transaction;
use crate::store::embedded::writer::Change;
use crate::store::embedded::{
    budgets, certificates, challenges, claims, domains, events, jobs, resealed, retirement, secrets,
};
use crate::store::error::StoreError;
use crate::store::job::JobStanding;

/// See [`crate::store::Store::apply`].
pub(super) struct ApplyBatch {
    pub(super) scope: TenantScope,
    pub(super) batch: Batch,
    pub(super) epoch: Uuid,
}

impl Change for ApplyBatch {
    type Output = Applied;
    type Error = ApplyError;

    async fn run(&mut self, transaction: &mut Transaction<'_>) -> Result<Applied, ApplyError> {
        for guard in &self.batch.guards {
            if !holds(transaction, guard).await? {
                return Err(ApplyError::GuardFailed(guard.clone()));
            }
        }
        let mut jobs = Vec::new();
        for operation in &self.batch.operations {
            jobs.extend(perform(transaction, &self.scope, operation).await?);
        }
        for event in &self.batch.audit {
            events::append(transaction, &self.scope, event).await?;
        }
        Ok(Applied {
            position: transaction.heads.cursor(self.epoch),
            jobs,
        })
    }
}

async fn holds(transaction: &mut Transaction<'_>, guard: &Guard) -> Result<bool, StoreError> {
    let connection = &mut *transaction.connection;
    Ok(match guard {
        Guard::ClaimHeld(claim) => claims::is_held(connection, claim).await?,
        Guard::DomainVersion(pattern, version) => {
            let found = domains::find(connection, pattern).await?;
            found.is_some_and(|domain| domain.version == *version)
        }
        Guard::DomainAbsent(pattern) => domains::find(connection, pattern).await?.is_none(),
        Guard::DomainOwnedBy(pattern, tenant) => {
            let found = domains::find(connection, pattern).await?;
            found.is_some_and(|domain| domain.tenant == *tenant)
        }
        Guard::MaterialAbsent(ca, slot) => secrets::material(connection, ca, slot).await?.is_none(),
        Guard::NothingSealedBelow(owner, number) => {
            resealed::nothing_sealed_below(connection, owner, *number).await?
        }
        Guard::DataKeyIs(key) => secrets::data_key(connection, &key.owner, Some(key.id))
            .await?
            .is_some_and(|found| found == **key),
        Guard::MaterialIs(ca, slot, public) => secrets::material(connection, ca, slot)
            .await?
            .is_some_and(|found| found.public == *public),
        Guard::DataKeyAbsent(owner, id) => secrets::data_key(connection, owner, Some(*id))
            .await?
            .is_none(),
        Guard::StandingIs(certificate, standing) => {
            let found = certificates::find(connection, *certificate).await?;
            found.is_some_and(|found| found.standing == **standing)
        }
    })
}

/// Does one operation; gives the standing of a requested job. One arm for each, nothing else.
async fn perform(
    tx: &mut Transaction<'_>,
    scope: &TenantScope,
    operation: &Operation,
) -> Result<Option<JobStanding>, ApplyError> {
    match operation {
        Operation::PutTenant { id, source } => domains::put_tenant(tx, scope, id, *source).await?,
        Operation::PutDomain {
            pattern,
            tenant,
            source,
            upstream,
        } => {
            let wanted = Registration {
                pattern,
                tenant,
                source: *source,
                upstream: upstream.as_ref(),
            };
            domains::put(tx, scope, &wanted).await?;
        }
        Operation::SetDomainState {
            pattern,
            state,
            problem,
        } => domains::set_state(tx, scope, pattern, *state, problem.as_ref()).await?,
        Operation::Remember { pattern, learnt } => {
            domains::remember(tx, scope, pattern, learnt).await?;
        }
        Operation::DeleteDomain { pattern } => domains::delete(tx, scope, pattern).await?,
        Operation::PutCertificate(record) => certificates::put(tx, scope, record).await?,
        Operation::SetCertificateStanding {
            certificate,
            standing,
        } => retirement::amend(tx, scope, *certificate, standing).await?,
        Operation::CancelRevocation { certificate: id } => cancel(tx, scope, *id).await?,
        Operation::DestroyKey { certificate: id } => destroy_key(tx, scope, *id).await?,
        Operation::PointDomain {
            pattern,
            certificate,
        } => domains::point(tx, scope, pattern, *certificate).await?,
        Operation::PutChallenge {
            host,
            token,
            key_authorization,
            lifetime,
        } => {
            let answer = Answer {
                host,
                token,
                key_authorization,
                lifetime: *lifetime,
            };
            challenges::put(tx, scope, &answer).await?;
        }
        Operation::DropChallenges { host } => challenges::drop_all(tx, scope, host).await?,
        Operation::RequestJob {
            key,
            tenant,
            priority,
            delay,
            urgency,
        } => {
            let wanted = Request {
                key,
                tenant,
                priority: *priority,
                delay: *delay,
                urgency: *urgency,
            };
            return jobs::request(tx, scope, &wanted).await.map(Some);
        }
        Operation::RequestUpkeep { task, delay } => request_upkeep(tx, scope, task, *delay).await?,
        Operation::SaveOrder { key, order } => {
            jobs::save_order(tx, scope, key, order.as_ref()).await?;
        }
        Operation::FinishJob { key, outcome, next } => {
            jobs::finish(tx, scope, key, outcome, *next).await?;
        }
        Operation::DeleteJob { key } => jobs::delete(tx, scope, key).await?,
        Operation::PutMaterial(record) => secrets::put_material(tx, scope, record).await?,
        Operation::PutDataKey(record) => secrets::put_data_key(tx, scope, record).await?,
        Operation::Reseal(blob) => resealed::reseal(tx, scope, blob).await?,
        Operation::DestroyDataKeysBelow { owner, number } => {
            secrets::destroy_data_keys_below(tx, scope, owner, *number).await?;
        }
        Operation::DestroyDataKeys { tenant, through } => {
            retirement::destroy_data_keys(tx, scope, tenant, *through).await?;
        }
        Operation::FreezeBucket { bucket, duration } => {
            budgets::freeze(tx, bucket, *duration).await?;
        }
        Operation::ChargeBucket(cost) => budgets::charge(tx, cost).await?,
        Operation::GiveBack(cost) => budgets::give_back(tx, cost).await?,
        Operation::FillBucket { bucket } => budgets::fill(tx, bucket).await?,
    }
    Ok(None)
}

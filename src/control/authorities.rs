//! The certification authorities as an operator sees them, and the change of an account's key.

use crate::base::clock::Timestamp;
use crate::base::nearest::nearest;
use crate::ca::Meta;
use crate::certs::accounts::AccountError;
use crate::certs::authorities::{Authorities, AuthorityFacts};
use crate::control::actions::{ActionError, Actions};
use crate::control::caller::Grant;
use crate::control::views::{READ, ViewError, Views};
use crate::model::TenantId;
use crate::model::certificate::CaId;
use crate::store::batch::AuditEvent;
use crate::store::record::KeyOwner;
use crate::store::{ApplyError, Batch, Deadline};

/// An authority as an operator asks for it.
#[derive(Clone, Debug)]
pub struct AuthorityView {
    /// Whether it is asked, and how it failed last.
    pub facts: AuthorityFacts,
    /// What it says about itself; empty where it has never been read.
    pub meta: Meta,
    /// The URL of the account there, where there is one.
    pub account: Option<String>,
    /// When its directory is read again; nothing unless it is not asked.
    pub next_probe_at: Option<Timestamp>,
}

impl Views {
    /// Every authority, in order of preference. What one has never said about itself is asked for, a few seconds long.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn authorities(&self, _grant: &Grant) -> Result<Vec<AuthorityView>, ViewError> {
        let sources = self.sources();
        let now = sources.clock.now();
        let mut views = Vec::new();
        for facts in sources.authorities.facts().await {
            let meta = facts.meta.as_deref().cloned();
            views.push(AuthorityView {
                account: self.account_url(&facts.ca).await?,
                meta: meta.unwrap_or_default(),
                next_probe_at: facts.probe_in.map(|wait| now.plus(wait)),
                facts,
            });
        }
        Ok(views)
    }

    /// The URL of the account with an authority, where there is one.
    pub(in crate::control) async fn account_url(
        &self,
        ca: &CaId,
    ) -> Result<Option<String>, ViewError> {
        let sources = self.sources();
        let Some(slot) = sources.authorities.account_slot(ca) else {
            return Ok(None);
        };
        let by = Deadline::after(READ);
        let kept = sources.store.material(by, ca, &slot).await?;
        let url = kept.map(|kept| String::from_utf8_lossy(&kept.public).into_owned());
        Ok(url.filter(|url| !url.is_empty()))
    }

    /// The authorities that a tenant has chosen by name, and its profile; nothing where it is as for everybody.
    #[must_use]
    pub fn choice(&self, tenant: &TenantId) -> (Vec<String>, Option<String>) {
        let choice = self.sources().authorities.choice(tenant);
        let names = choice.authorities.iter().map(ToString::to_string);
        (
            names.collect(),
            choice.profile.map(|profile| profile.to_string()),
        )
    }
}

impl Actions {
    /// Changes the key of the account with an authority; the account stays, with its orders and limits.
    ///
    /// # Errors
    /// [`ActionError::NotFound`], [`ActionError::NotPossible`] for a CA of our own, [`ActionError::Authority`].
    pub async fn change_account_key(&self, grant: &Grant, ca: &str) -> Result<String, ActionError> {
        let event = AuditEvent {
            owner: KeyOwner::Platform,
            actor: grant.actor().clone(),
            kind: "ca.key_change_requested",
            subject: ca.to_owned(),
            detail: serde_json::json!({}),
        };
        let ca = CaId::new(ca);
        let accounts = self.accounts().ok_or_else(|| unknown(&ca, None))?;
        let authority = accounts.authorities().find(&ca);
        let authority = authority.ok_or_else(|| unknown(&ca, Some(accounts.authorities())))?;
        if authority.directory().is_none() {
            return Err(ActionError::NotPossible(format!(
                "{ca} is of kind \"private\", a CA of this edge: there is no account with it and so no account key; it \
                 makes itself a new issuing key in time, at least 60 days before the present one ends"
            )));
        }
        // In the audit chain before it is done: what cannot be kept is not done.
        let by = Deadline::after(READ);
        let audited = self
            .store()
            .apply(by, grant.scope(), Batch::new().audit(event))
            .await;
        if let Err(ApplyError::Store(error)) = audited {
            return Err(ActionError::Store(error));
        }
        let changed = accounts.change_key(&ca).await;
        changed.map_err(|error| {
            let mut words = vec![error.to_string()];
            if let AccountError::Ca(error) = &*error {
                words.extend(error.evidence());
            }
            ActionError::Authority(words.join(": "))
        })
    }
}

/// That no authority has this name, and which one was most likely meant.
fn unknown(ca: &CaId, configured: Option<&Authorities>) -> ActionError {
    let configured = configured.map(Authorities::all).unwrap_or_default();
    let names = configured.iter().map(|known| known.id().as_str());
    let near = nearest(ca.as_str(), names);
    let near = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
    ActionError::NotFound(format!("[[ca]] named {ca}{near}"))
}

//! A new order placed: in the place of the certificate that it replaces where the authority takes that, by a new account
//! where the authority does not know ours any more.

use std::sync::Arc;

use super::again::Again;
use super::attempt::Attempt;
use super::budget::Replacing;
use super::failure::{Cause, Failure};
use super::order::Wanted;
use crate::ca::{Account, NewOrder, Order};

impl Wanted<'_> {
    /// The certificate, DER, in whose place the new one comes.
    fn replaces(&self) -> Option<&[u8]> {
        let replaced = self.known.certificate.as_ref()?;
        (self.permit.replaces() == Some(replaced.facts.id)).then_some(&replaced.leaf)
    }
}

impl Attempt<'_> {
    /// Places the order (RFC 8555 §7.4).
    pub(super) async fn new_order(
        &self,
        wanted: &Wanted<'_>,
        account: Arc<dyn Account>,
    ) -> Result<(Box<dyn Order>, Arc<dyn Account>), Failure> {
        let order = NewOrder {
            names: std::slice::from_ref(self.pattern),
            replaces: wanted.replaces(),
            profile: wanted.permit.profile(),
        };
        let replacing = match order.replaces {
            Some(_) => Replacing::Said,
            None => Replacing::Unsaid,
        };
        self.spend(wanted, replacing).await?;
        let mut again = Again::until(self.by);
        let error = loop {
            match account.order(&order).await {
                Ok(placed) => {
                    self.placed();
                    return Ok((placed, account));
                }
                Err(error) if again.wait_after(&error).await => {}
                Err(error) => break error,
            }
        };
        let plain = NewOrder {
            replaces: None,
            ..order
        };
        let account = if error.is_account_gone() {
            let accounts = &self.parts.accounts;
            let replaced = accounts.replace(wanted.permit.ca(), &account).await;
            // Another account cannot replace what the lost one ordered.
            replaced.map_err(Cause::Account)?
        } else if order.replaces.is_some() && error.may_refuse_replaced() {
            // The order may be fine but for what it replaces: replaced already, ordered by another account, forgotten.
            // RFC 9773 §5 lets the authority refuse then; a renewal must not fail for it.
            tracing::info!(domain = %self.pattern, %error, "ordered without saying what is replaced");
            account
        } else {
            return Err(Cause::Ca(error).into());
        };
        self.spend_unsaid(wanted).await?;
        let placed = account.order(&plain).await.map_err(Cause::Ca)?;
        self.placed();
        Ok((placed, account))
    }
}

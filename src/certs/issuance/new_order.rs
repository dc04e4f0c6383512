//! A new order placed: in the place of the certificate that it replaces where the authority takes that, by a new account
//! where the authority does not know ours any more.

use std::sync::Arc;

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
    ) -> Result<Box<dyn Order>, Failure> {
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
        let placed = match account.order(&order).await {
            Err(error) if error.is_account_gone() => {
                let account = self
                    .parts
                    .accounts
                    .replace(wanted.permit.ca(), &account)
                    .await
                    .map_err(Cause::Account)?;
                // Another account cannot replace what the lost one ordered.
                self.spend_unsaid(wanted, replacing).await?;
                let order = NewOrder {
                    replaces: None,
                    ..order
                };
                account.order(&order).await
            }
            // The order may be fine but for what it replaces: replaced already, ordered by another account, forgotten.
            // RFC 9773 §5 lets the authority refuse then; a renewal must not fail for it.
            Err(error) if order.replaces.is_some() && error.may_refuse_replaced() => {
                tracing::info!(domain = %self.pattern, %error, "ordered without saying what is replaced");
                self.spend_unsaid(wanted, replacing).await?;
                let order = NewOrder {
                    replaces: None,
                    ..order
                };
                account.order(&order).await
            }
            result => result,
        };
        let placed = placed.map_err(Cause::Ca)?;
        self.placed();
        Ok(placed)
    }
}

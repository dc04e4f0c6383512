//! Whether a name that the permission hook allowed once still is.

use super::attempt::Attempt;
use super::failure::Cause;
use crate::certs::permission::ask::Standing;
use crate::certs::policy::Denial;
use crate::certs::request::Reason;
use crate::model::NamePattern;
use crate::model::domain::Source;
use crate::store::record::DomainRecord;

impl Attempt<'_> {
    /// Whether a name that the permission hook allowed once still is: only a denial stops its renewal.
    pub(super) async fn ask_again(
        &self,
        domain: &DomainRecord,
        reason: &Reason,
    ) -> Result<(), Cause> {
        let renews = !matches!(reason, Reason::First);
        let (Some(hook), NamePattern::Exact(name)) = (&self.parts.permission, self.pattern) else {
            return Ok(());
        };
        if !renews || domain.source != Source::Hook {
            return Ok(());
        }
        match hook.renewal(name).await {
            Standing::Allowed => Ok(()),
            Standing::Denied(_) => Err(Cause::Denied(Denial::HookDenies)),
            Standing::Unknown(error) => {
                tracing::warn!(domain = %name, %error, "the permission hook cannot be asked: renewing all the same");
                Ok(())
            }
        }
    }
}

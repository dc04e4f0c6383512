//! `[budget]`: how the limits of certification authorities are shared.

use crate::config::reader::{At, Table};
use crate::config::value;

#[derive(Debug, Default)]
pub(in crate::config) struct Budget {
    pub(in crate::config) spend: Option<At<f64>>,
    pub(in crate::config) emergency_reserve: Option<At<f64>>,
    pub(in crate::config) renewal_reserve: Option<At<f64>>,
    pub(in crate::config) handshake_reserve: Option<At<f64>>,
    pub(in crate::config) tenant_share: Option<At<f64>>,
}

pub(super) fn read(mut table: Table<'_>) -> Budget {
    let budget = Budget {
        spend: table.optional("spend", value::fraction(0.01..=1.0)),
        emergency_reserve: table.optional("emergency_reserve", value::fraction(0.0..=0.9)),
        renewal_reserve: table.optional("renewal_reserve", value::fraction(0.0..=0.9)),
        handshake_reserve: table.optional("handshake_reserve", value::fraction(0.0..=0.9)),
        tenant_share: table.optional("tenant_share", value::fraction(0.01..=1.0)),
    };
    table.finish();
    budget
}

//! `[preflight]`: what is looked at before an authority is asked.

use std::time::Duration;

use super::seconds;
use crate::certs::preflight::{Dial, Mode};
use crate::config::reader::{At, Table};
use crate::config::value;

#[derive(Debug, Default)]
pub(in crate::config) struct Preflight {
    pub(in crate::config) mode: Option<At<Mode>>,
    pub(in crate::config) deadline: Option<At<Duration>>,
    pub(in crate::config) dial: Option<At<Dial>>,
    pub(in crate::config) recheck: Option<At<Duration>>,
    pub(in crate::config) moved_after: Option<At<Duration>>,
}

pub(super) fn read(mut table: Table<'_>) -> Preflight {
    let day = seconds(86_400);
    let second = seconds(1);
    let enabled = table.optional("enabled", value::flag);
    let private = table.optional("private_addresses", value::flag);
    let preflight = Preflight {
        mode: enabled.map(|at| At {
            value: if at.value { Mode::On } else { Mode::Off },
            at: at.at,
        }),
        deadline: table.optional("deadline", value::duration(second..=seconds(60))),
        dial: private.map(|at| At {
            value: if at.value {
                Dial::Any
            } else {
                Dial::PublicAndOwn
            },
            at: at.at,
        }),
        recheck: table.optional("recheck", value::duration(second..=day)),
        moved_after: table.optional("moved_after", value::duration(second..=day * 400)),
    };
    table.finish();
    preflight
}

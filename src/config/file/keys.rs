//! `[keys]`: where the key-encryption key lies, and how long keys are kept.

use std::path::PathBuf;
use std::time::Duration;

use super::seconds;
use crate::config::reader::{At, Table};
use crate::config::value;

#[derive(Debug, Default)]
pub(in crate::config) struct Keys {
    pub(in crate::config) file: Option<At<PathBuf>>,
    pub(in crate::config) retired_kept: Option<At<Duration>>,
}

pub(super) fn read(mut table: Table<'_>) -> Keys {
    let keys = Keys {
        file: table.optional("file", value::path),
        retired_kept: table.optional(
            "retired_kept",
            value::duration(seconds(0)..=seconds(400 * 86_400)),
        ),
    };
    table.finish();
    keys
}

//! `[keys]`: where the key-encryption key lies.

use std::path::PathBuf;

use crate::config::reader::{At, Table};
use crate::config::value;

#[derive(Debug, Default)]
pub(in crate::config) struct Keys {
    pub(in crate::config) file: Option<At<PathBuf>>,
}

pub(super) fn read(mut table: Table<'_>) -> Keys {
    let keys = Keys {
        file: table.optional("file", value::path),
    };
    table.finish();
    keys
}

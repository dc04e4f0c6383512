//! `[store]`: where certificates, jobs and registered names are kept.

use std::path::PathBuf;

use crate::config::reader::{At, Table};
use crate::config::value;

#[derive(Debug, Default)]
pub(in crate::config) struct Store {
    pub(in crate::config) data: Option<At<PathBuf>>,
}

pub(super) fn read(mut table: Table<'_>) -> Store {
    let store = Store {
        data: table.optional("data", value::path),
    };
    table.finish();
    store
}

//! `[admin]`: where the control API listens.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::reader::{At, Table};
use crate::config::value;

#[derive(Debug, Default)]
pub(in crate::config) struct Admin {
    pub(in crate::config) socket: Option<At<PathBuf>>,
    pub(in crate::config) address: Option<At<SocketAddr>>,
}

pub(super) fn read(mut table: Table<'_>) -> Admin {
    let admin = Admin {
        socket: table.optional("socket", value::path),
        address: table.optional("address", value::socket_address),
    };
    table.finish();
    admin
}

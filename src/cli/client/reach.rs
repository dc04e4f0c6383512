//! Which instance is meant: that of a socket, or that of a configuration.

use std::path::{Path, PathBuf};

use crate::cli::client::ClientOptions;
use crate::cli::client::connection::{ClientError, Connection, Meant};
use crate::config::locate::{Located, ToldBy, admin_socket};

/// The configuration where none is named.
const FILE: &str = "proxy.toml";

/// Connects to the instance that the options mean.
pub(super) async fn connect(client: &ClientOptions) -> Result<Connection, ClientError> {
    if let Some(socket) = &client.socket {
        return Connection::open(socket.clone(), Meant::Socket).await;
    }
    let file = configuration(client.config.as_deref());
    let Located { socket, told_by } = admin_socket(&file);
    let meant = match told_by {
        ToldBy::File => Meant::File(file),
        ToldBy::BrokenFile => Meant::BrokenFile(file),
        ToldBy::NoFile if client.config.is_none() => Meant::NoFile(file),
        ToldBy::NoFile => return Err(missing(&file)),
        ToldBy::UnreadableFile(why) => {
            return Err(ClientError::Configuration(format!(
                "{why}; it tells where the instance's socket is: name another with --config, or the socket itself with --socket"
            )));
        }
    };
    Connection::open(socket, meant).await
}

/// The configuration that is meant, with its whole path: what is said of it must be found from anywhere.
pub(super) fn configuration(named: Option<&Path>) -> PathBuf {
    let file = named.unwrap_or_else(|| Path::new(FILE));
    std::path::absolute(file).unwrap_or_else(|_no_folder| file.to_owned())
}

fn missing(file: &Path) -> ClientError {
    ClientError::Configuration(format!(
        "there is no configuration {}: correct --config, or name the instance's socket with --socket",
        file.display()
    ))
}

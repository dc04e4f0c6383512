//! What is handed in from files: certificates with their keys.

use std::io::Write;
use std::path::Path;

use serde::Serialize;

use crate::base::file::read_capped;
use crate::base::secret::Secret;
use crate::cli::client::connection::ClientError;
use crate::cli::client::{ImportOptions, connect, show, write_one};

/// The largest chain, in bytes.
const MOST_CHAIN: u64 = 256 * 1024;
/// The largest private key, in bytes.
const MOST_KEY: u64 = 32 * 1024;

/// As the API takes it.
#[derive(Serialize)]
struct CertificateImport<'a> {
    chain_pem: &'a str,
    key_pem: &'a str,
    tenant: Option<&'a str>,
    domains: &'a [String],
}

/// `vestibule certificate import`.
pub(super) async fn certificate(
    options: &ImportOptions,
    output: &mut dyn Write,
) -> Result<(), ClientError> {
    let chain = read(&options.chain, MOST_CHAIN)?;
    let key = read(&options.key, MOST_KEY)?;
    let import = CertificateImport {
        // What is no text holds no PEM either, and the instance says so.
        chain_pem: chain.expose_str().unwrap_or_default(),
        key_pem: key.expose_str().unwrap_or_default(),
        tenant: options.tenant.as_deref(),
        domains: &options.domains,
    };
    let mut connection = connect(&options.client).await?;
    let answer = connection
        .tell(&["certificates", "import"], &import)
        .await?;
    write_one(&options.client, &answer, show::imported, output)
}

/// A file, wiped from memory after use: it may hold a key, wherever it was named.
fn read(path: &Path, most: u64) -> Result<Secret, ClientError> {
    read_capped(path, most)
        .map(Secret::new)
        .map_err(ClientError::Input)
}

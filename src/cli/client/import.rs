//! What is handed in from files and written to them: certificates with their keys.

use std::io::Write;
use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use crate::base::file::{NewFile, read_capped};
use crate::base::secret::Secret;
use crate::cli::client::connection::ClientError;
use crate::cli::client::{ClientCertificateOptions, ImportOptions, connect, show, write_one};

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

/// As the API takes it.
#[derive(Serialize)]
struct ClientRequest<'a> {
    tenant: &'a str,
    name: &'a str,
    ca: Option<&'a str>,
}

/// `vestibule certificate issue-client`: the file can be read by its owner alone, and is made first, for the key comes
/// once.
pub(super) async fn client(
    options: &ClientCertificateOptions,
    output: &mut dyn Write,
) -> Result<(), ClientError> {
    let file = NewFile::create(&options.out).map_err(ClientError::Input)?;
    let request = ClientRequest {
        tenant: &options.tenant,
        name: &options.name,
        ca: options.ca.as_deref(),
    };
    let mut connection = connect(&options.client).await?;
    let mut answer = connection
        .tell(&["certificates", "issue-client"], &request)
        .await?;
    let mut take = |key: &str| match answer.get_mut(key).map(Value::take) {
        Some(Value::String(text)) => Ok(Secret::from(text)),
        _ => Err(ClientError::NotUnderstood),
    };
    let (key, chain) = (take("key_pem")?, take("chain_pem")?);
    let both = Secret::new([key.expose(), chain.expose()].concat());
    let certificate = answer.get("certificate").cloned().unwrap_or_default();
    let id = show::cell(&certificate, &["id"]);
    let lost = |error| ClientError::KeyLost(error, id);
    file.fill(both.expose()).map_err(lost)?;
    let file = options.out.display().to_string();
    let answer = json!({ "certificate": certificate, "file": file });
    write_one(&options.client, &answer, show::client, output)
}

/// A file, wiped from memory after use: it may hold a key, wherever it was named.
fn read(path: &Path, most: u64) -> Result<Secret, ClientError> {
    read_capped(path, most)
        .map(Secret::new)
        .map_err(ClientError::Input)
}

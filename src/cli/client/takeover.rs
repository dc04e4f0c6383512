//! `vestibule import caddy`: what Caddy kept, handed to a running instance in parts, with a result for each name.

use std::fs::File;
use std::io::{BufReader, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Value, json};

use crate::certs::import::caddy::{Account, Certificate, Export, LeftOut};
use crate::cli::client::connection::{ClientError, Connection};
use crate::cli::client::{ClientOptions, connect, show};

/// Certificates handed in at once.
const MOST_AT_ONCE: usize = 25;
/// Bytes handed in at once, about; the instance takes 2 MiB.
const MOST_BYTES: usize = 512 * 1024;

/// `vestibule import …`
#[derive(Debug, Subcommand)]
pub enum ImportCommand {
    /// Take over the certificates, keys and the ACME account of Caddy, from the file of `caddy storage export`
    #[command(
        after_help = "Nothing is ordered: every certificate serves here as it is, and is renewed in time by the account that ordered it.\nA second run changes nothing.\n\nNames that are registered stay with their tenant. Others go to --tenant; without it, and with [on_demand] ask in Caddy's way, each becomes a tenant of its own, as its first visit would have made it."
    )]
    Caddy(TakeoverOptions),
}

/// Options of `import caddy`.
#[derive(Clone, Debug, Args)]
pub struct TakeoverOptions {
    /// The tar archive that `caddy storage export --output FILE` wrote, from any storage
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Who gets names that nobody has registered; made if there is no such tenant
    #[arg(long, value_name = "ID")]
    pub tenant: Option<String>,
    /// How and where.
    #[command(flatten)]
    pub client: ClientOptions,
}

/// A certificate as the API takes it.
#[derive(Serialize)]
struct BroughtCertificate<'a> {
    chain_pem: &'a str,
    key_pem: &'a str,
    directory: Option<&'a str>,
    account: Option<&'a str>,
}

#[derive(Serialize)]
struct CertificateTakeover<'a> {
    tenant: Option<&'a str>,
    certificates: Vec<BroughtCertificate<'a>>,
}

#[derive(Serialize)]
struct AccountTakeover<'a> {
    directory: &'a str,
    url: &'a str,
    key_pem: &'a str,
}

/// Hands everything in and tells what came of it.
pub(super) async fn caddy(
    options: &TakeoverOptions,
    output: &mut dyn Write,
) -> Result<(), ClientError> {
    let file = File::open(&options.file).map_err(|error| unreadable(options, &error))?;
    let mut export = Export::open(BufReader::new(file))
        .map_err(|error| unusable(options, &crate::cli::output::chain(&error)))?;
    let connection = connect(&options.client).await?;
    let mut takeover = Takeover {
        options,
        connection,
        output,
        part: show::Part::First,
        counts: [0; 3],
    };
    for account in export
        .accounts()
        .map_err(|error| unreadable(options, &error))?
    {
        takeover.account(account).await?;
    }
    let mut waiting: Vec<Certificate> = Vec::new();
    let mut bytes = 0;
    while let Some(certificate) = export
        .next_certificate()
        .map_err(|error| unreadable(options, &error))?
    {
        match certificate {
            Ok(certificate) => {
                bytes += certificate.chain.expose().len() + certificate.key.expose().len();
                waiting.push(certificate);
            }
            Err(left_out) => takeover.left_out(&left_out)?,
        }
        if waiting.len() >= MOST_AT_ONCE || bytes >= MOST_BYTES {
            takeover.certificates(&waiting).await?;
            waiting.clear();
            bytes = 0;
        }
    }
    if !waiting.is_empty() {
        takeover.certificates(&waiting).await?;
    }
    takeover.finish()
}

/// A takeover under way.
struct Takeover<'a> {
    options: &'a TakeoverOptions,
    connection: Connection,
    output: &'a mut dyn Write,
    part: show::Part,
    /// Imported, unchanged, skipped.
    counts: [usize; 3],
}

impl Takeover<'_> {
    async fn account(&mut self, account: Result<Account, LeftOut>) -> Result<(), ClientError> {
        let account = match account {
            Ok(account) => account,
            Err(left_out) => return self.left_out(&left_out),
        };
        let what = format!("account {}", account.url);
        // An account whose certificates are gone tells its authority only by where it is kept.
        let Some(directory) = account.directory.as_deref() else {
            let why = "no certificate of the archive tells the directory of its authority";
            return self.left_out(&LeftOut { what, why });
        };
        let takeover = AccountTakeover {
            directory,
            url: &account.url,
            key_pem: account.key.expose_str().unwrap_or_default(),
        };
        let mut result = self
            .connection
            .tell(&["import", "accounts"], &takeover)
            .await?;
        if let Some(fields) = result.as_object_mut() {
            fields.insert("names".to_owned(), json!([what]));
        }
        self.tell(&[result])
    }

    async fn certificates(&mut self, certificates: &[Certificate]) -> Result<(), ClientError> {
        let takeover = CertificateTakeover {
            tenant: self.options.tenant.as_deref(),
            certificates: certificates
                .iter()
                .map(|certificate| BroughtCertificate {
                    chain_pem: certificate.chain.expose_str().unwrap_or_default(),
                    key_pem: certificate.key.expose_str().unwrap_or_default(),
                    directory: certificate.directory.as_deref(),
                    account: certificate.account.as_deref(),
                })
                .collect(),
        };
        let answer = self
            .connection
            .tell(&["import", "certificates"], &takeover)
            .await?;
        let results = answer.get("results").and_then(Value::as_array);
        let results = results.filter(|results| results.len() == certificates.len());
        let mut results = results.ok_or(ClientError::NotUnderstood)?.clone();
        // A certificate that could not be read has no names of its own.
        for (result, certificate) in results.iter_mut().zip(certificates) {
            let nameless = result.get("names").and_then(Value::as_array);
            if nameless.is_some_and(Vec::is_empty)
                && let Some(fields) = result.as_object_mut()
            {
                fields.insert("names".to_owned(), json!([certificate.name]));
            }
        }
        self.tell(&results)
    }

    fn left_out(&mut self, left_out: &LeftOut) -> Result<(), ClientError> {
        let result = json!({
            "names": [left_out.what], "tenant": null, "result": "skipped", "detail": left_out.why,
        });
        self.tell(&[result])
    }

    fn tell(&mut self, results: &[Value]) -> Result<(), ClientError> {
        for result in results {
            let word = result.get("result").and_then(Value::as_str);
            let at = ["imported", "unchanged", "skipped"]
                .iter()
                .position(|it| Some(*it) == word);
            let count = at.and_then(|at| self.counts.get_mut(at));
            *count.ok_or(ClientError::NotUnderstood)? += 1;
        }
        let text = match self.options.client.json {
            true => results.iter().map(|result| format!("{result}\n")).collect(),
            false => show::table(show::TAKEN, results, self.part),
        };
        self.part = show::Part::Further;
        self.output
            .write_all(text.as_bytes())
            .map_err(ClientError::Output)
    }

    fn finish(self) -> Result<(), ClientError> {
        if self.options.client.json {
            return Ok(());
        }
        let [imported, unchanged, skipped] = self.counts;
        let nothing = match imported {
            0 => "; nothing has changed",
            _ => "",
        };
        let text =
            format!("{imported} imported, {unchanged} unchanged, {skipped} skipped{nothing}\n");
        self.output
            .write_all(text.as_bytes())
            .map_err(ClientError::Output)
    }
}

fn unreadable(options: &TakeoverOptions, error: &std::io::Error) -> ClientError {
    unusable(options, &error.to_string())
}

fn unusable(options: &TakeoverOptions, why: &str) -> ClientError {
    let text = format!("cannot read {}: {why}", options.file.display());
    ClientError::Input(std::io::Error::other(text))
}

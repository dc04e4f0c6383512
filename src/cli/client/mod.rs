//! The commands that ask a running instance: a client of its control API, over its Unix socket.
//!
//! Tables for people; with `--json`, lists as one JSON object a line and anything else as one object. Reading
//! order: this file and `typed` (what may be typed), `reach` (which instance is meant), `connection` (one request),
//! `certificates` (found by id or serial number), `import` and `takeover` (files handed in), `destroy` (what is asked once more),
//! `show`, `budget` and `drill` (answers for people).

mod budget;
mod certificates;
mod connection;
mod destroy;
mod drill;
mod forecast;
mod import;
mod keys;
mod reach;
mod show;
mod takeover;
mod typed;

#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use serde_json::Value;

use crate::model::revocation::{RevocationOrder, RevocationReason};

pub use connection::{ClientError, Meant};
pub use takeover::ImportCommand;

use connection::Method;
use destroy::Confirmation;
use reach::connect;

/// Items asked for at a time.
const PAGE: &str = "1000";

/// Which instance, and how its answer is written.
#[derive(Clone, Debug, Args)]
pub struct ClientOptions {
    /// The configuration that the instance runs with, which tells where its socket is [default: proxy.toml]
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The instance's socket; no configuration is read then
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// JSON instead of tables: a list is one object a line
    #[arg(long)]
    pub json: bool,
}

/// Which items of a list.
#[derive(Clone, Debug, Args)]
pub struct ListOptions {
    /// Only what belongs to this tenant
    #[arg(long, value_name = "ID", value_parser = typed::tenant)]
    pub tenant: Option<String>,
    /// How and where.
    #[command(flatten)]
    pub client: ClientOptions,
}

/// The commands that ask a running instance.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// How the running instance is: its phase, what is not well
    Status(ClientOptions),
    /// Read the configuration again; one with mistakes is refused and the old one stays
    Reload(ClientOptions),
    /// Tenants: which there are, and the end of one's keys
    #[command(subcommand)]
    Tenant(TenantCommand),
    /// Domains: why one works or does not, and another try
    #[command(subcommand)]
    Domain(DomainCommand),
    /// Certification authorities, and the keys of the accounts with them
    #[command(subcommand)]
    Ca(CaCommand),
    /// Certificates: which there are; revoked, replaced, rolled back, imported, issued for clients
    #[command(subcommand)]
    Certificate(CertificateCommand),
    /// Move over from another server
    #[command(subcommand)]
    Import(ImportCommand),
    /// The keys at rest: how they stand, and their exchange
    #[command(subcommand)]
    Keys(KeysCommand),
    /// What the instance works on by itself, and when
    #[command(subcommand)]
    Job(JobCommand),
    /// What is left of the CAs' limits, what is stopped, when the next order may go; and what an import would take
    Budget(BudgetOptions),
    /// What would happen if everything had to be replaced, a CA were away or the key file lost; touches no CA
    Drill {
        /// Orders a second to reckon with, 1 to 1000000 [default: as measured, else 12]
        #[arg(long, value_name = "N", value_parser = typed::rate)]
        rate: Option<u32>,
        /// How and where.
        #[command(flatten)]
        client: ClientOptions,
    },
    /// Who did what: the audit trail
    #[command(subcommand)]
    Event(EventCommand),
}

/// `vestibule tenant …`
#[derive(Debug, Subcommand)]
pub enum TenantCommand {
    /// All tenants
    List(ClientOptions),
    /// Destroy the keys of a tenant without domains, for good: what they sealed is not opened again, in no restored backup either
    DestroyKeys {
        /// Its id, as in the list
        #[arg(value_parser = typed::tenant)]
        id: String,
        /// Do not ask: where there is no terminal to type the id at once more
        #[arg(long)]
        yes: bool,
        /// How and where.
        #[command(flatten)]
        client: ClientOptions,
    },
}

/// `vestibule keys …`
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Exchange the key-encryption key for a new one while everything serves, or finish an exchange that was broken off
    Rotate(RotateOptions),
    /// Make a new data key; what older ones sealed is sealed anew while everything serves, and they are destroyed then
    RotateData(RotateOptions),
    /// Which key-encryption key wraps, how far an exchange has come, and which data keys do not open
    Show(ClientOptions),
}

/// Options of `keys rotate`.
#[derive(Clone, Debug, Args)]
pub struct RotateOptions {
    /// The tenant whose key it is [default: the platform's]
    #[arg(long, value_name = "ID")]
    pub tenant: Option<String>,
    /// How and where.
    #[command(flatten)]
    pub client: ClientOptions,
}

/// `vestibule domain …`
#[derive(Debug, Subcommand)]
pub enum DomainCommand {
    /// All domains, or a tenant's
    List(ListOptions),
    /// One domain: its state, what is wrong, what repairs it, its certificate, its DNS
    Show {
        /// The name as registered: shop.example.com or '*.example.com'
        #[arg(value_parser = typed::name)]
        name: String,
        /// How and where.
        #[command(flatten)]
        client: ClientOptions,
    },
    /// Look at a name, registered or not: its DNS, who answers for it, what repairs it; costs none of a CA's limits
    Check {
        /// The name: shop.example.com or '*.example.com'
        #[arg(value_parser = typed::name)]
        name: String,
        /// How and where.
        #[command(flatten)]
        client: ClientOptions,
    },
    /// Ask for its certificate now, whatever its back-off; one that is good is renewed early
    Retry {
        /// The name as registered: shop.example.com or '*.example.com'
        #[arg(value_parser = typed::name)]
        name: String,
        /// How and where.
        #[command(flatten)]
        client: ClientOptions,
    },
}

/// `vestibule ca …`
#[derive(Debug, Subcommand)]
pub enum CaCommand {
    /// All authorities in order of preference: whether they are asked, the account, the terms, the profiles
    List(ClientOptions),
    /// Change the key of the account with an ACME one; the account stays, and what was interrupted goes on where it was
    Rollover {
        /// The authority's name in the configuration
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
        /// How and where.
        #[command(flatten)]
        client: ClientOptions,
    },
}

/// `vestibule certificate …`
#[derive(Debug, Subcommand)]
pub enum CertificateCommand {
    /// All certificates, or a tenant's, or those of a serial number; replaced ones are among them
    List {
        /// Only what has this serial number: hexadecimal in any case, with or without colons
        #[arg(long, value_name = "HEX")]
        serial: Option<String>,
        /// Whose, and how and where.
        #[command(flatten)]
        list: ListOptions,
    },
    /// Serve a certificate that was issued elsewhere; before it ends, one is ordered in its place
    Import(ImportOptions),
    /// Issue a certificate for a client of a tenant, for mutual TLS, by a CA of your own
    IssueClient(ClientCertificateOptions),
    /// Revoke a certificate; one that serves is replaced first, by one with a new key; again with --compromised raises it
    Revoke {
        /// Its id, as in the list
        #[arg(value_parser = typed::certificate)]
        id: String,
        /// Why: unspecified, key-compromise, affiliation-changed, superseded, cessation-of-operation, privilege-withdrawn
        #[arg(long, value_name = "REASON", default_value = "unspecified", value_parser = typed::reason)]
        reason: RevocationReason,
        /// Somebody else has its private key: the same as --reason key-compromise
        #[arg(long, conflicts_with = "reason")]
        compromised: bool,
        /// Revoke at once, and replace it after that; visitors may meet a revoked certificate meanwhile
        #[arg(long)]
        at_once: bool,
        /// Take the wish back, while nobody was told of it
        #[arg(long, conflicts_with_all = ["reason", "compromised", "at_once"])]
        cancel: bool,
        /// How and where.
        #[command(flatten)]
        client: ClientOptions,
    },
    /// Obtain another certificate with a new key in the place of one that serves, now
    Replace {
        /// Its id, as in the list
        #[arg(value_parser = typed::certificate)]
        id: String,
        /// How and where.
        #[command(flatten)]
        client: ClientOptions,
    },
    /// Serve an earlier certificate of a domain again
    Rollback {
        /// The name as registered: shop.example.com or '*.example.com'
        #[arg(value_parser = typed::name)]
        domain: String,
        /// The certificate to serve, instead of the newest that is older than the present one
        #[arg(long, value_name = "ID", value_parser = typed::certificate)]
        to: Option<String>,
        /// How and where.
        #[command(flatten)]
        client: ClientOptions,
    },
    /// One certificate with its chain
    Show {
        /// Its id, as in the list, or its serial number
        id: String,
        /// How and where.
        #[command(flatten)]
        client: ClientOptions,
    },
}

/// Options of `certificate issue-client`.
#[derive(Clone, Debug, Args)]
pub struct ClientCertificateOptions {
    /// The tenant whose client it is
    #[arg(long, value_name = "ID", value_parser = typed::tenant)]
    pub tenant: String,
    /// Whom or what the certificate names
    #[arg(long, value_name = "NAME")]
    pub name: String,
    /// Where to write the key and the chain, PEM, for the client; a file that must not be there yet
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// The authority of kind "private" that issues it, by its name in the configuration; by default the first
    #[arg(long, value_name = "CA")]
    pub ca: Option<String>,
    /// How and where.
    #[command(flatten)]
    pub client: ClientOptions,
}

/// Options of `certificate import`.
#[derive(Clone, Debug, Args)]
pub struct ImportOptions {
    /// The chain in PEM: the certificate first, then those that sign it
    #[arg(long, value_name = "FILE")]
    pub chain: PathBuf,
    /// Its private key in PEM: PKCS #8, PKCS #1 or SEC 1, not encrypted
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// Serve only this domain with it; may be given several times [default: every registered domain that it covers]
    #[arg(long = "domain", value_name = "NAME")]
    pub domains: Vec<String>,
    /// The tenant it is for [default: the one that owns its names]
    #[arg(long, value_name = "ID")]
    pub tenant: Option<String>,
    /// How and where.
    #[command(flatten)]
    pub client: ClientOptions,
}

/// `vestibule job …`
#[derive(Debug, Subcommand)]
pub enum JobCommand {
    /// All jobs, or a tenant's
    List(ListOptions),
}

/// `vestibule budget`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BudgetOptions {
    /// What else.
    #[command(subcommand)]
    pub command: Option<BudgetCommand>,
    /// How and where.
    #[command(flatten)]
    pub client: ClientOptions,
}

/// `vestibule budget …`
#[derive(Debug, Subcommand)]
pub enum BudgetCommand {
    /// How long new names take at the present limits; needs no running instance
    Forecast(ForecastOptions),
}

/// Options of `budget forecast`.
#[derive(Clone, Debug, Args)]
pub struct ForecastOptions {
    /// So many names that no CA has certified before
    #[arg(long, value_name = "N", value_parser = typed::names)]
    pub names: u64,
    /// So many of them under each registered domain
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = typed::names)]
    pub per_domain: u64,
    /// Only at this CA, by its name in the configuration [default: at each]
    #[arg(long, value_name = "NAME")]
    pub ca: Option<String>,
    /// The configuration file, which tells the limits [default: proxy.toml]
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// JSON instead of sentences: one object a line, for each CA
    #[arg(long)]
    pub json: bool,
}

/// `vestibule event …`
#[derive(Debug, Subcommand)]
pub enum EventCommand {
    /// The platform's events, or a tenant's, the oldest first
    List(ListOptions),
}

/// Does what the command says and writes the answer to `output`. Blocks until it is whole.
///
/// # Errors
/// [`ClientError`] says what to do.
pub fn execute(command: &ClientCommand, output: &mut dyn Write) -> Result<(), ClientError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ClientError::Output)?;
    runtime.block_on(ask(command, output))
}

async fn ask(command: &ClientCommand, output: &mut dyn Write) -> Result<(), ClientError> {
    use ClientCommand as C;

    match command {
        C::Status(client) => one(client, Method::Get, &["status"], show::status, output).await,
        C::Reload(client) => one(client, Method::Post, &["reload"], show::reload, output).await,
        C::Tenant(TenantCommand::List(client)) => {
            let list = ListOptions {
                tenant: None,
                client: client.clone(),
            };
            pages(&list, "tenants", show::TENANTS, output).await
        }
        C::Tenant(TenantCommand::DestroyKeys { id, yes, client }) => {
            let confirmation = match yes {
                true => Confirmation::Given,
                false => Confirmation::Asked,
            };
            destroy::destroy(id, confirmation, client, output).await
        }
        C::Keys(KeysCommand::Show(client)) => {
            one(client, Method::Get, &["keys"], keys::standing, output).await
        }
        C::Keys(KeysCommand::RotateData(options)) => keys::rotate_data(options, output).await,
        C::Keys(KeysCommand::Rotate(options)) => keys::rotate(options, output).await,
        C::Domain(DomainCommand::List(list)) => pages(list, "domains", show::DOMAINS, output).await,
        C::Domain(DomainCommand::Show { name, client }) => {
            one(
                client,
                Method::Get,
                &["domains", name],
                show::domain,
                output,
            )
            .await
        }
        C::Domain(DomainCommand::Check { name, client }) => {
            let path = ["domains", name, "check"];
            one(client, Method::Post, &path, show::check, output).await
        }
        C::Domain(DomainCommand::Retry { name, client }) => {
            let path = ["domains", name, "retry"];
            one(client, Method::Post, &path, show::retry, output).await
        }
        C::Ca(CaCommand::List(client)) => {
            let list = ListOptions {
                tenant: None,
                client: client.clone(),
            };
            pages(&list, "cas", show::CAS, output).await
        }
        C::Ca(CaCommand::Rollover { name, client }) => {
            let path = ["cas", name, "rollover"];
            one(client, Method::Post, &path, show::rollover, output).await
        }
        C::Certificate(command) => certificate(command, output).await,
        C::Import(ImportCommand::Caddy(options)) => takeover::caddy(options, output).await,
        C::Budget(BudgetOptions {
            command: Some(BudgetCommand::Forecast(options)),
            ..
        }) => forecast::forecast(options, output),
        C::Budget(BudgetOptions { client, .. }) => {
            one(client, Method::Get, &["budget"], budget::budget, output).await
        }
        C::Drill { rate, client } => {
            let rate = rate.map(|rate| rate.to_string());
            let query = rate.iter().map(|rate| ("orders_per_second", rate.as_str()));
            let query: Vec<_> = query.collect();
            let mut connection = connect(client).await?;
            let answer = connection.ask(Method::Post, &["drill"], &query).await?;
            write_one(client, &answer, drill::drill, output)
        }
        C::Job(JobCommand::List(list)) => pages(list, "jobs", show::JOBS, output).await,
        C::Event(EventCommand::List(list)) => pages(list, "events", show::EVENTS, output).await,
    }
}

async fn certificate(
    command: &CertificateCommand,
    output: &mut dyn Write,
) -> Result<(), ClientError> {
    match command {
        CertificateCommand::List { serial, list } => {
            certificates::list(list, serial.as_deref(), output).await
        }
        CertificateCommand::Import(options) => import::certificate(options, output).await,
        CertificateCommand::IssueClient(options) => import::client(options, output).await,
        CertificateCommand::Show { id, client } => certificates::show(client, id, output).await,
        CertificateCommand::Revoke {
            id,
            cancel: true,
            client,
            ..
        } => {
            let path = ["certificates", id, "cancel-revocation"];
            post(client, &path, &[], (show::cancelled, output)).await
        }
        CertificateCommand::Revoke {
            id,
            reason,
            compromised,
            at_once,
            cancel: false,
            client,
        } => {
            let reason = match compromised {
                true => RevocationReason::KeyCompromise,
                false => *reason,
            };
            let order = match at_once {
                true => RevocationOrder::RevokedFirst,
                false => RevocationOrder::ReplacedFirst,
            };
            let query = [("reason", reason.as_str()), ("order", order.as_str())];
            let path = ["certificates", id, "revoke"];
            post(client, &path, &query, (show::revocation, output)).await
        }
        CertificateCommand::Replace { id, client } => {
            let path = ["certificates", id, "replace"];
            post(client, &path, &[], (show::replacement, output)).await
        }
        CertificateCommand::Rollback { domain, to, client } => {
            let query: Vec<_> = to.iter().map(|to| ("to", to.as_str())).collect();
            let path = ["domains", domain, "rollback"];
            post(client, &path, &query, (show::rollback, output)).await
        }
    }
}

async fn post(
    client: &ClientOptions,
    path: &[&str],
    query: &[(&str, &str)],
    (show, output): (fn(&Value) -> String, &mut dyn Write),
) -> Result<(), ClientError> {
    let mut connection = connect(client).await?;
    let answer = connection.ask(Method::Post, path, query).await?;
    let text = match client.json {
        true => format!("{answer:#}\n"),
        false => show(&answer),
    };
    output
        .write_all(text.as_bytes())
        .map_err(ClientError::Output)
}

async fn one(
    client: &ClientOptions,
    method: Method,
    path: &[&str],
    show: fn(&Value) -> String,
    output: &mut dyn Write,
) -> Result<(), ClientError> {
    let mut connection = connect(client).await?;
    let answer = connection.ask(method, path, &[]).await?;
    write_one(client, &answer, show, output)
}

fn write_one(
    client: &ClientOptions,
    answer: &Value,
    show: impl FnOnce(&Value) -> String,
    output: &mut dyn Write,
) -> Result<(), ClientError> {
    let text = match client.json {
        true => format!("{answer:#}\n"),
        false => show(answer),
    };
    output
        .write_all(text.as_bytes())
        .map_err(ClientError::Output)
}

async fn pages(
    list: &ListOptions,
    resource: &'static str,
    columns: show::Columns,
    output: &mut dyn Write,
) -> Result<(), ClientError> {
    let listed = Listed {
        resource,
        only: None,
        columns,
        row: Value::clone,
    };
    pages_of(list, &listed, output).await
}

/// A list, and how it is shown.
struct Listed<'a> {
    resource: &'static str,
    /// A further parameter.
    only: Option<(&'static str, &'a str)>,
    columns: show::Columns,
    /// An item as the table shows it.
    row: fn(&Value) -> Value,
}

async fn pages_of(
    list: &ListOptions,
    listed: &Listed<'_>,
    output: &mut dyn Write,
) -> Result<(), ClientError> {
    let mut connection = connect(&list.client).await?;
    let mut after: Option<String> = None;
    let mut part = show::Part::First;
    loop {
        let mut query = vec![("limit", PAGE)];
        query.extend(after.as_deref().map(|after| ("after", after)));
        query.extend(list.tenant.as_deref().map(|tenant| ("tenant", tenant)));
        query.extend(listed.only);
        let page = connection
            .ask(Method::Get, &[listed.resource], &query)
            .await?;
        let items = page.get("items").and_then(Value::as_array);
        let items = items.ok_or(ClientError::NotUnderstood)?;
        let text = match list.client.json {
            true => items.iter().map(|item| format!("{item}\n")).collect(),
            false => {
                let rows: Vec<Value> = items.iter().map(listed.row).collect();
                show::table(listed.columns, &rows, part)
            }
        };
        output
            .write_all(text.as_bytes())
            .map_err(ClientError::Output)?;
        part = show::Part::Further;
        after = page.get("next").and_then(Value::as_str).map(str::to_owned);
        if after.is_none() {
            return Ok(());
        }
    }
}

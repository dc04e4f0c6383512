//! What may be typed, and the help that teaches it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use url::Url;

use crate::cli::client::ClientCommand;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "vestibule",
    version,
    about = "HTTPS for every tenant's own domain: obtains certificates in the first handshake and proxies to your application.",
    after_help = "Start here:\n  vestibule demo                     see it work, with nothing else installed\n  vestibule check                    read proxy.toml and list every mistake\n  vestibule run                      serve\n  vestibule domain show NAME         why a domain works or does not\n\nrun, demo, check, doctor, backup, restore, health and `budget forecast` work by themselves; the others ask the running\ninstance over its socket, which --config FILE or --socket PATH tells.\n\nExit codes: 0 done · 1 failed or refused · 2 a mistake in the command line or the configuration."
)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve: terminate TLS, obtain certificates, proxy to the upstreams
    Run(RunOptions),
    /// Show the main job on this machine: a private CA, a sample application and two tenants
    Demo(DemoOptions),
    /// Read the configuration and list every mistake at once; exit code 2 if there is one
    Check(ConfigOption),
    /// Look at the world around: CAs, clock, file descriptors, disk, ports, keys; exit code 1 if something is to mend
    Doctor(ConfigOption),
    /// Write everything but the key-encryption key to a file, while running or not
    Backup(BackupOptions),
    /// Put a backup into a data directory that holds nothing yet
    Restore(BackupOptions),
    /// Ask an instance whether it is alive; exit code 0 if it is, for container health checks
    Health(HealthOptions),
    /// Commands for a running instance.
    #[command(flatten)]
    Client(ClientCommand),
}

/// Where the configuration is.
#[derive(Clone, Debug, Args)]
pub struct ConfigOption {
    /// The configuration file
    #[arg(long, short, value_name = "FILE", default_value = "proxy.toml")]
    pub config: PathBuf,
}

/// Options of `run`.
#[derive(Debug, Args)]
#[command(
    after_help = "Signals:\n  SIGHUP            read the configuration again; a broken one is refused and the old one stays\n  SIGTERM, SIGINT   drain, then exit 0; a further one skips the drain's delay, then cuts what is left"
)]
pub struct RunOptions {
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigOption,
}

/// Options of `demo`.
#[derive(Debug, Args)]
pub struct DemoOptions {
    /// Keep certificates, keys and state in this directory, and use them again the next time
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// Options of `backup` and `restore`.
#[derive(Debug, Args)]
pub struct BackupOptions {
    /// The backup; it holds certificates and sealed keys, and is of no use without the key-encryption key
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigOption,
}

/// Options of `health`.
#[derive(Debug, Args)]
pub struct HealthOptions {
    /// What to ask, at /healthz where it names no path; any answer with status 200 is well. Default: where the configuration has
    /// its telemetry
    #[arg(long, value_name = "URL")]
    pub url: Option<Url>,
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigOption,
}

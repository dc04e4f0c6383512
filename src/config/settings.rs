//! What the files come to: the checked settings of every module, with their defaults filled in.
//!
//! Each section is turned into its module's settings by one function here; what the sections mean together
//! (two listeners on one port, a CA without agreed terms) is checked on the way. Files that the
//! configuration names (roots, secrets) are read here, once.

mod budget;
mod ca;
mod certificates;
pub(super) mod declared;
mod listen;
mod on_demand;
mod telemetry;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::ca::Settings as CaSettings;
use crate::certs::budget::Settings as BudgetSettings;
use crate::certs::on_demand::Settings as OnDemandSettings;
use crate::certs::permission::Settings as PermissionSettings;
use crate::certs::settings::Settings as CertificateSettings;
use crate::config::file::{self, Main};
use crate::config::last_good::DEFAULT_DATA;
use crate::config::mistake::{Finding, Mistakes};
use crate::config::reader::At;
use crate::config::source::Source;
use crate::control::declare::Declaration;
use crate::dns::Settings as DnsSettings;
use crate::model::certificate::CaId;
use crate::model::edge::Edge;
use crate::proxy::settings::Settings as ProxySettings;
use crate::telemetry::Settings as TelemetrySettings;

/// The settings of every module.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where visitors come in, and how much of them is borne.
    pub proxy: ProxySettings,
    /// What the outside sees of this edge: DNS records asked of tenants.
    pub edge: Edge,
    /// Logs, metrics, access records.
    pub telemetry: TelemetrySettings,
    /// The Unix socket of the control API. Default: `admin.sock` in the data directory.
    pub admin_socket: PathBuf,
    /// The data directory. Default: `data` beside `proxy.toml`.
    pub data: PathBuf,
    /// The file with the key-encryption key. Default: `key-encryption.key` beside the data directory.
    pub key_file: PathBuf,
    /// How long the private key of a certificate that serves nothing any more is kept. Default 30 days.
    pub retired_keys: Duration,
    /// Who is asked for addresses.
    pub dns: DnsSettings,
    /// The certification authorities, the preferred first.
    pub ca: CaSettings,
    /// What the authorities bear, and who gets it.
    pub budget: BudgetSettings,
    /// How certificates are obtained and renewed.
    pub certificates: CertificateSettings,
    /// Handshakes that wait for a certificate.
    pub on_demand: OnDemandSettings,
    /// The permission hook, where there is one.
    pub permission: Option<PermissionSettings>,
    /// Tenants, domains, upstreams and routes of all files.
    pub declaration: Declaration,
}

/// The name of the key-encryption key's file where `[keys] file` names none.
const KEY_FILE: &str = "key-encryption.key";
/// How long retired keys are kept where `[keys] retired_kept` says nothing.
const RETIRED_KEYS: Duration = Duration::from_hours(30 * 24);
/// The name of the control API's socket where `[admin] socket` names none.
pub(super) const SOCKET: &str = "admin.sock";

/// Where the root of the private CA `ca` lies for its clients: `<data>/<ca>-root.pem`.
#[must_use]
pub fn root_file(data: &Path, ca: &CaId) -> PathBuf {
    data.join(format!("{ca}-root.pem"))
}

/// The settings of a main file, its own declarations left out; mistakes are recorded, and then what is
/// returned is of no use.
pub(super) fn settle(main: &Main, source: &Source, mistakes: &Mistakes<'_>) -> Settings {
    check_admin(&main.admin, mistakes);
    let data = data(main, source);
    let resolved = |path: &Option<At<PathBuf>>| path.as_ref().map(|at| source.resolve(&at.value));
    let proxy = listen::settle(main, mistakes);
    let edge = edge(main, proxy.https_port());
    Settings {
        proxy,
        telemetry: telemetry::settle(&main.telemetry, source, mistakes),
        admin_socket: resolved(&main.admin.socket).unwrap_or_else(|| data.join(SOCKET)),
        retired_keys: main
            .keys
            .retired_kept
            .as_ref()
            .map_or(RETIRED_KEYS, |at| at.value),
        key_file: key_file(main, source),
        data,
        dns: dns(&main.dns),
        ca: ca::settle(&main.cas, &edge, source, mistakes),
        edge,
        budget: budget::settle(&main.budget, &main.cas),
        certificates: certificates::settle(&main.certificates, &main.preflight),
        on_demand: on_demand::settle(&main.on_demand, mistakes),
        permission: on_demand::permission(&main.on_demand, source, mistakes),
        declaration: Declaration::default(),
    }
}

fn data(main: &Main, source: &Source) -> PathBuf {
    let data = main.store.data.as_ref();
    source.resolve(data.map_or_else(|| Path::new(DEFAULT_DATA), |at| &at.value))
}

/// Where the platform's key-encryption key lies.
pub(super) fn key_file(main: &Main, source: &Source) -> PathBuf {
    match &main.keys.file {
        Some(file) => source.resolve(&file.value),
        None => data(main, source).with_file_name(KEY_FILE),
    }
}

fn dns(section: &file::Dns) -> DnsSettings {
    let mut settings = DnsSettings {
        resolvers: values(section.resolvers.as_ref()),
        ..DnsSettings::default()
    };
    set(&mut settings.deadline, section.deadline.as_ref());
    settings
}

fn edge(main: &Main, https_port: u16) -> Edge {
    let section = &main.edge;
    let mut edge = Edge {
        cname_target: section.cname_target.as_ref().map(|at| at.value.clone()),
        ipv4: values(section.ipv4.as_ref()),
        ipv6: values(section.ipv6.as_ref()),
        https_port,
        http_listening: listen::http_ports(&main.listen),
        ..Edge::default()
    };
    set(&mut edge.http_port, section.http_port.as_ref());
    edge
}

/// The control API is reached without a token, so only where the operator alone is.
fn check_admin(admin: &file::Admin, mistakes: &Mistakes<'_>) {
    if let Some(address) = &admin.address {
        let reason = match address.value.ip().is_loopback() {
            true => "every user of this machine could reach it",
            false => "an address other than loopback needs TLS",
        };
        let finding = Finding::new(format!("address in [admin]: {reason}"))
            .expected("the Unix socket, which only its owner can open")
            .fix("remove it; use `socket`, through an SSH tunnel from elsewhere");
        mistakes.add(address.at.clone(), finding);
    }
}

fn values<T: Clone>(list: Option<&Vec<At<T>>>) -> Vec<T> {
    let items = list.into_iter().flatten();
    items.map(|item| item.value.clone()).collect()
}

/// Replaces a default where the file says otherwise.
fn set<T: Clone>(field: &mut T, said: Option<&At<T>>) {
    if let Some(at) = said {
        *field = at.value.clone();
    }
}

/// Replaces a default of another number type where the file says otherwise.
fn set_from<T, U>(field: &mut T, said: Option<&At<U>>)
where
    U: Copy,
    T: TryFrom<U>,
{
    if let Some(value) = said.and_then(|at| T::try_from(at.value).ok()) {
        *field = value;
    }
}

/// The text of a PEM file with at least one certificate, or a recorded mistake.
fn roots(
    path: &At<PathBuf>,
    source: &Source,
    mistakes: &Mistakes<'_>,
) -> Option<std::sync::Arc<[u8]>> {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;

    /// The largest file of roots, in bytes.
    const MOST: u64 = 4 << 20;
    let wrong = |what: String| {
        let finding = Finding::new(what).expected("a file of PEM certificates");
        mistakes.add(path.at.clone(), finding);
    };
    let resolved = source.resolve(&path.value);
    let bytes = match crate::base::file::read_capped(&resolved, MOST) {
        Ok(bytes) => bytes,
        Err(error) => {
            wrong(error.to_string());
            return None;
        }
    };
    let mut count = 0_usize;
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        if let Err(error) = certificate {
            wrong(format!("{}: {error}", resolved.display()));
            return None;
        }
        count += 1;
    }
    if count == 0 {
        wrong(format!("{} holds no certificate", resolved.display()));
        return None;
    }
    Some(bytes.into())
}

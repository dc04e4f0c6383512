//! `vestibule doctor`: the world around a configuration. Is the CA there, is the clock right, is there room, are
//! the ports free, does the key lie apart from what it opens?
//!
//! `probe` looks and has no opinion; `judge` has opinions and looks at nothing.

mod judge;
mod probe;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;

use crate::base::clock::Clock;
use crate::base::task::Tasks;
use crate::ca::Kind;
use crate::config::key_files::{KeyFile as Needed, KeyFiles};
use crate::config::load::{Loaded, Origin, load};
use crate::config::settings::{Settings, root_file};
use crate::store::embedded::wrapped::{self, Wrapped};
use probe::KeyFile;

/// How long one look over the network may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// Addresses of upstreams that are tried.
const MOST_UPSTREAMS: usize = 64;
/// Key files that are told of one by one.
const MOST_KEYS: usize = 64;

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Well.
    Ok,
    /// It works, but will not for ever, or not as it should.
    Warn,
    /// It will not work.
    Fail,
}

impl Verdict {
    /// The word for it, four letters at most.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// What was found about one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// How it stands.
    pub verdict: Verdict,
    /// What was looked at, in a word or two.
    pub what: &'static str,
    /// What was found.
    pub detail: String,
    /// What to do about it, where there is something to do.
    pub fix: Option<String>,
}

/// Everything that was found. Prints as one line for each thing, with its fix below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis(pub Vec<Line>);

impl Diagnosis {
    /// 0 where nothing fails, else 1; 2 where the configuration itself cannot be read.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let failed = |line: &&Line| line.verdict == Verdict::Fail;
        match self.0.iter().find(failed) {
            None => 0,
            Some(line) if line.what == judge::CONFIGURATION => 2,
            Some(_) => 1,
        }
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Line {
            verdict,
            what,
            detail,
            fix,
        } in &self.0
        {
            writeln!(f, "{:<4}  {what:<16}  {detail}", verdict.as_str())?;
            if let Some(fix) = fix {
                writeln!(f, "      {:<16}  fix: {fix}", "")?;
            }
        }
        let count = |verdict| self.0.iter().filter(|line| line.verdict == verdict).count();
        let [ok, warn, fail] = [Verdict::Ok, Verdict::Warn, Verdict::Fail].map(count);
        write!(f, "{ok} ok, {warn} to watch, {fail} to mend")
    }
}

/// Looks at everything that the configuration at `path` depends on. Changes nothing but for a file that it makes
/// and removes in the data directory. Takes as long as the slowest answer, at most about ten seconds.
pub async fn examine(path: &Path, tasks: &Tasks, clock: &Clock) -> Diagnosis {
    let owned = path.to_owned();
    let loaded = tasks
        .blocking("doctor_load", move || load(&owned))
        .await
        .unwrap_or_else(|| Err(Vec::new()));
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(mistakes) => return Diagnosis(vec![judge::no_configuration(path, mistakes.len())]),
    };
    let mut lines = vec![configuration(&loaded)];
    lines.extend(judge::edge(&loaded.settings));
    let settings = Box::new(loaded.settings);
    let wrapped = wrapped::in_folder(&settings.data).await;
    let local = settings.clone();
    let local = tasks.blocking("doctor_local", move || {
        let mut lines = look_around(&local);
        lines.extend(look_at_keys(
            &local,
            wrapped.map_err(|error| error.to_string()),
        ));
        lines
    });
    let (local, ports, authorities, upstreams) = tokio::join!(
        local,
        Box::pin(look_at_ports(&settings)),
        Box::pin(look_at_authorities(&settings, tasks, clock)),
        Box::pin(look_at_upstreams(&settings)),
    );
    lines.extend(local.unwrap_or_default());
    lines.extend(ports);
    lines.extend(authorities);
    lines.extend(upstreams);
    Diagnosis(lines)
}

fn configuration(loaded: &Loaded) -> Line {
    match &loaded.origin {
        Origin::File => judge::configuration(&loaded.path, loaded.warnings.len()),
        Origin::LastGood { mistakes } => judge::last_good(&loaded.path, mistakes.len()),
    }
}

/// What this machine can tell without a network.
/// What may hold files open at the same time.
fn files_needed(settings: &Settings) -> judge::Files {
    let (limits, upstreams) = (&settings.proxy.limits, &settings.declaration.upstreams);
    let pools = upstreams.len().saturating_mul(settings.proxy.workers.get());
    judge::Files {
        connections: limits.connections,
        requests: limits.requests(None),
        idle: pools.saturating_mul(limits.upstream_idle_connections),
    }
}

fn look_around(settings: &Settings) -> Vec<Line> {
    let data = &settings.data;
    let mut lines = vec![
        judge::open_files(probe::open_files(), &files_needed(settings)),
        judge::data_folder(data, probe::folder(data)),
        judge::file_system(data, probe::remote_file_system(data)),
        judge::disk(data, probe::disk(data)),
        judge::key(&settings.key_file, probe::key(&settings.key_file, data)),
    ];
    lines.extend(judge::key_place(&settings.key_file, data));
    lines
}

/// The keys of tenants' own, and those that the data needs and that are not there.
fn look_at_keys(settings: &Settings, wrapped: Result<Vec<Wrapped>, String>) -> Vec<Line> {
    let keys = KeyFiles::of(settings).map_err(|error| error.to_string());
    let (keys, wrapped) = match (keys, wrapped) {
        (Ok(keys), Ok(wrapped)) => (keys, wrapped),
        (Err(error), _) | (_, Err(error)) => return vec![judge::unknown_keys(&error)],
    };
    let mut missing = keys.missing(&wrapped);
    // It has a line of its own.
    missing.retain(|missing| missing.file != settings.key_file);
    let own = settings.declaration.own_keys.files.iter();
    let own = own.filter(|(_, file)| !missing.iter().any(|missing| missing.file == **file));
    let own = own.map(|(tenant, file)| (tenant.as_str(), &**file, probe::key_file(file)));
    let (good, bad): (Vec<_>, Vec<_>) = own.partition(|(.., found)| matches!(found, KeyFile::Good));
    let mut lines: Vec<Line> = judge::own_keys(good.len()).into_iter().collect();
    lines.extend(
        bad.into_iter()
            .take(MOST_KEYS)
            .map(|(tenant, file, found)| judge::own_key(tenant, file, found)),
    );
    lines.extend(missing.iter().take(MOST_KEYS).map(judge::missing_key));
    lines.extend(look_beside(settings, &keys.needed(&wrapped)));
    lines
}

/// Keys that lie beside the configured ones, retired or next, and are not as they should be.
fn look_beside(settings: &Settings, needed: &[Needed]) -> Vec<Line> {
    let named = settings.declaration.own_keys.files.values();
    let named: BTreeSet<&Path> = named
        .chain([&settings.key_file])
        .map(PathBuf::as_path)
        .collect();
    let beside = needed.iter().map(|key| &*key.file);
    let beside = beside.filter(|file| !named.contains(file));
    let found = beside.map(|file| (file, probe::key_file(file)));
    found
        .filter(|(_, found)| !matches!(found, KeyFile::Good))
        .take(MOST_KEYS)
        .map(|(file, found)| judge::key(file, found))
        .collect()
}

async fn look_at_ports(settings: &Settings) -> Vec<Line> {
    let ours = probe::proxy(&settings.admin_socket).await;
    let http = settings.proxy.http.iter().map(|at| ("http port", *at));
    let https = settings.proxy.https.iter().map(|at| ("https port", *at));
    let telemetry = settings.telemetry.address.map(|at| ("telemetry port", at));
    let mut lines = Vec::new();
    for (what, address) in http.chain(https).chain(telemetry) {
        let found = probe::port(address, ours).await;
        lines.push(judge::port(what, address, &found));
    }
    lines
}

async fn look_at_authorities(settings: &Settings, tasks: &Tasks, clock: &Clock) -> Vec<Line> {
    let asked = settings.ca.authorities.iter().map(|ca| async move {
        match &ca.kind {
            Kind::Private(_) => {
                let file = root_file(&settings.data, &ca.id);
                let end = tasks.blocking("doctor_root", move || probe::root_end(&file));
                let end = end.await.flatten();
                vec![judge::private_ca(ca.id.as_str(), end, clock.now())]
            }
            Kind::Acme(acme) => {
                let found = probe::directory(acme, tasks, DEADLINE).await;
                let (name, now) = (ca.id.as_str(), clock.now());
                let clock = found
                    .as_ref()
                    .ok()
                    .and_then(|directory| judge::clock(name, directory.date?, now));
                let directory = judge::directory(name, &acme.directory, &found);
                std::iter::once(directory).chain(clock).collect()
            }
        }
    });
    join_all(asked).await.into_iter().flatten().collect()
}

async fn look_at_upstreams(settings: &Settings) -> Vec<Line> {
    let upstreams = settings.declaration.upstreams.iter();
    let places = upstreams.flat_map(|upstream| {
        let addresses = upstream.addresses.iter();
        addresses.map(move |address| (upstream, address))
    });
    let tried = places
        .take(MOST_UPSTREAMS)
        .map(|(upstream, address)| async move {
            let deadline = upstream.timeouts.connect.min(DEADLINE);
            let found = probe::connect(address, deadline).await;
            judge::upstream(upstream.name.as_str(), address, found.err().as_deref())
        });
    join_all(tried).await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::file::{Access, replace};
    use crate::base::secret::Secret;
    use crate::certs::vault::Vault;
    use crate::keys;
    use crate::model::TenantId;
    use crate::store::embedded::{self, Embedded};
    use crate::store::record::KeyOwner;

    #[tokio::test]
    async fn a_small_configuration_is_examined_without_leaving_a_trace() {
        let folder = tempfile::tempdir().unwrap();
        let upstream = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = upstream.local_addr().unwrap();
        let text = format!(
            "[listen]\nhttp = [\"127.0.0.1:0\"]\nhttps = [\"{address}\"]\n\
             [telemetry]\naddress = \"off\"\n[keys]\nfile = \"data/kek\"\n\
             [[ca]]\nname = \"internal\"\nkind = \"private\"\n\
             [[upstream]]\nname = \"core\"\naddresses = [\"{address}\"]\n"
        );
        let path = folder.path().join("proxy.toml");
        replace(&path, text.as_bytes(), Access::Everyone).unwrap();
        std::fs::create_dir(folder.path().join("data")).unwrap();
        let diagnosis = examine(&path, &Tasks::new(), &Clock::system()).await;
        let verdict = |what: &str| {
            let line = diagnosis.0.iter().find(|line| line.what == what);
            line.unwrap_or_else(|| panic!("{what} in {diagnosis}"))
                .verdict
        };
        assert_eq!(verdict("configuration"), Verdict::Ok);
        assert_eq!(verdict("data directory"), Verdict::Ok);
        assert_eq!(verdict("file system"), Verdict::Ok);
        assert_eq!(verdict("key place"), Verdict::Warn);
        assert_eq!(verdict("http port"), Verdict::Ok);
        assert_eq!(verdict("https port"), Verdict::Fail);
        assert_eq!(verdict("upstream"), Verdict::Ok);
        assert_eq!(diagnosis.exit_code(), 1);
        let left = std::fs::read_dir(folder.path().join("data")).unwrap();
        assert_eq!(left.count(), 0);
    }

    #[tokio::test]
    async fn the_keys_of_tenants_are_looked_at_and_those_that_the_data_needs_are_missed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let text = "[listen]\nhttp = []\nhttps = [\"127.0.0.1:0\"]\n[telemetry]\naddress = \"off\"\n\
             [[ca]]\nname = \"internal\"\nkind = \"private\"\n\
             [[tenant]]\nname = \"acme\"\nkey_file = \"acme.key\"\n\
             [[tenant]]\nname = \"globex\"\nkey_file = \"globex.key\"\n\
             [[tenant]]\nname = \"initech\"\nkey_file = \"initech.key\"\n";
        let path = at("proxy.toml");
        replace(&path, text.as_bytes(), Access::Everyone).unwrap();
        let settings = load(&path).unwrap().settings;
        let tasks = Tasks::new();
        let store = embedded::Settings::in_folder(settings.data.clone());
        let opened = Embedded::open(store, Clock::system(), &tasks)
            .await
            .unwrap();
        let keys = keys::Settings {
            key_file: settings.key_file.clone(),
        };
        let vault = Vault::unlock(Arc::new(opened), &keys).await.unwrap();
        vault
            .take_own(&settings.declaration.own_keys)
            .await
            .unwrap();
        for slug in ["acme", "globex"] {
            let owner = KeyOwner::Tenant(TenantId::parse(slug).unwrap());
            let secret = Secret::from("private".to_owned());
            vault.seal(&owner, "n", &secret).await.unwrap();
        }
        let lines = async |what: &str| {
            let found = examine(&path, &Tasks::new(), &Clock::system()).await.0;
            let lines = found.into_iter().filter(|line| line.what == what);
            lines.collect::<Vec<Line>>()
        };
        assert_eq!(lines("missing key").await, []);
        assert!(
            lines("tenant key").await[0]
                .detail
                .starts_with("3 key_files")
        );

        // One is needed, one has sealed nothing, one is open to everybody.
        let exposed = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        std::fs::set_permissions(at("globex.key"), exposed).unwrap();
        for name in ["acme.key", "initech.key"] {
            std::fs::remove_file(at(name)).unwrap();
        }
        let missing = lines("missing key").await;
        assert!(missing.iter().any(|line| line.verdict == Verdict::Fail && line.detail.contains("of tenant acme")), "{missing:?}");
        assert!(
            !missing.iter().any(|line| line.detail.contains("globex")),
            "it is there: {missing:?}"
        );
        let own = lines("tenant key").await;
        let verdict = |tenant: &str| {
            own.iter()
                .find(|line| line.detail.starts_with(tenant))
                .unwrap()
                .verdict
        };
        assert_eq!(
            (verdict("globex: "), verdict("initech: ")),
            (Verdict::Fail, Verdict::Ok)
        );

        // Nor is the platform's missing where others may read it.
        let exposed = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        std::fs::set_permissions(&settings.key_file, exposed).unwrap();
        assert_eq!(lines("missing key").await, missing);
        let fix = lines("key file").await[0].fix.clone().unwrap();
        assert_eq!(
            fix,
            format!("run: chmod 600 {}", settings.key_file.display())
        );
    }

    #[tokio::test]
    async fn an_edge_that_is_not_described_is_told_with_what_that_costs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy.toml");
        let ca = "[[ca]]\nname = \"le\"\nkind = \"acme\"\ndirectory = \"https://127.0.0.1:1/\"\nterms_agreed = true\n";
        for (edge, verdict) in [
            ("", Verdict::Warn),
            ("[edge]\nipv4 = [\"192.0.2.1\"]\n", Verdict::Ok),
        ] {
            let text = format!(
                "{edge}[listen]\nhttp = []\nhttps = [\"127.0.0.1:0\"]\n[telemetry]\naddress = \"off\"\n{ca}"
            );
            replace(&path, text.as_bytes(), Access::Everyone).unwrap();
            let diagnosis = examine(&path, &Tasks::new(), &Clock::system()).await;
            let line = diagnosis.0.iter().find(|line| line.what == "edge");
            assert_eq!(line.unwrap().verdict, verdict, "{diagnosis}");
            let checked = crate::config::check::check(&path);
            assert_eq!(checked.exit_code, 0, "{}", checked.text);
            let warned = checked
                .text
                .contains("edge       not described: names that lead elsewhere");
            assert_eq!(warned, verdict == Verdict::Warn, "{}", checked.text);
        }
    }

    #[tokio::test]
    async fn a_broken_configuration_is_all_that_is_told() {
        let path = Path::new("/nonexistent/proxy.toml");
        let diagnosis = examine(path, &Tasks::new(), &Clock::system()).await;
        assert_eq!(diagnosis.exit_code(), 2);
        let expected = "\
fail  configuration     /nonexistent/proxy.toml has a mistake and there is no last good one
                        fix: run: vestibule check --config /nonexistent/proxy.toml
0 ok, 0 to watch, 1 to mend";
        assert_eq!(diagnosis.to_string(), expected);
    }
}

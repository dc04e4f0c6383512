//! What to think of what was found: pure, and each line says what to do.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::probe::{Directory, Folder, KeyFile, Port, Room};
use super::{Line, Verdict};
use crate::base::clock::Timestamp;
use crate::ca::Kind;
use crate::ca::private::ROOT_WARNING;
use crate::config::check::EDGE_UNKNOWN;
use crate::config::key_files::KeyFile as Missing;
use crate::config::settings::Settings;
use crate::model::route::UpstreamAddress;
use crate::proxy::limits::OTHER_FILES;

pub(super) const CONFIGURATION: &str = "configuration";
const TENANT_KEY: &str = "tenant key";
const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

fn ok(what: &'static str, detail: impl Into<String>) -> Line {
    Line {
        verdict: Verdict::Ok,
        what,
        detail: detail.into(),
        fix: None,
    }
}

fn bad(verdict: Verdict, what: &'static str, detail: String, fix: String) -> Line {
    Line {
        verdict,
        what,
        detail,
        fix: Some(fix),
    }
}

pub(super) fn no_configuration(path: &Path, mistakes: usize) -> Line {
    let detail = format!(
        "{} {} and there is no last good one",
        path.display(),
        has(mistakes)
    );
    bad(Verdict::Fail, CONFIGURATION, detail, run_check(path))
}

pub(super) fn last_good(path: &Path, mistakes: usize) -> Line {
    let detail = format!(
        "{} {}; the last good one would be served",
        path.display(),
        has(mistakes)
    );
    bad(Verdict::Warn, CONFIGURATION, detail, run_check(path))
}

pub(super) fn configuration(path: &Path, warnings: usize) -> Line {
    match warnings {
        0 => ok(CONFIGURATION, format!("{} has no mistakes", path.display())),
        count => {
            let detail = format!("an included file {}", has(count));
            bad(Verdict::Warn, CONFIGURATION, detail, run_check(path))
        }
    }
}

fn has(mistakes: usize) -> String {
    match mistakes {
        0 | 1 => "has a mistake".to_owned(),
        many => format!("has {many} mistakes"),
    }
}

fn run_check(path: &Path) -> String {
    format!("run: vestibule check --config {}", path.display())
}

/// Nothing where no authority is asked to prove names.
pub(super) fn edge(settings: &Settings) -> Option<Line> {
    const WHAT: &str = "edge";
    if !settings
        .ca
        .authorities
        .iter()
        .any(|ca| matches!(ca.kind, Kind::Acme(_)))
    {
        return None;
    }
    if settings.edge.is_described() {
        return Some(ok(WHAT, "its name or addresses are known"));
    }
    let detail = format!("not described: {EDGE_UNKNOWN}");
    let fix = "set cname_target, and ipv4 and ipv6, under [edge]".to_owned();
    Some(bad(Verdict::Warn, WHAT, detail, fix))
}

/// What takes files: a visitor's connection takes one, a request in progress one for its way to the upstream, and each
/// connection that waits for a next request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Files {
    pub(super) connections: usize,
    pub(super) requests: usize,
    pub(super) idle: usize,
}

impl Files {
    fn needed(self) -> u64 {
        let parts = [self.connections, self.requests, self.idle, OTHER_FILES];
        let parts = parts.map(|part| u64::try_from(part).unwrap_or(u64::MAX));
        parts.into_iter().fold(0, u64::saturating_add)
    }
}

pub(super) fn open_files(limit: Option<u64>, files: &Files) -> Line {
    const WHAT: &str = "open files";
    let needed = files.needed();
    match limit {
        None => ok(WHAT, "no limit"),
        Some(limit) if limit >= needed => ok(
            WHAT,
            format!("at most {limit}; {needed} are needed at most"),
        ),
        Some(limit) => bad(
            Verdict::Warn,
            WHAT,
            format!(
                "at most {limit}, but {} connections, {} requests and {} idle connections to upstreams may need {needed}",
                files.connections, files.requests, files.idle
            ),
            format!(
                "raise it (systemd: LimitNOFILE={needed}; docker: --ulimit nofile={needed}), or lower `connections`, `requests` and `upstream_idle_connections` in [limits]"
            ),
        ),
    }
}

pub(super) fn data_folder(path: &Path, found: Folder) -> Line {
    const WHAT: &str = "data directory";
    let path = path.display();
    match found {
        Folder::Writable => ok(WHAT, format!("{path} can be written")),
        Folder::CanBeMade => ok(WHAT, format!("{path} will be made at the first start")),
        Folder::Refused(error) => bad(
            Verdict::Fail,
            WHAT,
            format!("{path} cannot be written: {error}"),
            format!("let the user that runs the proxy own it: chown -R USER {path}"),
        ),
    }
}

pub(super) fn file_system(data: &Path, found: io::Result<Option<String>>) -> Line {
    const WHAT: &str = "file system";
    let data = data.display();
    match found {
        Ok(None) => ok(WHAT, format!("{data} lies on a local disk")),
        Ok(Some(kind)) => bad(
            Verdict::Fail,
            WHAT,
            format!(
                "{data} lies on a network file system ({kind}), which breaks the database's locks"
            ),
            "put it on a local disk or a block device".to_owned(),
        ),
        Err(error) => {
            let fix = "look at its mount".to_owned();
            bad(Verdict::Warn, WHAT, format!("{data}: {error}"), fix)
        }
    }
}

pub(super) fn disk(data: &Path, found: io::Result<Room>) -> Line {
    const WHAT: &str = "disk";
    let room = match found {
        Ok(room) => room,
        Err(error) => {
            let detail = format!("{}: {error}", data.display());
            return bad(Verdict::Warn, WHAT, detail, "look at its mount".to_owned());
        }
    };
    let detail = format!("{} MiB free for {}", room.free / MIB, data.display());
    let fix = || "make room; a full disk keeps new certificates from being stored".to_owned();
    if room.free < 100 * MIB {
        return bad(Verdict::Fail, WHAT, detail, fix());
    }
    if let Some(files) = room.files.filter(|files| *files < 1000) {
        let detail = format!("only {files} more files fit beside {}", data.display());
        return bad(Verdict::Warn, WHAT, detail, fix());
    }
    match room.free < GIB {
        true => bad(Verdict::Warn, WHAT, detail, fix()),
        false => ok(WHAT, detail),
    }
}

pub(super) fn key(file: &Path, found: KeyFile) -> Line {
    const WHAT: &str = "key file";
    let path = file.display();
    match found {
        KeyFile::Good => ok(WHAT, format!("{path} is there, for its owner only")),
        KeyFile::NotYet => ok(WHAT, format!("{path} will be made at the first start")),
        KeyFile::Lost => bad(
            Verdict::Fail,
            WHAT,
            format!("{path} is not there, but the data that it opens is"),
            "put back the copy of the key that belongs to this data, or name it in [keys]"
                .to_owned(),
        ),
        KeyFile::Exposed(mode) => bad(
            Verdict::Fail,
            WHAT,
            format!("others may read {path} (mode {mode:03o})"),
            format!("run: chmod 600 {path}"),
        ),
        KeyFile::Unreadable(error) => bad(
            Verdict::Fail,
            WHAT,
            format!("{path} cannot be read: {error}"),
            "let the user that runs the proxy own it".to_owned(),
        ),
    }
}

/// Keys of tenants' own that are as they should be.
pub(super) fn own_keys(good: usize) -> Option<Line> {
    let detail = match good {
        0 => return None,
        1 => "1 key_file of a tenant is there, for its owner only".to_owned(),
        good => format!("{good} key_files of tenants are there, for their owner only"),
    };
    Some(ok(TENANT_KEY, detail))
}

/// The key of a tenant's own, which is not there or not as it should be.
pub(super) fn own_key(tenant: &str, file: &Path, found: KeyFile) -> Line {
    let line = key(file, found);
    Line {
        what: TENANT_KEY,
        detail: format!("{tenant}: {}", line.detail),
        ..line
    }
}

/// A key that the data needs and that is nowhere.
pub(super) fn missing_key(missing: &Missing) -> Line {
    bad(
        Verdict::Fail,
        "missing key",
        format!("{} is not there: {}", missing.file.display(), missing.what),
        "put your copy of it there, mode 0600; until then nothing that it opens is served after a start".to_owned(),
    )
}

/// It cannot be told which keys the data needs.
pub(super) fn unknown_keys(error: &str) -> Line {
    bad(
        Verdict::Warn,
        TENANT_KEY,
        format!("which keys the data needs cannot be read: {error}"),
        "run it as the user that runs the proxy".to_owned(),
    )
}

/// Whoever copies the data directory should not get the key with it.
pub(super) fn key_place(file: &Path, data: &Path) -> Option<Line> {
    file.starts_with(data).then(|| {
        bad(
            Verdict::Warn,
            "key place",
            format!(
                "{} lies in the data directory that it protects",
                file.display()
            ),
            "move it to another disk or volume, and name it in [keys] file".to_owned(),
        )
    })
}

pub(super) fn port(what: &'static str, address: SocketAddr, found: &Port) -> Line {
    match found {
        Port::Free => ok(what, format!("{address} is free")),
        Port::Ours => ok(what, format!("{address} is taken, by the proxy that runs")),
        Port::Refused(error) => {
            let fix = if error.kind() == io::ErrorKind::PermissionDenied {
                "use a port above 1023, or give the program CAP_NET_BIND_SERVICE"
            } else if error.kind() == io::ErrorKind::AddrNotAvailable {
                "name an address of this machine, or [::] for all"
            } else {
                "stop what listens there (ss -ltnp tells), or name another port"
            };
            let detail = format!("{address}: {error}");
            bad(Verdict::Fail, what, detail, fix.to_owned())
        }
    }
}

/// Nothing renews a root; it is made at the first start.
pub(super) fn private_ca(name: &str, end: Option<Timestamp>, now: Timestamp) -> Line {
    const WHAT: &str = "ca";
    let Some(end) = end else {
        return ok(WHAT, format!("{name} is our own"));
    };
    let detail = format!("{name} is our own, and its root ends at {end}");
    let verdict = match end.since(now) {
        Duration::ZERO => Verdict::Fail,
        left if left < ROOT_WARNING => Verdict::Warn,
        _ => return ok(WHAT, detail),
    };
    let fix = "let another [[ca]] take its place before that: docs/private-ca.md says how";
    bad(verdict, WHAT, detail, fix.to_owned())
}

pub(super) fn directory(name: &str, url: &str, found: &Result<Directory, String>) -> Line {
    const WHAT: &str = "ca";
    let wrong = |detail, fix: &str| bad(Verdict::Fail, WHAT, detail, fix.to_owned());
    match found {
        Ok(Directory {
            takes_orders: true,
            status: 200,
            ..
        }) => ok(WHAT, format!("{name} answers at {url}")),
        Ok(Directory { status: 200, .. }) => {
            let detail = format!("{name}: what {url} answers is no ACME directory");
            wrong(detail, "name the URL of its ACME directory")
        }
        Ok(Directory { status, .. }) => {
            let detail = format!("{name} answers {status} at {url}");
            wrong(detail, "check the URL, and the CA's status page")
        }
        Err(error) => {
            let detail = format!("{name}: {error}");
            let fix = "let this machine reach it; for a private CA name its root file with `root`";
            wrong(detail, fix)
        }
    }
}

/// A CA's Date says what time it is to the second; the way here takes a few more.
pub(super) fn clock(name: &str, theirs: Timestamp, ours: Timestamp) -> Option<Line> {
    const WHAT: &str = "clock";
    let (ahead, behind) = (ours.since(theirs).as_secs(), theirs.since(ours).as_secs());
    let (seconds, way) = if ahead >= behind {
        (ahead, "ahead of")
    } else {
        (behind, "behind")
    };
    let detail = format!("{seconds} s {way} {name}'s");
    let fix = "let a time service set it, such as chrony or systemd-timesyncd".to_owned();
    Some(match seconds {
        0..=10 => ok(WHAT, format!("agrees with {name}'s")),
        11..=300 => bad(Verdict::Warn, WHAT, detail, fix),
        _ => bad(Verdict::Fail, WHAT, detail, fix),
    })
}

/// Visitors of a name get 502 without it; the proxy itself runs.
pub(super) fn upstream(name: &str, address: &UpstreamAddress, error: Option<&str>) -> Line {
    const WHAT: &str = "upstream";
    match error {
        None => ok(WHAT, format!("{name} takes connections at {address}")),
        Some(error) => bad(
            Verdict::Warn,
            WHAT,
            format!("{name} at {address}: {error}"),
            "start it, or correct its addresses".to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::{Fail, Ok as Good, Warn};

    #[test]
    fn files_are_enough_for_connections_requests_and_what_is_idle() {
        let files = Files {
            connections: 10_000,
            requests: 20_000,
            idle: 512,
        };
        for (limit, expected) in [(None, Good), (Some(30_768), Good), (Some(30_767), Warn)] {
            assert_eq!(open_files(limit, &files).verdict, expected, "{limit:?}");
        }
    }

    #[test]
    fn a_disk_warns_before_it_fails() {
        let data = Path::new("data");
        for (free, files, expected) in [
            (2 * GIB, None, Good),
            (2 * GIB, Some(999), Warn),
            (GIB - 1, Some(5000), Warn),
            (100 * MIB - 1, None, Fail),
        ] {
            let line = disk(data, Ok(Room { free, files }));
            assert_eq!(line.verdict, expected, "{free}");
            assert_eq!(line.fix.is_some(), expected != Good);
        }
    }

    #[test]
    fn a_network_file_system_will_not_do() {
        let line = |found| file_system(Path::new("/d"), Ok(found));
        assert_eq!(line(None).verdict, Good);
        let remote = line(Some("nfs".to_owned()));
        assert!(
            remote.verdict == Fail && remote.detail.contains("(nfs)"),
            "{remote:?}"
        );
    }

    #[test]
    fn a_clock_is_judged_by_its_distance_in_either_direction() {
        let at = Timestamp::from_seconds;
        for (ours, expected, detail) in [
            (1000, Good, "agrees with le's"),
            (1010, Good, "agrees with le's"),
            (1011, Warn, "11 s ahead of le's"),
            (700, Warn, "300 s behind le's"),
            (1301, Fail, "301 s ahead of le's"),
        ] {
            let line = clock("le", at(1000), at(ours)).unwrap();
            assert_eq!((line.verdict, line.detail.as_str()), (expected, detail));
        }
    }

    #[test]
    fn a_private_cas_root_warns_ninety_days_before_its_end() {
        const DAY: i64 = 86_400;
        let now = Timestamp::from_seconds(1000 * DAY);
        assert_eq!(private_ca("own", None, now).verdict, Good);
        for (day, expected) in [
            (1091, Good),
            (1090, Good),
            (1089, Warn),
            (1000, Fail),
            (9, Fail),
        ] {
            let line = private_ca("own", Some(Timestamp::from_seconds(day * DAY)), now);
            assert_eq!(line.verdict, expected, "{line:?}");
            assert_eq!(line.fix.is_some(), expected != Good);
        }
    }

    #[test]
    fn a_key_beside_its_data_is_a_warning_and_a_lost_one_a_failure() {
        let (data, inside) = (Path::new("/d"), Path::new("/d/kek"));
        assert_eq!(key_place(inside, data).unwrap().verdict, Warn);
        assert_eq!(key_place(Path::new("/dd/kek"), data), None);
        assert_eq!(key(inside, KeyFile::Lost).verdict, Fail);
        assert_eq!(
            key(inside, KeyFile::Exposed(0o644)).fix.unwrap(),
            "run: chmod 600 /d/kek"
        );
        assert_eq!(key(inside, KeyFile::NotYet).verdict, Good);
    }

    #[test]
    fn a_port_says_what_stands_in_its_way() {
        let address = "[::]:443".parse().unwrap();
        let refused =
            |kind: io::ErrorKind| port("https port", address, &Port::Refused(kind.into()));
        assert_eq!(port("https port", address, &Port::Ours).verdict, Good);
        let denied = refused(io::ErrorKind::PermissionDenied);
        assert!(denied.fix.unwrap().contains("CAP_NET_BIND_SERVICE"));
        let taken = refused(io::ErrorKind::AddrInUse);
        assert!(taken.verdict == Fail && taken.fix.unwrap().contains("ss -ltnp"));
    }

    #[test]
    fn a_directory_must_answer_and_be_one() {
        let found = |status, takes_orders| {
            let date = None;
            directory(
                "le",
                "https://ca.test/",
                &Ok(Directory {
                    status,
                    takes_orders,
                    date,
                }),
            )
        };
        assert_eq!(found(200, true).verdict, Good);
        assert_eq!(found(200, false).verdict, Fail);
        assert_eq!(
            found(503, true).detail,
            "le answers 503 at https://ca.test/"
        );
        let error = directory("le", "u", &Err("no route".to_owned()));
        assert_eq!(
            (error.verdict, error.detail.as_str()),
            (Fail, "le: no route")
        );
    }
}

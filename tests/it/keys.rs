//! The key-encryption key exchanged while visitors come, and killed in between.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::edge::{Edge, Setup};
use crate::support::place::Place;
use crate::support::visitor::Visitor;
use crate::support::wait;

const FILE: [&str; 2] = ["--config", "proxy.toml"];
const TENANTS: usize = 20;

fn name(number: usize) -> String {
    format!("shop{number}.example.com")
}

/// An edge with a tenant for each name, all certified.
fn setup(place: &Place) -> Setup {
    (0..TENANTS).fold(
        Setup::new(place).private_ca(Duration::from_secs(3600)),
        |setup, number| setup.tenant(&format!("tenant{number}"), &[&name(number)]),
    )
}

fn key_files(folder: &Path) -> Vec<String> {
    let files = fs::read_dir(folder.join("keys")).unwrap();
    let mut names: Vec<String> = files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn all_are_served(edge: &Edge, root: &Path) {
    for number in 0..TENANTS {
        Visitor::connect(edge.https(), &name(number), root).unwrap();
    }
}

fn start_with_all_issued(setup: &Setup) -> Edge {
    let edge = setup.start();
    let issued = ["outcome=\"issued\""];
    edge.wait_for_metric("proxy_issuances_total", &issued, TENANTS as f64);
    edge
}

#[test]
fn the_key_is_exchanged_under_load_and_no_handshake_fails() {
    let place = Place::claim();
    let setup = setup(&place);
    let edge = start_with_all_issued(&setup);
    let (done, visits) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                all_are_served(&edge, edge.trusted());
                visits.fetch_add(1, Ordering::SeqCst);
            }
        });
        let mut grown = setup.clone();
        for round in 0..3 {
            // Names are issued on the way too.
            let late = format!("late{round}");
            grown = grown.tenant(&late, &[&format!("{late}.example.com")]);
            edge.reload(&grown);
            let said = setup.succeed(&["keys", "rotate", FILE[0], FILE[1]]);
            assert!(said.contains("data keys were wrapped anew"), "{said}");
        }
        done.store(true, Ordering::SeqCst);
        load.join().unwrap();
    });
    assert!(visits.into_inner() > 0);
    let issued = ["outcome=\"issued\""];
    edge.wait_for_metric("proxy_issuances_total", &issued, TENANTS as f64 + 3.0);
    let files = key_files(place.folder());
    assert_eq!(files.len(), 4, "one in use and three retired: {files:?}");
    // Without the retired ones everything opens at the next start.
    drop(edge);
    for file in files.iter().filter(|file| file.ends_with(".retired")) {
        fs::remove_file(place.folder().join("keys").join(file)).unwrap();
    }
    let edge = setup.start();
    all_are_served(&edge, edge.trusted());
    let said = setup.succeed(&["keys", "show", FILE[0], FILE[1]]);
    assert!(!said.contains("unreadable"), "{said}");
}

#[test]
fn a_new_data_key_takes_over_what_the_older_sealed_while_everything_serves() {
    let place = Place::claim();
    let setup = setup(&place);
    let mut edge = start_with_all_issued(&setup);
    for whose in [&["--tenant", "tenant0"][..], &[]] {
        let mut arguments = vec!["keys", "rotate-data", FILE[0], FILE[1]];
        arguments.extend(whose);
        let said = setup.succeed(&arguments);
        assert!(said.contains("data key 2"), "{said}");
    }
    // The tenant's certificate, and the root and the issuing certificate of the CA.
    edge.wait_for_metric("proxy_blobs_resealed_total", &[], 3.0);
    all_are_served(&edge, edge.trusted());
    edge.process.kill();
    let edge = setup.start();
    all_are_served(&edge, edge.trusted());
}

#[test]
fn killed_during_an_exchange_the_next_start_finishes_it() {
    let place = Place::claim();
    let setup = setup(&place);
    let mut edge = start_with_all_issued(&setup);
    for round in 0..5_u64 {
        let before = key_files(place.folder()).len();
        thread::scope(|scope| {
            scope.spawn(|| setup.command(&["keys", "rotate", FILE[0], FILE[1]]));
            wait::until("an exchange begins", || {
                (key_files(place.folder()).len() > before).then_some(())
            });
            // A little later each time.
            thread::park_timeout(Duration::from_millis(round * 4));
            edge.process.kill();
        });
        edge = setup.start();
        wait::until("the exchange is finished", || {
            let files = key_files(place.folder());
            (!files.iter().any(|file| file.ends_with(".next"))).then_some(())
        });
        all_are_served(&edge, edge.trusted());
    }
}

#[test]
fn a_destroyed_tenants_keys_open_in_no_restored_backup() {
    let place = Place::claim();
    let setup = setup(&place);
    let mut edge = start_with_all_issued(&setup);
    let visitor = Visitor::connect(edge.https(), &name(0), edge.trusted()).unwrap();
    let leaf = visitor.certificate();
    let backup = place.folder().join("backup");
    setup.succeed(&["backup", backup.to_str().unwrap(), FILE[0], FILE[1]]);
    // It cannot be undone: without a terminal to ask at, it must be said that it is meant.
    let destroy = [
        "tenant",
        "destroy-keys",
        "tenant0",
        FILE[0],
        FILE[1],
        "--yes",
    ];
    for (words, why) in [(&destroy[..5], "--yes"), (&destroy, "remove them first")] {
        let refused = setup.command(words);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains(why), "{said}");
    }

    let without = setup.clone().replace(&name(0), "other.example.com");
    edge.reload(&without.clone().replace("tenant0", "other"));
    wait::until("the name is gone", || {
        let shown = setup.succeed(&["domain", "show", &name(0), FILE[0], FILE[1]]);
        shown.contains("tombstoned").then_some(())
    });
    let said = setup.succeed(&destroy);
    assert!(said.contains("tenant0"), "{said}");
    edge.stop();

    // Everything comes back from the backup but what the tenant's keys sealed.
    let lost = place.folder().join("lost");
    fs::rename(setup.data(), &lost).unwrap();
    let root = lost.join(edge.trusted().file_name().unwrap());
    setup.succeed(&["restore", backup.to_str().unwrap(), FILE[0], FILE[1]]);
    let edge = setup.launch();
    wait::until("another tenant is served", || {
        Visitor::connect(edge.https(), &name(1), &root).ok()
    });
    let served = Visitor::connect(edge.https(), &name(0), &root);
    let now = served.ok().map(|visitor| visitor.certificate());
    assert_ne!(now, Some(leaf), "what was destroyed serves again");
    // What the backup brought back of it is marked as it was.
    wait::until("its certificate is marked", || {
        let list = ["certificate", "list", "--tenant", "tenant0", "--json"];
        let listed = setup.succeed(&[&list[..], &FILE].concat());
        listed
            .contains("\"status\":\"key_destroyed\"")
            .then_some(())
    });
}

/// Whether a line names a file and whose key it is.
fn kept(said: &str, file: &str, whose: &str) -> bool {
    let mut lines = said.lines();
    lines.any(|line| line.contains(&format!("{file}  (")) && line.contains(whose))
}

#[test]
fn a_tenant_with_a_key_of_its_own_is_the_only_one_that_a_lost_file_hurts() {
    let place = Place::claim();
    let setup = setup(&place);
    let mut edge = start_with_all_issued(&setup);
    let file = place.folder().join("keys/tenant0.key");
    let shown = file.display().to_string();
    let own = setup.clone().replace(
        "name = \"tenant0\"",
        &format!("name = \"tenant0\"\nkey_file = {file:?}"),
    );
    edge.reload(&own);
    edge.wait_for_metric("proxy_data_keys_rewrapped_total", &[], 1.0);
    let mode = fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    all_are_served(&edge, edge.trusted());
    let rotate = ["keys", "rotate", "--tenant", "tenant0", FILE[0], FILE[1]];
    let said = own.succeed(&rotate);
    assert!(said.contains(&format!("{shown}.")), "{said}");
    assert!(said.contains("of tenant tenant0 is"), "{said}");
    let backup = place.folder().join("backup");
    let backup = backup.to_str().unwrap();
    let said = own.succeed(&["backup", backup, FILE[0], FILE[1]]);
    assert!(kept(&said, &shown, "of tenant tenant0"), "{said}");
    assert!(kept(&said, "edge.key", "of the platform"), "{said}");
    let drill = || own.succeed(&["drill", "--json", FILE[0], FILE[1]]);
    assert!(drill().contains("\"restart_loses\": []"), "{}", drill());

    // What a start would lose is told before it.
    let aside = place.folder().join("aside");
    fs::rename(&file, &aside).unwrap();
    let told: serde_json::Value = serde_json::from_str(&drill()).unwrap();
    let loss = &told["keys"]["restart_loses"][0];
    assert_eq!(
        (&loss["tenant"], &loss["names"]),
        (&"tenant0".into(), &1.into())
    );
    assert!(loss["why"].as_str().unwrap().contains(&shown), "{loss}");
    edge.stop();
    // Also where the data comes from the backup.
    fs::rename(setup.data(), place.folder().join("lost")).unwrap();
    let said = own.succeed(&["restore", backup, FILE[0], FILE[1]]);
    assert!(kept(&said, &shown, "of tenant tenant0"), "{said}");
    assert!(!kept(&said, "edge.key", "of the platform"), "{said}");
    assert!(said.contains("edge.key.destroyed"), "{said}");
    let doctor = own.command(&["doctor", FILE[0], FILE[1]]);
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(
        said.contains("missing key") && said.contains(&shown),
        "{said}"
    );
    let edge = own.start();
    for number in 1..TENANTS {
        Visitor::connect(edge.https(), &name(number), edge.trusted()).unwrap();
    }
    let unreadable = ["state=\"unreadable\""];
    edge.wait_for_metric("proxy_data_keys", &unreadable, 1.0);
    assert!(Visitor::connect(edge.https(), &name(0), edge.trusted()).is_err());
    let said = own.succeed(&["keys", "show", FILE[0], FILE[1]]);
    assert!(said.contains(&shown) && said.contains("tenant0"), "{said}");
    assert!(edge.page("/readyz").body.contains(&shown));
    let said = own.succeed(&["domain", "show", &name(0), FILE[0], FILE[1]]);
    for part in ["key_unreadable", &shown, "degraded", "failed"] {
        assert!(said.contains(part), "no {part} in {said}");
    }
    let said = own.command(&["reload", FILE[0], FILE[1]]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("key_file of tenant tenant0"), "{said}");
    let told: serde_json::Value = serde_json::from_str(&drill()).unwrap();
    assert_eq!(told["keys"]["restart_loses"], serde_json::json!([]));
    assert_eq!(told["keys"]["tenants"][0]["in_memory"], 0);

    fs::rename(&aside, &file).unwrap();
    wait::until("its tenant is served again", || {
        Visitor::connect(edge.https(), &name(0), edge.trusted()).ok()
    });
    let emptied = own.clone().replace(&format!("{:?}", name(0)), "");
    edge.reload(&emptied);
    wait::until("the tenant's keys can be destroyed", || {
        let destroy = [
            "tenant",
            "destroy-keys",
            "tenant0",
            "--yes",
            FILE[0],
            FILE[1],
        ];
        own.command(&destroy).status.success().then_some(())
    });
    assert!(!file.exists());
}

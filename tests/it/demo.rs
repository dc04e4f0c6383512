//! `vestibule demo`, as somebody does who has just cloned it: what it prints works as printed.

use std::process::Command;

use rustix::process::Signal;

use crate::support::process::{Process, command};
use crate::support::wait;

#[test]
fn every_line_that_the_demo_prints_works_as_printed() {
    let elsewhere = tempfile::tempdir().unwrap();
    let mut start = command(env!("CARGO_BIN_EXE_vestibule"));
    start
        .arg("demo")
        .current_dir(elsewhere.path())
        .env("TMPDIR", elsewhere.path());
    let mut demo = Process::start("vestibule demo", &mut start);
    let printed = wait::until("the demo prints its curl lines", || {
        if let Some(status) = demo.exited() {
            panic!("the demo ended: {status}");
        }
        let lines: Vec<String> = demo
            .lines()
            .iter()
            .map(|line| line.trim().to_owned())
            .filter(|line| line.starts_with("curl "))
            .collect();
        (lines.len() >= 4).then_some(lines)
    });

    let (last, working) = printed.split_last().unwrap();
    for line in working {
        let (status, said) = shell(line);
        assert_eq!(status, 0, "{line}\n{said}");
    }
    let (status, said) = shell(last);
    assert_eq!(status, 35, "an unknown name is refused: {last}\n{said}");
    for tenant in ["acme.localhost", "globex.localhost"] {
        demo.wait_for_line(&format!("{tenant}  "));
    }
    demo.wait_for_line("first handshake, issued by the demo CA in");
    demo.wait_for_line("200 from core");

    demo.signal(Signal::INT);
    assert!(demo.wait_for_exit(wait::PATIENCE).success());
    let left: Vec<_> = std::fs::read_dir(elsewhere.path()).unwrap().collect();
    assert!(left.is_empty(), "temporary data stays behind: {left:?}");
}

/// Runs a line as a user's shell does.
fn shell(line: &str) -> (i32, String) {
    let output = Command::new("sh")
        .args(["-c", line])
        .env("no_proxy", "*")
        .output()
        .unwrap();
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    (output.status.code().unwrap(), said)
}

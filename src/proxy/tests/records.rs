//! What is left of a request when it has ended: one access record, and its metrics.

use std::path::Path;

use super::support::{exchange, get, until};
use super::upstreams::{Backend, Reply, SHORT, edge_with, everyone, nobody, ok, upstream};
use crate::base::task::Tasks;
use crate::telemetry;
use crate::telemetry::access::AccessLog;
use crate::telemetry::labels::{End, Protocol};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::settings::{AccessOutput, Format};

fn log_to(path: &Path, tasks: &Tasks) -> AccessLog {
    let settings = telemetry::Settings {
        access: AccessOutput::File(path.to_owned()),
        format: Format::Json,
        ..telemetry::Settings::default()
    };
    AccessLog::start(&settings, &Metrics::default(), tasks).unwrap()
}

#[tokio::test]
async fn every_request_leaves_one_record_however_it_ends() {
    let (folder, tasks) = (tempfile::tempdir().unwrap(), Tasks::new());
    let path = folder.path().join("access.log");
    let log = log_to(&path, &tasks);
    let edge = edge_with(log.clone());
    let backend = Backend::start(|heard| match heard.line().contains("/hang") {
        true => Reply::Hang,
        false => ok("twelve bytes"),
    })
    .await;
    edge.lead(vec![everyone(&upstream("core", &[backend.address], SHORT))]);
    let mut visitor = edge.visit("a.test").await.unwrap();
    exchange(&mut visitor, "a.test", "/fine?token=secret").await;
    exchange(&mut visitor, "b.test", "/elsewhere").await;
    exchange(&mut visitor, "a.test", "/hang").await;
    let long = upstream("core", &[backend.address], Default::default());
    edge.lead(vec![everyone(&long)]);
    let mut leaver = edge.visit("a.test").await.unwrap();
    let request = b"GET /hang/left HTTP/1.1\r\nHost: a.test\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut leaver, request)
        .await
        .unwrap();
    until(|| backend.heard().len() == 3).await;
    drop(leaver);
    edge.lead(vec![everyone(&upstream("core", &[nobody().await], SHORT))]);
    get(&mut visitor, "a.test", "/nobody").await;
    let metrics = &edge.shared.metrics;
    for (end, count) in [
        (End::Completed, 1),
        (End::Misdirected, 1),
        (End::UpstreamTimeout, 1),
        (End::UpstreamUnreachable, 1),
        (End::ClientClosed, 1),
    ] {
        until(|| metrics.requests_ended.total(end) == count).await;
    }
    until(|| metrics.requests_open.level(Protocol::Http1) == 0).await;
    let errors = metrics.tenant_errors.worst();
    assert_eq!(errors.len(), 1);
    assert_eq!((errors[0].0.as_str(), errors[0].1), ("acme", 2));
    log.close();
    assert_eq!(tasks.finish(std::time::Duration::from_secs(20)).await, 0);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("secret"), "{text}");
    let records: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(records.len(), 5, "{text}");
    let first = &records[0];
    assert_eq!(first["tenant"], "acme", "{first}");
    assert_eq!(first["domain"], "a.test");
    assert_eq!(first["path"], "/fine");
    assert_eq!(first["status"], 200);
    assert_eq!(first["upstream"], "core");
    assert_eq!(first["bytes_out"], 12);
    assert_eq!(first["end"], "completed");
    let statuses: Vec<_> = records
        .iter()
        .map(|record| record["status"].as_u64().unwrap())
        .collect();
    assert!(
        statuses.contains(&421) && statuses.contains(&504) && statuses.contains(&502),
        "{statuses:?}"
    );
    assert!(
        statuses.contains(&0),
        "the visitor who left was sent no status: {statuses:?}"
    );
}

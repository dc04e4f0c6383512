//! The keys at rest: how they stand, and the exchange of the key-encryption key, watched to its end.

use std::io::Write;
use std::time::Duration;

use serde_json::Value;

use super::connection::Method;
use super::show::{Lines, cell, items, text};
use super::{ClientError, RotateOptions, connect, write_one};

/// Between two questions how far it is.
const PAUSE: Duration = Duration::from_millis(200);
/// How long an exchange may fail before it is left to itself: a store that is busy for a moment is no reason.
const PATIENCE: u32 = 5;

/// Exchanges the key-encryption key; ends when that is done, and says on the way how far it is.
pub(super) async fn rotate(
    options: &RotateOptions,
    output: &mut dyn Write,
) -> Result<(), ClientError> {
    let RotateOptions { tenant, client } = options;
    let mut connection = connect(client).await?;
    let whose: Vec<_> = tenant.iter().map(|id| ("tenant", id.as_str())).collect();
    let path = ["keys", "exchange"];
    let mut answer = connection.ask(Method::Post, &path, &whose).await?;
    let (mut said, mut troubled) = (0, 0);
    loop {
        let under_way = answer.get("exchange").filter(|value| !value.is_null());
        let Some(under_way) = under_way else {
            return write_one(client, &answer, exchanged, output);
        };
        troubled = match answer.get("trouble").and_then(Value::as_str) {
            Some(trouble) if troubled >= PATIENCE => return Err(unfinished(trouble)),
            Some(_) => troubled + 1,
            None => 0,
        };
        let done = under_way.get("done").and_then(Value::as_u64);
        let done = done.unwrap_or_default();
        if done > said && !client.json {
            said = done;
            writeln!(output, "{done} data keys gone over").map_err(ClientError::Output)?;
        }
        tokio::time::sleep(PAUSE).await;
        answer = connection.ask(Method::Get, &["keys"], &[]).await?;
    }
}

/// Makes a new data key. The rest happens by itself.
pub(super) async fn rotate_data(
    options: &RotateOptions,
    output: &mut dyn Write,
) -> Result<(), ClientError> {
    let RotateOptions { tenant, client } = options;
    let mut connection = connect(client).await?;
    let whose: Vec<_> = tenant.iter().map(|id| ("tenant", id.as_str())).collect();
    let path = ["keys", "renew-data-key"];
    let answer = connection.ask(Method::Post, &path, &whose).await?;
    write_one(client, &answer, renewed, output)
}

fn renewed(answer: &Value) -> String {
    let whose = match cell(answer, &["tenant"]).as_str() {
        "-" => "the platform".to_owned(),
        tenant => tenant.to_owned(),
    };
    format!(
        "data key {} of {whose} seals from now on; what older ones sealed is sealed anew, and they are destroyed a minute after \
         the last. `vestibule event list` tells when.\n",
        cell(answer, &["number"])
    )
}

fn unfinished(trouble: &str) -> ClientError {
    ClientError::Problem {
        title: "The exchange is not done yet".to_owned(),
        detail: format!(
            "{trouble}. Both keys are at hand and everything is served; it is tried again every 30 seconds and at the \
             next start. See: vestibule keys show"
        ),
        mistakes: Vec::new(),
    }
}

/// An exchange that was done.
fn exchanged(answer: &Value) -> String {
    let last = |key| cell(answer, &["last_exchange", key]);
    let [from, to, count, retired] = ["from", "to", "data_keys", "retired_file"].map(last);
    let mut said = format!(
        "the key-encryption key is {to} now, {from} before; {count} data keys were wrapped anew\n\
         Copy the new key apart from the backups. Backups made before need {retired}: delete it, with its copies, once \
         you keep none of them.\n",
    );
    for group in items(answer, "unreadable") {
        said.push_str(&format!("not wrapped anew: {}\n", cell(group, &["detail"])));
    }
    said
}

/// How the keys stand.
pub(super) fn standing(answer: &Value) -> String {
    let mut lines = Lines::default();
    lines.field("wraps", answer, &["key_encryption_key"]);
    lines.field("file", answer, &["file"]);
    lines.field("data keys", answer, &["data_keys"]);
    for own in items(answer, "own") {
        let [tenant, file, id] =
            ["tenant", "file", "key_encryption_key"].map(|key| cell(own, &[key]));
        lines.add("own key", &format!("{tenant}: {file} ({id})"));
    }
    if answer.get("exchange").is_some_and(|value| !value.is_null()) {
        let [from, to, done] = ["from", "to", "done"].map(|key| cell(answer, &["exchange", key]));
        lines.add(
            "exchange",
            &format!("under way from {from} to {to}: {done} data keys gone over"),
        );
    }
    if let Some(trouble) = answer.get("trouble").filter(|value| !value.is_null()) {
        lines.add("trouble", &text(trouble));
    }
    for group in items(answer, "unreadable") {
        lines.field("unreadable", group, &["detail"]);
    }
    lines.text()
}

/// Destroyed data keys.
pub(super) fn destroyed(answer: &Value) -> String {
    let [tenant, through, own] = ["tenant", "through", "own_file"].map(|key| cell(answer, &[key]));
    if own != "-" {
        return format!(
            "the data keys of {tenant} up to number {through} are destroyed, and so is its own key-encryption key {own}\n\
             Delete every copy of that file: then they open in no backup, for nobody.\n"
        );
    }
    format!(
        "the data keys of {tenant} up to number {through} are destroyed; this Vestibule opens them in no restored backup either\n\
         Whoever holds an older backup and the key-encryption key could open them with tools of his own. To end that too: \
         vestibule keys rotate, then delete the retired key with all its copies.\n"
    )
}

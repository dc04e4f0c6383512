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
            let told = |answer: &Value| exchanged(answer, tenant.as_deref());
            return write_one(client, &answer, told, output);
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
            let done = data_keys(done);
            writeln!(output, "{done} gone over").map_err(ClientError::Output)?;
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
fn exchanged(answer: &Value, tenant: Option<&str>) -> String {
    let last = |key| cell(answer, &["last_exchange", key]);
    let [from, to, retired] = ["from", "to", "retired_file"].map(last);
    let count = answer.pointer("/last_exchange/data_keys");
    let wrapped = match count.and_then(Value::as_u64).unwrap_or_default() {
        1 => "1 data key was wrapped anew".to_owned(),
        count => format!("{count} data keys were wrapped anew"),
    };
    let whose = tenant.map_or_else(String::new, |tenant| format!(" of tenant {tenant}"));
    let mut said = format!(
        "the key-encryption key{whose} is {to} now, {from} before; {wrapped}\n\
         Copy the new key apart from the backups. Backups made before need {retired}: delete it, with its copies, once \
         you keep none of them.\n",
    );
    for group in items(answer, "unreadable") {
        said.push_str(&format!("not wrapped anew: {}\n", cell(group, &["detail"])));
    }
    said
}

/// A number of data keys.
fn data_keys(count: u64) -> String {
    match count {
        1 => "1 data key".to_owned(),
        count => format!("{count} data keys"),
    }
}

/// How the keys stand.
pub(super) fn standing(answer: &Value) -> String {
    let mut lines = Lines::default();
    lines.field("wraps", answer, &["key_encryption_key"]);
    lines.field("file", answer, &["file"]);
    let [count, at] = ["data_keys", "counted_at"].map(|key| cell(answer, &[key]));
    lines.add("data keys", &format!("{count}, as of {at}"));
    for own in items(answer, "own") {
        let [tenant, file, id] =
            ["tenant", "file", "key_encryption_key"].map(|key| cell(own, &[key]));
        lines.add("own key", &format!("{tenant}: {file} ({id})"));
    }
    if answer.get("exchange").is_some_and(|value| !value.is_null()) {
        let [from, to] = ["from", "to"].map(|key| cell(answer, &["exchange", key]));
        let done = answer.pointer("/exchange/done").and_then(Value::as_u64);
        let done = data_keys(done.unwrap_or_default());
        lines.add(
            "exchange",
            &format!("under way from {from} to {to}: {done} gone over"),
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_exchange_is_told_with_whose_key_it_was_and_in_the_right_number() {
        let answer = |count: u64| json!({"last_exchange": {"from": "a", "to": "b", "data_keys": count, "retired_file": "/k/f.a.retired"}});
        for (tenant, count, expected) in [
            (
                None,
                2,
                "the key-encryption key is b now, a before; 2 data keys were wrapped anew",
            ),
            (
                Some("acme"),
                1,
                "the key-encryption key of tenant acme is b now, a before; 1 data key was wrapped anew",
            ),
        ] {
            let told = exchanged(&answer(count), tenant);
            assert_eq!(told.lines().next(), Some(expected));
        }
    }

    #[test]
    fn the_count_of_data_keys_is_as_of_a_time() {
        let told = standing(&json!({"data_keys": 3, "counted_at": "2027-01-15T08:00:00Z"}));
        assert!(
            told.contains("data keys    3, as of 2027-01-15T08:00:00Z\n"),
            "{told}"
        );
    }
}

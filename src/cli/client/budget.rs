//! `vestibule budget`: what is left of the CAs' limits, for people.

use serde_json::{Value, json};

use super::show::{Columns, Part, cell, items, table};

const LIMITS: Columns = &[
    ("CA", &["ca"]),
    ("LIMIT OF", &["bucket"]),
    ("THE CA ALLOWS", &["limit"]),
    ("WE SPEND", &["ours"]),
    ("LEFT", &["left"]),
    ("BUCKETS IN USE", &["in_use"]),
];

const CLASSES: Columns = &[
    ("CA", &["ca"]),
    ("NEW ORDERS FOR", &["class"]),
    ("LEAVE", &["reserved"]),
    ("LEFT", &["left"]),
    ("NEXT ORDER", &["next_at"]),
];

const EMPTIEST: Columns = &[
    ("CA", &["ca"]),
    ("EMPTIEST OF", &["bucket"]),
    ("FOR", &["subject"]),
    ("LEFT", &["left"]),
    ("NEXT", &["next_at"]),
    ("STOPPED UNTIL", &["stopped_until"]),
];

const STOPS: Columns = &[
    ("CA", &["ca"]),
    ("STOPPED WITHOUT A KNOWN LIMIT", &["bucket"]),
    ("FOR", &["subject"]),
    ("STOPPED UNTIL", &["stopped_until"]),
];

/// The whole answer: how each CA is shared, its limits, its classes of orders, what it has stopped, its emptiest buckets.
pub(super) fn budget(answer: &Value) -> String {
    let cas = items(answer, "items");
    if cas.is_empty() {
        return "no CA with limits is configured\n".to_owned();
    }
    let mut text: String = cas.iter().map(shared).collect();
    for (columns, list) in [(LIMITS, "limits"), (CLASSES, "classes"), (STOPS, "stops")] {
        let rows: Vec<Value> = cas.iter().flat_map(|ca| rows(ca, list)).collect();
        add(&mut text, columns, &rows);
    }
    let emptiest = cas.iter().flat_map(|ca| {
        let limits = items(ca, "limits").iter();
        limits.flat_map(|limit| {
            let of = [("ca", ca.get("ca")), ("bucket", limit.get("bucket"))];
            let buckets = items(limit, "emptiest").iter();
            buckets.map(move |bucket| with(bucket, &of))
        })
    });
    add(&mut text, EMPTIEST, &emptiest.collect::<Vec<Value>>());
    text
}

/// How one CA is shared, in a line or two.
fn shared(ca: &Value) -> String {
    let name = cell(ca, &["ca"]);
    let stopped = cell(ca, &["stopped_until"]);
    let left_alone = match stopped.as_str() {
        "-" => String::new(),
        until => format!("{name} asks to be left alone until {until}\n"),
    };
    if items(ca, "limits").is_empty() {
        let free = match left_alone.is_empty() && items(ca, "stops").is_empty() {
            true => ", nothing is held back",
            false => "; only what it has stopped itself is held back",
        };
        return format!("{name}: no limits are configured for it{free}\n{left_alone}");
    }
    let renewals = match ca.get("renewals_charged").and_then(Value::as_bool) {
        Some(false) => "renewals are not charged to orders and domains",
        _ => "renewals are charged as new orders are",
    };
    let (spend, share) = (
        cell(ca, &["spend_percent"]),
        cell(ca, &["tenant_share_percent"]),
    );
    format!(
        "{name}: at most {spend} % of each limit is spent, a tenant's share is {share} %; {renewals}\n{left_alone}"
    )
}

fn rows(ca: &Value, list: &str) -> Vec<Value> {
    let of = [("ca", ca.get("ca"))];
    items(ca, list).iter().map(|row| with(row, &of)).collect()
}

/// An item that also says what it belongs to; what is at once says so.
fn with(item: &Value, of: &[(&str, Option<&Value>)]) -> Value {
    let mut item = item.clone();
    if let Some(fields) = item.as_object_mut() {
        for (key, value) in of {
            fields.insert((*key).to_owned(), value.cloned().unwrap_or_default());
        }
        if fields.get("next_at").is_some_and(Value::is_null) {
            fields.insert("next_at".to_owned(), json!("at once"));
        }
        if fields.get("subject").and_then(Value::as_str) == Some("") {
            fields.insert("subject".to_owned(), json!("the account"));
        }
    }
    item
}

fn add(text: &mut String, columns: Columns, rows: &[Value]) {
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&table(columns, rows, Part::First));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_ca_has_stopped_is_told_where_no_limit_of_it_is_known() {
        let answer = json!({ "items": [{
            "ca": "zero", "renewals_charged": true, "spend_percent": 80, "tenant_share_percent": 10,
            "stopped_until": null, "classes": [], "limits": [],
            "stops": [{"bucket": "orders", "subject": "", "stopped_until": "2027-01-15T09:00:00Z"}],
        }]});
        assert_eq!(
            budget(&answer),
            "zero: no limits are configured for it; only what it has stopped itself is held back\n\n\
             CA    STOPPED WITHOUT A KNOWN LIMIT  FOR          STOPPED UNTIL\n\
             zero  orders                         the account  2027-01-15T09:00:00Z\n"
        );
    }

    #[test]
    fn what_is_left_is_told_for_the_account_and_for_what_is_emptiest() {
        let answer = json!({ "items": [{
            "ca": "le", "renewals_charged": false, "spend_percent": 80, "tenant_share_percent": 10,
            "stopped_until": "2027-01-15T09:00:00Z",
            "classes": [{"class": "bulk", "reserved": 108, "left": 0, "next_at": "2027-01-15T08:00:45Z"}],
            "limits": [
                {"bucket": "orders", "limit": "300 in 3h", "ours": 240, "left": 100, "in_use": 1,
                 "emptiest": [{"subject": "", "left": 100, "next_at": null, "stopped_until": null}]},
                {"bucket": "domain", "limit": "50 in 7d", "ours": 40, "left": 40, "in_use": 0, "emptiest": []},
            ],
        }]});
        assert_eq!(
            budget(&answer),
            "le: at most 80 % of each limit is spent, a tenant's share is 10 %; renewals are not charged to orders and domains\n\
             le asks to be left alone until 2027-01-15T09:00:00Z\n\n\
             CA  LIMIT OF  THE CA ALLOWS  WE SPEND  LEFT  BUCKETS IN USE\n\
             le  orders    300 in 3h      240       100   1\n\
             le  domain    50 in 7d       40        40    0\n\n\
             CA  NEW ORDERS FOR  LEAVE  LEFT  NEXT ORDER\n\
             le  bulk            108    0     2027-01-15T08:00:45Z\n\n\
             CA  EMPTIEST OF  FOR          LEFT  NEXT     STOPPED UNTIL\n\
             le  orders       the account  100   at once  -\n"
        );
        let free = json!({ "items": [{
            "ca": "own", "renewals_charged": true, "spend_percent": 80, "tenant_share_percent": 10,
            "stopped_until": null, "classes": [], "limits": [],
        }]});
        assert_eq!(
            budget(&free),
            "own: no limits are configured for it, nothing is held back\n"
        );
        let none = json!({ "items": [] });
        assert_eq!(budget(&none), "no CA with limits is configured\n");
    }
}

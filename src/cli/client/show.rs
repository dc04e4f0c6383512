//! Answers of the control API for people: tables, and one thing at a time as labelled lines.

use serde_json::Value;

use crate::cli::client::connection::printable;

/// The columns of a table: heading, and where the value lies in an item.
pub(super) type Columns = &'static [(&'static str, &'static [&'static str])];

pub(super) const TENANTS: Columns = &[
    ("TENANT", &["id"]),
    ("SOURCE", &["source"]),
    ("CA", &["ca"]),
    ("PROFILE", &["profile"]),
    ("CREATED", &["created_at"]),
];

pub(super) const CAS: Columns = &[
    ("CA", &["name"]),
    ("STATE", &["state"]),
    ("ACCOUNT", &["account"]),
    ("PROFILE", &["profile"]),
    ("OFFERS", &["profiles"]),
    ("TERMS", &["terms_of_service"]),
    ("TROUBLE", &["trouble"]),
];

pub(super) const DOMAINS: Columns = &[
    ("DOMAIN", &["name"]),
    ("TENANT", &["tenant"]),
    ("STATE", &["state"]),
    ("TLS", &["tls_status"]),
    ("PROBLEM", &["problem", "code"]),
    ("EXPIRES", &["certificate", "not_after"]),
    ("NEXT ATTEMPT", &["next_attempt_at"]),
];

pub(super) const CERTIFICATES: Columns = &[
    ("CERTIFICATE", &["id"]),
    ("NAME", &["name"]),
    ("SERIAL", &["serial"]),
    ("TENANT", &["tenant"]),
    ("CA", &["ca"]),
    ("ORIGIN", &["origin"]),
    ("USE", &["use"]),
    ("STATUS", &["status"]),
    ("EXPIRES", &["not_after"]),
];

/// A certificate with what it is called: its names, or the client that it names.
pub(super) fn named(certificate: &Value) -> Value {
    let name = match certificate.get("client") {
        Some(Value::String(client)) => Value::from(client.as_str()),
        _ => certificate.get("names").cloned().unwrap_or_default(),
    };
    let mut named = certificate.clone();
    if let Some(fields) = named.as_object_mut() {
        fields.insert("name".to_owned(), name);
    }
    named
}

pub(super) const TAKEN: Columns = &[
    ("NAME", &["names"]),
    ("TENANT", &["tenant"]),
    ("RESULT", &["result"]),
    ("WHY", &["detail"]),
];

pub(super) const JOBS: Columns = &[
    ("JOB", &["key"]),
    ("TENANT", &["tenant"]),
    ("STATUS", &["status"]),
    ("PRIORITY", &["priority"]),
    ("RUNS AT", &["run_at"]),
    ("FAILURES", &["failures"]),
    ("PROBLEM", &["problem", "code"]),
];

pub(super) const EVENTS: Columns = &[
    ("NUMBER", &["sequence"]),
    ("AT", &["at"]),
    ("ACTOR", &["actor"]),
    ("EVENT", &["kind"]),
    ("SUBJECT", &["subject"]),
    ("DETAIL", &["detail"]),
];

/// Which part of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Its beginning, with the heading.
    First,
    /// More rows.
    Further,
}

/// Items as a part of a table.
pub(super) fn table(columns: Columns, items: &[Value], part: Part) -> String {
    let heading = columns.iter().map(|(heading, _)| (*heading).to_owned());
    let heading = (part == Part::First).then(|| heading.collect());
    let rows = items
        .iter()
        .map(|item| columns.iter().map(|(_, path)| cell(item, path)).collect());
    let rows: Vec<Vec<String>> = heading.into_iter().chain(rows).collect();
    let mut widths = vec![0; columns.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    rows.iter().map(|row| line(row, &widths)).collect()
}

fn line(row: &[String], widths: &[usize]) -> String {
    let cells = row.iter().zip(widths);
    let text: String = cells
        .map(|(cell, width)| format!("{cell:<width$}  "))
        .collect();
    format!("{}\n", text.trim_end())
}

pub(super) fn cell(item: &Value, path: &[&str]) -> String {
    let found = path.iter().try_fold(item, |value, key| value.get(key));
    found.map_or_else(|| "-".to_owned(), text)
}

/// A value as a word: `-` where there is none.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => printable(text),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(","),
        Value::Object(fields) if fields.is_empty() => "-".to_owned(),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => printable(&value.to_string()),
    }
}

/// A changed account key.
pub(super) fn rollover(answer: &Value) -> String {
    format!("the account {} has a new key\n", cell(answer, &["account"]))
}

/// Labelled lines.
#[derive(Default)]
pub(super) struct Lines(String);

impl Lines {
    /// An empty line.
    pub(super) fn blank(&mut self) {
        self.0.push('\n');
    }

    /// All of them.
    pub(super) fn text(self) -> String {
        self.0
    }

    /// A label and what it says.
    pub(super) fn add(&mut self, label: &str, value: &str) {
        self.0.push_str(format!("{label:<12} {value}").trim_end());
        self.0.push('\n');
    }

    pub(super) fn field(&mut self, label: &str, item: &Value, path: &[&str]) {
        self.add(label, &cell(item, path));
    }
}

/// The items of a list in `item`.
pub(super) fn items<'a>(item: &'a Value, key: &str) -> &'a [Value] {
    let found = item.get(key).and_then(Value::as_array);
    found.map_or(&[], Vec::as_slice)
}

/// How the process is.
pub(super) fn status(answer: &Value) -> String {
    let mut lines = Lines::default();
    lines.field("phase", answer, &["phase"]);
    lines.field("version", answer, &["version"]);
    lines.field("started", answer, &["started_at"]);
    let complete = answer.get("domains_complete").and_then(Value::as_bool);
    let reading = if complete == Some(true) {
        ""
    } else {
        " (still reading)"
    };
    let known = cell(answer, &["domains_known"]);
    lines.add("domains", &format!("{known}{reading}"));
    for condition in items(answer, "conditions") {
        let status = cell(condition, &["status"]);
        let reason = condition.get("reason").filter(|reason| !reason.is_null());
        let reason = reason.map_or_else(String::new, |reason| format!(": {}", text(reason)));
        lines.add(&cell(condition, &["name"]), &format!("{status}{reason}"));
    }
    lines.0
}

/// A reload that was done.
pub(super) fn reload(answer: &Value) -> String {
    let mut lines = Lines::default();
    lines.add("reloaded", "the configuration is in force");
    for warning in items(answer, "warnings") {
        let told = warning.as_str().unwrap_or_default();
        for (row, line) in told.lines().enumerate() {
            let label = if row == 0 { "warning" } else { "" };
            lines.add(label, &printable(line));
        }
    }
    for key in items(answer, "needs_restart") {
        lines.add(
            "restart",
            &format!("{} takes effect at the next start", text(key)),
        );
    }
    lines.0
}

/// A retry that was requested.
pub(super) fn retry(answer: &Value) -> String {
    let mut lines = Lines::default();
    let domain = cell(answer, &["domain"]);
    lines.field("domain", answer, &["domain"]);
    let seconds = cell(answer, &["due_in_seconds"]);
    let job = match answer.get("job").and_then(Value::as_str) {
        Some("running") => "running already".to_owned(),
        Some("queued") if seconds == "0" => "queued, starts at once".to_owned(),
        _ => format!("{}, starts in {seconds} s", cell(answer, &["job"])),
    };
    lines.add("job", &job);
    lines.add("see", &format!("vestibule domain show '{domain}'"));
    lines.0
}

/// One domain.
pub(super) fn domain(answer: &Value) -> String {
    let mut lines = Lines::default();
    lines.field("domain", answer, &["name"]);
    let (tenant, source) = (cell(answer, &["tenant"]), cell(answer, &["source"]));
    lines.add("tenant", &format!("{tenant} (from {source})"));
    lines.field("state", answer, &["state"]);
    lines.field("tls", answer, &["tls_status"]);
    if let Some(problem) = answer.get("problem").filter(|problem| !problem.is_null()) {
        add_problem(&mut lines, problem);
    }
    if answer.get("certificate").is_some_and(Value::is_object) {
        lines.field("certificate", answer, &["certificate", "id"]);
        lines.field("  issued by", answer, &["certificate", "ca"]);
        lines.field("  expires", answer, &["certificate", "not_after"]);
    }
    let failures = answer.get("failures").and_then(Value::as_u64).unwrap_or(0);
    let after = match failures {
        0 => String::new(),
        n => format!(" (after {n} failures)"),
    };
    let waits = cell(answer, &["state"]) == "pending_dns";
    let next = match cell(answer, &["next_attempt_at"]) {
        none if none == "-" && waits => "with its first visitor".to_owned(),
        next => next,
    };
    lines.add("next attempt", &format!("{next}{after}"));
    for (index, way) in items(answer, "dns_requirements").iter().enumerate() {
        for (row, record) in way.as_array().into_iter().flatten().enumerate() {
            let label = match (index, row) {
                (0, 0) => "dns",
                (_, 0) => "  or",
                _ => "",
            };
            let [name, kind, value] = ["name", "type", "value"].map(|key| cell(record, &[key]));
            lines.add(label, &format!("{name}  {kind}  {value}"));
        }
    }
    lines.0
}

/// A look at a name.
pub(super) fn check(answer: &Value) -> String {
    let mut lines = Lines::default();
    let name = cell(answer, &["name"]);
    lines.add("name", &name);
    let looked_at = cell(answer, &["looked_at"]);
    if looked_at != name {
        lines.add("looked at", &looked_at);
    }
    lines.add("registered", &registered(answer));
    let reached = match answer.get("reached").and_then(Value::as_str) {
        Some("here") => format!("yes: our own challenge came back over {}", port(answer)),
        Some("elsewhere") => "no: it leads elsewhere".to_owned(),
        _ => "could not be found out".to_owned(),
    };
    lines.add("reaches us", &reached);
    if answer.get("cdn").is_some_and(Value::is_string) {
        lines.field("behind", answer, &["cdn"]);
    }
    for seen in items(answer, "seen") {
        lines.add("seen", &text(seen));
    }
    if let Some(caa) = answer.get("caa").filter(|caa| caa.is_object()) {
        add_caa(&mut lines, caa);
    }
    let problems = items(answer, "problems");
    if problems.is_empty() {
        lines.add("problem", "none");
    }
    for found in problems {
        if let Some(problem) = found.get("problem") {
            let (code, actor) = (cell(problem, &["code"]), cell(problem, &["actor"]));
            lines.add("problem", &format!("{code} ({actor} must act)"));
            lines.field("", problem, &["detail"]);
            lines.field("  fix", problem, &["fix"]);
        }
        let blocks = found.get("blocks").and_then(Value::as_bool) == Some(true);
        let order = match (
            blocks,
            answer.get("registered").is_some_and(Value::is_object),
        ) {
            (true, true) => "none is placed until this is put right",
            (false, true) => "placed all the same: an authority may see more than we do",
            (true, false) => "none would be placed until this is put right",
            (false, false) => "would be placed all the same: an authority may see more than we do",
        };
        lines.add("  order", order);
    }
    lines.0
}

/// As what a name is registered here, or how it can be.
fn registered(answer: &Value) -> String {
    let Some(found) = answer.get("registered").filter(|found| found.is_object()) else {
        return "not here: name it in [[tenant]] domains, or have the hook of [on_demand] ask allow it; nothing is ordered \
                for it before"
            .to_owned();
    };
    let [name, tenant, state] = ["name", "tenant", "state"].map(|key| cell(found, &[key]));
    match name == cell(answer, &["name"]) {
        true => format!("for {tenant}, {state}"),
        false => format!("by {name} for {tenant}, {state}"),
    }
}

/// The port that authorities ask at, and the one that this edge listens at where that is another.
fn port(answer: &Value) -> String {
    let asked = cell(answer, &["http_port"]);
    let listening: Vec<String> = items(answer, "http_listening").iter().map(text).collect();
    match listening.is_empty() || listening.contains(&asked) {
        true => format!("port {asked}"),
        false => format!(
            "port {asked} (the public one; this edge listens at {})",
            listening.join(", ")
        ),
    }
}

/// The CAA records that count, and what they say about each authority.
fn add_caa(lines: &mut Lines, caa: &Value) {
    let records = items(caa, "records");
    match caa.get("unread").and_then(Value::as_str) {
        Some(_) => lines.field("caa", caa, &["unread"]),
        None if records.is_empty() => lines.add("caa", "no records"),
        None => {}
    }
    for record in records {
        lines.add("caa", &text(record));
    }
    for authority in items(caa, "authorities") {
        let ca = cell(authority, &["ca"]);
        let word = match authority.get("permitted").and_then(Value::as_str) {
            Some("yes") => "may issue",
            Some("no") => "must not issue",
            _ => "may or may not issue",
        };
        let why = match authority.get("decided_by") {
            Some(Value::String(_)) => cell(authority, &["decided_by"]),
            _ => cell(authority, &["why"]),
        };
        lines.add("", &format!("{ca} {word}: {why}"));
    }
}

fn add_problem(lines: &mut Lines, problem: &Value) {
    let (code, actor) = (cell(problem, &["code"]), cell(problem, &["actor"]));
    lines.add("problem", &format!("{code} ({actor} must act)"));
    lines.field("", problem, &["detail"]);
    for evidence in items(problem, "evidence") {
        lines.add("  seen", &text(evidence));
    }
    if problem.get("fix").is_some_and(Value::is_string) {
        lines.field("  fix", problem, &["fix"]);
    }
    lines.field("  since", problem, &["first_seen"]);
}

/// A certificate that was imported.
pub(super) fn imported(answer: &Value) -> String {
    let mut lines = Lines::default();
    let result = match cell(answer, &["result"]).as_str() {
        "unchanged" => "nothing to do: it serves already".to_owned(),
        "imported" => "imported, and serves from now on".to_owned(),
        other => other.to_owned(),
    };
    lines.add("result", &result);
    lines.field("certificate", answer, &["certificate", "id"]);
    lines.field("tenant", answer, &["certificate", "tenant"]);
    lines.field("expires", answer, &["certificate", "not_after"]);
    for domain in items(answer, "domains") {
        lines.add("domain", &text(domain));
    }
    lines.0
}

/// A client's certificate that was issued.
pub(super) fn client(answer: &Value) -> String {
    let mut lines = Lines::default();
    lines.field("written to", answer, &["file"]);
    lines.field("certificate", answer, &["certificate", "id"]);
    lines.field("issued by", answer, &["certificate", "ca"]);
    lines.field("expires", answer, &["certificate", "not_after"]);
    lines.0
}

/// A word of the API as it is typed.
pub(super) fn hyphenated(word: &str) -> String {
    word.replace('_', "-")
}

/// A revocation that was asked for.
pub(super) fn revocation(answer: &Value) -> String {
    let id = cell(answer, &["certificate"]);
    let [reason, taken_for] = ["reason", "taken_for"].map(|key| hyphenated(&cell(answer, &[key])));
    let [revoked_at, elsewhere, serial] =
        ["revoked_at", "elsewhere", "serial"].map(|key| cell(answer, &[key]));
    let see = format!("see: vestibule certificate show {id}");
    match (revoked_at.as_str(), elsewhere.as_str()) {
        ("-", "-") => format!("certificate {id} will be revoked ({reason}); {see}\n"),
        ("-", _) => format!(
            "certificate {id} is ended here ({reason}): another serves in its place first, then its key is destroyed; {see}\n\
             no [[ca]] here ordered it: unless one proves to have issued it, have it revoked at {elsewhere}, serial number \
             {serial}\n"
        ),
        (at, _) if taken_for == "-" || taken_for == reason => {
            format!("certificate {id} was revoked at {at} ({reason})\n")
        }
        (at, _) => format!(
            "certificate {id} was revoked at {at} ({taken_for}); its CA is told {reason} now; {see}\n"
        ),
    }
}

/// A revocation that was taken back.
pub(super) fn cancelled(answer: &Value) -> String {
    let id = cell(answer, &["certificate"]);
    format!("certificate {id} is not revoked: nobody was told of it\n")
}

/// A replacement that was asked for.
pub(super) fn replacement(answer: &Value) -> String {
    let id = cell(answer, &["certificate"]);
    format!("another certificate will take the place of {id}\n")
}

/// A rollback that was done.
pub(super) fn rollback(answer: &Value) -> String {
    let [domain, certificate, before, renew_at] =
        ["domain", "certificate", "instead_of", "renew_at"].map(|key| cell(answer, &[key]));
    format!(
        "{domain} is served with {certificate} instead of {before}; it is renewed at {renew_at}\n"
    )
}

/// How far a certificate's revocation is, and what is in its way.
fn add_revocation(lines: &mut Lines, certificate: &Value, revocation: &Value) {
    let [asked, next, left_to] =
        ["asked_at", "next_attempt_at", "left_to"].map(|key| cell(revocation, &[key]));
    let [reason, kept] = ["reason", "kept"].map(|key| hyphenated(&cell(revocation, &[key])));
    lines.add("revocation", &format!("{reason}, asked for at {asked}"));
    // A client's serves nothing that could be replaced.
    if cell(certificate, &["purpose"]) != "client" {
        lines.field("  replaced", revocation, &["replaced_at"]);
    }
    match left_to.as_str() {
        "-" => lines.field("  revoked", revocation, &["revoked_at"]),
        issuer => {
            let serial = cell(certificate, &["serial"]);
            let to_do =
                format!("by no CA here: have it revoked at {issuer}, serial number {serial}");
            lines.add("  revoked", &to_do);
        }
    }
    if kept != "-" {
        let why = format!("{kept}: told {reason}, the CA called it revoked already");
        lines.add("  kept as", &why);
    }
    if next != "-" {
        let failures = cell(revocation, &["failures"]);
        lines.add(
            "  next step",
            &format!("{next} (after {failures} failures)"),
        );
    }
    if let Some(problem) = revocation.get("problem").filter(|it| it.is_object()) {
        add_problem(lines, problem);
    }
}

/// One certificate.
pub(super) fn certificate(answer: &Value) -> String {
    let mut lines = Lines::default();
    for (label, key) in [
        ("certificate", "id"),
        ("names", "names"),
        ("tenant", "tenant"),
        ("issued by", "ca"),
        ("issuer", "issuer"),
        ("origin", "origin"),
        ("purpose", "purpose"),
        ("client", "client"),
        ("serial", "serial"),
        ("use", "use"),
        ("status", "status"),
        ("valid from", "not_before"),
        ("expires", "not_after"),
        ("stored", "created_at"),
    ] {
        lines.field(label, answer, &[key]);
    }
    for (label, key) in [
        ("superseded by", "superseded_by"),
        ("key kept until", "key_kept_until"),
        ("key destroyed", "key_destroyed_at"),
    ] {
        if answer.get(key).is_some_and(|value| !value.is_null()) {
            lines.field(label, answer, &[key]);
        }
    }
    if let Some(revocation) = answer.get("revocation").filter(|it| it.is_object()) {
        add_revocation(&mut lines, answer, revocation);
    }
    let pem = answer.get("chain_pem").and_then(Value::as_str);
    for line in pem.into_iter().flat_map(str::lines) {
        lines.0.push_str(&printable(line));
        lines.0.push('\n');
    }
    lines.0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_is_as_wide_as_its_cells_and_shows_what_is_missing() {
        let items = [
            json!({"name": "a.test", "tenant": "acme", "state": "active", "tls_status": "issued", "problem": null,
                   "certificate": {"not_after": "2027-01-15T08:00:00Z"}, "next_attempt_at": null}),
            json!({"name": "longer.name.test", "tenant": "x", "state": "issuing", "tls_status": "failed",
                   "problem": {"code": "wrong_a"}, "certificate": null, "next_attempt_at": "2026-11-21T19:00:00Z"}),
        ];
        assert_eq!(
            table(DOMAINS, &items, Part::First),
            "DOMAIN            TENANT  STATE    TLS     PROBLEM  EXPIRES               NEXT ATTEMPT\n\
             a.test            acme    active   issued  -        2027-01-15T08:00:00Z  -\n\
             longer.name.test  x       issuing  failed  wrong_a  -                     2026-11-21T19:00:00Z\n"
        );
    }

    #[test]
    fn a_reload_shows_a_warning_of_several_lines_as_such() {
        let warning = "d/a.toml:1:1: unknown key\u{1b}\n  |\n1 | x = 1\n  = fix: remove it";
        assert_eq!(
            reload(&json!({"warnings": [warning], "needs_restart": ["dns"]})),
            "reloaded     the configuration is in force\n\
             warning      d/a.toml:1:1: unknown key\\u{1b}\n               |\n             1 | x = 1\n               \
             = fix: remove it\n\
             restart      dns takes effect at the next start\n"
        );
    }

    #[test]
    fn a_check_tells_by_what_a_name_is_registered_and_the_port_that_was_asked_at() {
        let below = json!({"name": "a.acme.com", "looked_at": "a.acme.com", "reached": "here", "seen": [], "problems": [],
                           "registered": {"name": "*.acme.com", "tenant": "acme", "state": "active"},
                           "http_port": 5002, "http_listening": [5002, 8080]});
        let text = check(&below);
        assert!(
            text.contains("registered   by *.acme.com for acme, active\n"),
            "{text}"
        );
        assert!(text.contains("came back over port 5002\n"), "{text}");
    }

    #[test]
    fn a_check_says_what_was_seen_and_what_to_do() {
        let answer = json!({
            "name": "shop.acme.com", "looked_at": "shop.acme.com", "reached": "elsewhere", "cdn": null,
            "registered": {"name": "shop.acme.com", "tenant": "acme", "state": "issuing"},
            "http_port": 80, "http_listening": [8080],
            "seen": ["A 203.0.113.5", "203.0.113.5: somebody else answered with status 404"],
            "caa": {"at": "acme.com", "records": ["acme.com. CAA 0 issue \"one.test\""], "unread": null, "authorities": [
                {"ca": "one", "permitted": "yes", "why": "a record names it",
                 "decided_by": "acme.com. CAA 0 issue \"one.test\""},
                {"ca": "own", "permitted": "yes", "why": "CAA is not about a CA of your own", "decided_by": null}]},
            "problems": [{"blocks": true, "problem": {
                "code": "wrong_a", "actor": "customer", "detail": "the A records lead to another server",
                "evidence": [], "fix": "`shop.acme.com CNAME edge.example.net`"}}],
            "at": "2026-11-21T18:00:00Z",
        });
        assert_eq!(
            check(&answer),
            "name         shop.acme.com\n\
             registered   for acme, issuing\n\
             reaches us   no: it leads elsewhere\n\
             seen         A 203.0.113.5\n\
             seen         203.0.113.5: somebody else answered with status 404\n\
             caa          acme.com. CAA 0 issue \"one.test\"\n             \
             one may issue: acme.com. CAA 0 issue \"one.test\"\n             \
             own may issue: CAA is not about a CA of your own\n\
             problem      wrong_a (customer must act)\n             the A records lead to another server\n  \
             fix        `shop.acme.com CNAME edge.example.net`\n  \
             order      none is placed until this is put right\n"
        );
        let well = json!({"name": "*.acme.com", "looked_at": "vestibule-check.acme.com", "reached": "here",
                          "registered": null, "http_port": 80, "http_listening": [8080],
                          "cdn": "Cloudflare", "seen": [], "problems": [], "at": "2026-11-21T18:00:00Z"});
        assert_eq!(
            check(&well),
            "name         *.acme.com\n\
             looked at    vestibule-check.acme.com\n\
             registered   not here: name it in [[tenant]] domains, or have the hook of [on_demand] ask allow it; nothing is \
             ordered for it before\n\
             reaches us   yes: our own challenge came back over port 80 (the public one; this edge listens at 8080)\n\
             behind       Cloudflare\n\
             problem      none\n"
        );
    }

    #[test]
    fn a_domain_says_who_must_do_what() {
        let answer = json!({
            "name": "shop.acme.com", "tenant": "acme", "source": "file", "state": "issuing", "tls_status": "failed",
            "problem": {"code": "wrong_a", "actor": "customer", "detail": "the A record points elsewhere",
                        "evidence": ["203.0.113.5\u{1b}[31m"], "fix": "shop.acme.com CNAME edge.example.net",
                        "first_seen": "2026-11-21T18:00:00Z"},
            "certificate": null, "next_attempt_at": "2026-11-21T19:00:00Z", "failures": 2,
            "dns_requirements": [[{"type": "CNAME", "name": "shop.acme.com", "value": "edge.example.net"}],
                                 [{"type": "A", "name": "shop.acme.com", "value": "192.0.2.1"}]],
        });
        assert_eq!(
            domain(&answer),
            "domain       shop.acme.com\n\
             tenant       acme (from file)\n\
             state        issuing\n\
             tls          failed\n\
             problem      wrong_a (customer must act)\n             the A record points elsewhere\n  \
             seen       203.0.113.5\\u{1b}[31m\n  \
             fix        shop.acme.com CNAME edge.example.net\n  \
             since      2026-11-21T18:00:00Z\n\
             next attempt 2026-11-21T19:00:00Z (after 2 failures)\n\
             dns          shop.acme.com  CNAME  edge.example.net\n  \
             or         shop.acme.com  A  192.0.2.1\n"
        );
    }
}

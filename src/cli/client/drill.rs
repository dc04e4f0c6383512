//! `vestibule drill`: what would happen if, for people.

use serde_json::Value;

use super::show::{Lines, cell, items};

/// A drill that was held.
pub(super) fn drill(answer: &Value) -> String {
    let mut lines = Lines::default();
    let certificates = cell(answer, &["certificates"]);
    let not_all = match answer.get("complete").and_then(Value::as_bool) {
        Some(false) => " were read before the time for it was over; all numbers are of these",
        _ => " serve",
    };
    lines.add("certificates", &format!("{certificates}{not_all}"));
    lines.add("order speed", &speed(answer));
    let all = span(answer.get("replacing_seconds"));
    lines.add("replace all", &format!("{all}, all CAs at the same time"));
    for ca in items(answer, "cas") {
        lines.blank();
        authority(&mut lines, ca);
    }
    lines.blank();
    if let Some(found) = answer.get("keys") {
        keys(&mut lines, found);
    }
    lines.text()
}

fn speed(answer: &Value) -> String {
    let rate = answer.pointer("/speed/orders_per_second");
    let rate = rate.and_then(Value::as_f64).unwrap_or_default();
    let why = match cell(answer, &["speed", "from"]).as_str() {
        "asked" => "as asked".to_owned(),
        "measured" => {
            let mean = answer.pointer("/speed/mean_seconds");
            let mean = mean.and_then(Value::as_f64).unwrap_or_default();
            let issuances = cell(answer, &["speed", "issuances"]);
            format!("measured: {issuances} issuances of this process took {mean:.2} s each")
        }
        _ => "assumed, for this process has issued too few to measure; --rate says otherwise"
            .to_owned(),
    };
    format!("{rate:.1} a second, {why}")
}

fn authority(lines: &mut Lines, ca: &Value) {
    let [certificates, expired] = ["certificates", "expired"].map(|key| cell(ca, &[key]));
    let Some(name) = ca.get("ca").and_then(Value::as_str) else {
        lines.add(
            "no CA",
            &format!("{certificates} certificates that nobody renews"),
        );
        return first(lines, ca);
    };
    let state = away(ca);
    lines.add(
        name,
        &format!("renews {certificates} certificates, {expired} of them expired{state}"),
    );
    let lifetimes = ["shortest_lifetime_seconds", "longest_lifetime_seconds"];
    let [shortest, longest] = lifetimes.map(|key| span(ca.get(key)));
    lines.add("  lifetimes", &format!("{shortest} to {longest}"));
    if let Some(takes) = ca.get("replacing") {
        lines.add("  replace", &took(takes));
    }
    for outage in items(ca, "outages") {
        let keys = ["renewals_held_up", "expired", "expired_if_next_takes_over"];
        let [held_up, expired, in_spite] = keys.map(|key| cell(outage, &[key]));
        let long = span(outage.get("seconds"));
        lines.add(
            "  away",
            &format!("{long}: {held_up} renewals held up, {expired} expire in it; {in_spite} if the next CA takes over"),
        );
    }
    let (survives, margin) = ("survives_seconds", "shortest_margin_seconds");
    let [survives, margin] = [survives, margin].map(|key| span(ca.get(key)));
    lines.add(
        "  survives",
        &format!("{survives} from now on with none expired in it or while catching up"),
    );
    lines.add(
        "",
        &format!("{margin} at any time to come, less what catching up takes"),
    );
    next(lines, ca);
    first(lines, ca);
}

/// Who takes over.
fn next(lines: &mut Lines, ca: &Value) {
    for next in items(ca, "next") {
        let certificates = cell(next, &["certificates"]);
        let text = match next.get("ca").and_then(Value::as_str) {
            Some(name) => {
                let takes = next.get("takes").map(took).unwrap_or_default();
                let state = away(next);
                format!("{name} takes over {certificates}, all of them in {takes}{state}")
            }
            None => format!(
                "nobody takes over {certificates}: another [[ca]] must certify them, and a tenant's own `ca` name it"
            ),
        };
        lines.add("  next", &text);
    }
}

/// The first to expire.
fn first(lines: &mut Lines, ca: &Value) {
    for expiry in items(ca, "first_to_expire") {
        let [domain, at] = ["domain", "not_after"].map(|key| cell(expiry, &[key]));
        lines.add("  ends first", &format!("{at}  {domain}"));
    }
}

fn keys(lines: &mut Lines, keys: &Value) {
    lines.add("key file", &cell(keys, &["file"]));
    let restart = match keys.get("restart_fails").and_then(Value::as_str) {
        None => "would open the store with it".to_owned(),
        Some(_) => format!(
            "WOULD NOT START, nothing would be served: {}",
            cell(keys, &["restart_fails"])
        ),
    };
    lines.add("  restart", &restart);
    for loss in items(keys, "restart_loses") {
        let [tenant, why] = ["tenant", "why"].map(|key| cell(loss, &[key]));
        let names = names(loss, "names");
        lines.add("", &format!("WOULD LOSE {names} of {tenant}: {why}"));
    }
    lines.add(
        "  if lost",
        "this process holds the key in memory and goes on serving and renewing; no restart would start",
    );
    let [opened, unreadable] = ["opened", "unreadable"].map(|key| cell(keys, &[key]));
    lines.add("keys", &format!("{opened} open, {unreadable} do not"));
    for tenant in items(keys, "tenants") {
        let id = cell(tenant, &["tenant"]);
        let (names, served) = (names(tenant, "names"), served(tenant));
        let renewals = match cell(tenant, &["renewals"]).as_str() {
            "stop" => "its renewals stop, for its data key does not open",
            _ => "its renewals go on",
        };
        lines.add(
            "  tenant",
            &format!("{id}: the keys of {names} do not open, {served}; {renewals}"),
        );
    }
    for name in items(keys, "names") {
        let [domain, why] = ["domain", "why"].map(|key| cell(name, &[key]));
        lines.add("  unreadable", &format!("{domain}: {why}"));
    }
}

/// A number of names.
fn names(of: &Value, key: &str) -> String {
    match of.get(key).and_then(Value::as_u64).unwrap_or_default() {
        1 => "1 name".to_owned(),
        count => format!("{count} names"),
    }
}

/// What becomes of names whose keys do not open.
fn served(tenant: &Value) -> String {
    let count = |key| tenant.get(key).and_then(Value::as_u64).unwrap_or_default();
    let (names, in_memory) = (count("names"), count("in_memory"));
    match in_memory {
        0 => "none of which is served".to_owned(),
        all if all == names => "all served from memory until the next start".to_owned(),
        some => format!("{some} of which served from memory until the next start, the others not"),
    }
}

/// That an authority is not asked at present, where that is so.
fn away(of: &Value) -> &'static str {
    match of.get("state").and_then(Value::as_str) {
        Some("away" | "tried") => "; it is away at present",
        _ => "",
    }
}

/// `4h 20m, bound by orders`.
fn took(takes: &Value) -> String {
    let long = span(takes.get("seconds"));
    let bound = match cell(takes, &["bound_by"]).as_str() {
        "speed" => "our speed".to_owned(),
        "calls" => "its wish to be left alone".to_owned(),
        limit => format!("its limit of {limit}"),
    };
    format!("{long}, bound by {bound}")
}

/// A time for people, in its two largest units.
fn span(seconds: Option<&Value>) -> String {
    let Some(seconds) = seconds.and_then(Value::as_u64) else {
        return "for ever".to_owned();
    };
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m"),
        (0, _, 0) => format!("{hours}h"),
        (0, _, _) => format!("{hours}h {minutes}m"),
        (_, 0, _) => format!("{days}d"),
        (_, _, _) => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_drill_is_told_from_the_whole_to_the_single_key() {
        let answer = json!({
            "at": "2027-01-15T08:00:00Z", "certificates": 3, "complete": true,
            "speed": {"orders_per_second": 3.2, "from": "measured", "issuances": 40, "mean_seconds": 5.0},
            "replacing_seconds": 90,
            "cas": [
                {"ca": null, "state": null, "certificates": 1, "expired": 0, "issued_by_others": 0,
                 "shortest_lifetime_seconds": null, "longest_lifetime_seconds": null, "replacing": null,
                 "outages": [], "survives_seconds": null, "shortest_margin_seconds": null, "next": [],
                 "first_to_expire": [{"domain": "*.a.test", "not_after": "2027-02-01T00:00:00Z"}]},
                {"ca": "le", "state": "away", "certificates": 2, "expired": 1, "issued_by_others": 0,
                 "shortest_lifetime_seconds": 576_000, "longest_lifetime_seconds": 7_776_000,
                 "replacing": {"seconds": 5400, "bound_by": "orders"},
                 "outages": [{"seconds": 86_400, "renewals_held_up": 2, "expired": 1, "expired_if_next_takes_over": 0}],
                 "survives_seconds": 36_000, "shortest_margin_seconds": 288_000, "first_to_expire": [],
                 "next": [{"ca": "zs", "state": "ready", "certificates": 1, "takes": {"seconds": 1, "bound_by": "speed"}},
                          {"ca": null, "state": null, "certificates": 1, "takes": null}]},
            ],
            "keys": {"file": "/etc/v/kek", "restart_fails": "the file is missing", "opened": 2, "unreadable": 1,
                     "restart_loses": [{"tenant": "globex", "names": 2, "why": "globex.key does not exist"}],
                     "tenants": [{"tenant": "acme", "names": 1, "in_memory": 1, "renewals": "stop"},
                                 {"tenant": "umbrella", "names": 2, "in_memory": 0, "renewals": "go_on"}],
                     "names": [{"domain": "b.test", "why": "wrong key"}]},
        });
        assert_eq!(
            drill(&answer),
            "certificates 3 serve\n\
             order speed  3.2 a second, measured: 40 issuances of this process took 5.00 s each\n\
             replace all  1m, all CAs at the same time\n\
             \n\
             no CA        1 certificates that nobody renews\n\
             \x20 ends first 2027-02-01T00:00:00Z  *.a.test\n\
             \n\
             le           renews 2 certificates, 1 of them expired; it is away at present\n\
             \x20 lifetimes  6d 16h to 90d\n\
             \x20 replace    1h 30m, bound by its limit of orders\n\
             \x20 away       1d: 2 renewals held up, 1 expire in it; 0 if the next CA takes over\n\
             \x20 survives   10h from now on with none expired in it or while catching up\n\
             \x20            3d 8h at any time to come, less what catching up takes\n\
             \x20 next       zs takes over 1, all of them in 1s, bound by our speed\n\
             \x20 next       nobody takes over 1: another [[ca]] must certify them, and a tenant's own `ca` name it\n\
             \n\
             key file     /etc/v/kek\n\
             \x20 restart    WOULD NOT START, nothing would be served: the file is missing\n\
             \x20            WOULD LOSE 2 names of globex: globex.key does not exist\n\
             \x20 if lost    this process holds the key in memory and goes on serving and renewing; no restart would start\n\
             keys         2 open, 1 do not\n\
             \x20 tenant     acme: the keys of 1 name do not open, all served from memory until the next start; its renewals stop, \
             for its data key does not open\n\
             \x20 tenant     umbrella: the keys of 2 names do not open, none of which is served; its renewals go on\n\
             \x20 unreadable b.test: wrong key\n"
        );
        assert_eq!(span(None), "for ever");
    }
}

//! What the demo prints.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::place::{Ports, TENANTS};
use crate::certs::on_demand::Origin;
use crate::model::DnsName;
use crate::proxy::report::{Alert, FirstAnswer, HandshakeOutcome, HandshakeReport, Reject};

/// The lines printed once everything runs: what there is, and commands that work as printed.
pub(super) fn opening(root: &Path, ports: &Ports, application: SocketAddr) -> String {
    let mut text = format!("Vestibule {} demo\n\n", env!("CARGO_PKG_VERSION"));
    let listening: Vec<_> = ports
        .addresses
        .iter()
        .map(|ip| SocketAddr::new(*ip, ports.https).to_string())
        .collect();
    let tenants: Vec<_> = TENANTS
        .iter()
        .map(|(name, domain)| format!("{name} ({domain})"))
        .collect();
    let rows = [
        (
            "core application",
            format!("http://{application}, a sample in this process"),
        ),
        (
            "edge",
            format!(
                "HTTPS on {}; HTTP on port {}",
                listening.join(" and "),
                ports.http
            ),
        ),
        ("tenants", tenants.join(", ")),
        ("CA root", root.display().to_string()),
    ];
    for (what, value) in rows {
        text.push_str(&format!("  {what:<17} {value}\n"));
    }
    text.push_str("\nTry, in another terminal:\n");
    for (why, host, path) in tries() {
        let (root, https) = (root.display(), ports.https);
        let command = format!("curl --cacert {root} https://{host}:{https}{path}");
        text.push_str(&format!("\n  # {why}\n  {command}\n"));
    }
    text.push_str(&format!(
        "\nOther clients do not know *.localhost by themselves; \
         with curl's words: --resolve acme.localhost:{https}:127.0.0.1\n\
         Ctrl-C ends the demo.\n",
        https = ports.https
    ));
    text
}

const fn tries() -> [(&'static str, &'static str, &'static str); 4] {
    [
        (
            "a first visit: its certificate is issued in this very handshake",
            "acme.localhost",
            "/",
        ),
        (
            "a second visit: served from memory",
            "acme.localhost",
            "/again",
        ),
        (
            "another tenant, with a certificate of its own",
            "globex.localhost",
            "/",
        ),
        (
            "a name that nobody registered: refused, at no cost",
            "unknown.localhost",
            "/",
        ),
    ]
}

/// The line for one handshake.
pub(super) fn line(report: &HandshakeReport) -> String {
    let name = report
        .server_name
        .as_ref()
        .map_or("(no server name)", DnsName::as_str);
    let took = milliseconds(report.duration);
    match &report.outcome {
        HandshakeOutcome::Refused(reject) => {
            format!("{name}  refused in {took}: {}", refusal(*reject))
        }
        HandshakeOutcome::Served {
            origin,
            issuer,
            resumed,
            first,
            ..
        } => {
            let how = match (resumed, origin) {
                (true, _) => format!("resumed in {took}"),
                (false, Origin::Issued) => {
                    format!("first handshake, issued by the {issuer} CA in {took}")
                }
                (false, Origin::Store) => format!("handshake from the store in {took}"),
                (false, Origin::Memory) => format!("handshake from memory in {took}"),
            };
            format!("{name}  {how}, {}", answer(first.as_ref()))
        }
    }
}

fn answer(first: Option<&FirstAnswer>) -> String {
    match first {
        Some(FirstAnswer {
            status,
            upstream: Some(upstream),
        }) => {
            format!("{} from {upstream}", status.as_u16())
        }
        Some(FirstAnswer {
            status,
            upstream: None,
        }) => format!("{} by the edge itself", status.as_u16()),
        None => "no request".to_owned(),
    }
}

fn refusal(reject: Reject) -> String {
    match reject.alert() {
        Some(Alert::UnrecognizedName) => format!("{reject}, alert unrecognized_name"),
        Some(Alert::InternalError) => format!("{reject}, alert internal_error"),
        Some(Alert::NoApplicationProtocol) => format!("{reject}, alert no_application_protocol"),
        None => reject.to_string(),
    }
}

fn milliseconds(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1000.0;
    match millis < 10.0 {
        true => format!("{millis:.1} ms"),
        false => format!("{millis:.0} ms"),
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::certs::on_demand::Refusal;
    use crate::model::TenantId;
    use crate::model::certificate::CaId;
    use crate::model::route::UpstreamName;

    fn served(origin: Origin) -> HandshakeOutcome {
        HandshakeOutcome::Served {
            tenant: TenantId::parse("acme").unwrap(),
            origin,
            issuer: CaId::new("demo"),
            resumed: false,
            first: Some(FirstAnswer {
                status: StatusCode::OK,
                upstream: Some(UpstreamName::new("core")),
            }),
        }
    }

    fn reported(name: Option<&str>, outcome: HandshakeOutcome) -> String {
        line(&HandshakeReport {
            server_name: name.map(|name| DnsName::parse(name).unwrap()),
            duration: Duration::from_millis(38),
            outcome,
        })
    }

    #[test]
    fn a_line_tells_how_the_certificate_came_and_who_answered() {
        let check = |outcome, expected| {
            assert_eq!(reported(Some("acme.localhost"), outcome), expected);
        };
        check(
            served(Origin::Issued),
            "acme.localhost  first handshake, issued by the demo CA in 38 ms, 200 from core",
        );
        check(
            served(Origin::Memory),
            "acme.localhost  handshake from memory in 38 ms, 200 from core",
        );
        let mut again = served(Origin::Memory);
        if let HandshakeOutcome::Served { resumed, .. } = &mut again {
            *resumed = true;
        }
        check(again, "acme.localhost  resumed in 38 ms, 200 from core");
        let refused = HandshakeOutcome::Refused(Reject::Credential(Refusal::UnknownName));
        assert_eq!(
            reported(Some("unknown.localhost"), refused),
            "unknown.localhost  refused in 38 ms: unknown_name, alert unrecognized_name"
        );
        assert_eq!(
            reported(None, HandshakeOutcome::Refused(Reject::PeerGone)),
            "(no server name)  refused in 38 ms: peer_gone"
        );
    }
}

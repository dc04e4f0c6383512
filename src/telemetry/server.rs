//! `/healthz`, `/readyz` and `/metrics` on an address of their own, and nothing else.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::base::bind::BindError;
use crate::base::serve::serve;
use crate::base::task::Tasks;
use crate::telemetry::metrics::{Exposition, Metrics};
use crate::telemetry::readiness::Readiness;

/// Begins to serve, until `tasks` are cancelled, and gives the address with the port that was bound. These tasks
/// should end last: `/readyz` must answer while the process drains.
///
/// # Errors
/// [`BindError`] names the address and the remedy.
pub async fn start(
    address: SocketAddr,
    metrics: Metrics,
    readiness: Readiness,
    tasks: &Tasks,
) -> Result<SocketAddr, BindError> {
    let failed = |source| BindError::new(address, source);
    let socket = TcpListener::bind(address).await.map_err(failed)?;
    let bound = socket.local_addr().map_err(failed)?;
    serve(tasks, "telemetry", socket, pages(metrics, readiness));
    Ok(bound)
}

fn pages(metrics: Metrics, readiness: Readiness) -> Router {
    let health = get(async || ([(CACHE_CONTROL, "no-store")], "ok\n"));
    Router::new()
        .route("/healthz", health)
        .route("/readyz", get(ready).with_state(readiness))
        .route("/metrics", get(expose).with_state(metrics))
}

async fn ready(State(readiness): State<Readiness>) -> impl IntoResponse {
    let report = readiness.report();
    let status = match report.ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, [(CACHE_CONTROL, "no-store")], Json(report))
}

async fn expose(State(metrics): State<Metrics>, fields: HeaderMap) -> Response {
    let accept = fields.get(ACCEPT).and_then(|value| value.to_str().ok());
    let exposition = Exposition::asked_by(accept);
    match metrics.expose(exposition) {
        Ok(text) => ([(CONTENT_TYPE, exposition.content_type())], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written out");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;
    use crate::telemetry::readiness::{Condition, Health, Phase};

    async fn ask(address: SocketAddr, path: &str, accept: &str) -> (u16, String) {
        let mut client = TcpStream::connect(address).await.unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: a\r\naccept: {accept}\r\nconnection: close\r\n\r\n"
        );
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap();
        (status.parse().unwrap(), answer)
    }

    #[tokio::test]
    async fn readiness_follows_the_life_of_the_process() {
        let (tasks, readiness) = (Tasks::new(), Readiness::default());
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let address = start(any, Metrics::default(), readiness.clone(), &tasks)
            .await
            .unwrap();
        assert_eq!(ask(address, "/healthz", "*/*").await.0, 200);
        let (status, body) = ask(address, "/readyz", "*/*").await;
        assert_eq!(status, 503);
        assert!(body.contains("\"phase\":\"starting\""), "{body}");
        readiness.enter(Phase::Serving);
        let why = "proxy.toml has 2 mistakes; the last good configuration is in force";
        readiness.set(Condition::Configuration, Health::Degraded(why.into()));
        let (status, body) = ask(address, "/readyz", "*/*").await;
        assert_eq!(status, 200);
        assert!(
            body.contains(
                "{\"name\":\"configuration\",\"status\":\"degraded\",\"reason\":\"proxy.toml"
            ),
            "{body}"
        );
        readiness.enter(Phase::Draining);
        assert_eq!(ask(address, "/readyz", "*/*").await.0, 503);
        assert_eq!(ask(address, "/healthz", "*/*").await.0, 200);
        for other in ["/", "/metricsx", "/healthz/", "/v1/status", "/../readyz"] {
            assert_eq!(ask(address, other, "*/*").await.0, 404, "{other}");
        }
        tasks.cancel();
        assert_eq!(tasks.finish(Duration::from_secs(5)).await, 0);
    }

    #[tokio::test]
    async fn metrics_come_in_the_form_asked_for() {
        let tasks = Tasks::new();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let address = start(any, Metrics::default(), Readiness::default(), &tasks)
            .await
            .unwrap();
        let (_, modern) = ask(address, "/metrics", "application/openmetrics-text;q=0.9").await;
        assert!(modern.contains("content-type: application/openmetrics-text; version=1.0.0"));
        assert!(modern.contains("# EOF"));
        let (_, plain) = ask(address, "/metrics", "*/*").await;
        assert!(plain.contains("content-type: text/plain; version=0.0.4"));
        assert!(plain.contains("# TYPE proxy_connections_total counter"));
        let error = start(address, Metrics::default(), Readiness::default(), &tasks)
            .await
            .unwrap_err();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}

//! The sample core application of the demo: answers every request with what the proxy told it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use axum::Router;
use axum::extract::Request;
use axum::http::HeaderMap;
use tokio::net::TcpListener;

use crate::base::task::Tasks;

/// Starts it on a free port of the loopback interface and says which.
///
/// # Errors
/// Where no port can be bound.
pub(super) async fn start(tasks: &Tasks) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let application = Router::new().fallback(answer);
    tasks.spawn_until_cancelled("sample_application", async move {
        if let Err(error) = axum::serve(listener, application).await {
            tracing::error!(%error, "the sample application ended");
        }
    });
    Ok(address)
}

async fn answer(request: Request) -> String {
    let headers = request.headers();
    format!(
        "Hello, {tenant}! This is the core application.\n\
         You asked {host} for {path}, over {protocol}, from {client}; your request is {id}.\n",
        tenant = field(headers, "vestibule-tenant"),
        host = field(headers, "host"),
        path = request.uri().path(),
        protocol = field(headers, "x-forwarded-proto"),
        client = field(headers, "x-forwarded-for"),
        id = field(headers, "x-request-id"),
    )
}

fn field<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("somebody")
}

//! Serves pages to operators and their tools: few connections, small messages, every wait with a deadline.
//!
//! Not for traffic: that has workers of its own. What is served here ends with its [`Tasks`].

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::IntoResponse as _;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::base::task::Tasks;

/// Connections at once; further ones wait in the kernel's queue.
const MOST_CONNECTIONS: usize = 64;
/// For the head of a request, the wait for the next one on a kept connection included.
const HEAD: Duration = Duration::from_secs(15);
/// For the rest of the request and the making of its response.
const RESPONSE: Duration = Duration::from_secs(60);
/// For connections to end when the tasks are cancelled.
const END: Duration = Duration::from_secs(2);
/// After a failed accept: mostly because file descriptors have run out.
const PAUSE: Duration = Duration::from_millis(200);

/// A socket that connections come from.
pub trait Accept: Send + Sync + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection.
    ///
    /// # Errors
    /// Those of the socket.
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

impl Accept for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

/// Serves `pages` on every connection of `socket`, until `tasks` are cancelled; requests in progress then have
/// two seconds.
///
/// # Panics
/// Outside a tokio runtime.
pub fn serve(tasks: &Tasks, name: &'static str, socket: impl Accept, pages: Router) {
    let own = tasks.clone();
    tasks.spawn_until_cancelled(name, async move {
        let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        loop {
            // The semaphore is never closed.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            match socket.next().await {
                Ok(stream) => {
                    let connection = connection(own.clone(), stream, pages.clone(), place);
                    own.spawn(name, connection);
                }
                Err(error) => {
                    tracing::warn!(server = name, %error, "cannot accept a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    });
}

async fn connection(
    tasks: Tasks,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    pages: Router,
    place: OwnedSemaphorePermit,
) {
    let pages = TowerToHyperService::new(pages);
    let respond = service_fn(move |request: Request<Incoming>| {
        let response = pages.call(request);
        async move {
            let slow = || Ok(too_slow());
            tokio::time::timeout(RESPONSE, response)
                .await
                .unwrap_or_else(|_elapsed| slow())
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), respond);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = tasks.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(END, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection of an operator's client broke");
    }
    drop(place);
}

fn too_slow() -> Response<axum::body::Body> {
    StatusCode::SERVICE_UNAVAILABLE.into_response()
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn serves_until_cancelled_and_lets_a_request_finish() {
        let tasks = Tasks::new();
        let (started, mut entered) = tokio::sync::mpsc::channel::<()>(1);
        let (release, gate) = tokio::sync::watch::channel(false);
        let page = get(move || {
            let (started, mut gate) = (started.clone(), gate.clone());
            async move {
                started.send(()).await.unwrap();
                gate.wait_for(|open| *open).await.unwrap();
                "done"
            }
        });
        let socket = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        serve(&tasks, "test", socket, Router::new().route("/", page));
        let mut client = TcpStream::connect(address).await.unwrap();
        client
            .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .unwrap();
        entered.recv().await.unwrap();
        tasks.cancel();
        release.send(true).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("done"));
        assert_eq!(tasks.finish(Duration::from_secs(5)).await, 0);
    }
}

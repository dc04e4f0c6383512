//! The accept loop: it never ends before the drain, whatever `accept` says.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt as _;
use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};

use crate::base::backoff::Backoff;
use crate::base::clock::monotonic;
use crate::proxy::connection;
use crate::proxy::handshake::Arrival;
use crate::proxy::http;
use crate::proxy::listener::Port;
use crate::proxy::report::Reject;
use crate::proxy::worker::{Answer, Worker};
use crate::telemetry::labels::{AdmissionLimit, Listener};

/// How long accepting pauses when the system has no descriptor or memory to give.
const PAUSE: Backoff = Backoff {
    first: Duration::from_millis(5),
    factor: 2,
    most: Duration::from_secs(1),
};

/// A listening socket and what is spoken on it.
pub(in crate::proxy) type Socket = (Port, StdListener);

/// Accepts on `socket` until the drain begins, then takes what the kernel has completed already, and closes.
pub(in crate::proxy) async fn run<A: Answer>(worker: Rc<Worker>, socket: Socket, answer: A) {
    let (port, socket) = socket;
    let listener = match TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "cannot serve a socket");
            return;
        }
    };
    let mut failures = 0;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = worker.drain.begun() => break,
        };
        match accepted {
            Ok((tcp, peer)) => {
                failures = 0;
                admit(&worker, port, (tcp, peer), &answer);
            }
            Err(error) if is_the_peers(&error) => {}
            Err(error) => {
                failures += 1;
                if is_out_of_descriptors(&error) {
                    let refusals = &worker.shared.metrics.admission_refusals;
                    refusals.count(AdmissionLimit::Descriptors);
                }
                tracing::warn!(%error, failures, "cannot accept connections: pausing");
                tokio::time::sleep(PAUSE.after(failures)).await;
            }
        }
    }
    while let Some(Ok(accepted)) = listener.accept().now_or_never() {
        admit(&worker, port, accepted, &answer);
    }
}

/// Errors that belong to one connection which ended before we had it.
fn is_the_peers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

/// Neither this process nor the system has a descriptor left: the connection waits in the kernel's queue.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [Errno::MFILE, Errno::NFILE]
        .iter()
        .any(|errno| code == Some(errno.raw_os_error()))
}

fn admit<A: Answer>(
    worker: &Rc<Worker>,
    port: Port,
    (tcp, peer): (TcpStream, SocketAddr),
    answer: &A,
) {
    let shared = &worker.shared;
    let place = match shared.admission.connection(&shared.settings.load().limits) {
        Ok(place) => place,
        Err(full) => {
            worker.note_refused(Reject::Full(full), monotonic(), None);
            return;
        }
    };
    let listener = match port {
        Port::Https => Listener::Https,
        Port::Http => Listener::Http,
    };
    shared.metrics.connections.count(listener);
    let arrival = Arrival {
        tcp,
        peer,
        at: monotonic(),
        place,
        counted: shared.metrics.connections_open.enter(listener),
    };
    let own = Rc::clone(worker);
    match port {
        Port::Https => {
            let answer = answer.clone();
            worker
                .tasks
                .spawn_local("connection", connection::serve(own, arrival, answer));
        }
        Port::Http => worker
            .tasks
            .spawn_local("http connection", http::serve(own, arrival)),
    }
}

//! A server for tests.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::base::task::Tasks;

/// Answers one connection with `answer` after one read, keeps it open, and gives what was asked.
pub(super) async fn answering(answer: &str) -> (SocketAddr, oneshot::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = answer.to_owned();
    let (asked, question) = oneshot::channel();
    Tasks::new().spawn("server", async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
        asked
            .send(String::from_utf8_lossy(&buffer[..read]).into_owned())
            .unwrap();
        std::future::pending::<()>().await;
    });
    (address, question)
}

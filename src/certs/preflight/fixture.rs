//! A check with what it needs around it, for tests.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::base::clock::Clock;
use crate::base::published::Published;
use crate::base::task::Tasks;
use crate::certs::challenge::Challenges;
use crate::certs::preflight::{Dial, Parts, Preflight, Settings};
use crate::dns::examine::Examiner;
use crate::dns::fixture::{NameServer, Script};
use crate::model::DnsName;
use crate::model::edge::Edge;

/// A check with what it needs around it: our own port 80 at 127.0.0.1.
pub(in crate::certs) struct Ground {
    pub(in crate::certs) preflight: Preflight,
    pub(in crate::certs) names: NameServer,
    pub(in crate::certs) challenges: Challenges,
    pub(in crate::certs) port: u16,
    pub(in crate::certs) tasks: Tasks,
}

impl Ground {
    pub(in crate::certs) async fn start(clock: Clock) -> Self {
        let tasks = Tasks::new();
        let names = NameServer::start(&tasks).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let challenges = Challenges::default();
        answer(listener, challenges.clone(), &tasks);
        let settings = crate::certs::Settings {
            preflight: Settings {
                dial: Dial::Any,
                deadline: Duration::from_secs(30),
                ..Settings::default()
            },
            ..crate::certs::Settings::default()
        };
        let edge = Edge {
            ipv4: vec![[127, 0, 0, 1].into()],
            http_port: port,
            https_port: port,
            ..Edge::default()
        };
        let parts = Parts {
            examiner: Examiner::new(&names.settings).unwrap(),
            challenges: challenges.clone(),
            edge: Published::new(edge),
            settings: Published::new(settings),
            clock,
        };
        Self {
            preflight: Preflight::new(parts),
            names,
            challenges,
            port,
            tasks,
        }
    }

    /// As after a minute without a look.
    pub(in crate::certs) fn forget(&self, name: &str) {
        let name = DnsName::parse(name).unwrap();
        self.preflight.reports().remove(&name);
    }

    pub(in crate::certs) fn leads(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|text| text.parse().unwrap());
        self.names
            .says(name, Script::Leads(Vec::new(), addresses.collect()));
    }
}

/// Answers challenges as port 80 does.
pub(in crate::certs) fn answer(listener: TcpListener, challenges: Challenges, tasks: &Tasks) {
    tasks.spawn_until_cancelled("port 80", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = [0; 4096];
            let read = stream.read(&mut buffer).await.unwrap();
            let asked = String::from_utf8_lossy(&buffer[..read]).into_owned();
            let token = asked.split(['/', ' ']).nth(4).unwrap_or_default();
            let host = asked
                .split("host: ")
                .nth(1)
                .and_then(|rest| rest.lines().next());
            let host = host.and_then(|host| DnsName::parse(host).ok());
            let found = host.and_then(|host| challenges.published_here(&host, token));
            let text = match found {
                Some(body) => format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                ),
                None => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
            };
            stream.write_all(text.as_bytes()).await.ok();
        }
    });
}

//! Keeps the addresses of named upstreams up to date: looked up when their records expire, never sooner than after a
//! second; while the look-up fails the last good answer stays.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;

use crate::base::backoff::{Backoff, jittered};
use crate::base::clock::{Instant, monotonic};
use crate::base::published::Published;
use crate::base::task::Tasks;
use crate::dns::{Addresses, Dns, LookupError};
use crate::model::DnsName;
use crate::model::route::{Upstream, UpstreamAddress};

/// Look-ups at once.
const PARALLEL: usize = 16;
/// The shortest time between two look-ups of a name.
const SHORTEST: Duration = Duration::from_secs(1);
/// How long a failed look-up waits.
const RETRY: Backoff = Backoff {
    first: Duration::from_secs(1),
    factor: 2,
    most: Duration::from_secs(30),
};

/// Starts the task that resolves the names of `upstreams`, those published later included.
pub fn start(dns: Dns, upstreams: Published<Vec<Arc<Upstream>>>, tasks: &Tasks) {
    tasks.spawn_until_cancelled("upstream_names", async move {
        let mut names = Names::default();
        let mut versions = upstreams.watch();
        loop {
            versions.mark_unchanged();
            let current = upstreams.get();
            names.keep_only(&current, monotonic());
            let due = names.due(monotonic());
            let mut found = stream::iter(due)
                .map(|name| {
                    let dns = dns.clone();
                    async move {
                        let result = dns.addresses(&name).await;
                        (name, result)
                    }
                })
                .buffer_unordered(PARALLEL);
            while let Some((name, result)) = found.next().await {
                names.learn(&name, result, monotonic());
                names.publish(&current);
            }
            names.publish(&current);
            tokio::select! {
                () = wait_until(names.next()) => {}
                Ok(()) = versions.changed() => {}
            }
        }
    });
}

async fn wait_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// What is known of each name.
#[derive(Debug, Default)]
struct Names(BTreeMap<DnsName, Name>);

#[derive(Debug)]
struct Name {
    addresses: Vec<IpAddr>,
    failures: u32,
    next: Instant,
}

impl Names {
    /// Forgets names that no upstream has any more; new ones are due now.
    fn keep_only(&mut self, upstreams: &[Arc<Upstream>], now: Instant) {
        let mut before = std::mem::take(&mut self.0);
        for name in upstreams.iter().flat_map(|upstream| names(upstream)) {
            let known = before.remove(name);
            if self.0.contains_key(name) {
                continue;
            }
            let known = known.unwrap_or(Name {
                addresses: Vec::new(),
                failures: 0,
                next: now,
            });
            self.0.insert(name.clone(), known);
        }
    }

    fn due(&self, now: Instant) -> Vec<DnsName> {
        let due = self.0.iter().filter(|(_, name)| name.next <= now);
        due.map(|(name, _)| name.clone()).collect()
    }

    fn next(&self) -> Option<Instant> {
        self.0.values().map(|name| name.next).min()
    }

    fn learn(&mut self, name: &DnsName, result: Result<Addresses, LookupError>, now: Instant) {
        let Some(known) = self.0.get_mut(name) else {
            return;
        };
        match result {
            Ok(found) => {
                if known.failures > 0 {
                    tracing::info!(upstream = %name, "the name of an upstream resolves again");
                }
                known.failures = 0;
                known.addresses = found.list;
                known.next = now + found.ttl.max(SHORTEST);
            }
            Err(error) => {
                known.failures = known.failures.saturating_add(1);
                if known.failures == 1 {
                    let cause = std::error::Error::source(&error);
                    tracing::warn!(
                        upstream = %name, %error, cause, last_good = known.addresses.len(),
                        "the name of an upstream does not resolve: its last addresses stay in use"
                    );
                }
                known.next = now + jittered(RETRY.after(known.failures), 0.2, rand::random());
            }
        }
    }

    /// Gives each upstream its addresses, in the order configured, where they have changed. One of whose names none has
    /// been resolved yet is left alone.
    fn publish(&self, upstreams: &[Arc<Upstream>]) {
        for upstream in upstreams {
            if names(upstream).next().is_none() {
                continue;
            }
            let resolved = self.resolved(upstream);
            if !resolved.is_empty() && **upstream.resolved.load() != resolved {
                upstream.resolved.publish(resolved);
            }
        }
    }

    fn resolved(&self, upstream: &Upstream) -> Vec<SocketAddr> {
        let mut all = Vec::new();
        for address in &upstream.addresses {
            match address {
                UpstreamAddress::Socket(socket) => all.push(*socket),
                UpstreamAddress::Name(name, port) => {
                    let known = self.0.get(name).map_or(&[][..], |known| &known.addresses);
                    // Resolvers turn the order round; only a change of the set is a change.
                    let sockets = known.iter().map(|ip| SocketAddr::from((*ip, *port)));
                    let mut sorted: Vec<SocketAddr> = sockets.collect();
                    sorted.sort_unstable();
                    all.extend(sorted);
                }
            }
        }
        all.dedup();
        all
    }
}

fn names(upstream: &Upstream) -> impl Iterator<Item = &DnsName> {
    upstream
        .addresses
        .iter()
        .filter_map(|address| match address {
            UpstreamAddress::Name(name, _) => Some(name),
            UpstreamAddress::Socket(_) => None,
        })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::Ipv4Addr;
    use std::sync::Mutex;

    use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
    use hickory_resolver::proto::rr::rdata::A;
    use hickory_resolver::proto::rr::{RData, Record, RecordType};
    use tokio::net::UdpSocket;

    use super::*;
    use crate::dns::Settings;
    use crate::model::route::{UpstreamName, UpstreamTimeouts, UpstreamTls};

    /// Addresses by name, with a time to live in seconds.
    type Table = HashMap<String, (Vec<Ipv4Addr>, u32)>;

    /// Answers for the names in its table, fails for others.
    struct Server {
        table: Arc<Mutex<Table>>,
        address: SocketAddr,
        tasks: Tasks,
    }

    impl Server {
        async fn start() -> Self {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let server = Self {
                table: Arc::default(),
                address: socket.local_addr().unwrap(),
                tasks: Tasks::new(),
            };
            let table = Arc::clone(&server.table);
            server.tasks.spawn_until_cancelled("dns", async move {
                let mut buffer = [0; 1024];
                loop {
                    let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
                    let query = Message::from_vec(&buffer[..length]).unwrap();
                    let answer = answer(&query, &table.lock().unwrap());
                    socket.send_to(&answer, client).await.unwrap();
                }
            });
            server
        }

        fn holds(&self, name: &str, addresses: &[[u8; 4]], ttl: u32) {
            let addresses = addresses.iter().map(|octets| (*octets).into()).collect();
            let mut table = self.table.lock().unwrap();
            table.insert(format!("{name}."), (addresses, ttl));
        }

        fn fails(&self, name: &str) {
            self.table.lock().unwrap().remove(&format!("{name}."));
        }

        fn dns(&self) -> Dns {
            Dns::new(&Settings {
                resolvers: vec![self.address],
                deadline: Duration::from_secs(5),
            })
            .unwrap()
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            self.tasks.cancel();
        }
    }

    fn answer(query: &Message, table: &Table) -> Vec<u8> {
        let asked = &query.queries[0];
        let mut answer = Message::response(query.metadata.id, OpCode::Query);
        answer.queries.push(asked.clone());
        match table.get(&asked.name().to_ascii().to_lowercase()) {
            Some((addresses, ttl)) if asked.query_type() == RecordType::A => {
                for address in addresses {
                    let data = RData::A(A(*address));
                    answer.add_answer(Record::from_rdata(asked.name().clone(), *ttl, data));
                }
            }
            Some(_) => {}
            None => answer.metadata.response_code = ResponseCode::ServFail,
        }
        answer.to_vec().unwrap()
    }

    fn name(text: &str) -> DnsName {
        DnsName::parse(text).unwrap()
    }

    fn upstream(addresses: Vec<UpstreamAddress>) -> Arc<Upstream> {
        Arc::new(Upstream::new(
            UpstreamName::new("core"),
            addresses,
            UpstreamTls::None,
            UpstreamTimeouts::default(),
        ))
    }

    /// Waits until the upstream has exactly these addresses.
    async fn becomes(upstream: &Upstream, expected: &[&str]) {
        let mut versions = upstream.resolved.watch();
        let reached = async {
            loop {
                let now: Vec<String> = upstream
                    .resolved
                    .load()
                    .iter()
                    .map(ToString::to_string)
                    .collect();
                if now == expected {
                    return;
                }
                versions.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(20), reached)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_name_is_looked_up_with_its_time_to_live() {
        let server = Server::start().await;
        server.holds("core.test", &[[127, 0, 0, 9]], 300);
        let dns = server.dns();
        let found = dns.addresses(&name("core.test")).await.unwrap();
        assert_eq!(found.list, [IpAddr::from([127, 0, 0, 9])]);
        assert!(found.ttl <= Duration::from_secs(300) && found.ttl > Duration::from_secs(200));
        let missing = dns.addresses(&name("missing.test")).await;
        assert!(matches!(missing, Err(LookupError::NoAddress { .. })));
    }

    #[tokio::test]
    async fn upstreams_follow_their_names_and_keep_the_last_good_answer() {
        let server = Server::start().await;
        server.holds("core.test", &[[127, 0, 0, 3], [127, 0, 0, 2]], 0);
        let fixed = UpstreamAddress::Socket(([127, 0, 0, 1], 1).into());
        let core = upstream(vec![
            fixed,
            UpstreamAddress::Name(name("core.test"), 3000),
            UpstreamAddress::Name(name("missing.test"), 3000),
        ]);
        let published = Published::new(vec![Arc::clone(&core)]);
        start(server.dns(), published.clone(), &server.tasks);
        becomes(&core, &["127.0.0.1:1", "127.0.0.2:3000", "127.0.0.3:3000"]).await;
        server.fails("core.test");
        // A second upstream, published later, shows that the failure has been met meanwhile.
        server.holds("late.test", &[[127, 0, 0, 4]], 0);
        let late = upstream(vec![UpstreamAddress::Name(name("late.test"), 80)]);
        published.publish(vec![Arc::clone(&core), Arc::clone(&late)]);
        becomes(&late, &["127.0.0.4:80"]).await;
        becomes(&core, &["127.0.0.1:1", "127.0.0.2:3000", "127.0.0.3:3000"]).await;
        server.holds("core.test", &[[127, 0, 0, 5]], 0);
        becomes(&core, &["127.0.0.1:1", "127.0.0.5:3000"]).await;
    }

    #[test]
    fn a_failing_name_waits_longer_and_longer_and_keeps_its_addresses() {
        let now = monotonic();
        let mut names = Names::default();
        let core = upstream(vec![UpstreamAddress::Name(name("core.test"), 80)]);
        names.keep_only(&[Arc::clone(&core), Arc::clone(&core)], now);
        assert_eq!(names.due(now), [name("core.test")]);
        let good = Addresses {
            list: vec![IpAddr::from([127, 0, 0, 9])],
            ttl: Duration::ZERO,
        };
        names.learn(&name("core.test"), Ok(good), now);
        assert_eq!(names.next(), Some(now + SHORTEST));
        let mut last = Duration::ZERO;
        for _ in 0..4 {
            let failed = LookupError::Deadline {
                name: name("core.test"),
                deadline: Duration::ZERO,
            };
            names.learn(&name("core.test"), Err(failed), now);
            let wait = names.next().unwrap() - now;
            assert!(wait > last);
            last = wait;
        }
        names.publish(&[Arc::clone(&core)]);
        assert_eq!(core.resolved.load().len(), 1);
        names.keep_only(&[], now);
        assert_eq!(names.next(), None);
    }
}

//! A name server for tests: on a loopback address, by UDP, with answers from a script.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, SOA};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;

use crate::base::task::Tasks;
use crate::dns::Settings;

/// What the script says about a name.
#[derive(Clone, Debug)]
pub(crate) enum Script {
    /// It has these addresses, by way of these aliases.
    Leads(Vec<&'static str>, Vec<IpAddr>),
    /// It is an alias that the resolver fails to follow.
    Circle(&'static str),
    /// It does not exist.
    Nxdomain,
    /// Its servers fail.
    Servfail,
    /// It is refused, unless checking is disabled.
    Bogus,
    /// Nobody answers.
    Silence,
}

/// The running server; what its names lead to can be changed.
#[derive(Clone)]
pub(crate) struct NameServer {
    pub(crate) settings: Settings,
    names: Arc<Mutex<Vec<(String, Script)>>>,
}

impl NameServer {
    /// Answers for every other name as for a top-level domain that is well.
    pub(crate) async fn start(tasks: &Tasks) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let names: Arc<Mutex<Vec<(String, Script)>>> = Arc::default();
        let script = Arc::clone(&names);
        tasks.spawn_until_cancelled("name server", async move {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let asked = Message::from_vec(&buffer[..length]).unwrap();
                let said = answer(
                    &asked,
                    &script.lock().unwrap_or_else(PoisonError::into_inner),
                );
                if let Some(said) = said {
                    drop(socket.send_to(&said.to_vec().unwrap(), from).await);
                }
            }
        });
        Self {
            settings: settings(address),
            names,
        }
    }

    /// From now on.
    pub(crate) fn says(&self, name: &str, script: Script) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.retain(|(known, _)| known != name);
        names.push((name.to_owned(), script));
    }
}

fn settings(address: SocketAddr) -> Settings {
    Settings {
        resolvers: vec![address],
        deadline: Duration::from_millis(500),
    }
}

fn answer(asked: &Message, names: &[(String, Script)]) -> Option<Message> {
    let query = asked.queries.first().unwrap();
    let name = query.name().to_lowercase().to_ascii();
    let name = name.trim_end_matches('.');
    let mut said = Message::response(asked.id, asked.op_code);
    said.add_query(query.clone());
    said.metadata.recursion_desired = true;
    said.metadata.recursion_available = true;
    let script = names
        .iter()
        .find(|(known, _)| known == name || known == "*");
    match script.map(|(_, script)| script.clone()) {
        Some(Script::Silence) => return None,
        Some(Script::Servfail) => said.metadata.response_code = ResponseCode::ServFail,
        Some(Script::Bogus) if !asked.checking_disabled => {
            said.metadata.response_code = ResponseCode::ServFail;
        }
        Some(Script::Circle(alias)) if query.query_type() == RecordType::CNAME => {
            lead(&mut said, vec![alias], &[]);
        }
        Some(Script::Circle(_)) => said.metadata.response_code = ResponseCode::ServFail,
        Some(Script::Nxdomain) => {
            said.metadata.response_code = ResponseCode::NXDomain;
            said.add_authority(soa());
        }
        Some(Script::Leads(aliases, addresses)) => lead(&mut said, aliases, &addresses),
        Some(Script::Bogus) | None => {
            said.add_authority(soa());
        }
    }
    Some(said)
}

fn lead(said: &mut Message, aliases: Vec<&'static str>, addresses: &[IpAddr]) {
    let query = said.queries.first().unwrap().clone();
    let mut owner = query.name().clone();
    for alias in aliases {
        let target = Name::from_str(&format!("{alias}.")).unwrap();
        let data = RData::CNAME(CNAME(target.clone()));
        said.add_answer(Record::from_rdata(owner, 0, data));
        owner = target;
    }
    for address in addresses {
        let data = match (query.query_type(), address) {
            (RecordType::A, IpAddr::V4(address)) => RData::A(A(*address)),
            (RecordType::AAAA, IpAddr::V6(address)) => RData::AAAA(AAAA(*address)),
            _ => continue,
        };
        said.add_answer(Record::from_rdata(owner.clone(), 0, data));
    }
    if said.answers.is_empty() {
        said.add_authority(soa());
    }
}

fn soa() -> Record {
    let zone = Name::from_str("com.").unwrap();
    let data = SOA::new(zone.clone(), zone.clone(), 1, 1, 1, 1, 0);
    Record::from_rdata(zone, 0, RData::SOA(data))
}

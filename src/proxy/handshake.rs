//! From an accepted TCP connection to TLS with the right certificate, or to a refusal with its reason.
//!
//! The policy and the certificate follow from the server name in rustls' parsed ClientHello alone. There is no
//! default certificate: whoever names nothing, or nothing we know, gets an alert, and costs no I/O.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::{HandshakeKind, ProtocolVersion, ServerConfig, ServerConnection};
use tokio::net::TcpStream;
use tokio::time::timeout_at;
use tokio_rustls::StartHandshake;
use tokio_rustls::server::TlsStream;

use crate::base::clock::{Instant, monotonic};
use crate::certs::on_demand::{Origin, Served};
use crate::model::{DnsName, TenantId};
use crate::proxy::admission::Place;
use crate::proxy::challenge;
use crate::proxy::client_hello::{self, Hello, Intent, Refused};
use crate::proxy::facts::{ConnectionFacts, Endpoints, HttpProtocol, TlsFacts, TlsVersion};
use crate::proxy::proxy_protocol;
use crate::proxy::pulse::Pulse;
use crate::proxy::report::Reject;
use crate::proxy::settings::{ProxyProtocol, Settings};
use crate::proxy::street::{Places, Street};
use crate::proxy::worker::Worker;
use crate::telemetry::family::Entered;

/// A TCP connection as it was accepted.
#[derive(Debug)]
pub struct Arrival {
    /// The connection.
    pub tcp: TcpStream,
    /// Who opened it.
    pub peer: SocketAddr,
    /// When.
    pub at: Instant,
    /// Its place among all connections.
    pub place: Place,
    /// Its place in the metric of open connections.
    pub counted: Entered,
}

/// A connection whose handshake has ended well.
#[derive(Debug)]
pub struct Established {
    /// What is known of it.
    pub facts: ConnectionFacts,
    /// Its stream.
    pub stream: TlsStream<Street>,
    /// How long the handshake took, from accept.
    pub took: Duration,
}

/// How a handshake ended well.
#[derive(Debug)]
pub enum Performed {
    /// With a connection to be served.
    Established(Box<Established>),
    /// A certification authority has had its proof; the connection is closed.
    Proved,
}

/// Makes the handshake.
///
/// # Errors
/// [`Refused`] with the reason; the caller tells the visitor.
pub async fn perform(worker: &Worker, arrival: Arrival) -> Result<Performed, Refused> {
    let settings = worker.shared.settings.get();
    let place = worker
        .shared
        .admission
        .handshake(&settings.limits)
        .map_err(|full| Refused::early(Reject::Full(full)))?;
    let at = arrival.at;
    let (street, endpoints) = arrive(worker, &settings, arrival).await?;
    let mut hello = client_hello::read(street, at + settings.deadlines.client_hello).await?;
    if hello.intent == Intent::Prove {
        Box::pin(challenge::answer(worker, hello, at)).await?;
        return Ok(Performed::Proved);
    }
    let admitted = admit(worker, &settings, &mut hello, endpoints.visitor.ip(), place);
    let admitted = admitted.await;
    let Hello {
        server_name, start, ..
    } = hello;
    let (tenant, served, _place) = match admitted {
        Ok(admitted) => admitted,
        Err(reject) => return Err(Refused::named(reject, server_name, start.io)),
    };
    let config = worker
        .composer
        .compose(&served.credential, &tenant, &settings.tls);
    let Ok(config) = config else {
        return Err(Refused::named(Reject::Internal, server_name, start.io));
    };
    let deadline = monotonic() + settings.deadlines.handshake;
    let stream = match finish(start, config, deadline).await {
        Ok(stream) => stream,
        Err(reject) => return Err(Refused::gone(reject, server_name)),
    };
    let (protocol, version, resumed) = agreed(stream.get_ref().1);
    let tls = TlsFacts {
        server_name,
        tenant,
        credential: served.credential,
        version,
        resumed,
        policy: settings.tls.id(),
        protocol,
        origin: served.origin,
    };
    Ok(Performed::Established(Box::new(Established {
        facts: ConnectionFacts {
            id: worker.shared.next_connection(),
            endpoints,
            tls,
            pulse: Pulse::new(),
        },
        stream,
        took: monotonic().saturating_duration_since(at),
    })))
}

/// Finds out who visits, and takes his places.
pub(in crate::proxy) async fn arrive(
    worker: &Worker,
    settings: &Settings,
    arrival: Arrival,
) -> Result<(Street, Endpoints), Refused> {
    let Arrival {
        mut tcp,
        peer,
        at,
        place,
        counted,
    } = arrival;
    let gone = |_: io::Error| Refused::early(Reject::PeerGone);
    let local = canonical(tcp.local_addr().map_err(gone)?);
    let peer = canonical(peer);
    let trusted = settings.trusts(peer.ip());
    let mut endpoints = Endpoints {
        visitor: peer,
        peer,
        trusted,
        local,
    };
    let mut ahead = Vec::new();
    if trusted && settings.proxy_protocol == ProxyProtocol::FromTrusted {
        let announced = proxy_protocol::read(&mut tcp, at + settings.deadlines.proxy_header)
            .await
            .map_err(|fault| Refused::early(Reject::ProxyHeader(fault)))?;
        if let Some((visitor, local)) = announced.addresses {
            (endpoints.visitor, endpoints.local) = (canonical(visitor), canonical(local));
        }
        ahead = announced.ahead;
    }
    let address = worker
        .shared
        .admission
        .address(&settings.limits, endpoints.visitor.ip())
        .map_err(|full| Refused::early(Reject::Full(full)))?;
    let places = Places {
        connection: place,
        address: Some(address),
        tenant: None,
        counted,
    };
    Ok((Street::new(tcp, ahead, places), endpoints))
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Takes the tenant's place and finds the credential. The place among handshakes is given back while the visitor
/// waits for a certificate, for those who wait have a bound of their own.
async fn admit(
    worker: &Worker,
    settings: &Settings,
    hello: &mut Hello,
    visitor: IpAddr,
    place: Place,
) -> Result<(TenantId, Served, Option<Place>), Reject> {
    let shared = &worker.shared;
    let name = &hello.server_name;
    let places = &mut hello.start.io.places;
    let standing = Standing::of(worker, name)?;
    let take = |tenant: &TenantId| {
        let taken = shared.admission.tenant(&settings.limits, tenant);
        taken.map_err(Reject::Full)
    };
    if let Standing::Known(tenant) = &standing {
        places.tenant = Some(take(tenant)?);
    }
    let (served, place) = match in_memory(worker, name, &standing) {
        Some(served) => (served, Some(place)),
        None => {
            drop(place);
            let wanted = shared.on_demand.credential(name.clone(), visitor).await;
            (wanted.map_err(Reject::Credential)?, None)
        }
    };
    let tenant = served.credential.tenant().clone();
    if places.tenant.is_none() {
        places.tenant = Some(take(&tenant)?);
    }
    Ok((tenant, served, place))
}

/// Whether a name is ours, as far as memory tells.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    /// It is this tenant's.
    Known(TenantId),
    /// Not all names have been read yet: the store tells whose it is, and then memory does.
    Unread,
    /// It is nobody's, but the permission hook may still allow it.
    Asked,
}

impl Standing {
    fn of(worker: &Worker, name: &DnsName) -> Result<Self, Reject> {
        let shared = &worker.shared;
        if let Some(refusal) = shared.on_demand.refusal(name) {
            return Err(Reject::Credential(refusal));
        }
        let snapshot = shared.snapshot.load();
        Ok(match snapshot.domain(name) {
            Some(domain) => Self::Known(domain.tenant.clone()),
            None if snapshot.is_complete() => Self::Asked,
            None => Self::Unread,
        })
    }
}

/// The valid credential in memory, if it is the owner's: one that belongs to a former owner serves nobody.
fn in_memory(worker: &Worker, name: &DnsName, standing: &Standing) -> Option<Served> {
    let shared = &worker.shared;
    let credential = shared.resolver.get(name, shared.clock.now())?;
    let usable = match standing {
        Standing::Known(tenant) => credential.tenant() == tenant,
        Standing::Unread | Standing::Asked => false,
    };
    usable.then_some(Served {
        credential,
        origin: Origin::Memory,
    })
}

/// The rest of the handshake. The signature is made here, on this worker, before anything is awaited.
pub(in crate::proxy) async fn finish(
    start: StartHandshake<Street>,
    config: Arc<ServerConfig>,
    deadline: Instant,
) -> Result<TlsStream<Street>, Reject> {
    match timeout_at(deadline, start.into_stream(config)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(reject_of(&error)),
        Err(_elapsed) => Err(Reject::HandshakeDeadline),
    }
}

/// Why rustls, or the connection under it, gave up. rustls has sent its own alert.
fn reject_of(error: &io::Error) -> Reject {
    let tls = error
        .get_ref()
        .and_then(|source| source.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::AlertReceived(_)) => Reject::PeerAlert,
        Some(rustls::Error::PeerIncompatible(_) | rustls::Error::NoApplicationProtocol) => {
            Reject::NothingInCommon
        }
        Some(_) => Reject::HandshakeFailed,
        None => Reject::PeerGone,
    }
}

fn agreed(session: &ServerConnection) -> (HttpProtocol, TlsVersion, bool) {
    let protocol = match session.alpn_protocol() {
        Some(chosen) if chosen == HttpProtocol::Http2.alpn() => HttpProtocol::Http2,
        _ => HttpProtocol::Http1,
    };
    let version = match session.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => TlsVersion::Tls12,
        _ => TlsVersion::Tls13,
    };
    let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    (protocol, version, resumed)
}

//! Sockets: everything is bound before anything is served.
//!
//! Each address is first bound without `SO_REUSEPORT`, so that a port in use is an error even where its holder
//! is another Vestibule; with the option set, the second process would take half of the connections unnoticed.
//! Only then is the option set and one socket per worker added.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::Duration;

use listenfd::ListenFd;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::base::bind;
use crate::proxy::settings::Settings;

/// Connections that the kernel completes ahead of our accept, per socket.
const BACKLOG: i32 = 4096;
/// How long a connection is silent before the kernel probes the peer, and how often it then does.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);

/// Sockets that a supervisor such as systemd has opened for us.
#[derive(Debug, Default)]
pub struct Inherited(Vec<TcpListener>);

impl Inherited {
    /// Takes every TCP socket handed over by the environment (`LISTEN_FDS`). Call it once, before there are
    /// threads: it clears those variables.
    ///
    /// # Errors
    /// Where a descriptor handed over is no listening TCP socket.
    pub fn from_environment() -> io::Result<Self> {
        let mut handed = ListenFd::from_env();
        let count = handed.len();
        let mut sockets = Vec::with_capacity(count);
        for index in 0..count {
            sockets.extend(handed.take_tcp_listener(index)?);
        }
        Ok(Self(sockets))
    }

    /// These sockets, already listening.
    #[must_use]
    pub const fn new(sockets: Vec<TcpListener>) -> Self {
        Self(sockets)
    }

    fn take(&mut self, address: SocketAddr) -> io::Result<Vec<TcpListener>> {
        let mut taken = Vec::new();
        let mut left = Vec::new();
        for socket in self.0.drain(..) {
            match socket.local_addr()? == address {
                true => taken.push(socket),
                false => left.push(socket),
            }
        }
        self.0 = left;
        Ok(taken)
    }
}

/// Why the sockets could not be had.
#[derive(Debug)]
pub enum BindError {
    /// An address cannot be listened on.
    Address(bind::BindError),
    /// A socket was handed over that no configured address names.
    Unexpected {
        /// Its address.
        address: SocketAddr,
    },
    /// A socket that was handed over could not be read.
    Inherited {
        /// What the system says.
        source: io::Error,
    },
}

impl BindError {
    fn new(address: SocketAddr, source: io::Error) -> Self {
        Self::Address(bind::BindError::new(address, source))
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(error) => error.fmt(f),
            Self::Unexpected { address } => write!(
                f,
                "a socket for {address} was handed over, but no address under [listen] is that"
            ),
            Self::Inherited { .. } => f.write_str("cannot read a socket that was handed over"),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Address(error) => error.source(),
            Self::Inherited { source } => Some(source),
            Self::Unexpected { .. } => None,
        }
    }
}

/// What is spoken on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Port {
    /// TLS.
    Https,
    /// Plain HTTP: challenges and redirects.
    Http,
}

/// Every socket, bound and listening, before anyone accepts on it.
#[derive(Debug)]
pub struct Bound {
    places: Vec<Listening>,
}

/// One address with a socket for each worker.
#[derive(Debug)]
struct Listening {
    port: Port,
    address: SocketAddr,
    sockets: Vec<TcpListener>,
}

impl Bound {
    /// Binds every address of `settings`, taking sockets that were handed over where they have one of these
    /// addresses. A failure leaves nothing bound.
    ///
    /// # Errors
    /// [`BindError`] names the address and the remedy.
    pub fn bind(settings: &Settings, mut inherited: Inherited) -> Result<Self, BindError> {
        let workers = settings.workers.get();
        let https = settings.https.iter().map(|address| (Port::Https, *address));
        let http = settings.http.iter().map(|address| (Port::Http, *address));
        let wanted: Vec<_> = https.chain(http).collect();
        let mut places = Vec::with_capacity(wanted.len());
        for (port, address) in &wanted {
            let all = wanted.iter().map(|(_, address)| *address);
            let sockets = inherited
                .take(*address)
                .map_err(|source| BindError::Inherited { source })
                .and_then(|handed| match handed.is_empty() {
                    true => open(*address, &all.collect::<Vec<_>>(), workers)
                        .map_err(|source| BindError::new(*address, source)),
                    false => {
                        share(handed, workers).map_err(|source| BindError::new(*address, source))
                    }
                })?;
            let address = sockets
                .first()
                .map_or(Ok(*address), TcpListener::local_addr);
            places.push(Listening {
                port: *port,
                address: address.map_err(|source| BindError::Inherited { source })?,
                sockets,
            });
        }
        match inherited.0.first().map(TcpListener::local_addr) {
            Some(Ok(address)) => Err(BindError::Unexpected { address }),
            Some(Err(source)) => Err(BindError::Inherited { source }),
            None => Ok(Self { places }),
        }
    }

    /// The addresses of a port as they are, with the port that the system chose where 0 was configured.
    pub fn addresses(&self, port: Port) -> impl Iterator<Item = SocketAddr> {
        self.places
            .iter()
            .filter(move |place| place.port == port)
            .map(|place| place.address)
    }

    /// The sockets by worker: each has at least one of every address, and none is left without a worker.
    pub(in crate::proxy) fn by_worker(self, workers: usize) -> Vec<Vec<(Port, TcpListener)>> {
        let mut each: Vec<Vec<_>> = (0..workers).map(|_| Vec::new()).collect();
        for place in self.places {
            for (index, socket) in place.sockets.into_iter().enumerate() {
                if let Some(own) = each.get_mut(index % workers) {
                    own.push((place.port, socket));
                }
            }
        }
        each
    }
}

/// `count` sockets on `address`, the first of them bound alone.
fn open(address: SocketAddr, all: &[SocketAddr], count: usize) -> io::Result<Vec<TcpListener>> {
    let first = match bound(address, all, Sharing::Alone) {
        // A machine without IPv6: what `[::]` would have taken of IPv4 is still to be had.
        Err(error) if is_dual_stack(address, all) && has_no_ipv6(&error) => {
            tracing::warn!(%address, "no IPv6 here: listening on IPv4 only");
            let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
            bound(v4, all, Sharing::Alone)?
        }
        other => other?,
    };
    first.set_reuse_port(true)?;
    let first = listening(first)?;
    let actual = first.local_addr()?;
    let mut sockets = vec![first];
    while sockets.len() < count {
        sockets.push(listening(bound(actual, all, Sharing::WithOwn)?)?);
    }
    Ok(sockets)
}

fn listening(socket: Socket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)?;
    let socket = TcpListener::from(socket);
    prepare(&socket)?;
    Ok(socket)
}

/// Sets what every accepted connection inherits from its listening socket (Linux): no delay of small segments,
/// and probes that find out peers which have vanished.
fn prepare(socket: &TcpListener) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    let options = SockRef::from(socket);
    options.set_tcp_nodelay(true)?;
    let probes = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY);
    options.set_tcp_keepalive(&probes)
}

/// Whether a socket may be bound beside others of this process.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Alone,
    WithOwn,
}

fn bound(address: SocketAddr, all: &[SocketAddr], sharing: Sharing) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(!is_dual_stack(address, all))?;
    }
    // Connections of a process that has just ended do not keep its successor from the port.
    socket.set_reuse_address(true)?;
    if sharing == Sharing::WithOwn {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Whether a socket takes IPv4 too: `[::]`, unless `0.0.0.0` with the same port has a socket of its own.
fn is_dual_stack(address: SocketAddr, all: &[SocketAddr]) -> bool {
    let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
    address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && (address.port() == 0 || !all.contains(&v4))
}

fn has_no_ipv6(error: &io::Error) -> bool {
    let unsupported = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
    error.raw_os_error() == Some(unsupported) || error.kind() == io::ErrorKind::AddrNotAvailable
}

/// A socket for each worker out of those handed over: none is left out, and some are shared where there are
/// fewer than workers.
fn share(handed: Vec<TcpListener>, workers: usize) -> io::Result<Vec<TcpListener>> {
    let mut sockets = handed;
    for socket in &sockets {
        prepare(socket)?;
    }
    let mut shared = 0;
    while sockets.len() < workers {
        let Some(socket) = sockets.get(shared) else {
            break;
        };
        let clone = socket.try_clone()?;
        sockets.push(clone);
        shared += 1;
    }
    Ok(sockets)
}

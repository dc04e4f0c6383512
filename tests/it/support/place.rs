//! Where one story happens: a loopback address of its own, so that ports may be fixed, and a folder of its own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

/// Held open while a story uses its address, so that a second run of the tests takes others.
const CLAIM_PORT: u16 = 17_999;

/// Addresses that are tried before giving up.
const ATTEMPTS: u32 = 10_000;

/// The ports of a story, on its own address.
pub(crate) mod port {
    /// The edge's plain HTTP, where challenges are answered.
    pub(crate) const HTTP: u16 = 18_080;
    /// The edge's HTTPS.
    pub(crate) const HTTPS: u16 = 18_443;
    /// The edge's health and metrics.
    pub(crate) const TELEMETRY: u16 = 19_180;
    /// The CA's directory.
    pub(crate) const ACME: u16 = 14_000;
    /// The CA's management interface, which gives its root.
    pub(crate) const ACME_MANAGEMENT: u16 = 15_000;
    /// The wire between the edge and the CA, where a story put one in.
    pub(crate) const WIRE: u16 = 14_001;
    /// The name server that the CA asks.
    pub(crate) const DNS: u16 = 18_053;
    /// The name server's management interface.
    pub(crate) const DNS_MANAGEMENT: u16 = 18_055;
}

/// The next address to try, shared by the stories of this process.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A claimed address and a folder that goes away with it.
pub(crate) struct Place {
    address: Ipv4Addr,
    folder: TempDir,
    _claim: TcpListener,
}

impl Place {
    /// An address that no other story uses, of this run or another, and an empty folder.
    pub(crate) fn claim() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("vestibule-")
            .tempdir()
            .unwrap();
        for _ in 0..ATTEMPTS {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let address = candidate(std::process::id().wrapping_mul(251).wrapping_add(step));
            if let Ok(claim) = TcpListener::bind((address, CLAIM_PORT)) {
                return Self {
                    address,
                    folder,
                    _claim: claim,
                };
            }
        }
        panic!("no loopback address is free");
    }

    pub(crate) fn address(&self) -> Ipv4Addr {
        self.address
    }

    pub(crate) fn at(&self, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(self.address, port)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file into the folder, its parents too, and gives its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }
}

/// 127.16.0.1 to 127.255.255.254, without those that end in 0 or 255.
fn candidate(number: u32) -> Ipv4Addr {
    let octet = |value: u32| u8::try_from(value).unwrap();
    Ipv4Addr::new(
        127,
        octet(16 + number / (254 * 256) % 240),
        octet(number / 254 % 256),
        octet(1 + number % 254),
    )
}

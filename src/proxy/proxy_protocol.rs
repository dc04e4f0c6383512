//! The PROXY protocol, versions 1 and 2: a load balancer in front tells who the visitor is.
//!
//! Only a trusted proxy is asked for it, and from such a one it must come: a connection without a whole, valid
//! header is closed. `LOCAL` (version 2) and `UNKNOWN` (version 1) are the proxy's own health checks: the proxy
//! itself is the visitor.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use proxy_header::{Error as HeaderError, ParseConfig, Protocol, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout_at;

use crate::base::clock::Instant;

/// The longest header taken: 16 bytes, addresses, and what real proxies add to them.
const LONGEST: usize = 4096;
/// The longest header of version 1 (its specification, section 2.1).
const LONGEST_V1: usize = 107;
const PARSE: ParseConfig = ParseConfig {
    include_tlvs: false,
    allow_v1: true,
    allow_v2: true,
};

/// A header, and what was read beyond it.
#[derive(Debug, PartialEq, Eq)]
pub struct Announced {
    /// The visitor and the address that he connected to; nothing where the proxy speaks for itself.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// Bytes that follow the header.
    pub ahead: Vec<u8>,
}

/// Why there is no header; a label of the refusal metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeaderFault {
    /// What came is none, or not a valid one.
    Malformed,
    /// It is longer than 4 KiB.
    TooLong,
    /// The connection ended before it was whole.
    Ended,
    /// The deadline passed before it was whole.
    Deadline,
}

impl HeaderFault {
    /// The word for it in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "proxy_header_malformed",
            Self::TooLong => "proxy_header_too_long",
            Self::Ended => "proxy_header_missing",
            Self::Deadline => "proxy_header_deadline",
        }
    }
}

impl fmt::Display for HeaderFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Reads the header that a connection must begin with, until `deadline`.
///
/// # Errors
/// [`HeaderFault`]; the connection is of no use then.
pub async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    deadline: Instant,
) -> Result<Announced, HeaderFault> {
    timeout_at(deadline, read_whole(stream))
        .await
        .unwrap_or(Err(HeaderFault::Deadline))
}

async fn read_whole(stream: &mut (impl AsyncRead + Unpin)) -> Result<Announced, HeaderFault> {
    let mut bytes = Vec::with_capacity(512);
    loop {
        let read: io::Result<usize> = stream.read_buf(&mut bytes).await;
        if !read.is_ok_and(|length| length > 0) {
            return Err(HeaderFault::Ended);
        }
        if let Some(announced) = parse(&bytes)? {
            return Ok(announced);
        }
        if bytes.len() >= LONGEST {
            return Err(HeaderFault::TooLong);
        }
    }
}

/// The header at the beginning of `bytes`; nothing while it is not whole.
fn parse(bytes: &[u8]) -> Result<Option<Announced>, HeaderFault> {
    match ProxyHeader::parse(bytes, PARSE) {
        Ok((header, length)) => Ok(Some(Announced {
            addresses: match header.proxied_address() {
                Some(proxied) if proxied.protocol == Protocol::Stream => {
                    Some((proxied.source, proxied.destination))
                }
                Some(_datagram) => return Err(HeaderFault::Malformed),
                None => None,
            },
            ahead: bytes.get(length..).unwrap_or_default().to_vec(),
        })),
        Err(HeaderError::BufferTooShort) if may_continue(bytes) => Ok(None),
        Err(_malformed) => Err(HeaderFault::Malformed),
    }
}

/// Whether more bytes could still make a header of these: found out early, so that a TLS visitor without one is
/// not waited for. The parser also calls those too short that are whole, but lack an address.
fn may_continue(bytes: &[u8]) -> bool {
    const V1: &[u8] = b"PROXY ";
    const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    let begins = |signature: &[u8]| {
        let length = signature.len().min(bytes.len());
        bytes.get(..length) == signature.get(..length)
    };
    if begins(V2) {
        // The length of what follows the first 16 bytes stands in the last two of these.
        return match bytes.first_chunk::<16>() {
            Some([.., high, low]) => {
                bytes.len() < 16 + usize::from(u16::from_be_bytes([*high, *low]))
            }
            None => true,
        };
    }
    begins(V1) && bytes.len() < LONGEST_V1 && !bytes.ends_with(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
        bytes.extend([command, family]);
        bytes.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend(body);
        bytes
    }

    const IPV4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0xdb, 0x03, 0x01, 0xbb];

    fn addresses(bytes: &[u8]) -> Result<Option<Option<String>>, HeaderFault> {
        let parsed = parse(bytes)?;
        Ok(parsed.map(|found| found.addresses.map(|(from, to)| format!("{from} {to}"))))
    }

    #[test]
    fn reads_both_versions_and_what_the_proxy_says_of_itself() {
        let check = |bytes: &[u8], expected: Option<&str>| {
            let expected = expected.map(ToOwned::to_owned);
            assert_eq!(addresses(bytes), Ok(Some(expected)));
        };
        check(
            b"PROXY TCP4 192.0.2.1 198.51.100.2 56067 443\r\n\x16\x03",
            Some("192.0.2.1:56067 198.51.100.2:443"),
        );
        check(
            b"PROXY TCP6 2001:db8::1 2001:db8::2 1 443\r\n",
            Some("[2001:db8::1]:1 [2001:db8::2]:443"),
        );
        check(b"PROXY UNKNOWN\r\n", None);
        check(
            &v2(0x21, 0x11, &IPV4),
            Some("192.0.2.1:56067 198.51.100.2:443"),
        );
        check(&v2(0x20, 0x00, &[]), None);
        check(&v2(0x20, 0x11, &IPV4), None);
        let mut with_more = IPV4.to_vec();
        with_more.extend([0xee, 0, 2, b'a', b'b']);
        check(
            &v2(0x21, 0x11, &with_more),
            Some("192.0.2.1:56067 198.51.100.2:443"),
        );
    }

    #[test]
    fn refuses_what_can_no_longer_become_a_header() {
        for bytes in [
            &b"\x16\x03\x01"[..],
            b"GET / HTTP/1.1\r\n",
            b"PROXY TCP4 192.0.2.1\r\n",
            b"PROXY TCP4 300.0.2.1 198.51.100.2 1 2\r\n",
            b"\r\n\r\n\0\r\nQUIX",
            &v2(0x31, 0x11, &IPV4),
            &v2(0x21, 0x11, &IPV4[..8]),
            &v2(0x21, 0x12, &IPV4),
            &[b"PROXY ".as_slice(), &[b'x'; 120]].concat(),
        ] {
            assert_eq!(addresses(bytes), Err(HeaderFault::Malformed), "{bytes:?}");
        }
    }

    #[test]
    fn any_prefix_of_a_header_waits_for_more_and_the_rest_is_kept() {
        let mut whole = v2(0x21, 0x11, &IPV4);
        for length in 1..whole.len() {
            assert_eq!(addresses(&whole[..length]), Ok(None), "{length}");
        }
        whole.extend(b"hello");
        assert_eq!(parse(&whole).unwrap().unwrap().ahead, b"hello");
    }

    #[tokio::test]
    async fn a_header_that_never_ends_is_bounded() {
        let mut endless: &[u8] = &v2(0x21, 0x11, &[0; 60_000]);
        let deadline = crate::base::clock::monotonic() + std::time::Duration::from_secs(60);
        let outcome = read(&mut endless, deadline).await;
        assert_eq!(outcome, Err(HeaderFault::TooLong));
    }
}

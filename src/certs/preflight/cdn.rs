//! Content delivery networks, told by the addresses that a name leads to and by the fields of their answers.
//!
//! Being behind one is no fault: our challenge may well be reached through it. It explains why it is not, and it rules
//! TLS-ALPN-01 out, for the network terminates TLS.
//!
//! The ranges are those that the networks publish, neighbours joined, and no others: a missing one costs little, for the
//! fields tell too; a wrong one would blame a network that is not there.
//!
//! | network | published at | as of |
//! |---|---|---|
//! | Cloudflare | `www.cloudflare.com/ips-v4`, `ips-v6` | 30 June 2026 |
//! | Fastly | `api.fastly.com/public-ip-list` | 3 May 2025 |
//! | Amazon `CloudFront` | `ip-ranges.amazonaws.com/ip-ranges.json`, service `CLOUDFRONT` | 23 September 2026 |
//! | Akamai | `techdocs.akamai.com`, `akamai_ipv4_ipv6_CIDRs-txt.zip` | 4 May 2025 |
//! | Azure Front Door | service tag `AzureFrontDoor.Frontend`, change 411 | 27 July 2026 |
//! | Sucuri | `docs.sucuri.net`, firewall troubleshooting guide | 9 October 2026 |
//!
//! Left out are ranges smaller than /24, Amazon's for one region (they face origins, not visitors), and networks that
//! publish none or hundreds of single addresses (bunny.net), or share them with others (Netlify, Vercel).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::HeaderMap;

/// A content delivery network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cdn {
    /// Cloudflare.
    Cloudflare,
    /// Fastly.
    Fastly,
    /// That of Amazon.
    CloudFront,
    /// Akamai.
    Akamai,
    /// Azure Front Door.
    AzureFrontDoor,
    /// Vercel.
    Vercel,
    /// Netlify.
    Netlify,
    /// bunny.net.
    Bunny,
    /// Sucuri.
    Sucuri,
}

impl fmt::Display for Cdn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cloudflare => "Cloudflare",
            Self::Fastly => "Fastly",
            Self::CloudFront => "Amazon CloudFront",
            Self::Akamai => "Akamai",
            Self::AzureFrontDoor => "Azure Front Door",
            Self::Vercel => "Vercel",
            Self::Netlify => "Netlify",
            Self::Bunny => "bunny.net",
            Self::Sucuri => "Sucuri",
        })
    }
}

impl Cdn {
    /// Whose address it is.
    #[must_use]
    pub fn by_address(address: IpAddr) -> Option<Self> {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let bits = u32::from(address);
                let within = |(network, length, _): &&(Ipv4Addr, u32, Self)| {
                    (bits ^ u32::from(*network)).leading_zeros() >= *length
                };
                V4.iter().find(within).map(|(_, _, cdn)| *cdn)
            }
            IpAddr::V6(address) => {
                let bits = u128::from(address);
                let within = |(network, length, _): &&([u16; 3], u32, Self)| {
                    let [a, b, c] = *network;
                    let network = u128::from(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0));
                    (bits ^ network).leading_zeros() >= *length
                };
                V6.iter().find(within).map(|(_, _, cdn)| *cdn)
            }
        }
    }

    /// Whose answer it is.
    #[must_use]
    pub fn by_fields(fields: &HeaderMap) -> Option<Self> {
        let present = |(field, _): &&(&str, Self)| fields.contains_key(*field);
        if let Some((_, cdn)) = FIELDS.iter().find(present) {
            return Some(*cdn);
        }
        let values = ["server", "via"]
            .into_iter()
            .flat_map(|field| fields.get_all(field));
        let mut values = values.filter_map(|value| value.to_str().ok());
        let named = values.find_map(|value| {
            let value = value.to_ascii_lowercase();
            let named = WORDS.iter().find(|(word, _)| value.contains(word));
            named.map(|(_, cdn)| *cdn)
        });
        named.or_else(|| served_by_fastly(fields).then_some(Self::Fastly))
    }
}

/// Fields that only one network sends.
const FIELDS: &[(&str, Cdn)] = &[
    ("cf-ray", Cdn::Cloudflare),
    ("x-fastly-request-id", Cdn::Fastly),
    ("x-amz-cf-id", Cdn::CloudFront),
    ("x-akamai-request-id", Cdn::Akamai),
    ("akamai-grn", Cdn::Akamai),
    ("x-azure-ref", Cdn::AzureFrontDoor),
    ("x-vercel-id", Cdn::Vercel),
    ("x-nf-request-id", Cdn::Netlify),
    ("x-sucuri-id", Cdn::Sucuri),
];

/// Whether `X-Served-By` names caches as Fastly does: `cache-fra-eddf8230062-FRA`.
fn served_by_fastly(fields: &HeaderMap) -> bool {
    let values = fields.get_all("x-served-by").iter();
    let mut values = values.filter_map(|value| value.to_str().ok());
    values.any(|value| value.starts_with("cache-"))
}

/// What `Server` and `Via` hold.
const WORDS: &[(&str, Cdn)] = &[
    ("cloudflare", Cdn::Cloudflare),
    ("cloudfront", Cdn::CloudFront),
    ("akamai", Cdn::Akamai),
    ("bunnycdn", Cdn::Bunny),
    ("netlify", Cdn::Netlify),
    ("vercel", Cdn::Vercel),
    ("sucuri", Cdn::Sucuri),
];

const fn v4(a: u8, b: u8, c: u8, length: u32, cdn: Cdn) -> (Ipv4Addr, u32, Cdn) {
    (Ipv4Addr::new(a, b, c, 0), length, cdn)
}

/// The first three octets, the length of the prefix, whose it is.
const V4: &[(Ipv4Addr, u32, Cdn)] = &[
    v4(103, 21, 244, 22, Cdn::Cloudflare),
    v4(103, 22, 200, 22, Cdn::Cloudflare),
    v4(103, 31, 4, 22, Cdn::Cloudflare),
    v4(104, 16, 0, 13, Cdn::Cloudflare),
    v4(104, 24, 0, 14, Cdn::Cloudflare),
    v4(108, 162, 192, 18, Cdn::Cloudflare),
    v4(131, 0, 72, 22, Cdn::Cloudflare),
    v4(141, 101, 64, 18, Cdn::Cloudflare),
    v4(162, 158, 0, 15, Cdn::Cloudflare),
    v4(172, 64, 0, 13, Cdn::Cloudflare),
    v4(173, 245, 48, 20, Cdn::Cloudflare),
    v4(188, 114, 96, 20, Cdn::Cloudflare),
    v4(190, 93, 240, 20, Cdn::Cloudflare),
    v4(197, 234, 240, 22, Cdn::Cloudflare),
    v4(198, 41, 128, 17, Cdn::Cloudflare),
    v4(23, 235, 32, 20, Cdn::Fastly),
    v4(43, 249, 72, 22, Cdn::Fastly),
    v4(103, 244, 50, 24, Cdn::Fastly),
    v4(103, 245, 222, 23, Cdn::Fastly),
    v4(103, 245, 224, 24, Cdn::Fastly),
    v4(104, 156, 80, 20, Cdn::Fastly),
    v4(140, 248, 64, 18, Cdn::Fastly),
    v4(140, 248, 128, 17, Cdn::Fastly),
    v4(146, 75, 0, 17, Cdn::Fastly),
    v4(151, 101, 0, 16, Cdn::Fastly),
    v4(157, 52, 64, 18, Cdn::Fastly),
    v4(167, 82, 0, 17, Cdn::Fastly),
    v4(167, 82, 128, 20, Cdn::Fastly),
    v4(167, 82, 160, 20, Cdn::Fastly),
    v4(167, 82, 224, 20, Cdn::Fastly),
    v4(172, 111, 64, 18, Cdn::Fastly),
    v4(185, 31, 16, 22, Cdn::Fastly),
    v4(199, 27, 72, 21, Cdn::Fastly),
    v4(199, 232, 0, 16, Cdn::Fastly),
    v4(3, 160, 0, 13, Cdn::CloudFront),
    v4(3, 168, 0, 14, Cdn::CloudFront),
    v4(3, 172, 0, 17, Cdn::CloudFront),
    v4(3, 173, 0, 16, Cdn::CloudFront),
    v4(3, 174, 0, 15, Cdn::CloudFront),
    v4(13, 32, 0, 15, Cdn::CloudFront),
    v4(13, 35, 0, 16, Cdn::CloudFront),
    v4(13, 224, 0, 14, Cdn::CloudFront),
    v4(13, 249, 0, 16, Cdn::CloudFront),
    v4(15, 158, 0, 16, Cdn::CloudFront),
    v4(18, 64, 0, 14, Cdn::CloudFront),
    v4(18, 68, 0, 16, Cdn::CloudFront),
    v4(18, 154, 0, 15, Cdn::CloudFront),
    v4(18, 160, 0, 15, Cdn::CloudFront),
    v4(18, 164, 0, 15, Cdn::CloudFront),
    v4(18, 172, 0, 15, Cdn::CloudFront),
    v4(18, 238, 0, 15, Cdn::CloudFront),
    v4(18, 244, 0, 15, Cdn::CloudFront),
    v4(23, 91, 0, 19, Cdn::CloudFront),
    v4(23, 228, 212, 23, Cdn::CloudFront),
    v4(23, 228, 214, 24, Cdn::CloudFront),
    v4(23, 228, 220, 22, Cdn::CloudFront),
    v4(23, 228, 244, 24, Cdn::CloudFront),
    v4(23, 228, 246, 23, Cdn::CloudFront),
    v4(23, 228, 248, 22, Cdn::CloudFront),
    v4(23, 234, 192, 18, Cdn::CloudFront),
    v4(24, 110, 32, 19, Cdn::CloudFront),
    v4(24, 110, 128, 17, Cdn::CloudFront),
    v4(51, 74, 192, 18, Cdn::CloudFront),
    v4(52, 46, 0, 18, Cdn::CloudFront),
    v4(52, 82, 128, 19, Cdn::CloudFront),
    v4(52, 84, 0, 15, Cdn::CloudFront),
    v4(52, 124, 128, 17, Cdn::CloudFront),
    v4(52, 222, 128, 17, Cdn::CloudFront),
    v4(54, 182, 0, 16, Cdn::CloudFront),
    v4(54, 192, 0, 16, Cdn::CloudFront),
    v4(54, 230, 0, 17, Cdn::CloudFront),
    v4(54, 230, 128, 18, Cdn::CloudFront),
    v4(54, 230, 200, 21, Cdn::CloudFront),
    v4(54, 230, 208, 20, Cdn::CloudFront),
    v4(54, 230, 224, 19, Cdn::CloudFront),
    v4(54, 239, 128, 18, Cdn::CloudFront),
    v4(54, 239, 192, 19, Cdn::CloudFront),
    v4(54, 240, 128, 18, Cdn::CloudFront),
    v4(64, 252, 64, 18, Cdn::CloudFront),
    v4(64, 252, 128, 18, Cdn::CloudFront),
    v4(65, 8, 0, 16, Cdn::CloudFront),
    v4(65, 9, 0, 17, Cdn::CloudFront),
    v4(65, 9, 128, 18, Cdn::CloudFront),
    v4(70, 132, 0, 18, Cdn::CloudFront),
    v4(71, 152, 0, 17, Cdn::CloudFront),
    v4(99, 84, 0, 16, Cdn::CloudFront),
    v4(99, 86, 0, 16, Cdn::CloudFront),
    v4(108, 138, 0, 15, Cdn::CloudFront),
    v4(108, 156, 0, 14, Cdn::CloudFront),
    v4(130, 176, 0, 17, Cdn::CloudFront),
    v4(130, 176, 128, 18, Cdn::CloudFront),
    v4(130, 176, 192, 19, Cdn::CloudFront),
    v4(130, 176, 224, 20, Cdn::CloudFront),
    v4(143, 204, 0, 16, Cdn::CloudFront),
    v4(144, 220, 0, 16, Cdn::CloudFront),
    v4(204, 246, 164, 22, Cdn::CloudFront),
    v4(204, 246, 168, 21, Cdn::CloudFront),
    v4(204, 246, 176, 20, Cdn::CloudFront),
    v4(205, 251, 202, 23, Cdn::CloudFront),
    v4(205, 251, 204, 22, Cdn::CloudFront),
    v4(205, 251, 208, 20, Cdn::CloudFront),
    v4(205, 251, 249, 24, Cdn::CloudFront),
    v4(205, 251, 250, 23, Cdn::CloudFront),
    v4(205, 251, 252, 23, Cdn::CloudFront),
    v4(205, 251, 254, 24, Cdn::CloudFront),
    v4(216, 137, 32, 19, Cdn::CloudFront),
    v4(2, 16, 0, 13, Cdn::Akamai),
    v4(23, 0, 0, 12, Cdn::Akamai),
    v4(23, 32, 0, 11, Cdn::Akamai),
    v4(23, 192, 0, 11, Cdn::Akamai),
    v4(95, 100, 0, 15, Cdn::Akamai),
    v4(184, 24, 0, 13, Cdn::Akamai),
    v4(13, 105, 221, 24, Cdn::AzureFrontDoor),
    v4(13, 107, 208, 24, Cdn::AzureFrontDoor),
    v4(13, 107, 213, 24, Cdn::AzureFrontDoor),
    v4(13, 107, 224, 24, Cdn::AzureFrontDoor),
    v4(13, 107, 226, 24, Cdn::AzureFrontDoor),
    v4(13, 107, 231, 24, Cdn::AzureFrontDoor),
    v4(13, 107, 234, 23, Cdn::AzureFrontDoor),
    v4(13, 107, 237, 24, Cdn::AzureFrontDoor),
    v4(13, 107, 238, 23, Cdn::AzureFrontDoor),
    v4(13, 107, 246, 24, Cdn::AzureFrontDoor),
    v4(13, 107, 253, 24, Cdn::AzureFrontDoor),
    v4(40, 90, 64, 22, Cdn::AzureFrontDoor),
    v4(40, 90, 68, 24, Cdn::AzureFrontDoor),
    v4(40, 90, 70, 23, Cdn::AzureFrontDoor),
    v4(104, 212, 67, 24, Cdn::AzureFrontDoor),
    v4(104, 212, 68, 24, Cdn::AzureFrontDoor),
    v4(150, 171, 22, 23, Cdn::AzureFrontDoor),
    v4(150, 171, 26, 24, Cdn::AzureFrontDoor),
    v4(150, 171, 84, 22, Cdn::AzureFrontDoor),
    v4(150, 171, 88, 23, Cdn::AzureFrontDoor),
    v4(150, 171, 109, 24, Cdn::AzureFrontDoor),
    v4(150, 171, 110, 23, Cdn::AzureFrontDoor),
    v4(150, 171, 112, 24, Cdn::AzureFrontDoor),
    v4(66, 248, 200, 22, Cdn::Sucuri),
    v4(185, 93, 228, 22, Cdn::Sucuri),
    v4(192, 88, 134, 23, Cdn::Sucuri),
    v4(192, 124, 249, 24, Cdn::Sucuri),
    v4(208, 109, 0, 22, Cdn::Sucuri),
];

/// The first three groups, the length of the prefix, whose it is.
const V6: &[([u16; 3], u32, Cdn)] = &[
    ([0x2400, 0xcb00, 0], 32, Cdn::Cloudflare),
    ([0x2405, 0x8100, 0], 32, Cdn::Cloudflare),
    ([0x2405, 0xb500, 0], 32, Cdn::Cloudflare),
    ([0x2606, 0x4700, 0], 32, Cdn::Cloudflare),
    ([0x2803, 0xf800, 0], 32, Cdn::Cloudflare),
    ([0x2a06, 0x98c0, 0], 29, Cdn::Cloudflare),
    ([0x2c0f, 0xf248, 0], 32, Cdn::Cloudflare),
    ([0x2a04, 0x4e40, 0], 32, Cdn::Fastly),
    ([0x2a04, 0x4e42, 0], 32, Cdn::Fastly),
    ([0x2001, 0x3fc6, 0x0020], 43, Cdn::CloudFront),
    ([0x2400, 0x7fc0, 0x0500], 40, Cdn::CloudFront),
    ([0x2404, 0xc2c0, 0x0500], 40, Cdn::CloudFront),
    ([0x2600, 0x9000, 0x0ddd], 48, Cdn::CloudFront),
    ([0x2600, 0x9000, 0x0eee], 48, Cdn::CloudFront),
    ([0x2600, 0x9000, 0x0fff], 48, Cdn::CloudFront),
    ([0x2600, 0x9000, 0x1000], 36, Cdn::CloudFront),
    ([0x2600, 0x9000, 0x2000], 35, Cdn::CloudFront),
    ([0x2600, 0x9000, 0x4000], 36, Cdn::CloudFront),
    ([0x2600, 0x9000, 0x5200], 40, Cdn::CloudFront),
    ([0x2600, 0x9000, 0x5308], 45, Cdn::CloudFront),
    ([0x2600, 0x9000, 0x5310], 44, Cdn::CloudFront),
    ([0x2600, 0x9000, 0x5320], 43, Cdn::CloudFront),
    ([0x2600, 0x9000, 0x5340], 42, Cdn::CloudFront),
    ([0x2600, 0x9000, 0x5380], 41, Cdn::CloudFront),
    ([0x2600, 0x9000, 0x6000], 36, Cdn::CloudFront),
    ([0x2600, 0x9000, 0xf000], 38, Cdn::CloudFront),
    ([0x2600, 0x9000, 0xf400], 40, Cdn::CloudFront),
    ([0x2600, 0x9000, 0xf500], 43, Cdn::CloudFront),
    ([0x2600, 0x9000, 0xf520], 44, Cdn::CloudFront),
    ([0x2600, 0x9000, 0xf534], 46, Cdn::CloudFront),
    ([0x2600, 0x9000, 0xf538], 45, Cdn::CloudFront),
    ([0x2600, 0x9000, 0xf540], 42, Cdn::CloudFront),
    ([0x2600, 0x9000, 0xf580], 41, Cdn::CloudFront),
    ([0x2600, 0x9000, 0xf600], 39, Cdn::CloudFront),
    ([0x2600, 0x9000, 0xf800], 37, Cdn::CloudFront),
    ([0x2600, 0xf0f0, 0x0601], 48, Cdn::CloudFront),
    ([0x2600, 0xf0f0, 0x0602], 47, Cdn::CloudFront),
    ([0x2600, 0xf0f0, 0x5504], 46, Cdn::CloudFront),
    ([0x2405, 0x9600, 0], 32, Cdn::Akamai),
    ([0x2600, 0x1400, 0], 24, Cdn::Akamai),
    ([0x2a02, 0x26f0, 0], 32, Cdn::Akamai),
    ([0x2a02, 0xfe80, 0], 29, Cdn::Sucuri),
];

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn tells_a_network_by_its_addresses() {
        for (address, expected) in [
            ("104.16.1.1", Some(Cdn::Cloudflare)),
            ("104.27.255.255", Some(Cdn::Cloudflare)),
            ("104.28.0.0", None),
            ("2606:4700::6810:1", Some(Cdn::Cloudflare)),
            ("::ffff:172.64.0.1", Some(Cdn::Cloudflare)),
            ("151.101.1.1", Some(Cdn::Fastly)),
            ("2a04:4e42:200::81", Some(Cdn::Fastly)),
            ("13.32.4.5", Some(Cdn::CloudFront)),
            ("2600:9000:2000::1", Some(Cdn::CloudFront)),
            ("23.63.0.1", Some(Cdn::Akamai)),
            ("13.107.246.40", Some(Cdn::AzureFrontDoor)),
            ("3.167.0.1", Some(Cdn::CloudFront)),
            ("192.124.249.10", Some(Cdn::Sucuri)),
            ("2a02:26f0:1::1", Some(Cdn::Akamai)),
            // Global Accelerator hands connections on as they are, and lies beside CloudFront.
            ("2600:9000:a507:ab6d:4ce3:2f58:25d7:9cbf", None),
            ("2a02:26f7::1", None),
            ("8.8.8.8", None),
            ("2001:4860::1", None),
        ] {
            assert_eq!(
                Cdn::by_address(address.parse().unwrap()),
                expected,
                "{address}"
            );
        }
    }

    #[test]
    fn tells_a_network_by_the_fields_of_its_answers() {
        for (field, value, expected) in [
            ("cf-ray", "8f0-FRA", Some(Cdn::Cloudflare)),
            ("server", "cloudflare", Some(Cdn::Cloudflare)),
            (
                "via",
                "1.1 abc.cloudfront.net (CloudFront)",
                Some(Cdn::CloudFront),
            ),
            ("x-served-by", "cache-fra-eddf82-FRA", Some(Cdn::Fastly)),
            ("server", "AkamaiGHost", Some(Cdn::Akamai)),
            ("x-azure-ref", "0abc", Some(Cdn::AzureFrontDoor)),
            ("server", "BunnyCDN-DE1-1080", Some(Cdn::Bunny)),
            ("server", "nginx", None),
            ("via", "1.1 varnish", None),
            ("via", "1.1 cache-01.customer.example", None),
        ] {
            let fields = HeaderMap::from_iter([(
                HeaderName::from_static(field),
                HeaderValue::from_static(value),
            )]);
            assert_eq!(Cdn::by_fields(&fields), expected, "{field}: {value}");
        }
    }
}

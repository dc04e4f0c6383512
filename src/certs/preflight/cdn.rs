//! Content delivery networks, told by the addresses that a name leads to and by the fields of their answers.
//!
//! Being behind one is no fault: our challenge may well be reached through it. It explains why it is not, and it rules
//! TLS-ALPN-01 out, for the network terminates TLS. The ranges are those that the networks publish (Cloudflare:
//! `cloudflare.com/ips`, Fastly: `api.fastly.com/public-ip-list`, Amazon: `ip-ranges.amazonaws.com`) or hold in the
//! registries (Akamai), as of November 2026; what lies outside is told by the fields alone.

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
        let words = ["server", "via", "x-served-by"];
        let values = words.iter().flat_map(|word| fields.get_all(*word));
        let mut values = values.filter_map(|value| value.to_str().ok());
        values.find_map(|value| {
            let value = value.to_ascii_lowercase();
            let named = WORDS.iter().find(|(word, _)| value.contains(word));
            named.map(|(_, cdn)| *cdn)
        })
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

/// What `Server`, `Via` and `X-Served-By` hold.
const WORDS: &[(&str, Cdn)] = &[
    ("cloudflare", Cdn::Cloudflare),
    ("cloudfront", Cdn::CloudFront),
    ("akamai", Cdn::Akamai),
    ("bunnycdn", Cdn::Bunny),
    ("netlify", Cdn::Netlify),
    ("vercel", Cdn::Vercel),
    ("sucuri", Cdn::Sucuri),
    // Of `X-Served-By`: cache-fra-eddf8230062-FRA.
    ("cache-", Cdn::Fastly),
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
    v4(13, 32, 0, 15, Cdn::CloudFront),
    v4(13, 224, 0, 14, Cdn::CloudFront),
    v4(18, 64, 0, 14, Cdn::CloudFront),
    v4(18, 154, 0, 15, Cdn::CloudFront),
    v4(18, 160, 0, 15, Cdn::CloudFront),
    v4(18, 164, 0, 15, Cdn::CloudFront),
    v4(18, 172, 0, 15, Cdn::CloudFront),
    v4(18, 238, 0, 15, Cdn::CloudFront),
    v4(18, 244, 0, 15, Cdn::CloudFront),
    v4(52, 84, 0, 15, Cdn::CloudFront),
    v4(52, 222, 128, 17, Cdn::CloudFront),
    v4(54, 182, 0, 16, Cdn::CloudFront),
    v4(54, 192, 0, 16, Cdn::CloudFront),
    v4(54, 230, 0, 17, Cdn::CloudFront),
    v4(54, 239, 128, 18, Cdn::CloudFront),
    v4(64, 252, 64, 18, Cdn::CloudFront),
    v4(65, 8, 0, 16, Cdn::CloudFront),
    v4(65, 9, 0, 17, Cdn::CloudFront),
    v4(70, 132, 0, 18, Cdn::CloudFront),
    v4(71, 152, 0, 17, Cdn::CloudFront),
    v4(99, 84, 0, 16, Cdn::CloudFront),
    v4(99, 86, 0, 16, Cdn::CloudFront),
    v4(108, 138, 0, 15, Cdn::CloudFront),
    v4(108, 156, 0, 14, Cdn::CloudFront),
    v4(143, 204, 0, 16, Cdn::CloudFront),
    v4(204, 246, 168, 22, Cdn::CloudFront),
    v4(205, 251, 249, 24, Cdn::CloudFront),
    v4(216, 137, 32, 19, Cdn::CloudFront),
    v4(2, 16, 0, 13, Cdn::Akamai),
    v4(23, 32, 0, 11, Cdn::Akamai),
    v4(23, 192, 0, 11, Cdn::Akamai),
    v4(72, 246, 0, 15, Cdn::Akamai),
    v4(88, 221, 0, 16, Cdn::Akamai),
    v4(92, 122, 0, 15, Cdn::Akamai),
    v4(95, 100, 0, 15, Cdn::Akamai),
    v4(96, 6, 0, 15, Cdn::Akamai),
    v4(96, 16, 0, 15, Cdn::Akamai),
    v4(104, 64, 0, 10, Cdn::Akamai),
    v4(184, 24, 0, 13, Cdn::Akamai),
    v4(184, 50, 0, 15, Cdn::Akamai),
    v4(184, 84, 0, 14, Cdn::Akamai),
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
    ([0x2600, 0x9000, 0], 28, Cdn::CloudFront),
    ([0x2600, 0x1400, 0], 24, Cdn::Akamai),
    ([0x2a02, 0x26f0, 0], 29, Cdn::Akamai),
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
        ] {
            let fields = HeaderMap::from_iter([(
                HeaderName::from_static(field),
                HeaderValue::from_static(value),
            )]);
            assert_eq!(Cdn::by_fields(&fields), expected, "{field}: {value}");
        }
    }
}

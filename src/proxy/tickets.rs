//! Session tickets (RFC 8446 §4.6.1, RFC 5077) that any worker of this process opens.
//!
//! A ticket is `key id (4) ‖ nonce (12) ‖ AES-256-GCM(state) ‖ tag (16)`, with the tenant and the TLS policy as
//! associated data: under another tenant or policy it does not open, and the visitor makes a full handshake.
//! Keys are random, never leave the process, seal for six hours and open for twelve.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest;
use aws_lc_rs::rand;
use rustls::server::ProducesTickets;
use zeroize::Zeroizing;

use crate::base::clock::{Instant, monotonic};
use crate::model::TenantId;
use crate::proxy::tls::PolicyId;

/// How long a key seals.
const SEALS_FOR: Duration = Duration::from_hours(6);
/// How long a key opens, from the moment it was made.
const OPENS_FOR: Duration = Duration::from_hours(12);
const KEY_ID_LENGTH: usize = 4;
const NONCE_LENGTH: usize = 12;
const KEY_LENGTH: usize = 32;

/// The keys of this process, rotated when they are used. Clones are the same.
#[derive(Clone)]
pub struct TicketKeys {
    ring: Arc<ArcSwap<Ring>>,
    rotation: Arc<Mutex<()>>,
}

/// No key is printed.
impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKeys").finish_non_exhaustive()
    }
}

struct Ring {
    current: Option<Arc<TicketKey>>,
    previous: Option<Arc<TicketKey>>,
}

struct TicketKey {
    id: [u8; KEY_ID_LENGTH],
    key: RandomizedNonceKey,
    made: Instant,
}

impl TicketKey {
    /// A fresh random key; nothing where the system has no randomness to give.
    fn new(now: Instant) -> Option<Self> {
        let mut id = [0; KEY_ID_LENGTH];
        let mut bytes = Zeroizing::new([0; KEY_LENGTH]);
        rand::fill(&mut id).ok()?;
        rand::fill(&mut *bytes).ok()?;
        let key = RandomizedNonceKey::new(&AES_256_GCM, &*bytes).ok()?;
        Some(Self { id, key, made: now })
    }

    fn seals_at(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.made) < SEALS_FOR
    }

    fn opens_at(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.made) < OPENS_FOR
    }
}

impl Default for TicketKeys {
    fn default() -> Self {
        Self::new()
    }
}

impl TicketKeys {
    /// Random keys, made at their first use.
    #[must_use]
    pub fn new() -> Self {
        let empty = Ring {
            current: None,
            previous: None,
        };
        Self {
            ring: Arc::new(ArcSwap::from_pointee(empty)),
            rotation: Arc::default(),
        }
    }

    fn seal(&self, binding: &Binding, plain: &[u8], now: Instant) -> Option<Vec<u8>> {
        let key = self.sealing_key(now)?;
        let mut sealed = plain.to_vec();
        let nonce = key
            .key
            .seal_in_place_append_tag(Aad::from(&binding.0), &mut sealed)
            .ok()?;
        let mut ticket = Vec::with_capacity(KEY_ID_LENGTH + NONCE_LENGTH + sealed.len());
        ticket.extend_from_slice(&key.id);
        ticket.extend_from_slice(nonce.as_ref());
        ticket.append(&mut sealed);
        Some(ticket)
    }

    fn open(&self, binding: &Binding, ticket: &[u8], now: Instant) -> Option<Vec<u8>> {
        let (id, rest) = ticket.split_first_chunk::<KEY_ID_LENGTH>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LENGTH>()?;
        let key = self.opening_key(id, now)?;
        let mut plain = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = key
            .key
            .open_in_place(nonce, Aad::from(&binding.0), &mut plain)
            .ok()?
            .len();
        plain.truncate(length);
        Some(plain)
    }

    fn opening_key(&self, id: &[u8; KEY_ID_LENGTH], now: Instant) -> Option<Arc<TicketKey>> {
        let ring = self.ring.load();
        [&ring.current, &ring.previous]
            .into_iter()
            .flatten()
            .find(|key| key.id == *id && key.opens_at(now))
            .cloned()
    }

    fn sealing_key(&self, now: Instant) -> Option<Arc<TicketKey>> {
        let current = |ring: &Ring| ring.current.clone().filter(|key| key.seals_at(now));
        if let Some(key) = current(&self.ring.load()) {
            return Some(key);
        }
        let _one_at_a_time = self.rotation.lock().unwrap_or_else(PoisonError::into_inner);
        let ring = self.ring.load_full();
        if let Some(key) = current(&ring) {
            return Some(key);
        }
        let key = Arc::new(TicketKey::new(now)?);
        self.ring.store(Arc::new(Ring {
            current: Some(Arc::clone(&key)),
            previous: ring.current.clone(),
        }));
        Some(key)
    }
}

/// What a ticket is bound to: the hash of the tenant and the TLS policy it was made under.
#[derive(Clone, Debug)]
pub struct Binding([u8; digest::SHA256_OUTPUT_LEN]);

impl Binding {
    /// The binding to this tenant and this policy.
    #[must_use]
    pub fn new(tenant: &TenantId, policy: PolicyId) -> Self {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(&policy.to_bytes());
        hash.update(tenant.as_str().as_bytes());
        let mut bytes = [0; digest::SHA256_OUTPUT_LEN];
        bytes.copy_from_slice(hash.finish().as_ref());
        Self(bytes)
    }
}

/// Seals and opens the tickets of one configuration.
#[derive(Debug)]
pub struct Ticketer {
    keys: TicketKeys,
    binding: Binding,
}

impl Ticketer {
    /// Tickets under `keys` for what `binding` names.
    #[must_use]
    pub const fn new(keys: TicketKeys, binding: Binding) -> Self {
        Self { keys, binding }
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(SEALS_FOR.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.keys.seal(&self.binding, plain, monotonic())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.keys.open(&self.binding, cipher, monotonic())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::facts::TlsVersion;
    use crate::proxy::tls::TlsPolicy;

    fn binding(tenant: &str, minimum: TlsVersion, epoch: u32) -> Binding {
        let tenant = TenantId::parse(tenant).unwrap();
        Binding::new(&tenant, TlsPolicy { minimum, epoch }.id())
    }

    #[test]
    fn opens_under_the_same_tenant_policy_and_epoch_only() {
        let (keys, now) = (TicketKeys::new(), monotonic());
        let own = binding("acme", TlsVersion::Tls12, 0);
        let ticket = keys.seal(&own, b"state", now).unwrap();
        assert_eq!(keys.clone().open(&own, &ticket, now).unwrap(), b"state");
        for other in [
            binding("globex", TlsVersion::Tls12, 0),
            binding("acme", TlsVersion::Tls13, 0),
            binding("acme", TlsVersion::Tls12, 1),
        ] {
            assert!(keys.open(&other, &ticket, now).is_none());
        }
        assert!(TicketKeys::new().open(&own, &ticket, now).is_none());
    }

    #[test]
    fn keys_seal_for_six_hours_and_are_dead_after_twelve() {
        let (keys, start) = (TicketKeys::new(), monotonic());
        let own = binding("acme", TlsVersion::Tls12, 0);
        let hours = |n| start + Duration::from_hours(n);
        let first = keys.seal(&own, b"first", start).unwrap();
        let second = keys.seal(&own, b"second", hours(6)).unwrap();
        assert_ne!(first[..4], second[..4], "a new key after six hours");
        let open = |ticket: &[u8], at| keys.open(&own, ticket, at).is_some();
        assert!(open(&first, hours(11)) && !open(&first, hours(12)));
        assert!(open(&second, hours(17)) && !open(&second, hours(18)));
        keys.seal(&own, b"third", hours(13)).unwrap();
        keys.seal(&own, b"fourth", hours(19)).unwrap();
        assert!(!open(&second, hours(17)), "only two keys are kept");
    }

    #[test]
    fn tickets_of_any_bytes_are_refused_without_panic() {
        let (keys, now) = (TicketKeys::new(), monotonic());
        let own = binding("acme", TlsVersion::Tls12, 0);
        let ticket = keys.seal(&own, b"state", now).unwrap();
        for length in 0..ticket.len() {
            assert!(keys.open(&own, &ticket[..length], now).is_none());
        }
        for index in 0..ticket.len() {
            let mut forged = ticket.clone();
            forged[index] ^= 1;
            assert!(keys.open(&own, &forged, now).is_none());
        }
    }
}

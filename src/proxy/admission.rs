//! Who is let in: places that are taken at once or not at all, and given back when dropped.
//!
//! A place is refused, never waited for: a visitor who cannot be served now learns it now, and nobody queues
//! in memory.

use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;

use crate::model::TenantId;
use crate::proxy::limits::Limits;

/// The places of this process, over all workers. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    connections: Arc<AtomicUsize>,
    handshakes: Arc<AtomicUsize>,
    addresses: Arc<DashMap<ClientAddress, usize>>,
    tenants: Arc<DashMap<TenantId, usize>>,
    requests: Arc<AtomicUsize>,
    requests_of_addresses: Arc<DashMap<ClientAddress, usize>>,
    requests_of_tenants: Arc<DashMap<TenantId, usize>>,
    /// How many files may be open, where that is limited.
    files: Option<usize>,
}

/// Which places of requests are all taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Busy {
    /// Those in all.
    All,
    /// Those of the client's address.
    Address,
    /// Those of the tenant.
    Tenant,
}

/// What a request holds until it has ended.
#[derive(Debug)]
pub struct RequestPlaces {
    _all: Place,
    _address: AddressPlace,
    _tenant: TenantPlace,
}

/// Which places are all taken; a label of the refusal metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Full {
    /// Connections in all.
    Connections,
    /// Connections of the client's address.
    Address,
    /// Connections of the tenant.
    Tenant,
    /// Unfinished handshakes.
    Handshakes,
}

impl Full {
    /// The word for it in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections_full",
            Self::Address => "address_full",
            Self::Tenant => "tenant_full",
            Self::Handshakes => "handshakes_full",
        }
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A client as it is counted: an IPv4 address, or an IPv6 network of 64 bits, for that is what one customer gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientAddress {
    /// One IPv4 address, also where it came as mapped IPv6.
    V4(Ipv4Addr),
    /// The first 64 bits of an IPv6 address.
    V6(u64),
}

impl From<IpAddr> for ClientAddress {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4),
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, g, h, ..] = v6.octets();
                Self::V6(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
            }
        }
    }
}

impl Admission {
    /// Nobody is in yet, and so many files may be open.
    #[must_use]
    pub fn within(files: Option<usize>) -> Self {
        Self {
            files,
            ..Self::default()
        }
    }

    /// Places for one more request of a client to a tenant.
    ///
    /// # Errors
    /// [`Busy`] says which are all taken.
    pub fn request(
        &self,
        limits: &Limits,
        client: IpAddr,
        tenant: &TenantId,
    ) -> Result<RequestPlaces, Busy> {
        let all = limits.requests(self.files);
        let of_address = limits
            .requests_per_address
            .unwrap_or_else(|| (all / 10).max(1));
        let of_tenant = limits
            .requests_per_tenant
            .unwrap_or_else(|| (all / 2).max(1));
        let (addresses, tenants) = (&self.requests_of_addresses, &self.requests_of_tenants);
        Ok(RequestPlaces {
            _all: Place::take(&self.requests, all).ok_or(Busy::All)?,
            _address: KeyedPlace::take(addresses, client.into(), of_address)
                .ok_or(Busy::Address)?,
            _tenant: KeyedPlace::take(tenants, tenant.clone(), of_tenant).ok_or(Busy::Tenant)?,
        })
    }

    /// A place for one more connection.
    ///
    /// # Errors
    /// [`Full::Connections`].
    pub fn connection(&self, limits: &Limits) -> Result<Place, Full> {
        Place::take(&self.connections, limits.connections).ok_or(Full::Connections)
    }

    /// A place for one more connection of a client.
    ///
    /// # Errors
    /// [`Full::Address`].
    pub fn address(&self, limits: &Limits, address: IpAddr) -> Result<AddressPlace, Full> {
        let most = limits.connections_per_address;
        KeyedPlace::take(&self.addresses, address.into(), most).ok_or(Full::Address)
    }

    /// A place for one more connection of a tenant.
    ///
    /// # Errors
    /// [`Full::Tenant`].
    pub fn tenant(&self, limits: &Limits, tenant: &TenantId) -> Result<TenantPlace, Full> {
        let most = limits.connections_per_tenant;
        KeyedPlace::take(&self.tenants, tenant.clone(), most).ok_or(Full::Tenant)
    }

    /// A place for one more unfinished handshake.
    ///
    /// # Errors
    /// [`Full::Handshakes`].
    pub fn handshake(&self, limits: &Limits) -> Result<Place, Full> {
        Place::take(&self.handshakes, limits.handshakes).ok_or(Full::Handshakes)
    }

    /// Connections now open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Whether idle connections should be let go sooner.
    #[must_use]
    pub fn is_crowded(&self, limits: &Limits) -> bool {
        self.open() > limits.crowded_at()
    }
}

/// One of a bounded number of places; free again when dropped.
#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(taken: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let one_more = |now: usize| (now < most).then_some(now + 1);
        taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .ok()
            .map(|_before| Self(Arc::clone(taken)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One of the places of a client address.
pub type AddressPlace = KeyedPlace<ClientAddress>;
/// One of the places of a tenant.
pub type TenantPlace = KeyedPlace<TenantId>;

/// One of a bounded number of places of a key; free again when dropped. Keys without a place taken are not kept,
/// so the map is bounded by the places in all.
#[derive(Debug)]
pub struct KeyedPlace<K: Eq + Hash> {
    taken: Arc<DashMap<K, usize>>,
    key: K,
}

impl<K: Eq + Hash + Clone> KeyedPlace<K> {
    fn take(taken: &Arc<DashMap<K, usize>>, key: K, most: usize) -> Option<Self> {
        let mut count = taken.entry(key.clone()).or_insert(0);
        if *count >= most {
            let unused = *count == 0;
            drop(count);
            if unused {
                taken.remove_if(&key, |_, count| *count == 0);
            }
            return None;
        }
        *count += 1;
        drop(count);
        Some(Self {
            taken: Arc::clone(taken),
            key,
        })
    }
}

impl<K: Eq + Hash> Drop for KeyedPlace<K> {
    fn drop(&mut self) {
        if let Some(mut count) = self.taken.get_mut(&self.key) {
            *count = count.saturating_sub(1);
        }
        self.taken.remove_if(&self.key, |_, count| *count == 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            connections: 2,
            connections_per_address: 1,
            connections_per_tenant: 1,
            ..Limits::default()
        }
    }

    #[test]
    fn places_are_refused_above_the_cap_and_free_again_when_dropped() {
        let (admission, limits) = (Admission::default(), limits());
        let first = admission.connection(&limits).unwrap();
        let _second = admission.connection(&limits).unwrap();
        assert_eq!(
            admission.connection(&limits).unwrap_err(),
            Full::Connections
        );
        drop(first);
        assert!(admission.connection(&limits).is_ok());
    }

    #[test]
    fn an_ipv6_network_and_a_mapped_ipv4_address_count_as_one_client() {
        let (admission, limits) = (Admission::default(), limits());
        let check = |first: &str, second: &str, same: bool| {
            let _first = admission.address(&limits, first.parse().unwrap()).unwrap();
            let second = admission.address(&limits, second.parse().unwrap());
            assert_eq!(second.is_err(), same, "{first}");
        };
        check("2001:db8::1", "2001:db8::ffff:1", true);
        check("2001:db8::1", "2001:db8:0:1::1", false);
        check("192.0.2.1", "::ffff:192.0.2.1", true);
        check("192.0.2.1", "192.0.2.2", false);
        assert!(
            admission.addresses.is_empty(),
            "nothing is kept of clients that left"
        );
    }

    #[test]
    fn requests_have_places_in_all_of_their_client_and_of_their_tenant() {
        let admission = Admission::default();
        let limits = Limits {
            requests: Some(3),
            requests_per_address: Some(2),
            requests_per_tenant: Some(2),
            ..Limits::default()
        };
        let [acme, globex] = ["acme", "globex"].map(|slug| TenantId::parse(slug).unwrap());
        let ask = |client: &str, tenant| {
            let client = client.parse().unwrap();
            admission.request(&limits, client, tenant)
        };
        let first = ask("192.0.2.1", &acme).unwrap();
        let _second = ask("192.0.2.1", &globex).unwrap();
        assert_eq!(ask("192.0.2.1", &globex).unwrap_err(), Busy::Address);
        let _third = ask("192.0.2.2", &acme).unwrap();
        assert_eq!(ask("192.0.2.3", &globex).unwrap_err(), Busy::All);
        drop(first);
        let fourth = ask("192.0.2.3", &acme).unwrap();
        drop(fourth);
        assert!(ask("192.0.2.3", &globex).is_ok());
    }

    #[test]
    fn a_tenant_at_its_cap_of_requests_leaves_the_others_theirs() {
        let (admission, client) = (Admission::within(Some(1024)), IpAddr::from([192, 0, 2, 1]));
        let [acme, globex] = ["acme", "globex"].map(|slug| TenantId::parse(slug).unwrap());
        let limits = Limits {
            requests_per_address: Some(1000),
            ..Limits::default()
        };
        let ask = |tenant| admission.request(&limits, client, tenant);
        // Half of what 1,024 files allow.
        let held: Vec<_> = (0..192).map(|_| ask(&acme).unwrap()).collect();
        assert_eq!(ask(&acme).unwrap_err(), Busy::Tenant);
        assert!(ask(&globex).is_ok());
        drop(held);
        assert!(admission.requests_of_tenants.is_empty());
        assert_eq!(admission.requests.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn tenants_have_places_of_their_own() {
        let (admission, limits) = (Admission::default(), limits());
        let [acme, globex] = ["acme", "globex"].map(|slug| TenantId::parse(slug).unwrap());
        let _acme = admission.tenant(&limits, &acme).unwrap();
        assert_eq!(admission.tenant(&limits, &acme).unwrap_err(), Full::Tenant);
        assert!(admission.tenant(&limits, &globex).is_ok());
        assert_eq!(admission.tenants.len(), 1);
    }
}

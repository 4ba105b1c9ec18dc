//! The guard against being led into the private network: a redirect or an upload's Location on
//! another host may only lead to public addresses, to the registry's own address, or to a host
//! that the configuration names. What is checked is the address that is connected to, not the
//! name.

use std::{
    error::Error as StdError,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Where the registry itself was last connected to.
#[derive(Debug, Default)]
pub(crate) struct OwnAddress(Mutex<Option<IpAddr>>);

impl OwnAddress {
    pub(crate) fn learn(&self, address: Option<SocketAddr>) {
        if let Some(address) = address {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(plain(address.ip()));
        }
    }

    /// Whether a foreign host may have this address.
    pub(crate) fn allows(&self, address: IpAddr) -> bool {
        let own = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        is_public(address) || own == Some(plain(address))
    }
}

/// Resolves names and keeps only addresses that are allowed.
pub(crate) struct GuardedResolver(pub(crate) Arc<OwnAddress>);

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let own = Arc::clone(&self.0);
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> =
                found.filter(|address| own.allows(address.ip())).collect();
            if allowed.is_empty() {
                return Err(Box::new(Refused) as Box<dyn StdError + Send + Sync>);
            }
            let addresses: Addrs = Box::new(allowed.into_iter());
            Ok(addresses)
        })
    }
}

/// The error that the resolver hands through the HTTP client.
#[derive(Debug)]
pub(crate) struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the host has only addresses that are not allowed")
    }
}

impl StdError for Refused {}

/// An IPv4 address inside an IPv6 one is that IPv4 address.
fn plain(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

/// Whether the address belongs to the public internet (IANA's special-purpose registries).
fn is_public(address: IpAddr) -> bool {
    match plain(address) {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [first, second, third, _] = address.octets();
    let shared = first == 100 && (64..128).contains(&second);
    let protocol = first == 192 && second == 0 && third == 0;
    let benchmark = first == 198 && (18..20).contains(&second);
    !(first == 0
        || first >= 224
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || shared
        || protocol
        || benchmark)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let [first, second, ..] = segments;
    let [.., high, low] = segments;
    let [a, b] = high.to_be_bytes();
    let [c, d] = low.to_be_bytes();
    // NAT64 (RFC 6052) and 6to4 (RFC 3056) carry an IPv4 address that is the one to look at.
    if first == 0x64 && second == 0xff9b {
        return is_public_v4(Ipv4Addr::new(a, b, c, d));
    }
    // Of the rest only 2000::/3 is public: no loopback, unique local, link-local or multicast.
    first & 0xe000 == 0x2000 && first != 0x2002
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_addresses_are_not_public() {
        for text in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "::",
            "::1",
            "fd00::1",
            "fe80::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
        for text in
            ["1.1.1.1", "140.82.121.33", "2606:4700::1", "::ffff:1.1.1.1", "64:ff9b::101:101"]
        {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn the_registrys_own_address_is_allowed_once_it_is_known() {
        let own = OwnAddress::default();
        let address: IpAddr = "10.0.0.7".parse().unwrap();
        assert!(!own.allows(address));
        own.learn(Some("[::ffff:10.0.0.7]:5000".parse().unwrap()));
        assert!(own.allows(address) && !own.allows("10.0.0.8".parse().unwrap()));
    }
}

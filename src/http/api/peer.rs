//! Where a request comes from.

use std::net::{IpAddr, Ipv6Addr};

use axum::http::request::Parts;

/// The address that a connection comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub IpAddr);

/// The address that a request comes from: the last one in `x-forwarded-for`, if the peer is a proxy
/// that the operator trusts, or else the peer's.
pub(crate) fn sender(parts: &Parts, trusted_proxies: &[IpAddr]) -> IpAddr {
    let peer = parts.extensions.get::<Peer>();
    let peer = peer.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |peer| peer.0);
    if !trusted_proxies.contains(&peer) {
        return peer;
    }
    let mut values = parts.headers.get_all("x-forwarded-for").iter();
    let last = values.next_back().and_then(|value| value.to_str().ok());
    let last = last.and_then(|value| value.rsplit(',').next());
    last.and_then(|address| address.trim().parse().ok())
        .unwrap_or(peer)
}

/// The addresses that one sender may have at will: an IPv4 address, or the 64 bits of IPv6 that a
/// provider hands out.
pub(crate) fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(peer: &str, forwarded: &[&str]) -> Parts {
        let mut request = axum::http::Request::new(());
        for value in forwarded {
            let value = value.parse().unwrap();
            request.headers_mut().append("x-forwarded-for", value);
        }
        let peer = Peer(peer.parse().unwrap());
        request.extensions_mut().insert(peer);
        request.into_parts().0
    }

    #[test]
    fn only_trusted_proxies_name_the_sender() {
        let proxy: IpAddr = "10.0.0.1".parse().unwrap();
        let sender =
            |peer, forwarded: &[&str]| sender(&parts(peer, forwarded), &[proxy]).to_string();
        assert_eq!(sender("10.0.0.2", &["1.1.1.1"]), "10.0.0.2");
        assert_eq!(sender("10.0.0.1", &["1.1.1.1, 2.2.2.2"]), "2.2.2.2");
        assert_eq!(sender("10.0.0.1", &["1.1.1.1", "3.3.3.3"]), "3.3.3.3");
        assert_eq!(sender("10.0.0.1", &["unknown"]), "10.0.0.1");
        assert_eq!(sender("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn one_ipv6_network_is_one_sender() {
        let network = |text: &str| network_of(text.parse().unwrap()).to_string();
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network("::ffff:10.0.0.1"), "10.0.0.1");
    }
}

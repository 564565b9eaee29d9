//! Which addresses are public: those of the registries of special addresses (RFC 6890) are not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Who may be connected to at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// A host of the public internet.
    Public,
    /// A host of the operator's network, or this one: only where the operator allows it.
    Private,
    /// Never: metadata of a cloud, link-local, multicast, documentation, reserved.
    Forbidden,
}

/// Addresses at which clouds hand out credentials, beside those that are link-local: Alibaba,
/// Azure, Oracle.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];
/// As above: AWS, Google Cloud.
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

/// Classifies an address. An IPv6 address that holds an IPv4 address is judged by that one.
pub(super) fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(address) => reach_v4(address),
        IpAddr::V6(address) => reach_v6(address),
    }
}

fn reach_v4(address: Ipv4Addr) -> Reach {
    if METADATA_V4.contains(&address) {
        return Reach::Forbidden;
    }
    match address.octets() {
        [10 | 127, ..] | [192, 168, ..] | [172, 16..=31, ..] | [100, 64..=127, ..] => {
            Reach::Private
        }
        // This network, link-local, protocol assignments, documentation, 6to4 relays, benchmarks,
        // multicast, reserved.
        [0, ..]
        | [169, 254, ..]
        | [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [198, 18 | 19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _]
        | [224..=255, ..] => Reach::Forbidden,
        _ => Reach::Public,
    }
}

fn reach_v6(address: Ipv6Addr) -> Reach {
    if METADATA_V6.contains(&address) {
        return Reach::Forbidden;
    }
    let [.., a, b, c, d] = address.octets();
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => Reach::Private,
        // Mapped, and translated by NAT64.
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => {
            reach_v4(Ipv4Addr::new(a, b, c, d))
        }
        [0xfc00..=0xfdff, ..] => Reach::Private,
        // Protocol assignments with Teredo, documentation, 6to4.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x2002, ..] | [0x3fff, 0..=0xfff, ..] => {
            Reach::Forbidden
        }
        // Global unicast. Everything else is unassigned, IPv4-compatible, link-local, site-local or
        // multicast.
        [0x2000..=0x3fff, ..] => Reach::Public,
        _ => Reach::Forbidden,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_classified_at_the_bounds_of_their_blocks() {
        for (reach_of, addresses) in [
            (
                Reach::Public,
                "1.1.1.1 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 172.15.255.255 \
                 172.32.0.0 192.0.1.1 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 223.255.255.255 \
                 ::ffff:1.1.1.1 64:ff9b::1.1.1.1 2001:200:: 2606:4700::1111 3fff:1000::",
            ),
            (
                Reach::Private,
                "10.0.0.0 10.255.255.255 127.0.0.1 127.255.255.255 100.64.0.0 100.127.255.255 172.16.0.0 172.31.255.255 \
                 192.168.0.0 192.168.255.255 ::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 64:ff9b::192.168.0.1 fc00:: fdff::1",
            ),
            (
                Reach::Forbidden,
                "0.0.0.0 0.1.2.3 169.254.0.0 169.254.169.254 169.254.255.255 192.0.0.1 192.0.0.192 192.0.2.1 192.88.99.1 \
                 198.18.0.0 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 \
                 100.100.100.200 168.63.129.16 :: ::2 ::127.0.0.1 ::1.1.1.1 ::ffff:169.254.169.254 ::ffff:0.0.0.0 \
                 64:ff9b::169.254.169.254 64:ff9b:1::1 100::1 2001::1 2001:db8::1 2002:7f00:1:: 2002:101:101:: 3fff::1 \
                 fd00:ec2::254 fd20:ce::254 fe80::1 fec0::1 ff02::1 4000::1",
            ),
        ] {
            for address in addresses.split_whitespace() {
                assert_eq!(reach(address.parse().unwrap()), reach_of, "{address}");
            }
        }
    }
}

//! Which addresses an outbound request may go to: public ones, and those that somebody allowed. Pure: classifies and
//! compares, resolves nothing. Must never happen here: an address that is judged by how it is written.
//!
//! A server that sends where its users tell it to can reach what its users cannot: the host's own services, the private
//! network, the cloud's metadata. Refused is what the special-purpose registries of IANA (RFC 6890) do not call
//! globally reachable, and every form of IPv6 that carries such an IPv4 address inside.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

const REFUSED_V4: &[(Ipv4Addr, u32, &str)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8, "an unspecified address"),
    (Ipv4Addr::new(10, 0, 0, 0), 8, "a private address"),
    (Ipv4Addr::new(100, 64, 0, 0), 10, "an address shared behind a carrier's NAT"),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "a loopback address"),
    // Azure's host agent: public by its number, metadata by what it answers.
    (Ipv4Addr::new(168, 63, 129, 16), 32, "a metadata service's address"),
    (Ipv4Addr::new(169, 254, 0, 0), 16, "a link-local address"),
    (Ipv4Addr::new(172, 16, 0, 0), 12, "a private address"),
    (Ipv4Addr::new(192, 0, 0, 0), 24, "a reserved address"),
    (Ipv4Addr::new(192, 0, 2, 0), 24, "an address for documentation"),
    (Ipv4Addr::new(192, 88, 99, 0), 24, "a reserved address"),
    (Ipv4Addr::new(192, 168, 0, 0), 16, "a private address"),
    (Ipv4Addr::new(198, 18, 0, 0), 15, "an address for benchmarks"),
    (Ipv4Addr::new(198, 51, 100, 0), 24, "an address for documentation"),
    (Ipv4Addr::new(203, 0, 113, 0), 24, "an address for documentation"),
    (Ipv4Addr::new(224, 0, 0, 0), 4, "a multicast address"),
    (Ipv4Addr::new(240, 0, 0, 0), 4, "a reserved address"),
];

const REFUSED_V6: &[(Ipv6Addr, u32, &str)] = &[
    (Ipv6Addr::UNSPECIFIED, 128, "an unspecified address"),
    (Ipv6Addr::LOCALHOST, 128, "a loopback address"),
    (Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48, "a private address"),
    (Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0), 64, "a reserved address"),
    // Teredo and the rest of the IETF's own block.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, "a reserved address"),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, "an address for documentation"),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, "an address for documentation"),
    (Ipv6Addr::new(0x5f00, 0, 0, 0, 0, 0, 0, 0), 16, "a reserved address"),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, "a unique local address"),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, "a link-local address"),
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10, "a site-local address"),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, "a multicast address"),
];

/// What an address is, where it is nothing to be reached without being allowed: "a loopback address".
fn refusal(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => {
            let bits = u32::from(address);
            let within = |network: Ipv4Addr, length: u32| (bits ^ u32::from(network)) >> (32 - length) == 0;
            REFUSED_V4.iter().find(|(network, length, _)| within(*network, *length)).map(|(_, _, what)| *what)
        }
        IpAddr::V6(address) => {
            let bits = u128::from(address);
            let within = |network: Ipv6Addr, length: u32| (bits ^ u128::from(network)) >> (128 - length) == 0;
            let found = REFUSED_V6.iter().find(|(network, length, _)| within(*network, *length));
            found.map(|(_, _, what)| *what).or_else(|| refusal(IpAddr::V4(inside(address)?)))
        }
    }
}

/// The IPv4 address that packets to this one end at: IPv4-mapped, -compatible and -translated (RFC 4291, RFC 2765),
/// NAT64 (RFC 6052) and 6to4 (RFC 3056).
fn inside(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let parts = address.segments();
    let (high, low) = match parts {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => (high, low),
        _ => return None,
    };
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    Some(Ipv4Addr::new(a, b, c, d))
}

/// What somebody allowed beyond public addresses: networks, addresses, hosts by their exact name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allow {
    networks: Vec<IpNet>,
    hosts: Vec<String>,
}

impl Allow {
    /// Reads `10.0.0.0/8`, `fd00::/8`, `127.0.0.1` and `hooks.internal`.
    ///
    /// # Errors
    /// The first entry that is none of these.
    pub fn parse<T: AsRef<str>>(entries: impl IntoIterator<Item = T>) -> Result<Self, String> {
        let mut allow = Self::default();
        for entry in entries {
            let entry = entry.as_ref();
            if let Ok(network) = entry.parse::<IpNet>() {
                allow.networks.push(network);
            } else if let Ok(address) = entry.parse::<IpAddr>() {
                allow.networks.push(address.into());
            } else if is_host(entry) {
                allow.hosts.push(entry.to_ascii_lowercase());
            } else {
                return Err(format!(
                    "`allow`: `{entry}` is no network such as 10.0.0.0/8, no address and no host name"
                ));
            }
        }
        Ok(allow)
    }

    /// Whether a request for this host of a URL may be made to this address, which it is written as or resolves to.
    ///
    /// # Errors
    /// It may not: why, and what to write to allow it.
    pub fn check(&self, host: &str, address: IpAddr) -> Result<(), String> {
        let Some(what) = refusal(address) else { return Ok(()) };
        let ended = match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => inside(address).map(IpAddr::V4),
        };
        let named = self.hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host));
        let within = |network: &IpNet| {
            network.contains(&address) || ended.is_some_and(|ended| network.contains(&ended))
        };
        if named || self.networks.iter().any(within) {
            return Ok(());
        }
        Err(format!(
            "{host} is {address}, {what}, to which nothing is sent unless it is allowed: if that is meant, add \
             `allow: [\"{address}\"]` to the target's `webhook` in refit.yaml"
        ))
    }
}

fn is_host(text: &str) -> bool {
    // What ends in a number is an address to every reader of URLs, and was none above.
    let number = text.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    !text.is_empty() && text.len() <= 253 && !number && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_public_is_refused_in_every_form() {
        for refused in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.100.100.200",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "100::1",
            "2001:db8::1",
            "2001::1",
            "2001:1ff::1",
            "3fff::1",
            "5f00::1",
            // Mapped, compatible, translated, NAT64, 6to4.
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "::10.0.0.1",
            "::ffff:0:127.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "2002:c0a8:101:1::1",
        ] {
            assert!(refusal(refused.parse().unwrap()).is_some(), "{refused} is taken for public");
        }
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.15",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::1",
            "2001:200::1",
            "::ffff:1.1.1.1",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
        ] {
            assert_eq!(refusal(public.parse().unwrap()), None, "{public}");
        }
    }

    #[test]
    fn what_is_allowed_is_a_network_an_address_or_a_host_by_name() {
        let allow = Allow::parse(["10.0.0.0/8", "127.0.0.1", "fd00::/8", "Hooks.internal"]).unwrap();
        let check = |host: &str, address: &str| allow.check(host, address.parse().unwrap());
        for (host, address) in [
            ("a", "10.9.8.7"),
            ("a", "::ffff:10.9.8.7"),
            ("a", "127.0.0.1"),
            ("a", "fd12::1"),
            ("hooks.INTERNAL", "192.168.0.1"),
            ("a", "1.1.1.1"),
        ] {
            check(host, address).unwrap();
        }
        for (host, address) in [("a", "127.0.0.2"), ("hooks.internal.evil", "192.168.0.1"), ("a", "fc00::1")]
        {
            check(host, address).unwrap_err();
        }
        let told = check("evil.example", "169.254.169.254").unwrap_err();
        assert!(told.contains("link-local") && told.contains(r#"allow: ["169.254.169.254"]"#), "{told}");
        for wrong in ["", "10.0.0.0/33", "10.0.0", "127.1", "a b", "http://x", "*.internal"] {
            assert!(Allow::parse([wrong]).is_err(), "{wrong} was accepted");
        }
    }
}

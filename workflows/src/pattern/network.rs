//! Networks in CIDR notation, as in `10.0.0.0/8`. Never mixes the families: no IPv4 address is in an IPv6 network.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The addresses that share their leading bits with one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Network {
    V4 { leading: u32, mask: u32 },
    V6 { leading: u128, mask: u128 },
}

impl Network {
    /// Parses `ADDRESS/BITS`. Bits of the address beyond those that count are ignored. `None` when it is malformed.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        // Digits only: `/08` and `/+8` read differently elsewhere.
        if !bits.bytes().all(|byte| byte.is_ascii_digit()) || (bits.len() > 1 && bits.starts_with('0')) {
            return None;
        }
        let bits: u32 = bits.parse().ok()?;
        if let Ok(address) = address.parse::<Ipv4Addr>() {
            let mask = u32::MAX.checked_shl(u32::BITS.checked_sub(bits)?).unwrap_or(0);
            return Some(Self::V4 { leading: address.to_bits() & mask, mask });
        }
        let address: Ipv6Addr = address.parse().ok()?;
        let mask = u128::MAX.checked_shl(u128::BITS.checked_sub(bits)?).unwrap_or(0);
        Some(Self::V6 { leading: address.to_bits() & mask, mask })
    }

    /// Whether a string is an address of this network.
    pub(super) fn contains(&self, text: &str) -> bool {
        match *self {
            Self::V4 { leading, mask } => {
                text.parse::<Ipv4Addr>().is_ok_and(|address| address.to_bits() & mask == leading)
            }
            Self::V6 { leading, mask } => {
                text.parse::<Ipv6Addr>().is_ok_and(|address| address.to_bits() & mask == leading)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_their_own_addresses_and_no_others() {
        for (network, address, inside) in [
            ("10.1.2.3/8", "10.255.0.1", true),
            ("10.1.2.3/8", "11.0.0.0", false),
            ("10.1.2.3/32", "10.1.2.3", true),
            ("10.1.2.3/32", "10.1.2.2", false),
            ("10.1.2.3/31", "10.1.2.2", true),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "::1", false),
            ("0.0.0.0/0", "10", false),
            ("::/0", "10.0.0.1", false),
            ("::/0", "FE80::1", true),
            ("2001:db8::/33", "2001:db8:8000::", false),
            ("2001:db8::1/128", "2001:db8:0:0::1", true),
        ] {
            assert_eq!(Network::parse(network).unwrap().contains(address), inside, "{address} in {network}");
        }
        for malformed in [
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/08",
            "10.0.0.0/+8",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "10.0.0.0",
            "10.0.0/8",
            "010.0.0.0/8",
            "10.0.0.0/8/",
            "/8",
            "",
            "10.0.0.0/99999999999",
        ] {
            assert_eq!(Network::parse(malformed), None, "{malformed}");
        }
    }
}

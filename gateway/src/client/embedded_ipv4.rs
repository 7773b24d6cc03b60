//! Finds IPv4 addresses that are embedded in IPv6 addresses, as translators and tunnels write them.
//!
//! The embedded address is not trusted. A caller may choose an IPv6 address of such a form, but that only subjects it
//! to the rules for the IPv4 address as well.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smallvec::SmallVec;

/// Returns the IPv4 address that is embedded in one of these forms: NAT64's well-known prefix (`64:ff9b::/96`, RFC 6052
/// section 2.1), translated (`::ffff:0:0:0/96`, RFC 2765 section 2.1), 6to4 (`2002::/16`, RFC 3056 section 2), Teredo's
/// client (`2001::/32`, RFC 4380 section 4), and the old compatible form (`::/96`, RFC 4291 section 2.5.5.1). The
/// mapped form (`::ffff:0:0/96`) is not included, because `to_canonical` has converted it before.
pub(crate) fn of(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let bits = ip.to_bits();
    let high = bits >> 32;
    let low = bits as u32;
    const WELL_KNOWN: u128 = 0x0064_ff9b << 64;
    const TRANSLATED: u128 = 0xffff << 16;
    let found = match ip.segments() {
        [0x2002, high, low, ..] => (u32::from(high) << 16) | u32::from(low),
        // Teredo inverts the bits, so that no translator on the way changes them.
        [0x2001, 0, ..] => !low,
        _ if high == WELL_KNOWN || high == TRANSLATED => low,
        // `::` and `::1` are not IPv4 addresses.
        _ if high == 0 && low > 1 => low,
        _ => return None,
    };
    Some(Ipv4Addr::from_bits(found))
}

/// Returns every IPv4 address that this address may embed or be.
///
/// The prefix for local translators (`64:ff9b:1::/48`, RFC 8215) contains networks of several lengths, and an address
/// does not tell the length. So every position where RFC 6052 section 2.2 puts the four bytes counts.
pub(crate) fn all(ip: IpAddr) -> SmallVec<[Ipv4Addr; 4]> {
    let ip = match ip.to_canonical() {
        IpAddr::V4(ip) => return SmallVec::from_slice(&[ip]),
        IpAddr::V6(ip) => ip,
    };
    if ip.segments()[..3] != [0x64, 0xff9b, 1] {
        return of(ip).into_iter().collect();
    }
    let octets = ip.octets();
    // Byte 8 is skipped, because bits 64 to 71 are zero.
    let places: [[usize; 4]; 4] = [[6, 7, 9, 10], [7, 9, 10, 11], [9, 10, 11, 12], [12, 13, 14, 15]];
    places
        .into_iter()
        .map(|places| Ipv4Addr::from(places.map(|place| octets[place])))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_gives_its_address() {
        let check = |ip: &str, expected: &[&str]| {
            let found = all(ip.parse().unwrap());
            let expected: Vec<Ipv4Addr> = expected.iter().map(|ip| ip.parse().unwrap()).collect();
            assert_eq!(found.as_slice(), expected, "{ip}");
        };
        check("192.0.2.33", &["192.0.2.33"]);
        check("::ffff:192.0.2.33", &["192.0.2.33"]);
        check("64:ff9b::192.0.2.33", &["192.0.2.33"]);
        check("64:ff9b:0:0:0:1:c000:221", &[]);
        check("64:ff9b:2::192.0.2.33", &[]);
        check("::ffff:0:192.0.2.33", &["192.0.2.33"]);
        check("::192.0.2.33", &["192.0.2.33"]);
        check("::", &[]);
        check("::1", &[]);
        check("2002:c000:221::1", &["192.0.2.33"]);
        check("2002:c000:221:ffff:ffff::", &["192.0.2.33"]);
        // RFC 4380 section 4, example of section 5.2.4: client 192.0.2.45 behind server 65.54.227.120.
        check("2001:0:4136:e378:8000:63bf:3fff:fdd2", &["192.0.2.45"]);
        check("2001:db8::c000:221", &[]);
        check("2001:1::c000:221", &[]);
        check("fe80::c000:221", &[]);
        // RFC 6052 section 2.4, with the local prefix in place of the documentation's.
        let among = |ip: &str| all(ip.parse().unwrap()).contains(&"192.0.2.33".parse().unwrap());
        assert!(among("64:ff9b:1:c000:2:2100::"));
        assert!(among("64:ff9b:1:1c0:0:221::"));
        assert!(among("64:ff9b:1:1:c0:2:2100:0"));
        assert!(among("64:ff9b:1:fffe::192.0.2.33"));
        assert!(!among("64:ff9b:1:fffe::192.0.2.34"));
    }
}

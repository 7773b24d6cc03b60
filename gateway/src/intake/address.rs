//! Whose address a request counts against: the peer's, unless the peer is a proxy that we were told to believe.
//!
//! Invariant: an address is believed only if a trusted proxy wrote it. Fields are read from the right, where the
//! nearest proxy wrote, and reading stops at the first address that is not a trusted proxy's; everything to its left
//! came from outside, and may be a lie.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

use super::headers::X_FORWARDED_FOR;

/// Proxies read through at most; behind more, the last of them is the client.
const MOST_HOPS: usize = 32;

/// The networks whose word on a client's address is believed.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies {
    networks: Box<[IpNet]>,
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress {
    /// The client's, as far as it can be believed.
    pub ip: IpAddr,
    /// The other end of the connection.
    pub peer: IpAddr,
    /// Whether the peer is one of the trusted proxies.
    pub trusted_peer: bool,
}

impl TrustedProxies {
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        Self {
            networks: networks.into_iter().collect(),
        }
    }

    /// `ip` may be IPv4 mapped into IPv6.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.networks.iter().any(|network| network.contains(&ip))
    }

    /// The client's address, from `X-Forwarded-For`, or from `Forwarded` (RFC 7239) if there is none.
    ///
    /// A proxy that writes only one of the two would pass the other on as the client sent it, so they are never mixed.
    /// An entry that is no address (`unknown`, an obfuscated name, garbage) ends the reading.
    pub fn client_address(&self, peer: SocketAddr, headers: &HeaderMap) -> ClientAddress {
        let peer = peer.ip().to_canonical();
        let trusted_peer = self.contains(peer);
        if !trusted_peer {
            return ClientAddress {
                ip: peer,
                peer,
                trusted_peer,
            };
        }
        let ip = if headers.contains_key(&X_FORWARDED_FOR) {
            self.walk(peer, entries(headers, &X_FORWARDED_FOR).map(address))
        } else {
            self.walk(
                peer,
                entries(headers, &FORWARDED).map(|element| address(for_parameter(element)?)),
            )
        };
        ClientAddress { ip, peer, trusted_peer }
    }

    /// `hops` from the nearest on.
    fn walk(&self, peer: IpAddr, hops: impl Iterator<Item = Option<IpAddr>>) -> IpAddr {
        let mut nearest = peer;
        for hop in hops.take(MOST_HOPS) {
            let Some(ip) = hop else { break };
            nearest = ip;
            if !self.contains(ip) {
                break;
            }
        }
        nearest
    }
}

/// What limits per address count by: IPv6 by network, because one client commonly has a whole /64 to choose from.
///
/// `ipv6_prefix` in bits, 0 to 128; more is taken as 128.
pub fn key(ip: IpAddr, ipv6_prefix: u8) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => {
            let mask = u128::MAX
                .checked_shl(128_u32.saturating_sub(u32::from(ipv6_prefix)))
                .unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & mask))
        }
        ip => ip,
    }
}

/// The elements of a list field over all its lines, last first. A line that is not text ends the list.
fn entries<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    let lines = headers.get_all(name).iter().rev();
    lines.flat_map(|line| Backwards {
        left: Some(line.to_str().unwrap_or("?")),
    })
}

/// Splits at commas outside quotes, from the right. An escaped quote can mislead it only further left.
struct Backwards<'a> {
    left: Option<&'a str>,
}

impl<'a> Iterator for Backwards<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let text = self.left.take()?;
        let mut quoted = false;
        for (at, byte) in text.bytes().enumerate().rev() {
            match byte {
                b'"' => quoted = !quoted,
                b',' if !quoted => {
                    self.left = Some(&text[..at]);
                    return Some(text[at + 1..].trim());
                }
                _ => {}
            }
        }
        Some(text.trim())
    }
}

/// The `for` parameter of a `Forwarded` element, without its quotes.
fn for_parameter(element: &str) -> Option<&str> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let unquoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        name.trim()
            .eq_ignore_ascii_case("for")
            .then_some(unquoted.unwrap_or(value))
    })
}

/// `192.0.2.1`, `2001:db8::1`, `[2001:db8::1]`, and either bracketed or IPv4 with a port.
fn address(text: &str) -> Option<IpAddr> {
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    text.parse()
        .ok()
        .or_else(with_port)
        .or_else(bracketed)
        .map(|ip: IpAddr| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn proxies() -> TrustedProxies {
        TrustedProxies::new(["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().expect("a network")))
    }

    fn client(peer: &str, lines: &[(&HeaderName, &str)]) -> ClientAddress {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
        }
        proxies().client_address(SocketAddr::new(ip(peer), 40_000), &headers)
    }

    fn check(peer: &str, lines: &[(&HeaderName, &str)], expected: &str) {
        assert_eq!(client(peer, lines).ip, ip(expected), "{peer} with {lines:?}");
    }

    #[test]
    fn only_trusted_peers_are_believed() {
        check("192.0.2.1", &[(&X_FORWARDED_FOR, "1.2.3.4")], "192.0.2.1");
        check("192.0.2.1", &[(&FORWARDED, "for=1.2.3.4")], "192.0.2.1");
        check("10.0.0.1", &[(&X_FORWARDED_FOR, "1.2.3.4")], "1.2.3.4");
        check("10.0.0.1", &[(&FORWARDED, "for=1.2.3.4")], "1.2.3.4");
        check("::ffff:10.0.0.1", &[(&X_FORWARDED_FOR, "1.2.3.4")], "1.2.3.4");
        check("10.0.0.1", &[], "10.0.0.1");
        assert!(client("fd00::1", &[]).trusted_peer && !client("192.0.2.1", &[]).trusted_peer);
    }

    #[test]
    fn the_walk_ends_at_the_first_stranger() {
        let xff = &X_FORWARDED_FOR;
        check("10.0.0.1", &[(xff, "6.6.6.6, 1.2.3.4, 10.0.0.2")], "1.2.3.4");
        check("10.0.0.1", &[(xff, "6.6.6.6"), (xff, "1.2.3.4, 10.0.0.2")], "1.2.3.4");
        check("10.0.0.1", &[(xff, "10.0.0.3, 10.0.0.2")], "10.0.0.3");
        check("10.0.0.1", &[(xff, "1.2.3.4, unknown, 10.0.0.2")], "10.0.0.2");
        check("10.0.0.1", &[(xff, "1.2.3.4, , 10.0.0.2")], "10.0.0.2");
        check("10.0.0.1", &[(xff, "")], "10.0.0.1");
        check("10.0.0.1", &[(xff, "1.2.3.4\u{e9}")], "10.0.0.1");
        check("10.0.0.1", &[(xff, "01.2.3.4")], "10.0.0.1");
        check("10.0.0.1", &[(xff, "1.2.3.4"), (&FORWARDED, "for=6.6.6.6")], "1.2.3.4");
    }

    #[test]
    fn addresses_come_in_many_spellings() {
        for text in ["2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:443"] {
            check("10.0.0.1", &[(&X_FORWARDED_FOR, text)], "2001:db8::1");
        }
        check("10.0.0.1", &[(&X_FORWARDED_FOR, "1.2.3.4:5678")], "1.2.3.4");
        check("10.0.0.1", &[(&X_FORWARDED_FOR, "::ffff:1.2.3.4")], "1.2.3.4");
        let forwarded = |value| check("10.0.0.1", &[(&FORWARDED, value)], "2001:db8::1");
        forwarded("for=\"[2001:db8::1]\"");
        forwarded("by=10.0.0.9; For=\"[2001:db8::1]:4711\";proto=https, for=10.0.0.2");
        forwarded("for=6.6.6.6, for=\"[2001:db8::1]\";host=\"a,b;for=7.7.7.7\"");
        check("10.0.0.1", &[(&FORWARDED, "for=_hidden, for=10.0.0.2")], "10.0.0.2");
        check("10.0.0.1", &[(&FORWARDED, "proto=https")], "10.0.0.1");
    }

    #[test]
    fn the_walk_is_bounded() {
        let chain = format!("1.2.3.4{}", ", 10.0.0.2".repeat(MOST_HOPS));
        check("10.0.0.1", &[(&X_FORWARDED_FOR, &chain)], "10.0.0.2");
    }

    #[test]
    fn ipv6_counts_by_network() {
        assert_eq!(key(ip("2001:db8:1:2:3:4:5:6"), 64), ip("2001:db8:1:2::"));
        assert_eq!(key(ip("2001:db8:1:2:3:4:5:6"), 56), ip("2001:db8:1::"));
        assert_eq!(key(ip("2001:db8::6"), 128), ip("2001:db8::6"));
        assert_eq!(key(ip("2001:db8::6"), 200), ip("2001:db8::6"));
        assert_eq!(key(ip("2001:db8::6"), 0), ip("::"));
        assert_eq!(key(ip("192.0.2.7"), 64), ip("192.0.2.7"));
        assert_eq!(key(ip("::ffff:192.0.2.7"), 64), ip("192.0.2.7"));
    }

    proptest! {
        #![proptest_config(cases::counted())]

        #[test]
        fn what_a_stranger_writes_changes_nothing(lie in "[ -~]{0,60}", client in any::<u32>()) {
            let honest = IpAddr::from(client.to_be_bytes());
            prop_assume!(!proxies().contains(honest));
            let lines = [(&X_FORWARDED_FOR, lie.as_str()), (&X_FORWARDED_FOR, &honest.to_string())];
            check("10.0.0.1", &lines, &honest.to_string());
            let line = format!("{lie}, for={honest};proto=http");
            check("10.0.0.1", &[(&FORWARDED, &line)], &honest.to_string());
        }
    }
}

//! Determines the client address of a request: the peer's address, unless the peer is a trusted proxy.
//!
//! Invariant: an address is believed only if a trusted proxy wrote it. Header fields are read from the right, where the
//! nearest proxy has written. Reading stops at the first address that is not a trusted proxy's. Everything to its left
//! comes from outside: it may be false, and it may not even be text. If the entry of a trusted proxy cannot be read,
//! the result is the address of a proxy and is marked as such.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::header::FORWARDED;
use http::{HeaderName, HeaderValue};
use ipnet::IpNet;

use crate::client::embedded_ipv4;
use crate::header_fields::X_FORWARDED_FOR;
use crate::message::FieldMap;

/// Maximum number of proxies that are read through. Behind more, the last of these counts as the client.
const MOST_HOPS: usize = 32;

/// Networks whose proxies are trusted to name the client's address.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies {
    networks: Box<[IpNet]>,
}

/// Addresses of the client and the peer of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress {
    /// Client's address, as far as it can be believed.
    pub ip: IpAddr,
    /// Address at the other end of the connection.
    pub peer: IpAddr,
    /// Whether the peer is one of the trusted proxies.
    pub trusted_peer: bool,
    /// Whether `ip` is the client's address. False if a trusted proxy's entry cannot be read, or if a load balancer has
    /// not named its client. Then `ip` is the address of that proxy or load balancer.
    pub is_known: bool,
}

impl ClientAddress {
    /// Makes the address of a request from a load balancer that forwards bytes unchanged and has not named its client.
    /// Header fields are ignored then, because the client wrote them.
    pub fn unknown(peer: SocketAddr) -> Self {
        let peer = peer.ip().to_canonical();
        Self {
            ip: peer,
            peer,
            trusted_peer: false,
            is_known: false,
        }
    }
}

impl TrustedProxies {
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        Self {
            networks: networks.into_iter().collect(),
        }
    }

    /// Whether a trusted network contains the address. Accepts IPv4-mapped IPv6.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.networks.iter().any(|network| network.contains(&ip))
    }

    /// Returns the client's address from `X-Forwarded-For`, or from `Forwarded` (RFC 7239) if the former is absent.
    ///
    /// The two are never mixed, because a proxy that writes only one of them forwards the other as the client sent it.
    /// An entry that is not an address (`unknown`, an obfuscated name, garbage) ends the reading.
    pub fn client_address(&self, peer: SocketAddr, headers: &FieldMap) -> ClientAddress {
        let peer = peer.ip().to_canonical();
        let trusted_peer = self.contains(peer);
        let (ip, is_known) = if !trusted_peer {
            (peer, true)
        } else if headers.contains_key(&X_FORWARDED_FOR) {
            let entries = lines(headers, &X_FORWARDED_FOR).flat_map(|line| line.rsplit(|byte| *byte == b','));
            self.walk(peer, entries.map(<[u8]>::trim_ascii), address)
        } else {
            let entries = lines(headers, &FORWARDED).flat_map(|line| Backwards { left: Some(line) });
            self.walk(peer, entries.map(<[u8]>::trim_ascii), |entry| {
                address(for_parameter(entry)?)
            })
        };
        ClientAddress {
            ip,
            peer,
            trusted_peer,
            is_known,
        }
    }

    /// Reads `entries` from the nearest proxy on. Returns the last address, and whether it is the client's.
    fn walk<'h>(
        &self,
        peer: IpAddr,
        entries: impl Iterator<Item = &'h [u8]>,
        read: impl Fn(&'h [u8]) -> Option<IpAddr>,
    ) -> (IpAddr, bool) {
        // RFC 9110 section 5.6.1.2: empty elements of a list are ignored.
        let mut entries = entries.filter(|entry| !entry.is_empty());
        let mut nearest = peer;
        for _ in 0..MOST_HOPS {
            match entries.next().map(&read) {
                None => return (nearest, true),
                Some(None) => return (nearest, false),
                Some(Some(ip)) => nearest = ip,
            }
            if !self.contains(nearest) {
                return (nearest, true);
            }
        }
        (nearest, entries.next().is_none())
    }
}

/// Returns the address that limits per client use. An IPv6 address is cut to its network, because one client commonly
/// has a whole /64. An IPv6 address that embeds an IPv4 address counts as the IPv4 address, because a translator's
/// clients all share one network, or each has many.
///
/// `ipv6_prefix` is a number of bits, 0 to 128. A larger number counts as 128.
pub fn key(ip: IpAddr, ipv6_prefix: u8) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => match embedded_ipv4::of(ip) {
            Some(ip) => IpAddr::V4(ip),
            None => {
                let mask = u128::MAX
                    .checked_shl(128_u32.saturating_sub(u32::from(ipv6_prefix)))
                    .unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & mask))
            }
        },
        ip => ip,
    }
}

/// Returns the lines of a field, last first. They may hold bytes that are not text; only entries that are read must be
/// text.
fn lines<'h>(headers: &'h FieldMap, name: &HeaderName) -> impl Iterator<Item = &'h [u8]> {
    headers.get_all(name).iter().rev().map(HeaderValue::as_bytes)
}

/// Splits at commas outside quotes, starting from the right. An unclosed quote further left therefore has no effect.
struct Backwards<'a> {
    left: Option<&'a [u8]>,
}

impl<'a> Iterator for Backwards<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let text = self.left.take()?;
        let mut quoted = false;
        for (at, byte) in text.iter().enumerate().rev() {
            match byte {
                b'"' if !is_escaped(text, at) => quoted = !quoted,
                b',' if !quoted => {
                    self.left = Some(&text[..at]);
                    return Some(&text[at + 1..]);
                }
                _ => {}
            }
        }
        Some(text)
    }
}

/// Whether the byte at this index is escaped by a backslash (RFC 9110 section 5.6.4).
fn is_escaped(text: &[u8], at: usize) -> bool {
    let backslashes = text[..at].iter().rev().take_while(|byte| **byte == b'\\').count();
    backslashes % 2 == 1
}

/// Returns the only `for` parameter of a `Forwarded` element, without its quotes. Parameters are separated by
/// semicolons outside quotes, because some parameters hold text of the client (`host`).
fn for_parameter(element: &[u8]) -> Option<&[u8]> {
    let (mut start, mut quoted, mut found) = (0, false, None);
    for at in 0..=element.len() {
        match element.get(at) {
            Some(b'"') if !is_escaped(element, at) => quoted = !quoted,
            None | Some(b';') if !quoted => {
                let pair = &element[start..at];
                start = at + 1;
                let Some(equals) = pair.iter().position(|byte| *byte == b'=') else {
                    continue;
                };
                let (name, value) = (pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii());
                if name.eq_ignore_ascii_case(b"for") && found.replace(value).is_some() {
                    // RFC 7239 section 4: a parameter appears at most once in an element.
                    return None;
                }
            }
            _ => {}
        }
    }
    let value = found.filter(|_| !quoted)?;
    Some(
        value
            .strip_prefix(b"\"")
            .and_then(|value| value.strip_suffix(b"\""))
            .unwrap_or(value),
    )
}

/// Parses `192.0.2.1`, `2001:db8::1` or `[2001:db8::1]`. The first and the last may have a port.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(bytes).ok()?;
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
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn proxies() -> TrustedProxies {
        TrustedProxies::new(["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().expect("a network")))
    }

    fn client(peer: &str, lines: &[(&HeaderName, &str)]) -> ClientAddress {
        let mut headers = FieldMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
        }
        proxies().client_address(SocketAddr::new(ip(peer), 40_000), &headers)
    }

    fn check(peer: &str, lines: &[(&HeaderName, &str)], expected: &str) {
        let found = client(peer, lines);
        assert_eq!(
            (found.ip, found.is_known),
            (ip(expected), true),
            "{peer} with {lines:?}"
        );
    }

    /// Expects that only the address of a proxy is known.
    fn check_unknown(peer: &str, lines: &[(&HeaderName, &str)], proxy: &str) {
        let found = client(peer, lines);
        assert_eq!((found.ip, found.is_known), (ip(proxy), false), "{peer} with {lines:?}");
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
        check("10.0.0.1", &[(xff, "1.2.3.4"), (&FORWARDED, "for=6.6.6.6")], "1.2.3.4");
    }

    #[test]
    fn empty_elements_are_passed_over() {
        let xff = &X_FORWARDED_FOR;
        for list in [
            "1.2.3.4, , 10.0.0.2",
            "1.2.3.4,,,\t,10.0.0.2,",
            ",1.2.3.4 ,",
            "1.2.3.4, ",
        ] {
            check("10.0.0.1", &[(xff, list)], "1.2.3.4");
            check("10.0.0.1", &[(xff, list), (xff, "")], "1.2.3.4");
            check("10.0.0.1", &[(xff, "6.6.6.6"), (xff, list)], "1.2.3.4");
        }
        check("10.0.0.1", &[(&FORWARDED, "for=1.2.3.4, , for=10.0.0.2,")], "1.2.3.4");
        for list in ["", ",", " , ,, "] {
            check("10.0.0.1", &[(xff, list)], "10.0.0.1");
            check("10.0.0.1", &[(&FORWARDED, list)], "10.0.0.1");
        }
        let many = format!("1.2.3.4{}", ",".repeat(10_000));
        check("10.0.0.1", &[(xff, &many)], "1.2.3.4");
    }

    #[test]
    fn what_a_trusted_proxy_wrote_and_cannot_be_read_leaves_no_client() {
        let xff = &X_FORWARDED_FOR;
        for last in [
            "unknown",
            "_hidden",
            "01.2.3.4",
            "1.2.3",
            "1.2.3.4\u{e9}",
            "1.2.3.4 5.6.7.8",
            "1.2.3.4;5.6.7.8",
            "\"1.2.3.4\"",
            "1.2.3.4:port",
            "[1.2.3.4]",
            "[2001:db8::1",
            "2001:db8::1::",
            "fe80::1%eth0",
            "client.example",
            "-",
        ] {
            check_unknown("10.0.0.1", &[(xff, last)], "10.0.0.1");
            check_unknown("10.0.0.1", &[(xff, &format!("1.2.3.4, {last}"))], "10.0.0.1");
            check_unknown("10.0.0.1", &[(xff, "1.2.3.4"), (xff, last)], "10.0.0.1");
            check_unknown("10.0.0.1", &[(xff, &format!("1.2.3.4, {last}, 10.0.0.2"))], "10.0.0.2");
            check("192.0.2.1", &[(xff, last)], "192.0.2.1");
        }
        for last in [
            "proto=https",
            "for",
            "for=",
            "for=unknown",
            "for=_hidden",
            "for=1.2.3.4;for=5.6.7.8",
            "for=\"1.2.3.4",
            "for=\"1.2.3.4\";host=\"a",
            "for=\"1.2\\.3.4\"",
            "1.2.3.4",
            ";",
        ] {
            check_unknown("10.0.0.1", &[(&FORWARDED, last)], "10.0.0.1");
            check_unknown(
                "10.0.0.1",
                &[(&FORWARDED, &format!("{last}, for=10.0.0.2"))],
                "10.0.0.2",
            );
        }
    }

    #[test]
    fn what_is_no_text_to_the_left_hides_nobody() {
        for lie in [
            "\u{e9}",
            "caf\u{e9}, 6.6.6.6",
            "\"",
            "for=\"",
            "\\",
            "x\\\"",
            "\u{80}\u{ff}",
        ] {
            check("10.0.0.1", &[(&X_FORWARDED_FOR, &format!("{lie}, 1.2.3.4"))], "1.2.3.4");
            check(
                "10.0.0.1",
                &[(&X_FORWARDED_FOR, &format!("{lie}, 1.2.3.4, 10.0.0.2"))],
                "1.2.3.4",
            );
            check("10.0.0.1", &[(&FORWARDED, &format!("{lie}, for=1.2.3.4"))], "1.2.3.4");
        }
    }

    #[test]
    fn what_a_proxy_repeats_of_the_client_stays_within_its_quotes() {
        for host in [
            "a;for=6.6.6.6",
            "a,for=6.6.6.6",
            "\\\",for=6.6.6.6;x=\\\"",
            "\\\\\\\", for=6.6.6.6, \\\"",
        ] {
            check(
                "10.0.0.1",
                &[(&FORWARDED, &format!("for=1.2.3.4;host=\"{host}\""))],
                "1.2.3.4",
            );
            check(
                "10.0.0.1",
                &[(&FORWARDED, &format!("host=\"{host}\";for=1.2.3.4"))],
                "1.2.3.4",
            );
        }
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
    }

    #[test]
    fn the_walk_is_bounded() {
        let chain = |hops| format!("1.2.3.4{}", ", 10.0.0.2".repeat(hops));
        check("10.0.0.1", &[(&X_FORWARDED_FOR, &chain(MOST_HOPS - 1))], "1.2.3.4");
        check_unknown("10.0.0.1", &[(&X_FORWARDED_FOR, &chain(MOST_HOPS))], "10.0.0.2");
        let all_proxies = chain(MOST_HOPS).replace("1.2.3.4, ", "");
        check("10.0.0.1", &[(&X_FORWARDED_FOR, &all_proxies)], "10.0.0.2");
    }

    #[test]
    fn ipv6_counts_by_network() {
        assert_eq!(key(ip("2001:db8:1:2:3:4:5:6"), 64), ip("2001:db8:1:2::"));
        assert_eq!(key(ip("2001:db8:1:2:3:4:5:6"), 56), ip("2001:db8:1::"));
        assert_eq!(key(ip("2001:db8::6"), 128), ip("2001:db8::6"));
        assert_eq!(key(ip("2001:db8::6"), 200), ip("2001:db8::6"));
        assert_eq!(key(ip("2001:db8::6"), 0), ip("::"));
        assert_eq!(key(ip("192.0.2.7"), 64), ip("192.0.2.7"));
        for same in [
            "::ffff:192.0.2.7",
            "64:ff9b::192.0.2.7",
            "2002:c000:207::1",
            "2002:c000:207:ffff::1",
        ] {
            assert_eq!(key(ip(same), 64), ip("192.0.2.7"), "{same}");
        }
        assert_eq!(key(ip("64:ff9b:1::192.0.2.7"), 64), ip("64:ff9b:1::"));
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

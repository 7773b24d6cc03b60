//! Checks that an address is believed only if a trusted proxy wrote it.

use std::net::SocketAddr;

use gateway::client::address::{TrustedProxies, key};

pub fn check(data: &[u8]) {
    let Some((flags, lines)) = crate::split_flags(data) else {
        return;
    };
    let headers = crate::header_lines(lines);
    let trusted = TrustedProxies::new(["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().expect("a network")));
    let peer: SocketAddr = ["10.0.0.1:1", "192.0.2.1:1", "[fd00::1]:1", "[::ffff:10.0.0.1]:1"][usize::from(flags) % 4]
        .parse()
        .expect("an address");
    let found = trusted.client_address(peer, &headers);
    assert_eq!(found.peer, peer.ip().to_canonical());
    assert_eq!(found.trusted_peer, trusted.contains(peer.ip()));
    if !found.trusted_peer {
        assert_eq!(found.ip, found.peer, "a stranger's word was taken");
    }
    assert_eq!(found.ip, found.ip.to_canonical(), "an address has one spelling");
    // Nothing to the left of what a trusted proxy wrote can change the result.
    let mut lines = headers.get_all("x-forwarded-for").iter();
    if let (Some(line), None) = (lines.next(), lines.next())
        && found.ip != found.peer
        && !trusted.contains(found.ip)
    {
        let lied = [b"203.0.113.99, ".as_slice(), line.as_bytes()].concat();
        let mut forged = headers.clone();
        forged.insert(
            "x-forwarded-for",
            http::HeaderValue::from_bytes(&lied).expect("still a value"),
        );
        let believed = trusted.client_address(peer, &forged).ip;
        assert_eq!(believed, found.ip, "what stands to the left was believed");
    }
    for prefix in [0, 48, 64, 128, 255] {
        let network = key(found.ip, prefix);
        assert_eq!(key(network, prefix), network);
        assert!(
            network.is_ipv4() || !found.ip.is_ipv4(),
            "an address of IPv4 is one client's"
        );
    }
}

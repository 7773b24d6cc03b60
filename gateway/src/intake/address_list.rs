//! From where a route may be used.
//!
//! Invariant: what is denied stays denied, whatever is allowed beside it; and who is not on a list of those allowed is
//! not let in. It goes by the client's address as far as that can be believed (see [`super::address`]), never by what
//! a stranger writes.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::rejection::Rejection;

#[derive(Debug)]
pub struct AddressList {
    /// Absent, everyone who is not denied.
    allow: Option<Box<[IpNet]>>,
    deny: Box<[IpNet]>,
}

impl AddressList {
    pub fn new(allow: Option<impl IntoIterator<Item = IpNet>>, deny: impl IntoIterator<Item = IpNet>) -> Self {
        Self {
            allow: allow.map(|networks| networks.into_iter().collect()),
            deny: deny.into_iter().collect(),
        }
    }

    /// `ip` may be IPv4 mapped into IPv6.
    ///
    /// # Errors
    /// [`Rejection::AddressNotAllowed`].
    pub fn permits(&self, ip: IpAddr) -> Result<(), Rejection> {
        let ip = ip.to_canonical();
        let among = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&ip));
        let allowed = self.allow.as_deref().is_none_or(among);
        if allowed && !among(&self.deny) {
            Ok(())
        } else {
            Err(Rejection::AddressNotAllowed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(text: &str) -> Vec<IpNet> {
        text.split_whitespace()
            .map(|network| network.parse().expect("a network"))
            .collect()
    }

    #[test]
    fn denied_beats_allowed_and_a_list_leaves_out_the_rest() {
        let check = |allow: Option<&str>, deny, ip: &str, expected| {
            let list = AddressList::new(allow.map(networks), networks(deny));
            let permitted = list.permits(ip.parse().expect("an address")).is_ok();
            assert_eq!(permitted, expected, "{allow:?} {deny:?} {ip}");
        };
        check(None, "", "192.0.2.1", true);
        check(None, "192.0.2.0/24", "192.0.2.1", false);
        check(None, "192.0.2.0/24", "192.0.3.1", true);
        check(Some("10.0.0.0/8"), "", "10.1.2.3", true);
        check(Some("10.0.0.0/8"), "", "11.1.2.3", false);
        check(Some("10.0.0.0/8"), "10.6.6.0/24", "10.6.6.6", false);
        check(Some("10.6.6.6/32"), "10.6.6.0/24", "10.6.6.6", false);
        check(Some("10.0.0.0/8 2001:db8::/32"), "", "2001:db8::1", true);
        check(Some("10.0.0.0/8"), "", "2001:db8::1", false);
        check(Some("10.0.0.0/8"), "", "::ffff:10.0.0.1", true);
        check(None, "10.0.0.0/8", "::ffff:10.0.0.1", false);
    }
}

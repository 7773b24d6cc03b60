//! Limits the client addresses that may use a route.
//!
//! Invariant: a denied address is refused even if it is allowed too, and an address that is not on an existing allow
//! list is refused. The client's address counts only as far as it can be believed (see [`crate::client::address`]); a
//! request whose client address is unknown is refused. A denied IPv4 address is denied in every IPv6 form that embeds
//! it (see `embedded_ipv4`). Such a form is never allowed as the IPv4 address.

use ipnet::IpNet;

use crate::client::address::ClientAddress;
use crate::client::embedded_ipv4;
use crate::rejection::Rejection;
use crate::setting::SettingId;

#[derive(Debug)]
pub struct AddressList {
    /// Allowed networks. `None` allows every address that is not denied.
    allow: Option<Box<[IpNet]>>,
    deny: Box<[IpNet]>,
    /// Setting that the list comes from.
    setting: SettingId,
}

impl AddressList {
    pub fn new(
        allow: Option<impl IntoIterator<Item = IpNet>>,
        deny: impl IntoIterator<Item = IpNet>,
        setting: SettingId,
    ) -> Self {
        Self {
            allow: allow.map(|networks| networks.into_iter().collect()),
            deny: deny.into_iter().collect(),
            setting,
        }
    }

    /// Checks whether the client may use the route.
    ///
    /// # Errors
    /// [`Rejection::AddressNotAllowed`].
    pub fn permits(&self, client: &ClientAddress) -> Result<(), Rejection> {
        let ip = client.ip.to_canonical();
        let among = |networks: &[IpNet], ip| networks.iter().any(|network| network.contains(&ip));
        let allowed = self.allow.as_deref().is_none_or(|allow| among(allow, ip));
        let denied = || {
            let mut embedded = embedded_ipv4::all(ip).into_iter();
            among(&self.deny, ip) || embedded.any(|ip| among(&self.deny, ip.into()))
        };
        if client.is_known && allowed && !denied() {
            Ok(())
        } else {
            Err(Rejection::AddressNotAllowed(self.setting))
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
            let list = AddressList::new(allow.map(networks), networks(deny), SettingId::URI);
            let ip = ip.parse().expect("an address");
            let client = |is_known| ClientAddress {
                ip,
                peer: ip,
                trusted_peer: false,
                is_known,
            };
            let permitted = list.permits(&client(true)).is_ok();
            assert_eq!(permitted, expected, "{allow:?} {deny:?} {ip}");
            assert!(list.permits(&client(false)).is_err(), "who is not known is not let in");
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
        for same in [
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::10.0.0.1",
            "64:ff9b:1:0a00:0:100::",
            "::ffff:0:10.0.0.1",
            "::10.0.0.1",
            "2002:a00:1::1",
            "2001:0:4136:e378:8000:63bf:f5ff:fffe",
        ] {
            check(None, "10.0.0.0/8", same, false);
            check(Some("::/0"), "10.0.0.1/32", same, false);
            check(Some("::/0"), "10.0.0.2/32", same, true);
            check(Some("10.0.0.0/8"), "", same, false);
        }
        check(None, "64:ff9b::/96", "64:ff9b::10.0.0.1", false);
        check(None, "64:ff9b::/96", "10.0.0.1", true);
        check(None, "0.0.0.0/8", "::1", true);
    }
}

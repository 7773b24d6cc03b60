//! Adds the fields that only the gateway may send to a backend: the caller, and where the request comes from.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::OnceLock;

use http::header::{CONNECTION, FORWARDED, TE};
use http::{HeaderName, HeaderValue, Version};
use smallvec::SmallVec;

use super::added::put_line;
use super::value_text::ValueText;
use crate::client::address::ClientAddress;
use crate::headers::{X_CALLER_ID, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, X_TENANT_ID, X_TENANT_TIER};
use crate::message::FieldMap;

/// The scheme by which a request came to the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Lines that tell who the caller is.
#[derive(Debug)]
pub struct IdentityLines(Box<[u8]>);

impl IdentityLines {
    pub fn of(tenant: &HeaderValue, tier: &HeaderValue, caller: &HeaderValue) -> Self {
        let mut lines = ValueText::default();
        put_line(&mut lines, &X_TENANT_ID, tenant.as_bytes());
        put_line(&mut lines, &X_TENANT_TIER, tier.as_bytes());
        put_line(&mut lines, &X_CALLER_ID, caller.as_bytes());
        Self((*lines.take()).into())
    }

    pub fn put(&self, text: &mut ValueText) {
        text.put(&self.0);
    }
}

/// Asks the backend for trailers. HTTP/1.1 needs `TE` in `Connection` (RFC 9110 section 10.1.4); HTTP/2 forbids it.
pub fn stamp_trailers(headers: &mut FieldMap, version: Version) {
    headers.insert(TE, HeaderValue::from_static("trailers"));
    if version < Version::HTTP_2 {
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
}

/// Lines that tell where the requests of a connection come from. They are kept for the host that is asked for first,
/// because most callers never ask another one.
#[derive(Debug, Default)]
pub struct ForwardedLines(OnceLock<Box<LinesOfHost>>);

#[derive(Debug)]
struct LinesOfHost {
    host: Box<str>,
    lines: Box<[u8]>,
}

impl ForwardedLines {
    /// Writes the client's address, scheme and host in `X-Forwarded-For`, `-Proto`, `-Host` and `Forwarded` (RFC 7239),
    /// for a peer that is not trusted. No earlier value of these fields is left after cleaning. `host` is as sent, and
    /// checked; empty if there is none.
    pub fn put(&self, text: &mut ValueText, client: &ClientAddress, scheme: Scheme, host: &str) {
        let kept = self.0.get_or_init(|| {
            let mut lines = ValueText::default();
            begin_forwarded(&mut lines, client, scheme, host);
            Box::new(LinesOfHost {
                host: host.into(),
                lines: (*lines.take()).into(),
            })
        });
        if *kept.host == *host {
            text.put(&kept.lines);
        } else {
            begin_forwarded(text, client, scheme, host);
        }
    }
}

fn begin_forwarded(text: &mut ValueText, client: &ClientAddress, scheme: Scheme, host: &str) {
    put_line(text, &X_FORWARDED_PROTO, scheme.as_str().as_bytes());
    if !host.is_empty() {
        put_line(text, &X_FORWARDED_HOST, host.as_bytes());
    }
    let address = AddressText::of(client.peer);
    put_line(text, &X_FORWARDED_FOR, address.as_bytes());
    text.put(b"forwarded: for=");
    match client.peer {
        IpAddr::V4(_) => text.put(address.as_bytes()),
        IpAddr::V6(_) => [b"\"[", address.as_bytes(), b"]\""]
            .into_iter()
            .for_each(|piece| text.put(piece)),
    }
    put_parameter(";proto=", scheme.as_str(), |piece| text.put(piece.as_bytes()));
    if !host.is_empty() {
        put_parameter(";host=", host, |piece| text.put(piece.as_bytes()));
    }
    text.put(b"\r\n");
}

/// Text of an address. Every request without a proxy needs it, and the formatting machinery would be its largest cost.
struct AddressText(SmallVec<[u8; 40]>);

impl AddressText {
    fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::of_v4(ip),
            IpAddr::V6(ip) => Self(ip.to_string().as_bytes().into()),
        }
    }

    fn of_v4(ip: Ipv4Addr) -> Self {
        let mut digits = [b'.'; 15];
        let mut end = 0;
        for octet in ip.octets() {
            for (place, digit) in [(100, octet / 100), (10, octet / 10 % 10), (1, octet % 10)] {
                if octet >= place || place == 1 {
                    digits[end] = b'0' + digit;
                    end += 1;
                }
            }
            // A dot already stands there.
            end += 1;
        }
        Self(digits[..end - 1].into())
    }

    fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Continues the lists of a trusted peer with the peer's address, in the same fields.
///
/// Only the list that the client's address was read from is continued (see
/// [`TrustedProxies::client_address`](crate::client::address::TrustedProxies::client_address)); the other list may come
/// from the client and is written anew.
pub fn continue_forwarded(headers: &mut FieldMap, client: &ClientAddress, scheme: Scheme, host: &str) {
    if !headers.contains_key(&X_FORWARDED_PROTO) {
        headers.insert(&X_FORWARDED_PROTO, HeaderValue::from_static(scheme.as_str()));
    }
    if !headers.contains_key(&X_FORWARDED_HOST)
        && let (false, Ok(host)) = (host.is_empty(), HeaderValue::from_str(host))
    {
        headers.insert(&X_FORWARDED_HOST, host);
    }
    let has_for = headers.contains_key(&X_FORWARDED_FOR);

    let mut forwarded = if has_for {
        String::new()
    } else {
        list_so_far(headers, &FORWARDED)
    };
    let origin = if forwarded.is_empty() { client.ip } else { client.peer };
    let mut list = list_so_far(headers, &X_FORWARDED_FOR);
    if list.is_empty() && client.ip != client.peer {
        write!(list, "{}, ", client.ip).expect(FITS);
    }
    write!(list, "{}", client.peer).expect(FITS);

    match origin {
        IpAddr::V4(ip) => write!(forwarded, "for={ip}"),
        IpAddr::V6(ip) => write!(forwarded, "for=\"[{ip}]\""),
    }
    .expect(FITS);
    for (name, field) in [(";proto=", &X_FORWARDED_PROTO), (";host=", &X_FORWARDED_HOST)] {
        if let Some(value) = headers.get(field).and_then(|value| value.to_str().ok()) {
            put_parameter(name, value, |piece| forwarded.push_str(piece));
        }
    }
    insert(headers, &X_FORWARDED_FOR, list);
    insert(headers, &FORWARDED, forwarded);
}

const FITS: &str = "writing to a String cannot fail";

/// Joins the lines of a list field, ready for another element; empty if a line is not text. Empty elements (RFC 9110
/// section 5.6.1.2) at the ends of a line are dropped.
fn list_so_far(headers: &FieldMap, name: &HeaderName) -> String {
    let mut list = String::with_capacity(64);
    for line in headers.get_all(name) {
        let Ok(line) = line.to_str() else { return String::new() };
        let line = line.trim_matches([',', ' ', '\t']);
        if !line.is_empty() {
            list.extend([line, ", "]);
        }
    }
    list
}

/// Writes a parameter in pieces. A value that is no token is quoted (RFC 7239 section 4); one with a quote or a backslash
/// is left out.
fn put_parameter(name: &str, value: &str, put: impl FnMut(&str)) {
    let in_token = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if value.bytes().all(in_token) && !value.is_empty() {
        [name, value].into_iter().for_each(put);
    } else if !value.bytes().any(|byte| matches!(byte, b'"' | b'\\')) {
        [name, "\"", value, "\""].into_iter().for_each(put);
    }
}

fn insert(headers: &mut FieldMap, name: &'static HeaderName, text: String) {
    // Received values are valid, and the gateway adds printable ASCII only.
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::AddedFields;
    use crate::headers::tests::{lines, map};

    #[test]
    fn trailers_and_identity_are_said() {
        let mut plain = FieldMap::new();
        stamp_trailers(&mut plain, Version::HTTP_11);
        assert_eq!(
            (lines(&plain, "te"), lines(&plain, "connection")),
            (vec!["trailers".into()], vec!["te".into()])
        );
        let identity = ["acme", "premium", "key-7"].map(HeaderValue::from_static);
        let mut text = ValueText::default();
        IdentityLines::of(&identity[0], &identity[1], &identity[2]).put(&mut text);
        AddedFields::take(&mut text).insert_into(&mut plain);
        assert_eq!(
            ["x-tenant-id", "x-tenant-tier", "x-caller-id"].map(|name| plain[name].clone()),
            identity
        );
    }

    #[test]
    fn the_client_address_is_passed_on() {
        let check = |given: &[(&str, &str)], ip: &str, peer: &str, host: &str, list: &str, forwarded: &str| {
            let (ip, peer) = (ip.parse().expect("an address"), peer.parse().expect("an address"));
            let mut headers = map(given);
            let client = ClientAddress {
                ip,
                peer,
                trusted_peer: ip != peer,
                is_known: true,
            };
            if client.trusted_peer {
                continue_forwarded(&mut headers, &client, Scheme::Http, host);
            } else {
                let mut text = ValueText::default();
                let kept = ForwardedLines::default();
                kept.put(&mut text, &client, Scheme::Http, host);
                kept.put(&mut text, &client, Scheme::Http, "another");
                AddedFields::take(&mut text).insert_into(&mut headers);
                assert_eq!(lines(&headers, "x-forwarded-host"), ["another"]);
                headers.remove("x-forwarded-host");
                kept.put(&mut text, &client, Scheme::Http, host);
                AddedFields::take(&mut text).insert_into(&mut headers);
            }
            assert_eq!(lines(&headers, "x-forwarded-for"), [list]);
            assert_eq!(lines(&headers, "forwarded"), [forwarded]);
            headers
        };
        let fresh = check(
            &[],
            "192.0.2.1",
            "192.0.2.1",
            "a.b",
            "192.0.2.1",
            "for=192.0.2.1;proto=http;host=a.b",
        );
        assert_eq!(
            ["x-forwarded-proto", "x-forwarded-host"].map(|name| fresh[name].clone()),
            ["http", "a.b"]
        );
        let v6 = "for=\"[2001:db8::1]\";proto=http;host=\"a:8080\"";
        check(&[], "2001:db8::1", "2001:db8::1", "a:8080", "2001:db8::1", v6);
        let nameless = check(
            &[],
            "192.0.2.1",
            "192.0.2.1",
            "",
            "192.0.2.1",
            "for=192.0.2.1;proto=http",
        );
        assert!(!nameless.contains_key("x-forwarded-host"));
        let continued = [
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "shop"),
            ("forwarded", "for=7.7.7.7"),
        ];
        for empty in [",198.51.100.8,", " , ,198.51.100.8 , ", "198.51.100.8,,"] {
            check(
                &[("x-forwarded-for", ","), ("x-forwarded-for", empty)],
                "198.51.100.8",
                "10.0.0.1",
                "",
                "198.51.100.8, 10.0.0.1",
                "for=198.51.100.8;proto=http",
            );
        }
        check(
            &continued,
            "1.2.3.4",
            "10.0.0.1",
            "a",
            "6.6.6.6, 1.2.3.4, 10.0.0.1",
            "for=1.2.3.4;proto=https;host=shop",
        );
        let standard = [("forwarded", "for=1.2.3.4;proto=https")];
        let both = "for=1.2.3.4;proto=https, for=10.0.0.1;proto=http;host=a";
        check(&standard, "1.2.3.4", "10.0.0.1", "a", "1.2.3.4, 10.0.0.1", both);
        check(
            &[("x-forwarded-proto", "\"\\")],
            "1.2.3.4",
            "1.2.3.4",
            "a",
            "1.2.3.4",
            "for=1.2.3.4;proto=http;host=a",
        );
    }
}

//! Reads listening addresses, and suggests one for other text.

use std::net::{IpAddr, SocketAddr};

use super::mistake::Code;
use super::scalar::{Scalar, Wrong};

/// An address for the admin API; its suggestions use 127.0.0.1, so that only this machine can connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AdminAddress(pub SocketAddr);

impl Scalar for SocketAddr {
    const EXPECTED: &'static str = "an address with a port, such as `0.0.0.0:8080` or `[::]:8080`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        text.parse().map_err(|_| wrong(text, "0.0.0.0", 8080))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Scalar for AdminAddress {
    const EXPECTED: &'static str = "an address with a port, such as `127.0.0.1:9900`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        text.parse().map(Self).map_err(|_| wrong(text, "127.0.0.1", 9900))
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// Describes what is wrong with an address. Suggestions take a missing host or port from `host` and `port`.
fn wrong(text: &str, host: &str, port: u16) -> Wrong {
    let wrong = |label: &str| Wrong::new(Code::BadValue, label);
    let text = text.trim();
    let text = text
        .split_once("://")
        .map_or(text, |(_, rest)| rest)
        .trim_end_matches('/');
    let meant = |address: String| wrong("is not an address with a port").hint(format!("did you mean `{address}`?"));
    // An address without a port; IPv6 with or without its brackets.
    if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return wrong("has no port").hint(format!("did you mean `{}`?", SocketAddr::new(address, port)));
    }
    let (named, number) = match text.rsplit_once(':') {
        Some((named, number)) => (named, number),
        None if text.bytes().all(|byte| byte.is_ascii_digit()) => ("", text),
        None => (text, ""),
    };
    let number = match (number, number.parse::<u16>()) {
        ("", _) => port,
        (_, Ok(number)) => number,
        (digits, Err(_)) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            return wrong("has a port beyond 65535");
        }
        _ => return wrong("is not an address with a port"),
    };
    if let Ok(address) = named.trim_matches(['[', ']']).parse::<IpAddr>() {
        return meant(SocketAddr::new(address, number).to_string());
    }
    match named {
        "" => meant(format!("{host}:{number}")),
        "*" | "+" | "any" => meant(format!("0.0.0.0:{number}")),
        "localhost" => wrong("names are not looked up here").hint(format!("did you mean `127.0.0.1:{number}`?")),
        name if name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
            && name.contains(|c: char| c.is_ascii_alphabetic()) =>
        {
            wrong("names are not looked up here").hint(format!(
                "write the IP address of an interface, or `0.0.0.0:{number}` for all of them"
            ))
        }
        _ => wrong("is not an address with a port"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Suggestions for a listener, and for the admin address.
    #[test]
    fn what_was_meant_is_an_address() {
        let check = |text: &str, listener: Option<&str>, admin: Option<&str>| {
            let meant = |wrong: Wrong| {
                let hint = wrong.hint?;
                Some(hint.strip_prefix("did you mean `")?.strip_suffix("`?")?.to_owned())
            };
            let of_listener = SocketAddr::parse(text).expect_err(text);
            let of_admin = AdminAddress::parse(text).expect_err(text);
            for found in [meant(of_listener.clone()), meant(of_admin.clone())]
                .into_iter()
                .flatten()
            {
                assert!(found.parse::<SocketAddr>().is_ok(), "{text}: {found}");
            }
            assert_eq!(meant(of_listener).as_deref(), listener, "{text}");
            assert_eq!(meant(of_admin).as_deref(), admin, "{text}");
        };
        check(":9900", Some("0.0.0.0:9900"), Some("127.0.0.1:9900"));
        check("9900", Some("0.0.0.0:9900"), Some("127.0.0.1:9900"));
        check("*:9900", Some("0.0.0.0:9900"), Some("0.0.0.0:9900"));
        check("localhost:9900", Some("127.0.0.1:9900"), Some("127.0.0.1:9900"));
        check("localhost", Some("127.0.0.1:8080"), Some("127.0.0.1:9900"));
        check("127.0.0.1", Some("127.0.0.1:8080"), Some("127.0.0.1:9900"));
        check("0.0.0.0", Some("0.0.0.0:8080"), Some("0.0.0.0:9900"));
        check("0.0.0.0:", Some("0.0.0.0:8080"), Some("0.0.0.0:9900"));
        check("::1", Some("[::1]:8080"), Some("[::1]:9900"));
        check("[::]", Some("[::]:8080"), Some("[::]:9900"));
        check("http://0.0.0.0:80/", Some("0.0.0.0:80"), Some("0.0.0.0:80"));
        check("tcp://:80", Some("0.0.0.0:80"), Some("127.0.0.1:80"));
        check("0.0.0.0:99999", None, None);
        check("99999", None, None);
        check("gateway.example:8080", None, None);
        check("", Some("0.0.0.0:8080"), Some("127.0.0.1:9900"));
        check("1.2.3:80", None, None);
        check("a b:80", None, None);
    }
}

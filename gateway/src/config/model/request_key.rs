//! What of a request is a key, for requests that are to be treated alike.

use std::fmt;

use http::HeaderName;

use crate::config::mistake::Code;
use crate::config::scalar::{Scalar, Wrong, unknown_word};

/// The part of a request whose value is the key. Requests with the same value are treated alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestKey {
    /// The tenant; of a caller without credentials its address.
    Tenant,
    /// The caller with its tenant; of a caller without credentials its address.
    Caller,
    ClientAddress,
    /// The value of a header field.
    Header(HeaderName),
    /// The value of a cookie.
    Cookie(String),
    /// Each request is treated by itself.
    None,
}

impl Scalar for RequestKey {
    const EXPECTED: &'static str = "`tenant`, `caller`, `client_address`, `header:NAME`, `cookie:NAME` or `none`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        match text {
            "tenant" => return Ok(Self::Tenant),
            "caller" => return Ok(Self::Caller),
            "client_address" => return Ok(Self::ClientAddress),
            "none" => return Ok(Self::None),
            _ => {}
        }
        if let Some(name) = text.strip_prefix("header:") {
            return HeaderName::from_bytes(name.as_bytes())
                .map(Self::Header)
                .map_err(|_| wrong("names no header field").hint("write it like `header:x-session`"));
        }
        if let Some(name) = text.strip_prefix("cookie:") {
            return match cookie_name(name) {
                Ok(name) => Ok(Self::Cookie(name)),
                Err(why) => Err(wrong(why).hint("write it like `cookie:session`")),
            };
        }
        Err(match text {
            "header" => wrong("names no header field").hint("write it like `header:x-session`"),
            "cookie" => wrong("names no cookie").hint("write it like `cookie:session`"),
            _ => unknown_word(
                text,
                &[
                    "tenant",
                    "caller",
                    "client_address",
                    "header:NAME",
                    "cookie:NAME",
                    "none",
                ],
            ),
        })
    }

    fn show(&self) -> String {
        match self {
            Self::Tenant => "tenant".to_owned(),
            Self::Caller => "caller".to_owned(),
            Self::ClientAddress => "client_address".to_owned(),
            Self::Header(name) => format!("header:{name}"),
            Self::Cookie(name) => format!("cookie:{name}"),
            Self::None => "none".to_owned(),
        }
    }
}

impl fmt::Display for RequestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.show())
    }
}

fn wrong(label: &str) -> Wrong {
    Wrong::new(Code::BadValue, label)
}

/// Checks the name of a cookie, which is a token (RFC 6265 section 4.1.1). Case matters.
pub(super) fn cookie_name(name: &str) -> Result<String, &'static str> {
    // The names of header fields are tokens too.
    match HeaderName::from_bytes(name.as_bytes()) {
        Ok(_) => Ok(name.to_owned()),
        Err(_) => Err("that is not the name of a cookie"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_word_or_names_a_field_or_a_cookie() {
        for text in [
            "tenant",
            "caller",
            "client_address",
            "none",
            "header:x-session",
            "cookie:Session_id",
        ] {
            assert_eq!(RequestKey::parse(text).expect(text).show(), text);
        }
        assert_eq!(
            RequestKey::parse("header:X-Session").map(|key| key.show()),
            Ok("header:x-session".to_owned())
        );
        for (text, hint) in [
            ("header", "`header:x-session`"),
            ("header:", "`header:x-session`"),
            ("header:x y", "`header:x-session`"),
            ("cookie", "`cookie:session`"),
            ("cookie:a;b", "`cookie:session`"),
            ("tennant", "`tenant`"),
        ] {
            let wrong = RequestKey::parse(text).expect_err(text);
            assert!(wrong.hint.is_some_and(|told| told.contains(hint)), "{text}");
        }
    }
}

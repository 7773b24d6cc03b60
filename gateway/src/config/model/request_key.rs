//! Reads the part of a request that is a key.

use http::HeaderName;

use crate::config::mistake::Code;
use crate::config::scalar::{Scalar, Wrong, unknown_word};
use crate::request_key::RequestKey;

impl Scalar for RequestKey {
    const EXPECTED: &'static str =
        "`tenant`, `caller`, `client_address`, `header.NAME`, `cookie.NAME`, `path.NAME` or `none`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let wrong = |label: &str, like: &str| Wrong::new(Code::BadValue, label).hint(format!("write it like `{like}`"));
        let (kind, name) = text.split_once('.').unwrap_or((text, ""));
        match kind {
            "header" => HeaderName::from_bytes(name.as_bytes())
                .map(Self::Header)
                .map_err(|_| wrong("names no header field", "header.x-session")),
            "cookie" => match cookie_name(name) {
                Ok(name) => Ok(Self::Cookie(name.into())),
                Err(why) => Err(wrong(why, "cookie.session")),
            },
            "path" if name.is_empty() => Err(wrong("names no parameter of the path", "path.id")),
            "path" => Ok(Self::Path(name.into())),
            _ => match text {
                "tenant" => Ok(Self::Tenant),
                "caller" => Ok(Self::Caller),
                "client_address" => Ok(Self::ClientAddress),
                "none" => Ok(Self::None),
                _ => Err(unknown_word(
                    text,
                    &[
                        "tenant",
                        "caller",
                        "client_address",
                        "header.NAME",
                        "cookie.NAME",
                        "path.NAME",
                        "none",
                    ],
                )),
            },
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
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
    fn a_key_is_a_word_or_names_a_part_of_the_request() {
        for text in [
            "tenant",
            "caller",
            "client_address",
            "none",
            "header.x-session",
            "cookie.Session_id",
            "path.id",
        ] {
            assert_eq!(RequestKey::parse(text).expect(text).show(), text);
        }
        assert_eq!(
            RequestKey::parse("header.X-Session").map(|key| key.show()),
            Ok("header.x-session".to_owned())
        );
        for (text, hint) in [
            ("header", "`header.x-session`"),
            ("header.", "`header.x-session`"),
            ("header.x y", "`header.x-session`"),
            ("cookie", "`cookie.session`"),
            ("cookie.a;b", "`cookie.session`"),
            ("path", "`path.id`"),
            ("path.", "`path.id`"),
            ("tennant", "`tenant`"),
        ] {
            let wrong = RequestKey::parse(text).expect_err(text);
            assert!(wrong.hint.is_some_and(|told| told.contains(hint)), "{text}");
        }
    }
}

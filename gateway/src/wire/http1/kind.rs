//! Tells the kinds of fields that most messages have, and of those that decide about a message and its connection.

use http::{HeaderName, header};

use super::octets::is_spelling;

/// Kind of a field, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldKind {
    Accept,
    AcceptEncoding,
    AcceptLanguage,
    AcceptRanges,
    Authorization,
    CacheControl,
    Connection,
    ContentEncoding,
    ContentLength,
    ContentType,
    Cookie,
    Date,
    ETag,
    Expect,
    Host,
    KeepAlive,
    LastModified,
    ProxyConnection,
    Server,
    Te,
    Trailer,
    TransferEncoding,
    Upgrade,
    UserAgent,
    Vary,
    Other,
}

/// Names in the order of the kinds, without `Other`.
static NAMES: [HeaderName; FieldKind::Other as usize] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
    header::ACCEPT_RANGES,
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::DATE,
    header::ETAG,
    header::EXPECT,
    header::HOST,
    HeaderName::from_static("keep-alive"),
    header::LAST_MODIFIED,
    HeaderName::from_static("proxy-connection"),
    header::SERVER,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::USER_AGENT,
    header::VARY,
];

impl FieldKind {
    /// Returns the kind of a name in any case.
    pub fn of(name: &[u8]) -> Self {
        let first = name.first().map_or(0, |byte| byte | 0x20);
        // One name at most is left by the length, the first letter and sometimes another one.
        let kind = match (name.len(), first) {
            (2, b't') => Self::Te,
            (4, b'd') => Self::Date,
            (4, b'e') => Self::ETag,
            (4, b'h') => Self::Host,
            (4, b'v') => Self::Vary,
            (6, b'a') => Self::Accept,
            (6, b'c') => Self::Cookie,
            (6, b'e') => Self::Expect,
            (6, b's') => Self::Server,
            (7, b't') => Self::Trailer,
            (7, b'u') => Self::Upgrade,
            (10, b'c') => Self::Connection,
            (10, b'k') => Self::KeepAlive,
            (10, b'u') => Self::UserAgent,
            (12, b'c') => Self::ContentType,
            (13, b'a') if name[1] | 0x20 == b'u' => Self::Authorization,
            (13, b'a') => Self::AcceptRanges,
            (13, b'c') => Self::CacheControl,
            (13, b'l') => Self::LastModified,
            (14, b'c') => Self::ContentLength,
            (15, b'a') if name[7] | 0x20 == b'e' => Self::AcceptEncoding,
            (15, b'a') => Self::AcceptLanguage,
            (16, b'c') => Self::ContentEncoding,
            (16, b'p') => Self::ProxyConnection,
            (17, b't') => Self::TransferEncoding,
            _ => return Self::Other,
        };
        if is_spelling(name, NAMES[kind as usize].as_str().as_bytes()) {
            kind
        } else {
            Self::Other
        }
    }

    /// Returns the name of all fields of this kind; `None` for `Other`.
    pub(crate) fn name(self) -> Option<HeaderName> {
        NAMES.get(self as usize).cloned()
    }

    /// Whether the field frames its message, so that only the writer of a message may set it.
    pub const fn is_framing(self) -> bool {
        matches!(self, Self::ContentLength | Self::TransferEncoding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_case() {
        for name in &NAMES {
            let kind = FieldKind::of(name.as_str().to_ascii_uppercase().as_bytes());
            assert_eq!(kind.name().as_ref(), Some(name));
            for at in 0..name.as_str().len() {
                let mut other = name.as_str().as_bytes().to_vec();
                let own = other[at];
                for byte in (0..=u8::MAX).filter(|byte| !byte.eq_ignore_ascii_case(&own)) {
                    other[at] = byte;
                    let is_another = FieldKind::of(&other)
                        .name()
                        .is_none_or(|name| other.eq_ignore_ascii_case(name.as_str().as_bytes()));
                    assert!(is_another, "{}", String::from_utf8_lossy(&other));
                }
            }
        }
        assert_eq!(FieldKind::of(b""), FieldKind::Other);
        assert_eq!(FieldKind::Other.name(), None);
    }
}

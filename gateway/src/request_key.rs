//! Names the part of a request that it has in common with requests that are to be treated alike.

use std::fmt;

use http::HeaderName;

/// The part of a request whose value is the key. Requests with the same value are treated alike.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RequestKey {
    /// The tenant; of a caller without credentials its address.
    Tenant,
    /// The caller with its tenant; of a caller without credentials its address.
    Caller,
    ClientAddress,
    /// The value of a header field.
    Header(HeaderName),
    /// The value of a cookie.
    Cookie(Box<str>),
    /// A parameter of the path pattern.
    Path(Box<str>),
    /// Each request is treated by itself.
    None,
}

/// Writes the key as in the config.
impl fmt::Display for RequestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenant => f.write_str("tenant"),
            Self::Caller => f.write_str("caller"),
            Self::ClientAddress => f.write_str("client_address"),
            Self::Header(name) => write!(f, "header.{name}"),
            Self::Cookie(name) => write!(f, "cookie.{name}"),
            Self::Path(name) => write!(f, "path.{name}"),
            Self::None => f.write_str("none"),
        }
    }
}

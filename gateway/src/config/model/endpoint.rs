//! One place where a service is, as the config or a file of endpoints lists it.

use std::fmt;

use http::Uri;

use crate::config::mistake::Code;
use crate::config::reader::Read;
use crate::config::scalar::{Scalar, Wrong};
use crate::config::single::Single;
use crate::config::span::At;
use crate::config::value::Value;

/// One place where the service is.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    /// `http://host:port` or `https://host:port`, without a path.
    pub url: At<EndpointUrl>,
    /// Share of the calls, relative to the other endpoints. Each address of a name has it.
    pub weight: At<u32>,
}

/// `http://host:port` or `https://host:port` and nothing else: paths are the routes' business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointUrl {
    /// Whether it is spoken to in TLS.
    pub is_secure: bool,
    /// A name or an address; IPv6 without brackets.
    pub host: String,
    pub port: u16,
    /// `host:port` as it was written, for the `Host` field; the port is left out if it was.
    pub authority: String,
}

impl Read for Endpoint {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ url: $ }", r#"{ url: "http://%" }"#],
        sample: r#"{ url: "http://10.0.0.5:8080" }"#,
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let (url, weight) = (f.required("url"), f.within("weight", 1, 1..=1000));
            Some(Self { url: url?, weight })
        })?
    }
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_secure { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority)
    }
}

impl Scalar for EndpointUrl {
    const EXPECTED: &'static str = "a URL such as `http://10.0.0.5:8080`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let wrong = |label| Wrong::new(Code::BadValue, label);
        let uri: Uri = text.parse().map_err(|_| wrong("is not a URL"))?;
        let is_secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(_) => return Err(wrong("is neither `http` nor `https`")),
            None => return Err(wrong("has no scheme").hint(format!("did you mean `http://{text}`?"))),
        };
        let authority = uri.authority().ok_or_else(|| wrong("has no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("has a user in it"));
        }
        if uri.path() != "/" || uri.query().is_some() || text.contains('#') {
            return Err(wrong("has a path").hint("the path belongs into the route's `rewrite` or the part's `path`"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let port = authority.port_u16();
        if host.is_empty() || port == Some(0) || (port.is_none() && authority.as_str() != authority.host()) {
            return Err(wrong("has no usable host and port"));
        }
        Ok(Self {
            is_secure,
            host: host.to_owned(),
            port: port.unwrap_or(if is_secure { 443 } else { 80 }),
            authority: authority.to_string(),
        })
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

//! Parses the target of a load. A load generator can do harm by mistake, so without an explicit option the target must
//! be this machine.

use std::net::{SocketAddr, ToSocketAddrs};

use http::uri::{PathAndQuery, Scheme};
use http::{HeaderValue, Uri};

use crate::Result;

/// Address to connect to, and the path to request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub address: SocketAddr,
    pub host: HeaderValue,
    pub path: PathAndQuery,
}

impl Target {
    /// Returns a target for a known address.
    ///
    /// # Errors
    /// `path` is not a path.
    pub fn new(address: SocketAddr, path: &str) -> Result<Self> {
        let host = HeaderValue::from_str(&address.to_string())?;
        Ok(Self {
            address,
            host,
            path: path.parse()?,
        })
    }

    /// Parses `http://HOST[:PORT]/PATH`.
    ///
    /// # Errors
    /// The URL is malformed, the name does not resolve, or it names another machine and `anywhere` is false.
    pub fn read(url: &str, anywhere: bool) -> Result<Self> {
        let uri: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
        let (Some(authority), Some("http")) = (uri.authority(), uri.scheme().map(Scheme::as_str)) else {
            return Err(format!("{url} is not of the form http://HOST:PORT/PATH").into());
        };
        let name = (
            authority.host().trim_matches(['[', ']']),
            authority.port_u16().unwrap_or(80),
        );
        let addresses: Vec<SocketAddr> = name
            .to_socket_addrs()
            .map_err(|error| format!("{url}: {error}"))?
            .collect();
        let address = *addresses
            .first()
            .ok_or_else(|| format!("{url}: the name has no address"))?;
        if !anywhere && !address.ip().is_loopback() {
            return Err(format!("{address} is not this machine; --i-know loads it all the same").into());
        }
        let host = HeaderValue::from_str(authority.as_str())?;
        let path = uri
            .path_and_query()
            .cloned()
            .unwrap_or_else(|| PathAndQuery::from_static("/"));
        Ok(Self { address, host, path })
    }
}

#[cfg(test)]
mod tests {
    use super::Target;

    #[test]
    fn only_this_machine_unless_told() {
        let check = |url: &str, anywhere: bool, expected: Option<&str>| {
            let read = Target::read(url, anywhere)
                .ok()
                .map(|target| format!("{} {}", target.address, target.path));
            assert_eq!(read.as_deref(), expected, "{url}");
        };
        check("http://127.0.0.1:8080/a?b=c", false, Some("127.0.0.1:8080 /a?b=c"));
        check("http://127.0.0.9", false, Some("127.0.0.9:80 /"));
        check("http://[::1]:81/", false, Some("[::1]:81 /"));
        check("http://192.0.2.1:8080/", false, None);
        check("http://192.0.2.1:8080/", true, Some("192.0.2.1:8080 /"));
        check("https://127.0.0.1/", false, None);
        check("127.0.0.1:8080", false, None);
        check("/path", false, None);
    }
}

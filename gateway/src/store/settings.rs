//! Settings of the connection to the store.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Settings of the connection to the store.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    pub address: StoreAddress,
    /// Start of the names of all keys.
    pub prefix: Box<str>,
    pub username: Option<Box<str>>,
    pub password: Option<Password>,
    /// Authorities and client certificate; needed if the address says `rediss`.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// The same as text in PEM, for a cluster: the client library connects to its nodes by itself.
    pub pem: Pem,
    /// Longest time of one call, from [`Store::execute`](super::Store::execute) to its end.
    pub call_limit: Duration,
    /// Time for which tokens are leased.
    pub lease_time: Duration,
    /// Interval in which a replica confirms its slots. Slots of a replica come back two of them after its last word.
    pub heartbeat: Duration,
}

impl StoreSettings {
    /// Returns whether a connection by the one would be a connection by the other. Certificates are not compared.
    pub fn are_same(one: Option<&StoreSettings>, other: Option<&StoreSettings>) -> bool {
        let facts = |settings: &StoreSettings| {
            let StoreSettings {
                address,
                prefix,
                username,
                password,
                tls,
                pem: _,
                call_limit,
                lease_time,
                heartbeat,
            } = settings.clone();
            let times = (call_limit, lease_time, heartbeat);
            (address, prefix, username, password, tls.is_some(), times)
        };
        one.map(facts) == other.map(facts)
    }
}

/// Certificates and key in PEM.
#[derive(Clone, Default)]
pub struct Pem {
    /// Those of the system if there are none.
    pub authorities: Option<Vec<u8>>,
    /// Certificate that is shown to the store, and its key.
    pub own: Option<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pem(..)")
    }
}

/// Password of the store's user.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    Text(Box<str>),
    /// File that is read for each new connection, so that a changed password needs no reload.
    File(PathBuf),
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Password::Text(_) => f.write_str("Text(..)"),
            Password::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// Address of a store: of one server, of sentinels that know it, or of nodes of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreAddress {
    /// The server; sentinels in the order in which they are asked; some nodes of a cluster, of which one must answer.
    pub servers: Vec<ServerAddress>,
    /// Name of the primary that the sentinels watch.
    pub primary: Option<Box<str>>,
    pub is_cluster: bool,
    pub database: u32,
    pub is_tls: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAddress {
    /// Name or address without brackets.
    pub host: Box<str>,
    pub port: u16,
}

/// Mistake in an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// It begins with none of the six schemes.
    Scheme,
    /// It has no host, or several without being one of sentinels or of a cluster.
    Host,
    /// It has a name or a password, which belong into settings of their own.
    Credentials,
    Port,
    /// The path is not the number of a database.
    Database,
    /// It is one of a cluster, which has no databases, and has a path.
    Path,
    /// It is one of sentinels and names no primary.
    Primary,
    /// It has a query or a fragment.
    Query,
}

impl StoreAddress {
    const PORT: u16 = 6_379;
    const SENTINEL_PORT: u16 = 26_379;
    /// Most sentinels, or nodes of a cluster.
    const MOST: usize = 9;

    /// Reads `redis://host:port/database`, `redis-sentinel://host:port,host:port/primary/database` or
    /// `redis-cluster://host:port,host:port`; the same with `rediss` for TLS. The port is 6379, of sentinels 26379, and the
    /// database 0 if they are left out.
    pub fn read(text: &str) -> Result<StoreAddress, AddressError> {
        let (scheme, rest) = text.split_once("://").ok_or(AddressError::Scheme)?;
        let (is_tls, kind) = match (scheme.strip_prefix("rediss"), scheme.strip_prefix("redis")) {
            (Some(kind), _) => (true, kind),
            (None, Some(kind)) => (false, kind),
            (None, None) => return Err(AddressError::Scheme),
        };
        let (by_sentinel, is_cluster) = match kind {
            "" => (false, false),
            "-sentinel" => (true, false),
            "-cluster" => (false, true),
            _ => return Err(AddressError::Scheme),
        };
        if rest.contains(['?', '#']) {
            return Err(AddressError::Query);
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.contains('@') {
            return Err(AddressError::Credentials);
        }
        let port = if by_sentinel {
            StoreAddress::SENTINEL_PORT
        } else {
            StoreAddress::PORT
        };
        let servers = authority.split(',').map(|server| ServerAddress::read(server, port));
        let servers: Vec<_> = servers.collect::<Result<_, _>>()?;
        let is_single = !by_sentinel && !is_cluster;
        if servers.len() > if is_single { 1 } else { StoreAddress::MOST } {
            return Err(AddressError::Host);
        }
        if is_cluster && !path.is_empty() {
            return Err(AddressError::Path);
        }
        let (primary, database) = match (by_sentinel, path.split_once('/')) {
            (false, _) => (None, path),
            (true, Some((primary, database))) => (Some(primary), database),
            (true, None) => (Some(path), ""),
        };
        if primary == Some("") {
            return Err(AddressError::Primary);
        }
        let database = match database {
            "" => 0,
            digits => number(digits).ok_or(AddressError::Database)?,
        };
        Ok(StoreAddress {
            servers,
            primary: primary.map(Box::from),
            is_cluster,
            database,
            is_tls,
        })
    }
}

impl ServerAddress {
    fn read(text: &str, default_port: u16) -> Result<ServerAddress, AddressError> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or(AddressError::Host)?,
            None => match text.find(':') {
                Some(colon) => text.split_at(colon),
                None => (text, ""),
            },
        };
        if host.is_empty() || host.contains([' ', '[', ']']) {
            return Err(AddressError::Host);
        }
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => default_port,
            Some(digits) => number(digits).filter(|port| *port > 0).ok_or(AddressError::Port)?,
            None => return Err(AddressError::Port),
        };
        Ok(ServerAddress {
            host: host.into(),
            port,
        })
    }
}

/// Reads a number without sign.
fn number<N: std::str::FromStr>(digits: &str) -> Option<N> {
    let is_plain = digits.bytes().all(|digit| digit.is_ascii_digit());
    digits.parse().ok().filter(|_| is_plain)
}

impl fmt::Display for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match (&self.primary, self.is_cluster) {
            (Some(_), _) => "-sentinel",
            (None, true) => "-cluster",
            (None, false) => "",
        };
        let tls = if self.is_tls { "s" } else { "" };
        write!(f, "redis{tls}{kind}://")?;
        for (number, server) in self.servers.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(f, "{comma}{server}")?;
        }
        if let Some(primary) = &self.primary {
            write!(f, "/{primary}")?;
        }
        if self.is_cluster {
            return Ok(());
        }
        write!(f, "/{}", self.database)
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AddressError::Scheme => {
                "an address of a store begins with `redis://`, `redis-sentinel://` or `redis-cluster://`, or the same with `rediss` for TLS"
            }
            AddressError::Host => "the address must name one host, or up to 9 sentinels or nodes of a cluster",
            AddressError::Credentials => "name and password belong into `username` and `password_file`",
            AddressError::Port => "the port must be a number from 1 to 65535",
            AddressError::Path => "a cluster has no databases: the address must end after its nodes",
            AddressError::Database => "the path must be the number of a database",
            AddressError::Primary => "after the sentinels the path must name the primary that they watch",
            AddressError::Query => "an address of a store has no query",
        })
    }
}

impl std::error::Error for AddressError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let check = |text: &str, expected: Result<&str, AddressError>| {
            let address = StoreAddress::read(text).map(|address| address.to_string());
            assert_eq!(address, expected.map(str::to_owned), "{text}");
        };
        check("redis://cache", Ok("redis://cache:6379/0"));
        check("redis://cache/", Ok("redis://cache:6379/0"));
        check("rediss://10.0.0.1:7000/3", Ok("rediss://10.0.0.1:7000/3"));
        check("redis://[::1]:7000", Ok("redis://[::1]:7000/0"));
        check("redis://[::1]", Ok("redis://[::1]:6379/0"));
        check("http://cache", Err(AddressError::Scheme));
        check("cache:6379", Err(AddressError::Scheme));
        check("redis://", Err(AddressError::Host));
        check("redis://:7000", Err(AddressError::Host));
        check("redis://[::1", Err(AddressError::Host));
        check("redis://:secret@cache", Err(AddressError::Credentials));
        check("redis://cache:0", Err(AddressError::Port));
        check("redis://cache:+1", Err(AddressError::Port));
        check("redis://[::1]7000", Err(AddressError::Port));
        check("redis://cache/x", Err(AddressError::Database));
        check("redis://cache/0/1", Err(AddressError::Database));
        check("redis://cache?db=1", Err(AddressError::Query));
        check("redis://a,b", Err(AddressError::Host));
        check(
            "redis-sentinel://a,b:1,[::1]/main",
            Ok("redis-sentinel://a:26379,b:1,[::1]:26379/main/0"),
        );
        check("rediss-sentinel://a/main/3", Ok("rediss-sentinel://a:26379/main/3"));
        check("redis-sentinel://a", Err(AddressError::Primary));
        check("redis-sentinel://a//1", Err(AddressError::Primary));
        check("redis-sentinel://a/main/x", Err(AddressError::Database));
        check("redis-sentinel://a,,b/main", Err(AddressError::Host));
        check("redis-cluster://a", Ok("redis-cluster://a:6379"));
        check("rediss-cluster://a:1,[::1]/", Ok("rediss-cluster://a:1,[::1]:6379"));
        check("redis-cluster://a/0", Err(AddressError::Path));
        check("redis-cluster://", Err(AddressError::Host));
        check("redis-other://a", Err(AddressError::Scheme));
    }

    #[test]
    fn a_password_is_not_printed() {
        assert_eq!(format!("{:?}", Password::Text("secret".into())), "Text(..)");
    }
}

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

/// Address of a single store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreAddress {
    /// Name or address without brackets.
    pub host: Box<str>,
    pub port: u16,
    pub database: u32,
    pub is_tls: bool,
}

/// Mistake in an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// It begins with neither `redis://` nor `rediss://`.
    Scheme,
    /// It has no host.
    Host,
    /// It has a name or a password, which belong into settings of their own.
    Credentials,
    Port,
    /// The path is not the number of a database.
    Database,
    /// It has a query or a fragment.
    Query,
}

impl StoreAddress {
    const PORT: u16 = 6_379;

    /// Reads `redis://host:port/database`, or the same with `rediss` for TLS. The port is 6379 and the database 0 if they
    /// are left out.
    pub fn read(text: &str) -> Result<StoreAddress, AddressError> {
        let (is_tls, rest) = match (text.strip_prefix("redis://"), text.strip_prefix("rediss://")) {
            (Some(rest), _) => (false, rest),
            (None, Some(rest)) => (true, rest),
            (None, None) => return Err(AddressError::Scheme),
        };
        if rest.contains(['?', '#']) {
            return Err(AddressError::Query);
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.contains('@') {
            return Err(AddressError::Credentials);
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or(AddressError::Host)?,
            None => match authority.find(':') {
                Some(colon) => authority.split_at(colon),
                None => (authority, ""),
            },
        };
        if host.is_empty() || host.contains([' ', '[', ']']) {
            return Err(AddressError::Host);
        }
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => StoreAddress::PORT,
            Some(digits) => number(digits).filter(|port| *port > 0).ok_or(AddressError::Port)?,
            None => return Err(AddressError::Port),
        };
        let database = match path {
            "" => 0,
            digits => number(digits).ok_or(AddressError::Database)?,
        };
        Ok(StoreAddress {
            host: host.into(),
            port,
            database,
            is_tls,
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
        let scheme = if self.is_tls { "rediss" } else { "redis" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}/{}", self.host, self.port, self.database)
        } else {
            write!(f, "{scheme}://{}:{}/{}", self.host, self.port, self.database)
        }
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AddressError::Scheme => "an address of a store begins with `redis://` or `rediss://`",
            AddressError::Host => "the address names no host",
            AddressError::Credentials => "name and password belong into `username` and `password_file`",
            AddressError::Port => "the port must be a number from 1 to 65535",
            AddressError::Database => "the path must be the number of a database",
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
    }

    #[test]
    fn a_password_is_not_printed() {
        assert_eq!(format!("{:?}", Password::Text("secret".into())), "Text(..)");
    }
}

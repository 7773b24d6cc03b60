//! Keys by which the policy `hash` chooses an endpoint, and their hashes for one request.

use std::fmt;
use std::sync::Arc;

use http::HeaderName;

/// Value of a request whose hash chooses the endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HashKey {
    Tenant,
    Caller,
    ClientAddress,
    Header(HeaderName),
    Cookie(Box<str>),
    /// Path parameter of the route.
    Path(Box<str>),
}

/// As in the config.
impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenant => f.write_str("tenant"),
            Self::Caller => f.write_str("caller"),
            Self::ClientAddress => f.write_str("client_address"),
            Self::Header(name) => write!(f, "header.{name}"),
            Self::Cookie(name) => write!(f, "cookie.{name}"),
            Self::Path(name) => write!(f, "path.{name}"),
        }
    }
}

/// Hashes of the keys of one request, for all backends that it may be sent to.
#[derive(Debug, Clone, Default)]
pub struct HashKeys(Option<Arc<[(HashKey, u64)]>>);

impl HashKeys {
    /// Hashes the values of `keys`. A key without a value is left out: its call goes by load.
    pub fn of(keys: &[HashKey], hash: impl Fn(&HashKey) -> Option<u64>) -> Self {
        if keys.is_empty() {
            return Self(None);
        }
        Self(Some(
            keys.iter().filter_map(|key| Some((key.clone(), hash(key)?))).collect(),
        ))
    }

    pub(crate) fn get(&self, key: &HashKey) -> Option<u64> {
        let (_, hash) = self.0.as_ref()?.iter().find(|(known, _)| known == key)?;
        Some(*hash)
    }
}

//! Finds the key of a request: what it has in common with the requests that are treated like it.

use std::fmt::{self, Write};
use std::net::IpAddr;

use http::{HeaderMap, HeaderName};
use smallvec::SmallVec;

use crate::headers::cookies::cookie;
use crate::tenancy::Principal;

/// Bytes of a key; seldom more than fit without an allocation.
pub(super) type KeyBytes = SmallVec<[u8; 128]>;

/// The part of a request whose value is the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestKey {
    Tenant,
    Caller,
    ClientAddress,
    Header(HeaderName),
    Cookie(Box<str>),
    /// No key: each request is treated by itself.
    None,
}

impl RequestKey {
    /// Appends the key of a request to `key`. Returns whether the request has one.
    ///
    /// A caller without credentials has no tenant, so its address takes the tenant's place. `address` is the client
    /// address by which callers are told apart. `headers` are the caller's own.
    pub fn append(&self, principal: &Principal, address: IpAddr, headers: &HeaderMap, key: &mut KeyBytes) -> bool {
        let caller = &principal.caller;
        let is_anonymous = caller.kind.credential().is_none();
        match self {
            Self::None => return false,
            Self::Tenant | Self::Caller if is_anonymous => append_address(address, key),
            Self::ClientAddress => append_address(address, key),
            Self::Tenant => key.extend_from_slice(caller.tenant.as_bytes()),
            Self::Caller => {
                key.extend_from_slice(caller.tenant.as_bytes());
                key.push(0);
                key.extend_from_slice(caller.id.as_bytes());
            }
            Self::Header(name) => {
                let before = key.len();
                for value in headers.get_all(name) {
                    if key.len() > before {
                        key.push(b',');
                    }
                    key.extend_from_slice(value.as_bytes());
                }
                return key.len() > before;
            }
            Self::Cookie(name) => {
                let value = cookie(headers, name).unwrap_or_default();
                key.extend_from_slice(value);
                return !value.is_empty();
            }
        }
        true
    }
}

fn append_address(address: IpAddr, key: &mut KeyBytes) {
    // Writing into memory does not fail.
    let _ = write!(Text(key), "{address}");
}

/// Takes text that is written.
struct Text<'k>(&'k mut KeyBytes);

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

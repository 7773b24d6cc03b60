//! Reads the key of a request, by which it is split among backends or hashed to an endpoint.

use std::fmt::{self, Write};
use std::net::IpAddr;

use policies::balance::hash;
use policies::split::Bucket;
use smallvec::SmallVec;

use crate::headers::cookies::cookie;
use crate::message::FieldMap;
use crate::request_key::RequestKey;
use crate::template::Captures;
use crate::tenancy::Principal;

/// Bytes of a key; seldom more than fit without an allocation.
type KeyBytes = SmallVec<[u8; 128]>;

/// What a key is read from.
#[derive(Clone, Copy)]
pub struct KeySources<'a> {
    pub principal: &'a Principal,
    /// Client address by which callers are told apart.
    pub address: IpAddr,
    /// The caller's own header fields.
    pub headers: &'a FieldMap,
    pub captures: &'a Captures<'a>,
}

impl KeySources<'_> {
    /// Returns the hash of the request's key; `None` if it has none.
    pub fn hash(&self, key: &RequestKey) -> Option<u64> {
        let mut bytes = KeyBytes::new();
        self.append(key, &mut bytes).then(|| hash::of(&bytes))
    }

    /// Returns the bucket of the request. Without a key chance decides; a request that lacks its key is in the last
    /// bucket. `prefix` precedes the key.
    pub(super) fn bucket(&self, key: &RequestKey, prefix: &[u8], chance: u64) -> Bucket {
        if *key == RequestKey::None {
            return Bucket::by_chance(chance);
        }
        let mut bytes = KeyBytes::from_slice(prefix);
        if self.append(key, &mut bytes) {
            Bucket::of(&bytes)
        } else {
            Bucket::LAST
        }
    }

    /// Appends the request's key to `bytes`. Returns whether it has one.
    ///
    /// A caller without credentials has no tenant, so its address takes the tenant's place.
    fn append(&self, key: &RequestKey, bytes: &mut KeyBytes) -> bool {
        let caller = &self.principal.caller;
        let is_anonymous = caller.kind.credential().is_none();
        match key {
            RequestKey::None => return false,
            RequestKey::Tenant | RequestKey::Caller if is_anonymous => append_address(self.address, bytes),
            RequestKey::ClientAddress => append_address(self.address, bytes),
            RequestKey::Tenant => bytes.extend_from_slice(caller.tenant.as_bytes()),
            RequestKey::Caller => {
                // No tenant contains a NUL, so no two callers have the same key.
                bytes.extend_from_slice(caller.tenant.as_bytes());
                bytes.push(0);
                bytes.extend_from_slice(caller.id.as_bytes());
            }
            RequestKey::Header(name) => {
                let before = bytes.len();
                for value in self.headers.get_all(name) {
                    if bytes.len() > before {
                        bytes.push(b',');
                    }
                    bytes.extend_from_slice(value.as_bytes());
                }
                return bytes.len() > before;
            }
            RequestKey::Cookie(name) => {
                let value = cookie(self.headers, name).unwrap_or_default();
                bytes.extend_from_slice(value);
                return !value.is_empty();
            }
            RequestKey::Path(name) => {
                let value = self.captures.get(name).unwrap_or_default();
                bytes.extend_from_slice(value.as_bytes());
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

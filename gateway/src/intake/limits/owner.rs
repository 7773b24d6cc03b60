//! Whom an account belongs to.

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::net::IpAddr;
use std::sync::LazyLock;

use smallvec::SmallVec;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Owner<'a> {
    Tenant(&'a str),
    /// A caller of a tenant: key id or subject.
    Caller(&'a str, &'a str),
    /// Masked, without port.
    Address(IpAddr),
    Route(&'a str),
    Everyone,
}

/// An owner's name in a table: 128 keyed bits, so that two owners never share and none can be aimed at. Two words
/// rather than one of 16 bytes, whose alignment would cost as much again in every row of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnerKey([u64; 2]);

impl<'a> Owner<'a> {
    /// From its name, as displayed.
    pub fn parse(name: &'a str) -> Option<Self> {
        let words: SmallVec<[&str; 3]> = name.split(' ').collect();
        match *words.as_slice() {
            ["tenant", tenant] => Some(Self::Tenant(tenant)),
            ["caller", tenant, id] => Some(Self::Caller(tenant, id)),
            ["address", address] => address.parse().ok().map(Self::Address),
            ["route", route] => Some(Self::Route(route)),
            ["everyone"] => Some(Self::Everyone),
            _ => None,
        }
    }

    pub fn key(&self) -> OwnerKey {
        static KEYS: LazyLock<[RandomState; 2]> = LazyLock::new(|| [RandomState::new(), RandomState::new()]);
        OwnerKey(KEYS.each_ref().map(|state| state.hash_one(self)))
    }
}

/// The same in every process, and different for any two owners: no name holds a space.
impl fmt::Display for Owner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenant(tenant) => write!(f, "tenant {tenant}"),
            Self::Caller(tenant, id) => write!(f, "caller {tenant} {id}"),
            Self::Address(address) => write!(f, "address {address}"),
            Self::Route(route) => write!(f, "route {route}"),
            Self::Everyone => f.write_str("everyone"),
        }
    }
}

impl OwnerKey {
    /// Enough of the key to tell tenants apart in a queue.
    pub fn short(self) -> u64 {
        self.0[1]
    }
}

impl Hash for OwnerKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.short());
    }
}

/// The key is a hash already.
#[derive(Default)]
pub struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_owners_have_one_key_or_one_name() {
        let owners = [
            Owner::Tenant("a"),
            Owner::Tenant("b"),
            Owner::Route("a"),
            Owner::Caller("ab", "c"),
            Owner::Caller("a", "bc"),
            Owner::Address([127, 0, 0, 1].into()),
            Owner::Everyone,
        ];
        for (at, one) in owners.iter().enumerate() {
            for other in &owners[..at] {
                assert!(
                    one.key() != other.key() && one.to_string() != other.to_string(),
                    "{one} {other}"
                );
            }
            assert_eq!(Owner::parse(&one.to_string()), Some(*one));
        }
    }
}

//! The owner of an account, its key in a table, and its name in files and in the admin API.

use std::borrow::Cow;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::OnceLock;

use siphasher::sip128::{Hasher128, SipHasher13};
use smallvec::SmallVec;

use crate::identity;
use crate::limits::owner_class::OwnerClass;
use crate::template::percent;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Owner<'a> {
    Tenant(&'a str),
    /// A caller of a tenant, by its kind of credential and its name: the names of different kinds are independent.
    Caller(&'a str, Credential<'a>, &'a str),
    /// A client address without port; an IPv6 address is masked.
    Address(IpAddr),
    /// All addresses of a network that have no account of their own.
    Network(IpAddr),
    /// All callers of a tenant that have no account of their own.
    CallersOf(&'a str),
    /// All owners of a kind that have no account of their own, and whose network or tenant has none either.
    Others(Others),
    Route(&'a str),
    Everyone,
}

/// The kind of credential that a caller shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Credential<'a> {
    ApiKey,
    /// A token, by the name of its issuer in the config.
    Token(&'a str),
    Certificate,
    Password,
    /// Caller that the external service answers for.
    External,
}

/// Kinds of owners that can share one account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Others {
    Addresses,
    Tenants,
    Callers,
}

/// Key of an owner in a table: 120 bits of a keyed hash. Two owners never share a key, and no attacker can choose one.
/// In a table the key also records the room that the account occupies; comparison ignores the room.
#[derive(Debug, Clone, Copy)]
pub struct OwnerKey {
    short: u64,
    long: [u8; 7],
    room: Option<OwnerClass>,
}

/// Secret keys of the hash that [`OwnerKey`] holds. A process that replaces another one uses the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashKeys(pub u64, pub u64);

static HASH_KEYS: OnceLock<HashKeys> = OnceLock::new();

impl HashKeys {
    /// Returns the keys of this process: random ones, unless it has [taken over](Self::take_over) others.
    pub fn of_process() -> Self {
        *HASH_KEYS.get_or_init(|| {
            let [first, second] = [(); 2].map(|()| RandomState::new().hash_one(0));
            Self(first, second)
        })
    }

    /// Makes these the keys of this process. Returns false if it has used others already.
    pub fn take_over(self) -> bool {
        *HASH_KEYS.get_or_init(|| self) == self
    }

    /// Returns a number that changes when another version of the gateway hashes owners in another way.
    pub fn form() -> u64 {
        let owners = [
            Owner::Tenant("tenant"),
            Owner::Caller("tenant", Credential::Token("issuer"), "id"),
            Owner::Caller("tenant", Credential::ApiKey, "id"),
            Owner::Caller("tenant", Credential::Certificate, "id"),
            Owner::Caller("tenant", Credential::Password, "id"),
            Owner::Address(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            Owner::Address(IpAddr::V6(Ipv6Addr::LOCALHOST)),
            Owner::Network(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            Owner::CallersOf("tenant"),
            Owner::Others(Others::Addresses),
            Owner::Others(Others::Tenants),
            Owner::Others(Others::Callers),
            Owner::Route("route"),
            Owner::Everyone,
        ];
        let keys = owners.map(|owner| owner.key_by(Self(1, 2)));
        let mut all = SipHasher13::new_with_keys(1, 2);
        for OwnerKey { short, long, .. } in keys {
            all.write_u64(short);
            all.write(&long);
        }
        all.finish128().h1
    }
}

/// An owner's displayed name, split into decoded words.
#[derive(Debug)]
pub struct OwnerName<'a>(SmallVec<[Cow<'a, str>; 4]>);

impl<'a> OwnerName<'a> {
    /// Splits and decodes a name; `None` if a word is not UTF-8 once decoded.
    pub fn read(name: &'a str) -> Option<Self> {
        name.split(' ').map(percent::decode).collect::<Option<_>>().map(Self)
    }

    /// Returns the owner with this name, or `None` if no owner has such a name.
    pub fn owner(&self) -> Option<Owner<'_>> {
        let words: SmallVec<[&str; 4]> = self.0.iter().map(AsRef::as_ref).collect();
        match *words.as_slice() {
            ["tenant", tenant] => Some(Owner::Tenant(tenant)),
            ["caller", tenant, id] => Some(Owner::Caller(tenant, Credential::ApiKey, id)),
            ["caller", tenant, credential, id] => Some(Owner::Caller(tenant, Credential::parse(credential)?, id)),
            ["address", address] => address.parse().ok().map(Owner::Address),
            ["network", network] => network.parse().ok().map(Owner::Network),
            ["callers", tenant] => Some(Owner::CallersOf(tenant)),
            ["others", others] => Others::ALL
                .into_iter()
                .find(|all| all.as_str() == others)
                .map(Owner::Others),
            ["route", route] => Some(Owner::Route(route)),
            ["everyone"] => Some(Owner::Everyone),
            _ => None,
        }
    }
}

/// A name that is written as one word, percent-encoded.
struct Word<'a>(&'a str);

impl fmt::Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&identity::encoded(self.0))
    }
}

impl Owner<'_> {
    pub fn key(&self) -> OwnerKey {
        self.key_by(HashKeys::of_process())
    }

    fn key_by(&self, HashKeys(first, second): HashKeys) -> OwnerKey {
        let mut hasher = SipHasher13::new_with_keys(first, second);
        self.hash(&mut hasher);
        let hash = hasher.finish128();
        let [long @ .., _] = hash.h2.to_le_bytes();
        OwnerKey {
            short: hash.h1,
            long,
            room: None,
        }
    }

    /// Returns the wider owner whose account is used where there is no room for an account of its own: an address's
    /// network, or a caller's tenant. A network is an IPv4 /24 or an IPv6 /48, the sizes that one party commonly has.
    pub fn wider(&self) -> Option<Self> {
        match self {
            Self::Address(IpAddr::V4(ip)) => {
                let [a, b, c, _] = ip.octets();
                Some(Self::Network(Ipv4Addr::new(a, b, c, 0).into()))
            }
            Self::Address(IpAddr::V6(ip)) => {
                let [a, b, c, ..] = ip.segments();
                Some(Self::Network(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).into()))
            }
            Self::Caller(tenant, ..) => Some(Self::CallersOf(tenant)),
            _ => None,
        }
    }

    /// Returns the group whose account is used where there is no room for the wider owner either.
    pub const fn others(&self) -> Others {
        match self {
            Self::Address(_) | Self::Network(_) => Others::Addresses,
            Self::Caller(..) | Self::CallersOf(_) => Others::Callers,
            Self::Tenant(_) | Self::Route(_) | Self::Everyone => Others::Tenants,
            Self::Others(others) => *others,
        }
    }

    /// Returns the room that the account occupies if only requests name the owner; `None` for owners that occupy none.
    pub const fn room(&self) -> Option<OwnerClass> {
        match self {
            Self::Address(_) => Some(OwnerClass::Addresses),
            Self::Network(_) => Some(OwnerClass::Networks),
            Self::Tenant(_) => Some(OwnerClass::Tenants),
            Self::Caller(..) => Some(OwnerClass::Callers),
            Self::CallersOf(_) => Some(OwnerClass::CallersOfTenants),
            Self::Others(_) | Self::Route(_) | Self::Everyone => None,
        }
    }
}

impl<'a> Credential<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        match text {
            "api_key" => Some(Self::ApiKey),
            "mtls" => Some(Self::Certificate),
            "basic" => Some(Self::Password),
            "external" => Some(Self::External),
            _ => text.strip_prefix("jwt:").map(Self::Token),
        }
    }
}

impl Others {
    pub const ALL: [Self; 3] = [Self::Addresses, Self::Tenants, Self::Callers];

    /// Returns the kind of owners whose shared account stands in for an owner of this class.
    pub const fn of(class: OwnerClass) -> Self {
        match class {
            OwnerClass::Addresses | OwnerClass::Networks => Self::Addresses,
            OwnerClass::Tenants | OwnerClass::Restored => Self::Tenants,
            OwnerClass::Callers | OwnerClass::CallersOfTenants => Self::Callers,
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Addresses => "addresses",
            Self::Tenants => "tenants",
            Self::Callers => "callers",
        }
    }
}

/// Writes the same name in every process, and different names for different owners: words are percent-encoded, so that
/// none holds a space. A caller with an API key has no word for its credential, because state files from before there
/// were other credentials hold such names.
impl fmt::Display for Owner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenant(tenant) => write!(f, "tenant {}", Word(tenant)),
            Self::Caller(tenant, credential, id) => {
                write!(f, "caller {} ", Word(tenant))?;
                match credential {
                    Credential::ApiKey => {}
                    Credential::Token(issuer) => write!(f, "jwt:{} ", Word(issuer))?,
                    Credential::Certificate => f.write_str("mtls ")?,
                    Credential::Password => f.write_str("basic ")?,
                    Credential::External => f.write_str("external ")?,
                }
                Word(id).fmt(f)
            }
            Self::Address(address) => write!(f, "address {address}"),
            Self::Network(network) => write!(f, "network {network}"),
            Self::CallersOf(tenant) => write!(f, "callers {}", Word(tenant)),
            Self::Others(others) => write!(f, "others {}", others.as_str()),
            Self::Route(route) => write!(f, "route {}", Word(route)),
            Self::Everyone => f.write_str("everyone"),
        }
    }
}

impl OwnerKey {
    /// Returns 64 bits of the key, enough to tell tenants apart in a queue.
    pub fn short(self) -> u64 {
        self.short
    }

    /// Returns the key as bytes, for a process with the same [`HashKeys`].
    pub fn to_bytes(self) -> [u8; 15] {
        let mut bytes = [0; 15];
        bytes[..8].copy_from_slice(&self.short.to_le_bytes());
        bytes[8..].copy_from_slice(&self.long);
        bytes
    }

    pub fn of_bytes(bytes: [u8; 15]) -> Self {
        let [short @ .., _, _, _, _, _, _, _] = bytes;
        let [_, _, _, _, _, _, _, _, long @ ..] = bytes;
        Self {
            short: u64::from_le_bytes(short),
            long,
            room: None,
        }
    }

    /// Returns the same key with the room that the account occupies.
    pub(crate) const fn in_room(self, room: Option<OwnerClass>) -> Self {
        Self { room, ..self }
    }

    /// Returns the room that the account occupies.
    pub(crate) const fn room(self) -> Option<OwnerClass> {
        self.room
    }
}

impl PartialEq for OwnerKey {
    fn eq(&self, other: &Self) -> bool {
        self.short == other.short && self.long == other.long
    }
}

impl Eq for OwnerKey {}

impl Hash for OwnerKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.short);
    }
}

/// A hasher for keys that are hashes already: returns the number that it was given.
#[derive(Default)]
pub struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
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

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn no_two_owners_have_one_key_or_one_name() {
        let caller = |credential, id| Owner::Caller("a", credential, id);
        let owners = [
            Owner::Tenant("a"),
            Owner::Tenant("b"),
            Owner::Route("a"),
            Owner::Caller("ab", Credential::ApiKey, "c"),
            caller(Credential::ApiKey, "bc"),
            caller(Credential::Token("main"), "bc"),
            caller(Credential::Token("other"), "bc"),
            caller(Credential::Token("basic"), "bc"),
            caller(Credential::Certificate, "bc"),
            caller(Credential::Password, "bc"),
            caller(Credential::External, "bc"),
            // Identifiers that equal the word for a credential.
            caller(Credential::ApiKey, "mtls"),
            caller(Credential::Token("mtls"), "mtls"),
            caller(Credential::Certificate, "mtls"),
            Owner::Address(address("127.0.0.1")),
            Owner::Address(address("10.0.0.0")),
            Owner::Network(address("10.0.0.0")),
            Owner::CallersOf("a"),
            Owner::Others(Others::Addresses),
            Owner::Others(Others::Tenants),
            Owner::Others(Others::Callers),
            Owner::Everyone,
            // Names that look like several words, or like encoded ones.
            Owner::Tenant("a b"),
            Owner::Tenant("a%20b"),
            Owner::Tenant(" "),
            Owner::Tenant("%"),
            Owner::Tenant("us\u{e9}r-\u{2603}"),
            Owner::Tenant("use\u{301}r-\u{2603}"),
            Owner::CallersOf("a b"),
            Owner::Caller("a b", Credential::ApiKey, "c"),
            Owner::Caller("a", Credential::ApiKey, "b c"),
            Owner::Caller("a", Credential::ApiKey, "mtls c"),
            Owner::Caller("a", Credential::Certificate, "c"),
            Owner::Caller("\u{1f600}", Credential::Token("main"), "\u{5d0} \u{5d1}"),
        ];
        for (at, one) in owners.iter().enumerate() {
            for other in &owners[..at] {
                assert!(
                    one.key() != other.key() && one.to_string() != other.to_string(),
                    "{one} {other}"
                );
            }
            let name = one.to_string();
            assert_eq!(OwnerName::read(&name).expect("UTF-8").owner(), Some(*one));
        }
        for nobody in [
            "",
            "tenant",
            "tenant a b",
            "caller a ldap b",
            "others",
            "others routes",
            "network x",
            "tenant %ff",
        ] {
            let name = OwnerName::read(nobody);
            assert_eq!(name.as_ref().and_then(OwnerName::owner), None, "{nobody}");
        }
    }

    #[test]
    fn a_key_is_the_same_in_whatever_room() {
        let key = Owner::Tenant("a").key();
        let kept = key.in_room(Some(OwnerClass::Tenants));
        assert_eq!((kept, kept.room()), (key, Some(OwnerClass::Tenants)));
        assert_eq!(size_of::<OwnerKey>(), 16);
    }

    #[test]
    fn a_key_is_the_same_after_it_was_sent_and_with_other_hash_keys_another_one() {
        let owner = Owner::Caller("a", Credential::Token("main"), "b");
        assert_eq!(OwnerKey::of_bytes(owner.key().to_bytes()), owner.key());
        assert_ne!(owner.key_by(HashKeys(1, 2)), owner.key_by(HashKeys(1, 3)));
        assert_eq!(owner.key(), owner.key_by(HashKeys::of_process()));
        assert!(HashKeys::of_process().take_over());
        assert!(!HashKeys(1, 2).take_over(), "others are in use");
    }

    #[test]
    fn who_has_no_account_is_counted_with_its_like() {
        let check = |owner: Owner<'_>, wider: Option<Owner<'_>>, others| {
            assert_eq!((owner.wider(), owner.others()), (wider, others), "{owner}");
        };
        let network = |text| Some(Owner::Network(address(text)));
        check(
            Owner::Address(address("10.1.2.3")),
            network("10.1.2.0"),
            Others::Addresses,
        );
        check(
            Owner::Address(address("2001:db8:1:2::")),
            network("2001:db8:1::"),
            Others::Addresses,
        );
        check(Owner::Network(address("10.1.2.0")), None, Others::Addresses);
        let caller = Owner::Caller("acme", Credential::Token("main"), "ada");
        check(caller, Some(Owner::CallersOf("acme")), Others::Callers);
        check(Owner::CallersOf("acme"), None, Others::Callers);
        check(Owner::Tenant("acme"), None, Others::Tenants);
    }
}

//! Who a request is made for.
//!
//! Invariant: a `Caller` exists only for a credential that has been verified, or for an address that a
//! route admits without one. Its tenant and id hold no control characters; where they are passed on they are encoded
//! ([`identity`]).

use std::sync::Arc;

use crate::identity;
use crate::json::Document;
use crate::limits::owner::Credential;

/// The tenant of every caller without credentials. Reserved: no key and no token may name it.
pub const ANONYMOUS: &str = "anonymous";

/// Whoever a credential speaks for.
#[derive(Debug, Clone)]
pub struct Caller {
    pub tenant: Arc<str>,
    /// The key's id, the token's `sub`, the certificate's name, the user's name, or the client address.
    pub id: Arc<str>,
    /// The tier that the credential names. The caller's final tier is decided where the tiers are known.
    pub tier: Option<Arc<str>>,
    pub scopes: Box<[Arc<str>]>,
    pub kind: Kind,
    /// All claims of the token.
    pub claims: Option<Document>,
    /// The tenant stands in the key file; otherwise it is known from a claim or an address alone.
    pub configured: bool,
    /// Seconds since 1970 from which the credential is refused, leeway included.
    pub expires: Option<u64>,
}

/// How a caller is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    ApiKey,
    /// Holds the issuer's name in the config.
    Jwt(Arc<str>),
    Mtls,
    Basic,
    Anonymous,
}

impl Kind {
    /// What tells callers of the same name apart; `None` if nothing is shown.
    pub fn credential(&self) -> Option<Credential<'_>> {
        match self {
            Self::ApiKey => Some(Credential::ApiKey),
            Self::Jwt(issuer) => Some(Credential::Token(issuer)),
            Self::Mtls => Some(Credential::Certificate),
            Self::Basic => Some(Credential::Password),
            Self::Anonymous => None,
        }
    }

    /// The word that `access.any_of` and the log use.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::ApiKey => "api_key",
            Self::Jwt(_) => "jwt",
            Self::Mtls => "mtls",
            Self::Basic => "basic",
            Self::Anonymous => "anonymous",
        }
    }
}

/// Whether a tenant may have this name: 1 to 128 characters, none of them a control character, and not [`ANONYMOUS`].
pub fn is_tenant_name(name: &str) -> bool {
    name != ANONYMOUS && identity::is_name(name, identity::TENANT_LENGTH)
}

/// Whether a caller may have this id: 1 to 255 characters, none of them a control character.
pub fn is_caller_id(id: &str) -> bool {
    identity::is_name(id, identity::CALLER_LENGTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unicode_of_some_length() {
        let check = |name: &str, fits| assert_eq!(is_tenant_name(name), fits, "{name:?}");
        check("acme", true);
        check("a", true);
        check(&"x".repeat(128), true);
        check(&"x".repeat(129), false);
        check(&"\u{2603}".repeat(128), true);
        check(&"\u{2603}".repeat(129), false);
        check("", false);
        check("two words", true);
        check("line\nend", false);
        check("caf\u{e9}", true);
        check("anonymous", false);
        check("Anonymous", true);
        assert!(is_caller_id("anonymous"));
        assert!(is_caller_id(&"x".repeat(255)));
        assert!(!is_caller_id(&"x".repeat(256)));
        assert!(is_caller_id(&"\u{e9}".repeat(255)));
        assert!(!is_caller_id("a\u{9b}31m"));
    }
}

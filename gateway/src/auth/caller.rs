//! Identity of the caller that a request is made for.
//!
//! Invariant: a `Caller` exists only for a verified credential, or for a client address on a route that admits
//! anonymous callers. Its tenant and id hold no control characters, and are encoded where they are passed on
//! ([`identity`]).

use std::sync::Arc;

use crate::identity;
use crate::json::Document;
use crate::limits::owner::Credential;

/// Tenant of all anonymous callers. Reserved: no API key and no token may name it.
pub const ANONYMOUS: &str = "anonymous";

/// Identity that a credential was issued to.
#[derive(Debug, Clone)]
pub struct Caller {
    pub tenant: Arc<str>,
    /// API key's id, token's `sub`, certificate's name, user's name, `subject` of an external answer, or client address.
    pub id: Arc<str>,
    /// Tier that the credential names. [`crate::tenancy`] decides the final tier.
    pub tier: Option<Arc<str>>,
    pub scopes: Box<[Arc<str>]>,
    pub kind: Kind,
    /// All claims of the token.
    pub claims: Option<Document>,
    /// Whether a file of the operator names the tenant. Otherwise the tenant comes from a claim or an address.
    pub configured: bool,
    /// First second since 1970 in which the credential is refused, leeway included.
    pub expires: Option<u64>,
}

/// Kind of credential by which a caller is identified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    ApiKey,
    /// Name of the issuer in the config.
    Jwt(Arc<str>),
    Mtls,
    Basic,
    /// The external service has named the caller.
    External,
    Anonymous,
}

impl Kind {
    /// Kind of credential, which distinguishes callers with the same id. `None` for anonymous callers.
    pub fn credential(&self) -> Option<Credential<'_>> {
        match self {
            Self::ApiKey => Some(Credential::ApiKey),
            Self::Jwt(issuer) => Some(Credential::Token(issuer)),
            Self::Mtls => Some(Credential::Certificate),
            Self::Basic => Some(Credential::Password),
            Self::External => Some(Credential::External),
            Self::Anonymous => None,
        }
    }

    /// Name of the kind in `access.any_of` and in the log.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::ApiKey => "api_key",
            Self::Jwt(_) => "jwt",
            Self::Mtls => "mtls",
            Self::Basic => "basic",
            Self::External => "external",
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

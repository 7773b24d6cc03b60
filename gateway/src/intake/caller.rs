//! Who a request is made for.
//!
//! Invariant: a `Caller` exists only for a credential that has been verified, or for an address that a
//! route admits without one. Its tenant and id fit into a header field, so that they can be passed on.

use std::sync::Arc;

use crate::json::Document;

use super::limits::owner::Credential;

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

/// Whether a tenant may have this name: 1 to 128 characters of visible ASCII, and not [`ANONYMOUS`].
pub fn is_tenant_name(name: &str) -> bool {
    name != ANONYMOUS && is_visible(name, 128)
}

/// Whether a caller may have this id: 1 to 255 characters of visible ASCII (the length is OpenID Connect
/// Core 1.0 section 2, `sub`).
pub fn is_caller_id(id: &str) -> bool {
    is_visible(id, 255)
}

fn is_visible(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_into_a_header_field() {
        let check = |name: &str, fits| assert_eq!(is_tenant_name(name), fits, "{name:?}");
        check("acme", true);
        check("a", true);
        check(&"x".repeat(128), true);
        check(&"x".repeat(129), false);
        check("", false);
        check("two words", false);
        check("line\nend", false);
        check("caf\u{e9}", false);
        check("anonymous", false);
        assert!(is_caller_id("anonymous"));
        assert!(is_caller_id(&"x".repeat(255)));
        assert!(!is_caller_id(&"x".repeat(256)));
    }
}

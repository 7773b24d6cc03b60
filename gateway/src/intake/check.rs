//! The checks that a credential can fail, and what follows from failing each.
//!
//! The log names the check; the caller learns only the category, since the detail would help a forger.

/// The one check that a credential failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Check {
    /// The header that carries the credential came twice.
    HeaderRepeated,
    /// The header holds no readable credential.
    HeaderMalformed,
    KeyUnknown,
    KeyDisabled,
    KeyNotYetValid,
    KeyExpired,
    TokenTooLarge,
    /// Not three base64url parts, or a header that is not an object of distinct members.
    TokenMalformed,
    /// `typ` says that this is something else than an access token.
    TokenType,
    /// `crit` demands an extension, and there is none that we understand.
    CriticalExtension,
    /// The algorithm is not one that the issuer's key is pinned to.
    Algorithm,
    /// The claims are not an object of distinct members.
    ClaimsMalformed,
    Issuer,
    /// No key has ever been read from the issuer, or the last ones are too old.
    KeysUnavailable,
    KeyIdUnknown,
    /// Without a `kid`, too many keys would have to be tried.
    KeyIdMissing,
    Signature,
    /// `exp` is missing or no number.
    Expiry,
    TokenExpired,
    NotBefore,
    IssuedAt,
    Audience,
    Subject,
    Tenant,
    /// Two credentials were presented, and they name different tenants.
    TenantsDiffer,
    /// No credential was presented.
    Absent,
    /// A credential holds, but the route takes another kind.
    WrongKind,
}

/// What the caller is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Category {
    Missing,
    Invalid,
    Expired,
}

impl Check {
    /// The stable word for the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HeaderRepeated => "header_repeated",
            Self::HeaderMalformed => "header_malformed",
            Self::KeyUnknown => "key_unknown",
            Self::KeyDisabled => "key_disabled",
            Self::KeyNotYetValid => "key_not_before",
            Self::KeyExpired => "key_expired",
            Self::TokenTooLarge => "token_too_large",
            Self::TokenMalformed => "token_malformed",
            Self::TokenType => "typ",
            Self::CriticalExtension => "crit",
            Self::Algorithm => "alg",
            Self::ClaimsMalformed => "claims_malformed",
            Self::Issuer => "iss",
            Self::KeysUnavailable => "keys_unavailable",
            Self::KeyIdUnknown => "kid_unknown",
            Self::KeyIdMissing => "kid_missing",
            Self::Signature => "signature",
            Self::Expiry => "exp",
            Self::TokenExpired => "expired",
            Self::NotBefore => "nbf",
            Self::IssuedAt => "iat",
            Self::Audience => "aud",
            Self::Subject => "sub",
            Self::Tenant => "tenant",
            Self::TenantsDiffer => "tenants_differ",
            Self::Absent => "absent",
            Self::WrongKind => "wrong_kind",
        }
    }

    pub const fn category(self) -> Category {
        match self {
            Self::Absent | Self::WrongKind => Category::Missing,
            Self::KeyExpired | Self::TokenExpired => Category::Expired,
            _ => Category::Invalid,
        }
    }

    /// Whether this is a failed authentication of the client's making. A credential that was genuine once
    /// is not, nor is an issuer whose keys we do not have.
    pub const fn is_suspect(self) -> bool {
        matches!(self.category(), Category::Invalid) && !matches!(self, Self::KeysUnavailable)
    }

    /// Whether the same token fails again for as long as the issuer's keys stay the same, *and* finding that
    /// out costs a signature check. Only such verdicts are worth remembering.
    pub(super) const fn is_lasting(self) -> bool {
        matches!(
            self,
            Self::Signature | Self::Expiry | Self::TokenExpired | Self::Audience | Self::Subject | Self::Tenant
        )
    }
}

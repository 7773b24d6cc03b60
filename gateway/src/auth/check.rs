//! Checks that a credential can fail, and the consequences of each failure.
//!
//! The log names the check. The caller learns only the category, because the detail would help a forger.

use std::time::Duration;

use crate::setting::SettingId;

/// The check that a credential failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Check {
    /// The header field that carries the credential appears twice.
    HeaderRepeated,
    /// The header field holds no readable credential.
    HeaderMalformed,
    /// The key has the gateway's prefix but a wrong format or checksum: it is mistyped or truncated.
    KeyMalformed,
    KeyUnknown,
    KeyDisabled,
    KeyNotYetValid,
    KeyExpired,
    TokenTooLarge,
    /// The token is not three base64url parts, or its header is not a JSON object with distinct member names.
    TokenMalformed,
    /// `typ` is not an accepted token type.
    TokenType,
    /// `crit` is present. No critical extension is supported.
    CriticalExtension,
    /// The algorithm is missing, unsupported, or not the one that the issuer's key is pinned to.
    Algorithm,
    /// The claims are not a JSON object with distinct member names.
    ClaimsMalformed,
    Issuer,
    /// No keys have been read from the issuer yet, or the last ones are too old.
    KeysUnavailable,
    KeyIdUnknown,
    /// The token has no `kid`, and too many keys would have to be tried.
    KeyIdMissing,
    Signature,
    /// `exp` is missing or not a number.
    Expiry,
    TokenExpired,
    /// The token was issued longer ago than the issuer's `max_age` allows.
    TokenTooOld,
    NotBefore,
    IssuedAt,
    Audience,
    /// The claim that names the caller is missing or not a valid caller id.
    Subject,
    Tenant,
    /// The issuer may not name this tenant.
    TenantOfOther,
    /// An otherwise valid credential has been revoked. One variant for each kind of revocation entry.
    RevokedKey,
    RevokedToken,
    RevokedSubject,
    RevokedTenant,
    /// One of the issuer's `required_claims` is missing.
    ClaimMissing,
    /// The certificate's names cannot be read, or have more than one reading.
    CertificateMalformed,
    /// The authorities in force no longer vouch for the certificate.
    CertificateUntrusted,
    /// None of the certificate's names belongs to a caller.
    CertificateUnknown,
    /// The certificate's name is not a valid caller id, for example because it is too long.
    CertificateName,
    CertificateExpired,
    CertificateNotYetValid,
    UserUnknown,
    UserDisabled,
    Password,
    /// The password has not been compared yet.
    PasswordUnchecked {
        retry_after: Duration,
    },
    /// The external service does not know the credential (401).
    ExternalRefused,
    /// The external service has named a caller whose credential has expired.
    ExternalExpired,
    /// Two presented credentials name different tenants.
    TenantsDiffer,
    /// No credential was presented.
    Absent,
    /// A presented credential is of a kind that the route does not admit.
    WrongKind,
    /// The route requires several credentials together, and some are missing.
    Incomplete,
    /// The token was not checked, because too many tokens from this client address have failed.
    AddressOverBudget {
        retry_after: Duration,
    },
    /// The token was not checked, because the time budget for new tokens is used up.
    OverBudget {
        retry_after: Duration,
    },
}

/// Failure category that the caller is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Category {
    Missing,
    Invalid,
    Expired,
    /// The credential was not checked, for want of time. It may be valid.
    PutOff {
        retry_after: Duration,
    },
    /// The credential was not checked, for want of keys. It may be valid.
    Unverifiable,
}

impl Check {
    /// Stable name for the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HeaderRepeated => "header_repeated",
            Self::HeaderMalformed => "header_malformed",
            Self::KeyMalformed => "key_malformed",
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
            Self::TokenTooOld => "max_age",
            Self::NotBefore => "nbf",
            Self::IssuedAt => "iat",
            Self::Audience => "aud",
            Self::Subject => "caller",
            Self::Tenant => "tenant",
            Self::TenantOfOther => "tenant_of_other_issuer",
            Self::RevokedKey => "revoked_key",
            Self::RevokedToken => "revoked_jti",
            Self::RevokedSubject => "revoked_subject",
            Self::RevokedTenant => "revoked_tenant",
            Self::ClaimMissing => "required_claims",
            Self::CertificateMalformed => "certificate_malformed",
            Self::CertificateUntrusted => "certificate_untrusted",
            Self::CertificateUnknown => "certificate_unknown",
            Self::CertificateName => "certificate_name",
            Self::CertificateExpired => "certificate_expired",
            Self::CertificateNotYetValid => "certificate_not_before",
            Self::UserUnknown => "user_unknown",
            Self::UserDisabled => "user_disabled",
            Self::Password => "password",
            Self::PasswordUnchecked { .. } => "password_unchecked",
            Self::ExternalRefused => "external_refused",
            Self::ExternalExpired => "external_expired",
            Self::TenantsDiffer => "tenants_differ",
            Self::Absent => "absent",
            Self::WrongKind => "wrong_kind",
            Self::Incomplete => "incomplete",
            Self::AddressOverBudget { .. } => "verifications_of_address",
            Self::OverBudget { .. } => "verifications",
        }
    }

    /// Setting that caused the failure, unless it is the route's `access`.
    pub const fn setting(self) -> Option<SettingId> {
        match self {
            Self::AddressOverBudget { .. } => Some(SettingId::FAILED_VERIFICATIONS),
            Self::OverBudget { .. } => Some(SettingId::VERIFICATION_SHARE),
            _ => None,
        }
    }

    pub const fn category(self) -> Category {
        match self {
            Self::Absent | Self::WrongKind | Self::Incomplete => Category::Missing,
            Self::KeysUnavailable => Category::Unverifiable,
            Self::KeyExpired
            | Self::TokenExpired
            | Self::TokenTooOld
            | Self::CertificateExpired
            | Self::ExternalExpired => Category::Expired,
            Self::AddressOverBudget { retry_after }
            | Self::OverBudget { retry_after }
            | Self::PasswordUnchecked { retry_after } => Category::PutOff { retry_after },
            _ => Category::Invalid,
        }
    }

    /// Whether this is a failed authentication that counts against the client's address. Not counted are credentials
    /// that were valid once, credentials that cannot be verified now, and certificates that a known authority has
    /// signed.
    pub const fn is_suspect(self) -> bool {
        matches!(self.category(), Category::Invalid)
            && !self.is_revoked()
            && !matches!(
                self,
                Self::CertificateMalformed
                    | Self::CertificateUntrusted
                    | Self::CertificateUnknown
                    | Self::CertificateName
                    | Self::CertificateNotYetValid
            )
    }

    const fn is_revoked(self) -> bool {
        matches!(
            self,
            Self::RevokedKey | Self::RevokedToken | Self::RevokedSubject | Self::RevokedTenant
        )
    }

    /// Whether the verdict depends on the time. Such a verdict holds at the time of the check and later.
    pub(crate) const fn is_of_time(self) -> bool {
        matches!(self, Self::TokenExpired | Self::TokenTooOld)
    }

    /// Whether the same token fails again while the issuer's keys do not change and time moves forward, *and* the check
    /// costs a signature verification. Only such verdicts are cached.
    pub(crate) const fn is_lasting(self) -> bool {
        matches!(
            self,
            Self::Signature
                | Self::Expiry
                | Self::TokenExpired
                | Self::TokenTooOld
                | Self::Audience
                | Self::Subject
                | Self::Tenant
                | Self::TenantOfOther
                | Self::ClaimMissing
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const WAIT: Duration = Duration::from_secs(3);

    /// Every check, with its category, whether it counts against the client's address, and whether the verdict is
    /// cached.
    const ALL: [(Check, Category, bool, bool); 45] = {
        use Category::{Expired, Invalid, Missing};
        [
            (Check::HeaderRepeated, Invalid, true, false),
            (Check::HeaderMalformed, Invalid, true, false),
            (Check::KeyUnknown, Invalid, true, false),
            (Check::KeyDisabled, Invalid, true, false),
            (Check::KeyNotYetValid, Invalid, true, false),
            (Check::KeyExpired, Expired, false, false),
            (Check::TokenTooLarge, Invalid, true, false),
            (Check::TokenMalformed, Invalid, true, false),
            (Check::TokenType, Invalid, true, false),
            (Check::CriticalExtension, Invalid, true, false),
            (Check::Algorithm, Invalid, true, false),
            (Check::ClaimsMalformed, Invalid, true, false),
            (Check::Issuer, Invalid, true, false),
            (Check::KeysUnavailable, Category::Unverifiable, false, false),
            (Check::KeyIdUnknown, Invalid, true, false),
            (Check::KeyIdMissing, Invalid, true, false),
            (Check::Signature, Invalid, true, true),
            (Check::Expiry, Invalid, true, true),
            (Check::TokenExpired, Expired, false, true),
            (Check::TokenTooOld, Expired, false, true),
            (Check::NotBefore, Invalid, true, false),
            (Check::IssuedAt, Invalid, true, false),
            (Check::Audience, Invalid, true, true),
            (Check::Subject, Invalid, true, true),
            (Check::Tenant, Invalid, true, true),
            (Check::TenantOfOther, Invalid, true, true),
            (Check::ClaimMissing, Invalid, true, true),
            (Check::CertificateMalformed, Invalid, false, false),
            (Check::CertificateUntrusted, Invalid, false, false),
            (Check::CertificateUnknown, Invalid, false, false),
            (Check::CertificateName, Invalid, false, false),
            (Check::CertificateExpired, Expired, false, false),
            (Check::CertificateNotYetValid, Invalid, false, false),
            (Check::UserUnknown, Invalid, true, false),
            (Check::UserDisabled, Invalid, true, false),
            (Check::Password, Invalid, true, false),
            (
                Check::PasswordUnchecked { retry_after: WAIT },
                Category::PutOff { retry_after: WAIT },
                false,
                false,
            ),
            (Check::ExternalRefused, Invalid, true, false),
            (Check::ExternalExpired, Expired, false, false),
            (Check::TenantsDiffer, Invalid, true, false),
            (Check::Absent, Missing, false, false),
            (Check::WrongKind, Missing, false, false),
            (Check::Incomplete, Missing, false, false),
            (
                Check::AddressOverBudget { retry_after: WAIT },
                Category::PutOff { retry_after: WAIT },
                false,
                false,
            ),
            (
                Check::OverBudget { retry_after: WAIT },
                Category::PutOff { retry_after: WAIT },
                false,
                false,
            ),
        ]
    };

    #[test]
    fn each_check_has_its_word_and_its_consequences() {
        let mut words = HashSet::new();
        for (check, category, suspect, lasting) in ALL {
            assert_eq!(check.category(), category, "{check:?}");
            assert_eq!(check.is_suspect(), suspect, "{check:?}");
            assert_eq!(check.is_lasting(), lasting, "{check:?}");
            let of_time = matches!(check, Check::TokenExpired | Check::TokenTooOld);
            assert_eq!(check.is_of_time(), of_time, "{check:?}");
            // A failure that ends with time is not cached.
            assert!(
                !(lasting && matches!(check, Check::NotBefore | Check::IssuedAt)),
                "{check:?}"
            );
            assert!(words.insert(check.as_str()), "{check:?} shares its word");
        }
    }
}

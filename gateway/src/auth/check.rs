//! The checks that a credential can fail, and what follows from failing each.
//!
//! The log names the check; the caller learns only the category, since the detail would help a forger.

use std::time::Duration;

use crate::rejection::Setting;

/// The one check that a credential failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Check {
    /// The header that carries the credential came twice.
    HeaderRepeated,
    /// The header holds no readable credential.
    HeaderMalformed,
    /// Begins like a key of ours, and its checksum does not fit: mistyped or cut off.
    KeyMalformed,
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
    /// Issued longer ago than the issuer's `max_age` allows.
    TokenTooOld,
    NotBefore,
    IssuedAt,
    Audience,
    /// The claim that names the caller is missing or no name.
    Subject,
    Tenant,
    /// The issuer may not speak for the tenant.
    TenantOfOther,
    /// What holds otherwise has been taken back; each names the kind of entry.
    RevokedKey,
    RevokedToken,
    RevokedSubject,
    RevokedTenant,
    /// One of the issuer's `required_claims`.
    ClaimMissing,
    /// The certificate's names cannot be read, or could be read in two ways.
    CertificateMalformed,
    /// The authority that vouched for the certificate when the connection was made is none any more.
    CertificateUntrusted,
    /// None of the certificate's names stands for a caller.
    CertificateUnknown,
    /// The certificate's name is too long for a caller's.
    CertificateName,
    CertificateExpired,
    CertificateNotYetValid,
    UserUnknown,
    UserDisabled,
    Password,
    /// The password has still to be compared.
    PasswordUnchecked {
        retry_after: Duration,
    },
    /// Two credentials were presented, and they name different tenants.
    TenantsDiffer,
    /// No credential was presented.
    Absent,
    /// A credential holds, but the route takes another kind.
    WrongKind,
    /// The route takes several credentials together, and not all of them were presented.
    Incomplete,
    /// Not looked at: too many tokens from this client address have failed. Nothing is known of this one.
    AddressOverBudget {
        retry_after: Duration,
    },
    /// Not looked at: the time that there is for tokens seen for the first time is used up.
    OverBudget {
        retry_after: Duration,
    },
}

/// What the caller is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Category {
    Missing,
    Invalid,
    Expired,
    /// It may hold; there is no time to find out.
    PutOff {
        retry_after: Duration,
    },
    /// It may hold; there is nothing to check it with.
    Unverifiable,
}

impl Check {
    /// The stable word for the log.
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
            Self::TenantsDiffer => "tenants_differ",
            Self::Absent => "absent",
            Self::WrongKind => "wrong_kind",
            Self::Incomplete => "incomplete",
            Self::AddressOverBudget { .. } => "verifications_of_address",
            Self::OverBudget { .. } => "verifications",
        }
    }

    /// The setting that decided, where there is one beside the route's `access`.
    pub const fn setting(self) -> Option<Setting> {
        match self {
            Self::AddressOverBudget { .. } => Some(Setting::FailedVerifications),
            Self::OverBudget { .. } => Some(Setting::VerificationShare),
            _ => None,
        }
    }

    pub const fn category(self) -> Category {
        match self {
            Self::Absent | Self::WrongKind | Self::Incomplete => Category::Missing,
            Self::KeysUnavailable => Category::Unverifiable,
            Self::KeyExpired | Self::TokenExpired | Self::TokenTooOld | Self::CertificateExpired => Category::Expired,
            Self::AddressOverBudget { retry_after }
            | Self::OverBudget { retry_after }
            | Self::PasswordUnchecked { retry_after } => Category::PutOff { retry_after },
            _ => Category::Invalid,
        }
    }

    /// Whether this is a failed authentication of the client's making. A credential that was genuine once is not, nor
    /// is one that cannot be verified, nor a certificate that a known authority has signed.
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

    /// Whether the time has decided; then the verdict stands while it is not earlier than when it was given.
    pub(crate) const fn is_of_time(self) -> bool {
        matches!(self, Self::TokenExpired | Self::TokenTooOld)
    }

    /// Whether the same token fails again for as long as the issuer's keys stay the same and the time goes on, *and*
    /// finding that out costs a signature check. Only such verdicts are worth remembering.
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

    /// Every check, with what the caller learns, whether it is counted against the client's address, and whether the
    /// verdict is remembered.
    const ALL: [(Check, Category, bool, bool); 43] = {
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
            // What comes to hold by itself is not remembered.
            assert!(
                !(lasting && matches!(check, Check::NotBefore | Check::IssuedAt)),
                "{check:?}"
            );
            assert!(words.insert(check.as_str()), "{check:?} shares its word");
        }
    }
}

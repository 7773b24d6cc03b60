//! Parses a signed token in compact form (RFC 7515 section 7.1), and verifies its signature with one key.
//!
//! The token never chooses how it is verified: its `alg` must be the algorithm that the key is pinned to. The header
//! parameters `jwk`, `jku`, `x5c` and `x5u` are ignored. Knows nothing of claims.

use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;

use crate::auth::check::Check;
use crate::json::{Document, Kind};

/// Signature algorithm: RFC 7518 section 3.1, and RFC 8037 for Ed25519.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    ES512,
    EdDSA,
}

/// Accepted values of `typ`. Tokens of other types (logout tokens, security events, proofs of possession) are signed
/// with the same keys but grant no access (RFC 8725 section 3.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenType {
    /// `JWT` (RFC 7519 section 5.1).
    Jwt,
    /// `at+jwt` (RFC 9068 section 2.1).
    AccessToken,
}

/// Maximum length of a token in bytes. Longer tokens are refused unread.
pub const MAX_LENGTH: usize = 8 * 1024;

/// A well-formed token whose signature has not been verified.
#[derive(Debug)]
pub struct Jws<'a> {
    pub algorithm: Algorithm,
    pub kid: Option<String>,
    pub typ: Option<TokenType>,
    signed: &'a str,
    payload: &'a str,
    signature: &'a str,
}

/// Returns the algorithm of this name, if it is supported.
///
/// `Ed25519` is the name that RFC 9864 gives to `EdDSA` with that curve, the only EdDSA curve supported here.
pub fn algorithm(name: &str) -> Option<Algorithm> {
    if name == "Ed25519" {
        return Some(Algorithm::EdDSA);
    }
    Algorithm::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
}

impl Algorithm {
    pub const HMAC: [Self; 3] = [Self::HS256, Self::HS384, Self::HS512];
    pub const RSA: [Self; 6] = [
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
    ];
    pub const ALL: [Self; 13] = [
        Self::HS256,
        Self::HS384,
        Self::HS512,
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::ES512,
        Self::EdDSA,
    ];

    /// Value of `alg`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HS256 => "HS256",
            Self::HS384 => "HS384",
            Self::HS512 => "HS512",
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::ES512 => "ES512",
            Self::EdDSA => "EdDSA",
        }
    }

    pub(crate) fn is_hmac(self) -> bool {
        Self::HMAC.contains(&self)
    }

    /// Returns the JWT library's value for the algorithm. `None` for ES512, which the library lacks.
    pub(crate) fn in_library(self) -> Option<jsonwebtoken::Algorithm> {
        self.as_str().parse().ok()
    }
}

/// Returns the header and the claims as far as they can be read, for display. Verifies nothing.
pub fn readable(token: &str) -> (Option<Document>, Option<Document>) {
    let token = token.get(..MAX_LENGTH).unwrap_or(token);
    let mut parts = token.split('.');
    let mut object = || object(decode(parts.next()?).ok()?);
    (object(), object())
}

impl<'a> Jws<'a> {
    /// # Errors
    /// The check that the form or the header fails.
    pub fn parse(token: &'a str) -> Result<Self, Check> {
        if token.len() > MAX_LENGTH {
            return Err(Check::TokenTooLarge);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Check::TokenMalformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Check::TokenMalformed)?;
        // A fourth part would leave its dot in the payload, where decoding fails. This cheap check fails earlier.
        if payload.contains('.') {
            return Err(Check::TokenMalformed);
        }
        let header = object(decode(header)?).ok_or(Check::TokenMalformed)?;
        let header = header.value();

        if header.get("crit").is_some() {
            return Err(Check::CriticalExtension);
        }
        let typ = match header.get("typ") {
            None => None,
            Some(typ) => Some(typ.text().and_then(|typ| token_type(&typ)).ok_or(Check::TokenType)?),
        };
        let kid = match header.get("kid") {
            None => None,
            Some(kid) => Some(kid.text().ok_or(Check::TokenMalformed)?.into_owned()),
        };
        let algorithm = header
            .get("alg")
            .and_then(|alg| algorithm(&alg.text()?))
            .ok_or(Check::Algorithm)?;
        Ok(Self {
            algorithm,
            kid,
            typ,
            signed,
            payload,
            signature,
        })
    }

    /// Returns the payload's bytes. They are untrusted until [`Self::is_signed_with`] has returned true.
    ///
    /// # Errors
    /// If it is not base64url without padding (RFC 7515 section 2).
    pub fn payload(&self) -> Result<Vec<u8>, Check> {
        decode(self.payload)
    }

    /// Whether `key` verifies the signature under `pinned`, and the token's `alg` is `pinned`.
    pub fn is_signed_with(&self, key: &DecodingKey, pinned: Algorithm) -> bool {
        let message = self.signed.as_bytes();
        self.algorithm == pinned
            && match pinned.in_library() {
                Some(pinned) => jsonwebtoken::crypto::verify(self.signature, message, key, pinned).unwrap_or(false),
                None => self.is_signed_with_p521(key),
            }
    }

    /// Verifies ES512. The signature is R and S of 66 bytes each (RFC 7518 section 3.4); another length fails.
    fn is_signed_with_p521(&self, key: &DecodingKey) -> bool {
        let (Ok(point), Ok(signature)) = (key.try_get_as_bytes(), decode(self.signature)) else {
            return false;
        };
        UnparsedPublicKey::new(&ECDSA_P521_SHA512_FIXED, point)
            .verify(self.signed.as_bytes(), &signature)
            .is_ok()
    }
}

/// Reads a `typ`. Media types are case-insensitive, and `application/` may be omitted.
fn token_type(typ: &str) -> Option<TokenType> {
    let bare = match typ.split_at_checked("application/".len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case("application/") => rest,
        _ => typ,
    };
    let is = |name: &str| bare.eq_ignore_ascii_case(name);
    if is("JWT") {
        Some(TokenType::Jwt)
    } else if is("at+jwt") {
        Some(TokenType::AccessToken)
    } else {
        None
    }
}

/// Reads a JSON object whose member names are distinct at any depth and whose strings are valid Unicode.
///
/// RFC 7515 section 4 and RFC 7519 section 4 let a verifier refuse duplicate names or take the last one. Another reader
/// of the token may take the first one, so a refusal is the only result on which all readers agree.
pub(crate) fn object(json: Vec<u8>) -> Option<Document> {
    let document = Document::check(&json.into(), MAX_LENGTH).ok()?;
    let value = document.value();
    (value.kind() == Kind::Object && value.is_unicode()).then_some(document)
}

fn decode(part: &str) -> Result<Vec<u8>, Check> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Check::TokenMalformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(header: &str) -> Result<(Algorithm, Option<String>), Check> {
        let token = format!("{}.e30.AA", URL_SAFE_NO_PAD.encode(header));
        Jws::parse(&token).map(|jws| (jws.algorithm, jws.kid))
    }

    #[test]
    fn the_header_says_what_it_may_say() {
        let check = |header: &str, expected| assert_eq!(parse(header).map(|(alg, _)| alg), expected, "{header}");
        check(r#"{"alg":"RS256"}"#, Ok(Algorithm::RS256));
        check(r#"{"alg":"Ed25519"}"#, Ok(Algorithm::EdDSA));
        check(r#"{"alg":"RS256","typ":"JWT"}"#, Ok(Algorithm::RS256));
        check(r#"{"alg":"RS256","typ":"at+jwt"}"#, Ok(Algorithm::RS256));
        check(r#"{"alg":"RS256","typ":"application/AT+JWT"}"#, Ok(Algorithm::RS256));
        check(r#"{"alg":"RS256","typ":"logout+jwt"}"#, Err(Check::TokenType));
        check(r#"{"alg":"RS256","typ":"dpop+jwt"}"#, Err(Check::TokenType));
        check(r#"{"alg":"RS256","typ":7}"#, Err(Check::TokenType));
        check(r#"{"alg":"RS256","crit":["exp"]}"#, Err(Check::CriticalExtension));
        check(r#"{"alg":"RS256","crit":[]}"#, Err(Check::CriticalExtension));
        check(
            r#"{"alg":"RS256","crit":["b64"],"b64":false}"#,
            Err(Check::CriticalExtension),
        );
        check(r#"{"alg":"none"}"#, Err(Check::Algorithm));
        check(r#"{"alg":"NONE"}"#, Err(Check::Algorithm));
        check(r#"{"alg":"rs256"}"#, Err(Check::Algorithm));
        check(r#"{"alg":"ES512"}"#, Ok(Algorithm::ES512));
        check(r#"{"alg":"ES521"}"#, Err(Check::Algorithm));
        check(r#"{"alg":"ES256K"}"#, Err(Check::Algorithm));
        check(r#"{"alg":["RS256"]}"#, Err(Check::Algorithm));
        check("{}", Err(Check::Algorithm));
        check(r#"{"alg":"RS256","alg":"none"}"#, Err(Check::TokenMalformed));
        check(r#"{"alg":"RS256","\u0061lg":"none"}"#, Err(Check::TokenMalformed));
        check(r#"{"alg":"RS256","x":{"a":1,"a":1}}"#, Err(Check::TokenMalformed));
        check(r#"{"alg":"RS256","x":["\ud800"]}"#, Err(Check::TokenMalformed));
        check(r#"{"alg":"RS256","kid":"\ud83d\ude00"}"#, Ok(Algorithm::RS256));
        check(r#"{"alg":"RS256"} {}"#, Err(Check::TokenMalformed));
        check(r#"{"\u0061lg":"RS\u003256"}"#, Ok(Algorithm::RS256));
        check(r#"{"alg":"RS256","kid":1}"#, Err(Check::TokenMalformed));
        check(r#"{"alg":"RS256","kid":null}"#, Err(Check::TokenMalformed));
        check("[]", Err(Check::TokenMalformed));
        check("", Err(Check::TokenMalformed));
    }

    #[test]
    fn es512_alone_is_not_the_librarys() {
        for known in Algorithm::ALL {
            assert_eq!(known.in_library().is_none(), known == Algorithm::ES512, "{known:?}");
            assert_eq!(algorithm(known.as_str()), Some(known));
        }
    }

    #[test]
    fn the_form_is_three_parts_of_strict_base64url() {
        let check = |token: &str, expected| assert_eq!(Jws::parse(token).err(), expected, "{token}");
        let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256"}"#);
        check(&format!("{head}.e30.AA"), None);
        check(&format!("{head}.e30"), Some(Check::TokenMalformed));
        check(&format!("{head}.e30.AA."), Some(Check::TokenMalformed));
        check(&format!("{head}.e30.AA.AA"), Some(Check::TokenMalformed));
        check(&format!("{head}=.e30.AA"), Some(Check::TokenMalformed));
        check(&format!(" {head}.e30.AA"), Some(Check::TokenMalformed));
        check("", Some(Check::TokenMalformed));
        check("..", Some(Check::TokenMalformed));
        check(&"a".repeat(MAX_LENGTH + 1), Some(Check::TokenTooLarge));
        check(&".".repeat(MAX_LENGTH), Some(Check::TokenMalformed));
    }

    #[test]
    fn payload_bits_that_mean_nothing_are_refused() {
        let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256"}"#);
        for (payload, accepted) in [
            ("AA", true),
            ("AB", false),
            ("AA==", false),
            ("A+", false),
            ("A", false),
        ] {
            let token = format!("{head}.{payload}.AA");
            assert_eq!(Jws::parse(&token).unwrap().payload().is_ok(), accepted, "{payload}");
        }
    }
}

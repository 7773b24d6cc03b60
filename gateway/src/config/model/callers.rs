//! Who calls: the kinds of credentials this gateway takes, and what it makes of them.

use std::fmt;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;

use crate::config::fields::Fields;
use crate::config::mistake::{Code, Mistake};
use crate::config::named::NamedMap;
use crate::config::reader::{Read, Value};
use crate::config::scalar::{Scalar, Wrong, words};
use crate::config::span::At;
use crate::config::units::Rate;

#[derive(Debug, Clone, PartialEq)]
pub struct Callers {
    pub api_keys: Option<ApiKeys>,
    /// Issuers of tokens, by the name that `access.any_of: [jwt:NAME]` uses.
    pub jwt: NamedMap<Jwt>,
    /// Who one is without credentials, on routes that admit it.
    pub anonymous: Option<Anonymous>,
    /// Failed authentications per client address; default 5/s, burst 50; `None` is `off`.
    pub failures: Option<Failures>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ApiKeys {
    /// Default `x-api-key`.
    pub header: At<HeaderName>,
    /// See [`crate::config::keys`].
    pub file: At<PathBuf>,
}

/// One issuer of tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Jwt {
    /// What `iss` must be; left out, it is not asked for.
    pub issuer: Option<At<String>>,
    /// One of these must be in `aud`; empty, it is not asked for.
    pub audience: Vec<At<String>>,
    /// The only algorithms taken; at least one, and all fit `keys`.
    pub algorithms: Vec<At<Algorithm>>,
    pub keys: JwtKeys,
    /// The claim that names the tenant; a token without it is refused.
    pub tenant: At<Pointer>,
    /// The claim that names a tier, whose value must be one of `tiers`.
    pub tier: Option<At<Pointer>>,
    /// The claim that holds scopes, as a list or separated by spaces; default `/scope` (RFC 8693 section 4.2).
    pub scopes: At<Pointer>,
    /// By how much the clocks may differ, at most 10m; default 30s.
    pub leeway: At<Duration>,
}

/// Where the keys that verify a token come from.
#[derive(Debug, Clone, PartialEq)]
pub enum JwtKeys {
    /// A JWKS at an http or https URL.
    Url(At<String>),
    /// A JWKS in a file, which may hold symmetric keys.
    File(At<PathBuf>),
    /// One symmetric key of at least 32 bytes.
    Secret(At<Secret>),
    /// The same in a file; a line break at its end is not part of it.
    SecretFile(At<PathBuf>),
}

/// Text that must not show up in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// A JSON pointer (RFC 6901) into the claims of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer(String);

#[derive(Debug, Clone, PartialEq)]
pub struct Anonymous {
    /// Default and only choice: `client_address`.
    pub by: At<AnonymousBy>,
    /// Default: the default tier.
    pub tier: Option<At<String>>,
}

/// A token bucket for each client address; every failed authentication takes one.
#[derive(Debug, Clone, PartialEq)]
pub struct Failures {
    pub rate: At<Rate>,
    pub burst: At<NonZeroU64>,
}

words! {
    /// What makes two anonymous callers one.
    pub enum AnonymousBy { ClientAddress = "client_address" }

    /// Signature algorithms (RFC 7518 section 3.1, RFC 8037).
    pub enum Algorithm {
        Hs256 = "HS256", Hs384 = "HS384", Hs512 = "HS512",
        Rs256 = "RS256", Rs384 = "RS384", Rs512 = "RS512",
        Ps256 = "PS256", Ps384 = "PS384", Ps512 = "PS512",
        Es256 = "ES256", Es384 = "ES384", Es512 = "ES512",
        EdDsa = "EdDSA",
    }
}

impl Algorithm {
    /// HMAC: whoever can verify can also sign.
    pub const fn is_symmetric(self) -> bool {
        matches!(self, Self::Hs256 | Self::Hs384 | Self::Hs512)
    }
}

impl Secret {
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Pointer {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Scalar for Pointer {
    const EXPECTED: &'static str = "a JSON pointer into the claims, such as `/tenant`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let wrong = |label| Wrong::new(Code::BadValue, label);
        if !text.starts_with('/') {
            return Err(wrong("does not begin with `/`").hint(format!("did you mean `/{text}`?")));
        }
        let mut tildes = text.split('~').skip(1);
        if !tildes.all(|after| after.starts_with(['0', '1'])) {
            return Err(wrong("has a bare `~`").hint("`~0` stands for `~`, `~1` for `/`"));
        }
        Ok(Self(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

impl Scalar for HeaderName {
    const EXPECTED: &'static str = "the name of a header field";

    fn parse(text: &str) -> Result<Self, Wrong> {
        Self::from_bytes(text.as_bytes()).map_err(|_| Wrong::new(Code::BadValue, "is not a field name"))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Scalar for Secret {
    const EXPECTED: &'static str = "a secret, as `${VARIABLE}`";
    const SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, Wrong> {
        // RFC 7518 section 3.2: a key as long as the hash of the weakest algorithm.
        if text.len() < 32 {
            return Err(Wrong::new(Code::OutOfRange, "is shorter than 32 bytes"));
        }
        Ok(Self(text.to_owned()))
    }

    fn show(&self) -> String {
        "(secret)".to_owned()
    }
}

impl Read for Callers {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            f.not_built(&["basic", "mtls"]);
            Self {
                api_keys: f.optional("api_keys"),
                jwt: f.optional("jwt").unwrap_or_default(),
                anonymous: f.optional("anonymous"),
                failures: f.section_or_off("failures"),
            }
        })
    }
}

impl Read for ApiKeys {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let header = f.or("header", HeaderName::from_static("x-api-key"));
            Some(Self {
                header,
                file: f.required_path("file")?,
            })
        })?
    }
}

impl Read for Jwt {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            f.not_built(&["header", "required_claims"]);
            let (issuer, audience) = (f.optional("issuer"), f.list("audience"));
            let algorithms = f.required_list("algorithms");
            let keys: Option<JwtKeys> = f.required("keys");
            let tenant = f.required("tenant");
            let tier = f.optional("tier");
            let scopes = f.or("scopes", Pointer("/scope".to_owned()));
            let leeway = f.within(
                "leeway",
                Duration::from_secs(30),
                Duration::ZERO..=Duration::from_secs(600),
            );
            if audience.is_empty() {
                let message = format!("`{}` has no `audience`", f.path);
                let hint =
                    "write the audience that stands for this gateway, so that tokens meant for others are refused";
                f.warn(Mistake::new(Code::Doubtful, f.at, message).hint(hint));
            }
            let (algorithms, keys) = (algorithms?, keys?);
            check_algorithms(f, &algorithms, &keys);
            Some(Self {
                issuer,
                audience,
                algorithms,
                keys,
                tenant: tenant?,
                tier,
                scopes,
                leeway,
            })
        })?
    }
}

/// A published symmetric key would let anyone sign, and a secret verifies nothing else.
fn check_algorithms(f: &Fields<'_>, algorithms: &[At<Algorithm>], keys: &JwtKeys) {
    for algorithm in algorithms {
        let (why, hint) = match keys {
            JwtKeys::Url(_) if algorithm.is_symmetric() => (
                "a symmetric key is never taken from a URL",
                "use `file`, `secret` or `secret_file`, or an asymmetric algorithm",
            ),
            JwtKeys::Secret(_) | JwtKeys::SecretFile(_) if !algorithm.is_symmetric() => (
                "a secret cannot verify it",
                "use `url` or `file` with public keys, or HS256, HS384 or HS512",
            ),
            _ => continue,
        };
        let message = format!("`{}` does not fit `{}.keys`", algorithm.as_str(), f.path);
        f.push(
            Mistake::new(Code::Conflict, algorithm.span(), message)
                .label(why)
                .hint(hint),
        );
    }
}

impl Read for JwtKeys {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            f.not_built(&["refresh"]);
            let written = f.exactly_one(&["url", "file", "secret", "secret_file"]);
            let url: Option<At<String>> = f.optional("url");
            let file = f.path("file");
            let secret: Option<At<Secret>> = f.optional("secret");
            let secret_file = f.path("secret_file");
            if f.value("secret").is_some_and(|secret| !secret.mentions_variable()) {
                let mistake = Mistake::new(
                    Code::Doubtful,
                    f.at,
                    format!("`{}.secret` is written into the config", f.path),
                );
                f.warn(mistake.hint("use a variable, `${NAME}`, or `secret_file`"));
            }
            match written? {
                "url" => {
                    let url = url?;
                    if !url.starts_with("https://") && !url.starts_with("http://") || url.parse::<http::Uri>().is_err()
                    {
                        let message = format!("`{}.url` must be an http or https URL", f.path);
                        f.push(Mistake::new(Code::BadValue, url.span(), message));
                    }
                    Some(Self::Url(url))
                }
                "file" => file.map(Self::File),
                "secret" => secret.map(Self::Secret),
                _ => secret_file.map(Self::SecretFile),
            }
        })?
    }
}

impl Read for Anonymous {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| Self {
            by: f.or("by", AnonymousBy::ClientAddress),
            tier: f.optional("tier"),
        })
    }
}

impl Read for Failures {
    fn read(value: &Value<'_>) -> Option<Self> {
        let (rate, burst) = (NonZeroU64::new(5).expect("not 0"), NonZeroU64::new(50).expect("not 0"));
        value.fields(|f| Self {
            rate: f.or("rate", Rate::per_second(rate)),
            burst: f.or("burst", burst),
        })
    }
}

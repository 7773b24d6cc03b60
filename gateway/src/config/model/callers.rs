//! Who calls: the kinds of credentials this gateway takes, and what it makes of them.

use std::fmt;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use http::header::AUTHORIZATION;

use super::external::External;
use super::mtls::Mtls;
use crate::config::fields::Fields;
use crate::config::mistake::{Code, Mistake};
use crate::config::named::NamedMap;
use crate::config::reader::Read;
use crate::config::scalar::{Scalar, Wrong, words};
use crate::config::single::Single;
use crate::config::span::At;
use crate::config::units::{Rate, Ratio, duration_text};
use crate::config::value::{NAMED, Value};

/// Which credentials are taken, and what they stand for.
#[derive(Debug, Clone, PartialEq)]
pub struct Callers {
    /// API keys, kept as digests in a file.
    pub api_keys: Option<ApiKeys>,
    /// Issuers of signed tokens (JWT), by the name that `any_of: [jwt:NAME]` uses.
    pub jwt: NamedMap<Jwt>,
    /// Client certificates.
    pub mtls: Option<Mtls>,
    /// User names and passwords (RFC 7617).
    pub basic: Option<Basic>,
    /// Service that is asked over HTTP who a caller is.
    pub external: Option<External>,
    /// Whom a caller without credentials counts as, on routes that admit `anonymous`.
    pub anonymous: Option<Anonymous>,
    /// How many failed authentications one client address may make; beyond it the answer is 429.
    pub failures: Option<Failures>,
    /// Credentials that are taken back before they expire.
    pub revocations: Option<Revocations>,
    /// How many signatures of unknown tokens are checked.
    pub verifications: Option<Verifications>,
}

/// API keys, kept as digests in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiKeys {
    /// Header field that a key comes in.
    pub header: At<HeaderName>,
    /// File of keys; see the file of API keys below.
    pub file: At<PathBuf>,
    /// Where a key is looked for. `authorization`: `Authorization: ApiKey ...`, or `Bearer ...` without the two dots of
    /// a token. `query`: in the query, which it is removed from.
    pub places: Vec<At<KeyPlace>>,
    /// Name of the query parameter, if `in` has `query`.
    pub query: At<String>,
}

/// Credentials that are taken back before they expire.
#[derive(Debug, Clone, PartialEq)]
pub struct Revocations {
    /// File of revocations; see the file of revocations below. The admin API writes it too.
    pub file: At<PathBuf>,
}

/// One issuer of tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Jwt {
    /// Value that `iss` must have. Tokens are told apart by it.
    pub issuer: At<String>,
    /// Values of which `aud` must have one. Left out, `aud` is not looked at.
    pub audience: Vec<At<String>>,
    /// Signature algorithms that are taken; at least one, and all fit `keys`.
    pub algorithms: Vec<At<Algorithm>>,
    /// Where the keys that verify tokens come from.
    pub keys: JwtKeys,
    /// Values of which `typ` must be one. Left out, `JWT`, `at+jwt` and no `typ` are all taken.
    pub typ: Vec<At<TokenType>>,
    /// Claims that a token must have, beside `exp` and those that are named here.
    pub required_claims: Vec<At<Pointer>>,
    /// Claim that names the caller.
    pub caller: At<Pointer>,
    /// Claim that names the tenant. A token without it is refused.
    pub tenant: At<Pointer>,
    /// Tenants that tokens of this issuer may name, and those of no other issuer. Left out, they may name all tenants
    /// that no issuer lists.
    pub tenants: Option<Vec<At<String>>>,
    /// Claim that names the tier.
    pub tier: Option<At<Pointer>>,
    /// Claim that holds the scopes, as a list or separated by spaces (RFC 8693 section 4.2).
    pub scopes: At<Pointer>,
    /// By how much the clocks of issuer and gateway may differ.
    pub leeway: At<Duration>,
    /// How long after `iat` a token is taken, whatever its `exp`. Left out, `iat` is not looked at.
    pub max_age: Option<At<Duration>>,
}

/// Where the keys that verify tokens come from; exactly one of `url`, `file`, `secret` and `secret_file`.
#[derive(Debug, Clone, PartialEq)]
pub enum JwtKeys {
    /// https URL of a key set (JWKS), or an http URL of this machine.
    Url(KeysUrl),
    /// File with a key set (JWKS), which may hold symmetric keys.
    File(At<PathBuf>),
    /// One symmetric key of at least 32 bytes, from the environment.
    Secret(At<Secret>),
    /// File with one symmetric key; a line break at its end is not part of it.
    SecretFile(At<PathBuf>),
}

/// A key set (JWKS) behind a URL, and how it is kept fresh.
#[derive(Debug, Clone, PartialEq)]
pub struct KeysUrl {
    /// https URL of a key set, or an http URL of this machine.
    pub url: At<String>,
    /// Time between two fetches. A shorter `max-age` of the answer is followed.
    pub refresh: At<Duration>,
    /// How long keys are used that no fetch has confirmed; at least `refresh`.
    pub max_age: At<Duration>,
    /// Time in which requests that lack a key bring about six fetches at most.
    pub cool_down: At<Duration>,
    /// For one fetch. Requests that lack a key wait for no longer, nor does readiness after the start.
    pub time_limit: At<Duration>,
}

/// Text that must not show up in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// A JSON pointer (RFC 6901) into the claims of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer(String);

/// Whom a caller without credentials counts as.
#[derive(Debug, Clone, PartialEq)]
pub struct Anonymous {
    /// What tells one anonymous caller from another.
    pub by: At<AnonymousBy>,
    /// Tier of anonymous callers. Left out: `default_tier`.
    pub tier: Option<At<String>>,
}

/// User names and passwords (RFC 7617).
#[derive(Debug, Clone, PartialEq)]
pub struct Basic {
    /// File of users; see the file of users below.
    pub file: At<PathBuf>,
}

/// A token bucket for each client address. Every failed authentication takes one token.
#[derive(Debug, Clone, PartialEq)]
pub struct Failures {
    /// Tokens that come back.
    pub rate: At<Rate>,
    /// Tokens that a full bucket holds.
    pub burst: At<NonZeroU64>,
}

/// Bounds what unknown tokens can cost. Tokens that are known already, and API keys, are not affected.
#[derive(Debug, Clone, PartialEq)]
pub struct Verifications {
    /// Signature checks that may fail per client address.
    pub rate: At<Rate>,
    /// Failed checks at once.
    pub burst: At<NonZeroU64>,
    /// Share of the workers' time that all checks together may take.
    pub share: At<Ratio>,
}

words! {
    /// Where an API key may come.
    pub enum KeyPlace {
        /// In the header of its own.
        Header = "header",
        /// As `Authorization: ApiKey ...`, or as `Bearer ...` if it does not have the two dots of a token.
        Authorization = "authorization",
        /// In the query, which it is taken out of.
        Query = "query",
    }

    /// What makes two anonymous callers one.
    pub enum AnonymousBy { ClientAddress = "client_address" }

    /// What a token says that it is (RFC 7519 section 5.1, RFC 9068 section 2.1).
    pub enum TokenType { Jwt = "JWT", AccessToken = "at+jwt" }

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

impl ApiKeys {
    /// The header that callers without a key are told to send one in.
    pub fn told_header(&self) -> HeaderName {
        let is_read = self.places.iter().any(|place| place.value == KeyPlace::Header);
        if is_read {
            self.header.value.clone()
        } else {
            AUTHORIZATION
        }
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
    const EXPECTED: &'static str = "a secret of at least 32 bytes";
    const SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, Wrong> {
        // RFC 7518 section 3.2: a key as long as the hash of the weakest algorithm.
        if text.len() < 32 {
            return Err(Wrong::new(Code::OutOfRange, "is shorter than 32 bytes")
                .hint("take it from the environment, on a line of its own: `secret: ${VARIABLE}`"));
        }
        Ok(Self(text.to_owned()))
    }

    fn show(&self) -> String {
        "(secret)".to_owned()
    }
}

impl Read for Basic {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ file: $ }"],
        sample: "{ file: users.yaml }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            Some(Self {
                file: f.required_path("file")?,
            })
        })?
    }
}

/// Form of the part of `callers` that names issuers of tokens.
pub const ISSUERS: &str = r#"jwt: { main: { issuer: "https://id.example.com", audience: [edge], algorithms: [RS256], keys: { url: "https://id.example.com/jwks.json" }, tenant: /tenant } }"#;

impl Read for Callers {
    const SINGLE: Option<Single> = Some(Single {
        maps: &[],
        sample: "{ api_keys: { file: keys.yaml } }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| Self {
            api_keys: f.sound(|f| f.optional("api_keys")),
            jwt: issuers(f),
            mtls: f.sound(|f| f.optional("mtls")),
            basic: f.sound(|f| f.optional("basic")),
            external: f.sound(|f| f.optional("external")),
            anonymous: f.sound(|f| f.optional("anonymous")),
            failures: f.sound(|f| f.section_or_off("failures")),
            revocations: f.sound(|f| f.optional("revocations")),
            verifications: f.sound(|f| f.section_or_off("verifications")),
        })
    }
}

/// Reads the issuers. A section without any would not be what anyone meant.
fn issuers(f: &mut Fields<'_>) -> NamedMap<Jwt> {
    let issuers: NamedMap<Jwt> = f.optional("jwt").unwrap_or_default();
    if let Some(value) = f.value("jwt")
        && value.entries(NAMED).is_some_and(<[_]>::is_empty)
    {
        let message = format!("`{}` names no issuer", value.path);
        f.push(Mistake::new(Code::MissingKey, value.key, message).hint(format!("write `{ISSUERS}`")));
    }
    issuers
}

impl Read for ApiKeys {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ file: $ }"],
        sample: "{ file: keys.yaml }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let header = f.or("header", HeaderName::from_static("x-api-key"));
            let places = f.list_or("in", &[KeyPlace::Header]);
            let query = f.or("query", "api_key".to_owned());
            check_places(f, &places, &header, &query);
            Some(Self {
                header,
                file: f.required_path("file")?,
                places,
                query,
            })
        })?
    }
}

/// A name for a place that is not looked at would not be what anyone meant.
fn check_places(f: &Fields<'_>, places: &[At<KeyPlace>], header: &At<HeaderName>, query: &At<String>) {
    for (key, at, place) in [
        ("header", header.span(), KeyPlace::Header),
        ("query", query.span(), KeyPlace::Query),
    ] {
        if at.is_some() && !places.iter().any(|listed| listed.value == place) {
            let message = format!("`{}.{key}` names where no key is looked for", f.path);
            let hint = format!("add `{}` to `in`, or remove it", place.as_str());
            f.push(Mistake::new(Code::Conflict, at, message).hint(hint));
        }
    }
    if let [only] = places
        && only.value == KeyPlace::Query
    {
        let message = format!("`{}.in` would take keys from the query alone", f.path);
        let hint = "addresses end up in histories and in the logs of others: add `header` for those who can send one";
        f.push(Mistake::new(Code::Conflict, only.span(), message).hint(hint));
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if query.is_empty() || !query.bytes().all(is_plain) {
        let message = format!("`{}.query` must be the name of a parameter", f.path);
        let label = "use letters, digits, `-`, `_` and `.`";
        f.push(Mistake::new(Code::BadValue, query.span(), message).label(label));
    }
}

impl Read for Revocations {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ file: $ }"],
        sample: "{ file: revoked.yaml }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            Some(Self {
                file: f.required_path("file")?,
            })
        })?
    }
}

impl Read for Jwt {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ issuer: $, audience: [edge], algorithms: [RS256], keys: { file: jwks.json }, tenant: /tenant }"],
        sample: r#"{ issuer: "https://id.example.com", audience: [edge], algorithms: [RS256], keys: { file: jwks.json }, tenant: /tenant }"#,
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            f.not_built(&["header"]);
            let (issuer, audience) = (f.required("issuer"), f.list("audience"));
            let algorithms = f.required_list("algorithms").or_else(|| readable_algorithms(f));
            let keys: Option<JwtKeys> = f.required("keys");
            let (typ, required_claims) = (f.list_or("typ", &[]), f.list("required_claims"));
            let caller = f.or("caller", Pointer("/sub".to_owned()));
            let tenant = f.required("tenant");
            let tenants = f.nonempty("tenants");
            let tier = f.optional("tier");
            let scopes = f.or("scopes", Pointer("/scope".to_owned()));
            let leeway = f.within(
                "leeway",
                Duration::from_secs(30),
                Duration::ZERO..=Duration::from_secs(60),
            );
            let max_age = f.optional("max_age");
            if audience.is_empty() {
                let message = format!("`{}` has no `audience`", f.path);
                let hint =
                    "write the audience that stands for this gateway, so that tokens meant for others are refused";
                f.warn(Mistake::new(Code::Doubtful, f.at, message).hint(hint));
            }
            let (algorithms, keys) = (algorithms?, keys?);
            check_algorithms(f, &algorithms, &keys);
            // What is missing is a mistake already; an entry with mistakes is not used, but its file of keys is checked.
            Some(Self {
                issuer: issuer.unwrap_or_else(|| At::unwritten(String::new())),
                audience,
                algorithms,
                keys,
                typ,
                required_claims,
                caller,
                tenant: tenant.unwrap_or_else(|| At::unwritten(Pointer("/".to_owned()))),
                tenants,
                tier,
                scopes,
                leeway,
                max_age,
            })
        })?
    }
}

/// Returns those of the algorithms that are right, so that the keys can be checked with them. Reports nothing.
fn readable_algorithms(f: &mut Fields<'_>) -> Option<Vec<At<Algorithm>>> {
    let value = f.value_of("algorithms", <Vec<At<Algorithm>> as Read>::SHAPE)?;
    let readable = |item: &Value<'_>| {
        let algorithm = Algorithm::parse(item.text()?).ok()?;
        Some(At::written(algorithm, item.node.span))
    };
    let readable: Vec<_> = value.items().iter().filter_map(readable).collect();
    (!readable.is_empty()).then_some(readable)
}

/// A published symmetric key would let anyone sign, and a secret verifies nothing else.
fn check_algorithms(f: &Fields<'_>, algorithms: &[At<Algorithm>], keys: &JwtKeys) {
    for algorithm in algorithms {
        let (why, hint) = match keys {
            JwtKeys::Url(_) if algorithm.is_symmetric() => (
                "a symmetric key is never taken from a URL",
                "write one such as ES256 or RS256 in its place, or a shared secret: `keys: { secret_file: FILE }`",
            ),
            JwtKeys::Secret(_) | JwtKeys::SecretFile(_) if !algorithm.is_symmetric() => (
                "a secret cannot verify it",
                "use `url` or `file` with public keys, or one of HS256, HS384 and HS512 in its place",
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
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ url: $ }", "{ file: $ }"],
        sample: r#"{ url: "https://id.example.com/jwks.json" }"#,
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let written = f.exactly_one(&["url", "file", "secret", "secret_file"]);
            let fresh = KeysUrl::freshness(f, written);
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
            // Of several, which is a mistake already, those of a file can be checked.
            match written.or_else(|| file.is_some().then_some("file"))? {
                "url" => {
                    let keys = fresh?;
                    let url = &keys.url;
                    if !url.starts_with("https://") && !url.starts_with("http://") || url.parse::<http::Uri>().is_err()
                    {
                        let message = format!("`{}.url` must be an http or https URL", f.path);
                        f.push(Mistake::new(Code::BadValue, url.span(), message));
                    }
                    Some(Self::Url(keys))
                }
                "file" => file.map(Self::File),
                "secret" => secret.map(Self::Secret),
                _ => secret_file.map(Self::SecretFile),
            }
        })?
    }
}

impl KeysUrl {
    /// What is said about fetching, which makes no sense of keys that are not fetched.
    fn freshness(f: &mut Fields<'_>, written: Option<&str>) -> Option<Self> {
        const SECOND: Duration = Duration::from_secs(1);
        const HOUR: Duration = Duration::from_secs(3600);
        let url = f.optional("url");
        let refresh = f.within("refresh", 300 * SECOND, SECOND..=24 * HOUR);
        let max_age = f.within("max_age", 24 * HOUR, SECOND..=30 * 24 * HOUR);
        let cool_down = f.within("cool_down", 30 * SECOND, SECOND..=HOUR);
        let time_limit = f.within("time_limit", 5 * SECOND, SECOND / 10..=60 * SECOND);
        if written.is_some_and(|written| written != "url") {
            let times = [("refresh", &refresh), ("max_age", &max_age), ("cool_down", &cool_down)];
            for (name, time) in times.into_iter().chain([("time_limit", &time_limit)]) {
                if let Some(at) = time.span() {
                    let message = format!("`{}.{name}` is about fetching, and these keys are not fetched", f.path);
                    f.push(
                        Mistake::new(Code::Conflict, at, message).hint("take it out: a file is read at each reload"),
                    );
                }
            }
        }
        if *max_age < *refresh {
            let message = format!("`{}.max_age` is shorter than `refresh`", f.path);
            f.push(
                Mistake::new(Code::Conflict, max_age.span().or(refresh.span()), message)
                    .label("keys would be withdrawn before they are asked for again")
                    .related(refresh.span(), "after this time")
                    .hint(format!(
                        "write `max_age: 1d`, which carries callers through an outage of the identity provider; `refresh` is {}",
                        duration_text(*refresh)
                    )),
            );
        }
        Some(Self {
            url: url?,
            refresh,
            max_age,
            cool_down,
            time_limit,
        })
    }
}

impl Read for Anonymous {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ tier: $ }"],
        sample: "{ by: client_address }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| Self {
            by: f.or("by", AnonymousBy::ClientAddress),
            tier: f.optional("tier"),
        })
    }
}

impl Read for Failures {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ rate: $ }", "{ burst: $ }"],
        sample: "{ rate: 5/s, burst: 50 }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        let (rate, burst) = (NonZeroU64::new(5).expect("not 0"), NonZeroU64::new(50).expect("not 0"));
        value.fields(|f| Self {
            rate: f.or("rate", Rate::per_second(rate)),
            burst: f.or("burst", burst),
        })
    }
}

impl Read for Verifications {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ rate: $ }", "{ burst: $ }", "{ share: $ }"],
        sample: "{ rate: 20/s, burst: 200 }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        let (rate, burst) = (
            NonZeroU64::new(20).expect("not 0"),
            NonZeroU64::new(200).expect("not 0"),
        );
        let ratio = |share| Ratio::new(share).expect("between 0 and 1");
        value.fields(|f| Self {
            rate: f.or("rate", Rate::per_second(rate)),
            burst: f.or("burst", burst),
            share: f.within("share", ratio(0.25), ratio(0.01)..=ratio(1.0)),
        })
    }
}

//! One issuer of tokens: the claims that its tokens must have, and the caller that they identify.
//!
//! Fails closed: a token that cannot be verified is refused. Before the signature check, `iss` is read from the
//! payload, because it selects the keys. No other claim is believed before that check.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::auth::caller::{Caller, Kind, is_caller_id, is_tenant_name};
use crate::auth::check::Check;
use crate::auth::jwt::issuer_tenants::IssuerTenants;
use crate::auth::jwt::jws::{self, Jws, TokenType};
use crate::auth::jwt::key_fetch::Source;
use crate::auth::jwt::live_keys::LiveKeys;
use crate::json::{self, Document, Value};
use crate::setting::SettingId;

/// Settings of an issuer. Claims are named by JSON pointers (RFC 6901).
#[derive(Debug, Clone)]
pub struct IssuerSettings {
    /// Name in the config.
    pub name: Arc<str>,
    /// Exact value of `iss`.
    pub issuer: String,
    /// Accepted values of `aud`, of which the token must have one. If empty, a token with an `aud` is refused (RFC 7519
    /// section 4.1.3).
    pub audience: Vec<String>,
    /// Accepted values of `typ`, which is then required. If empty, `typ` may be any access token type or absent.
    pub types: Vec<TokenType>,
    /// Claims that must be present and not null, in addition to `exp` and the claims that are used.
    pub required_claims: Vec<String>,
    /// Claim that holds the caller's id.
    pub caller: String,
    pub tenant: String,
    pub tier: Option<String>,
    /// Claim with the scopes: a string with spaces between them (RFC 8693 section 4.2), or an array of strings.
    pub scopes: Option<String>,
    /// Tolerated difference between the issuer's clock and the gateway's.
    pub leeway: Duration,
    /// Longest time after `iat` for which a token is accepted. If set, `iat` is required.
    pub max_age: Option<Duration>,
    /// Setting that all this comes from.
    pub setting: SettingId,
}

/// An issuer with its keys.
#[derive(Debug)]
pub struct Issuer {
    settings: IssuerSettings,
    leeway: f64,
    tenants: IssuerTenants,
    keys: Arc<LiveKeys>,
    source: Option<Source>,
}

/// Reason why an issuer's settings are invalid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IssuerMistake {
    NoIssuer { name: Arc<str> },
    Pointer { name: Arc<str>, pointer: String },
    Leeway { name: Arc<str> },
}

/// Longest leeway. A longer one would extend the life of tokens too far.
const MAX_LEEWAY: Duration = Duration::from_secs(60);

impl Issuer {
    /// # Errors
    /// The first mistake in the settings.
    pub fn new(settings: IssuerSettings, keys: Arc<LiveKeys>) -> Result<Self, IssuerMistake> {
        let name = settings.name.clone();
        if settings.issuer.is_empty() {
            return Err(IssuerMistake::NoIssuer { name });
        }
        let IssuerSettings {
            caller,
            tenant,
            tier,
            scopes,
            required_claims,
            ..
        } = &settings;
        for pointer in [caller, tenant]
            .into_iter()
            .chain(tier)
            .chain(scopes)
            .chain(required_claims)
        {
            if !is_pointer(pointer) {
                return Err(IssuerMistake::Pointer {
                    name,
                    pointer: pointer.clone(),
                });
            }
        }
        if settings.leeway > MAX_LEEWAY {
            return Err(IssuerMistake::Leeway { name });
        }
        Ok(Self {
            leeway: settings.leeway.as_secs_f64(),
            settings,
            tenants: IssuerTenants::default(),
            keys,
            source: None,
        })
    }

    /// Sets the source from which the keys are fetched.
    #[must_use]
    pub fn fetched_from(self, source: Option<Source>) -> Self {
        Self { source, ..self }
    }

    /// Limits the tenants that the issuer's tokens may name.
    #[must_use]
    pub fn for_tenants(self, tenants: IssuerTenants) -> Self {
        Self { tenants, ..self }
    }

    /// Source from which the keys are fetched. `None` if they come from a file or a secret.
    pub fn source(&self) -> Option<&Source> {
        self.source.as_ref()
    }

    pub fn name(&self) -> &Arc<str> {
        &self.settings.name
    }

    pub fn setting(&self) -> SettingId {
        self.settings.setting
    }

    /// Required value of `iss`.
    pub fn issuer(&self) -> &str {
        &self.settings.issuer
    }

    /// Accepted values of `aud`.
    pub fn audience(&self) -> &[String] {
        &self.settings.audience
    }

    pub fn keys(&self) -> &Arc<LiveKeys> {
        &self.keys
    }

    /// Returns the caller of a token whose signature has been verified with this issuer's keys.
    ///
    /// # Errors
    /// The first check that fails, in the order of the code below.
    pub(crate) fn caller(&self, document: Document, unix_now: u64) -> Result<Caller, Check> {
        let claims = document.value();
        let expires = self.check_times(claims, unix_now as f64)?;
        if !self.is_audience(claims.get("aud")) {
            return Err(Check::Audience);
        }

        let is_there = |pointer: &String| claims.pointer(pointer).is_some_and(|claim| !claim.is_null());
        if !self.settings.required_claims.iter().all(is_there) {
            return Err(Check::ClaimMissing);
        }
        let name = |pointer: &str| claims.pointer(pointer).and_then(Value::name);
        let id = name(&self.settings.caller)
            .filter(|id| is_caller_id(id))
            .map(Arc::from)
            .ok_or(Check::Subject)?;
        let tenant = name(&self.settings.tenant)
            .filter(|tenant| is_tenant_name(tenant))
            .map(Arc::from)
            .ok_or(Check::Tenant)?;
        if !self.tenants.admit(&tenant) {
            return Err(Check::TenantOfOther);
        }
        let tier = self
            .settings
            .tier
            .as_deref()
            .and_then(|pointer| tier_in(claims.pointer(pointer)?));
        let scopes = self
            .settings
            .scopes
            .as_deref()
            .and_then(|pointer| claims.pointer(pointer))
            .map(scopes_in);

        Ok(Caller {
            tenant,
            id,
            tier,
            scopes: scopes.unwrap_or_default(),
            kind: Kind::Jwt(self.settings.name.clone()),
            claims: Some(document),
            configured: false,
            expires: Some(expires),
        })
    }

    /// Returns the first second in which the token is refused (RFC 7519 sections 4.1.4 to 4.1.6). A token with an `iat`
    /// in the future is refused, because the clock behind it may have written wrong values of the other dates too.
    fn check_times(&self, claims: Value<'_>, now: f64) -> Result<u64, Check> {
        let expires = claims.get("exp").and_then(numeric_date).ok_or(Check::Expiry)? + self.leeway;
        if now >= expires {
            return Err(Check::TokenExpired);
        }
        for (claim, check) in [("nbf", Check::NotBefore), ("iat", Check::IssuedAt)] {
            match claims.get(claim).map(numeric_date) {
                None => {}
                Some(Some(date)) if date <= now + self.leeway => {}
                Some(_) => return Err(check),
            }
        }
        let too_old = match self.settings.max_age {
            None => f64::INFINITY,
            Some(max_age) => {
                let issued = claims.get("iat").and_then(numeric_date).ok_or(Check::IssuedAt)?;
                issued + max_age.as_secs_f64() + self.leeway
            }
        };
        if now >= too_old {
            return Err(Check::TokenTooOld);
        }
        // The cast saturates. Both values are later than `now`, so the result is positive.
        Ok(expires.min(too_old).ceil() as u64)
    }

    /// First second in which a token that has passed all checks is accepted. Before it, the token is from the future.
    pub(crate) fn valid_from(&self, claims: Value<'_>) -> u64 {
        let dates = ["nbf", "iat"]
            .into_iter()
            .filter_map(|claim| numeric_date(claims.get(claim)?));
        let latest = dates.fold(0.0, f64::max);
        // The cast saturates.
        (latest - self.leeway).ceil() as u64
    }

    /// Whether the issuer's settings accept this `typ`.
    pub(crate) fn takes_type(&self, typ: Option<TokenType>) -> bool {
        self.settings.types.is_empty() || typ.is_some_and(|typ| self.settings.types.contains(&typ))
    }

    fn is_audience(&self, aud: Option<Value<'_>>) -> bool {
        let ours = |value: Value<'_>| {
            value
                .text()
                .is_some_and(|aud| self.settings.audience.iter().any(|own| *own == aud))
        };
        match aud {
            None => self.settings.audience.is_empty(),
            Some(list) if list.kind() == json::Kind::Array => list.elements().any(ours),
            Some(one) => ours(one),
        }
    }
}

/// Returns the issuer that the claims name, with its index. None of the claims has been verified.
pub(crate) fn claimed<'a>(issuers: &'a [Issuer], claims: &Document) -> Result<(usize, &'a Issuer), Check> {
    let iss = claims.value().get("iss").and_then(Value::text).ok_or(Check::Issuer)?;
    issuers
        .iter()
        .enumerate()
        .find(|(_, issuer)| issuer.issuer() == iss)
        .ok_or(Check::Issuer)
}

/// Returns the claims of a token, unverified.
pub(crate) fn claims_of(jws: &Jws<'_>) -> Result<Document, Check> {
    jws::object(jws.payload()?).ok_or(Check::ClaimsMalformed)
}

/// Reads a number of seconds since 1970, possibly with a fraction (RFC 7519 section 2, NumericDate).
fn numeric_date(value: Value<'_>) -> Option<f64> {
    value.f64().filter(|date| date.is_finite())
}

/// Returns the tier that a claim names, or `None` for `null`. Any other value becomes its JSON text, which matches no
/// tier.
fn tier_in(value: Value<'_>) -> Option<Arc<str>> {
    let named = value.name().map(Arc::from);
    named.or_else(|| (!value.is_null()).then(|| value.to_string().into()))
}

/// Returns the scopes of a claim. Other values are left out, so the caller has fewer rights, never more.
fn scopes_in(value: Value<'_>) -> Box<[Arc<str>]> {
    match value.text() {
        Some(list) => list
            .split(' ')
            .filter(|scope| !scope.is_empty())
            .map(Arc::from)
            .collect(),
        None => value.elements().filter_map(Value::text).map(Arc::from).collect(),
    }
}

/// Whether a text is a JSON pointer (RFC 6901 section 3). Excludes the empty pointer, which means the whole document.
fn is_pointer(text: &str) -> bool {
    let escapes = |part: &str| part.starts_with('0') || part.starts_with('1');
    text.starts_with('/') && text.split('~').skip(1).all(escapes)
}

impl fmt::Display for IssuerMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoIssuer { name } => write!(f, "`{name}` needs `issuer`: the value that its tokens have as `iss`"),
            Self::Pointer { name, pointer } => write!(
                f,
                "`{pointer}` of `{name}` is not a JSON pointer: write `/tenant`, or `/org/id` for a claim in a claim"
            ),
            Self::Leeway { name } => write!(f, "`leeway` of `{name}` is too long: at most {MAX_LEEWAY:?}"),
        }
    }
}

impl std::error::Error for IssuerMistake {}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: u64 = 1_000_000;

    fn issuer(change: impl FnOnce(&mut IssuerSettings)) -> Result<Issuer, IssuerMistake> {
        let mut settings = IssuerSettings {
            name: "main".into(),
            issuer: "https://id.example".into(),
            audience: vec!["edge".into(), "api".into()],
            types: Vec::new(),
            required_claims: vec!["/org".into()],
            caller: "/sub".into(),
            tenant: "/org/id".into(),
            tier: Some("/plan".into()),
            scopes: Some("/scope".into()),
            leeway: Duration::from_secs(30),
            max_age: None,
            setting: SettingId::URI,
        };
        change(&mut settings);
        Issuer::new(settings, LiveKeys::awaited())
    }

    /// Valid claims with changes; `null` removes a claim.
    fn claims(changes: Value) -> Document {
        let good = json!({
            "iss": "https://id.example", "aud": "edge", "sub": "ada", "exp": NOW + 100, "org": { "id": "acme" },
        });
        let Value::Object(mut claims) = good else {
            unreachable!()
        };
        let Value::Object(changes) = changes else {
            panic!("changes are an object")
        };
        claims.extend(changes);
        claims.retain(|_, value| !value.is_null());
        Document::of(&claims)
    }

    /// Valid claims whose `exp` is this text.
    fn expiring(exp: &str) -> Document {
        let text = claims(json!({ "exp": null })).value().to_string();
        let text = format!("{},\"exp\":{exp}}}", &text[..text.len() - 1]);
        Document::check(&text.into(), usize::MAX).unwrap()
    }

    #[test]
    fn every_claim_is_checked() {
        let issuer = issuer(|_| {}).unwrap();
        let check = |changes: Value, expected: Result<(), Check>| {
            let answer = issuer.caller(claims(changes.clone()), NOW).map(drop);
            assert_eq!(answer, expected, "{changes}");
        };
        check(json!({}), Ok(()));

        check(json!({ "exp": null }), Err(Check::Expiry));
        check(json!({ "exp": "1000100" }), Err(Check::Expiry));
        check(json!({ "exp": true }), Err(Check::Expiry));
        check(json!({ "exp": {} }), Err(Check::Expiry));
        check(json!({ "exp": NOW - 29 }), Ok(()));
        check(json!({ "exp": NOW - 30 }), Err(Check::TokenExpired));
        check(json!({ "exp": NOW as f64 - 29.5 }), Ok(()));
        check(json!({ "exp": 0 }), Err(Check::TokenExpired));
        check(json!({ "exp": -5 }), Err(Check::TokenExpired));
        for (exp, expected) in [
            ("1e400", Err(Check::Expiry)),
            ("-1e400", Err(Check::Expiry)),
            ("99999999999999999999999", Ok(())),
            ("1.0001e6", Ok(())),
        ] {
            assert_eq!(issuer.caller(expiring(exp), NOW).map(drop), expected, "{exp}");
        }

        check(json!({ "nbf": NOW + 30 }), Ok(()));
        check(json!({ "nbf": NOW + 31 }), Err(Check::NotBefore));
        check(json!({ "nbf": "soon" }), Err(Check::NotBefore));
        check(json!({ "iat": NOW + 30 }), Ok(()));
        check(json!({ "iat": NOW as f64 + 30.5 }), Err(Check::IssuedAt));
        check(json!({ "iat": [] }), Err(Check::IssuedAt));
        check(json!({ "iat": 0 }), Ok(()));

        check(json!({ "aud": "api" }), Ok(()));
        check(json!({ "aud": ["other", "api"] }), Ok(()));
        check(json!({ "aud": ["other"] }), Err(Check::Audience));
        check(json!({ "aud": [] }), Err(Check::Audience));
        check(json!({ "aud": "Edge" }), Err(Check::Audience));
        check(json!({ "aud": "edge api" }), Err(Check::Audience));
        check(json!({ "aud": { "a": "edge" } }), Err(Check::Audience));
        check(json!({ "aud": null }), Err(Check::Audience));

        check(json!({ "sub": null }), Err(Check::Subject));
        check(json!({ "sub": "" }), Err(Check::Subject));
        check(json!({ "sub": true }), Err(Check::Subject));
        check(json!({ "sub": ["ada"] }), Err(Check::Subject));
        check(json!({ "sub": 7.5 }), Err(Check::Subject));
        check(json!({ "sub": "a\r\nx-tenant-id: root" }), Err(Check::Subject));
        check(json!({ "sub": "a\u{9b}31m" }), Err(Check::Subject));
        check(json!({ "sub": "x".repeat(256) }), Err(Check::Subject));

        check(json!({ "org": null }), Err(Check::ClaimMissing));
        check(json!({ "org": {} }), Err(Check::Tenant));
        check(json!({ "org": { "id": [7] } }), Err(Check::Tenant));
        check(json!({ "org": { "id": "a\nb" } }), Err(Check::Tenant));
        check(json!({ "org": { "id": "" } }), Err(Check::Tenant));
        check(json!({ "org": { "id": "anonymous" } }), Err(Check::Tenant));
        check(json!({ "org": { "id": "x".repeat(129) } }), Err(Check::Tenant));
    }

    #[test]
    fn names_in_claims_are_unicode_or_digits() {
        let issuer = issuer(|_| {}).unwrap();
        let text = claims(json!({ "sub": null, "org": null })).value().to_string();
        let check = |written: &str, expected: Option<&str>| {
            let text = format!(
                r#"{},"sub":{written},"org":{{"id":{written}}}}}"#,
                &text[..text.len() - 1]
            );
            let Some(claims) = Document::check(&text.into(), usize::MAX).ok() else {
                return assert_eq!(expected, None, "{written}");
            };
            let caller = issuer.caller(claims, NOW).ok();
            let names = caller.as_ref().map(|caller| (&*caller.id, &*caller.tenant));
            assert_eq!(names, expected.map(|name| (name, name)), "{written}");
        };
        for name in [
            "us\u{e9}r-\u{2603}",
            "use\u{301}r",
            "\u{5d0}\u{5d1}\u{5d2}",
            "\u{1f600}",
            "two words",
            " led and trailed ",
            "50%",
            "a%20b",
            "a,b;c=d",
            "\u{202e}gnirts",
            "\u{2028}",
            "\u{feff}a",
            "Anonymous",
        ] {
            check(&format!("\"{name}\""), Some(name));
        }
        check(r#""us\u00e9r-\u2603""#, Some("us\u{e9}r-\u{2603}"));
        check(r#""\ud83d\ude00""#, Some("\u{1f600}"));
        for digits in ["0", "7", "-7", "4711", "12345678901234567890123456789"] {
            check(digits, Some(digits));
        }
        for no_name in [
            "7.0",
            "7.5",
            "1e3",
            "1E3",
            "-0",
            "true",
            "null",
            "[7]",
            "{}",
            r#""""#,
            r#""\ud800""#,
            r#""\u0000""#,
            r#""a\u000d\u000ab""#,
            r#""\u007f""#,
            r#""\u0085""#,
        ] {
            check(no_name, None);
        }
    }

    #[test]
    fn an_issuer_speaks_for_its_own_tenants() {
        let names = |names: &[&str]| names.iter().copied().map(Arc::from).collect();
        let check = |tenants: IssuerTenants, tenant: &str, expected: Result<(), Check>| {
            let issuer = issuer(|_| {}).unwrap().for_tenants(tenants);
            let answer = issuer.caller(claims(json!({ "org": { "id": tenant } })), NOW);
            assert_eq!(answer.map(drop), expected, "{tenant}");
        };
        let own = || IssuerTenants::These(names(&["acme", "initech"]));
        check(own(), "acme", Ok(()));
        check(own(), "initech", Ok(()));
        check(own(), "globex", Err(Check::TenantOfOther));
        check(own(), "Acme", Err(Check::TenantOfOther));
        check(own(), "", Err(Check::Tenant));
        check(IssuerTenants::AllBut(names(&["globex"])), "acme", Ok(()));
        check(
            IssuerTenants::AllBut(names(&["globex"])),
            "globex",
            Err(Check::TenantOfOther),
        );
        check(IssuerTenants::default(), "acme", Ok(()));
    }

    #[test]
    fn a_token_may_be_too_old_before_it_expires() {
        let issuer = issuer(|settings| settings.max_age = Some(Duration::from_secs(60))).unwrap();
        let check = |iat: Value, expected: Result<u64, Check>| {
            let answer = issuer.caller(claims(json!({ "iat": iat })), NOW);
            assert_eq!(answer.map(|caller| caller.expires.unwrap()), expected, "{iat}");
        };
        check(json!(NOW), Ok(NOW + 90));
        check(json!(NOW - 89), Ok(NOW + 1));
        check(json!(NOW - 90), Err(Check::TokenTooOld));
        check(json!(NOW + 31), Err(Check::IssuedAt));
        check(json!(null), Err(Check::IssuedAt));
        check(json!("yesterday"), Err(Check::IssuedAt));
        let long = super::tests::issuer(|settings| settings.max_age = Some(Duration::from_secs(3600))).unwrap();
        let caller = long.caller(claims(json!({ "iat": NOW })), NOW).unwrap();
        assert_eq!(caller.expires, Some(NOW + 130), "whatever ends first");
    }

    #[test]
    fn a_token_is_taken_from_the_second_in_which_it_passes() {
        for issuer in [
            issuer(|_| {}).unwrap(),
            issuer(|settings| settings.leeway = Duration::ZERO).unwrap(),
        ] {
            for dates in [
                json!({}),
                json!({ "nbf": NOW }),
                json!({ "iat": NOW + 7 }),
                json!({ "nbf": NOW + 10, "iat": NOW + 5 }),
                json!({ "nbf": NOW + 5, "iat": NOW + 10 }),
                json!({ "nbf": NOW as f64 + 0.5 }),
                json!({ "iat": NOW as f64 - 0.5 }),
                json!({ "nbf": 0 }),
                json!({ "nbf": -5 }),
                json!({ "nbf": 31, "iat": -1 }),
            ] {
                let token = claims(dates.clone());
                let from = issuer.valid_from(token.value());
                let passes = |now| issuer.caller(token.clone(), now).is_ok();
                assert!(passes(from), "{dates} at {from}");
                assert!(from == 0 || !passes(from - 1), "{dates} before {from}");
            }
        }
    }

    #[test]
    fn what_else_is_required_and_who_calls_are_the_issuers_own_claims() {
        let issuer = issuer(|settings| {
            settings.required_claims = vec!["/jti".into(), "/org/seats".into()];
            settings.caller = "/org/user".into();
        })
        .unwrap();
        let check = |changes: Value, expected: Result<&str, Check>| {
            let answer = issuer.caller(claims(changes.clone()), NOW);
            let id = answer.as_ref().map(|caller| &*caller.id).map_err(|check| *check);
            assert_eq!(id, expected, "{changes}");
        };
        let org = json!({ "id": "acme", "seats": 0, "user": "bob" });
        check(json!({ "jti": "1", "org": org }), Ok("bob"));
        check(json!({ "jti": "1", "org": org, "sub": null }), Ok("bob"));
        check(json!({ "org": org }), Err(Check::ClaimMissing));
        check(
            json!({ "jti": "1", "org": { "id": "acme", "seats": null } }),
            Err(Check::ClaimMissing),
        );
        check(
            json!({ "jti": "1", "org": { "id": "acme", "seats": 1 } }),
            Err(Check::Subject),
        );
    }

    #[test]
    fn types_can_be_narrowed() {
        let check = |types: &[TokenType], typ, expected| {
            let issuer = issuer(|settings| settings.types = types.to_vec()).unwrap();
            assert_eq!(issuer.takes_type(typ), expected, "{types:?} {typ:?}");
        };
        check(&[], None, true);
        check(&[], Some(TokenType::Jwt), true);
        check(&[TokenType::AccessToken], Some(TokenType::AccessToken), true);
        check(&[TokenType::AccessToken], Some(TokenType::Jwt), false);
        check(&[TokenType::AccessToken], None, false);
    }

    #[test]
    fn without_an_audience_of_ours_a_token_for_anybody_is_for_others() {
        let issuer = issuer(|settings| settings.audience.clear()).unwrap();
        assert!(issuer.caller(claims(json!({ "aud": null })), NOW).is_ok());
        assert_eq!(issuer.caller(claims(json!({})), NOW).unwrap_err(), Check::Audience);
    }

    #[test]
    fn the_caller_is_what_the_claims_say() {
        let issuer = issuer(|_| {}).unwrap();
        let check = |changes: Value, tier: Option<&str>, scopes: &[&str]| {
            let caller = issuer.caller(claims(changes.clone()), NOW).unwrap();
            assert_eq!((&*caller.tenant, &*caller.id), ("acme", "ada"));
            assert_eq!(caller.kind, Kind::Jwt("main".into()));
            assert_eq!(caller.expires, Some(NOW + 130));
            let claims = caller.claims.unwrap();
            let id = claims.value().pointer("/org/id").and_then(|id| id.text());
            assert_eq!(id.as_deref(), Some("acme"));
            assert!(!caller.configured);
            assert_eq!(caller.tier.as_deref(), tier, "{changes}");
            let found: Vec<&str> = caller.scopes.iter().map(|scope| &**scope).collect();
            assert_eq!(found, scopes, "{changes}");
        };
        check(json!({}), None, &[]);
        check(json!({ "plan": "premium" }), Some("premium"), &[]);
        check(json!({ "plan": 7 }), Some("7"), &[]);
        check(json!({ "plan": "gr\u{f6}\u{df}er" }), Some("gr\u{f6}\u{df}er"), &[]);
        check(json!({ "plan": null }), None, &[]);
        check(json!({ "plan": "" }), Some(""), &[]);
        check(json!({ "plan": ["premium"] }), Some("[\"premium\"]"), &[]);
        check(json!({ "plan": true }), Some("true"), &[]);
        check(
            json!({ "scope": "le\u{ed}do \u{2603}" }),
            None,
            &["le\u{ed}do", "\u{2603}"],
        );
        check(json!({ "scope": "a  b" }), None, &["a", "b"]);
        check(json!({ "scope": ["a", 7, "b c"] }), None, &["a", "b c"]);
        check(json!({ "scope": { "a": true } }), None, &[]);
    }

    #[test]
    fn impossible_settings_are_mistakes() {
        let check = |change: fn(&mut IssuerSettings), expected: Option<&str>| {
            let message = issuer(change).err().map(|mistake| mistake.to_string());
            match expected {
                None => assert_eq!(message, None),
                Some(part) => assert!(message.as_ref().is_some_and(|text| text.contains(part)), "{message:?}"),
            }
        };
        check(|_| {}, None);
        check(|settings| settings.tenant = "/a~1b/c~0d".into(), None);
        check(
            |settings| settings.tenant = "tenant".into(),
            Some("`tenant` of `main` is not a JSON pointer"),
        );
        check(|settings| settings.tier = Some(String::new()), Some("JSON pointer"));
        check(|settings| settings.scopes = Some("/a~2".into()), Some("JSON pointer"));
        check(|settings| settings.issuer.clear(), Some("needs `issuer`"));
        check(|settings| settings.leeway = Duration::from_secs(61), Some("leeway"));
    }
}

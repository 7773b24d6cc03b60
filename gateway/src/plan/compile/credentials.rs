//! Compiles the access rules of routes, and finds routes that no caller could ever use.
//!
//! What several routes have in common is reported once, with the names of all of them.

use std::sync::Arc;

use http::HeaderName;

use crate::auth::access::{Access, Admitted, AdmittedIssuers, Requirements};
use crate::config::{self, At, Code, Credential, Mistake, Span, did_you_mean};
use crate::plan::compile::compiler::Compiler;
use crate::plan::compile::listeners;

/// Largest number of names in one message.
const NAMED: usize = 32;

/// Reports routes whose credentials `callers` does not configure, and routes that admit callers which cannot exist.
pub(super) fn check(compiler: &mut Compiler<'_>) {
    // A section of `callers` that could not be read may be what is missing here.
    let unread = |key: &str| !["anonymous", "failures", "revocations", "verifications"].contains(&key);
    if !compiler.unsound.within("callers").any(unread) {
        without_credential(compiler);
        not_configured(compiler);
    }
    never_permitted(compiler);
    unknown_tenants(compiler);
}

pub(super) fn access(compiler: &mut Compiler<'_>, name: &str, written: &config::Access) -> Option<Access> {
    let config::Access {
        any_of,
        all_of,
        scopes,
        tiers,
        tenants,
        // Compiled with the rules of the edge.
        addresses: _,
    } = written;
    let callers = &compiler.config.callers;
    let mut admitted = Admitted {
        together: all_of.is_some(),
        ..Admitted::default()
    };
    match all_of.as_ref().or(any_of.as_ref()) {
        None => {
            admitted.api_key = callers.api_keys.is_some();
            admitted.jwt = if callers.jwt.is_empty() {
                AdmittedIssuers::None
            } else {
                AdmittedIssuers::Any
            };
            admitted.mtls = callers.mtls.is_some();
            admitted.basic = callers.basic.is_some();
            admitted.external = callers.external.is_some();
        }
        Some(credentials) => admit(compiler, credentials, &mut admitted),
    }
    if let Some(credentials) = all_of {
        check_together(compiler, name, credentials);
    }
    for tier in tiers {
        compiler.resolve("tier", tier, &compiler.config.tiers);
    }
    let names = |all: &[At<String>]| all.iter().map(|name| name.as_str().into()).collect();
    let demands = Requirements {
        scopes: names(scopes),
        tiers: names(tiers),
        tenants: names(tenants),
    };
    let header = callers
        .api_keys
        .as_ref()
        .map_or(HeaderName::from_static("x-api-key"), config::ApiKeys::told_header);
    let setting = compiler.setting(&format!("routes.{name}.access"));
    Some(Access::new(admitted, demands, &header, setting))
}

/// Adds the kinds of `credentials`. Those that are not configured are reported by [`not_configured`].
fn admit(compiler: &mut Compiler<'_>, credentials: &[At<Credential>], admitted: &mut Admitted) {
    let callers = &compiler.config.callers;
    let mut issuers: Vec<Arc<str>> = Vec::new();
    for credential in credentials {
        match &credential.value {
            Credential::ApiKey => admitted.api_key = true,
            Credential::Jwt => admitted.jwt = AdmittedIssuers::Any,
            Credential::JwtFrom(_) if callers.jwt.is_empty() => {}
            Credential::JwtFrom(issuer) => {
                if let Some((name, _)) = callers.jwt.entry(issuer) {
                    issuers.push(Arc::clone(name));
                } else if !callers.jwt.may_contain(issuer) {
                    let words: Vec<_> = callers.jwt.names().map(|name| format!("jwt:{name}")).collect();
                    let hint = did_you_mean(&format!("jwt:{issuer}"), words.iter().map(String::as_str));
                    let mistake = callers
                        .jwt
                        .unknown("issuer", &credential.clone().map(|_| issuer.clone()));
                    compiler.mistake(Mistake {
                        hint: hint.or(mistake.hint),
                        ..mistake
                    });
                }
            }
            Credential::Mtls => admitted.mtls = true,
            Credential::Basic => admitted.basic = true,
            Credential::External => admitted.external = true,
            Credential::Anonymous => admitted.anonymous = true,
        }
    }
    if !issuers.is_empty() && matches!(admitted.jwt, AdmittedIssuers::None) {
        admitted.jwt = AdmittedIssuers::These(issuers.into());
    }
}

/// Reports credentials that cannot come together: two that use `Authorization`, or any with `anonymous`.
fn check_together(compiler: &mut Compiler<'_>, name: &str, credentials: &[At<Credential>]) {
    let mut in_authorization: Option<&At<Credential>> = None;
    for credential in credentials {
        match &credential.value {
            Credential::Anonymous => compiler.mistake(
                Mistake::new(
                    Code::Conflict,
                    credential.span(),
                    format!("`routes.{name}.access.all_of` cannot have `anonymous`"),
                )
                .label("a caller with a credential is not anonymous")
                .hint("take it out: `all_of` names what a caller must have at once"),
            ),
            Credential::Jwt | Credential::JwtFrom(_) | Credential::Basic => {
                if let Some(first) = in_authorization {
                    compiler.mistake(
                        Mistake::new(
                            Code::Conflict,
                            credential.span(),
                            format!("no request could have all that `routes.{name}.access.all_of` wants"),
                        )
                        .label("comes in `Authorization`")
                        .related(first.span(), "and so does this")
                        .hint("take one of them out, or write `any_of`"),
                    );
                }
                in_authorization = Some(credential);
            }
            Credential::ApiKey | Credential::Mtls | Credential::External => {}
        }
    }
}

/// Reports the routes that admit all credentials where there are none.
fn without_credential(compiler: &mut Compiler<'_>) {
    let config::Callers {
        api_keys,
        jwt,
        mtls,
        basic,
        external,
        anonymous,
        failures: _,
        revocations: _,
        verifications: _,
    } = &compiler.config.callers;
    if api_keys.is_some() || !jwt.is_empty() || mtls.is_some() || basic.is_some() || external.is_some() {
        return;
    }
    let (mut names, mut first) = (Vec::new(), None);
    for (name, route) in written(compiler.config) {
        if route.access.any_of.is_none() && route.access.all_of.is_none() {
            first = first.or(name.span());
            names.push(name.value.as_ref());
        }
    }
    if names.is_empty() {
        return;
    }
    let (routes, keys) = (listed(&names), "`callers: { api_keys: { file: keys.yaml } }`");
    compiler.mistake(
        if anonymous.is_some() || compiler.unsound.touches("callers.anonymous") {
            let message = format!(
                "nobody could ever use {routes}: `callers.anonymous` is configured, but a route must ask for it"
            );
            Mistake::new(Code::MissingKey, first, message).hint(format!(
                "write `access: {{ any_of: [anonymous] }}` there; for keys: {keys} at the top"
            ))
        } else {
            let message = format!("nobody could ever use {routes}: no credential is configured");
            Mistake::new(Code::MissingKey, first, message).hint(format!(
            "for anyone: write `callers: {{ anonymous: {{ by: client_address }} }}` at the top AND `access: {{ any_of: \
             [anonymous] }}` there; for keys: {keys} at the top"
        ))
        },
    );
}

/// Reports the words for credentials that `callers` does not configure, each once.
fn not_configured(compiler: &mut Compiler<'_>) {
    let callers = &compiler.config.callers;
    let mut found: Vec<(&str, Vec<&str>, Option<Span>)> = Vec::new();
    for (name, route) in written(compiler.config) {
        let (any_of, all_of) = (&route.access.any_of, &route.access.all_of);
        for credential in any_of.iter().chain(all_of).flatten() {
            let (word, is_configured) = match &credential.value {
                Credential::ApiKey => ("api_key", callers.api_keys.is_some()),
                Credential::Jwt | Credential::JwtFrom(_) => ("jwt", !callers.jwt.is_empty()),
                Credential::Mtls => ("mtls", callers.mtls.is_some()),
                Credential::Basic => ("basic", callers.basic.is_some()),
                Credential::External => ("external", callers.external.is_some()),
                Credential::Anonymous => {
                    let is_unread = compiler.unsound.touches("callers.anonymous");
                    ("anonymous", callers.anonymous.is_some() || is_unread)
                }
            };
            if is_configured {
                continue;
            }
            match found.iter_mut().find(|(other, ..)| *other == word) {
                Some((_, routes, _)) if routes.last().is_some_and(|last| **last == *name.value) => {}
                Some((_, routes, _)) => routes.push(&name.value),
                None => found.push((word, vec![&name.value], credential.span())),
            }
        }
    }
    for (word, routes, at) in found {
        let verb = if routes.len() == 1 { "admits" } else { "admit" };
        let message = format!(
            "{} {verb} `{word}`, which `callers` does not configure",
            listed(&routes)
        );
        let mut hint = format!("write `callers: {{ {} }}` at the top", section(word));
        if word == "mtls" && !listeners::ask_for_certificates(compiler.config) {
            hint.push_str(", and into the `tls` of a listener `client: required, client_ca_file: ca.pem`");
        }
        compiler.mistake(Mistake::new(Code::UnknownName, at, message).hint(hint));
    }
}

/// Returns the part of `callers` that configures a credential.
fn section(word: &str) -> &'static str {
    match word {
        "api_key" => "api_keys: { file: keys.yaml }",
        "jwt" => config::ISSUERS,
        "mtls" => "mtls: { identities: [{ dns: billing.internal, tenant: acme }] }",
        "basic" => "basic: { file: users.yaml }",
        "external" => r#"external: { url: "http://10.0.0.5:8080/verify" }"#,
        _ => "anonymous: { by: client_address }",
    }
}

/// Reports routes for anonymous callers that demand what no anonymous caller has.
fn never_permitted(compiler: &mut Compiler<'_>) {
    for (name, route) in written(compiler.config) {
        let (any_of, scopes, tenants) = (&route.access.any_of, &route.access.scopes, &route.access.tenants);
        let anonymous = any_of.as_deref().and_then(|admitted| admitted.first());
        let is_for_them_alone = any_of.as_ref().is_some_and(|admitted| {
            admitted
                .iter()
                .all(|credential| credential.value == Credential::Anonymous)
        });
        let demanded = [("tenants", tenants), ("scopes", scopes)];
        let Some((key, first)) = demanded.into_iter().find_map(|(key, all)| Some((key, all.first()?))) else {
            continue;
        };
        if is_for_them_alone {
            let message = format!("nobody could ever use `routes.{name}`: an anonymous caller has none of its `{key}`");
            compiler.mistake(
                Mistake::new(Code::Conflict, first.span(), message)
                    .related(anonymous.and_then(At::span), "admits no other callers")
                    .hint(format!(
                        "take `{key}` out, or admit a credential that says who calls, such as `api_key`"
                    )),
            );
        }
    }
}

/// Warns of tenants in `access` to which no credential can belong.
fn unknown_tenants(compiler: &mut Compiler<'_>) {
    let config = compiler.config;
    let Some(known) = &compiler.tenants else { return };
    let mut doubts = Vec::new();
    for (name, route) in written(config) {
        for tenant in route
            .access
            .tenants
            .iter()
            .filter(|tenant| !known.contains(tenant.as_str()))
        {
            let message = format!("`routes.{name}` is for the tenant `{tenant}`, which no credential belongs to");
            let mut doubt = Mistake::new(Code::Doubtful, tenant.span(), message);
            doubt.hint = did_you_mean(tenant, known.iter().map(String::as_str));
            doubts.push(doubt);
        }
    }
    compiler.warnings.extend(doubts);
}

/// Returns all routes, also those that are left out because of mistakes elsewhere in them.
fn written(config: &config::Config) -> impl Iterator<Item = (&At<Arc<str>>, &config::Route)> {
    config.routes.iter().chain(config.routes.unsound())
}

/// Returns the names of routes in a sentence.
fn listed(names: &[&str]) -> String {
    let shown: Vec<_> = names
        .iter()
        .take(NAMED)
        .map(|name| format!("`routes.{name}`"))
        .collect();
    match shown.as_slice() {
        all if names.len() > NAMED => format!("{} and {} more", all.join(", "), names.len() - NAMED),
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        all => all.join(", "),
    }
}

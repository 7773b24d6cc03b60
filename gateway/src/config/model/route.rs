//! What a request can ask for, who may, how often, and which of three things then happens.

use std::num::NonZeroU64;
use std::time::Duration;

use http::{HeaderName, Method, StatusCode};
use ipnet::IpNet;

use super::cost;
use super::hedge::Hedge;
use super::http_values::{check_path, headers};
use super::ranges::time_above_zero;
use super::split;
use super::{
    AddedHeaders, Aggregate, Fallback, Headers, Limit, Match, MeasuredCost, Mirror, OwnCompression, OwnCors,
    PathPolicy, Redirect, RouteCache, RouteIdempotency, SecurityHeaders, SplitEntry,
};
use crate::config::asked::Shape;
use crate::config::fields::Fields;
use crate::config::mistake::{Code, Mistake};
use crate::config::named::NamedMap;
use crate::config::reader::Read;
use crate::config::scalar::{Scalar, Wrong, unknown_word, words};
use crate::config::single::Single;
use crate::config::span::At;
use crate::config::units::ByteSize;
use crate::config::value::Value;
use crate::json::Document;

/// One thing that callers can ask for; exactly one of `backend`, `split`, `aggregate`, `respond` and
/// `redirect`.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Which requests the route is for.
    pub matches: Match,
    /// Who may use it.
    pub access: Access,
    /// Limits by name, beside those of the caller's tier. All must admit a request.
    pub limits: NamedMap<Limit>,
    /// Tokens that a request takes from each limit that has no `cost` of its own. Or how the cost is read from the answer:
    /// then the limits of the route count its units, and those of tiers one for the request.
    pub cost: At<NonZeroU64>,
    /// How the cost is measured, where `cost` says that.
    pub measured_cost: Option<MeasuredCost>,
    /// Header field of the backend's answer that says what the request cost in the end, in tokens.
    pub cost_header: Option<At<HeaderName>>,
    /// For the whole request. Left out: `request` less `reserve` of `time_limits`.
    pub time_limit: Option<At<Duration>>,
    /// Whether answers may be endless: `idle_stream` and `stream_limit` hold in place of the time limit.
    pub stream: At<bool>,
    /// Length of a request's body. Left out: `body` or `json_body` of `request_limits`.
    pub body_limit: Option<At<ByteSize>>,
    /// Whether the backend gets the credentials that were taken. Left out: tokens are passed on, keys and passwords are
    /// not.
    pub forward_credential: Option<At<bool>>,
    /// Cross-origin rules in place of those at the top.
    pub cors: Option<OwnCors>,
    /// Which answers are compressed, in place of `compression` at the top. `off` where an answer holds a secret beside
    /// what a stranger can make it hold.
    pub compression: Option<OwnCompression>,
    /// Header fields that are changed.
    pub headers: Headers,
    /// Security header fields. Left out: `security_headers` at the top.
    pub security_headers: Option<At<SecurityHeaders>>,
    /// Header fields that the gateway adds, where they differ from the top.
    pub added_headers: AddedHeaders,
    /// What happens to a path that another server could read differently, where it differs from the top.
    pub path_policy: PathPolicy,
    /// What happens to a field such as `X-HTTP-Method-Override` that asks a backend to use another method. `strip`
    /// removes it.
    pub method_override: At<MethodOverride>,
    /// What a caller may turn its connection into.
    pub upgrade: At<Upgrade>,
    /// What is answered if the backend gives no good answer, tried in this order.
    pub fallback: Vec<Fallback>,
    /// Which answers are stored and used again. Left out, none are.
    pub cache: Option<RouteCache>,
    /// Requests that are done once however often they are sent, by their `Idempotency-Key`. Left out, the field is passed
    /// on and nothing else.
    pub idempotency: Option<RouteIdempotency>,
    /// When a second attempt is made because the first one is slow; left out, never.
    pub hedge: Option<Hedge>,
    /// Copies of requests for another backend.
    pub mirror: Option<Mirror>,
    pub target: Target,
}

words! {
    /// What becomes of a field that asks a backend to take the request for one of another method.
    pub enum MethodOverride { Reject = "reject", Strip = "strip" }

    pub enum Upgrade { Off = "off", Websocket = "websocket" }
}

/// Who may use a route.
#[derive(Debug, Clone, PartialEq)]
pub struct Access {
    /// Credentials of which one is needed. Left out: any that is configured, but not `anonymous`.
    pub any_of: Option<Vec<At<Credential>>>,
    /// Credentials that are all needed at once, in place of `any_of`.
    pub all_of: Option<Vec<At<Credential>>>,
    /// Scopes that are all needed.
    pub scopes: Vec<At<String>>,
    /// Tiers of which the caller must have one. Left out, all may.
    pub tiers: Vec<At<String>>,
    /// Tenants that may. Left out, all may.
    pub tenants: Vec<At<String>>,
    /// Client addresses that may.
    pub addresses: Addresses,
}

/// From where a route may be used. Behind a proxy the address is that which `client_address` finds.
#[derive(Debug, Clone, PartialEq)]
pub struct Addresses {
    /// Networks that may. Left out, all that are not denied.
    pub allow: Option<Vec<At<IpNet>>>,
    /// Networks that may not; it beats `allow`.
    pub deny: Vec<At<IpNet>>,
}

/// A kind of proof of who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    ApiKey,
    /// From any issuer.
    Jwt,
    /// From the issuer that `callers.jwt` has under this name.
    JwtFrom(String),
    /// A certificate, shown when the connection was made.
    Mtls,
    Basic,
    /// What the service of `callers.external` answers for.
    External,
    Anonymous,
}

/// The one thing that happens to a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// Name of the backend that requests are passed on to.
    Backend {
        name: At<String>,
        /// Path and query that are sent in place of the caller's, with placeholders; with `backend` or `split`.
        rewrite: Option<At<String>>,
    },
    /// Backends that share the requests.
    Split {
        entries: Vec<SplitEntry>,
        rewrite: Option<At<String>>,
    },
    /// One answer made of the answers of several calls.
    Aggregate(Box<Aggregate>),
    /// A fixed answer.
    Respond(Respond),
    /// An answer that sends the caller elsewhere.
    Redirect(Redirect),
}

/// A fixed answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Respond {
    /// Status.
    pub status: At<u16>,
    /// Header fields.
    pub headers: NamedMap<At<String>>,
    /// Body: text, or a map or list that is sent as JSON.
    pub body: Option<Body>,
    /// Whether the body is the caller's own plan, in place of `body`: tier, limits, what is left of them, and its usage.
    pub limits: At<bool>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    Text(At<String>),
    /// A map or list, sent as JSON.
    Json(At<Document>),
}

impl Target {
    /// Returns what stands for a target that could not be read.
    fn unread() -> Self {
        Self::Respond(Respond {
            status: At::unwritten(StatusCode::OK.as_u16()),
            headers: NamedMap::default(),
            body: None,
            limits: At::unwritten(false),
        })
    }
}

impl Read for Route {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ match: { path: [$] }, backend: NAME }"],
        sample: r#"{ match: { path: "/users/{id}" }, backend: NAME }"#,
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            f.not_built(&["in_flight", "quotas", "retry"]);
            let matches = f.required("match");
            let access = f.section("access");
            let limits = f.optional("limits").unwrap_or_default();
            let (cost, measured_cost) = cost::cost(f);
            let cost_header = f.optional("cost_header");
            let time_limit = f.optional("time_limit");
            time_above_zero(f, "time_limit", time_limit.as_ref());
            let stream = f.or("stream", false);
            let body_limit = f.optional("body_limit");
            let forward_credential = f.optional("forward_credential");
            let cors = f.optional("cors");
            let compression = f.optional("compression");
            let headers = f.section("headers");
            let security_headers = f.optional("security_headers");
            let added_headers = f.section("added_headers");
            let path_policy = f.section("path_policy");
            let method_override = f.or("method_override", MethodOverride::Reject);
            let upgrade = f.or("upgrade", Upgrade::Off);
            let fallback: Vec<Fallback> = f.list("fallback");
            let cache = f.optional("cache");
            let idempotency = f.optional("idempotency");
            let hedge = f.optional("hedge");
            let mirror = f.optional("mirror");
            let target = read_target(f);
            check_strip(f, matches.as_ref(), target.as_ref());
            if let (true, Some(value)) = (has_no_call(f), f.value("fallback")) {
                let message = format!("`{}.fallback` goes with `backend` or `split` only", f.path);
                f.push(
                    Mistake::new(Code::Conflict, value.key, message)
                        .hint("each part of an aggregate can have a `fallback` of its own"),
                );
            }
            check_mirror(f, &stream);
            check_cache(f, &stream, matches.as_ref());
            check_idempotency(f, &stream, &upgrade, matches.as_ref());
            check_measured(f);
            check_hedge(f, &stream);
            // A route with mistakes is left out, but its names and credentials are checked all the same.
            let target = target.unwrap_or_else(Target::unread);
            Some(Self {
                matches: matches.unwrap_or_else(Match::unread),
                access: access?,
                limits,
                cost,
                measured_cost,
                cost_header,
                time_limit,
                stream,
                body_limit,
                forward_credential,
                cors,
                compression,
                headers: headers.or_else(|| f.default_section("headers"))?,
                security_headers,
                added_headers: added_headers.or_else(|| f.default_section("added_headers"))?,
                path_policy: path_policy.or_else(|| f.default_section("path_policy"))?,
                method_override,
                upgrade,
                fallback,
                cache,
                idempotency,
                hedge,
                mirror,
                target,
            })
        })?
    }
}

/// Returns whether the route has another target than a backend, well written or not.
fn has_no_call(f: &mut Fields<'_>) -> bool {
    let mut has = |keys: &[&'static str]| keys.iter().any(|key| f.value(key).is_some());
    !has(&["backend", "split"]) && has(&["aggregate", "respond", "redirect"])
}

/// Reports what does not go with a cost that is read from the answer.
fn check_measured(f: &mut Fields<'_>) {
    let Some(cost) = f.value("cost").filter(Value::is_map) else {
        return;
    };
    let path = f.path.to_owned();
    let mistake = |what: &str, at, hint: &str| {
        let message = format!("`{path}.{what}` does not go with a `cost` that is read from the answer");
        Mistake::new(Code::Conflict, at, message)
            .related(cost.key, "which is written here")
            .hint(hint.to_owned())
    };
    let pairs = [
        (
            "cost_header",
            "keep one of the two: both say what a request cost in the end",
        ),
        (
            "cache",
            "take it out: a stored answer uses nothing, though it says what it used once",
        ),
        (
            "idempotency",
            "take it out: a stored answer uses nothing, though it says what it used once",
        ),
        (
            "aggregate",
            "make a route of its own for the backend whose answers say it",
        ),
        (
            "respond",
            "write a number: no backend is asked whose answer could say it",
        ),
        (
            "redirect",
            "write a number: no backend is asked whose answer could say it",
        ),
    ];
    for (what, hint) in pairs {
        if let Some(value) = f.value(what) {
            f.push(mistake(what, value.key, hint));
        }
    }
    if let Some(value) = f.value("upgrade").filter(|value| value.is_word("websocket")) {
        f.push(mistake(
            "upgrade",
            value.key,
            "take it out: a tunnel has no answer that could say it",
        ));
    }
}

/// Reports a mirror of requests that cannot be copied.
fn check_mirror(f: &mut Fields<'_>, stream: &At<bool>) {
    let Some(Value { key, .. }) = f.value("mirror") else {
        return;
    };
    if has_no_call(f) {
        let message = format!("`{}.mirror` goes with `backend` or `split` only", f.path);
        f.push(Mistake::new(Code::Conflict, key, message).label("there is no one request to copy"));
    }
    if **stream {
        let message = format!("`{}.mirror` does not go with `stream: true`", f.path);
        f.push(
            Mistake::new(Code::Conflict, key, message)
                .related(stream.span(), "answers may be endless")
                .hint("streams are not copied: take one of them out"),
        );
    }
}

/// Reports a cache of a route whose answers cannot be stored.
fn check_cache(f: &mut Fields<'_>, stream: &At<bool>, matches: Option<&Match>) {
    let Some(Value { key, .. }) = f.value("cache") else {
        return;
    };
    let answers_itself = ["respond", "redirect"].into_iter().find(|key| f.value(key).is_some());
    if let Some(target) = answers_itself {
        let message = format!("`{}.cache` does not go with `{target}`", f.path);
        f.push(Mistake::new(Code::Conflict, key, message).label("the gateway makes these answers itself"));
    }
    if **stream {
        let message = format!("`{}.cache` does not go with `stream: true`", f.path);
        f.push(
            Mistake::new(Code::Conflict, key, message)
                .related(stream.span(), "answers may be endless")
                .hint("streams are not stored: take one of them out"),
        );
    }
    let methods = matches.map_or(&[][..], |matches| &matches.methods);
    if !methods.is_empty() && !methods.iter().any(|method| **method == Method::GET) {
        let message = format!(
            "`{}.cache` stores answers to `GET` only, which the route does not take",
            f.path
        );
        f.push(
            Mistake::new(Code::Conflict, key, message)
                .related(methods.first().and_then(At::span), "the methods of the route")
                .hint("a route that changes things needs no `cache`: it ends the use of stored answers in any case"),
        );
    }
}

/// Reports `idempotency` of a route whose requests cannot be done once.
fn check_idempotency(f: &mut Fields<'_>, stream: &At<bool>, upgrade: &At<Upgrade>, matches: Option<&Match>) {
    let Some(Value { key, .. }) = f.value("idempotency") else {
        return;
    };
    let conflict = |message: String| Mistake::new(Code::Conflict, key, message);
    if has_no_call(f) {
        let message = format!("`{}.idempotency` goes with `backend` or `split` only", f.path);
        let hint = "of an aggregate, give the part that changes something a key of its own in its `headers`";
        f.push(conflict(message).label("there is no one request to do once").hint(hint));
    }
    if let Some(fallback) = f.value("fallback") {
        let message = format!("`{}.idempotency` does not go with `fallback`", f.path);
        f.push(
            conflict(message)
                .related(fallback.key, "answers in place of the backend")
                .hint("a caller must be able to tell whether its request was done: take one of them out"),
        );
    }
    if **stream {
        let message = format!("`{}.idempotency` does not go with `stream: true`", f.path);
        f.push(
            conflict(message)
                .related(stream.span(), "answers may be endless")
                .hint("streams are not stored: take one of them out"),
        );
    }
    if **upgrade != Upgrade::Off {
        let message = format!("`{}.idempotency` does not go with `upgrade`", f.path);
        f.push(conflict(message).related(upgrade.span(), "a tunnel has no answer"));
    }
    let methods = matches.map_or(&[][..], |matches| &matches.methods);
    if !methods.is_empty() && methods.iter().all(|method| method.is_safe()) {
        let message = format!("`{}.idempotency` is for methods that change something", f.path);
        f.push(
            conflict(message)
                .related(methods.first().and_then(At::span), "the methods of the route")
                .hint("a safe method may be repeated in any case: take it out, or add `POST`"),
        );
    }
}

/// Reports a hedge of a route without a call of its own, or with calls that may be endless.
fn check_hedge(f: &mut Fields<'_>, stream: &At<bool>) {
    let Some(Value { key, .. }) = f.value("hedge") else {
        return;
    };
    let path = f.path;
    if f.value("backend").is_none() {
        let message = format!("`{path}.hedge` goes with `backend` only");
        let hint = "each part of an aggregate can have a `hedge` of its own";
        f.push(Mistake::new(Code::Conflict, key, message).hint(hint));
    }
    if **stream {
        let message = format!("`{path}.hedge` does not go with `stream: true`");
        f.push(
            Mistake::new(Code::Conflict, key, message)
                .related(stream.span(), "answers may be endless")
                .hint("streams are not hedged: take one of them out"),
        );
    }
}

/// Reports a `strip` that has nothing to change: it makes the path that a backend gets, and so does `rewrite`.
fn check_strip(f: &Fields<'_>, matches: Option<&Match>, target: Option<&Target>) {
    let Some(at) = matches
        .filter(|matches| *matches.strip)
        .and_then(|matches| matches.strip.span())
    else {
        return;
    };
    let mistake = |message: String| Mistake::new(Code::Conflict, at, message);
    match target {
        Some(Target::Backend { rewrite: None, .. } | Target::Split { rewrite: None, .. }) | None => {}
        Some(
            Target::Backend {
                rewrite: Some(rewrite), ..
            }
            | Target::Split {
                rewrite: Some(rewrite), ..
            },
        ) => f.push(
            mistake(format!("`{}.match.strip` and `{0}.rewrite` both make the path", f.path))
                .related(rewrite.span(), "and this one")
                .hint("`rewrite: \"/{path.rest}\"` strips the prefix; keep one of them"),
        ),
        Some(Target::Aggregate(_) | Target::Respond(_) | Target::Redirect(_)) => {
            let message = format!("`{}.match.strip` goes with `backend` or `split` only", f.path);
            f.push(mistake(message).hint("leave it out: no backend gets the path"));
        }
    }
}

fn read_target(f: &mut Fields<'_>) -> Option<Target> {
    let own = f.value("backend").and_then(|value| value.text());
    let written = if let (Some(own), Some(split)) = (own, f.value("split")) {
        let message = format!("`{}` cannot have both `backend` and `split`", f.path);
        let hint = format!(
            "take `backend` out: `split` names it, as in `[{{ backend: v2, percent: 5 }}, {{ backend: {own} }}]`"
        );
        let at = f.value("backend").map(|value| value.key);
        f.push(
            Mistake::new(Code::Conflict, split.key, message)
                .related(at, "and this one")
                .hint(hint),
        );
        None
    } else {
        f.exactly_one(&["backend", "split", "aggregate", "respond", "redirect"])
    };
    let (backend, split) = (f.optional("backend"), f.nonempty("split"));
    if let (None, Some(value)) = (&split, f.value("split")) {
        split::check_unread(&value);
    }
    let (aggregate, respond, redirect) = (f.optional("aggregate"), f.optional("respond"), f.optional("redirect"));
    let rewrite: Option<At<String>> = f.optional("rewrite");
    check_path(f, "rewrite", rewrite.as_ref());
    match written? {
        "backend" => Some(Target::Backend {
            name: backend?,
            rewrite,
        }),
        "split" => Some(Target::Split {
            entries: split?,
            rewrite,
        }),
        other => {
            if let Some(rewrite) = rewrite {
                let message = format!("`{}.rewrite` does not go with `{other}`", f.path);
                f.push(Mistake::new(Code::Conflict, rewrite.span(), message).label("there is no one path to rewrite"));
            }
            match other {
                "aggregate" => aggregate.map(Box::new).map(Target::Aggregate),
                "respond" => respond.map(Target::Respond),
                _ => redirect.map(Target::Redirect),
            }
        }
    }
}

impl Read for Access {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ any_of: [$] }"],
        sample: "{ any_of: [anonymous] }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let addresses = f.section("addresses");
            if f.value("any_of").is_some() && f.value("all_of").is_some() {
                f.exactly_one(&["any_of", "all_of"]);
            }
            let (any_of, all_of) = (credentials(f, "any_of"), credentials(f, "all_of"));
            let (scopes, tiers, tenants) = (f.list("scopes"), f.list("tiers"), f.list("tenants"));
            Some(Self {
                any_of: any_of?,
                all_of: all_of?,
                scopes,
                tiers,
                tenants,
                addresses: addresses.or_else(|| f.default_section("addresses"))?,
            })
        })?
    }
}

/// Reads a list of credentials. Misspelt ones are read as what they were probably meant to be, so that the names can be
/// checked. The outer `None` stands for a list that cannot be read.
fn credentials(f: &mut Fields<'_>, name: &'static str) -> Option<Option<Vec<At<Credential>>>> {
    let read: Option<Vec<At<Credential>>> = f.nonempty(name);
    let Some(value) = f.value(name).filter(|_| read.is_none()) else {
        return Some(read);
    };
    let meant = |item: &Value<'_>| {
        let credential = Credential::parse(item.text()?).or_else(|wrong| {
            let hint = wrong.hint.clone().unwrap_or_default();
            Credential::parse(hint.split('`').nth(1).unwrap_or_default())
        });
        Some(At::written(credential.ok()?, item.node.span))
    };
    let all: Option<Vec<_>> = value.items().iter().map(meant).collect();
    all.map(Some)
}

impl Read for Addresses {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ allow: [$] }"],
        sample: "{ allow: [10.0.0.0/8] }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| Self {
            allow: f.nonempty("allow"),
            deny: f.list("deny"),
        })
    }
}

impl Scalar for Credential {
    const EXPECTED: &'static str = "`api_key`, `jwt`, `jwt:NAME`, `mtls`, `basic`, `external` or `anonymous`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        match text {
            "api_key" => Ok(Self::ApiKey),
            "jwt" => Ok(Self::Jwt),
            "mtls" => Ok(Self::Mtls),
            "basic" => Ok(Self::Basic),
            "external" => Ok(Self::External),
            "anonymous" => Ok(Self::Anonymous),
            _ => match text.strip_prefix("jwt:") {
                Some(name) if !name.is_empty() => Ok(Self::JwtFrom(name.to_owned())),
                _ => Err(unknown_word(
                    text,
                    &["api_key", "jwt", "mtls", "basic", "external", "anonymous"],
                )),
            },
        }
    }

    fn show(&self) -> String {
        match self {
            Self::ApiKey => "api_key".to_owned(),
            Self::Jwt => "jwt".to_owned(),
            Self::JwtFrom(name) => format!("jwt:{name}"),
            Self::Mtls => "mtls".to_owned(),
            Self::Basic => "basic".to_owned(),
            Self::External => "external".to_owned(),
            Self::Anonymous => "anonymous".to_owned(),
        }
    }
}

impl Read for Respond {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ status: $ }", "{ body: $ }"],
        sample: "{ status: 204 }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let status = f.within("status", StatusCode::OK.as_u16(), 200..=599);
            let body = f.optional("body");
            let limits = f.or("limits", false);
            if let (true, Some(body)) = (*limits, f.value("body")) {
                let message = format!("`{}` cannot have both `limits` and `body`", f.path);
                f.push(
                    Mistake::new(Code::Conflict, body.key, message)
                        .related(limits.span(), "the body is the caller's plan")
                        .hint("take one of the two out"),
                );
            }
            Self {
                status,
                headers: headers(f, "headers"),
                body,
                limits,
            }
        })
    }
}

impl Read for Body {
    const SHAPE: Shape = Shape::Anything;

    fn read(value: &Value<'_>) -> Option<Self> {
        if value.is_map() || value.is_list() {
            Read::read(value).map(Self::Json)
        } else {
            value.scalar().map(Self::Text)
        }
    }
}

//! What a request can ask for, who may, how often, and which of three things then happens.

use std::num::NonZeroU64;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use ipnet::IpNet;

use super::{Aggregate, Fallback, Headers, Limit, OwnCors, PathPolicy, SecurityHeaders};
use crate::config::fields::Fields;
use crate::config::mistake::{Code, Mistake};
use crate::config::named::NamedMap;
use crate::config::reader::{Read, Value, any_name, keyed};
use crate::config::scalar::{Scalar, Wrong, unknown_word, words};
use crate::config::single::Single;
use crate::config::span::At;
use crate::config::units::ByteSize;
use crate::json::Document;

#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    pub matches: Match,
    pub access: Access,
    /// Beside the caller's own tier; all must admit a request.
    pub limits: NamedMap<Limit>,
    /// Tokens a request takes from each of its limits that does not say otherwise; default 1.
    pub cost: At<NonZeroU64>,
    /// A field of the backend's answer that says what the request cost after all, in tokens.
    pub cost_header: Option<At<HeaderName>>,
    /// For the whole request; default what `time_limits` leaves.
    pub time_limit: Option<At<Duration>>,
    /// Exempts the answer from the time limit; `idle_stream` holds instead; default false.
    pub stream: At<bool>,
    /// Default: that of `request_limits`.
    pub body_limit: Option<At<ByteSize>>,
    /// Whether the backend sees the credentials that were taken; left out, tokens alone.
    pub forward_credential: Option<At<bool>>,
    /// In place of the section at the top.
    pub cors: Option<OwnCors>,
    pub headers: Headers,
    /// Default: that of the top.
    pub security_headers: Option<At<SecurityHeaders>>,
    pub path_policy: PathPolicy,
    /// Default `reject`.
    pub method_override: At<MethodOverride>,
    /// What a caller may turn its connection into; default `off`.
    pub upgrade: At<Upgrade>,
    /// What is answered when its backend gives no good answer, tried in this order.
    pub fallback: Vec<Fallback>,
    pub target: Target,
}

words! {
    /// What becomes of a field that asks a backend to take the request for one of another method.
    pub enum MethodOverride { Reject = "reject", Strip = "strip" }

    pub enum Upgrade { Off = "off", Websocket = "websocket" }
}

/// What a request must be like. Empty lists and maps ask for nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Match {
    /// `api.example.com`, or `*.example.com` for anything one or more labels below.
    pub hosts: Vec<At<String>>,
    /// Patterns such as `/users/{id}` and `/files/{*rest}`; at least one; each begins with `/`.
    pub paths: Vec<At<String>>,
    pub methods: Vec<At<Method>>,
    /// Fields with exactly this value; names in lower case.
    pub headers: NamedMap<At<String>>,
    /// Query parameters with exactly this value.
    pub query: NamedMap<At<String>>,
}

/// Who may use the route.
#[derive(Debug, Clone, PartialEq)]
pub struct Access {
    /// Left out: any credential that is configured, and not `anonymous`.
    pub any_of: Option<Vec<At<Credential>>>,
    /// All of these are required at once; in place of `any_of`.
    pub all_of: Option<Vec<At<Credential>>>,
    /// All of them are required.
    pub scopes: Vec<At<String>>,
    /// One of them is required; empty admits all.
    pub tiers: Vec<At<String>>,
    /// One of them is required; empty admits all.
    pub tenants: Vec<At<String>>,
    pub addresses: Addresses,
}

/// From where the route may be used, by the client's address as far as `client_address` believes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Addresses {
    /// Left out, all that are not denied.
    pub allow: Option<Vec<At<IpNet>>>,
    /// Beats `allow`.
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
    Anonymous,
}

/// The one thing that happens to a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    Backend {
        name: At<String>,
        /// Path and query sent instead of the caller's, with placeholders.
        rewrite: Option<At<String>>,
    },
    Aggregate(Aggregate),
    Respond(Respond),
}

/// A fixed answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Respond {
    /// 200 to 599; default 200.
    pub status: At<u16>,
    /// Names in lower case.
    pub headers: NamedMap<At<String>>,
    pub body: Option<Body>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    Text(At<String>),
    /// A map or list, sent as JSON.
    Json(At<Document>),
}

impl Read for Route {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ match: { path: [$] }, backend: NAME }"],
        sample: r#"{ match: { path: "/users/{id}" }, backend: NAME }"#,
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            f.not_built(&["cache", "in_flight", "quotas", "retry", "compression", "mirror"]);
            let matches = f.required("match");
            let access = f.section("access");
            let limits = f.optional("limits").unwrap_or_default();
            let cost = f.or("cost", NonZeroU64::MIN);
            let cost_header = f.optional("cost_header");
            let time_limit = f.optional("time_limit");
            above_zero(f, "time_limit", time_limit.as_ref());
            let stream = f.or("stream", false);
            let body_limit = f.optional("body_limit");
            let forward_credential = f.optional("forward_credential");
            let cors = f.optional("cors");
            let headers = f.section("headers");
            let security_headers = f.optional("security_headers");
            let path_policy = f.section("path_policy");
            let method_override = f.or("method_override", MethodOverride::Reject);
            let upgrade = f.or("upgrade", Upgrade::Off);
            let fallback: Vec<Fallback> = f.list("fallback");
            let target = read_target(f);
            if let (Some(Target::Aggregate(_) | Target::Respond(_)), Some(value)) = (&target, f.value("fallback")) {
                let message = format!("`{}.fallback` goes with `backend` only", f.path);
                f.push(
                    Mistake::new(Code::Conflict, value.key, message)
                        .hint("each part of an aggregate can have a `fallback` of its own"),
                );
            }
            Some(Self {
                matches: matches?,
                access: access?,
                limits,
                cost,
                cost_header,
                time_limit,
                stream,
                body_limit,
                forward_credential,
                cors,
                headers: headers?,
                security_headers,
                path_policy: path_policy?,
                method_override,
                upgrade,
                fallback,
                target: target?,
            })
        })?
    }
}

fn read_target(f: &mut Fields<'_>) -> Option<Target> {
    let written = f.exactly_one(&["backend", "aggregate", "respond"]);
    let (backend, aggregate, respond) = (f.optional("backend"), f.optional("aggregate"), f.optional("respond"));
    let rewrite: Option<At<String>> = f.optional("rewrite");
    check_path(f, "rewrite", rewrite.as_ref());
    match written? {
        "backend" => Some(Target::Backend {
            name: backend?,
            rewrite,
        }),
        other => {
            if let Some(rewrite) = rewrite {
                let message = format!("`{}.rewrite` does not go with `{other}`", f.path);
                f.push(Mistake::new(Code::Conflict, rewrite.span(), message).label("there is no one path to rewrite"));
            }
            if other == "aggregate" {
                aggregate.map(Target::Aggregate)
            } else {
                respond.map(Target::Respond)
            }
        }
    }
}

/// Zero time would refuse every request.
pub(super) fn above_zero(f: &Fields<'_>, name: &str, limit: Option<&At<Duration>>) {
    if let Some(limit) = limit.filter(|limit| limit.is_zero()) {
        f.push(Mistake::new(
            Code::OutOfRange,
            limit.span(),
            format!("`{}.{name}` must be above 0", f.path),
        ));
    }
}

/// What is sent to a backend as its path.
pub(super) fn check_path(f: &Fields<'_>, name: &str, path: Option<&At<String>>) {
    if let Some(path) = path.filter(|path| !path.starts_with('/')) {
        let message = format!("`{}.{name}` must begin with `/`", f.path);
        let hint = if path.contains("://") {
            "a path has no scheme and no host: the host of a route goes into `host`".to_owned()
        } else if path.contains(' ') {
            "a path has no spaces: the method of a route goes into `methods`".to_owned()
        } else if path.starts_with(['^', '~', '=', '*', '(', '.', '\\']) {
            "a path is no regular expression: `/users/{id}` takes any one segment, `/files/{*rest}` all below"
                .to_owned()
        } else {
            format!("did you mean `/{}`?", **path)
        };
        f.push(Mistake::new(Code::BadValue, path.span(), message).hint(hint));
    }
}

impl Read for Match {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ path: [$] }"],
        sample: r#"{ path: "/users/{id}" }"#,
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let hosts = f.nonempty("host").unwrap_or_default();
            let paths: Option<Vec<At<String>>> = f.required_list("path");
            for path in paths.iter().flatten() {
                check_path(f, "path", Some(path));
            }
            let methods = f.nonempty("methods").unwrap_or_default();
            let headers = headers(f, "headers");
            let mut query = NamedMap::default();
            if let Some(value) = f.value("query") {
                keyed(&value, &mut query, any_name, |_, value| value.scalar());
            }
            Some(Self {
                hosts,
                paths: paths?,
                methods,
                headers,
                query,
            })
        })?
    }
}

/// Header fields; names are taken to lower case, values must be sendable.
pub(super) fn headers(f: &mut Fields<'_>, name: &'static str) -> NamedMap<At<String>> {
    let mut fields = NamedMap::default();
    if let Some(value) = f.value(name) {
        keyed(&value, &mut fields, field_name, |_, value| {
            let text: At<String> = value.scalar()?;
            if HeaderValue::from_str(&text).is_err() {
                let message = format!("`{}` cannot be sent as a header field", value.path);
                value.push(Mistake::new(Code::BadValue, text.span(), message));
            }
            Some(text)
        });
    }
    fields
}

/// The name of a header field, in lower case.
pub(super) fn field_name(name: &str) -> Result<String, &'static str> {
    match HeaderName::from_bytes(name.as_bytes()) {
        Ok(name) => Ok(name.as_str().to_owned()),
        Err(_) => Err("that is not the name of a header field"),
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
            Some(Self {
                any_of: f.nonempty("any_of"),
                all_of: f.nonempty("all_of"),
                scopes: f.list("scopes"),
                tiers: f.list("tiers"),
                tenants: f.list("tenants"),
                addresses: addresses?,
            })
        })?
    }
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
    const EXPECTED: &'static str = "`api_key`, `jwt`, `jwt:NAME`, `mtls`, `basic` or `anonymous`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        match text {
            "api_key" => Ok(Self::ApiKey),
            "jwt" => Ok(Self::Jwt),
            "mtls" => Ok(Self::Mtls),
            "basic" => Ok(Self::Basic),
            "anonymous" => Ok(Self::Anonymous),
            _ => match text.strip_prefix("jwt:") {
                Some(name) if !name.is_empty() => Ok(Self::JwtFrom(name.to_owned())),
                _ => Err(unknown_word(text, &["api_key", "jwt", "mtls", "basic", "anonymous"])),
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
            Self {
                status,
                headers: headers(f, "headers"),
                body: f.optional("body"),
            }
        })
    }
}

impl Read for Body {
    fn read(value: &Value<'_>) -> Option<Self> {
        if value.is_map() || value.is_list() {
            Read::read(value).map(Self::Json)
        } else {
            value.scalar().map(Self::Text)
        }
    }
}

//! A service outside the gateway that is asked who a caller is.

use std::fmt;
use std::time::Duration;

use http::header::{AUTHORIZATION, COOKIE};
use http::uri::PathAndQuery;
use http::{HeaderName, Uri};

use super::backend::{Backend, Bulkhead, Connections, Protocol};
use super::backend_tls::BackendTls;
use super::balance::Balance;
use super::breaker::Breaker;
use super::endpoint::{Endpoint, EndpointUrl};
use super::endpoints::Endpoints;
use super::health::WhenNoneIsUp;
use super::ranges::{HOUR, MS};
use super::request_key::cookie_name;
use super::retry::Retry;
use crate::config::fields::Fields;
use crate::config::hint;
use crate::config::mistake::{Code, Mistake};
use crate::config::reader::Read;
use crate::config::scalar::{Scalar, Wrong, words};
use crate::config::single::Single;
use crate::config::span::At;
use crate::config::value::Value;

/// Service that is asked over HTTP who a caller is.
#[derive(Debug, Clone, PartialEq)]
pub struct External {
    /// URL that is asked with `GET`, with its path.
    pub url: At<ServiceUrl>,
    /// Header fields of the request that the service gets, and single cookies, as `cookie.NAME`; it gets no others. A
    /// request without any of them has no credential for it, and is not asked about.
    pub fields: Vec<At<ExternalField>>,
    /// What else of the request the service gets, in fields of its own: `method` in `x-forwarded-method`, `host` in
    /// `x-forwarded-host`, `path` without the query in `x-forwarded-uri`, `client_address` in `x-forwarded-for`. Answers
    /// are stored for each value apart.
    pub request: Vec<At<RequestFact>>,
    /// For one question, with all its attempts. A request waits at most for the time that it has left itself.
    pub time_limit: At<Duration>,
    /// How long answers are used again.
    pub cache: Option<ExternalCache>,
    /// How many questions may be asked at once. Client addresses share the slots as tenants share those of a backend.
    pub bulkhead: Bulkhead,
    /// When questions to the failing service stop.
    pub breaker: Option<Breaker>,
    /// When a failed attempt is made again.
    pub retry: Retry,
    /// Connections that are kept to the service.
    pub connections: Connections,
    /// How the service is spoken to if its URL begins with `https`.
    pub tls: BackendTls,
}

words! {
    /// A fact of a request that the service is told.
    pub enum RequestFact { Method = "method", Host = "host", Path = "path", ClientAddress = "client_address" }
}

/// A header field, or one cookie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExternalField {
    Header(HeaderName),
    Cookie(String),
}

/// How long answers of the service are used again. `Cache-Control` of an answer shortens it: `max-age`, and `no-store`
/// or `no-cache` to nothing. So does `expires` in the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct ExternalCache {
    /// For an answer that names a caller.
    pub ttl: At<Duration>,
    /// For a refusal. `0s` stores none.
    pub refused: At<Duration>,
    /// For how long after its `ttl` an answer that names a caller is used while the service fails. `0s`: not at all.
    pub stale_if_error: At<Duration>,
    /// Most answers that name callers, and most refusals: neither displaces the other.
    pub entries: At<u32>,
}

/// `http://host:port/path` or `https://host:port/path`.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceUrl {
    pub origin: EndpointUrl,
    /// Path and query.
    pub target: PathAndQuery,
}

/// Fields that the gateway itself writes into a question.
const OWN_FIELDS: [&str; 9] = [
    "host",
    "accept",
    "accept-encoding",
    "content-length",
    "content-type",
    "forwarded",
    "te",
    "via",
    "x-gateway-explain",
];

impl Read for External {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ url: $ }"],
        sample: r#"{ url: "http://10.0.0.5:8080/verify" }"#,
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let url: Option<At<ServiceUrl>> = f.required("url");
            let fields = f.list_or("fields", &[ExternalField::Header(AUTHORIZATION)]);
            fields.iter().for_each(|field| check_field(f, field));
            check_cookies(f, &fields);
            let request = f.list("request");
            let time_limit = f.within("time_limit", 500 * MS, MS..=60 * Duration::from_secs(1));
            let cache = f.section_or_off("cache");
            let (bulkhead, breaker) = (f.section("bulkhead"), f.section_or_off("breaker"));
            let (retry, connections) = (f.section("retry"), f.section("connections"));
            let tls_at = f.value("tls").map(|value| value.key);
            let tls = f.section("tls");
            let url = url?;
            if let (Some(at), false) = (tls_at, url.origin.is_secure) {
                let message = format!("`{}.tls` is of no use", f.path);
                f.push(
                    Mistake::new(Code::Conflict, at, message)
                        .related(url.span(), "is spoken to in plain HTTP")
                        .hint("write `https://` in its URL, or take the section out"),
                );
            }
            Some(Self {
                url,
                fields,
                request,
                time_limit,
                cache,
                bulkhead: bulkhead?,
                breaker,
                retry: retry?,
                connections: connections?,
                tls: tls?,
            })
        })?
    }
}

impl External {
    /// Returns the service as a backend with one endpoint.
    pub fn as_backend(&self) -> Backend {
        let Self {
            url,
            // Parts of a question.
            fields: _,
            request: _,
            time_limit,
            // What becomes of an answer.
            cache: _,
            bulkhead,
            breaker,
            retry,
            connections,
            tls,
        } = self;
        let endpoint = Endpoint {
            url: url.clone().map(|url| url.origin),
            weight: At::unwritten(1),
        };
        Backend {
            endpoints: Endpoints::Listed(vec![endpoint]),
            protocol: At::unwritten(Protocol::Http1),
            time_limit: *time_limit,
            attempt_limit: At::unwritten(**time_limit),
            bulkhead: bulkhead.clone(),
            breaker: breaker.clone(),
            ejection: None,
            balance: Balance::default(),
            retry: retry.clone(),
            health: None,
            when_none_is_up: At::unwritten(WhenNoneIsUp::TryAll),
            preserve_host: At::unwritten(false),
            connections: connections.clone(),
            tls: tls.clone(),
        }
    }
}

/// Reports a field that a caller cannot speak for itself in.
fn check_field(f: &Fields<'_>, field: &At<ExternalField>) {
    let ExternalField::Header(name) = &field.value else {
        return;
    };
    let name = name.as_str();
    let is_own = OWN_FIELDS.contains(&name) || name.starts_with("x-forwarded-") || name.starts_with("x-gateway-");
    let is_hop = ["connection", "keep-alive", "transfer-encoding", "upgrade", "trailer"].contains(&name)
        || name.starts_with("proxy-");
    if !is_own && !is_hop {
        return;
    }
    let message = format!("`{}.fields` cannot have `{name}`", f.path);
    let label = if is_hop {
        "is for one connection only"
    } else {
        "is written by the gateway"
    };
    let mistake = Mistake::new(Code::BadValue, field.span(), message).label(label);
    f.push(match name {
        "host" | "x-forwarded-host" => mistake.hint("write `request: [host]` beside it"),
        "x-forwarded-for" | "forwarded" => mistake.hint("write `request: [client_address]` beside it"),
        "x-forwarded-uri" => mistake.hint("write `request: [path]` beside it"),
        "x-forwarded-method" => mistake.hint("write `request: [method]` beside it"),
        _ => mistake.hint("name fields in which callers say who they are, such as `authorization` or `cookie`"),
    });
}

/// Reports single cookies beside the field that holds all of them.
fn check_cookies(f: &Fields<'_>, fields: &[At<ExternalField>]) {
    let all = fields.iter().find(|field| field.value == ExternalField::Header(COOKIE));
    let one = fields
        .iter()
        .find(|field| matches!(field.value, ExternalField::Cookie(_)));
    if let (Some(all), Some(one)) = (all, one) {
        let message = format!("`{}.fields` has `{}` twice", f.path, one.show());
        f.push(
            Mistake::new(Code::Conflict, one.span(), message)
                .related(all.span(), "has all cookies")
                .hint("take `cookie` out: answers are then stored whatever the other cookies are"),
        );
    }
}

impl Scalar for ExternalField {
    const EXPECTED: &'static str = "the name of a header field, or `cookie.NAME`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        match text.strip_prefix("cookie.") {
            Some(name) => cookie_name(name)
                .map(Self::Cookie)
                .map_err(|why| Wrong::new(Code::BadValue, why)),
            None => HeaderName::parse(text).map(Self::Header),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Header(name) => name.to_string(),
            Self::Cookie(name) => format!("cookie.{name}"),
        }
    }
}

impl Read for ExternalCache {
    const OFF: bool = true;
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ ttl: $ }"],
        sample: "{ ttl: 30s }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.switchable(hint::for_switch).fields(|f| {
            let second = Duration::from_secs(1);
            Self {
                ttl: f.within("ttl", 30 * second, second..=24 * HOUR),
                refused: f.within("refused", 5 * second, Duration::ZERO..=HOUR),
                stale_if_error: f.within("stale_if_error", Duration::ZERO, Duration::ZERO..=24 * HOUR),
                entries: f.within("entries", 10_000, 100..=1_000_000),
            }
        })
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin, self.target)
    }
}

impl Scalar for ServiceUrl {
    const EXPECTED: &'static str = "a URL such as `https://id.example.com/verify`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let wrong = |label| Wrong::new(Code::BadValue, label);
        let uri: Uri = text.parse().map_err(|_| wrong("is not a URL"))?;
        if text.contains('#') {
            return Err(wrong("has a fragment, which is never sent"));
        }
        let origin = match (uri.scheme_str(), uri.authority()) {
            (Some(scheme), Some(authority)) => format!("{scheme}://{authority}"),
            _ => text.to_owned(),
        };
        Ok(Self {
            origin: EndpointUrl::parse(&origin)?,
            target: uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")),
        })
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

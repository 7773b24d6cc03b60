//! What is behind the gateway: where a service is, and everything that guards a call to it.

use std::num::NonZeroU32;
use std::time::Duration;

use http::{Method, Uri};

use crate::config::fields::Fields;
use crate::config::mistake::{Code, Mistake};
use crate::config::reader::{Read, Value};
use crate::config::scalar::{Scalar, Wrong, words};
use crate::config::span::At;
use crate::config::units::{Backoff, ByteSize, Rate, Ratio};

/// A service with one or more endpoints. All guards are shared by all routes that use it.
#[derive(Debug, Clone, PartialEq)]
pub struct Backend {
    /// At least one.
    pub endpoints: Vec<Endpoint>,
    /// The most one call may take, queue and all attempts together; default 10s.
    pub time_limit: At<Duration>,
    /// The most one attempt may take, connecting included; default `time_limit`.
    pub attempt_limit: At<Duration>,
    pub bulkhead: Bulkhead,
    /// The article's breaker unless written otherwise; `None` is `off`.
    pub breaker: Option<Breaker>,
    pub retry: Retry,
    /// Send the caller's `Host` rather than the endpoint's; default false.
    pub preserve_host: At<bool>,
    pub connections: Connections,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    pub url: At<EndpointUrl>,
    /// Share of the calls, 1 to 1000; default 1.
    pub weight: At<u32>,
}

/// `http://host:port` and nothing else: paths are the routes' business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointUrl {
    /// A name or an address; IPv6 without brackets.
    pub host: String,
    pub port: u16,
    /// `host:port` as it was written, for the `Host` field; the port is left out if it was.
    pub authority: String,
}

/// At most so many calls at once.
#[derive(Debug, Clone, PartialEq)]
pub struct Bulkhead {
    /// Calls at once, 1 to 100000; default 100.
    pub limit: At<u32>,
    /// Calls that may wait for a slot, 0 to 100000; default as many as `limit`.
    pub queue: At<u32>,
    /// How long one may wait; default 1s; means nothing if `queue` is 0.
    pub wait: At<Duration>,
    /// The most of the slots that one tenant may hold at once, rounded down, but at least one; above 0, default
    /// 1: all of them. Less keeps room for the others even while they do not ask.
    pub tenant_share: At<Ratio>,
}

/// When calls to a failing backend stop. Defaults: the article's `ReadyToTrip` and settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Breaker {
    /// What counts is what happened within this; 1s to 1h, default 60s.
    pub window: At<Duration>,
    /// Fewer calls than this in the window never open it; default 10.
    pub min_calls: At<NonZeroU32>,
    /// Above 0; default 0.6.
    pub failure_ratio: At<Ratio>,
    /// Time until the first probe; 1ms to 1h, default 30s.
    pub open_for: At<Duration>,
    /// Probes at once, and successes that close it, 1 to 1000; default 3.
    pub probes: At<u32>,
    /// Opens on slowness too; left out, it does not.
    pub slow: Option<Slow>,
    /// Failures in a row that open it whatever the ratio; left out, none do.
    pub consecutive: Option<At<NonZeroU32>>,
    /// Default 500, 502, 503, 504.
    pub failure_statuses: Vec<At<u16>>,
}

/// Opens when this share of the calls took longer than `over`.
#[derive(Debug, Clone, PartialEq)]
pub struct Slow {
    pub over: At<Duration>,
    pub ratio: At<Ratio>,
}

/// When and how a failed attempt is made again.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// All in all, the first included, 1 to 10; 1 is no retry; default 2.
    pub attempts: At<u32>,
    /// Default `100ms..1s`: a waiting call holds its slot.
    pub backoff: At<Backoff>,
    /// By which each wait exceeds the one before, 1 to 10; default 2.
    pub factor: At<f64>,
    /// Each wait is off by up to this share, either way; default 0.1.
    pub jitter: At<Ratio>,
    /// Retries that each first attempt pays for; default 0.2.
    pub share: At<Ratio>,
    /// Retries that are free; default 3/s.
    pub floor: At<Rate>,
    /// Default unreached, broken, timed_out, 502, 503, 504.
    pub on: Vec<At<RetryOn>>,
    /// Default GET, HEAD, OPTIONS.
    pub methods: Vec<At<Method>>,
    /// Whether any other method is retried too if the request has an `Idempotency-Key`; default false.
    pub with_idempotency_key: At<bool>,
    /// A body beyond this cannot be sent again; at most 16MiB, default 64KiB.
    pub body_limit: At<ByteSize>,
}

/// What an attempt must have come to, to be made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryOn {
    /// No connection: nothing was sent.
    Unreached,
    /// The connection broke before an answer began.
    Broken,
    /// The attempt's limit passed.
    TimedOut,
    /// A 5xx, or one of 408, 425 and 429, which ask for it.
    Status(u16),
}

/// The connections a worker keeps to each endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Connections {
    /// At once, 1 to 100000; default the bulkhead's `limit`.
    pub limit: Option<At<u32>>,
    /// How long one may lie idle; default 30s.
    pub idle: At<Duration>,
    /// How long one may live, so that a moved endpoint is noticed; default 10m.
    pub age: At<Duration>,
}

words! {
    /// A set of values that goes by a name.
    enum Preset {
        /// The article's retry: 5 attempts, 100 ms, doubling up to 30 s, 10 % either way.
        Article = "article",
    }
}

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

impl Read for Backend {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            f.not_built(&["health", "tls", "protocol", "ejection", "balance", "adaptive"]);
            let endpoints = f.required_list("endpoints");
            let time_limit = f.within("time_limit", Duration::from_secs(10), MS..=24 * HOUR);
            let attempt_limit = f.within("attempt_limit", *time_limit, MS..=24 * HOUR);
            let bulkhead = f.section("bulkhead");
            let breaker = f.section_or_off("breaker");
            let retry = f.section("retry");
            let preserve_host = f.or("preserve_host", false);
            let connections = f.section("connections");
            Some(Self {
                endpoints: endpoints?,
                time_limit,
                attempt_limit,
                bulkhead: bulkhead?,
                breaker,
                retry: retry?,
                preserve_host,
                connections: connections?,
            })
        })?
    }
}

impl Read for Endpoint {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let (url, weight) = (f.required("url"), f.within("weight", 1, 1..=1000));
            Some(Self { url: url?, weight })
        })?
    }
}

impl Read for Bulkhead {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let limit = f.within("limit", 100, 1..=100_000);
            let queue = f.within("queue", *limit, 0..=100_000);
            let tenant_share = f.or("tenant_share", ratio(1.0));
            above_zero(f, "tenant_share", &tenant_share);
            Self {
                limit,
                queue,
                wait: f.within("wait", Duration::from_secs(1), Duration::ZERO..=HOUR),
                tenant_share,
            }
        })
    }
}

impl Read for Breaker {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            f.not_built(&["adaptive", "growth", "jitter", "latency_window"]);
            let breaker = Self {
                window: f.within("window", Duration::from_secs(60), Duration::from_secs(1)..=HOUR),
                min_calls: f.or("min_calls", NonZeroU32::new(10).expect("not 0")),
                failure_ratio: f.or("failure_ratio", ratio(0.6)),
                open_for: f.within("open_for", Duration::from_secs(30), MS..=HOUR),
                probes: f.within("probes", 3, 1..=1000),
                slow: f.optional("slow"),
                consecutive: f.optional("consecutive"),
                failure_statuses: f.list_or("failure_statuses", &[500, 502, 503, 504]),
            };
            above_zero(f, "failure_ratio", &breaker.failure_ratio);
            for status in breaker
                .failure_statuses
                .iter()
                .filter(|status| !(400..=599).contains(&***status))
            {
                let message = format!("`{}.failure_statuses` takes statuses from 400 to 599", f.path);
                f.push(Mistake::new(Code::OutOfRange, status.span(), message));
            }
            breaker
        })
    }
}

impl Read for Slow {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let (over, ratio) = (f.required("over"), f.required("ratio"));
            let slow = Self {
                over: over?,
                ratio: ratio?,
            };
            above_zero(f, "ratio", &slow.ratio);
            Some(slow)
        })?
    }
}

/// A ratio of 0 would be met by a backend that never fails, and a share of 0 by no one.
fn above_zero(f: &Fields<'_>, name: &str, ratio: &At<Ratio>) {
    if ratio.get() <= 0.0 {
        f.push(Mistake::new(
            Code::OutOfRange,
            ratio.span(),
            format!("`{}.{name}` must be above 0", f.path),
        ));
    }
}

impl Read for Retry {
    fn read(value: &Value<'_>) -> Option<Self> {
        if value.is_word("off") {
            let retry = value.default::<Self>()?;
            return Some(Self {
                attempts: At::written(1, value.node.span),
                ..retry
            });
        }
        value.fields(|f| {
            let preset: Option<At<Preset>> = f.optional("preset");
            let (attempts, cap) = match preset.as_deref() {
                Some(Preset::Article) => (5, Duration::from_secs(30)),
                None => (2, Duration::from_secs(1)),
            };
            let retry = Self {
                attempts: f.within("attempts", attempts, 1..=10),
                backoff: f.or("backoff", Backoff { first: 100 * MS, cap }),
                factor: f.within("factor", 2.0, 1.0..=10.0),
                jitter: f.or("jitter", ratio(0.1)),
                share: f.or("share", ratio(0.2)),
                floor: f.or("floor", Rate::per_second(std::num::NonZeroU64::new(3).expect("not 0"))),
                on: f.list_or("on", &RetryOn::DEFAULT),
                methods: f.list_or("methods", &[Method::GET, Method::HEAD, Method::OPTIONS]),
                with_idempotency_key: f.or("with_idempotency_key", false),
                body_limit: f.within("body_limit", ByteSize(64 << 10), ByteSize(0)..=ByteSize(16 << 20)),
            };
            for method in retry
                .methods
                .iter()
                .filter(|method| ***method == Method::POST || ***method == Method::PATCH)
            {
                let message = format!("`{}.methods` cannot have {}", f.path, **method);
                f.push(
                    Mistake::new(Code::BadValue, method.span(), message)
                        .label("doing it twice is not doing it once")
                        .hint("`with_idempotency_key: true` admits requests that carry the key"),
                );
            }
            retry
        })
    }
}

impl RetryOn {
    const DEFAULT: [Self; 6] = [
        Self::Unreached,
        Self::Broken,
        Self::TimedOut,
        Self::Status(502),
        Self::Status(503),
        Self::Status(504),
    ];
}

impl Scalar for RetryOn {
    const EXPECTED: &'static str = "`unreached`, `broken`, `timed_out`, a 5xx status, 408, 425 or 429";

    fn parse(text: &str) -> Result<Self, Wrong> {
        match text {
            "unreached" => Ok(Self::Unreached),
            "broken" => Ok(Self::Broken),
            "timed_out" => Ok(Self::TimedOut),
            _ => match text.parse::<u16>() {
                Ok(status @ (500..=599 | 408 | 425 | 429)) => Ok(Self::Status(status)),
                Ok(_) => Err(Wrong::new(
                    Code::OutOfRange,
                    "is not a status that a second attempt may change",
                )),
                Err(_) => Err(crate::config::scalar::unknown_word(
                    text,
                    &["unreached", "broken", "timed_out"],
                )),
            },
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Unreached => "unreached".to_owned(),
            Self::Broken => "broken".to_owned(),
            Self::TimedOut => "timed_out".to_owned(),
            Self::Status(status) => status.to_string(),
        }
    }
}

impl Read for Connections {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let limit = f.value("limit").is_some().then(|| f.within("limit", 1, 1..=100_000));
            Self {
                limit,
                idle: f.within("idle", Duration::from_secs(30), MS..=HOUR),
                age: f.within("age", Duration::from_secs(600), Duration::from_secs(1)..=24 * HOUR),
            }
        })
    }
}

impl Scalar for EndpointUrl {
    const EXPECTED: &'static str = "a URL such as `http://10.0.0.5:8080`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let wrong = |label| Wrong::new(Code::BadValue, label);
        let uri: Uri = text.parse().map_err(|_| wrong("is not a URL"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(Wrong::new(Code::NotBuilt, "TLS toward backends is not built yet")),
            _ => return Err(wrong("has no scheme").hint(format!("did you mean `http://{text}`?"))),
        }
        let authority = uri.authority().ok_or_else(|| wrong("has no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("has a user in it"));
        }
        if uri.path() != "/" || uri.query().is_some() || text.contains('#') {
            return Err(wrong("has a path").hint("the path belongs into the route's `rewrite` or the part's `path`"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let port = authority.port_u16();
        if host.is_empty() || port == Some(0) || (port.is_none() && authority.as_str() != authority.host()) {
            return Err(wrong("has no usable host and port"));
        }
        Ok(Self {
            host: host.to_owned(),
            port: port.unwrap_or(80),
            authority: authority.to_string(),
        })
    }

    fn show(&self) -> String {
        format!("http://{}", self.authority)
    }
}

fn ratio(share: f64) -> Ratio {
    Ratio::new(share).expect("the defaults lie between 0 and 1")
}

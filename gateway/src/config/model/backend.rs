//! What is behind the gateway: where a service is, and everything that guards a call to it.

use std::ops::RangeInclusive;
use std::time::Duration;

use policies::bulkhead::usual_tenant_share;

use super::backend_tls::BackendTls;
use super::balance::Balance;
use super::breaker::{Breaker, Ejection};
use super::endpoints::{Endpoints, Scheme, endpoints};
use super::health::{Health, WhenNoneIsUp};
use super::ranges::{HOUR, MS, ratio, ratio_above_zero};
use super::retry::Retry;
use crate::config::fields::Fields;
use crate::config::mistake::{Code, Mistake};
use crate::config::reader::Read;
use crate::config::scalar::{Scalar, Wrong, unknown_word, words};
use crate::config::single::Single;
use crate::config::span::At;
use crate::config::units::Ratio;
use crate::config::value::Value;

/// One service. Its breaker, bulkhead and connections are shared by all routes that use it.
#[derive(Debug, Clone, PartialEq)]
pub struct Backend {
    /// Where the service is: a list of at least one endpoint, or a source that tells while the gateway runs.
    pub endpoints: Endpoints,
    /// `http1`, `h2` in TLS (agreed on by ALPN), or `h2c` in plain text with prior knowledge.
    pub protocol: At<Protocol>,
    /// For one call, with its wait for a slot and all its attempts.
    pub time_limit: At<Duration>,
    /// For one attempt, with connecting; as long as `time_limit` unless it is written.
    pub attempt_limit: At<Duration>,
    /// How many calls may be made at once.
    pub bulkhead: Bulkhead,
    /// When calls to the failing service stop.
    pub breaker: Option<Breaker>,
    /// When calls to one failing endpoint stop.
    pub ejection: Option<Ejection>,
    /// How the endpoint of a call is chosen.
    pub balance: Balance,
    /// When a failed attempt is made again.
    pub retry: Retry,
    /// How each endpoint is probed. Left out, none is: calls alone tell how an endpoint is.
    pub health: Option<Health>,
    /// Whether calls go to endpoints that are down or ejected while no other is there: `try_all` or `refuse`.
    pub when_none_is_up: At<WhenNoneIsUp>,
    /// Whether the caller's `Host` is sent in place of the endpoint's.
    pub preserve_host: At<bool>,
    /// Connections that are kept to each endpoint.
    pub connections: Connections,
    /// How endpoints are spoken to whose URL begins with `https`.
    pub tls: BackendTls,
}

words! {
    /// What is spoken with the endpoints: HTTP/2 in TLS, agreed upon by ALPN, or in the plain, known beforehand.
    pub enum Protocol { Http1 = "http1", H2 = "h2", H2c = "h2c" }
}

/// How many calls to the service may be made at once.
#[derive(Debug, Clone, PartialEq)]
pub struct Bulkhead {
    /// Calls at once: a number, or `adaptive`, which finds it from the latency of the calls that succeed.
    pub limit: At<SlotLimit>,
    /// Lowest limit that `adaptive` may find.
    pub from: At<u32>,
    /// Highest limit that `adaptive` may find, at least `from`.
    pub to: At<u32>,
    /// Calls that may wait for a slot; as many as `limit` unless it is written. With `adaptive` that is the limit found,
    /// whatever it is at the time.
    pub queue: At<u32>,
    /// How long a call may wait for a slot.
    pub wait: At<Duration>,
    /// Largest share of the slots that one tenant may hold, rounded down, but at least one slot; above 0. With fewer
    /// than five slots it is 1 unless it is written. It keeps room for others even while they do not call.
    pub tenant_share: At<Ratio>,
    /// Slots for streams and WebSockets, beside those for calls; half of `limit`, or of `to`, rounded up, unless it is
    /// written. The number is never adapted, because the latency of a stream says nothing.
    pub streams: At<u32>,
}

/// Number of calls at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotLimit {
    Fixed(u32),
    Adaptive,
}

words! {
    /// Treatment of the interim answers (1xx) of a backend.
    pub enum Informational {
        /// They are passed on to the caller.
        Forward = "forward",
        /// They are dropped.
        Drop = "drop",
    }
}

/// Connections that each worker keeps to each endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Connections {
    /// Connections at once. Left out: the `limit` of the bulkhead, or its `to` if that is `adaptive`.
    pub limit: Option<At<u32>>,
    /// How long a connection may be idle.
    pub idle: At<Duration>,
    /// How long a connection may live, so that a moved endpoint is noticed.
    pub age: At<Duration>,
    /// Most fields in the head of an answer. An answer with more is `backend_invalid`.
    pub answer_fields: At<u32>,
    /// What becomes of interim answers (1xx) such as `103 Early Hints`. Callers of HTTP/1.1 and HTTP/2 get
    /// them, but never `100` or `101`.
    pub informational: At<Informational>,
    /// HTTP/2 alone: exchanges at once on one connection, if the backend allows as many.
    pub streams: At<u32>,
    /// HTTP/2 alone: a connection in use that is silent for this long is sent a PING.
    pub ping: At<Duration>,
}

impl Read for Backend {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ endpoints: [{ url: $ }] }", r#"{ endpoints: [{ url: "http://%" }] }"#],
        sample: r#"{ endpoints: [{ url: "http://10.0.0.5:8080" }] }"#,
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let endpoints = endpoints(f);
            let protocol = f.or("protocol", Protocol::Http1);
            let time_limit = f.within("time_limit", Duration::from_secs(10), MS..=24 * HOUR);
            let attempt_limit = f.within("attempt_limit", *time_limit, MS..=24 * HOUR);
            let bulkhead = f.section("bulkhead");
            let breaker = f.section_or_off("breaker");
            let ejection = f.section_or_off("ejection");
            let balance = f.section("balance");
            let retry = f.section("retry");
            let health: Option<Health> = f.optional("health");
            let when_none_is_up = f.or("when_none_is_up", WhenNoneIsUp::TryAll);
            if let (Protocol::Http1, Some(grpc)) = (*protocol, health.as_ref().and_then(|health| health.grpc.as_ref()))
            {
                f.push(
                    Mistake::new(
                        Code::Conflict,
                        grpc.span(),
                        format!("`{}.health.grpc` needs HTTP/2", f.path),
                    )
                    .related(protocol.span(), "is spoken with the endpoints")
                    .hint("write `protocol: h2`, or `h2c` for plain text"),
                );
            }
            let preserve_host = f.or("preserve_host", false);
            let connections = f.section("connections");
            check_protocol(f, &protocol, endpoints.as_ref(), connections.as_ref());
            let tls_at = f.value("tls").map(|value| value.key);
            let tls = f.section("tls");
            let is_plain = |all: &&Endpoints| all.is_secure() == Some(false);
            if let (Some(at), Some(plain)) = (tls_at, endpoints.as_ref().filter(is_plain)) {
                let message = format!("`{}.tls` is of no use", f.path);
                let hint = match plain {
                    Endpoints::Listed(_) => "write `https://` in its URL, or take the section out",
                    Endpoints::Found(_) => "write `scheme: https` there, or take the section out",
                };
                f.push(
                    Mistake::new(Code::Conflict, at, message)
                        .related(plain.span(), "is spoken to in plain HTTP")
                        .hint(hint),
                );
            }
            Some(Self {
                endpoints: endpoints?,
                protocol,
                time_limit,
                attempt_limit,
                bulkhead: bulkhead?,
                breaker,
                ejection,
                balance: balance?,
                retry: retry?,
                health,
                when_none_is_up,
                preserve_host,
                connections: connections?,
                tls: tls?,
            })
        })?
    }
}

/// All endpoints are spoken to in the one protocol, which decides whether in TLS.
fn check_protocol(
    f: &Fields<'_>,
    protocol: &At<Protocol>,
    endpoints: Option<&Endpoints>,
    connections: Option<&Connections>,
) {
    let wanted = match **protocol {
        Protocol::H2 => Some(true),
        Protocol::H2c => Some(false),
        Protocol::Http1 => None,
    };
    let scheme = |is_secure| if is_secure { "https" } else { "http" };
    if let (Some(wanted), Some(Endpoints::Found(source))) = (wanted, endpoints)
        && source.is_secure().is_some_and(|is_secure| is_secure != wanted)
    {
        let (word, instead) = (protocol.as_str(), if wanted { "h2c" } else { "h2" });
        let at = source.scheme.span().unwrap_or(source.at);
        let message = format!("`{}.endpoints` cannot be reached by `{word}`", f.path);
        let needed = if wanted { Scheme::Https } else { Scheme::Http };
        f.push(
            Mistake::new(Code::Conflict, at, message)
                .related(protocol.span(), format!("needs `scheme: {}`", needed.as_str()))
                .hint(format!("for `{}` write `protocol: {instead}`", scheme(!wanted))),
        );
    }
    let listed = endpoints.map(Endpoints::listed).unwrap_or_default();
    let other = wanted.and_then(|wanted| {
        let other = listed.iter().find(|endpoint| endpoint.url.is_secure != wanted)?;
        Some((wanted, other))
    });
    if let Some((wanted, other)) = other {
        let (word, instead) = (protocol.as_str(), if wanted { "h2c" } else { "h2" });
        let message = format!("`{}` cannot be reached by `{word}`", other.url.value);
        f.push(
            Mistake::new(Code::Conflict, other.url.span(), message)
                .related(
                    protocol.span(),
                    format!("needs URLs that begin with `{}://`", scheme(wanted)),
                )
                .hint(format!("for `{}://` write `protocol: {instead}`", scheme(!wanted))),
        );
    }
    let of_http2 = connections.filter(|_| wanted.is_none()).map(|connections| {
        let keys = [
            ("streams", connections.streams.span()),
            ("ping", connections.ping.span()),
        ];
        let written = |(_, at): &(_, Option<_>)| at.is_some();
        keys.into_iter().filter(written)
    });
    for (key, at) in of_http2.into_iter().flatten() {
        let message = format!("`{}.connections.{key}` is of no use", f.path);
        f.push(
            Mistake::new(Code::Conflict, at, message)
                .hint("it is about HTTP/2: write `protocol: h2` or `h2c`, or take it out"),
        );
    }
}

impl Read for Bulkhead {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ limit: $ }", "{ wait: $ }"],
        sample: "{ limit: 100 }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let limit = f.or("limit", SlotLimit::Fixed(100));
            let number = match *limit {
                SlotLimit::Fixed(number) => limit.as_ref().map(|_| number),
                SlotLimit::Adaptive => At::unwritten(100),
            };
            f.held_to("limit", number, SLOTS);
            let mut bulkhead = Self {
                limit,
                from: f.within("from", 4, SLOTS),
                to: f.within("to", 200, SLOTS),
                queue: At::unwritten(0),
                wait: f.within("wait", Duration::from_secs(1), Duration::ZERO..=HOUR),
                tenant_share: At::unwritten(ratio(1.0)),
                streams: At::unwritten(1),
            };
            bulkhead.check(f);
            let most = bulkhead.most();
            bulkhead.queue = f.within("queue", most, 0..=100_000);
            let usual = f64::from(usual_tenant_share(most).millionths()) / 1e6;
            bulkhead.tenant_share = f.or("tenant_share", ratio(usual));
            ratio_above_zero(f, "tenant_share", &bulkhead.tenant_share);
            bulkhead.streams = f.within("streams", most.div_ceil(2), 1..=1_000_000);
            bulkhead
        })
    }
}

impl Bulkhead {
    /// Returns the highest number of slots that there can be.
    pub fn most(&self) -> u32 {
        match *self.limit {
            SlotLimit::Fixed(number) => number,
            SlotLimit::Adaptive => *self.to,
        }
    }

    fn check(&self, f: &Fields<'_>) {
        if let SlotLimit::Fixed(_) = *self.limit {
            let bounds = [("from", self.from.span()), ("to", self.to.span())];
            for (key, at) in bounds.into_iter().filter(|(_, at)| at.is_some()) {
                let message = format!("`{}.{key}` is of no use", f.path);
                f.push(
                    Mistake::new(Code::Conflict, at, message)
                        .related(self.limit.span(), "is the number of slots")
                        .hint("write `limit: adaptive`, or take it out"),
                );
            }
        } else if *self.from > *self.to {
            let message = format!("`{}.from` is above `to`", f.path);
            // A limit that is out of range itself is reported already.
            if !SLOTS.contains(&*self.from) || !SLOTS.contains(&*self.to) {
                return;
            }
            let (at, other, hint) = match (self.from.span(), self.to.span()) {
                (Some(from), Some(to)) => (
                    Some(from),
                    Some(to),
                    format!("write `from: {}, to: {}`", *self.to, *self.from),
                ),
                (Some(from), None) => (
                    Some(from),
                    None,
                    format!("`to` is {} unless it is written: raise it too", *self.to),
                ),
                (None, to) => (
                    to,
                    None,
                    format!("`from` is {} unless it is written: lower it too", *self.from),
                ),
            };
            f.push(
                Mistake::new(Code::OutOfRange, at, message)
                    .related(other, "is the highest limit")
                    .hint(hint),
            );
        }
    }
}

const SLOTS: RangeInclusive<u32> = 1..=100_000;

impl Scalar for SlotLimit {
    const EXPECTED: &'static str = "a whole number, or `adaptive`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text == "adaptive" {
            return Ok(Self::Adaptive);
        }
        if text.bytes().next().is_some_and(|first| first.is_ascii_alphabetic()) {
            return Err(unknown_word(text, &["adaptive"]));
        }
        u32::parse(text).map(Self::Fixed)
    }

    fn show(&self) -> String {
        match self {
            Self::Fixed(number) => number.to_string(),
            Self::Adaptive => "adaptive".to_owned(),
        }
    }
}

impl Read for Connections {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ limit: $ }", "{ idle: $ }"],
        sample: "{ limit: 100 }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let limit = f.optional("limit").map(|limit| f.held_to("limit", limit, 1..=100_000));
            Self {
                limit,
                idle: f.within("idle", Duration::from_secs(30), MS..=HOUR),
                age: f.within("age", Duration::from_secs(600), Duration::from_secs(1)..=24 * HOUR),
                answer_fields: f.within("answer_fields", 100, 10..=1000),
                informational: f.or("informational", Informational::Forward),
                streams: f.within("streams", 100, 1..=10_000),
                ping: f.within("ping", Duration::from_secs(30), 100 * MS..=HOUR),
            }
        })
    }
}

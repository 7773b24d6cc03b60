//! The outer edge: where requests come in, how long and how large they may be, where it is written down.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::tls::Tls;
use crate::config::addresses::AdminAddress;
use crate::config::asked::Shape;
use crate::config::fields::Fields;
use crate::config::mistake::{Code, Mistake};
use crate::config::reader::Read;
use crate::config::scalar::{Scalar, Wrong, words};
use crate::config::single::Single;
use crate::config::span::At;
use crate::config::units::ByteSize;
use crate::config::value::Value;

/// How many threads serve requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// One per core this process may use.
    Auto,
    Count(NonZeroU32),
}

/// One address that callers connect to.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Address and port to listen on.
    pub address: At<SocketAddr>,
    /// Certificates. Left out, the listener speaks plain HTTP.
    pub tls: Option<Tls>,
    /// HTTP versions that callers may speak. `h2` is agreed on in the TLS handshake (ALPN), or used with prior
    /// knowledge in plain text.
    pub protocols: Vec<At<HttpVersion>>,
    /// `required`: every connection begins with a PROXY protocol header, and only `trusted_proxies` may connect.
    pub proxy_protocol: At<ProxyProtocol>,
}

/// How the address of a caller is found.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientAddress {
    /// Networks of proxies whose `X-Forwarded-For` and `Forwarded` are believed. Left out, none are.
    pub trusted_proxies: Vec<At<IpNet>>,
    /// Leading bits of an IPv6 address that count as one caller.
    pub ipv6_prefix: At<u8>,
}

/// The admin API, metrics and dashboard. Keep it away from callers.
#[derive(Debug, Clone, PartialEq)]
pub struct Admin {
    /// Address and port to listen on.
    pub address: At<SocketAddr>,
    /// File with the token that changes need. Left out, nothing can be changed.
    pub token_file: Option<At<PathBuf>>,
    /// File with the token that reading needs; `/livez` and `/readyz` need none. Left out, everybody who can connect
    /// can read.
    pub read_token_file: Option<At<PathBuf>>,
    /// File with several tokens, each with its roles: `read`, `keys`, `all`. It is read again when it changes. Reading
    /// then needs a token too.
    pub tokens_file: Option<At<PathBuf>>,
    /// A second address that serves `/livez` and `/readyz` alone, for probes of an orchestrator.
    pub health_address: Option<At<SocketAddr>>,
}

/// Time limits that hold for every request. A route or backend can only set shorter ones.
#[derive(Debug, Clone, PartialEq)]
pub struct TimeLimits {
    /// From the head of a request to the last byte of its answer.
    pub request: At<Duration>,
    /// Kept back from `request` once, so that there is time left to answer.
    pub reserve: At<Duration>,
    /// For opening a connection to a backend.
    pub connect: At<Duration>,
    /// For a caller to read more of its answer. A caller that reads 3 KB a second opens its window once in 40 s.
    pub write: At<Duration>,
    /// For a new connection to send its first byte; as long as `head` unless it is written.
    pub first_byte: At<Duration>,
    /// For the head of a request to arrive, from its first byte on.
    pub head: At<Duration>,
    /// How long a connection may be idle between two requests.
    pub keep_alive: At<Duration>,
    /// How long a stream or WebSocket may be silent. A whole frame that is no ping, or a byte of the backend, ends the
    /// silence.
    pub idle_stream: At<Duration>,
    /// Longest life of a stream or WebSocket. A WebSocket is then closed with status 1001.
    pub stream_limit: Option<At<Duration>>,
    /// A call is not begun if less than this would be left for it.
    pub minimum: At<Duration>,
    /// After `SIGTERM`, from failing readiness to closing the listeners.
    pub drain_notice: At<Duration>,
    /// After that, how long requests in flight may take to finish.
    pub drain: At<Duration>,
}

/// How large a request may be. Beyond a limit the answer is 413, 414 or 431.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestLimits {
    /// All header fields together.
    pub head: At<ByteSize>,
    /// Number of header fields.
    pub headers: At<u32>,
    /// Length of the request target.
    pub uri: At<ByteSize>,
    /// Length of a body, unless the route has a `body_limit`.
    pub body: At<ByteSize>,
    /// Length of a body that the route reads values from, unless the route has a `body_limit`.
    pub json_body: At<ByteSize>,
    /// All JSON that is held at once for requests: their bodies and the answers of parts, each byte counted twice.
    /// Beyond it the answer is 503. Requests of the cheapest tier may fill three quarters of it, those of the dearest all.
    pub json_total: At<ByteSize>,
    /// All that callers have sent over HTTP/2 and that nobody has read yet. One connection has an eighth of what is left.
    pub parked_total: At<ByteSize>,
    /// All bodies that are held at once to be mirrored. Beyond it, requests with a body are not mirrored.
    pub mirrored_total: At<ByteSize>,
}

/// Where a line for each request is written.
#[derive(Debug, Clone, PartialEq)]
pub enum AccessLog {
    Off,
    Stdout,
    /// File to append to. It is opened again by `SIGHUP`, for log rotation.
    File(At<PathBuf>),
}

words! {
    /// Whether connections begin by saying for whom they were opened, which the client address then is. `required`
    /// admits trusted proxies alone.
    pub enum ProxyProtocol { Off = "off", Required = "required" }
}

words! {
    /// Version 2 is agreed on in the TLS handshake (ALPN), or in plain text known beforehand.
    pub enum HttpVersion { Http1 = "http1", Http2 = "h2" }
}

words! {
    enum LogWord { Off = "off", Stdout = "stdout" }
}

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

impl Scalar for Workers {
    const EXPECTED: &'static str = "`auto` or a number of threads from 1 to 1024";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let count = NonZeroU32::parse(text)?;
        if count.get() > 1024 {
            return Err(Wrong::new(Code::OutOfRange, "is too large"));
        }
        Ok(Self::Count(count))
    }

    fn show(&self) -> String {
        match self {
            Self::Auto => "auto".to_owned(),
            Self::Count(count) => count.to_string(),
        }
    }
}

impl Read for Listener {
    const SINGLE: Option<Single> = Some(Single {
        maps: &[
            "{ address: $ }",
            r#"{ address: "0.0.0.0:%" }"#,
            r#"{ address: "0.0.0.0%" }"#,
        ],
        sample: r#"{ address: "0.0.0.0:8080" }"#,
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let (address, tls) = (f.required("address"), f.optional("tls"));
            let proxy_protocol = f.or("proxy_protocol", ProxyProtocol::Off);
            let protocols = f.list_or("protocols", &[HttpVersion::Http1, HttpVersion::Http2]);
            Some(Self {
                address: address?,
                tls,
                protocols,
                proxy_protocol,
            })
        })?
    }
}

impl Read for ClientAddress {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ trusted_proxies: [$] }"],
        sample: "{ trusted_proxies: [10.0.0.0/8] }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| Self {
            trusted_proxies: f.list("trusted_proxies"),
            ipv6_prefix: f.within("ipv6_prefix", 64, 1..=128),
        })
    }
}

impl Read for Admin {
    const SINGLE: Option<Single> = Some(Single {
        maps: &[
            "{ address: $ }",
            r#"{ address: "127.0.0.1:%" }"#,
            r#"{ address: "127.0.0.1%" }"#,
            "{ token_file: $ }",
        ],
        sample: r#"{ address: "127.0.0.1:9900" }"#,
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| Self {
            address: f
                .or(
                    "address",
                    AdminAddress(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9900)),
                )
                .map(|address| address.0),
            token_file: f.path("token_file"),
            read_token_file: f.path("read_token_file"),
            tokens_file: f.path("tokens_file"),
            health_address: f.optional("health_address"),
        })
    }
}

impl Read for TimeLimits {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ request: $ }"],
        sample: "{ request: 30s }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        const MS: Duration = Duration::from_millis(1);
        let seconds = Duration::from_secs;
        value.fields(|f| {
            let head = f.within("head", seconds(10), MS..=HOUR);
            Self {
                request: f.within("request", seconds(30), MS..=DAY),
                reserve: f.within("reserve", seconds(2), Duration::ZERO..=HOUR),
                connect: f.within("connect", seconds(5), MS..=HOUR),
                // Not the article's 10 s: who reads 3 KB a second says so once in 40 s, when its window opens.
                write: f.within("write", seconds(60), MS..=HOUR),
                first_byte: f.within("first_byte", *head, MS..=HOUR),
                head,
                keep_alive: f.within("keep_alive", seconds(75), MS..=DAY),
                idle_stream: f.within("idle_stream", seconds(60), MS..=DAY),
                stream_limit: stream_limit(f),
                minimum: f.within("minimum", 5 * MS, Duration::ZERO..=seconds(10)),
                drain_notice: f.within("drain_notice", Duration::ZERO, Duration::ZERO..=HOUR),
                drain: f.within("drain", seconds(10), Duration::ZERO..=DAY),
            }
        })
    }
}

/// `None` for `off`.
fn stream_limit(f: &mut Fields<'_>) -> Option<At<Duration>> {
    let is_off = f
        .value_of("stream_limit", Shape::Value("a duration such as `1h`, or `off`"))
        .is_some_and(|written| written.is_word("off"));
    (!is_off).then(|| f.within("stream_limit", HOUR, Duration::from_millis(1)..=DAY))
}

impl Read for RequestLimits {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ body: $ }"],
        sample: "{ body: 10MiB }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        const KIB: u64 = 1024;
        value.fields(|f| Self {
            head: f.within("head", ByteSize(64 * KIB), ByteSize(KIB)..=ByteSize(KIB * KIB)),
            headers: f.within("headers", 100, 10..=1000),
            uri: f.within("uri", ByteSize(8 * KIB), ByteSize(256)..=ByteSize(64 * KIB)),
            body: f.or("body", ByteSize(10 * KIB * KIB)),
            json_body: f.within(
                "json_body",
                ByteSize(256 * KIB),
                ByteSize(KIB)..=ByteSize(64 * KIB * KIB),
            ),
            json_total: f.within(
                "json_total",
                ByteSize(64 * KIB * KIB),
                ByteSize(KIB * KIB)..=ByteSize(64 * KIB * KIB * KIB),
            ),
            parked_total: f.within(
                "parked_total",
                ByteSize(128 * KIB * KIB),
                ByteSize(KIB * KIB)..=ByteSize(64 * KIB * KIB * KIB),
            ),
            mirrored_total: f.within(
                "mirrored_total",
                ByteSize(16 * KIB * KIB),
                ByteSize(KIB * KIB)..=ByteSize(64 * KIB * KIB * KIB),
            ),
        })
    }
}

impl Read for AccessLog {
    const SHAPE: Shape = Shape::Value("`stdout`, `off`, or a map with `file`");

    fn read(value: &Value<'_>) -> Option<Self> {
        if value.is_map() {
            return value.fields(|f| f.required_other_path("file").map(Self::File))?;
        }
        if let Some(path) = value.text().filter(|text| text.contains(['/', '.'])) {
            let message = format!("`{}` must be {}", value.path, LogWord::EXPECTED);
            let hint = format!("did you mean `{{ file: {} }}`?", crate::config::single::quoted(path));
            value.push(Mistake::new(Code::BadValue, value.node.span, message).hint(hint));
            return None;
        }
        value.scalar::<LogWord>().map(|word| match word.value {
            LogWord::Off => Self::Off,
            LogWord::Stdout => Self::Stdout,
        })
    }
}

//! How the endpoints of a backend are probed, and what happens while none of them is up.

use std::time::Duration;

use http::uri::PathAndQuery;

use super::ranges::{HOUR, MS};
use crate::config::mistake::{Code, Mistake};
use crate::config::reader::Read;
use crate::config::scalar::{Scalar, Wrong, words};
use crate::config::single::Single;
use crate::config::span::At;
use crate::config::value::Value;

/// Probes of each endpoint of a backend. Exactly one of `path`, `tcp` and `grpc` says what a probe asks.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    /// A probe is a GET of this path, sent as other requests are: same protocol, TLS and `Host`.
    pub path: Option<At<ProbePath>>,
    /// A probe is a connection, with its TLS handshake if the URL says `https`.
    pub tcp: Option<At<bool>>,
    /// A probe asks `grpc.health.v1.Health` for this service; an empty text asks for the server as a whole.
    pub grpc: Option<At<String>>,
    /// Statuses that make a probe of a `path` succeed.
    pub expect: Vec<At<StatusRange>>,
    /// Time from one probe of an endpoint to the next, 10 % more or less. It is one second at most while the next
    /// result may change whether the endpoint is up. Left out, it is longer where all endpoints together would be probed
    /// more than 100 times a second.
    pub every: At<Duration>,
    /// For one probe, with connecting.
    pub time_limit: At<Duration>,
    /// Failed probes in a row after which an endpoint is down.
    pub fall: At<u32>,
    /// Successful probes in a row after which it is up again.
    pub rise: At<u32>,
}

words! {
    /// Whether calls go to endpoints that are down or ejected while no other is there.
    pub enum WhenNoneIsUp {
        /// They are tried.
        TryAll = "try_all",
        /// The calls are refused.
        Refuse = "refuse",
    }
}

/// Path with a query if need be, as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbePath(pub PathAndQuery);

/// Statuses from the first to the last, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusRange {
    pub first: u16,
    pub last: u16,
}

impl Health {
    const SUCCESS: StatusRange = StatusRange { first: 200, last: 299 };
}

impl Read for Health {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ path: $ }"],
        sample: "{ path: /ready }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let asked = f.exactly_one(&["path", "tcp", "grpc"]);
            let health = Self {
                path: f.optional("path"),
                tcp: f.optional("tcp"),
                grpc: f.optional("grpc"),
                expect: f.list_or("expect", &[Self::SUCCESS]),
                every: f.within("every", Duration::from_secs(5), 100 * MS..=HOUR),
                time_limit: f.within("time_limit", Duration::from_secs(1), MS..=Duration::from_secs(60)),
                fall: f.within("fall", 3, 1..=100),
                rise: f.within("rise", 2, 1..=100),
            };
            let expected = health.expect.first().and_then(At::span);
            if let (Some(span), Some(other @ ("tcp" | "grpc"))) = (expected, asked) {
                f.push(
                    Mistake::new(Code::Conflict, span, format!("`{}.expect` does nothing", f.path))
                        .label(format!("a probe with `{other}` has no status"))
                        .hint("take it out, or probe a `path`"),
                );
            }
            if let Some(off) = health.tcp.as_ref().filter(|tcp| !***tcp) {
                f.push(
                    Mistake::new(
                        Code::BadValue,
                        off.span(),
                        format!("`{}.tcp` can only be `true`", f.path),
                    )
                    .hint("to probe nothing, take `health` out"),
                );
            }
            health
        })
    }
}

impl Scalar for ProbePath {
    const EXPECTED: &'static str = "a path such as `/ready`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if !text.starts_with('/') {
            return Err(Wrong::new(Code::BadValue, "does not begin with `/`").hint("host and port are the endpoint's"));
        }
        match text.parse::<PathAndQuery>() {
            Ok(path) if path.as_str() == text => Ok(Self(path)),
            _ => Err(Wrong::new(Code::BadValue, "cannot be sent as a path")),
        }
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

impl Scalar for StatusRange {
    const EXPECTED: &'static str = "a status such as `200`, or a range such as `200-299`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let number = |text: &str| -> Result<u16, Wrong> {
            let number = text.trim().parse();
            number.map_err(|_| Wrong::new(Code::WrongType, "is not a status"))
        };
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(text)?, number(text)?),
        };
        if !(100..=599).contains(&first) || !(100..=599).contains(&last) {
            return Err(Wrong::new(Code::OutOfRange, "a status is between 100 and 599"));
        }
        if first > last {
            return Err(
                Wrong::new(Code::BadValue, "ends before it begins").hint(format!("did you mean `{last}-{first}`?"))
            );
        }
        Ok(Self { first, last })
    }

    fn show(&self) -> String {
        if self.first == self.last {
            self.first.to_string()
        } else {
            format!("{}-{}", self.first, self.last)
        }
    }
}

//! What one caller's connections may hold: how many there may be, how long each may go on, how slow it may be.

use std::time::Duration;

use crate::config::asked::Shape;
use crate::config::fields::Fields;
use crate::config::hint;
use crate::config::mistake::{Code, Mistake};
use crate::config::reader::Read;
use crate::config::single::Single;
use crate::config::span::At;
use crate::config::units::{ByteSize, Ratio};
use crate::config::value::Value;

/// Connections from callers. One beyond a limit is closed as soon as it is accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct ConnectionLimits {
    /// Connections at once, over all listeners.
    pub total: At<u32>,
    /// Connections at once from one client address (IPv6: one network).
    pub per_address: Option<At<u32>>,
    /// Requests on one connection, after which it is closed.
    pub requests: Option<At<u32>>,
    /// Requests at once on one HTTP/2 connection.
    pub streams: At<u32>,
    /// TLS handshakes at once from one client address (IPv6: one network). One beyond them waits.
    pub handshakes_per_address: At<u32>,
    /// Part of each worker's time that TLS handshakes may take. One beyond it waits.
    pub handshake_share: At<Ratio>,
}

/// How slowly a caller may send and read. After `grace`, each second in which the gateway waits for the caller must be
/// paid for with this many bytes. Time in which the gateway or a backend is the slow one does not count.
#[derive(Debug, Clone, PartialEq)]
pub struct MinimumRates {
    /// Waiting that is free, per request and direction.
    pub grace: At<Duration>,
    /// Bytes a second of a request's body.
    pub body: At<ByteSize>,
    /// Bytes a second that the caller reads of its answer.
    pub answer: At<ByteSize>,
}

impl Read for ConnectionLimits {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ total: $ }"],
        sample: "{ total: 10000 }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        let ratio = |share| Ratio::new(share).expect("between 0 and 1");
        value.fields(|f| Self {
            total: f.within("total", 10_000, 1..=1_000_000),
            per_address: number_or_off(f, "per_address", 1_000_000),
            requests: number_or_off(f, "requests", 1_000_000_000),
            streams: f.within("streams", 100, 1..=10_000),
            handshakes_per_address: f.within("handshakes_per_address", 100, 1..=100_000),
            handshake_share: f.within("handshake_share", ratio(0.5), ratio(0.01)..=ratio(1.0)),
        })
    }
}

impl Read for MinimumRates {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ body: $, answer: $ }"],
        sample: "{ body: 256B, answer: 256B }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        let rates = ByteSize(1)..=ByteSize(1024 * 1024);
        value.fields(|f| Self {
            grace: f.within(
                "grace",
                Duration::from_secs(20),
                Duration::ZERO..=Duration::from_secs(3600),
            ),
            body: f.within("body", ByteSize(256), rates.clone()),
            answer: f.within("answer", ByteSize(256), rates),
        })
    }
}

/// `None` for `off`, or if it is not written.
fn number_or_off(f: &mut Fields<'_>, name: &'static str, most: u32) -> Option<At<u32>> {
    let written = f.value_of(name, Shape::Value("a whole number of at least 1, or `off`"))?;
    if written.is_off() {
        return None;
    }
    let hint = match written.text() {
        Some(text) if hint::is_no(text) || text == "0" => Some("did you mean `off`?"),
        Some(text) if hint::is_yes(text) => Some("write how many"),
        _ => None,
    };
    if let Some(hint) = hint {
        let message = format!("`{}` must be a whole number of at least 1, or `off`", written.path);
        f.push(Mistake::new(Code::WrongType, written.node.span, message).hint(hint));
        return None;
    }
    let number = f.optional(name)?;
    Some(f.held_to(name, number, 1..=most))
}

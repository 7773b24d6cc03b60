//! When a second attempt is made because the first one is slow.

use std::time::Duration;

use http::Method;

use super::ranges::{HOUR, MS};
use crate::config::fields::Fields;
use crate::config::mistake::{Code, Mistake};
use crate::config::reader::Read;
use crate::config::scalar::{Scalar, Wrong, unknown_word};
use crate::config::single::Single;
use crate::config::span::At;
use crate::config::value::Value;

/// A second attempt at another endpoint while the first one is under way. The first good answer is used. Each is paid
/// from the retry budget of the backend.
#[derive(Debug, Clone, PartialEq)]
pub struct Hedge {
    /// Time after which the first attempt is slow. `p95`: the time that 95 of 100 attempts took, in the last one to two
    /// minutes; nothing is hedged until there were 100.
    pub after: At<HedgeAfter>,
    /// Shortest time for `p95`.
    pub at_least: At<Duration>,
    /// Longest time for `p95`.
    pub at_most: At<Duration>,
}

/// Time after which a first attempt is slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HedgeAfter {
    P95,
    Time(Duration),
}

impl Read for Hedge {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ after: $ }"],
        sample: "{ after: 50ms }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let hedge = Self {
                after: f.or("after", HedgeAfter::P95),
                at_least: f.within("at_least", 5 * MS, MS..=HOUR),
                at_most: f.within("at_most", Duration::from_secs(10), MS..=HOUR),
            };
            if *hedge.at_least > *hedge.at_most {
                let written = if hedge.at_most.is_written() {
                    &hedge.at_most
                } else {
                    &hedge.at_least
                };
                let message = format!("`{}.at_least` is above `at_most`", f.path);
                let hint = format!(
                    "`at_most` is {}, and `at_least` {}",
                    hedge.at_most.show(),
                    hedge.at_least.show()
                );
                f.push(Mistake::new(Code::OutOfRange, written.span(), message).hint(hint));
            }
            if let (HedgeAfter::Time(_), Some(at)) = (*hedge.after, hedge.at_least.span().or(hedge.at_most.span())) {
                let message = format!("`{}` has bounds for `p95`, and a fixed time", f.path);
                let mistake = Mistake::new(Code::Conflict, Some(at), message);
                f.push(
                    mistake
                        .related(hedge.after.span(), "is the time")
                        .hint("take one of them out"),
                );
            }
            hedge
        })
    }
}

impl Scalar for HedgeAfter {
    const EXPECTED: &'static str = "`p95`, or a duration such as `50ms`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text == "p95" {
            return Ok(Self::P95);
        }
        if text.bytes().next().is_some_and(|first| first.is_ascii_alphabetic()) {
            return Err(unknown_word(text, &["p95"]));
        }
        match Duration::parse(text)? {
            Duration::ZERO => Err(Wrong::new(Code::OutOfRange, "would double every call")),
            time => Ok(Self::Time(time)),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::P95 => "p95".to_owned(),
            Self::Time(time) => time.show(),
        }
    }
}

/// Reports a hedge of requests that change something.
pub(super) fn check_hedge(f: &mut Fields<'_>, method: &At<Method>) {
    if matches!(**method, Method::GET | Method::HEAD) {
        return;
    }
    let Some(Value { key, .. }) = f.value("hedge") else {
        return;
    };
    let message = format!("`{}.hedge` does not go with {}", f.path, **method);
    f.push(
        Mistake::new(Code::Conflict, key, message)
            .label("would do twice what changes something")
            .related(method.span(), "the method of the part")
            .hint("only GET and HEAD are hedged: take it out"),
    );
}

//! When a failed attempt is made again, how long it waits, and what all retries together may be.

use std::time::Duration;

use http::Method;

use super::ranges::{MS, ratio};
use crate::config::hint;
use crate::config::mistake::{Code, Mistake};
use crate::config::reader::Read;
use crate::config::scalar::{Scalar, Wrong, words};
use crate::config::single::Single;
use crate::config::span::At;
use crate::config::units::{Backoff, ByteSize, Rate, Ratio};
use crate::config::value::Value;

/// When a failed attempt is made again, and how many retries there may be.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// Attempts in all; 1 is no retry.
    pub attempts: At<u32>,
    /// Wait before the second attempt, and longest wait. A call that waits holds its slot.
    pub backoff: At<Backoff>,
    /// Factor from one wait to the next.
    pub factor: At<f64>,
    /// How waits vary: a share, `full` (anything up to the wait) or `equal` (half, and anything up to the other half).
    pub jitter: At<Jitter>,
    /// Retries that each first attempt pays for.
    pub share: At<Ratio>,
    /// Retries that are free.
    pub floor: At<Rate>,
    /// What is retried. `unreached`: no connection was made. `broken`: the connection broke before an answer began.
    /// `timed_out`: the attempt's limit passed. Or a status.
    pub on: Vec<At<RetryOn>>,
    /// Methods that are retried.
    pub methods: Vec<At<Method>>,
    /// Whether other methods are retried too if the request has an `Idempotency-Key`.
    pub with_idempotency_key: At<bool>,
    /// A request with a longer body is not retried.
    pub body_limit: At<ByteSize>,
}

/// How a wait is spread, so that callers who failed together do not come back together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Jitter {
    /// Off by up to this share, either way.
    Share(Ratio),
    /// Anything from nothing to the whole wait.
    Full,
    /// Half of it, and anything from nothing to the other half.
    Equal,
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

words! {
    /// Defaults of the other keys. `article`: five attempts, and waits of up to 30s.
    enum Preset {
        /// Ours: 2 attempts, 100 ms, doubling up to 1 s, 10 % either way.
        Default = "default",
        /// The article's retry: 5 attempts, 100 ms, doubling up to 30 s, 10 % either way.
        Article = "article",
    }
}

impl Read for Retry {
    const OFF: bool = true;
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ attempts: $ }", "{ backoff: $ }", "{ preset: $ }", "{ on: [$] }"],
        sample: "{ attempts: 2 }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        if value.is_off() {
            let retry = value.default::<Self>()?;
            return Some(Self {
                attempts: At::written(1, value.node.span),
                ..retry
            });
        }
        value.switchable(hint::for_switch).fields(|f| {
            let preset: Option<At<Preset>> = f.optional("preset");
            let (attempts, cap) = match preset.as_deref() {
                Some(Preset::Article) => (5, Duration::from_secs(30)),
                Some(Preset::Default) | None => (2, Duration::from_secs(1)),
            };
            let retry = Self {
                attempts: f.within("attempts", attempts, 1..=10),
                backoff: f.or("backoff", Backoff { first: 100 * MS, cap }),
                factor: f.within("factor", 2.0, 1.0..=10.0),
                jitter: f.or("jitter", Jitter::Share(ratio(0.1))),
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

impl Scalar for Jitter {
    const EXPECTED: &'static str = "`full`, `equal` or a ratio from 0 to 1, such as `0.1`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        match text {
            "full" => Ok(Self::Full),
            "equal" => Ok(Self::Equal),
            word if word.starts_with(char::is_alphabetic) => {
                Err(crate::config::scalar::unknown_word(word, &["full", "equal"]))
            }
            share => Ratio::parse(share).map(Self::Share),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Share(share) => share.show(),
            Self::Full => "full".to_owned(),
            Self::Equal => "equal".to_owned(),
        }
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

//! Expectations of a policy test: what must hold for the requests of a step.

use std::time::Duration;

use crate::config::hint;
use crate::config::mistake::{Code, Mistake};
use crate::config::named::NamedMap;
use crate::config::reader::{Read, any_name, keyed, read_as};
use crate::config::scalar::{Scalar, Wrong};
use crate::config::span::{At, Span};
use crate::config::value::Value;
use crate::json::Document;
use crate::rejection::Reason;

/// Expectations. Beside the counts, each holds for every request of the step.
#[derive(Debug, Clone, PartialEq)]
pub struct Expect {
    /// Place of the expectations.
    pub place: Span,
    /// Number of requests that the gateway does not refuse, whatever the backend answers.
    pub allowed: Option<At<u64>>,
    /// Number of requests that are refused for a reason, under the word of the reason: `rate_limited: 5`.
    pub refused: Vec<(Reason, At<u64>)>,
    /// Status of the answers.
    pub status: Option<At<u16>>,
    /// Reason for which the requests are refused; `none` if they are not.
    pub reason: Option<At<ReasonWord>>,
    /// Path of the setting that refuses those of the requests that are refused, such as `routes.users.time_limit`.
    pub by: Option<At<String>>,
    /// Limit that refuses those of the requests that are refused.
    pub limit: Option<At<String>>,
    /// Route of the requests.
    pub route: Option<At<String>>,
    /// Tenant of the caller.
    pub tenant: Option<At<String>>,
    /// Tier of the caller.
    pub tier: Option<At<String>>,
    /// Backend that each request is sent to, and no other; `nothing` if it is sent to none. Or the number of attempts
    /// by backend or by URL of an endpoint, over all requests of the step.
    pub sent_to: Option<SentTo>,
    /// Number of requests, until the next step, that limits in shadow mode would have refused, by limit.
    pub shadowed: NamedMap<At<u64>>,
    /// Number of attempts of each request.
    pub attempts: Option<At<u64>>,
    /// Header fields of the answers; `absent` if there is no such field.
    pub headers: NamedMap<At<String>>,
    /// JSON body of the answers.
    pub body: Option<At<Document>>,
    /// Whether an aggregate has all of its parts.
    pub complete: Option<At<bool>>,
    /// Longest time to the last byte of an answer.
    pub within: Option<At<Duration>>,
    /// Time to the last byte of each answer, to the millisecond.
    pub took: Option<At<Duration>>,
}

/// Reason of a refusal; `none` for a request that is not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReasonWord(pub Option<Reason>);

/// Expected backends of the requests of a step.
#[derive(Debug, Clone, PartialEq)]
pub enum SentTo {
    /// A backend, or `nothing`.
    One(At<String>),
    /// Numbers of attempts by backend or by URL of an endpoint.
    Counts(NamedMap<At<u64>>),
}

impl Scalar for ReasonWord {
    const EXPECTED: &'static str = "the reason of a refusal such as `rate_limited`, or `none`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text == "none" {
            return Ok(Self(None));
        }
        let words = || Reason::ALL.into_iter().map(Reason::as_str);
        match Reason::ALL.into_iter().find(|reason| reason.as_str() == text) {
            Some(reason) => Ok(Self(Some(reason))),
            None => {
                let wrong = Wrong::new(Code::BadValue, "is not a reason of the gateway");
                Err(match hint::did_you_mean(text, words()) {
                    Some(hint) => wrong.hint(hint),
                    None => wrong,
                })
            }
        }
    }

    fn show(&self) -> String {
        self.0.map_or("none", Reason::as_str).to_owned()
    }
}

impl Read for SentTo {
    fn read(value: &Value<'_>) -> Option<Self> {
        if !value.is_map() {
            return Some(Self::One(value.scalar()?));
        }
        let mut counts = NamedMap::default();
        keyed(value, &mut counts, any_name, |_, count| read_as::<At<u64>>(count))?;
        Some(Self::Counts(counts))
    }
}

impl Read for Expect {
    fn read(value: &Value<'_>) -> Option<Self> {
        let place = value.key;
        value.fields(|f| {
            let refused = Reason::ALL
                .into_iter()
                .filter_map(|reason| Some((reason, f.optional(reason.as_str())?)));
            let refused: Vec<_> = refused.collect();
            let expect = Self {
                place,
                allowed: f.optional("allowed"),
                refused,
                status: f.optional("status"),
                reason: f.optional("reason"),
                by: f.optional("by"),
                limit: f.optional("limit"),
                route: f.optional("route"),
                tenant: f.optional("tenant"),
                tier: f.optional("tier"),
                sent_to: f.optional("sent_to"),
                shadowed: f.optional("shadowed").unwrap_or_default(),
                attempts: f.optional("attempts"),
                headers: f.optional("headers").unwrap_or_default(),
                body: f.optional("body"),
                complete: f.optional("complete"),
                within: f.optional("within"),
                took: f.optional("took"),
            };
            if value.entries("a map of keys").is_some_and(<[_]>::is_empty) {
                let message = format!("`{}` expects nothing", f.path);
                f.push(
                    Mistake::new(Code::MissingKey, f.at, message)
                        .hint("write what must hold, such as `allowed: 20` or `status: 200`"),
                );
            }
            Some(expect)
        })?
    }
}

//! Compares the answers of a step with what is expected of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;

use super::Failure;
use super::steps::Performed;
use crate::config::policy_tests::{Expect, ReasonWord, SentTo};
use crate::config::{Sources, Span, duration_text};
use crate::json;
use crate::rejection::Reason;
use crate::simulation::{Answered, Seen};

/// Times are exact to the granularity of timers.
const GRAIN: Duration = Duration::from_millis(1);

/// Most kinds of outcomes that a failure lists.
const SHOWN: usize = 8;

/// Returns the expectations that do not hold.
pub(super) fn judge(expect: &Expect, step: &Performed<'_>, sources: &Sources) -> Vec<Failure> {
    let answers = &step.answers[..];
    let mut judge = Judge {
        failures: Vec::new(),
        answers,
        sources,
        place: expect.place,
        outcomes: outcomes(answers),
    };
    judge.counts(expect);
    judge.each(expect);
    if let Some(SentTo::Counts(counts)) = &expect.sent_to {
        for (place, count) in counts.iter() {
            let sent = answers
                .iter()
                .map(|answered| sent_to(&answered.seen, place))
                .sum::<u64>();
            if sent != count.value {
                judge.fail(
                    count.span(),
                    format!("sent_to: expected {} attempts at {place}, got {sent}", count.value),
                );
            }
        }
    }
    for (limit, count) in expect.shadowed.iter() {
        let found = step.shadowed.get(&*limit.value).copied().unwrap_or_default();
        if found != count.value {
            let message = format!("shadowed: expected {} by {limit}, got {found}", count.value);
            judge.fail(count.span(), message);
        }
    }
    if answers.is_empty() {
        judge.fail(Some(step.step.place), "no request has ended".to_owned());
    }
    judge.failures
}

/// Function that returns a name of a request's record.
type NameOf = fn(&Seen) -> Option<&str>;

struct Judge<'a> {
    failures: Vec<Failure>,
    answers: &'a [Answered],
    sources: &'a Sources,
    place: Span,
    /// What has become of the requests, as text.
    outcomes: String,
}

impl Judge<'_> {
    fn fail(&mut self, at: Option<Span>, message: String) {
        let at = self.sources.locate(at.unwrap_or(self.place));
        let message = format!("{message}; {}", self.outcomes);
        self.failures.push(Failure { at, message });
    }

    fn counts(&mut self, expect: &Expect) {
        let count = |reason: Option<Reason>| {
            let matching = self.answers.iter().filter(|answered| answered.seen.reason == reason);
            matching.count() as u64
        };
        let wanted = expect.allowed.iter().map(|count| (None, count));
        let wanted = wanted.chain(expect.refused.iter().map(|(reason, count)| (Some(*reason), count)));
        let wrong: Vec<_> = wanted
            .filter_map(|(reason, wanted)| {
                let found = count(reason);
                let word = reason.map_or("allowed", Reason::as_str);
                let message = format!("{word}: expected {}, got {found}", wanted.value);
                (found != wanted.value).then(|| (wanted.span(), message))
            })
            .collect();
        for (at, message) in wrong {
            self.fail(at, message);
        }
    }

    /// Checks what holds for each request.
    fn each(&mut self, expect: &Expect) {
        if let Some(status) = &expect.status {
            let found = |answered: &Answered| {
                answered
                    .status
                    .map_or_else(|| "no answer".to_owned(), |status| status.as_u16().to_string())
            };
            self.all("status", status.span(), &status.value.to_string(), found);
        }
        if let Some(reason) = &expect.reason {
            let ReasonWord(wanted) = reason.value;
            let word = |reason: Option<Reason>| reason.map_or("none", Reason::as_str).to_owned();
            self.all("reason", reason.span(), &word(wanted), |answered| {
                word(answered.seen.reason)
            });
        }
        let names: [(&str, _, NameOf); 3] = [
            ("route", &expect.route, |seen| seen.route.as_deref()),
            ("tenant", &expect.tenant, |seen| seen.tenant.as_deref()),
            ("tier", &expect.tier, |seen| seen.tier.as_deref()),
        ];
        for (what, wanted, of) in names {
            if let Some(wanted) = wanted {
                self.all(what, wanted.span(), wanted, |answered| {
                    of(&answered.seen).unwrap_or("none").to_owned()
                });
            }
        }
        let of_refused: [(&str, _, NameOf); 2] = [
            ("limit", &expect.limit, |seen| seen.limit.as_deref()),
            ("by", &expect.by, |seen| Some(seen.decided.as_ref()?.setting.as_str())),
        ];
        for (what, wanted, of) in of_refused {
            let Some(wanted) = wanted else { continue };
            let refused = self.answers.iter().filter(|answered| answered.seen.reason.is_some());
            let found: Vec<_> = refused.map(|answered| of(&answered.seen).unwrap_or("none")).collect();
            let other = found.iter().find(|found| **found != wanted.value.as_str());
            if let Some(other) = other.or(found.is_empty().then_some(&"no refusal")) {
                self.fail(wanted.span(), format!("{what}: expected {wanted}, got {other}"));
            }
        }
        if let Some(SentTo::One(wanted)) = &expect.sent_to {
            self.all("sent_to", wanted.span(), wanted, |answered| {
                places(&answered.seen, wanted)
            });
        }
        if let Some(attempts) = &expect.attempts {
            self.all("attempts", attempts.span(), &attempts.value.to_string(), |answered| {
                made(&answered.seen).count().to_string()
            });
        }
        for (name, wanted) in expect.headers.iter() {
            let what = format!("headers.{name}");
            self.all(&what, wanted.span(), wanted, |answered| field(answered, name));
        }
        if let Some(body) = &expect.body {
            let parse = |bytes: &[u8]| json::typed::<Value>(bytes, usize::MAX).ok();
            let wanted = parse(body.bytes());
            let text = body.value().to_string();
            self.all("body", body.span(), &text, |answered| match parse(&answered.body) {
                found if found == wanted => text.clone(),
                Some(found) => found.to_string(),
                None => String::from_utf8_lossy(&answered.body).into_owned(),
            });
        }
        if let Some(complete) = &expect.complete {
            self.all("complete", complete.span(), &complete.value.to_string(), |answered| {
                answered
                    .seen
                    .complete
                    .map_or("no aggregate".to_owned(), |complete| complete.to_string())
            });
        }
        if let Some(within) = &expect.within {
            let limit = format!("at most {}", duration_text(within.value));
            self.all("within", within.span(), &limit, |answered| match answered.seen.took {
                took if took <= within.value => limit.clone(),
                took => time(took),
            });
        }
        if let Some(took) = &expect.took {
            let wanted = duration_text(took.value);
            self.all("took", took.span(), &wanted, |answered| {
                match answered.seen.took.abs_diff(took.value) {
                    off if off < GRAIN => wanted.clone(),
                    _ => time(answered.seen.took),
                }
            });
        }
    }

    /// Checks that every answer has the wanted text.
    fn all(&mut self, what: &str, at: Option<Span>, wanted: &str, found: impl Fn(&Answered) -> String) {
        let others = self.answers.iter().map(found).filter(|found| found != wanted);
        let others: Vec<_> = others.collect();
        let Some(first) = others.first() else { return };
        let message = match self.answers.len() {
            1 => format!("{what}: expected {wanted}, got {first}"),
            all => format!(
                "{what}: expected {wanted}, got {first} ({} of {all} differ)",
                others.len()
            ),
        };
        self.fail(at, message);
    }
}

/// Returns a time in milliseconds.
fn time(took: Duration) -> String {
    duration_text(Duration::from_millis(
        u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    ))
}

/// Returns the values of a header field, or `absent`.
fn field(answered: &Answered, name: &str) -> String {
    let values = answered.headers.get_all(name).iter();
    let values: Vec<_> = values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    match values.is_empty() {
        true => "absent".to_owned(),
        false => values.join(", "),
    }
}

/// Returns the attempts that were made.
fn made(seen: &Seen) -> impl Iterator<Item = &crate::simulation::SeenAttempt> {
    seen.attempts.iter().filter(|attempt| attempt.endpoint.is_some())
}

/// Returns the number of attempts at a backend, or at an endpoint by its URL.
fn sent_to(seen: &Seen, place: &str) -> u64 {
    let at = |attempt: &&crate::simulation::SeenAttempt| {
        *attempt.backend == *place
            || attempt
                .endpoint
                .as_ref()
                .is_some_and(|endpoint| is_endpoint(endpoint, place))
    };
    made(seen).filter(at).count() as u64
}

/// Whether an endpoint has this URL. The address of a name follows its URL.
fn is_endpoint(endpoint: &str, url: &str) -> bool {
    endpoint
        .strip_prefix(url)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(" ("))
}

/// Returns the backends that a request was sent to, or `wanted` if it was sent to this place alone.
fn places(seen: &Seen, wanted: &str) -> String {
    let mut backends: Vec<&str> = made(seen).map(|attempt| &*attempt.backend).collect();
    if !backends.is_empty() && sent_to(seen, wanted) == backends.len() as u64 {
        return wanted.to_owned();
    }
    backends.dedup();
    match backends.is_empty() {
        true => "nothing".to_owned(),
        false => backends.join(", "),
    }
}

/// Describes what has become of the requests: `20 allowed, 5 rate_limited by tiers.free (tiers.yaml:13)`.
fn outcomes(answers: &[Answered]) -> String {
    let mut kinds = BTreeMap::<String, usize>::new();
    for Answered { status, seen, .. } in answers {
        let kind = match (seen.reason, status) {
            (None, Some(status)) if status.is_success() => "allowed".to_owned(),
            (None, Some(status)) => format!("allowed with {}", status.as_u16()),
            (None, None) => "without an answer".to_owned(),
            (Some(reason), _) => match &seen.decided {
                Some(decided) => {
                    let place = decided.at.as_ref().map(|at| format!(" ({}:{})", at.file, at.line));
                    format!(
                        "{} by {}{}",
                        reason.as_str(),
                        decided.setting,
                        place.unwrap_or_default()
                    )
                }
                None => reason.as_str().to_owned(),
            },
        };
        *kinds.entry(kind).or_default() += 1;
    }
    let mut text = String::new();
    for (kind, count) in kinds.iter().take(SHOWN) {
        let _ = write!(text, "{}{count} {kind}", if text.is_empty() { "" } else { ", " });
    }
    if kinds.len() > SHOWN {
        text.push_str(", and others");
    }
    text
}

//! Compares the answer to a copy with the answer that the caller got.
//!
//! Neither answer is held: a body is hashed while it passes, and of the two only status and hash are kept until the other
//! one has ended. Whichever ends last is compared, so nothing waits for the other.
//!
//! Invariant: each copy that was answered is counted once, as `same`, `different` or `not_compared`; others are not.

use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};
use http::{HeaderValue, StatusCode};

use super::{Compare, MOST_READ, Mirror};
use crate::headers::X_REQUEST_ID;
use crate::message::FieldMap;
use crate::observe::{Family, MirrorComparison};

type Hash = [u8; 32];

/// One of the two answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Primary,
    Copy,
}

/// State of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// Not ended yet.
    Awaited,
    /// There was none.
    Missing,
    Ended {
        status: StatusCode,
        /// Hash of the body; `None` if it was not read whole.
        body: Option<Hash>,
    },
}

/// Comparison of two answers.
pub(super) struct Comparison {
    mirror: Arc<Mirror>,
    request_id: Option<HeaderValue>,
    /// Answers of the primary and of the copy.
    answers: Mutex<[Answer; 2]>,
}

/// Reports one of the two answers, at the latest when it is dropped.
pub(super) struct Reporter {
    comparison: Arc<Comparison>,
    side: Side,
    has_reported: bool,
}

impl Comparison {
    /// Returns the reporters of the primary and of the copy. `headers` are those of the request.
    pub(super) fn begin(mirror: Arc<Mirror>, headers: &FieldMap) -> (Reporter, Reporter) {
        let comparison = Arc::new(Self {
            mirror,
            request_id: headers.get(&X_REQUEST_ID).cloned(),
            answers: Mutex::new([Answer::Awaited; 2]),
        });
        let of = |side| Reporter {
            comparison: Arc::clone(&comparison),
            side,
            has_reported: false,
        };
        (of(Side::Primary), of(Side::Copy))
    }

    fn note(&self, side: Side, answer: Answer) {
        let [primary, copy] = {
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            answers[side as usize] = answer;
            *answers
        };
        let Some(result) = compare(self.mirror.compare, primary, copy) else {
            return;
        };
        let metrics = &self.mirror.metrics;
        metrics.add(Family::MirrorComparisons, result);
        if let (
            MirrorComparison::Different,
            Answer::Ended { status, .. },
            Answer::Ended {
                status: status_of_copy, ..
            },
        ) = (result, primary, copy)
        {
            let request_id = self.request_id.as_ref().and_then(|id| id.to_str().ok());
            tracing::info!(
                route = %metrics.name,
                setting = format_args!("routes.{}.mirror.compare", metrics.name),
                request_id = request_id.unwrap_or_default(),
                status = status.as_u16(),
                status_of_copy = status_of_copy.as_u16(),
                differs = if status == status_of_copy { "body" } else { "status" },
                "a copy was answered differently"
            );
        }
    }
}

/// Compares the answers to a request and to its copy. Returns `None` if one is still awaited, or the copy had none.
fn compare(what: Compare, primary: Answer, copy: Answer) -> Option<MirrorComparison> {
    let (status, body, status_of_copy, body_of_copy) = match (primary, copy) {
        (Answer::Awaited, _) | (_, Answer::Awaited | Answer::Missing) => return None,
        (Answer::Missing, Answer::Ended { .. }) => return Some(MirrorComparison::NotCompared),
        (
            Answer::Ended { status, body },
            Answer::Ended {
                status: status_of_copy,
                body: body_of_copy,
            },
        ) => (status, body, status_of_copy, body_of_copy),
    };
    let is_same = status == status_of_copy;
    Some(match (what, body, body_of_copy) {
        _ if !is_same => MirrorComparison::Different,
        (Compare::Off | Compare::Status, ..) => MirrorComparison::Same,
        (Compare::Body, Some(body), Some(body_of_copy)) if body == body_of_copy => MirrorComparison::Same,
        (Compare::Body, Some(_), Some(_)) => MirrorComparison::Different,
        (Compare::Body, ..) => MirrorComparison::NotCompared,
    })
}

impl Reporter {
    fn report(&mut self, answer: Answer) {
        if !std::mem::replace(&mut self.has_reported, true) {
            self.comparison.note(self.side, answer);
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.report(Answer::Missing);
    }
}

/// Hashes the body of an answer while it passes. If it is dropped before the end of the body, the body is not compared.
pub(in crate::call) struct AnswerWatch {
    reporter: Reporter,
    status: StatusCode,
    /// `None` if the body is too long.
    hash: Option<Context>,
    length: u64,
}

impl AnswerWatch {
    /// Begins with an answer whose body has at least `length` bytes. If only the status is compared, reports it at once
    /// and returns `None`.
    pub(super) fn begin(mut reporter: Reporter, status: StatusCode, length: u64) -> Option<Self> {
        if reporter.comparison.mirror.compare != Compare::Body {
            reporter.report(Answer::Ended { status, body: None });
            return None;
        }
        Some(Self {
            reporter,
            status,
            hash: (length <= MOST_READ).then(|| Context::new(&SHA256)),
            length: 0,
        })
    }

    pub(in crate::call) fn add(&mut self, piece: &[u8]) {
        self.length += piece.len() as u64;
        match &mut self.hash {
            Some(hash) if self.length <= MOST_READ => hash.update(piece),
            _ => self.hash = None,
        }
    }

    pub(in crate::call) fn complete(mut self) {
        let whole = self.hash.take().map(Context::finish);
        self.end(whole.and_then(|hash| hash.as_ref().try_into().ok()));
    }

    fn end(&mut self, body: Option<Hash>) {
        let status = self.status;
        self.reporter.report(Answer::Ended { status, body });
    }
}

impl Drop for AnswerWatch {
    fn drop(&mut self) {
        self.end(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_compared_by_status_and_by_whole_bodies() {
        use Answer::{Awaited, Missing};
        use MirrorComparison::{Different, NotCompared, Same};
        let ended = |status: u16, body: Option<u8>| Answer::Ended {
            status: StatusCode::from_u16(status).expect("a status"),
            body: body.map(|byte| [byte; 32]),
        };
        let check = |primary, copy, by_status, by_body| {
            assert_eq!(
                compare(Compare::Status, primary, copy),
                by_status,
                "{primary:?} {copy:?}"
            );
            assert_eq!(compare(Compare::Body, primary, copy), by_body, "{primary:?} {copy:?}");
        };
        let ok = ended(200, Some(1));
        check(ok, ok, Some(Same), Some(Same));
        check(ok, ended(200, Some(2)), Some(Same), Some(Different));
        check(ok, ended(200, None), Some(Same), Some(NotCompared));
        check(ended(200, None), ok, Some(Same), Some(NotCompared));
        check(ended(200, None), ended(500, None), Some(Different), Some(Different));
        check(ok, ended(201, Some(1)), Some(Different), Some(Different));
        check(Missing, ok, Some(NotCompared), Some(NotCompared));
        for other in [Awaited, Missing, ok] {
            check(other, Missing, None, None);
            check(other, Awaited, None, None);
            check(Awaited, other, None, None);
        }
    }
}

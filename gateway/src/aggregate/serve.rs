//! Serves an aggregate: runs the calls of its parts, merges the answers, and adds what the parts' heads contribute.

use std::sync::{Arc, Mutex, PoisonError};

use http::{Method, StatusCode, header};

use super::answer::{Answer, Failure};
use super::ask::PartCaller;
use super::compiled::Aggregate;
use super::fan_out::{Outcome, fan_out};
use super::fault::{Cause, PartFault};
use super::merge::merge;
use super::notes::{Notes, notes_lack};
use super::request::Request;
use crate::cache::cache_status::CACHE_STATUS;
use crate::call::Facts;
use crate::observe::{AttemptOutcome, Attempts};

/// Collects what the calls of the parts note. The attempts noted so far are handed over when it is dropped.
struct Collected<'a> {
    notes: Mutex<Notes>,
    attempts: &'a mut Attempts,
}

impl Collected<'_> {
    fn take(&mut self) -> Notes {
        let notes = self.notes.get_mut().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(notes)
    }
}

impl Drop for Collected<'_> {
    fn drop(&mut self) {
        let notes = self.take();
        self.attempts.merge(notes.attempts);
    }
}

impl Aggregate {
    /// Calls all parts and merges their answers. The returned facts are the sum over the parts. The attempts of all parts
    /// are added to `attempts`, also if the caller leaves before the end.
    pub async fn serve(&self, request: &Request<'_>, attempts: &mut Attempts) -> (Result<Answer, Failure>, Facts) {
        let mut collected = Collected {
            notes: Mutex::new(Notes::default()),
            attempts,
        };
        let notes = &collected.notes;
        let outcomes = fan_out(
            &self.recipe,
            request.reservation,
            |index, earlier| {
                let part = &self.recipe.parts()[index];
                let lacks = |what: &str, why: &str| notes_lack(notes, part, what, why);
                self.calls[index].render(part, request, earlier, &lacks)
            },
            // Boxed, because a future of some kilobytes would be moved several times on its way into the set of parts.
            |index, rendered| Box::pin(PartCaller::new(self, request, index, notes).call(rendered)),
        )
        .await;
        let mut notes = collected.take();
        for (index, outcome) in outcomes.iter().enumerate() {
            self.note_outcome(index, outcome, &mut notes.attempts);
        }
        collected.attempts.merge(std::mem::take(&mut notes.attempts));
        // Only these methods are repeated with `If-None-Match`.
        let tagged = matches!(*request.method, Method::GET | Method::HEAD);
        let mut answered = self.merge(outcomes, tagged, request).await;
        if let Ok(answer) = &mut answered {
            self.head(answer, &notes);
        }
        (answered, notes.facts)
    }

    /// Notes the outcome of a part that made no call, or whose answer cannot be used.
    fn note_outcome(&self, index: usize, outcome: &Outcome, attempts: &mut Attempts) {
        let (part, backend) = (self.recipe.parts()[index].name(), &self.calls[index].backend.name);
        let (outcome, reason) = match outcome {
            // The attempts tell this themselves.
            Outcome::Failed(PartFault {
                cause: Cause::Call(_) | Cause::Status(_) | Cause::Elements { .. },
                ..
            }) if attempts.has_part(part) => return,
            Outcome::Failed(fault) => (AttemptOutcome::Refused, Some(fault.reason())),
            Outcome::Skipped => (AttemptOutcome::Skipped, None),
            Outcome::Cancelled => (AttemptOutcome::Cancelled, None),
            Outcome::Data(_) | Outcome::Incomplete(..) | Outcome::Absent => return,
        };
        attempts.note_part(part, backend, outcome, reason);
    }

    /// Merges the outcomes, on another thread if they are long.
    async fn merge(&self, outcomes: Vec<Outcome>, tagged: bool, request: &Request<'_>) -> Result<Answer, Failure> {
        let size = outcomes.iter().map(Outcome::size).sum();
        let recipe = Arc::clone(&self.recipe);
        let fields = request.fields.cloned();
        let merge = move || {
            let mut answer = merge(&recipe, outcomes, fields.as_ref())?;
            if tagged {
                answer.tag();
            }
            Ok(answer)
        };
        let merged = request.reservation.read(size, merge).await;
        merged
            .unwrap_or_else(|blocked_outcome| Err(Failure::of(self.recipe.parts()[0].name(), &blocked_outcome.into())))
    }

    /// Adds the contributions of the parts' heads to the answer.
    fn head(&self, answer: &mut Answer, notes: &Notes) {
        let head = |index: usize| notes.heads.iter().find(|(of, _)| *of == index).map(|(_, head)| head);
        if let Some(head) = self.heads.status.and_then(head) {
            // The aggregate's body is present and complete, so these statuses of the part do not apply.
            answer.status = match head.status {
                StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::PARTIAL_CONTENT => StatusCode::OK,
                status => status,
            };
        }
        for (name, parts) in &self.heads.passed {
            for head in parts.iter().copied().filter_map(head) {
                for line in head.headers.get_all(name) {
                    answer.headers.append(name.clone(), line.clone());
                }
            }
        }
        if let Some(value) = notes.caching.value() {
            answer.headers.insert(header::CACHE_CONTROL, value);
        }
        if let Some(age) = notes.caching.age() {
            answer.headers.insert(header::AGE, age.into());
        }
        if let Some(value) = notes.varies.value() {
            answer.headers.insert(header::VARY, value);
        }
        for part in &notes.cached {
            let name = self.recipe.parts()[part.index].name();
            answer
                .headers
                .append(CACHE_STATUS, part.status().of_part(name, (part.hits, part.calls)));
        }
    }
}

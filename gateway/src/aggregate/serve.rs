//! Serves an aggregate: runs the calls of its parts, merges the answers, and adds what the parts' heads contribute.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderName, Method, StatusCode, header, response};
use policies::Deadline;
use policies::bulkhead::Entrant;

use super::answer::{Answer, Failure};
use super::ask::PartCaller;
use super::cache_control::CombinedCacheControl;
use super::draft::OnMissing;
use super::fan_out::{Outcome, fan_out};
use super::for_each::ForEach;
use super::merge::merge;
use super::part::Part;
use super::recipe::Recipe;
use super::vary::CombinedVary;
use super::when::When;
use crate::call::Facts;
use crate::call::backend::Backend;
use crate::json::{Document, Paths, Reservation, Selection};
use crate::stale_cache::StaleCache;
use crate::template::{Captures, Placeholder, Query, Template};

/// Compiled aggregate: a recipe and the call of each part, by part index.
pub struct Aggregate {
    /// Name of the route. Part of the key under which good answers are kept.
    pub route: Arc<str>,
    pub recipe: Arc<Recipe>,
    pub calls: Vec<PartCall>,
    pub heads: Heads,
    pub stale: Arc<StaleCache>,
    /// Paths in the request's body that parts use. If empty, the body is not read.
    pub body_paths: Arc<Paths>,
    /// Paths in an element that each part uses.
    pub(super) item_paths: Vec<Arc<Paths>>,
}

/// Describes the call that a part makes to its backend.
pub struct PartCall {
    pub backend: Arc<Backend>,
    pub method: Method,
    pub target: Template,
    pub query: Vec<(String, Template)>,
    pub headers: Vec<(HeaderName, Template)>,
    /// JSON text.
    pub body: Option<Template>,
    /// Condition of the call.
    pub when: Option<When>,
    pub for_each: Option<ForEach>,
    /// Values used in place of absent ones.
    pub defaults: Box<[(Placeholder, Document)]>,
    /// Time limit of the part itself. `None`: only the route's limit applies.
    pub time_limit: Option<Duration>,
    /// Most bytes of an answer. A longer answer fails the part.
    pub body_limit: usize,
    /// Tried in order if the backend gives no good answer. A fallback value is not listed here; the recipe holds it.
    pub fallbacks: Vec<PartFallback>,
}

impl PartCall {
    /// Backends that may be called one after the other for one answer, the part's own backend first.
    pub fn backends(&self) -> impl Iterator<Item = &Arc<Backend>> {
        let others = self.fallbacks.iter().filter_map(|fallback| match fallback {
            PartFallback::Backend(backend) => Some(backend),
            PartFallback::Stale(_) => None,
        });
        std::iter::once(&self.backend).chain(others)
    }
}

/// Fallback other than a fixed value.
pub enum PartFallback {
    /// Last good answer, if it is at most this old.
    Stale(Duration),
    Backend(Arc<Backend>),
}

/// Parts' header fields and status that the answer takes over.
#[derive(Debug, Default)]
pub struct Heads {
    /// Field names, each with the indexes of the parts whose lines are passed on, in this order.
    pub passed: Vec<(HeaderName, Vec<usize>)>,
    /// Index of the part whose status the answer takes.
    pub status: Option<usize>,
}

/// Request to be answered by an aggregate.
pub struct Request<'a> {
    pub method: &'a Method,
    pub captures: &'a Captures<'a>,
    pub query: &'a Query<'a>,
    /// Cleaned header fields, with the gateway's own fields added.
    pub headers: &'a HeaderMap,
    pub claims: Option<&'a Document>,
    /// Values of the request body that parts use.
    pub body: Option<&'a Selection>,
    /// Memory for the answers and requests of the parts.
    pub reservation: &'a Reservation,
    pub deadline: Deadline,
    /// Deadline by the operators' limits alone, without the caller's own limit.
    pub operator_deadline: Deadline,
    /// Deadline that the caller announced for itself, if any.
    pub wished: Option<Deadline>,
    /// Field in which answers report the cost of the request.
    pub cost_header: Option<&'a HeaderName>,
    /// Time limit of the route itself.
    pub meant: Duration,
    pub entrant: Entrant,
    pub is_retry: bool,
    pub worker: usize,
}

impl Aggregate {
    pub fn new(route: Arc<str>, recipe: Recipe, calls: Vec<PartCall>, heads: Heads, stale: Arc<StaleCache>) -> Self {
        let body = calls.iter().flat_map(PartCall::uses).filter_map(|used| match used {
            Placeholder::Body(steps) => Some(&**steps),
            _ => None,
        });
        let of_item = |call: &PartCall| {
            let steps = call.uses().filter_map(|used| match used {
                Placeholder::Item(steps) => Some(&**steps),
                _ => None,
            });
            Arc::new(Paths::new(steps))
        };
        Self {
            route,
            recipe: Arc::new(recipe),
            body_paths: Arc::new(Paths::new(body)),
            item_paths: calls.iter().map(of_item).collect(),
            calls,
            heads,
            stale,
        }
    }

    /// Returns the backend that a part calls first.
    pub fn backend_of(&self, part: &str) -> Option<&Arc<Backend>> {
        let index = self.recipe.parts().iter().position(|known| **known.name() == *part)?;
        Some(&self.calls[index].backend)
    }

    /// Returns whether a part takes values from the request's body.
    pub fn reads_body(&self) -> bool {
        !self.body_paths.is_empty()
    }

    /// Calls all parts and merges their answers. The returned facts are the sum over the parts.
    pub async fn serve(&self, request: &Request<'_>) -> (Result<Answer, Failure>, Facts) {
        let notes = Mutex::new(Notes::default());
        let outcomes = fan_out(
            &self.recipe,
            request.reservation,
            |index, earlier| {
                let part = &self.recipe.parts()[index];
                let lacks = |what: &str, why: &str| notes_lack(&notes, part, what, why);
                self.calls[index].render(part, request, earlier, &lacks)
            },
            |index, rendered| PartCaller::new(self, request, index, &notes).call(rendered),
        )
        .await;
        let notes = notes.into_inner().unwrap_or_else(PoisonError::into_inner);
        // Only these methods are repeated with `If-None-Match`.
        let tagged = matches!(*request.method, Method::GET | Method::HEAD);
        let mut answered = self.merge(outcomes, tagged, request.reservation).await;
        if let Ok(answer) = &mut answered {
            self.head(answer, &notes);
        }
        (answered, notes.facts)
    }

    /// Merges the outcomes, on another thread if they are long.
    async fn merge(&self, outcomes: Vec<Outcome>, tagged: bool, reservation: &Reservation) -> Result<Answer, Failure> {
        let size = outcomes.iter().map(Outcome::size).sum();
        let recipe = Arc::clone(&self.recipe);
        let merge = move || {
            let mut answer = merge(&recipe, outcomes)?;
            if tagged {
                answer.tag();
            }
            Ok(answer)
        };
        let merged = reservation.read(size, merge).await;
        merged.unwrap_or_else(|hindrance| Err(Failure::of(self.recipe.parts()[0].name(), &hindrance.into())))
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
        if let Some(value) = notes.varies.value() {
            answer.headers.insert(header::VARY, value);
        }
    }

    /// Returns whether a part's head is needed after its body has been read.
    pub(super) fn keeps_head_of(&self, index: usize) -> bool {
        self.heads.status == Some(index) || self.heads.passed.iter().any(|(_, parts)| parts.contains(&index))
    }
}

/// Records for the log why a part's request cannot be made, unless the recipe may skip the part.
pub(super) fn notes_lack(notes: &Mutex<Notes>, part: &Part, what: &str, why: &str) {
    if part.on_missing == OnMissing::Fail {
        let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
        let detail = || format!("part {}: {what}: {why}", part.name());
        notes.facts.detail.get_or_insert_with(detail);
    }
}

/// Data collected over the calls of all parts.
#[derive(Default)]
pub(super) struct Notes {
    pub facts: Facts,
    pub caching: CombinedCacheControl,
    pub varies: CombinedVary,
    /// Heads of good answers, of the parts whose head is needed later.
    pub heads: Vec<(usize, response::Parts)>,
}

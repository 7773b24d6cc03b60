//! An aggregate ready to serve: its recipe, the calls of its parts, and what their heads add to the answer.

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

/// An aggregate as meant: a recipe, and the call that each of its parts makes, by index.
pub struct Aggregate {
    /// The route's name, under which good answers are kept.
    pub route: Arc<str>,
    pub recipe: Arc<Recipe>,
    pub calls: Vec<PartCall>,
    pub heads: Heads,
    pub stale: Arc<StaleCache>,
    /// The values of the request's own body that parts take; with none it is not read.
    pub body_paths: Arc<Paths>,
    /// The values of an element that each part takes.
    pub(super) item_paths: Vec<Arc<Paths>>,
}

/// How a part asks its backend.
pub struct PartCall {
    pub backend: Arc<Backend>,
    pub method: Method,
    pub target: Template,
    pub query: Vec<(String, Template)>,
    pub headers: Vec<(HeaderName, Template)>,
    /// A JSON text.
    pub body: Option<Template>,
    /// Called at all only if this holds.
    pub when: Option<When>,
    pub for_each: Option<ForEach>,
    /// What stands in for values that are absent.
    pub defaults: Box<[(Placeholder, Document)]>,
    /// Its slice of the route's time, if it has one of its own.
    pub time_limit: Option<Duration>,
    /// Bytes of an answer that are read; a longer one is a failed part.
    pub body_limit: usize,
    /// Asked in order when the backend gives no good answer. A value is the recipe's to put in.
    pub fallbacks: Vec<PartFallback>,
}

impl PartCall {
    /// The backends that may be asked one after the other for one answer, its own first.
    pub fn backends(&self) -> impl Iterator<Item = &Arc<Backend>> {
        let others = self.fallbacks.iter().filter_map(|fallback| match fallback {
            PartFallback::Backend(backend) => Some(backend),
            PartFallback::Stale(_) => None,
        });
        std::iter::once(&self.backend).chain(others)
    }
}

/// What else may answer for a part.
pub enum PartFallback {
    /// The last good answer, if it is no older.
    Stale(Duration),
    Backend(Arc<Backend>),
}

/// What of the parts' own heads goes into the answer's.
#[derive(Debug, Default)]
pub struct Heads {
    /// Fields, and the parts whose lines they are, in this order.
    pub passed: Vec<(HeaderName, Vec<usize>)>,
    /// The part whose status is the answer's.
    pub status: Option<usize>,
}

/// The request that is to be answered from several parts.
pub struct Request<'a> {
    pub method: &'a Method,
    pub captures: &'a Captures<'a>,
    pub query: &'a Query<'a>,
    /// Clean and stamped.
    pub headers: &'a HeaderMap,
    pub claims: Option<&'a Document>,
    /// What parts take of its body.
    pub body: Option<&'a Selection>,
    /// For what is read on the way.
    pub reservation: &'a Reservation,
    pub deadline: Deadline,
    /// The same by the limits of operators alone, whatever the caller asks for.
    pub operator_deadline: Deadline,
    /// When the caller will have left, if it has said so.
    pub wished: Option<Deadline>,
    /// Where answers say what the request has cost.
    pub cost_header: Option<&'a HeaderName>,
    /// The route's own limit.
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

    /// The backend that a part asks first.
    pub fn backend_of(&self, part: &str) -> Option<&Arc<Backend>> {
        let index = self.recipe.parts().iter().position(|known| **known.name() == *part)?;
        Some(&self.calls[index].backend)
    }

    /// Whether a part takes values from the request's own body.
    pub fn reads_body(&self) -> bool {
        !self.body_paths.is_empty()
    }

    /// Asks all parts and puts their answers together. Facts add up over the parts.
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
        // What somebody may ask for again without wanting it again.
        let tagged = matches!(*request.method, Method::GET | Method::HEAD);
        let mut answered = self.merge(outcomes, tagged, request.reservation).await;
        if let Ok(answer) = &mut answered {
            self.head(answer, &notes);
        }
        (answered, notes.facts)
    }

    /// Puts the parts together, elsewhere if they are long.
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

    /// Puts into the answer what its parts' heads say.
    fn head(&self, answer: &mut Answer, notes: &Notes) {
        let head = |index: usize| notes.heads.iter().find(|(of, _)| *of == index).map(|(_, head)| head);
        if let Some(head) = self.heads.status.and_then(head) {
            // The answer has a body, and all of it, whatever the part had.
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

    /// Whether a part's head is needed after its body.
    pub(super) fn keeps_head_of(&self, index: usize) -> bool {
        self.heads.status == Some(index) || self.heads.passed.iter().any(|(_, parts)| parts.contains(&index))
    }
}

/// Where the recipe may skip the part, it is no fault.
pub(super) fn notes_lack(notes: &Mutex<Notes>, part: &Part, what: &str, why: &str) {
    if part.on_missing == OnMissing::Fail {
        let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
        let detail = || format!("part {}: {what}: {why}", part.name());
        notes.facts.detail.get_or_insert_with(detail);
    }
}

/// What is gathered over the calls of all parts.
#[derive(Default)]
pub(super) struct Notes {
    pub facts: Facts,
    pub caching: CombinedCacheControl,
    pub varies: CombinedVary,
    /// Of the parts that are to be heard, the heads of good answers.
    pub heads: Vec<(usize, response::Parts)>,
}

//! A compiled aggregate: its recipe, the calls of its parts, and what it takes from their heads.
//!
//! Makes no call: that is done in `serve`.

use std::sync::Arc;

use http::HeaderName;

use super::answer::Failure;
use super::fields::FieldChoice;
use super::part_call::PartCall;
use super::recipe::Recipe;
use crate::cache::responses::ResponseCache;
use crate::json::Paths;
use crate::observe::RouteMetrics;
use crate::setting::SettingId;
use crate::template::Placeholder;

/// Compiled aggregate: a recipe and the call of each part, by part index.
pub struct Aggregate {
    /// Name of the route. Part of the key under which good answers are kept.
    pub route: Arc<str>,
    pub recipe: Arc<Recipe>,
    pub calls: Vec<PartCall>,
    pub heads: Heads,
    /// Fields of the document that callers may choose.
    pub fields: Option<FieldChoice>,
    pub answers: StoredAnswers,
    /// Setting that tells what to do with two parts of one name.
    pub conflict: SettingId,
    /// Paths in the request's body that parts use. If empty, the body is not read.
    pub body_paths: Arc<Paths>,
    /// Paths in an element that each part uses.
    pub(super) item_paths: Vec<Arc<Paths>>,
}

/// Store of answers that parts may use again.
pub struct StoredAnswers {
    pub cache: Arc<ResponseCache>,
    /// Metrics of the route, where the use of stored answers is counted.
    pub metrics: Arc<RouteMetrics>,
    /// Whether any route or part uses the cache, so that changes have to be told to it.
    pub are_used: bool,
}

/// Parts' header fields and status that the answer takes over.
#[derive(Debug, Default)]
pub struct Heads {
    /// Field names, each with the indexes of the parts whose lines are passed on, in this order.
    pub passed: Vec<(HeaderName, Vec<usize>)>,
    /// Index of the part whose status the answer takes.
    pub status: Option<usize>,
}

impl Aggregate {
    pub fn new(
        route: Arc<str>,
        recipe: Recipe,
        calls: Vec<PartCall>,
        heads: Heads,
        fields: Option<FieldChoice>,
        answers: StoredAnswers,
        conflict: SettingId,
    ) -> Self {
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
            fields,
            answers,
            conflict,
        }
    }

    /// Returns the setting that a failure comes from; `None` if no setting would change the answer.
    pub fn setting_of(&self, failure: &Failure) -> Option<SettingId> {
        let parts = self.recipe.parts();
        let index = parts.iter().position(|part| *part.name() == failure.part)?;
        failure.fault.setting_in(&self.calls[index].ids, self.conflict)
    }

    /// Returns whether a part has a cache.
    pub fn has_cache(&self) -> bool {
        self.calls.iter().any(|call| call.cache.is_some())
    }

    /// Returns whether a part takes values from the request's body.
    pub fn reads_body(&self) -> bool {
        !self.body_paths.is_empty()
    }

    /// Returns whether a part's head is needed after its body has been read.
    pub(super) fn keeps_head_of(&self, index: usize) -> bool {
        self.heads.status == Some(index) || self.heads.passed.iter().any(|(_, parts)| parts.contains(&index))
    }
}

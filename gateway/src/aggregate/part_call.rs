//! The call that a part of an aggregate makes: what its config says, compiled.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};

use super::forward::Forwarded;
use super::when::When;
use crate::cache::responses::CacheTerms;
use crate::call::backend::Backend;
use crate::call::hedge::Hedge;
use crate::json::Document;
use crate::setting::{Configured, SettingId};
use crate::template::{Placeholder, Template};

/// Describes the call that a part makes to its backend.
pub struct PartCall {
    pub backend: Arc<Backend>,
    pub method: Method,
    pub target: Template,
    pub query: Vec<(String, Template)>,
    pub headers: Vec<(HeaderName, Template)>,
    /// The caller's header fields that are sent beside these.
    pub forward: Forwarded,
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
    pub body_limit: Configured<usize>,
    /// Tried in order if the backend gives no good answer. A fallback value is not listed here; the recipe holds it.
    pub fallbacks: Vec<PartFallback>,
    /// Terms of stored answers; `None` without a cache.
    pub cache: Option<Arc<CacheTerms>>,
    /// Terms of second attempts; `None` without them.
    pub hedge: Option<Arc<Hedge>>,
    pub ids: PartSettingIds,
}

/// Ids of the settings that can fail a part.
#[derive(Debug, Clone, Copy)]
pub struct PartSettingIds {
    /// The part as a whole.
    pub part: SettingId,
    pub time_limit: SettingId,
    /// Limit on the number of elements.
    pub element_limit: SettingId,
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

/// Settings for calling a part once for each element of an array.
#[derive(Debug, Clone)]
pub struct ForEach {
    pub over: Placeholder,
    /// Most elements, at least 1. More elements fail the part.
    pub limit: usize,
    /// Most calls that run at the same time, at least 1.
    pub at_once: usize,
    pub on_failure: OnFailure,
    /// The answers are put into the elements.
    pub embeds: bool,
}

impl ForEach {
    /// Returns the largest number of consecutive rounds of calls. A slow call delays later ones by at most its own
    /// duration: with `k` calls at once, an element starts when at least `k` calls before it have ended.
    pub fn waves(&self) -> u32 {
        u32::try_from(self.limit.div_ceil(self.at_once)).unwrap_or(u32::MAX)
    }
}

/// Effect of a failed element on its part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// The part fails with the element's fault.
    Fail,
    /// The array has no entry for the element.
    Omit,
    /// The array has a null for the element.
    Null,
}

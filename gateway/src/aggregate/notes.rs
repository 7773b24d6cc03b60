//! Facts that the calls of the parts collect for the whole answer.

use std::sync::{Mutex, PoisonError};

use crate::message::ResponseHead;

use super::cache_control::CombinedCacheControl;
use super::cached_part::PartUse;
use super::draft::OnMissing;
use super::part::Part;
use super::vary::CombinedVary;
use crate::call::Facts;
use crate::observe::Attempts;

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
    pub attempts: Attempts,
    pub caching: CombinedCacheControl,
    pub varies: CombinedVary,
    /// Heads of good answers, of the parts whose head is needed later.
    pub heads: Vec<(usize, ResponseHead)>,
    /// Use of the cache, of the parts that have one.
    pub cached: Vec<PartUse>,
}

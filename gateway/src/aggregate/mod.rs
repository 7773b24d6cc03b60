//! One answer out of several backends' answers.
//!
//! A [`Recipe`] is compiled once from what the operator wrote. [`fan_out`] runs its parts, each as soon as what it
//! needs has succeeded; [`merge`] puts the outcomes together in declared order. Neither knows of sockets: making a
//! part's request and calling its backend are functions that the caller supplies.
//!
//! Invariant: an answer depends on the recipe and on what came of its parts, never on which came first. Time decides
//! one thing alone: of several required parts that fail, the first to do so ends the rest and is the one reported.

mod answer;
mod ask;
mod body;
mod cache_control;
mod critical_path;
mod deep;
mod draft;
mod entity_tag;
mod error_body;
mod fan_out;
mod fault;
mod for_each;
mod grouped;
mod merge;
mod part;
mod path;
mod placed_member;
#[cfg(test)]
mod properties;
pub mod proxy_status;
mod recipe;
mod render;
mod serve;
mod shape;
mod vary;
mod when;

pub use answer::{Answer, Failure};
pub use critical_path::CriticalPath;
pub use draft::{Conflict, Errors, OnMissing, PartDraft, Partial, RecipeDraft, Splice};
pub use fan_out::{Called, EndedParts, NotCalled, Outcome, PartResult, fan_out};
pub use fault::{Cause, ErrorAnswer, Missing, PartFault};
pub use for_each::{ForEach, OnFailure};
pub use merge::merge;
pub use part::Part;
pub use path::PathMistake;
pub use placed_member::{MemberName, PlacedMember};
pub use recipe::{Mistake, Recipe};
pub use serve::{Aggregate, Heads, PartCall, PartFallback, Request};
pub use shape::{Shape, ShapeDraft, ShapeMistake};
pub use when::{Subject, Test, When};

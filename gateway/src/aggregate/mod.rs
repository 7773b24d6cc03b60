//! Builds one answer from the answers of several backends.
//!
//! A [`Recipe`] is compiled once from the operator's config. [`fan_out`] runs its parts; each part starts as soon as
//! the parts that it needs have succeeded. [`merge`] combines the outcomes in declared order. Neither knows of sockets:
//! the caller supplies the functions that make a part's request and call its backend.
//!
//! Invariant: an answer depends on the recipe and on the outcomes of its parts, never on their order in time. There is
//! one exception: if several required parts fail, the first failure in time ends the other parts and is the one
//! reported.

mod answer;
mod ask;
mod body;
mod cache_control;
mod cached_part;
mod compiled;
mod contribution;
mod critical_path;
mod deep;
mod draft;
mod embed;
mod entity_tag;
mod error_body;
mod fan_out;
mod fault;
mod fields;
mod for_each;
mod forward;
mod grouped;
mod merge;
#[cfg(test)]
mod merge_properties;
#[cfg(test)]
mod naive;
mod notes;
mod part;
mod part_call;
mod path;
mod placed_member;
#[cfg(test)]
mod properties;
pub mod proxy_status;
mod recipe;
mod render;
mod request;
mod rewrite;
mod serve;
mod shape;
#[cfg(test)]
mod shape_properties;
mod vary;
mod when;

pub use answer::{Answer, Failure};
pub use compiled::{Aggregate, Heads, StoredAnswers};
pub use contribution::Contribution;
pub use critical_path::CriticalPath;
pub use draft::{Conflict, Errors, IntoDraft, OnMissing, PartDraft, Partial, RecipeDraft, Splice};
pub use embed::ElementPlace;
pub use fan_out::{Called, EndedParts, NotCalled, Outcome, PartResult, fan_out};
pub use fault::{Cause, ErrorAnswer, FailedElement, Missing, PartFault};
pub use fields::FieldChoice;
pub use forward::Forwarded;
pub use merge::merge;
pub use part::Part;
pub use part_call::{ForEach, OnFailure, PartCall, PartFallback, PartSettingIds};
pub use path::PathMistake;
pub use placed_member::{MemberName, PlacedMember};
pub use recipe::{Mistake, Recipe};
pub use request::Request;
pub use shape::{MapDraft, Shape, ShapeDraft, ShapeMistake};
pub use when::{Subject, Test, When};

//! An aggregate as its operator wrote it; [`Recipe`](super::Recipe) is what it means.

use super::shape::ShapeDraft;
use crate::json::Document;

/// An aggregate as written.
#[derive(Debug, Clone, Default)]
pub struct RecipeDraft {
    /// In declared order, which decides what is merged over what.
    pub parts: Vec<PartDraft>,
    pub partial: Partial,
    pub conflict: Conflict,
    pub errors: Errors,
    /// The dotted path that everything but that list goes under.
    pub wrap: Option<String>,
    /// Bytes that the answers of all parts may have together.
    pub body_limit: Option<usize>,
}

/// A part as written.
#[derive(Debug, Clone, Default)]
pub struct PartDraft {
    pub name: String,
    /// Without this part there is no answer.
    pub required: bool,
    /// Parts that must have succeeded before this one starts.
    pub needs: Vec<String>,
    /// What its request splices of other parts' answers; these parts are needed, too.
    pub splices: Vec<Splice>,
    /// Parts that must have ended, well or not, before this one starts.
    pub after: Vec<String>,
    pub on_missing: OnMissing,
    /// Its answer is an array of those to several calls, each of which is shaped by itself.
    pub each: bool,
    pub shape: ShapeDraft,
    /// Its dotted path in the answer: its own name unless written; `.` merges its fields at the root.
    pub group: Option<String>,
    /// The dotted path of a field to put an array into. Without it an array in a group stays as it is, and one at the root
    /// takes the part's name.
    pub collection: Option<String>,
    /// Stands in for the answer when the part fails, and is shaped like one.
    pub fallback: Option<Document>,
}

/// A value in the answer of a part.
#[derive(Debug, Clone)]
pub struct Splice {
    pub part: String,
    /// To the value, from the top; with none it is the whole answer.
    pub steps: Box<[Box<str>]>,
}

impl From<&str> for Splice {
    /// The whole answer of a part.
    fn from(part: &str) -> Self {
        Self {
            part: part.to_owned(),
            steps: Box::default(),
        }
    }
}

/// What becomes of the answer when a part fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Partial {
    /// Any failure is an error: every part is required.
    #[default]
    Deny,
    /// Only a required part's failure is.
    Allow,
}

/// What a caller is told of the parts that failed, under [`Recipe::ERRORS`](super::Recipe::ERRORS).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Errors {
    #[default]
    Unlisted,
    /// Which, and for what reason.
    Listed,
    /// And what their backends say, where that is JSON; also where there is no answer for want of a part.
    Detailed,
}

/// What happens when two parts put the same name at the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Conflict {
    /// The part declared later replaces the value.
    #[default]
    Last,
    /// The part declared earlier keeps it.
    First,
    /// Objects are merged field by field at any depth; of anything else the last counts.
    Deep,
    /// As `Deep`, and arrays are appended in declared order.
    Concat,
    /// There is no answer.
    Error,
}

/// What becomes of a part whose request cannot be made because a value to splice is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnMissing {
    #[default]
    Fail,
    /// It is left out by the operator's wish, and so is what needs it: the answer is complete without it.
    Skip,
}

//! Config of an aggregate as the operator wrote it. [`Recipe`](super::Recipe) is the compiled form.

use super::shape::ShapeDraft;
use crate::json::Document;
use crate::setting::Configured;

/// Aggregate as written in the config.
#[derive(Debug, Clone, Default)]
pub struct RecipeDraft {
    /// Parts in declared order, which decides which part's value comes last when values are merged.
    pub parts: Vec<PartDraft>,
    pub partial: Partial,
    pub conflict: Conflict,
    pub errors: Errors,
    /// Dotted path under which everything except the list of errors is placed.
    pub wrap: Option<String>,
    /// Part whose document is the answer. Other parts are only used for it.
    pub document: Option<String>,
    /// Limit in bytes for the answers of all parts together.
    pub body_limit: Option<Configured<usize>>,
}

/// Part as written in the config.
#[derive(Debug, Clone, Default)]
pub struct PartDraft {
    pub name: String,
    /// If this part fails, there is no answer.
    pub required: bool,
    /// Parts that must have succeeded before this one starts.
    pub needs: Vec<String>,
    /// Values of other parts' answers that the request uses. These parts are needed, too.
    pub splices: Vec<Splice>,
    /// Parts that must have ended, successfully or not, before this one starts.
    pub after: Vec<String>,
    pub on_missing: OnMissing,
    /// The answer is an array of the answers to several calls. Each element is shaped by itself.
    pub each: bool,
    pub shape: ShapeDraft,
    /// Most bytes of the shaped document. `None`: no limit.
    pub room: Option<Configured<usize>>,
    /// Place of the answers in the elements of the list for which the part is called.
    pub into: Option<IntoDraft>,
    /// Dotted path of this part in the answer. Default: the part's name. `.` merges the part's fields at the root.
    pub group: Option<String>,
    /// Dotted path of a field for an array. Without it, an array in a group stays as it is, and an array at the root is
    /// placed under the part's name.
    pub collection: Option<String>,
    /// Value used in place of the answer when the part fails. It is shaped like an answer.
    pub fallback: Option<Document>,
}

/// Place in the elements of a list, as written in the config.
#[derive(Debug, Clone)]
pub struct IntoDraft {
    /// Path from the top of the list's answer, such as `items.*.product`.
    pub path: String,
    /// The list; `None` if it comes from elsewhere than a part.
    pub list: Option<Splice>,
    /// An element whose call failed gets nothing, instead of a null.
    pub leaves_out_null: bool,
}

/// Reference to a value in the answer of a part.
#[derive(Debug, Clone)]
pub struct Splice {
    pub part: String,
    /// Steps from the top of the answer to the value. No steps: the whole answer.
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

/// Effect of a failed part on the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Partial {
    /// Any failure is an error: every part is required.
    #[default]
    Deny,
    /// Only a failed required part is an error.
    Allow,
}

/// Details about failed parts in the body, under [`Recipe::ERRORS`](super::Recipe::ERRORS).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Errors {
    #[default]
    Unlisted,
    /// Names of the failed parts and their reasons.
    Listed,
    /// Also the backends' error bodies, if they are JSON. Included in error responses for a failed required part, too.
    Detailed,
}

/// Rule for two parts that put the same name at the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Conflict {
    /// The part declared later replaces the value.
    #[default]
    Last,
    /// The part declared earlier keeps it.
    First,
    /// Objects are merged field by field at any depth. Any other value is replaced by the later one.
    Deep,
    /// Like `Deep`, and arrays are appended in declared order.
    Concat,
    /// The aggregate fails.
    Error,
}

/// Effect of a missing spliced value on a part whose request cannot be made without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnMissing {
    #[default]
    Fail,
    /// The part is left out, and so are the parts that need it. The answer counts as complete without them.
    Skip,
}

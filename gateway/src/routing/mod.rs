//! Decides which route a request takes, from one reading of its host and path.
//!
//! [`target`] takes the request head apart and refuses ambiguous ones; [`table`] finds the route and extracts the
//! captures. Knows nothing of callers, nor of what a route leads to.

pub mod condition;
mod foreign_patterns;
pub mod host;
mod leaf;
mod methods;
pub mod mistake;
pub mod path;
mod path_parameters;
pub mod path_policy;
pub mod pattern;
mod precedence;
pub mod regex;
pub mod rivals;
pub mod table;
pub mod target;
mod tree;

pub use condition::{Condition, Is};
pub use foreign_patterns::pattern_meant;
pub use mistake::Mistake;
pub use path::{Keeps, NormalPath};
pub use path_policy::PathPolicy;
pub use pattern::{Pattern, PatternError, REST};
pub use precedence::{Place, Refused};
pub use regex::{Regex, RegexError};
pub use table::{Found, NotFound, Spec, Table};
pub use target::Target;

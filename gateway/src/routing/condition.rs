//! Conditions of a route beyond host, path and method.

use http::{HeaderMap, HeaderName};

use crate::template::{Query, TooManyParameters};

/// One condition on a request. Names and values of a query are compared after decoding, header values as they are.
///
/// If a field or parameter is repeated, one value that fits is enough. The gateway cannot know which value a backend
/// reads, so a condition that guards a route holds as soon as any value meets it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Condition {
    Header { name: HeaderName, is: Is },
    Query { name: String, is: Is },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Is {
    Present,
    Exactly(String),
}

impl Condition {
    /// Whether the request meets the condition.
    ///
    /// # Errors
    /// If the condition is on a query parameter, and the query has too many parameters.
    pub(super) fn holds(&self, headers: &HeaderMap, query: &Query<'_>) -> Result<bool, TooManyParameters> {
        match self {
            Self::Header { name, is: Is::Present } => Ok(headers.contains_key(name)),
            Self::Header {
                name,
                is: Is::Exactly(text),
            } => Ok(headers.get_all(name).iter().any(|value| value == text)),
            Self::Query { name, is: Is::Present } => query.has(name),
            Self::Query {
                name,
                is: Is::Exactly(text),
            } => query.says(name, text),
        }
    }

    /// Whether both conditions ask for different values of the same field or parameter. Only a request that repeats it
    /// can meet both.
    pub(super) fn excludes(&self, other: &Self) -> bool {
        let differ = |one: &Is, other: &Is| matches!((one, other), (Is::Exactly(a), Is::Exactly(b)) if a != b);
        match (self, other) {
            (
                Self::Header { name, is },
                Self::Header {
                    name: other,
                    is: other_is,
                },
            ) => name == other && differ(is, other_is),
            (
                Self::Query { name, is },
                Self::Query {
                    name: other,
                    is: other_is,
                },
            ) => name == other && differ(is, other_is),
            _ => false,
        }
    }
}

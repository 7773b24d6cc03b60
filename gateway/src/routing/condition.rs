//! What a route may ask of a request beyond its host, path and method.

use http::{HeaderMap, HeaderName};

use crate::template::{Query, TooManyParameters};

/// One thing that must hold. Names and values of a query are compared once decoded, header values as they are.
///
/// Where a field or parameter comes more than once, one fitting value is enough: which of several a backend will
/// read is not ours to guess, so a condition that guards something holds as soon as it could.
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
    /// # Errors
    /// It asks for a parameter of a query that has too many.
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

    /// Whether both cannot be meant at once: they want different values of one thing.
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

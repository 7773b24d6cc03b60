//! Conditions of a route beyond host, path and method.

use http::HeaderName;

use super::regex::Regex;
use crate::message::FieldMap;
use crate::template::captures::Ranges;
use crate::template::{Query, TooManyParameters, percent};

/// One condition on a request. Parameters of the path, and names and values of a query, are compared after decoding,
/// header values as they are.
///
/// If a field or parameter is repeated, one value that fits is enough. The gateway cannot know which value a backend
/// reads, so a condition that guards a route holds as soon as any value meets it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Condition {
    Header {
        name: HeaderName,
        is: Is,
    },
    Query {
        name: String,
        is: Is,
    },
    /// A condition on a parameter of the path pattern.
    Path {
        name: String,
        is: Is,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Is {
    Present,
    Exactly(String),
    Matching(Regex),
}

/// The parameters of a matched path, which is canonical.
#[derive(Clone, Copy)]
pub(super) struct PathParameters<'a> {
    pub(super) path: &'a str,
    pub(super) names: &'a [Box<str>],
    pub(super) ranges: &'a Ranges,
}

impl PathParameters<'_> {
    fn are(&self, name: &str, is: &Is) -> bool {
        let mut named = self.names.iter().zip(self.ranges);
        let found = named
            .find(|(known, _)| ***known == *name)
            .map(|(_, range)| range.clone());
        // A pattern for a prefix has a parameter without a range where nothing is left of the path.
        let raw = found.and_then(|range| self.path.get(range)).unwrap_or_default();
        percent::decode(raw).is_some_and(|value| is.met_by(value.as_bytes()))
    }
}

impl Is {
    /// Whether the value is one that is wanted.
    pub fn met_by(&self, value: &[u8]) -> bool {
        match self {
            Self::Present => true,
            Self::Exactly(text) => text.as_bytes() == value,
            Self::Matching(regex) => regex.matches(value),
        }
    }

    /// Returns whether no value meets both.
    fn excludes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Present, _) | (_, Self::Present) => false,
            (Self::Exactly(one), other) => !other.met_by(one.as_bytes()),
            (one, Self::Exactly(other)) => !one.met_by(other.as_bytes()),
            (Self::Matching(one), Self::Matching(other)) => one.excludes(other),
        }
    }
}

impl Condition {
    /// Whether the request meets the condition.
    ///
    /// # Errors
    /// If the condition is on a query parameter, and the query has too many parameters.
    pub(super) fn holds(
        &self,
        headers: &FieldMap,
        query: &Query<'_>,
        path: PathParameters<'_>,
    ) -> Result<bool, TooManyParameters> {
        match self {
            Self::Header { name, is } => Ok(headers.get_all(name).iter().any(|value| is.met_by(value.as_bytes()))),
            Self::Query { name, is: Is::Present } => query.has(name),
            Self::Query {
                name,
                is: Is::Exactly(text),
            } => query.says(name, text),
            Self::Query {
                name,
                is: Is::Matching(regex),
            } => {
                let mut named = query.parameters()?.filter(|(known, _)| *known == name.as_str());
                Ok(named.any(|(_, value)| value.is_some_and(|value| regex.matches(value.as_bytes()))))
            }
            Self::Path { name, is } => Ok(path.are(name, is)),
        }
    }

    pub(super) const fn is(&self) -> &Is {
        match self {
            Self::Header { is, .. } | Self::Query { is, .. } | Self::Path { is, .. } => is,
        }
    }

    /// Whether both conditions ask for different values of the same field or parameter. Only a request that repeats it
    /// can meet both.
    pub(super) fn excludes(&self, other: &Self) -> bool {
        let is_same = match (self, other) {
            (Self::Header { name, .. }, Self::Header { name: other, .. }) => name == other,
            (Self::Query { name, .. }, Self::Query { name: other, .. })
            | (Self::Path { name, .. }, Self::Path { name: other, .. }) => name == other,
            _ => false,
        };
        is_same && self.is().excludes(other.is())
    }
}

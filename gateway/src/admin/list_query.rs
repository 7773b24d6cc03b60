//! Reads the query parameters of lists in the admin API: `?limit=`, `?offset=` and `?q=`.
//!
//! An unknown parameter is refused, because otherwise an unfiltered list could be mistaken for a filtered one.

use axum::extract::{FromRequestParts, Query};
use axum::http::Uri;
use axum::http::request::Parts;

use super::problem::Problem;

/// Selects the entries of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListQuery {
    /// Number of entries, from 1 to [`ListQuery::MOST`]; 100 by default.
    limit: usize,
    /// Number of entries to skip.
    offset: usize,
    /// Text that an entry must contain, in lower case.
    wanted: Option<String>,
}

/// One page of a list.
pub(super) struct Page<T> {
    pub(super) entries: Vec<T>,
    /// Number of entries in the whole list that match the query.
    pub(super) total: usize,
    /// Offset of the next page; `None` on the last page.
    pub(super) next_offset: Option<usize>,
}

/// Extractor for requests without parameters; refuses every parameter.
pub(super) struct NoParameters;

impl ListQuery {
    const MOST: usize = 1000;

    /// Selects `limit` entries that contain `wanted`, after the first `offset` of them.
    pub(super) fn page_of(wanted: &str, offset: usize, limit: usize) -> Self {
        Self {
            limit,
            offset,
            wanted: Some(wanted.to_lowercase()).filter(|text| !text.is_empty()),
        }
    }

    /// Reads a query that may also hold the parameter `other`. Returns the value of `other` separately.
    pub(super) fn read(uri: &Uri, other: Option<&str>) -> Result<(Self, Option<String>), Problem> {
        let known: Vec<_> = ["limit", "offset", "q"].into_iter().chain(other).collect();
        let mut values: Vec<Option<String>> = vec![None; known.len()];
        for (name, value) in pairs(uri)? {
            let place = known.iter().position(|known| *known == name);
            let place = place.ok_or_else(|| unknown(&name, &known))?;
            if values[place].replace(value).is_some() {
                return Err(Problem::bad_value(format!("{name} stands twice: write it once.")));
            }
        }
        let mut values = values.into_iter();
        let mut next = || values.next().flatten();
        let (limit, offset, wanted, other) = (next(), next(), next(), next());
        let number = |text: Option<String>, usual| text.map_or(Ok(usual), |text| text.parse::<usize>());
        let limit = match number(limit, 100) {
            Ok(limit @ 1..=Self::MOST) => limit,
            _ => {
                let why = format!("limit is a number from 1 to {}.", Self::MOST);
                return Err(Problem::bad_value(why));
            }
        };
        let offset = number(offset, 0)
            .map_err(|_| Problem::bad_value("offset is a number: how many entries are left out.".to_owned()))?;
        Ok((
            Self::page_of(wanted.as_deref().unwrap_or_default(), offset, limit),
            other,
        ))
    }

    /// Returns whether one of the texts contains the wanted text, ignoring case.
    pub(super) fn finds<'t>(&self, texts: impl IntoIterator<Item = &'t str>) -> bool {
        let Some(wanted) = &self.wanted else { return true };
        texts.into_iter().any(|text| text.to_lowercase().contains(wanted))
    }

    /// Returns whether the entry at this place of the matching ones is shown.
    pub(super) fn shows(&self, place: usize) -> bool {
        (self.offset..self.offset.saturating_add(self.limit)).contains(&place)
    }

    /// Returns the offset of the next page of so many entries.
    pub(super) fn next(&self, total: usize) -> Option<usize> {
        Some(self.offset.saturating_add(self.limit)).filter(|end| *end < total)
    }

    /// Returns the selected page of `found`.
    pub(super) fn page<T>(&self, found: Vec<T>) -> Page<T> {
        let total = found.len();
        let end = self.offset.saturating_add(self.limit);
        Page {
            entries: found.into_iter().skip(self.offset).take(self.limit).collect(),
            total,
            next_offset: (end < total).then_some(end),
        }
    }
}

/// Returns the value of the only parameter that a request may have.
pub(super) fn only_parameter(uri: &Uri, known: &str) -> Result<Option<String>, Problem> {
    let mut found = None;
    for (name, value) in pairs(uri)? {
        if name != known {
            return Err(unknown(&name, &[known]));
        }
        if found.replace(value).is_some() {
            return Err(Problem::bad_value(format!("{name} stands twice: write it once.")));
        }
    }
    Ok(found)
}

/// Returns whether the only parameter that a request may have is set: without a value, or to `true`.
pub(super) fn flag(uri: &Uri, known: &str) -> Result<bool, Problem> {
    match only_parameter(uri, known)?.as_deref() {
        None | Some("false") => Ok(false),
        Some("" | "true") => Ok(true),
        Some(_) => Err(Problem::bad_value(format!(
            "{known} is true, false or without a value."
        ))),
    }
}

/// Returns the decoded parameters in their order.
pub(super) fn pairs(uri: &Uri) -> Result<Vec<(String, String)>, Problem> {
    let read = Query::<Vec<(String, String)>>::try_from_uri(uri);
    read.map(|Query(pairs)| pairs)
        .map_err(|error| Problem::bad_value(error.to_string()))
}

pub(super) fn unknown(name: &str, known: &[&str]) -> Problem {
    let name: String = name.chars().take(64).collect();
    Problem::bad_value(match known {
        [] => format!("There is no parameter {name}: this takes none."),
        _ => format!("There is no parameter {name}; there are {}.", known.join(", ")),
    })
}

impl<S: Sync> FromRequestParts<S> for ListQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::read(&parts.uri, None).map(|(query, _)| query)
    }
}

impl<S: Sync> FromRequestParts<S> for NoParameters {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match pairs(&parts.uri)?.first() {
            Some((name, _)) => Err(unknown(name, &[])),
            None => Ok(Self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_which_entries_are_shown() {
        let query = |limit, offset, wanted: Option<&str>| ListQuery {
            limit,
            offset,
            wanted: wanted.map(str::to_owned),
        };
        for (text, expected) in [
            ("", Some(query(100, 0, None))),
            ("limit=1", Some(query(1, 0, None))),
            ("limit=1000&offset=500", Some(query(1000, 500, None))),
            ("q=Users%2F", Some(query(100, 0, Some("users/")))),
            ("q=a+b&", Some(query(100, 0, Some("a b")))),
            ("q=", Some(query(100, 0, None))),
            ("limit=0", None),
            ("limit=1001", None),
            ("limit=-1", None),
            ("limit=", None),
            ("limit", None),
            ("limit=ten", None),
            ("limit=1&limit=2", None),
            ("offset=-1", None),
            ("offset=x", None),
            ("other=5", None),
            ("Limit=5", None),
            ("page=2&limit=5", None),
            ("tenant=acme", None),
        ] {
            let uri: Uri = format!("/api/v1/routes?{text}").parse().unwrap();
            let read = ListQuery::read(&uri, None).ok().map(|(query, _)| query);
            assert_eq!(read, expected, "{text}");
        }
        let (_, tenant) = ListQuery::read(&Uri::from_static("/?limit=1&tenant=a%20b"), Some("tenant")).unwrap();
        assert_eq!(tenant.as_deref(), Some("a b"));
    }

    #[test]
    fn pages_follow_each_other_to_the_end() {
        let mut shown = Vec::new();
        let mut offset = Some(0);
        while let Some(from) = offset {
            let query = ListQuery {
                limit: 3,
                offset: from,
                wanted: None,
            };
            let page = query.page((0..7).collect());
            assert_eq!(page.total, 7);
            shown.extend(page.entries);
            offset = page.next_offset;
        }
        assert_eq!(shown, [0, 1, 2, 3, 4, 5, 6]);
        let beyond = ListQuery {
            limit: 3,
            offset: usize::MAX,
            wanted: None,
        };
        assert!(beyond.page(vec![1]).entries.is_empty());
    }
}

#[cfg(test)]
mod api_tests;

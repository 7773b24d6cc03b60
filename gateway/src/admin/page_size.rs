//! `?limit=`: how many entries of a list are shown.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::problem::Problem;

/// 1 to [`PageSize::MOST`], 100 unless asked otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageSize(pub(super) usize);

impl PageSize {
    const USUAL: usize = 100;
    const MOST: usize = 1000;

    fn read(query: &str) -> Result<Self, Problem> {
        let Some(text) = query.split('&').find_map(|pair| pair.strip_prefix("limit=")) else {
            return Ok(Self(Self::USUAL));
        };
        match text.parse() {
            Ok(limit @ 1..=Self::MOST) => Ok(Self(limit)),
            _ => Err(Problem::bad_value(format!(
                "limit is a number from 1 to {}.",
                Self::MOST
            ))),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for PageSize {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::read(parts.uri.query().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_within_bounds() {
        for (query, expected) in [
            ("", Some(100)),
            ("other=5", Some(100)),
            ("limit=1", Some(1)),
            ("a=b&limit=1000", Some(1000)),
            ("limit=0", None),
            ("limit=1001", None),
            ("limit=-1", None),
            ("limit=", None),
            ("limit=ten", None),
        ] {
            assert_eq!(PageSize::read(query).ok().map(|size| size.0), expected, "{query}");
        }
    }
}

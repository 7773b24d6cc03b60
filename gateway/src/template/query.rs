//! Parses the query of a request once, when a parameter of it is first needed.
//!
//! Routes are chosen by parameters before the caller is authenticated, and one request may fill a placeholder a
//! thousand times. Each parameter is therefore decoded once, however many readers it has. A query with more than
//! [`MOST_PARAMETERS`] gives an error instead of a result from its first part, because a backend may read the rest.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::ops::Range;
use std::sync::OnceLock;

use super::percent;

/// Most parameters that are read.
pub const MOST_PARAMETERS: usize = 1000;

/// Query of a request, parsed on first use.
#[derive(Debug, Default)]
pub struct Query<'q> {
    raw: Option<&'q str>,
    parsed: OnceLock<Result<Box<[Parameter]>, TooManyParameters>>,
    /// Indexes of the parameters, sorted by name and value, for fast lookups.
    sorted: OnceLock<Box<[u16]>>,
}

/// Error for a query with more than [`MOST_PARAMETERS`] parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyParameters;

/// Parameter in `application/x-www-form-urlencoded`: `+` is a space, and a name without `=` has the empty value.
#[derive(Debug)]
struct Parameter {
    name: Text,
    /// `None` if the value is not UTF-8.
    value: Option<Text>,
}

#[derive(Debug)]
enum Text {
    /// Range in the raw query.
    Raw(Range<u32>),
    Decoded(Box<str>),
}

impl<'q> Query<'q> {
    /// Makes a query from its raw text without `?`. Parses nothing yet.
    pub const fn new(raw: Option<&'q str>) -> Self {
        Self {
            raw,
            parsed: OnceLock::new(),
            sorted: OnceLock::new(),
        }
    }

    pub const fn raw(&self) -> Option<&'q str> {
        self.raw
    }

    /// Names and values in order. A value that is not UTF-8 is `None`; a parameter whose name is not UTF-8 is left out.
    ///
    /// # Errors
    /// The query has too many parameters.
    pub fn parameters(&self) -> Result<impl Iterator<Item = (&str, Option<&str>)>, TooManyParameters> {
        let parameters = self.parsed()?.iter();
        Ok(parameters.map(|parameter| self.texts(parameter)))
    }

    /// Returns the first value of a parameter that is UTF-8.
    ///
    /// # Errors
    /// The query has too many parameters.
    pub fn first(&self, name: &str) -> Result<Option<&str>, TooManyParameters> {
        let mut values = self.parameters()?.filter(|(known, _)| *known == name);
        Ok(values.find_map(|(_, value)| value))
    }

    /// Returns whether a parameter has this name, with any value.
    ///
    /// # Errors
    /// The query has too many parameters.
    pub fn has(&self, name: &str) -> Result<bool, TooManyParameters> {
        self.finds(|(known, _)| known.cmp(name))
    }

    /// Returns whether a parameter has this name and this value.
    ///
    /// # Errors
    /// The query has too many parameters.
    pub fn says(&self, name: &str, value: &str) -> Result<bool, TooManyParameters> {
        self.finds(|(known, found)| known.cmp(name).then_with(|| found.cmp(&Some(value))))
    }

    fn finds(&self, place: impl Fn((&str, Option<&str>)) -> Ordering) -> Result<bool, TooManyParameters> {
        let parameters = self.parsed()?;
        let texts = |at: &u16| self.texts(&parameters[usize::from(*at)]);
        let sorted = self.sorted.get_or_init(|| {
            let mut sorted: Box<[u16]> = (0..).take(parameters.len()).collect();
            sorted.sort_unstable_by(|one, other| texts(one).cmp(&texts(other)));
            sorted
        });
        Ok(sorted.binary_search_by(|at| place(texts(at))).is_ok())
    }

    fn texts<'t>(&'t self, parameter: &'t Parameter) -> (&'t str, Option<&'t str>) {
        let raw = self.raw.unwrap_or_default();
        let text = |text: &'t Text| text.within(raw);
        (text(&parameter.name), parameter.value.as_ref().map(text))
    }

    fn parsed(&self) -> Result<&[Parameter], TooManyParameters> {
        let parsed = self.parsed.get_or_init(|| parse(self.raw.unwrap_or_default()));
        parsed.as_deref().map_err(|too_many| *too_many)
    }
}

impl Text {
    fn within<'t>(&'t self, raw: &'t str) -> &'t str {
        match self {
            Self::Raw(range) => &raw[range.start as usize..range.end as usize],
            Self::Decoded(text) => text,
        }
    }
}

fn parse(raw: &str) -> Result<Box<[Parameter]>, TooManyParameters> {
    let mut parameters = Vec::new();
    let mut start = 0;
    for pair in raw.split('&') {
        let range = start..start + pair.len();
        start = range.end + 1;
        if pair.is_empty() {
            continue;
        }
        if parameters.len() == MOST_PARAMETERS {
            return Err(TooManyParameters);
        }
        let name_end = range.start + pair.find('=').unwrap_or(pair.len());
        let value_start = (name_end + 1).min(range.end);
        // A parameter whose name is not UTF-8 is left out, but counts for the limit.
        let name = text(raw, range.start..name_end);
        let value = text(raw, value_start..range.end);
        parameters.push(name.map(|name| Parameter { name, value }));
    }
    Ok(parameters.into_iter().flatten().collect())
}

/// Decodes a piece of the query. `None` if the result is not UTF-8.
fn text(raw: &str, range: Range<usize>) -> Option<Text> {
    let written = &raw[range.clone()];
    let as_it_is = |range: Range<usize>| {
        let place = |at: usize| u32::try_from(at).ok();
        Some(Text::Raw(place(range.start)?..place(range.end)?))
    };
    if !written.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return as_it_is(range);
    }
    let spaced = match written.contains('+') {
        true => Cow::Owned(written.replace('+', " ")),
        false => Cow::Borrowed(written),
    };
    Some(Text::Decoded(percent::decode(&spaced)?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(raw: &str) -> Vec<(String, Option<String>)> {
        let query = Query::new(Some(raw));
        let owned = |(name, value): (&str, Option<&str>)| (name.to_owned(), value.map(str::to_owned));
        query.parameters().unwrap().map(owned).collect()
    }

    #[test]
    fn parameters_are_decoded_names_and_all() {
        let check = |raw: &str, expected: &[(&str, Option<&str>)]| {
            let owned: Vec<_> = expected
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned)))
                .collect();
            assert_eq!(read(raw), owned, "{raw}");
        };
        check("", &[]);
        check("&&", &[]);
        check("q=1&r=2", &[("q", Some("1")), ("r", Some("2"))]);
        check("q=1&q=2", &[("q", Some("1")), ("q", Some("2"))]);
        check("%71=a%2Fb", &[("q", Some("a/b"))]);
        check("q=a+b&a+b=+", &[("q", Some("a b")), ("a b", Some(" "))]);
        check("q", &[("q", Some(""))]);
        check("&&q=&", &[("q", Some(""))]);
        check("=x&=", &[("", Some("x")), ("", Some(""))]);
        check("q==a=", &[("q", Some("=a="))]);
        check("q=%ff&%ff=q", &[("q", None)]);
        check("q=%&r=%4", &[("q", Some("%")), ("r", Some("%4"))]);
        check("é=ü", &[("é", Some("ü"))]);
    }

    #[test]
    fn what_is_asked_for_is_found() {
        let query = Query::new(Some("b=2&a=1&a=%ff&%61=3&c&b=%ff"));
        assert_eq!(query.first("a"), Ok(Some("1")));
        assert_eq!(query.first("b"), Ok(Some("2")));
        assert_eq!(query.first("c"), Ok(Some("")));
        assert_eq!(query.first("d"), Ok(None));
        for (name, expected) in [("a", true), ("b", true), ("c", true), ("d", false), ("", false)] {
            assert_eq!(query.has(name), Ok(expected), "{name}");
        }
        for (name, value, expected) in [
            ("a", "1", true),
            ("a", "3", true),
            ("a", "2", false),
            ("b", "2", true),
            ("c", "", true),
            ("d", "", false),
        ] {
            assert_eq!(query.says(name, value), Ok(expected), "{name}={value}");
        }
        assert_eq!(Query::new(Some("a=%ff")).first("a"), Ok(None));
        assert_eq!(Query::new(Some("a=%ff")).has("a"), Ok(true), "a backend may read it");
        assert_eq!(Query::default().has("a"), Ok(false));
    }

    #[test]
    fn nothing_is_said_of_more_parameters_than_are_looked_at() {
        for pair in ["a&", "a=1&", "%ff&", "a=%ff&"] {
            let most = pair.repeat(MOST_PARAMETERS);
            assert!(Query::new(Some(&most)).has("b").is_ok(), "{pair}");
            let more = format!("{most}b");
            let query = Query::new(Some(&more));
            assert_eq!(query.first("b"), Err(TooManyParameters), "{pair}");
            assert_eq!(query.has("b"), Err(TooManyParameters), "{pair}");
            assert!(query.parameters().is_err(), "{pair}");
        }
        assert!(
            Query::new(Some(&"&".repeat(60_000))).has("a").is_ok(),
            "nothing is no parameter"
        );
    }
}

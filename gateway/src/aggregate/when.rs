//! Evaluates a part's condition: a test of a value or of the status of an earlier part. A part whose condition is false
//! is skipped.
//!
//! Invariant: an absent value is neither a text nor null, and it equals nothing.

use http::StatusCode;

use crate::json::{Document, Kind, Name, Value};
use crate::template::{Found, Placeholder, Sources};

/// Longest number, in bytes of its text, that is compared by value. Longer numbers are compared as text only.
const LONG_NUMBER: usize = 1_000;

/// Condition of a part.
#[derive(Debug, Clone, PartialEq)]
pub struct When {
    pub subject: Subject,
    pub test: Test,
}

/// Value that a condition tests.
#[derive(Debug, Clone, PartialEq)]
pub enum Subject {
    Value(Placeholder),
    /// Status of a part's backend answer, success or error. Absent if the backend gave no answer.
    Status(String),
}

/// Test of the subject. A text that spells a number or a boolean matches it: `5` in a query matches `is: 5`.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// `true`: the value is present and not null. `false`: it is absent or null.
    Exists(bool),
    Is(Document),
    /// Also true for an absent value.
    IsNot(Document),
    In(Vec<Document>),
}

impl When {
    /// Returns whether the condition is true. `status` finds the status of a part by name.
    pub fn holds(&self, sources: &Sources<'_>, status: impl Fn(&str) -> Option<StatusCode>) -> bool {
        let found = match &self.subject {
            Subject::Value(placeholder) => placeholder.value(sources),
            Subject::Status(part) => status(part).map(|status| Found::Text(status.as_str().to_owned().into())),
        };
        self.test.holds(found.as_ref())
    }
}

impl Test {
    fn holds(&self, found: Option<&Found<'_>>) -> bool {
        let is = |wanted: Value<'_>| found.is_some_and(|found| equal(found, wanted));
        match self {
            // A null counts as absent.
            Self::Exists(wanted) => found.is_some_and(|found| !found.is_null()) == *wanted,
            Self::Is(wanted) => is(wanted.value()),
            Self::IsNot(wanted) => !is(wanted.value()),
            Self::In(wanted) => wanted.iter().any(|wanted| is(wanted.value())),
        }
    }
}

fn equal(found: &Found<'_>, wanted: Value<'_>) -> bool {
    // A text matches a number or boolean that is spelled the same.
    let spelt = matches!(wanted.kind(), Kind::Number | Kind::Bool).then(|| wanted.to_string());
    match (found, spelt) {
        (Found::Json(value), Some(spelt)) if value.kind() == Kind::String => value.is_text(&spelt),
        (Found::Json(value), _) => equal_values(*value, wanted),
        (Found::Text(text), Some(spelt)) => **text == spelt,
        (Found::Text(text), None) => wanted.is_text(text),
    }
}

/// Compares two JSON values. The recursion is no deeper than the configured value, and stops at the first difference.
fn equal_values(found: Value<'_>, wanted: Value<'_>) -> bool {
    match (found.kind(), wanted.kind()) {
        (Kind::Number, Kind::Number) => same(found.number().unwrap_or_default(), wanted.number().unwrap_or_default()),
        (Kind::String, Kind::String) => wanted.text().is_some_and(|wanted| found.is_text(&wanted)),
        (Kind::Array, Kind::Array) => {
            let mut found = found.elements();
            wanted
                .elements()
                .all(|wanted| found.next().is_some_and(|found| equal_values(found, wanted)))
                && found.next().is_none()
        }
        (Kind::Object, Kind::Object) => {
            let mut left = wanted.members().count();
            let is_same = |(name, found): (Name<'_>, Value<'_>)| {
                let wanted = wanted.get(&name.text());
                left = left.wrapping_sub(1);
                wanted.is_some_and(|wanted| equal_values(found, wanted))
            };
            found.members().all(is_same) && left == 0
        }
        _ => found.kind() == wanted.kind() && found.raw() == wanted.raw(),
    }
}

/// Compares two numbers as text or as values. Whole numbers are never rounded, because some of them are identifiers.
fn same(found: &str, wanted: &str) -> bool {
    if found.len() > LONG_NUMBER {
        return found == wanted;
    }
    let is_whole = |text: &str| !text.contains(['.', 'e', 'E']);
    let value = |text: &str| text.parse::<f64>().ok().filter(|value| value.is_finite());
    found == wanted || !(is_whole(found) && is_whole(wanted)) && value(found).is_some() && value(found) == value(wanted)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn json(text: &str) -> Document {
        Document::check(&Bytes::copy_from_slice(text.as_bytes()), usize::MAX).unwrap()
    }

    #[test]
    fn a_condition_is_met_or_not() {
        let check = |test: Test, found: Option<&str>, expected: bool| {
            let document = found.map(json);
            let value = document.as_ref().map(|document| Found::Json(document.value()));
            assert_eq!(test.holds(value.as_ref()), expected, "{test:?} of {found:?}");
            if let Some(text) = document.as_ref().and_then(|document| document.value().text()) {
                assert_eq!(
                    test.holds(Some(&Found::Text(text))),
                    expected,
                    "{test:?} of {found:?} as text"
                );
            }
        };
        let is = |text: &str| Test::Is(json(text));
        check(Test::Exists(true), Some("false"), true);
        check(Test::Exists(true), Some("null"), false);
        check(Test::Exists(true), None, false);
        check(Test::Exists(false), None, true);
        check(is("\"gold\""), Some("\"gold\""), true);
        check(is("\"gold\""), Some("\"g\\u006fld\""), true);
        check(is("\"gold\""), Some("\"silver\""), false);
        check(is("\"\""), Some("\"\\ud800\""), false);
        check(is("null"), None, false);
        check(is("null"), Some("null"), true);
        check(is("5"), Some("\"5\""), true);
        check(is("5"), Some("5.0"), true);
        check(is("9007199254740993"), Some("9007199254740992"), false);
        check(is("1e999"), Some("2e999"), false);
        check(is("1e3"), Some("1000"), true);
        check(is("true"), Some("\"true\""), true);
        check(is("true"), Some("true"), true);
        check(is("true"), Some("false"), false);
        check(is("\"5\""), Some("5"), false);
        check(is("[]"), Some("\"[]\""), false);
        check(is("[1,{\"a\":null}]"), Some("[ 1.0 , {\"\\u0061\":null} ]"), true);
        check(is("[1]"), Some("[1,2]"), false);
        check(is("[1,2]"), Some("[1]"), false);
        check(is("{\"a\":1,\"b\":[]}"), Some("{\"b\":[],\"a\":1}"), true);
        check(is("{\"a\":1}"), Some("{\"a\":1,\"b\":2}"), false);
        check(is("{\"a\":1}"), Some("{\"b\":1}"), false);
        check(is("{}"), Some("[]"), false);
        check(Test::IsNot(json("5")), Some("5"), false);
        check(Test::IsNot(json("5")), None, true);
        let any = |texts: &[&str]| Test::In(texts.iter().map(|text| json(text)).collect());
        check(any(&["200", "201"]), Some("201"), true);
        check(any(&["200", "201"]), Some("204"), false);
        check(any(&[]), Some("1"), false);
    }
}

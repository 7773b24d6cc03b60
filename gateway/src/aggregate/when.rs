//! Whether a part is wanted at all: a condition on a value or on how an earlier part was answered.
//!
//! Invariant: a value that is absent is nothing but absent: it is no text, no null, and equal to nothing.

use std::borrow::Cow;

use http::StatusCode;
use serde_json::Value;

use crate::template::{Placeholder, Sources};

/// A part's condition.
#[derive(Debug, Clone, PartialEq)]
pub struct When {
    pub subject: Subject,
    pub test: Test,
}

/// What is looked at.
#[derive(Debug, Clone, PartialEq)]
pub enum Subject {
    Value(Placeholder),
    /// The status with which a part's backend answered, good or bad; absent if it gave no answer.
    Status(String),
}

/// What it has to be. Numbers and words in a text count as what they say: `5` in a query is `is: 5`.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    Exists(bool),
    Is(Value),
    /// Also met by what is absent.
    IsNot(Value),
    In(Vec<Value>),
}

impl When {
    /// `status` finds the status of a part by name.
    pub fn holds(&self, sources: &Sources<'_>, status: impl Fn(&str) -> Option<StatusCode>) -> bool {
        let found = match &self.subject {
            Subject::Value(placeholder) => placeholder.value(sources),
            Subject::Status(part) => status(part).map(|status| Cow::Owned(Value::from(status.as_u16()))),
        };
        self.test.holds(found.as_deref())
    }
}

impl Test {
    fn holds(&self, found: Option<&Value>) -> bool {
        let is = |wanted: &Value| found.is_some_and(|found| equal(found, wanted));
        match self {
            // A null says that there is nothing.
            Self::Exists(wanted) => found.is_some_and(|found| !found.is_null()) == *wanted,
            Self::Is(wanted) => is(wanted),
            Self::IsNot(wanted) => !is(wanted),
            Self::In(wanted) => wanted.iter().any(is),
        }
    }
}

fn equal(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::String(text), Value::Number(_) | Value::Bool(_)) => {
            let spelt = wanted.to_string();
            *text == spelt
        }
        (Value::Number(found), Value::Number(wanted)) => same(&found.to_string(), &wanted.to_string()),
        _ => found == wanted,
    }
}

/// Whether two numbers are the same as written or as values; whole numbers are never rounded, as identifiers are some.
fn same(found: &str, wanted: &str) -> bool {
    let is_whole = |text: &str| !text.contains(['.', 'e', 'E']);
    let value = |text: &str| text.parse::<f64>().ok().filter(|value| value.is_finite());
    found == wanted || !(is_whole(found) && is_whole(wanted)) && value(found).is_some() && value(found) == value(wanted)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_condition_is_met_or_not() {
        let check = |test: Test, found: Option<Value>, expected: bool| {
            assert_eq!(test.holds(found.as_ref()), expected, "{test:?} of {found:?}");
        };
        check(Test::Exists(true), Some(json!(false)), true);
        check(Test::Exists(true), Some(Value::Null), false);
        check(Test::Exists(true), None, false);
        check(Test::Exists(false), None, true);
        check(Test::Is(json!("gold")), Some(json!("gold")), true);
        check(Test::Is(json!("gold")), Some(json!("silver")), false);
        check(Test::Is(Value::Null), None, false);
        check(Test::Is(json!(5)), Some(json!("5")), true);
        check(Test::Is(json!(5)), Some(json!(5.0)), true);
        let long = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
        check(
            Test::Is(long("9007199254740993")),
            Some(long("9007199254740992")),
            false,
        );
        check(Test::Is(long("1e999")), Some(long("2e999")), false);
        check(Test::Is(long("1e3")), Some(json!(1000)), true);
        check(Test::Is(json!(true)), Some(json!("true")), true);
        check(Test::Is(json!("5")), Some(json!(5)), false);
        check(Test::IsNot(json!(5)), Some(json!(5)), false);
        check(Test::IsNot(json!(5)), None, true);
        check(Test::In(vec![json!(200), json!(201)]), Some(json!(201)), true);
        check(Test::In(vec![json!(200), json!(201)]), Some(json!(204)), false);
        check(Test::In(vec![]), Some(json!(1)), false);
    }
}

//! Reads from a request how much it may cost at most.
//!
//! Invariant: whatever a backend makes of a body that is admitted, it is not allowed more by it than was reserved. So a
//! value that a backend may read otherwise than this file does is refused: text, fractions, exponents, negative numbers,
//! and names that differ from a wanted one by the case of their letters alone, which some readers take for the same name.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;

use super::units;
use crate::json::{Document, Kind, Value};

/// What a route reserves.
#[derive(Debug, Clone)]
pub struct Reserve {
    /// Bytes of a request's body, or of an answer's text, that stand for one unit.
    pub bytes_per_unit: NonZeroU64,
    /// Where a body says how much may be generated; the largest one counts. Empty if nothing is generated.
    pub most: Vec<RequestPath>,
    /// Taken where a body says nothing; `None` refuses such a body.
    pub default: Option<NonZeroU64>,
    /// Largest value that a body may say.
    pub ceiling: Option<NonZeroU64>,
    /// Numbers in the body by which it is multiplied.
    pub times: Vec<RequestPath>,
}

/// Path of members from the top of a request's body, such as `max_tokens`.
#[derive(Clone, PartialEq, Eq)]
pub struct RequestPath {
    steps: Vec<Box<str>>,
    text: Arc<str>,
}

/// Units that a request takes before it is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reserved {
    /// For the request itself, by its bytes.
    pub prompt: u64,
    /// For what may be generated.
    pub generated: u64,
}

impl Reserved {
    pub const fn units(self) -> u64 {
        self.prompt.saturating_add(self.generated)
    }
}

/// A body that does not say what its request may cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReserveError {
    /// Path of the value.
    pub path: Arc<str>,
    pub why: &'static str,
}

impl RequestPath {
    /// Parses `body.` and the names of members with dots between them.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let Some(path) = text.strip_prefix("body.") else {
            return Err("does not begin with `body.`");
        };
        if path
            .split('.')
            .any(|step| step.is_empty() || step.contains(char::is_whitespace))
        {
            return Err("has an empty step, or a space in it");
        }
        Ok(Self {
            steps: path.split('.').map(Into::into).collect(),
            text: path.into(),
        })
    }

    /// Returns the value; `None` if it is absent or null.
    fn find<'d>(&self, body: Value<'d>) -> Result<Option<Value<'d>>, &'static str> {
        let mut value = body;
        for step in &self.steps {
            if value.kind() == Kind::Null {
                return Ok(None);
            }
            if value.kind() != Kind::Object {
                return Err("must stand in an object");
            }
            let mut found = None;
            for (name, member) in value.members() {
                if name.is(step) {
                    found = Some(member);
                } else if folded(&name.text()).eq(folded(step)) {
                    return Err("must be written in exactly these letters");
                }
            }
            match found {
                Some(member) => value = member,
                None => return Ok(None),
            }
        }
        Ok((!value.is_null()).then_some(value))
    }

    /// Returns the whole number; `None` if it is absent, null or 0.
    fn number(&self, body: Value<'_>) -> Result<Option<NonZeroU64>, ReserveError> {
        let wrong = |why| ReserveError {
            path: Arc::clone(&self.text),
            why,
        };
        let Some(value) = self.find(body).map_err(wrong)? else {
            return Ok(None);
        };
        let digits = value
            .number()
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        let number = digits.and_then(|digits| digits.parse().ok());
        number
            .map(NonZeroU64::new)
            .ok_or_else(|| wrong("must be a whole number of at least 1"))
    }
}

impl fmt::Display for RequestPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "body.{}", self.text)
    }
}

/// As it is written, for comparisons of configs.
impl fmt::Debug for RequestPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Returns the letters of a name without their case, as Unicode folds them.
fn folded(name: &str) -> impl Iterator<Item = char> + '_ {
    let lower = name.chars().flat_map(char::to_lowercase);
    lower.flat_map(char::to_uppercase)
}

impl Reserve {
    /// Returns what the request with this body reserves. `length` is that of the whole body in bytes; `body` is `None`
    /// if there is none.
    ///
    /// # Errors
    /// The body does not say what its request may cost.
    pub fn of(&self, body: Option<&Document>, length: usize) -> Result<Reserved, ReserveError> {
        let prompt = self.prompt(length as u64);
        let Some(first) = self.most.first() else {
            return Ok(Reserved { prompt, generated: 0 });
        };
        let wrong = |path: &RequestPath, why| ReserveError {
            path: Arc::clone(&path.text),
            why,
        };
        let body = body.map_or(Value::from_checked(b"null"), Document::value);
        let mut most = None;
        for path in &self.most {
            let said = path.number(body)?;
            if said > self.ceiling && self.ceiling.is_some() {
                return Err(wrong(path, "is more than this route takes"));
            }
            most = most.max(said);
        }
        let Some(most) = most.or(self.default) else {
            return Err(wrong(first, "must say how much may be generated"));
        };
        let mut generated = most.get();
        for path in &self.times {
            let times = path.number(body)?.map_or(1, NonZeroU64::get);
            generated = generated.saturating_mul(times);
        }
        Ok(Reserved { prompt, generated })
    }

    /// Returns the units of a body of this length in bytes.
    pub const fn prompt(&self, length: u64) -> u64 {
        units(length, self.bytes_per_unit)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn reserve(default: Option<u64>, ceiling: Option<u64>) -> Reserve {
        let path = |text| RequestPath::parse(text).expect("a path");
        Reserve {
            bytes_per_unit: NonZeroU64::new(4).expect("not 0"),
            most: vec![path("body.max_tokens"), path("body.options.most")],
            default: default.and_then(NonZeroU64::new),
            ceiling: ceiling.and_then(NonZeroU64::new),
            times: vec![path("body.n")],
        }
    }

    fn of(reserve: &Reserve, body: &str) -> Result<u64, String> {
        let text = Bytes::copy_from_slice(body.as_bytes());
        let document = Document::check(&text, 1 << 20).map_err(|refusal| refusal.to_string())?;
        let reserved = reserve.of(Some(&document), body.len());
        let reserved = reserved.map_err(|error| format!("{} {}", error.path, error.why))?;
        assert_eq!(reserved.prompt, (body.len() as u64).div_ceil(4));
        Ok(reserved.generated)
    }

    #[test]
    fn the_largest_value_counts_times_the_number_of_answers() {
        let required = reserve(None, Some(5000));
        let check = |body: &str, expected: u64| assert_eq!(of(&required, body), Ok(expected), "{body}");
        check(r#"{"max_tokens":7}"#, 7);
        check(r#"{"max_tokens":7,"options":{"most":9}}"#, 9);
        check(r#"{"max_tokens":null,"options":{"most":9}}"#, 9);
        check(r#"{"max_tokens":7,"options":null}"#, 7);
        check(r#"{"max_tokens":7,"n":3}"#, 21);
        check(r#"{"max_tokens":7,"n":null}"#, 7);
        check(r#"{"max_tok\u0065ns":7}"#, 7);
        check(r#"{"max_tokens":0,"options":{"most":2}}"#, 2);
        check(r#"{"max_tokens":5000,"n":18446744073709551615}"#, u64::MAX);
        check(r#"{"deep":{"max_tokens":99},"max_tokens":1}"#, 1);
        let defaulted = reserve(Some(40), None);
        for body in ["{}", r#"{"max_tokens":null}"#, r#"{"max_tokens":0}"#] {
            assert_eq!(of(&defaulted, body), Ok(40), "{body}");
        }
        assert_eq!(of(&defaulted, r#"{"n":2}"#), Ok(80));
        assert_eq!(
            defaulted.of(None, 0),
            Ok(Reserved {
                prompt: 0,
                generated: 40
            })
        );
    }

    #[test]
    fn what_another_reader_may_take_for_more_is_refused() {
        let required = reserve(None, Some(5000));
        let whole = "must be a whole number of at least 1";
        let letters = "must be written in exactly these letters";
        let check = |body: &str, expected: &str| assert_eq!(of(&required, body), Err(expected.to_owned()), "{body}");
        check("{}", "max_tokens must say how much may be generated");
        check(r#"{"max_tokens":0}"#, "max_tokens must say how much may be generated");
        check("[]", "max_tokens must stand in an object");
        check("7", "max_tokens must stand in an object");
        for value in [
            "-1",
            "-0",
            "1.0",
            "1e2",
            "1e400",
            "\"7\"",
            "true",
            "[7]",
            "{}",
            "18446744073709551616",
        ] {
            check(&format!(r#"{{"max_tokens":{value}}}"#), &format!("max_tokens {whole}"));
            check(&format!(r#"{{"max_tokens":1,"n":{value}}}"#), &format!("n {whole}"));
            check(
                &format!(r#"{{"max_tokens":1,"options":{{"most":{value}}}}}"#),
                &format!("options.most {whole}"),
            );
        }
        check(r#"{"max_tokens":5001}"#, "max_tokens is more than this route takes");
        check(
            r#"{"max_tokens":1,"options":7}"#,
            "options.most must stand in an object",
        );
        check(r#"{"max_tokens":1,"max_tokens":2}"#, "an object in it has a name twice");
        for name in [
            "Max_Tokens",
            "MAX_TOKENS",
            "max_to\u{212a}ens",
            "max_token\u{17f}",
            "max_to\\u212aens",
        ] {
            check(
                &format!(r#"{{"max_tokens":1,"{name}":9}}"#),
                &format!("max_tokens {letters}"),
            );
            check(&format!(r#"{{"{name}":9}}"#), &format!("max_tokens {letters}"));
        }
        check(r#"{"max_tokens":1,"N":9}"#, &format!("n {letters}"));
        check(
            r#"{"max_tokens":1,"Options":{"most":9}}"#,
            &format!("options.most {letters}"),
        );
    }
}

//! Fields of the merged document that a caller chooses with a parameter of the query, as in `?fields=user.name,orders`.
//!
//! Invariant: a caller sees no field that the operator has not offered. What a caller can write is bounded before it is
//! looked at, and asks for no call that the whole document would not make.

use super::path::{Path, PathMistake};
use super::shape::Shape;
use crate::rejection::Rejection;
use crate::setting::SettingId;
use crate::template::{Query, TooManyParameters};

/// Longest value of the parameter, in bytes.
const MOST_BYTES: usize = 2048;

/// Most fields that one request may name.
const MOST_FIELDS: usize = 64;

/// Fields that callers may choose.
#[derive(Debug, Clone)]
pub struct FieldChoice {
    parameter: Box<str>,
    allowed: Vec<(Box<str>, Path)>,
    by: SettingId,
}

impl FieldChoice {
    /// Makes a choice of no fields. `by` is its setting.
    pub fn new(parameter: &str, by: SettingId) -> Self {
        Self {
            parameter: parameter.into(),
            allowed: Vec::new(),
            by,
        }
    }

    /// Allows callers to choose the field at a path and what is below it.
    ///
    /// # Errors
    /// The path is not valid, or is there already.
    pub fn allow(&mut self, path: &str) -> Result<(), PathMistake> {
        let parsed = Path::parse(path)?;
        if !parsed.has_names_alone() {
            return Err(PathMistake::Star);
        }
        if parsed.segments().len() > MOST_NAMES {
            return Err(PathMistake::TooLong);
        }
        if self.allowed.iter().any(|(_, other)| *other == parsed) {
            return Err(PathMistake::SameName);
        }
        self.allowed.push((path.into(), parsed));
        Ok(())
    }

    pub fn parameter(&self) -> &str {
        &self.parameter
    }

    /// Paths that callers may choose.
    pub fn allowed(&self) -> impl Iterator<Item = &str> {
        self.allowed.iter().map(|(text, _)| &**text)
    }

    /// Reads the caller's choice; `None` if it makes none and gets the whole document.
    ///
    /// # Errors
    /// The caller names a field that is not offered, or what it writes is not a list of fields.
    pub fn read(&self, query: &Query<'_>) -> Result<Option<Shape>, Rejection> {
        let parameters = query
            .parameters()
            .map_err(|TooManyParameters| self.refusal("too many parameters"))?;
        let mut values = parameters
            .filter(|(name, _)| *name == &*self.parameter)
            .map(|(_, value)| value);
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(self.refusal("write the parameter once"));
        }
        let value = value.filter(|value| value.len() <= MOST_BYTES);
        let Some(value) = value else {
            return Err(self.refusal("it is not text of at most 2048 bytes"));
        };
        let mut keep = Vec::new();
        for text in value.split(',') {
            let path = Path::parse(text)
                .ok()
                .filter(|path| path.segments().len() <= MOST_NAMES);
            let is_allowed = |path: &Path| self.allowed.iter().any(|(_, allowed)| path.is_within(allowed));
            let Some(path) = path.filter(|path| path.has_names_alone() && is_allowed(path)) else {
                return Err(self.unknown(text));
            };
            if keep.len() == MOST_FIELDS {
                return Err(self.refusal("it names more than 64 fields"));
            }
            keep.push(path);
        }
        Ok(Some(Shape::keeping(keep)))
    }

    fn refusal(&self, why: &str) -> Rejection {
        Rejection::FieldNotOffered {
            why: format!("`{}`: {why}", self.parameter).into(),
            by: self.by,
        }
    }

    /// Returns the refusal of a field. What the caller wrote is shown only if it is short and harmless.
    fn unknown(&self, text: &str) -> Rejection {
        let is_shown = text.len() <= 64 && text.chars().all(|c| c.is_alphanumeric() || "._-".contains(c));
        let what = match (text, is_shown) {
            ("", _) => "there is an empty name in it".to_owned(),
            (_, true) => format!("`{text}` is not offered"),
            (_, false) => "a field in it is not offered".to_owned(),
        };
        let offered: Vec<_> = self.allowed().take(20).collect();
        let more = if self.allowed.len() > offered.len() {
            ", ..."
        } else {
            ""
        };
        self.refusal(&format!("{what}; there are {}{more}", offered.join(", ")))
    }
}

/// Most names of a path.
const MOST_NAMES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Document;

    fn choice() -> FieldChoice {
        let mut choice = FieldChoice::new("fields", SettingId::URI);
        for path in ["user.name", "orders", "deep.a.b"] {
            choice.allow(path).unwrap();
        }
        choice
    }

    fn kept(query: &str) -> Result<Option<String>, String> {
        let document = Document::of(&serde_json::json!({
            "user": { "name": "Ada", "secret": 1 }, "orders": [{ "id": 1, "total": 2.5 }], "deep": { "a": { "b": 1, "c": 2 } },
        }));
        match choice().read(&Query::new(Some(query))) {
            Ok(None) => Ok(None),
            Ok(Some(shape)) => {
                let mut out = Vec::new();
                shape.apply(document.value(), usize::MAX, &mut out).unwrap();
                Ok(Some(String::from_utf8(out).unwrap()))
            }
            Err(Rejection::FieldNotOffered { why, .. }) => Err(why.into()),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_caller_gets_what_it_names_of_what_is_offered() {
        let check = |query, expected: &str| assert_eq!(kept(query), Ok(Some(expected.to_owned())), "{query}");
        assert_eq!(kept("field=user"), Ok(None));
        check("fields=user.name", r#"{"user":{"name":"Ada"}}"#);
        check(
            "fields=orders.id,user.name",
            r#"{"user":{"name":"Ada"},"orders":[{"id":1}]}"#,
        );
        check(
            "fields=orders%2Cdeep.a.b",
            r#"{"orders":[{"id":1,"total":2.5}],"deep":{"a":{"b":1}}}"#,
        );
        check("fields=user.name.first", "{}");
        check("x=1&fields=orders.id,orders.id", r#"{"orders":[{"id":1}]}"#);
    }

    #[test]
    fn what_is_not_offered_is_refused() {
        let check = |query: &str, expected: &str| {
            let why = kept(query).unwrap_err();
            assert!(why.contains(expected), "{query}: {why}");
        };
        check(
            "fields=user",
            "`user` is not offered; there are user.name, orders, deep.a.b",
        );
        check("fields=user.secret", "`user.secret` is not offered");
        check("fields=user.nam", "is not offered");
        check("fields=deep.a", "is not offered");
        check("fields=*", "a field in it is not offered");
        check("fields=orders.*", "a field in it is not offered");
        check("fields=%3Cscript%3E", "a field in it is not offered");
        check("fields=", "an empty name");
        check("fields", "an empty name");
        check("fields=orders,", "an empty name");
        check("fields=orders..id", "is not offered");
        check("fields=%ff", "it is not text");
        check("fields=orders&fields=user.name", "once");
        check(&format!("fields=orders{}", ".x".repeat(16)), "is not offered");
        check(&format!("fields={}", vec!["orders"; 65].join(",")), "more than 64");
        check(&format!("fields={}", "x".repeat(2049)), "2048 bytes");
        assert!(kept(&format!("fields={}", vec!["orders"; 64].join(","))).is_ok());
    }

    #[test]
    fn paths_of_the_config_are_names() {
        let mut choice = choice();
        assert_eq!(choice.allow("orders"), Err(PathMistake::SameName));
        assert_eq!(choice.allow("orders.*.id"), Err(PathMistake::Star));
        assert_eq!(choice.allow(""), Err(PathMistake::Empty));
        assert_eq!(choice.allow(&vec!["a"; 17].join(".")), Err(PathMistake::TooLong));
    }
}

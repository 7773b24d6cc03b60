//! Reads values of a JSON object.

use serde_json::{Map as Object, Value};

/// Returns the text of this name, unless it is empty.
pub(super) fn text<'v>(object: &'v Object<String, Value>, name: &str) -> Option<&'v str> {
    object.get(name)?.as_str().filter(|text| !text.is_empty())
}

/// Returns the text of this name in a value that should be an object, unless it is empty.
pub(super) fn text_of<'v>(value: &'v Value, name: &str) -> Option<&'v str> {
    value.get(name)?.as_str().filter(|text| !text.is_empty())
}

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

/// Returns the section `proxy` of an `extra_config`, under either of its names.
pub(super) fn proxy_of(extra: &Value) -> Option<&Value> {
    extra
        .get("proxy")
        .or_else(|| extra.get("github.com/devopsfaith/krakend/proxy"))
}

/// Returns the settings of a backend for answers that are errors, under either name of their section.
pub(super) fn errors_of(backend: &Value) -> Option<&Value> {
    let extra = backend.get("extra_config")?;
    extra
        .get("backend/http")
        .or_else(|| extra.get("github.com/devopsfaith/krakend/http"))
}

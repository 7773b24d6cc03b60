//! Checks that requests have the keys by which they are treated alike.

use std::collections::HashSet;

use http::HeaderName;

use crate::config::{At, Code, Mistake, Span};
use crate::headers;
use crate::plan::compile::compiler::Compiler;
use crate::plan::compile::scope::Scope;
use crate::request_key::RequestKey;
use crate::template::Placeholder;

/// Reports a key that no request of a route has.
pub(super) fn check_key(compiler: &mut Compiler<'_>, path: &str, key: &At<RequestKey>, parameters: &HashSet<String>) {
    match &key.value {
        RequestKey::Header(name) => check_field(compiler, path, name, key.span()),
        RequestKey::Path(name) => {
            let placeholder = Placeholder::Path(name.clone());
            Scope::of_route(parameters).admits(compiler, &placeholder, key.span());
        }
        _ => {}
    }
}

/// Reports a field that is removed from each request, because no caller may set it.
pub(super) fn check_field(compiler: &mut Compiler<'_>, path: &str, name: &HeaderName, at: Option<Span>) {
    if headers::is_always_removed(name) {
        let message = format!("`{path}` looks at `{name}`, which no request has");
        let mistake = Mistake::new(Code::Conflict, at, message).label("the gateway removes it: callers may not set it");
        let own = if path.ends_with(".when") {
            "`tenant` or `tier`"
        } else {
            "`tenant` or `caller`"
        };
        compiler.mistake(mistake.hint(format!("use {own}, or a field of another name")));
    }
}

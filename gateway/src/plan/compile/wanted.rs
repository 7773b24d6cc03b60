//! Compiles the values that requests must have, of header fields, parameters and cookies.

use crate::config::{Code, Mistake, Wanted};
use crate::plan::compile::compiler::Compiler;
use crate::routing::{Is, Regex};

/// Compiles a wanted value. Reports an expression that is malformed or that no value matches.
pub(super) fn is(compiler: &mut Compiler<'_>, path: &str, wanted: &Wanted) -> Option<Is> {
    match wanted {
        Wanted::Any => Some(Is::Present),
        Wanted::Exactly(text) => Some(Is::Exactly(text.value.clone())),
        Wanted::Regex(text) => Regex::parse(text)
            .map_err(|error| {
                let message = format!("`{path}.regex` is no regular expression that can be used: {error}");
                compiler.mistake(Mistake::new(Code::BadValue, text.span(), message));
            })
            .ok()
            .filter(|regex| {
                let matches_nothing = regex.matches_nothing();
                if matches_nothing {
                    let message = format!("no request takes this route: no value matches `{path}.regex`");
                    compiler.mistake(Mistake::new(Code::BadValue, text.span(), message));
                }
                !matches_nothing
            })
            .map(Is::Matching),
    }
}

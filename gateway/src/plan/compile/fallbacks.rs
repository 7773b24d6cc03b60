//! Compiles fallbacks. Their backends must exist, and no fallback may follow a value, which always succeeds.

use crate::config::{Code, Fallback, Mistake};
use crate::plan;
use crate::plan::compile::backends::Backends;
use crate::plan::compile::compiler::Compiler;

/// Compiles the fallbacks of a route.
pub(super) fn of_route(
    compiler: &mut Compiler<'_>,
    written: &[Fallback],
    backends: &Backends,
) -> Option<Vec<plan::Fallback>> {
    check_fallbacks(compiler, written);
    let compiled = written.iter().map(|fallback| {
        Some(match fallback {
            Fallback::Value(value) => plan::Fallback::Value(value.bytes().clone()),
            Fallback::Stale(within) => plan::Fallback::Stale(**within),
            Fallback::Backend(name) => plan::Fallback::Backend(backends.get(name).cloned()?),
        })
    });
    compiled.collect()
}

/// Reports fallbacks with an unknown backend and fallbacks that can never be reached.
pub(super) fn check_fallbacks(compiler: &mut Compiler<'_>, written: &[Fallback]) {
    for fallback in written {
        if let Fallback::Backend(name) = fallback {
            compiler.resolve("backend", name, &compiler.config.backends);
        }
    }
    let value = written
        .iter()
        .position(|fallback| matches!(fallback, Fallback::Value(_)));
    if let Some(next) = value.and_then(|value| written.get(value + 1)) {
        let at = match next {
            Fallback::Value(value) => value.span(),
            Fallback::Stale(within) => within.span(),
            Fallback::Backend(name) => name.span(),
        };
        compiler.mistake(
            Mistake::new(
                Code::Conflict,
                at,
                "this is never reached: a value before it always stands in",
            )
            .hint("put the value last"),
        );
    }
}

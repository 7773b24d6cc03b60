//! Compiles fallbacks. Their backends must exist, and no fallback may follow a value, which always succeeds.

use crate::config::{Code, Fallback, Mistake, Target};
use crate::plan;
use crate::plan::compile::backends::Backends;
use crate::plan::compile::compiler::Compiler;

/// Compiles the fallbacks of a route.
pub(super) fn of_route(
    compiler: &mut Compiler<'_>,
    route: &str,
    target: &Target,
    written: &[Fallback],
    backends: &Backends,
) -> Option<Vec<plan::Fallback>> {
    let own = match target {
        Target::Backend { name, .. } => Some(name.as_str()),
        _ => None,
    };
    check_fallbacks(compiler, written, own);
    check_backends(compiler, route, target, written);
    let compiled = written.iter().map(|fallback| {
        Some(match fallback {
            Fallback::Value(value) => plan::Fallback::Value(value.bytes().clone()),
            Fallback::Stale(within) => plan::Fallback::Stale(**within),
            Fallback::Backend(name) => plan::Fallback::Backend(backends.get(name).cloned()?),
        })
    });
    compiled.collect()
}

/// Reports a fallback to the backend that has failed already.
fn check_backends(compiler: &mut Compiler<'_>, route: &str, target: &Target, written: &[Fallback]) {
    let Target::Backend { name: own, .. } = target else {
        return;
    };
    for fallback in written {
        if let Fallback::Backend(name) = fallback
            && **name == **own
        {
            let message = format!("`routes.{route}.fallback` names the backend that has failed by then");
            compiler.mistake(
                Mistake::new(Code::Conflict, name.span(), message)
                    .related(own.span(), "the backend of the route")
                    .hint("name another backend; the backend's `retry` is what asks it again"),
            );
        }
    }
}

/// Reports fallbacks with an unknown backend, which is not meant to be `own`, and fallbacks that can never be reached.
pub(super) fn check_fallbacks(compiler: &mut Compiler<'_>, written: &[Fallback], own: Option<&str>) {
    for fallback in written {
        if let Fallback::Backend(name) = fallback {
            compiler.resolve_but("backend", name, &compiler.config.backends, own);
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

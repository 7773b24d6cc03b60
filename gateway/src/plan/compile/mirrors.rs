//! Compiles the mirrors of routes, reusing the state that outlives a plan.

use std::collections::HashSet;
use std::sync::Arc;

use policies::split::Percent;

use crate::call::mirror::{Compare, Mirror, MirrorState};
use crate::config::{self, At, Code, Mistake};
use crate::plan::compile::backends::Backends;
use crate::plan::compile::compiler::Compiler;
use crate::plan::compile::request_keys::check_key;
use crate::plan::mirror::RouteMirror;

/// Compiles the mirror of a route; `None` after a mistake.
pub(super) fn compile(
    compiler: &mut Compiler<'_>,
    route: &Arc<str>,
    target: &config::Target,
    written: &config::Mirror,
    parameters: &HashSet<String>,
    backends: &Backends,
) -> Option<RouteMirror> {
    let config::Mirror {
        to,
        percent,
        key,
        methods,
        body,
        limit,
        compare,
    } = written;
    compiler.resolve_but(
        "backend",
        to,
        &compiler.config.backends,
        own(target).map(|own| own.as_str()),
    );
    check_key(compiler, &format!("routes.{route}.mirror"), key, parameters);
    check_target(compiler, route, target, written);
    let backend = Arc::clone(backends.get(to)?);
    let name = (Arc::clone(route), Arc::clone(&backend.name));
    let breaker = backend.guard_settings.breaker;
    let state = Arc::clone(
        compiler
            .state
            .kept()
            .mirrors
            .entry(name)
            .or_insert_with(|| Arc::new(MirrorState::new(breaker))),
    );
    Some(RouteMirror {
        prefix: format!("{route}\0mirror\0").into_bytes().into(),
        key: key.value.clone(),
        percent: Percent::from_hundredths(percent.hundredths())?,
        methods: methods.iter().map(|method| method.value.clone()).collect(),
        mirror: Arc::new(Mirror {
            backend,
            limit: **limit,
            body_limit: usize::try_from(body.0).unwrap_or(usize::MAX),
            compare: match **compare {
                config::Compare::Off => Compare::Off,
                config::Compare::Status => Compare::Status,
                config::Compare::Body => Compare::Body,
            },
            state,
            copied: Arc::clone(&compiler.state.copied),
            metrics: compiler.state.observer.registry.route(route),
        }),
    })
}

/// Returns the backend that gets all requests of the route.
fn own(target: &config::Target) -> Option<&At<String>> {
    match target {
        config::Target::Backend { name, .. } => Some(name),
        config::Target::Split { entries, .. } => match entries.as_slice() {
            [only] => Some(&only.backend),
            _ => None,
        },
        config::Target::Aggregate(_) | config::Target::Respond(_) | config::Target::Redirect(_) => None,
    }
}

/// Reports a mirror to the backend that gets all requests of the route anyway.
fn check_target(compiler: &mut Compiler<'_>, route: &str, target: &config::Target, written: &config::Mirror) {
    let Some(own) = own(target) else { return };
    if **own == *written.to {
        let message = format!("`routes.{route}.mirror` copies requests to the backend that gets them anyway");
        compiler.mistake(
            Mistake::new(Code::Conflict, written.to.span(), message)
                .related(own.span(), "the backend of the route")
                .hint("name another backend: one request is never sent to a backend twice"),
        );
    }
}

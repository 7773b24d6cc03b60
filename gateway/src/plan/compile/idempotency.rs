//! Compiles the idempotency of routes.

use std::time::Duration;

use crate::config::{self, Code, Config, Mistake};
use crate::idempotency::{IdempotencySettingIds, IdempotencyTerms};
use crate::plan::compile::compiler::Compiler;

/// Returns the memory for all keys in bytes, and whether answered keys make room for new ones.
pub(super) fn room(config: &Config) -> (u64, bool) {
    let config::Idempotency { max_bytes, when_full } = &config.idempotency;
    (max_bytes.0, **when_full == config::WhenFull::Forget)
}

/// Compiles the idempotency of a route with this time limit.
pub(super) fn compile(
    compiler: &mut Compiler<'_>,
    route: &str,
    written: &config::RouteIdempotency,
    time_limit: Duration,
) -> IdempotencyTerms {
    let config::RouteIdempotency {
        required,
        keep_for,
        scope,
        max_answer,
        headers,
        release_on,
        when_down,
    } = written;
    let path = format!("routes.{route}.idempotency");
    if **keep_for <= time_limit {
        let message = format!("`{path}.keep_for` is not longer than a request may take");
        compiler.mistake(
            Mistake::new(Code::OverParent, keep_for.span(), message)
                .hint("a key that is forgotten while its request runs protects nothing: a day is usual"),
        );
    }
    let store = compiler.config.limits_store.as_ref();
    if store.is_none() && when_down.is_written() {
        let message = format!("`{path}.when_down` does nothing without a `limits_store`");
        compiler.mistake(
            Mistake::new(Code::Conflict, when_down.span(), message)
                .hint("keys are in the memory of this process, which is never down: take it out, or name a store"),
        );
    }
    let in_store = store.is_some();
    let mut id = |key: &str| compiler.setting(&format!("{path}{key}"));
    let ids = IdempotencySettingIds {
        idempotency: id(""),
        required: id(".required"),
        max_answer: id(".max_answer"),
        when_down: id(".when_down"),
        max_bytes: compiler.setting("idempotency.max_bytes"),
    };
    IdempotencyTerms {
        required: **required,
        keep_for: **keep_for,
        shares_with_tenant: **scope == config::IdempotencyScope::Tenant,
        max_answer: usize::try_from(max_answer.0).unwrap_or(usize::MAX),
        headers: headers.iter().map(|name| name.value.clone()).collect(),
        release_on: release_on.iter().map(|status| **status).collect(),
        in_store,
        is_open_when_down: **when_down == config::IdempotencyWhenDown::Open,
        ids,
    }
}

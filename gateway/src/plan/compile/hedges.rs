//! Compiles second attempts that are made because a first one is slow.

use std::sync::Arc;

use crate::call::hedge::{Hedge, HedgeAfter};
use crate::config::{self, At, Code, Mistake};
use crate::plan::compile::compiler::Compiler;

/// Compiles the hedge of a part that calls this backend. Reports a backend whose calls can have none.
pub(super) fn compile(compiler: &mut Compiler<'_>, backend: &At<String>, written: &config::Hedge) -> Arc<Hedge> {
    let config::Hedge {
        after,
        at_least,
        at_most,
    } = written;
    let at = after.span().or(at_least.span()).or(at_most.span()).or(backend.span());
    let of_backend = compiler.config.backends.get(backend);
    if let Some(of_backend) = of_backend.filter(|of_backend| *of_backend.retry.attempts == 1) {
        let message = format!(
            "a `hedge` is paid from the retry budget, and `backends.{}` retries nothing",
            **backend
        );
        let mistake = Mistake::new(Code::Conflict, at, message)
            .related(of_backend.retry.attempts.span(), "no retries")
            .hint("take the `hedge` out, or let the backend retry");
        compiler.mistake(mistake);
    }
    if let Some(config::Endpoints::Listed(listed)) = of_backend.map(|of_backend| &of_backend.endpoints)
        && listed.len() == 1
    {
        let message = format!("`backends.{}` has one endpoint, so nothing is ever hedged", **backend);
        let hint = "a second attempt goes to another endpoint: list one, or take the `hedge` out";
        let doubt = Mistake::new(Code::Doubtful, at, message).hint(hint);
        compiler.warnings.push(doubt);
    }
    let after = match **after {
        config::HedgeAfter::P95 => HedgeAfter::P95,
        config::HedgeAfter::Time(time) => HedgeAfter::Time(time),
    };
    Arc::new(Hedge::new(after, **at_least, **at_most))
}

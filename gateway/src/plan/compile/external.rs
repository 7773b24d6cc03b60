//! Compiles the external service that knows the callers.

use std::sync::Arc;

use super::backends::Backends;
use super::compiler::Compiler;
use crate::auth::external::known_answers::{KnownAnswers, Lifetimes};
use crate::auth::external::question::{QuestionField, QuestionForm};
use crate::auth::external::{ExternalCallers, ExternalSettings};
use crate::config::{self, Code, Mistake, RequestFact};
use crate::plan::external_service::ExternalService;
use crate::plan::state::AnswersName;

/// Name of the service among the backends, and its path in the config.
pub const SERVICE: &str = "callers.external";

/// Compiles the service; `None` without one, or after a mistake.
pub(super) fn compile(compiler: &mut Compiler<'_>, backends: &Backends) -> Option<ExternalCallers> {
    let written = compiler.config.callers.external.as_ref()?;
    let config::External {
        url,
        // Compiled in `fields`.
        fields: _,
        request,
        cache,
        // Compiled as a backend.
        time_limit: _,
        bulkhead: _,
        breaker: _,
        retry: _,
        connections: _,
        tls: _,
    } = written;
    if let Some((name, _)) = compiler.config.backends.entry(SERVICE) {
        compiler.mistake(
            Mistake::new(
                Code::Conflict,
                name.span(),
                format!("no backend can be called `{SERVICE}`"),
            )
            .related(url.span(), "the external service is counted by this name")
            .hint("give the backend another name"),
        );
        return None;
    }
    // Callers come from the service alone, so any tenant may exist.
    compiler.tenants = None;
    let has = |fact| request.iter().any(|listed| listed.value == fact);
    let form = QuestionForm {
        fields: self::fields(compiler.config),
        method: has(RequestFact::Method),
        host: has(RequestFact::Host),
        path: has(RequestFact::Path),
        client_address: has(RequestFact::ClientAddress),
    };
    let entries = cache.as_ref().map_or(1, |cache| *cache.entries as usize);
    let name = AnswersName {
        url: url.to_string().into(),
        form: form.clone(),
        entries,
    };
    let mut kept = compiler.state.kept();
    let answers = kept.answers.get(&name).and_then(std::sync::Weak::upgrade);
    let answers = answers.unwrap_or_else(|| {
        let made = Arc::new(KnownAnswers::new(entries));
        kept.answers.insert(name, Arc::downgrade(&made));
        made
    });
    drop(kept);
    let settings = ExternalSettings {
        form,
        lifetimes: cache.as_ref().map(lifetimes),
        entries,
        tiers: compiler.config.tiers.iter().map(|(name, _)| Arc::clone(name)).collect(),
        setting: compiler.setting(SERVICE),
    };
    let service = ExternalService {
        backend: Arc::clone(backends.external()?),
        target: url.target.clone(),
    };
    Some(ExternalCallers::new(settings, answers, Arc::new(service)))
}

/// Returns what the service gets of a request.
pub(super) fn fields(config: &config::Config) -> Box<[QuestionField]> {
    let fields = config.callers.external.iter().flat_map(|external| &external.fields);
    fields
        .map(|field| match &field.value {
            config::ExternalField::Header(name) => QuestionField::Header(name.clone()),
            config::ExternalField::Cookie(name) => QuestionField::Cookie(name.as_str().into()),
        })
        .collect()
}

fn lifetimes(written: &config::ExternalCache) -> Lifetimes {
    let config::ExternalCache {
        ttl,
        refused,
        stale_if_error,
        // The size of the store.
        entries: _,
    } = written;
    Lifetimes {
        good: **ttl,
        refused: **refused,
        stale_if_error: **stale_if_error,
    }
}

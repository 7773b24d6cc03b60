//! Warns about settings that are valid but probably not intended. Defaults cause no warnings.

use std::time::Duration;

use crate::config::{self, Code, Mistake, Span};
use crate::plan::compile::compiler::Compiler;
use crate::plan::compile::literals;

pub(super) fn check(compiler: &mut Compiler<'_>) {
    let config = compiler.config;
    for (name, route) in config.routes.iter() {
        compiler.warnings.extend(literals::doubts(name, route));
    }
    for (name, backend) in config.backends.iter() {
        let doubts = [
            retries_without_time(name, backend),
            wait_without_end(config, name, backend),
        ];
        doubts
            .into_iter()
            .flatten()
            .for_each(|doubt| compiler.warnings.push(doubt));
    }
}

/// Warns if retries after a timeout are asked for and the first attempt may use all of the call's time. The default of
/// `on` does not ask for them.
fn retries_without_time(name: &str, backend: &config::Backend) -> Option<Mistake> {
    let (retry, attempt) = (&backend.retry, &backend.attempt_limit);
    let timed_out = retry.on.iter().find(|on| ***on == config::RetryOn::TimedOut)?;
    let written = timed_out.span()?;
    // An attempt limit that leaves too little time is reported with its backend.
    if *retry.attempts < 2 || attempt.is_written() {
        return None;
    }
    Some(
        Mistake::new(
            Code::Doubtful,
            Some(written),
            format!("an attempt of `backends.{name}` that has timed out is never made again"),
        )
        .related(backend.time_limit.span(), "the first attempt may take all of this")
        .hint("write an `attempt_limit`, so that time is left for the others"),
    )
}

/// Warns if the wait for a slot can use up all of the request's time.
fn wait_without_end(config: &config::Config, name: &str, backend: &config::Backend) -> Option<Mistake> {
    let wait = &backend.bulkhead.wait;
    if !wait.is_written() || *backend.bulkhead.queue == 0 {
        return None;
    }
    let own = (
        *backend.time_limit,
        format!("backends.{name}.time_limit"),
        backend.time_limit.span(),
    );
    let (limit, setting, at) =
        limits_above(config, name).fold(own, |least, other| if other.0 < least.0 { other } else { least });
    (wait.value >= limit).then(|| {
        Mistake::new(
            Code::Doubtful,
            wait.span(),
            format!("who waits this long for a slot of `backends.{name}` has no time left to use it"),
        )
        .related(at, format!("`{setting}`"))
        .hint(format!("a wait below {} leaves some", config::duration_text(limit)))
    })
}

/// Returns the limits of all routes and parts that call the backend: time, setting and location.
fn limits_above<'c>(
    config: &'c config::Config,
    backend: &'c str,
) -> impl Iterator<Item = (Duration, String, Option<Span>)> + 'c {
    let request = &config.time_limits.request;
    config.routes.iter().flat_map(move |(name, route)| {
        let whole = match &route.time_limit {
            Some(own) => (own.value, format!("routes.{name}.time_limit"), own.span()),
            None => (
                request.saturating_sub(*config.time_limits.reserve),
                "time_limits.request".to_owned(),
                request.span(),
            ),
        };
        match &route.target {
            config::Target::Backend { name, .. } if **name == *backend => vec![whole],
            config::Target::Split { entries, .. } if entries.iter().any(|entry| *entry.backend == *backend) => {
                vec![whole]
            }
            config::Target::Aggregate(aggregate) => {
                let calls = aggregate.parts.iter().filter(|(_, part)| *part.backend == *backend);
                calls
                    .map(|(part, written)| match &written.time_limit {
                        Some(own) if own.value < whole.0 => {
                            let setting = format!("routes.{name}.aggregate.parts.{part}.time_limit");
                            (own.value, setting, own.span())
                        }
                        _ => whole.clone(),
                    })
                    .collect()
            }
            config::Target::Backend { .. }
            | config::Target::Split { .. }
            | config::Target::Respond(_)
            | config::Target::Redirect(_) => Vec::new(),
        }
    })
}

//! Compiles routes whose requests several backends share.
//!
//! Invariant: every request of a compiled split has a backend.

use std::collections::HashSet;
use std::str::FromStr;
use std::sync::Arc;

use http::HeaderName;
use policies::split::{Percent, Share};

use crate::config::{self, At, Code, Mistake, Span, SplitEntry, SplitWhen};
use crate::plan::compile::backends::Backends;
use crate::plan::compile::compiler::Compiler;
use crate::plan::compile::request_keys::{check_field, check_key};
use crate::plan::compile::wanted::is;
use crate::plan::split::{Split, SplitCondition, SplitTarget};
use crate::request_key::RequestKey;

pub(super) fn compile(
    compiler: &mut Compiler<'_>,
    route: &str,
    entries: &[SplitEntry],
    parameters: &HashSet<String>,
    backends: &Backends,
) -> Option<Split> {
    for entry in entries {
        compiler.resolve("backend", &entry.backend, &compiler.config.backends);
        for tier in entry.when.iter().flat_map(|when| &when.tier) {
            compiler.resolve("tier", tier, &compiler.config.tiers);
        }
    }
    let key = key(compiler, route, entries, parameters);
    check_shares(compiler, route, entries);
    doubt_one_backend(compiler, route, entries);
    let compiled: Vec<_> = entries
        .iter()
        .enumerate()
        .map(|(index, entry)| {
            let SplitEntry {
                backend,
                percent,
                // Compiled in `key`, for all entries together.
                key: _,
                when,
            } = entry;
            let path = format!("routes.{route}.split[{index}].when");
            let when = match when {
                Some(when) => conditions(compiler, &path, when)?,
                None => Vec::new(),
            };
            Some(SplitTarget {
                backend: Arc::clone(backends.get(backend)?),
                share: match percent {
                    Some(percent) => Share::Part(Percent::from_hundredths(percent.hundredths())?),
                    None => Share::Rest,
                },
                when,
            })
        })
        .collect();
    let mut targets = compiled.into_iter().collect::<Option<Vec<_>>>()?;
    // The rest is what all others leave, wherever it is written. The others keep their order.
    targets.sort_by_key(|target| target.when.is_empty() && target.share == Share::Rest);
    Some(Split {
        prefix: format!("{route}\0").into_bytes().into(),
        key,
        targets,
    })
}

const fn is_rest(entry: &SplitEntry) -> bool {
    entry.percent.is_none() && entry.when.is_none()
}

/// Returns the key that all entries have in common.
fn key(compiler: &mut Compiler<'_>, route: &str, entries: &[SplitEntry], parameters: &HashSet<String>) -> RequestKey {
    let mut common: Option<&At<RequestKey>> = None;
    for entry in entries {
        let Some(key) = &entry.key else { continue };
        if entry.percent.is_none() {
            let message = format!("`routes.{route}.split` has a `key` without a `percent`");
            let mistake = Mistake::new(Code::Conflict, key.span(), message).label("nothing here is shared by key");
            compiler.mistake(mistake.hint("remove it, or write the `percent`"));
        }
        check_key(compiler, &format!("routes.{route}.split"), key, parameters);
        match common {
            Some(first) if first.value != key.value => {
                let message = format!("`routes.{route}.split` has two keys");
                let mistake =
                    Mistake::new(Code::Conflict, key.span(), message).related(first.span(), "here it is another");
                compiler.mistake(mistake.hint("percents of different keys do not add up: write one key"));
            }
            _ => common = common.or(Some(key)),
        }
    }
    common.map_or(RequestKey::Tenant, |key| key.value.clone())
}

/// Warns of a split that shares the requests with nobody.
fn doubt_one_backend(compiler: &mut Compiler<'_>, route: &str, entries: &[SplitEntry]) {
    let [first, others @ ..] = entries else { return };
    let last = others
        .last()
        .filter(|_| others.iter().all(|entry| *entry.backend == *first.backend));
    if let Some(last) = last {
        let message = format!(
            "all entries of `routes.{route}.split` have the backend `{}`",
            *first.backend
        );
        compiler.warnings.push(
            Mistake::new(Code::Doubtful, last.backend.span(), message)
                .related(first.backend.span(), "the same")
                .hint("name another backend, or write `backend` in place of `split`"),
        );
    }
}

/// Checks that the entries that are for all requests make up 100 %.
fn check_shares(compiler: &mut Compiler<'_>, route: &str, entries: &[SplitEntry]) {
    let at_split = || {
        let of_entries = entries.iter().find_map(|entry| entry.backend.span());
        of_entries.or_else(|| compiler.config.routes.entry(route).and_then(|(name, _)| name.span()))
    };
    let percents: Vec<_> = entries
        .iter()
        .filter(|entry| entry.when.is_none())
        .filter_map(|entry| entry.percent.as_ref())
        .collect();
    let sum: u32 = percents.iter().map(|percent| u32::from(percent.hundredths())).sum();
    let last = percents.last().and_then(|percent| percent.span());
    let all = u32::from(config::Percent::ALL.hundredths());
    let mut rests = entries.iter().filter(|entry| is_rest(entry));
    let (rest, second) = (rests.next(), rests.next());
    let mistake = |at: Option<Span>, message: String| Mistake::new(Code::Conflict, at, message);
    let found = if let (Some(first), Some(second)) = (rest, second) {
        let message = format!("two entries of `routes.{route}.split` take the rest");
        mistake(second.backend.span(), message)
            .related(first.backend.span(), "this takes it already")
            .hint("write a `percent` or a `when`")
    } else if sum > all {
        mistake(
            last,
            format!(
                "the percents of `routes.{route}.split` make {}, more than 100",
                text(sum)
            ),
        )
        .hint(match rest {
            Some(_) => "lower them: what is left goes to the entry without a `percent`",
            None => "lower them, or leave out one `percent`: that entry takes the rest",
        })
    } else if rest.is_none() && percents.is_empty() {
        mistake(
            at_split(),
            format!("`routes.{route}.split` has no backend for requests that meet no condition"),
        )
        .hint("add an entry with a `backend` alone: it takes the rest")
    } else if rest.is_none() && sum < all {
        mistake(
            last,
            format!("the percents of `routes.{route}.split` make {}, not 100", text(sum)),
        )
        .hint("leave out one `percent`: that entry takes the rest")
    } else {
        return;
    };
    compiler.mistake(found);
}

/// Writes a sum of hundredths of a percent as it would be written in a config.
fn text(hundredths: u32) -> String {
    let text = format!("{}.{:02}", hundredths / 100, hundredths % 100);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Compiles the conditions of one entry; `None` after a mistake.
fn conditions(compiler: &mut Compiler<'_>, path: &str, written: &SplitWhen) -> Option<Vec<SplitCondition>> {
    let SplitWhen {
        tier,
        tenant,
        header,
        cookie,
    } = written;
    let names = |names: &[At<String>]| names.iter().map(|name| name.as_str().into()).collect::<Vec<Box<str>>>();
    let mut all = Vec::new();
    if !tier.is_empty() {
        all.push(SplitCondition::Tier(names(tier)));
    }
    if !tenant.is_empty() {
        all.push(SplitCondition::Tenant(names(tenant)));
    }
    let mut are_good = true;
    for (name, wanted) in header.iter() {
        let is = is(compiler, &format!("{path}.header.{name}"), wanted);
        are_good &= is.is_some();
        let field = HeaderName::from_str(name);
        if let Ok(field) = &field {
            check_field(compiler, path, field, name.span());
        }
        all.extend(is.zip(field.ok()).map(|(is, name)| SplitCondition::Header { name, is }));
    }
    for (name, wanted) in cookie.iter() {
        let is = is(compiler, &format!("{path}.cookie.{name}"), wanted);
        are_good &= is.is_some();
        let name = name.value.as_ref().into();
        all.extend(is.map(|is| SplitCondition::Cookie { name, is }));
    }
    are_good.then_some(all)
}

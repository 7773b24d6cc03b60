//! Aggregates as written -> a recipe, and the call that each of its parts makes.

use std::collections::HashSet;
use std::str::FromStr;
use std::time::Duration;

use http::HeaderName;

use super::Desk;
use super::backends::Backends;
use super::routes::template;
use crate::aggregate::{
    Aggregate, Mistake as RecipeMistake, PartCall, PartDraft, Partial, Recipe, RecipeDraft, ShapeDraft,
};
use crate::config::{self, At, Code, Mistake};
use crate::template::{Place, Placeholder};

pub(super) fn compile(
    desk: &mut Desk<'_>,
    route: &str,
    written: &config::Aggregate,
    route_limit: Duration,
    parameters: &HashSet<String>,
    backends: &Backends,
) -> Option<Aggregate> {
    let names: Vec<&str> = written.parts.names().collect();
    let mut drafts = Vec::new();
    let mut calls = Vec::new();
    for (name, part) in written.parts.iter() {
        let call = part_call(desk, part, parameters, &names, backends);
        if let Some(call) = &call {
            drafts.push(draft(name, part, call));
        }
        if let Some(limit) = part.time_limit.as_ref().filter(|limit| limit.value > route_limit) {
            desk.mistake(
                Mistake::new(
                    Code::OverParent,
                    limit.span(),
                    format!("part `{name}` of `routes.{route}` may take longer than its route"),
                )
                .hint(format!(
                    "the route has {}: lower the part's limit or raise the route's",
                    config::duration_text(route_limit)
                )),
            );
        }
        calls.push(call);
    }
    let calls = calls.into_iter().collect::<Option<Vec<_>>>()?;
    let partial = match *written.partial {
        config::Partial::Deny => Partial::Deny,
        config::Partial::Allow => Partial::Allow,
    };
    let recipe = RecipeDraft {
        parts: drafts,
        partial,
        list_errors: *written.errors,
        ..RecipeDraft::default()
    };
    let recipe = match Recipe::compile(recipe) {
        Ok(recipe) => recipe,
        Err(mistakes) => {
            for mistake in mistakes {
                report(desk, route, written, &mistake);
            }
            return None;
        }
    };
    check_critical_path(desk, route, written, &recipe, route_limit);
    Some(Aggregate { recipe, calls })
}

fn part_call(
    desk: &mut Desk<'_>,
    part: &config::Part,
    parameters: &HashSet<String>,
    parts: &[&str],
    backends: &Backends,
) -> Option<PartCall> {
    desk.resolve("backend", &part.backend, &desk.config.backends);
    let target = template(desk, &part.path, Place::Path, parameters, parts);
    let query: Vec<_> = part
        .query
        .iter()
        .map(|(name, value)| {
            Some((
                name.to_string(),
                template(desk, value, Place::Query, parameters, parts)?,
            ))
        })
        .collect();
    let headers: Vec<_> = part
        .headers
        .iter()
        .map(|(name, value)| {
            Some((
                HeaderName::from_str(name).ok()?,
                template(desk, value, Place::Header, parameters, parts)?,
            ))
        })
        .collect();
    Some(PartCall {
        backend: backends.get(&part.backend).cloned()?,
        method: part.method.value.clone(),
        target: target?,
        query: query.into_iter().collect::<Option<_>>()?,
        headers: headers.into_iter().collect::<Option<_>>()?,
        time_limit: part.time_limit.as_ref().map(|limit| limit.value),
        body_limit: usize::try_from(part.body_limit.0).unwrap_or(usize::MAX),
    })
}

fn draft(name: &str, part: &config::Part, call: &PartCall) -> PartDraft {
    let texts = |all: &[At<String>]| all.iter().map(|text| text.value.clone()).collect();
    let splices = call
        .templates()
        .flat_map(|template| template.uses())
        .filter_map(|placeholder| match placeholder {
            Placeholder::Part { part, .. } => Some(part.to_string()),
            _ => None,
        });
    PartDraft {
        name: name.to_owned(),
        required: *part.required,
        needs: texts(&part.needs),
        splices: splices.collect(),
        shape: ShapeDraft {
            target: part.target.as_ref().map(|path| path.value.clone()),
            keep: texts(&part.keep),
            drop: texts(&part.drop),
            rename: part
                .rename
                .iter()
                .map(|(from, to)| (from.to_string(), to.value.clone()))
                .collect(),
        },
        group: part.group.as_ref().map(|group| group.value.clone()),
        fallback: part.fallback.as_ref().map(|fallback| fallback.value.value.clone()),
        ..PartDraft::default()
    }
}

fn report(desk: &mut Desk<'_>, route: &str, written: &config::Aggregate, mistake: &RecipeMistake) {
    let (code, part) = match mistake {
        RecipeMistake::UnknownNeed { part, .. } => (Code::UnknownName, Some(part)),
        RecipeMistake::Cycle { parts } => (Code::Cycle, parts.first()),
        RecipeMistake::NoParts => (Code::MissingKey, None),
        RecipeMistake::DuplicatePart { part } => (Code::DuplicateKey, Some(part)),
        RecipeMistake::BadPath { part, .. } => (Code::BadValue, Some(part)),
        RecipeMistake::UselessFallback { part, .. } => (Code::Conflict, Some(part)),
        RecipeMistake::UnplacedFallback { part } => (Code::BadValue, Some(part)),
        RecipeMistake::ReservedName { part } => (Code::Conflict, Some(part)),
    };
    let at = part
        .and_then(|part| written.parts.entry(part))
        .and_then(|(name, _)| name.span());
    desk.mistake(Mistake::new(code, at, format!("`routes.{route}.aggregate`: {mistake}")));
}

/// Parts that wait for each other must fit into the route one after the other, as far as limits are written.
fn check_critical_path(
    desk: &mut Desk<'_>,
    route: &str,
    written: &config::Aggregate,
    recipe: &Recipe,
    route_limit: Duration,
) {
    let limits: Vec<_> = written
        .parts
        .iter()
        .map(|(_, part)| part.time_limit.as_ref().map_or(Duration::ZERO, |limit| **limit))
        .collect();
    let path = recipe.critical_path(|part| limits[part]);
    if limits.iter().any(|limit| *limit > route_limit) || path.time <= route_limit {
        return;
    }
    let chain: Vec<_> = path
        .parts
        .iter()
        .filter_map(|part| written.parts.iter().nth(*part))
        .collect();
    let names: Vec<_> = chain.iter().map(|(name, _)| format!("`{name}`")).collect();
    let at = chain.last().and_then(|(name, part)| {
        let need = part.needs.first().and_then(At::span);
        need.or(name.span())
    });
    let mut mistake = Mistake::new(
        Code::OverParent,
        at,
        format!(
            "{} of `routes.{route}` may take {}, the route {}",
            names.join(" and then "),
            config::duration_text(path.time),
            config::duration_text(route_limit)
        ),
    )
    .hint("lower the limits along the chain of `needs`, or raise the route's");
    for (_, part) in &chain {
        if let Some(limit) = &part.time_limit {
            mistake = mistake.related(limit.span(), "on the chain");
        }
    }
    desk.mistake(mistake);
}

//! Checks that what a file of tests names is in the config under test.

use std::collections::BTreeSet;

use http::{HeaderName, HeaderValue};

use super::steps::described;
use crate::config::policy_tests::{PolicyTests, SentTo, Step};
use crate::config::{At, Code, Mistake, Mistakes, NamedMap, Span};
use crate::pipeline::explain::assumed_caller;
use crate::plan::Plan;
use crate::simulation::coverage::limit_names;

/// Returns the backend, and the number of its endpoint from 0, of `NAME` or `NAME/2`.
pub(super) fn endpoint_of(name: &str) -> (&str, Option<usize>) {
    match name.rsplit_once('/') {
        Some((backend, number)) => match number.parse::<usize>() {
            Ok(number) => (backend, Some(number.wrapping_sub(1))),
            Err(_) => (name, None),
        },
        None => (name, None),
    }
}

/// Returns every name that the config does not have.
pub(super) fn check(tests: &PolicyTests, plan: &Plan) -> Mistakes {
    let mut mistakes = Mistakes::default();
    let known = Known::of(plan);
    for (name, caller) in tests.callers.iter() {
        if let (Some(key), None) = (&caller.key, plan.authenticator.api_key_header()) {
            let message = "the config has no API keys";
            mistakes.push(Mistake::new(Code::Conflict, key.span(), message).hint("write `callers.api_keys` there"));
        }
        if let Err(why) = assumed_caller(&described(caller, 1)) {
            mistakes.push(Mistake::new(
                Code::BadValue,
                name.span(),
                format!("`callers.{name}`: {why}"),
            ));
        }
        if let Some(tier) = &caller.tier {
            known.check("tier", &known.tiers, tier, &mut mistakes);
        }
        check_headers(&caller.headers, &mut mistakes);
    }
    known.check_scripts(&tests.backends, &mut mistakes);
    for step in tests.tests.iter().flat_map(|(_, steps)| steps) {
        known.check_step(step, &mut mistakes);
    }
    mistakes
}

/// Names in the config.
struct Known<'a> {
    routes: BTreeSet<&'a str>,
    tiers: BTreeSet<&'a str>,
    limits: BTreeSet<&'a str>,
    /// Paths of settings that can decide.
    settings: BTreeSet<&'a str>,
    backends: BTreeSet<&'a str>,
    /// URLs of endpoints.
    endpoints: BTreeSet<&'a str>,
    plan: &'a Plan,
}

impl<'a> Known<'a> {
    fn of(plan: &'a Plan) -> Self {
        let written = plan.backends.iter().flat_map(|backend| backend.written.all());
        Self {
            routes: plan.listed.iter().map(|route| &*route.name).collect(),
            tiers: plan.tiers.by_name.keys().map(|name| &**name).collect(),
            limits: limit_names(plan),
            settings: plan.settings.iter().map(|(_, setting)| &*setting.path).collect(),
            backends: plan.backends.iter().map(|backend| &*backend.name).collect(),
            endpoints: written.map(|written| &*written.origin.url).collect(),
            plan,
        }
    }

    fn check(&self, kind: &str, names: &BTreeSet<&str>, wanted: &At<String>, mistakes: &mut Mistakes) {
        if !names.contains(wanted.value.as_str()) {
            mistakes.push(unknown(kind, names, wanted, wanted.span()));
        }
    }

    fn check_scripts<T>(&self, scripts: &NamedMap<T>, mistakes: &mut Mistakes) {
        for (name, _) in scripts.iter() {
            let (backend, endpoint) = endpoint_of(name);
            let found = self.plan.backends.iter().find(|known| *known.name == *backend);
            let Some(found) = found else {
                mistakes.push(unknown("backend", &self.backends, backend, name.span()));
                continue;
            };
            let count = found.written.all().len().max(1);
            if endpoint.is_some_and(|number| number >= count) {
                let message = format!("the backend `{backend}` has no endpoint with this number");
                let hint = match count {
                    1 => format!("it has one: write `{backend}`"),
                    count => format!("they are `{backend}/1` to `{backend}/{count}`"),
                };
                mistakes.push(Mistake::new(Code::UnknownName, name.span(), message).hint(hint));
            }
        }
    }

    fn check_step(&self, step: &Step, mistakes: &mut Mistakes) {
        self.check_scripts(&step.backends, mistakes);
        check_headers(&step.headers, mistakes);
        let Some(expect) = &step.expect else { return };
        for (kind, names, wanted) in [
            ("route", &self.routes, &expect.route),
            ("tier", &self.tiers, &expect.tier),
            ("limit", &self.limits, &expect.limit),
            ("setting", &self.settings, &expect.by),
        ] {
            if let Some(wanted) = wanted {
                self.check(kind, names, wanted, mistakes);
            }
        }
        let places: BTreeSet<_> = self.backends.union(&self.endpoints).copied().collect();
        match &expect.sent_to {
            Some(SentTo::One(wanted)) if wanted.value != "nothing" && !is_url(wanted) => {
                self.check("backend or endpoint", &places, wanted, mistakes);
            }
            Some(SentTo::Counts(counts)) => {
                let is_unknown = |name: &str| !places.contains(name) && !is_url(name);
                for (name, _) in counts.iter().filter(|(name, _)| is_unknown(&name.value)) {
                    mistakes.push(unknown("backend or endpoint", &places, name, name.span()));
                }
            }
            Some(SentTo::One(_)) | None => {}
        }
        for (name, _) in expect
            .shadowed
            .iter()
            .filter(|(name, _)| !self.limits.contains(&*name.value))
        {
            mistakes.push(unknown("limit", &self.limits, name, name.span()));
        }
        for (name, _) in expect.headers.iter() {
            check_name(name, mistakes);
        }
    }
}

/// Whether a place is an endpoint by its URL. A config without it fails the expectation, and is not a mistake of the tests.
fn is_url(name: &str) -> bool {
    name.contains("://")
}

fn unknown(kind: &str, names: &BTreeSet<&str>, wanted: &str, at: Option<Span>) -> Mistake {
    let mut known = NamedMap::default();
    for name in names {
        known.put(name, ());
    }
    let wanted = match at {
        Some(at) => At::written(wanted.to_owned(), at),
        None => At::unwritten(wanted.to_owned()),
    };
    known.unknown(kind, &wanted)
}

fn check_headers(headers: &NamedMap<At<String>>, mistakes: &mut Mistakes) {
    for (name, value) in headers.iter() {
        check_name(name, mistakes);
        if HeaderValue::from_str(value).is_err() {
            let message = format!("the value of `{name}` has characters that no header field has");
            mistakes.push(Mistake::new(Code::BadValue, value.span(), message));
        }
        if name.eq_ignore_ascii_case("x-request-id") {
            let message = "`x-request-id` is set by the tests themselves";
            mistakes.push(Mistake::new(Code::Conflict, name.span(), message).hint("leave it out"));
        }
    }
}

fn check_name(name: &At<std::sync::Arc<str>>, mistakes: &mut Mistakes) {
    if name.parse::<HeaderName>().is_err() {
        let message = format!("`{name}` is not the name of a header field");
        mistakes.push(Mistake::new(Code::BadValue, name.span(), message));
    }
}

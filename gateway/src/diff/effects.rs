//! Compares what two configs decide on the same requests, and says each difference once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::witnesses::{Caller, Sample, callers, samples};
use super::{Effect, Side};
use crate::config::duration_text;
use crate::pipeline::explain::{Explanation, Question, Step, explain};
use crate::plan::Plan;
use crate::setting::Location;

/// Topics of an explanation that are about other requests.
const OTHERS: [&str; 2] = ["other_route", "client"];
/// Most places that an effect names.
const NAMED: usize = 3;

/// One fact of an explanation.
#[derive(Debug, Clone)]
struct Fact {
    /// Topics from the outermost to that of the fact.
    topics: Vec<&'static str>,
    setting: Option<String>,
    text: String,
    at: Option<Location>,
}

/// A difference between two explanations.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Changed {
    topic: String,
    setting: Option<String>,
    old: Option<String>,
    new: Option<String>,
}

/// Where a difference was seen.
#[derive(Default)]
struct Seen {
    /// Order of the first sight.
    order: usize,
    samples: BTreeSet<String>,
    callers: BTreeSet<Caller>,
    old_at: Option<Location>,
    new_at: Option<Location>,
}

/// Returns what is decided differently.
pub(super) fn compare(old: &Side, new: &Side) -> Vec<Effect> {
    let mut effects = routes(old, new);
    let (of_old, of_new) = (samples(&old.plan), samples(&new.plan));
    let all: BTreeSet<&Sample> = of_old.union(&of_new).collect();
    let callers = callers([&old.plan, &new.plan]);
    let labels: BTreeSet<String> = all.iter().map(|sample| sample.label()).collect();
    let mut seen: BTreeMap<Changed, Seen> = BTreeMap::new();
    for sample in all {
        for caller in &callers {
            let (before, after) = (decide(&old.plan, sample, caller), decide(&new.plan, sample, caller));
            let (Some(before), Some(after)) = (before, after) else {
                continue;
            };
            let differences = differences(&before, &after);
            let is = |topic: &str, changed: &Changed| {
                changed.topic == topic && changed.old.is_some() && changed.new.is_some()
            };
            let goes_elsewhere = differences.iter().any(|(changed, ..)| is("route", changed));
            let ends_otherwise = differences.iter().any(|(changed, ..)| is("outcome", changed));
            for (changed, old_at, new_at) in differences {
                // What else is said follows from it.
                let follows = match (goes_elsewhere, ends_otherwise) {
                    (true, _) => !matches!(&*changed.topic, "route" | "outcome"),
                    (false, true) => changed.old.is_none() || changed.new.is_none(),
                    (false, false) => false,
                };
                if follows {
                    continue;
                }
                let order = seen.len();
                let seen = seen.entry(changed).or_insert_with(|| Seen {
                    order,
                    old_at,
                    new_at,
                    ..Seen::default()
                });
                seen.samples.insert(sample.label());
                seen.callers.insert(caller.clone());
            }
        }
    }
    let mut seen: Vec<_> = seen.into_iter().collect();
    seen.sort_by_key(|(_, seen)| seen.order);
    effects.extend(seen.into_iter().map(|(changed, seen)| Effect {
        text: format!("{}: {}", place(&seen, &labels, callers.len()), sentence(&changed)),
        topic: changed.topic,
        old_at: seen.old_at,
        new_at: seen.new_at,
    }));
    effects
}

fn decide(plan: &Plan, sample: &Sample, caller: &Caller) -> Option<Vec<Fact>> {
    let question = Question::read(&sample.described(caller), plan).ok()?;
    let explanation = explain(plan, Arc::default(), question, false);
    let Explanation { outcome, steps, .. } = explanation;
    let mut facts = vec![Fact {
        topics: vec!["outcome"],
        setting: outcome.setting,
        text: outcome.text,
        at: outcome.at,
    }];
    for step in &steps {
        add(step, &[], &mut facts);
    }
    Some(facts)
}

fn add(step: &Step, around: &[&'static str], facts: &mut Vec<Fact>) {
    if OTHERS.contains(&step.topic) {
        return;
    }
    let topics = [around, &[step.topic]].concat();
    facts.push(Fact {
        setting: step.setting.clone(),
        text: lasting(step),
        at: step.at.clone(),
        topics: topics.clone(),
    });
    for inner in &step.steps {
        add(inner, &topics, facts);
    }
}

/// Returns the text of a step without what only a running gateway has: counts, and what is left.
fn lasting(step: &Step) -> String {
    let text = match step.topic {
        "limit" => step.text.rsplit_once(", ").map_or(&*step.text, |(terms, _)| terms),
        _ => &step.text,
    };
    text.to_owned()
}

/// Pairs the facts of two explanations and returns the pairs that differ.
fn differences(old: &[Fact], new: &[Fact]) -> Vec<(Changed, Option<Location>, Option<Location>)> {
    let mut differences = Vec::new();
    let topics: BTreeSet<&Vec<&str>> = old.iter().chain(new).map(|fact| &fact.topics).collect();
    let mut ordered: Vec<&Vec<&str>> = topics.into_iter().collect();
    let rank = |topics: &[&str]| old.iter().chain(new).position(|fact| *fact.topics == *topics);
    ordered.sort_by_key(|topics| rank(topics));
    for topics in ordered {
        let of =
            |facts: &[Fact]| -> Vec<Fact> { facts.iter().filter(|fact| fact.topics == *topics).cloned().collect() };
        let (mut before, mut after) = (of(old), of(new));
        // Those of one setting belong together, and then those with one text; the rest are taken in order.
        let mut pairs: Vec<(Option<Fact>, Option<Fact>)> = Vec::new();
        before.retain(|fact| {
            let same = |other: &Fact| other.setting == fact.setting && other.text == fact.text;
            match after.iter().position(same) {
                Some(at) => {
                    after.remove(at);
                    false
                }
                None => true,
            }
        });
        before.retain(
            |fact| match after.iter().position(|other| other.setting == fact.setting) {
                Some(at) => {
                    pairs.push((Some(fact.clone()), Some(after.remove(at))));
                    false
                }
                None => true,
            },
        );
        let mut rest = after.into_iter();
        for fact in before {
            pairs.push((Some(fact), rest.next()));
        }
        pairs.extend(rest.map(|fact| (None, Some(fact))));
        for (before, after) in pairs {
            let text = |fact: &Option<Fact>| fact.as_ref().map(|fact| fact.text.clone());
            let (old_text, new_text) = (text(&before), text(&after));
            if old_text == new_text {
                continue;
            }
            let setting = after.as_ref().or(before.as_ref()).and_then(|fact| fact.setting.clone());
            let changed = Changed {
                topic: topics.last().copied().unwrap_or_default().replace('_', " "),
                setting,
                old: old_text,
                new: new_text,
            };
            let at = |fact: Option<Fact>| fact.and_then(|fact| fact.at);
            differences.push((changed, at(before), at(after)));
        }
    }
    differences
}

fn sentence(changed: &Changed) -> String {
    let Changed { topic, old, new, .. } = changed;
    match (old, new) {
        (Some(old), Some(new)) => format!("{topic} {old} -> {new}"),
        (Some(old), None) => format!("no more {topic} {old}"),
        (None, Some(new)) => format!("now {topic} {new}"),
        (None, None) => topic.clone(),
    }
}

/// Names the requests: `tenant acme on GET /search`, `GET /search`, `tenant acme on every route`.
fn place(seen: &Seen, all: &BTreeSet<String>, callers: usize) -> String {
    let some = |names: Vec<String>| match names.len() {
        0..=NAMED => names.join(", "),
        count => format!("{} and {} more", names[..NAMED].join(", "), count - NAMED),
    };
    let requests = match seen.samples.len() == all.len() {
        true => "every route".to_owned(),
        false => some(seen.samples.iter().cloned().collect()),
    };
    match seen.callers.len() == callers {
        true => requests,
        false => {
            let callers = some(seen.callers.iter().map(Caller::label).collect());
            format!("{callers} on {requests}")
        }
    }
}

/// Returns routes that are gone, new, or reached by none of their requests any more, and worst cases that differ.
fn routes(old: &Side, new: &Side) -> Vec<Effect> {
    let mut effects = Vec::new();
    let mut say = |topic: &str, route: &str, text: String| {
        let setting = format!("routes.{route}");
        effects.push(Effect {
            topic: topic.to_owned(),
            text,
            old_at: old
                .plan
                .outline
                .is_written(&setting)
                .then(|| old.place(&setting))
                .flatten(),
            new_at: new
                .plan
                .outline
                .is_written(&setting)
                .then(|| new.place(&setting))
                .flatten(),
        });
    };
    let routes = |side: &'_ Side| -> BTreeSet<Arc<str>> {
        side.plan
            .outline
            .routes
            .iter()
            .map(|route| Arc::clone(&route.name))
            .collect()
    };
    let (before, after) = (routes(old), routes(new));
    for route in before.difference(&after) {
        say("route", route, format!("route {route} is gone"));
    }
    for route in after.difference(&before) {
        say("route", route, format!("route {route} is new"));
    }
    for route in before.intersection(&after) {
        if reaches(&old.plan, route) && !reaches(&new.plan, route) {
            say(
                "route",
                route,
                format!("route {route} is no longer reachable by its own requests"),
            );
        }
        let worst = |side: &Side| {
            let outlines = side.plan.outline.routes.iter();
            outlines
                .filter(|outline| outline.name == *route)
                .map(|outline| outline.worst_case_ms)
                .max()
        };
        if let (Some(was), Some(is)) = (worst(old), worst(new))
            && was != is
        {
            let time = |millis| duration_text(Duration::from_millis(millis));
            say(
                "time",
                route,
                format!("worst case of route {route}: {} -> {}", time(was), time(is)),
            );
        }
    }
    effects
}

/// Whether one of the requests that a route is made for gets to it.
fn reaches(plan: &Plan, route: &str) -> bool {
    samples(plan)
        .iter()
        .filter(|sample| *sample.route == *route)
        .any(|sample| {
            let Ok(question) = Question::read(&sample.described(&Caller::Nobody), plan) else {
                return true;
            };
            let explanation = explain(plan, Arc::default(), question, false);
            let found = explanation.steps.iter().find(|step| step.topic == "route");
            found.is_none_or(|step| step.facts.get("route").is_some_and(|name| *name == *route))
        })
}

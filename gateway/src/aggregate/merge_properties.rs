//! Property tests of merging: for any recipe with shaping, lists and chosen fields, and any results, the answer is the
//! one that the naive way gives.

use bytes::Bytes;
use http::StatusCode;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::draft::{Conflict, Errors, IntoDraft, PartDraft, Partial, RecipeDraft, Splice};
use super::fan_out::Outcome;
use super::fault::{Cause, PartFault};
use super::merge::merge;
use super::naive;
use super::recipe::Recipe;
use super::shape::{Shape, ShapeDraft};
use super::shape_properties::{accepted, documents, drafts};
use crate::json::Document;

/// Result of a part.
#[derive(Debug, Clone)]
enum Act {
    Answer(Value),
    Absent,
    Skipped,
    Failed,
}

fn acts() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => documents().prop_map(Act::Answer),
        1 => Just(Act::Absent),
        1 => Just(Act::Skipped),
        1 => Just(Act::Failed),
    ]
}

/// Answers to the calls for the elements of a list, or no such answers.
fn acts_of_elements() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => prop::collection::vec(documents(), 0..4).prop_map(|all| Act::Answer(Value::Array(all))),
        1 => Just(Act::Absent),
        1 => Just(Act::Failed),
    ]
}

/// An answer with lists at two places.
fn answers_with_lists() -> impl Strategy<Value = Act> {
    let list = || prop::collection::vec(documents(), 0..4);
    let answer = (list(), list(), documents())
        .prop_map(|(one, other, rest)| Act::Answer(json!({ "items": one, "deep": { "list": other }, "a": rest })));
    prop_oneof![5 => answer, 1 => acts()]
}

fn groups() -> impl Strategy<Value = Option<&'static str>> {
    prop::sample::select(vec![None, Some("."), Some("a"), Some("a.c"), Some("g.h")])
}

/// Where the answers for the elements are put: the list's steps, and names in an element.
fn places() -> impl Strategy<Value = (&'static str, &'static str, bool)> {
    (
        prop::sample::select(vec!["items", "deep.list"]),
        prop::sample::select(vec!["", ".x", ".a", ".a.c"]),
        any::<bool>(),
    )
}

fn into(part: &str, (list, names, leaves_out_null): (&str, &str, bool)) -> IntoDraft {
    let dot = if list.is_empty() { "" } else { "." };
    IntoDraft {
        path: format!("{list}{dot}*{names}"),
        list: Some(Splice {
            part: part.into(),
            steps: list
                .split('.')
                .filter(|step| !step.is_empty())
                .map(Into::into)
                .collect(),
        }),
        leaves_out_null,
    }
}

fn outcome(recipe: &Recipe, index: usize, act: &Act) -> Outcome {
    match act {
        Act::Absent => Outcome::Absent,
        Act::Skipped => Outcome::Skipped,
        Act::Failed => Outcome::Failed(PartFault::new(Cause::Status(StatusCode::NOT_FOUND))),
        Act::Answer(value) => {
            let document = Document::check(&Bytes::from(value.to_string()), usize::MAX).unwrap();
            match recipe.parts()[index].read(&document) {
                Ok((found, _)) => Outcome::Data(found),
                Err(cause) => Outcome::Failed(PartFault::new(cause)),
            }
        }
    }
}

fn deep(present: Value, later: Value, appends: bool) -> Value {
    match (present, later) {
        (Value::Object(mut present), Value::Object(later)) => {
            for (name, value) in later {
                let merged = match present.remove(&name) {
                    Some(own) => deep(own, value, appends),
                    None => value,
                };
                present.insert(name, merged);
            }
            Value::Object(present)
        }
        (Value::Array(mut present), Value::Array(later)) if appends => {
            present.extend(later);
            Value::Array(present)
        }
        (_, later) => later,
    }
}

/// Merges a later value at a place of the answer. `ways` are the group paths.
fn combine(present: Value, later: Value, here: &str, ways: &[String], conflict: Conflict) -> Option<Value> {
    let is_on_the_way = here.is_empty() || ways.iter().any(|way| way.starts_with(&format!("{here}.")));
    match (present, later) {
        (Value::Object(mut present), Value::Object(later)) if is_on_the_way => {
            for (name, value) in later {
                let within = if here.is_empty() {
                    name.clone()
                } else {
                    format!("{here}.{name}")
                };
                let merged = match present.remove(&name) {
                    Some(own) => combine(own, value, &within, ways, conflict)?,
                    None => value,
                };
                present.insert(name, merged);
            }
            Some(Value::Object(present))
        }
        (present, later) => match conflict {
            Conflict::Last => Some(later),
            Conflict::First => Some(present),
            Conflict::Deep => Some(deep(present, later, false)),
            Conflict::Concat => Some(deep(present, later, true)),
            Conflict::Error => None,
        },
    }
}

fn nest(path: &str, value: Value) -> Value {
    path.rsplit('.').fold(value, |value, name| json!({ name: value }))
}

/// What one part puts at the root, or `None` if that cannot be done.
fn placed(draft: &PartDraft, value: Value) -> Option<Value> {
    let collection = draft.collection.as_deref();
    match (draft.group.as_deref(), value) {
        (Some("."), object @ Value::Object(_)) => Some(object),
        (Some("."), Value::Null) => Some(json!({})),
        (Some("."), array @ Value::Array(_)) => Some(match collection {
            Some(path) => nest(path, array),
            // Not taken apart at dots: it is one name.
            None => json!({ &draft.name: array }),
        }),
        (Some("."), _) => None,
        (group, array @ Value::Array(_)) if collection.is_some() => Some(nest(
            &format!("{}.{}", group.unwrap_or(&draft.name), collection.unwrap()),
            array,
        )),
        (group, value) => Some(nest(group.unwrap_or(&draft.name), value)),
    }
}

/// Merges the slow way. `None`: there is no answer.
fn naive_answer(draft: &RecipeDraft, acts: &[Act], keep: Option<&[String]>) -> Option<Value> {
    let mut answers: Vec<Option<Value>> = acts
        .iter()
        .map(|act| match act {
            Act::Answer(value) => Some(value.clone()),
            Act::Absent | Act::Skipped | Act::Failed => None,
        })
        .collect();
    let shaped = |index: usize, value: &Value| {
        let part = &draft.parts[index];
        let mut rules = part.shape.clone();
        // What is put into its list is kept.
        let host = |into: &IntoDraft| into.list.as_ref().is_some_and(|list| list.part == part.name);
        for into in draft
            .parts
            .iter()
            .filter_map(|other| other.into.as_ref())
            .filter(|into| host(into))
        {
            let path = if part.each {
                into.path.trim_start_matches("*").trim_start_matches('.')
            } else {
                &into.path
            };
            // A place at the target itself has no path below it.
            let target = rules.target.as_deref().unwrap_or_default();
            let path = path.strip_prefix(target).unwrap_or(path).trim_start_matches('.');
            if !rules.keep.is_empty() && !path.is_empty() {
                rules.keep.push(path.to_owned());
            }
        }
        match value {
            Value::Array(elements) if part.each => elements
                .iter()
                .map(|one| {
                    if one.is_null() {
                        Value::Null
                    } else {
                        naive::shape(&rules, one)
                    }
                })
                .collect(),
            value => naive::shape(&rules, value),
        }
    };
    // Part 2 goes into part 1, and that into part 0.
    for name in ["p3", "p2", "p1"] {
        let Some(index) = draft.parts.iter().position(|part| part.name == name) else {
            continue;
        };
        let Some(into) = &draft.parts[index].into else { continue };
        let Some(values) = answers[index].take() else { continue };
        let host = draft
            .parts
            .iter()
            .position(|part| part.name == into.list.as_ref().unwrap().part)
            .unwrap();
        if let (Value::Array(values), Some(answer)) = (shaped(index, &values), &mut answers[host]) {
            naive::embed(answer, &into.path, &values, into.leaves_out_null);
        }
    }
    let mut whole = json!({});
    let mut has_data = false;
    let mut has_failed = acts.iter().any(|act| matches!(act, Act::Failed));
    let ways: Vec<String> = draft
        .parts
        .iter()
        .flat_map(|part| match (part.group.as_deref(), &part.collection) {
            (Some("."), Some(path)) => vec![path.clone()],
            (Some(group), _) => vec![group.to_owned()],
            (None, _) => Vec::new(),
        })
        .collect();
    for (index, (part, answer)) in draft.parts.iter().zip(&answers).enumerate() {
        if draft.document.as_ref().is_some_and(|name| *name != part.name) {
            continue;
        }
        let Some(answer) = answer else { continue };
        let value = shaped(index, answer);
        if draft.document.is_some() {
            (whole, has_data) = (value, true);
            continue;
        }
        let Some(value) = placed(part, value) else {
            has_failed = true;
            continue;
        };
        has_data = true;
        whole = combine(whole, value, "", &ways, draft.conflict)?;
    }
    if !has_data && has_failed {
        return None;
    }
    if draft.document.is_some() && !has_data {
        whole = Value::Null;
        // It is required.
        let index = draft
            .parts
            .iter()
            .position(|part| Some(&part.name) == draft.document.as_ref())
            .unwrap();
        if matches!(acts[index], Act::Failed) {
            return None;
        }
    }
    if let Some(keep) = keep {
        let rules = ShapeDraft {
            keep: keep.to_vec(),
            ..ShapeDraft::default()
        };
        whole = naive::shape(&rules, &whole);
    }
    Some(match &draft.wrap {
        Some(wrap) => nest(wrap, whole),
        None => whole,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..cases::counted() })]

    #[test]
    fn the_answer_is_what_the_naive_way_gives(
        shapes in prop::collection::vec(drafts(), 5),
        shaped in prop::collection::vec(prop::bool::weighted(0.4), 5),
        placing in prop::collection::vec((groups(), prop::option::weighted(0.2, Just("list".to_owned()))), 3),
        (one, other) in (places(), places()),
        chained in prop::sample::select(vec!["", ".x", ".a"]),
        acts in (answers_with_lists(), acts_of_elements(), acts_of_elements(), acts_of_elements(), acts(), acts()),
        conflict in prop::sample::select(vec![Conflict::Last, Conflict::First, Conflict::Deep, Conflict::Concat, Conflict::Error]),
        document in prop::bool::weighted(0.3),
        reversed in any::<bool>(),
        wrap in prop::option::weighted(0.3, prop::sample::select(vec!["data", "w.x"])),
        keep in prop::option::weighted(0.3, prop::collection::vec(prop::sample::select(vec!["a", "items", "items.a", "p4", "g.h.a", "x"]).prop_map(str::to_owned), 1..4)),
    ) {
        let shape = |index: usize| match shaped[index] {
            true => accepted(shapes[index].clone()).0,
            false => ShapeDraft::default(),
        };
        let part = |index: usize| PartDraft {
            name: format!("p{index}"),
            shape: shape(index.min(4)),
            ..PartDraft::default()
        };
        let placed = |index: usize, place: usize| PartDraft {
            group: placing[place].0.filter(|_| !document).map(str::to_owned),
            collection: placing[place].1.clone().filter(|_| !document),
            ..part(index)
        };
        // Two places of one list may not be in each other.
        let overlap = one.0 == other.0 && (one.1.starts_with(other.1) || other.1.starts_with(one.1));
        let other_list = if one.0 == "items" { "deep.list" } else { "items" };
        let other = if overlap { (other_list, other.1, other.2) } else { other };
        let of_elements = |index: usize, into| PartDraft {
            each: true,
            into: Some(into),
            ..part(index)
        };
        let mut parts = vec![
            placed(0, 0),
            of_elements(1, into("p0", one)),
            of_elements(2, into("p1", ("", chained, other.2))),
            of_elements(3, into("p0", other)),
            placed(4, 1),
            placed(5, 2),
        ];
        let mut acts = vec![acts.0, acts.1, acts.2, acts.3, acts.4, acts.5];
        if reversed {
            parts.reverse();
            acts.reverse();
        }
        let draft = RecipeDraft {
            parts,
            partial: Partial::Allow,
            conflict,
            errors: Errors::Unlisted,
            wrap: wrap.map(str::to_owned),
            document: document.then(|| "p0".to_owned()),
            body_limit: None,
        };
        let mut draft = draft;
        let mut compiled = Recipe::compile(draft.clone());
        if compiled.is_err() {
            // The shape takes a place away where something is put.
            for part in &mut draft.parts {
                (part.shape.target, part.shape.drop) = (None, Vec::new());
            }
            compiled = Recipe::compile(draft.clone());
        }
        let recipe = compiled.unwrap();
        let outcomes: Vec<_> = acts.iter().enumerate().map(|(index, act)| outcome(&recipe, index, act)).collect();
        let fields = keep.as_ref().map(|keep| Shape::compile(&ShapeDraft { keep: keep.clone(), ..ShapeDraft::default() }).unwrap());
        let found = merge(&recipe, outcomes.clone(), fields.as_ref());
        prop_assert_eq!(&merge(&recipe, outcomes, fields.as_ref()), &found);
        let expected = naive_answer(&draft, &acts, keep.as_deref());
        match found {
            Ok(answer) => {
                // No name appears twice.
                prop_assert!(Document::check(&answer.body, usize::MAX).is_ok(), "{:?}", answer.body);
                let found: Value = serde_json::from_slice(&answer.body).unwrap();
                prop_assert_eq!(Some(found), expected, "{:#?} of {:?}", draft, acts);
            }
            Err(failure) => prop_assert_eq!(None, expected, "{:?}: {:#?} of {:?}", failure, draft, acts),
        }
    }
}

#[test]
fn the_naive_way_knows_maps_from_nothing() {
    let draft = RecipeDraft {
        parts: vec![PartDraft {
            name: "p0".into(),
            ..PartDraft::default()
        }],
        ..RecipeDraft::default()
    };
    let found = naive_answer(&draft, &[Act::Answer(Value::Object(Map::new()))], None);
    assert_eq!(found, Some(json!({ "p0": {} })));
}

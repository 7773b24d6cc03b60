//! Shapes and embeds parsed values, slowly and in the plainest way, so that tests can compare the fast way with it.
//!
//! Shares no code with the fast way but the types of the config. A path is followed to every place that it leads to;
//! then each place is changed.

use serde_json::{Map, Value};

use super::shape::{MapDraft, ShapeDraft};

/// Way from the top of a value to a place in it.
type Way = Vec<Step>;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Name(String),
    Index(usize),
}

fn words(path: &str) -> Vec<&str> {
    path.split('.').collect()
}

fn at<'v>(value: &'v mut Value, way: &[Step]) -> Option<&'v mut Value> {
    way.iter().try_fold(value, |value, step| match step {
        Step::Name(name) => value.as_object_mut()?.get_mut(name),
        Step::Index(index) => value.as_array_mut()?.get_mut(*index),
    })
}

/// Children of a value, with the words of a path that remain below each.
fn below<'p>(value: &Value, words: &[&'p str]) -> Vec<(Step, Value, Vec<&'p str>)> {
    let (first, rest) = (words.first(), words.get(1..).unwrap_or_default());
    match value {
        Value::Object(members) => members
            .iter()
            .filter(|(name, _)| first.is_some_and(|first| *first == "*" || first == name))
            .map(|(name, value)| (Step::Name(name.clone()), value.clone(), rest.to_vec()))
            .collect(),
        Value::Array(elements) => {
            let rest = if first == Some(&"*") { rest } else { words };
            let all = elements.iter().enumerate();
            all.map(|(index, value)| (Step::Index(index), value.clone(), rest.to_vec()))
                .collect()
        }
        _ => Vec::new(),
    }
}

/// Ways to the places at which `ends` says that the path ends.
fn ways(value: &Value, words: &[&str], ends: &dyn Fn(&Value, &[&str]) -> bool) -> Vec<Way> {
    if ends(value, words) {
        return vec![Vec::new()];
    }
    let mut found = Vec::new();
    for (step, child, rest) in below(value, words) {
        for way in ways(&child, &rest, ends) {
            found.push([&[step.clone()][..], &way].concat());
        }
    }
    found
}

/// Ways to all objects that a path leads to. Arrays at its end are passed through.
fn objects(value: &Value, words: &[&str]) -> Vec<Way> {
    ways(value, words, &|value, words| words.is_empty() && value.is_object())
}

fn put(place: &mut Value, names: &[&str], value: Value) {
    let Some((first, rest)) = names.split_first() else {
        *place = value;
        return;
    };
    if !place.is_object() {
        *place = Value::Object(Map::new());
    }
    let members = place.as_object_mut().unwrap();
    put(members.entry(*first).or_insert(Value::Null), rest, value);
}

fn keep(value: &Value, paths: &[Vec<&str>]) -> Option<Value> {
    if paths.iter().any(Vec::is_empty) {
        return Some(value.clone());
    }
    match value {
        Value::Object(members) => {
            let kept = members.iter().filter_map(|(name, value)| {
                let rests: Vec<_> = paths
                    .iter()
                    .filter(|path| path[0] == "*" || path[0] == name)
                    .map(|path| path[1..].to_vec())
                    .collect();
                (!rests.is_empty()).then(|| Some((name.clone(), keep(value, &rests)?)))?
            });
            let kept: Map<_, _> = kept.collect();
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        Value::Array(elements) => {
            let step = |path: &Vec<&'_ str>| {
                path[usize::from(path[0] == "*")..]
                    .iter()
                    .map(ToString::to_string)
                    .collect()
            };
            let rests: Vec<Vec<String>> = paths.iter().map(step).collect();
            let rests: Vec<Vec<&str>> = rests
                .iter()
                .map(|path| path.iter().map(String::as_str).collect())
                .collect();
            if rests.iter().any(Vec::is_empty) {
                return Some(value.clone());
            }
            let kept = elements.iter().filter_map(|element| {
                let nothing = element.is_object().then(|| Value::Object(Map::new()));
                keep(element, &rests).or(nothing)
            });
            Some(Value::Array(kept.collect()))
        }
        _ => None,
    }
}

fn drop_at(value: &mut Value, path: &[&str]) {
    let all = ways(value, path, &|_, words| words.is_empty());
    for way in all.iter().rev() {
        let (last, parent) = way.split_last().unwrap();
        match (at(value, parent), last) {
            (Some(Value::Object(members)), Step::Name(name)) => drop(members.shift_remove(name)),
            (Some(Value::Array(elements)), Step::Index(_)) => elements.clear(),
            _ => {}
        }
    }
}

fn rename_all(value: &mut Value, parent: &[&str], names: &[(&str, &str)]) {
    for way in objects(value, parent) {
        let object = at(value, &way).unwrap();
        let members = object.as_object().unwrap().clone();
        let found: Vec<_> = names.iter().filter(|(from, _)| members.contains_key(*from)).collect();
        let renamed = members.into_iter().filter_map(|(name, value)| {
            if let Some((_, to)) = found.iter().find(|(from, _)| *from == name) {
                return Some((to.to_string(), value));
            }
            (!found.iter().any(|(_, to)| *to == name)).then_some((name, value))
        });
        *object = Value::Object(renamed.collect());
    }
}

fn relocate(value: &mut Value, parent: &[&str], from: &[&str], to: &[&str], copies: bool) {
    for way in objects(value, parent) {
        let object = at(value, &way).unwrap();
        let source: Way = from.iter().map(|name| Step::Name((*name).to_owned())).collect();
        let Some(moved) = at(object, &source).cloned() else {
            continue;
        };
        if !copies {
            let (last, above) = from.split_last().unwrap();
            let above: Way = above.iter().map(|name| Step::Name((*name).to_owned())).collect();
            at(object, &above).unwrap().as_object_mut().unwrap().shift_remove(*last);
        }
        put(object, to, moved);
    }
}

fn relocate_alike(value: &mut Value, from: &str, to: &str, copies: bool) {
    let (from, to) = (words(from), words(to));
    let mut common = 0;
    while common + 1 < from.len() && common + 1 < to.len() && from[common] == to[common] {
        common += 1;
    }
    relocate(value, &from[..common], &from[common..], &to[common..], copies);
}

fn fill(value: &mut Value, names: &[&str], default: &Value) {
    match value {
        Value::Array(elements) => elements.iter_mut().for_each(|element| fill(element, names, default)),
        Value::Object(members) => match members.get_mut(names[0]) {
            Some(present) if names.len() > 1 => fill(present, &names[1..], default),
            Some(_) => {}
            None => put(value, names, default.clone()),
        },
        _ => {}
    }
}

pub(super) fn shape(draft: &ShapeDraft, value: &Value) -> Value {
    let steps = draft.target.as_deref().map(words).unwrap_or_default();
    let target = steps.iter().try_fold(value, |value, step| match value {
        Value::Object(members) => members.get(*step),
        Value::Array(elements) => elements.get(step.parse::<usize>().ok()?),
        _ => None,
    });
    let mut value = match target {
        None => return Value::Object(Map::new()),
        Some(Value::Null) => return Value::Null,
        Some(target) => target.clone(),
    };
    let kept: Vec<_> = draft.keep.iter().map(|path| words(path)).collect();
    if !kept.is_empty() {
        value = keep(&value, &kept).unwrap_or_else(|| Value::Object(Map::new()));
    }
    for path in &draft.drop {
        if !kept.iter().any(|kept| kept.starts_with(&words(path))) {
            drop_at(&mut value, &words(path));
        }
    }
    let parent_of = |path: &str| path.rsplit_once('.').map_or("", |(parent, _)| parent).to_owned();
    let mut done: Vec<String> = Vec::new();
    for (path, to) in &draft.rename {
        let parent = parent_of(path);
        let parents = if parent.is_empty() { Vec::new() } else { words(&parent) };
        let last = |path: &str| path.rsplit('.').next().unwrap().to_owned();
        if to.contains('.') {
            relocate(&mut value, &parents, &[&last(path)], &words(to), false);
        } else if !done.contains(&parent) {
            let plain = draft
                .rename
                .iter()
                .filter(|(path, to)| parent_of(path) == parent && !to.contains('.'));
            let all: Vec<_> = plain.map(|(path, to)| (last(path), to.clone())).collect();
            let all: Vec<_> = all.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
            rename_all(&mut value, &parents, &all);
            done.push(parent);
        }
    }
    for (from, to) in &draft.copies {
        relocate_alike(&mut value, from, to, true);
    }
    for (from, to) in &draft.moves {
        relocate_alike(&mut value, from, to, false);
    }
    for MapDraft {
        at: array,
        shape: of_each,
    } in &draft.maps
    {
        let path = array.as_deref().map(words).unwrap_or_default();
        for way in ways(&value, &path, &|value, words| words.is_empty() && value.is_array()) {
            for element in at(&mut value, &way).unwrap().as_array_mut().unwrap() {
                if !element.is_null() {
                    *element = shape(of_each, element);
                }
            }
        }
    }
    for (path, default) in &draft.defaults {
        let default = serde_json::from_slice(default.bytes()).unwrap();
        let path = words(path);
        match path.iter().rposition(|word| *word == "*") {
            None => fill(&mut value, &path, &default),
            Some(last) => {
                for way in objects(&value, &path[..=last]) {
                    fill(at(&mut value, &way).unwrap(), &path[last + 1..], &default);
                }
            }
        }
    }
    value
}

/// Puts `values` into the elements of the list that the path names before its `*`.
pub(super) fn embed(answer: &mut Value, path: &str, values: &[Value], leaves_out_null: bool) {
    let (list, names) = match path.strip_prefix('*') {
        Some(names) => ("", names),
        None => path.split_once(".*").unwrap(),
    };
    let steps = list.split('.').filter(|step| !step.is_empty());
    let names: Vec<_> = names.split('.').filter(|name| !name.is_empty()).collect();
    let list = steps.into_iter().try_fold(answer, |value, step| match value {
        Value::Object(members) => members.get_mut(step),
        Value::Array(elements) => elements.get_mut(step.parse::<usize>().ok()?),
        _ => None,
    });
    let Some(Value::Array(elements)) = list else { return };
    for (element, value) in elements.iter_mut().zip(values) {
        let on_the_way = (0..names.len()).map(|count| &names[..count]);
        let fits = on_the_way.into_iter().all(|names| {
            let found = names
                .iter()
                .try_fold(&*element, |value, name| value.get(*name).ok_or(()));
            found.is_err() || found.is_ok_and(Value::is_object)
        });
        if fits && !(leaves_out_null && value.is_null()) {
            put(element, &names, value.clone());
        }
    }
}

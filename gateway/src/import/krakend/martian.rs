//! Carries over the header fields that Martian's modifiers change.

use http::HeaderName;
use serde_json::Value;

use super::left_out::LeftOut;
use crate::headers::rules::may_be_changed;
use crate::import::yaml::{Map, Yaml};

/// Names of the section.
pub(super) const NAMES: [&str; 2] = ["modifier/martian", "github.com/devopsfaith/krakend-martian"];

/// Changes of header fields, in the order in which they are written.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) request: Rules,
    pub(super) response: Rules,
}

/// Rules for the fields of a message in one direction.
#[derive(Default)]
pub(super) struct Rules {
    pub(super) remove: Vec<String>,
    set: Vec<(String, String)>,
    add: Vec<(String, String)>,
}

impl Changes {
    /// Reads the modifiers of a backend, whose place in the configuration is `at`.
    pub(super) fn read(backend: &Value, at: &str, left: &mut LeftOut) -> Self {
        let mut changes = Self::default();
        let extra = backend.get("extra_config");
        for name in NAMES {
            if let Some(written) = extra.and_then(|extra| extra.get(name)) {
                changes.gather(written, &format!("{at}.extra_config.{name}"), left);
            }
        }
        changes
    }

    fn gather(&mut self, written: &Value, path: &str, left: &mut LeftOut) {
        for (kind, modifier) in written.as_object().into_iter().flatten() {
            let path = format!("{path}.{kind}");
            let text = |name: &str| modifier.get(name).and_then(Value::as_str);
            match kind.as_str() {
                "fifo.Group" => {
                    let modifiers = modifier.get("modifiers").and_then(Value::as_array);
                    for one in modifiers.into_iter().flatten() {
                        self.gather(one, &path, left);
                    }
                }
                "header.Modifier" | "header.Append" => match (text("name"), text("value")) {
                    (Some(name), Some(value)) if can_change(name) && is_printable(value) => {
                        for rules in self.of(modifier) {
                            let list = match kind.as_str() {
                                "header.Append" => &mut rules.add,
                                _ => &mut rules.set,
                            };
                            list.push((name.to_ascii_lowercase(), literal(value)));
                        }
                    }
                    _ => left.add(&path, "this field cannot be changed"),
                },
                "header.Blacklist" => {
                    let names = modifier.get("names").and_then(Value::as_array);
                    let names: Vec<_> = names.into_iter().flatten().filter_map(Value::as_str).collect();
                    if names.iter().all(|name| can_change(name)) {
                        for rules in self.of(modifier) {
                            rules.remove.extend(names.iter().map(|name| name.to_ascii_lowercase()));
                        }
                    } else {
                        left.add(&path, "one of these fields cannot be changed");
                    }
                }
                _ => left.add(&path, ""),
            }
        }
    }

    /// Returns the rules of the directions that a modifier is for.
    fn of(&mut self, modifier: &Value) -> impl Iterator<Item = &mut Rules> {
        let scope = modifier.get("scope").and_then(Value::as_array);
        let names = |wanted: &str| scope.is_some_and(|scope| scope.iter().any(|one| one == wanted));
        let request = names("request").then_some(&mut self.request);
        request
            .into_iter()
            .chain(names("response").then_some(&mut self.response))
    }
}

impl Rules {
    /// Returns the rules as a section; `None` if there are none.
    pub(super) fn section(self) -> Option<Map> {
        let mut section = Map::default();
        if !self.remove.is_empty() {
            section.put("remove", Yaml::texts(self.remove));
        }
        for (key, fields) in [("set", self.set), ("add", self.add)] {
            if !fields.is_empty() {
                section.put(key, fields_of(fields));
            }
        }
        (!section.is_empty()).then_some(section)
    }

    /// Returns the fields that a part sends; `None` if there are none. A part sends no field twice.
    pub(super) fn sent(self) -> Option<Map> {
        let fields: Vec<_> = self.set.into_iter().chain(self.add).collect();
        (!fields.is_empty()).then(|| fields_of(fields))
    }
}

/// Returns fields by name. Of two with one name the later counts.
fn fields_of(fields: Vec<(String, String)>) -> Map {
    let mut last: Vec<(String, String)> = Vec::new();
    for (name, value) in fields {
        match last.iter_mut().find(|(known, _)| *known == name) {
            Some(known) => known.1 = value,
            None => last.push((name, value)),
        }
    }
    last.into_iter()
        .fold(Map::default(), |all, (name, value)| all.with(&name, Yaml::text(value)))
}

/// Returns whether rules may change the field. A part of an aggregate may not choose a coding.
fn can_change(name: &str) -> bool {
    let name = HeaderName::from_bytes(name.as_bytes());
    name.is_ok_and(|name| may_be_changed(&name) && !name.as_str().ends_with("-encoding"))
}

fn is_printable(value: &str) -> bool {
    value.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// Returns a text in which braces begin no placeholder.
fn literal(value: &str) -> String {
    value.replace('{', "{{").replace('}', "}}")
}

//! Writes the reference as a JSON schema, for editors that complete and check a config.
//!
//! It accepts more than `gateway check`: only that command checks units, names and combinations of keys.

use serde_json::{Map, Value, json};

use super::{Entry, Language};
use crate::config::asked::Shape;

pub(super) fn schema(language: &Language) -> String {
    let mut root = section(language, "");
    let facts = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gateway config",
    });
    let Value::Object(mut facts) = facts else {
        unreachable!("it is written as an object")
    };
    if let Value::Object(keys) = root.take() {
        facts.extend(keys);
    }
    // Any value may come from the environment.
    facts.insert(
        "$defs".to_owned(),
        json!({ "variable": { "type": "string", "pattern": r"\$\{[A-Za-z_]" } }),
    );
    let mut text = serde_json::to_string_pretty(&facts).expect("JSON is written");
    text.push('\n');
    text
}

fn section(language: &Language, path: &str) -> Value {
    let Some(section) = language.sections.iter().find(|section| section.path == path) else {
        return json!({});
    };
    let mut properties = Map::new();
    for key in &section.keys {
        let path = if path.is_empty() {
            key.name.to_owned()
        } else {
            format!("{path}.{}", key.name)
        };
        let mut value = key
            .shape
            .map_or_else(|| json!({}), |shape| of(language, &path, shape, key));
        if key.off {
            value = json!({ "anyOf": [value, { "enum": ["off", false] }] });
        }
        if let Value::Object(facts) = &mut value {
            facts.insert("description".to_owned(), key.meaning.replace("\n\n", " ").into());
        }
        properties.insert(key.name.to_owned(), value);
    }
    let required: Vec<_> = section
        .keys
        .iter()
        .filter(|key| key.required)
        .map(|key| key.name)
        .collect();
    let mut facts = json!({ "type": ["object", "null"], "additionalProperties": false, "properties": properties });
    if !required.is_empty() {
        facts["type"] = "object".into();
        facts["required"] = required.into();
    }
    facts
}

fn of(language: &Language, path: &str, shape: Shape, key: &Entry) -> Value {
    match shape {
        Shape::Value(expected) => value(language, path, expected, key),
        Shape::Section => section(language, path),
        Shape::List(item) => {
            let one = of(language, &format!("{path}[]"), *item, key);
            json!({ "anyOf": [{ "type": "array", "items": one }, one] })
        }
        Shape::Either(kinds) => {
            let any: Vec<_> = kinds.iter().map(|kind| of(language, path, *kind, key)).collect();
            json!({ "anyOf": any })
        }
        Shape::Named(named) => {
            let one = of(language, &format!("{path}.NAME"), *named, key);
            let mut map = json!({ "type": ["object", "null"], "additionalProperties": one });
            if path == "tenants" {
                // A single value called `file` is the path of the file of tenants.
                map["properties"] = json!({ "file": { "anyOf": [{ "type": "string" }, one] } });
            }
            map
        }
        Shape::Anything => json!({}),
    }
}

fn value(language: &Language, path: &str, expected: &str, key: &Entry) -> Value {
    let variable = json!({ "$ref": "#/$defs/variable" });
    let mut any = Vec::new();
    if expected.contains("`true` or `false`") {
        any.extend([json!({ "type": "boolean" }), variable]);
    } else if expected.starts_with("a whole number") {
        let mut number = json!({ "type": "integer" });
        if let Some((least, most)) = &key.range
            && let (Ok(least), Ok(most)) = (least.parse::<u64>(), most.parse::<u64>())
        {
            (number["minimum"], number["maximum"]) = (least.into(), most.into());
        }
        any.extend([number, variable]);
        let word = expected
            .split_once(", or `")
            .and_then(|(_, rest)| rest.strip_suffix('`'));
        if let Some(word) = word.filter(|word| *word != "off") {
            any.push(json!({ "enum": [word] }));
        }
    } else if let Some(words) = words(expected) {
        any.extend([json!({ "enum": words }), variable]);
    } else {
        any.push(json!({ "type": ["string", "number", "boolean"] }));
    }
    if expected.contains("`off`") && words(expected).is_none() {
        any.push(json!({ "enum": ["off", false] }));
    }
    if expected.contains("or a map with") {
        any.push(section(language, path));
    }
    match any.len() {
        1 => any.remove(0),
        _ => json!({ "anyOf": any }),
    }
}

/// Returns the words if only one of them may be written: "`a`, `b` or `c`".
fn words(expected: &str) -> Option<Vec<Value>> {
    let mut words: Vec<Value> = Vec::new();
    for (place, piece) in expected.split('`').enumerate() {
        if place % 2 == 0 {
            if !matches!(piece.trim(), "" | "," | "or") {
                return None;
            }
        } else if piece.chars().any(|letter| letter.is_uppercase()) && piece.contains(':') {
            return None;
        } else {
            words.push(piece.into());
            if piece == "off" {
                words.push(false.into());
            }
        }
    }
    Some(words).filter(|words| !words.is_empty())
}

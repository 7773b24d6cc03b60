//! Reads a document of any form, in JSON or YAML: one that describes something else than a config.
//!
//! YAML's core schema decides the type of a plain word. Variables are not replaced.

use serde_json::{Map, Number, Value};

use super::mistake::Mistakes;
use super::tree::{self, Kind, Node};
use crate::json;

/// Reads a document.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub fn read_document(text: &str) -> Result<Value, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with(['{', '[']) {
        return json::typed(text.as_bytes(), text.len()).map_err(|why| format!("this is not JSON: {why}"));
    }
    let mut mistakes = Mistakes::default();
    let root = tree::parse(0, text, &mut mistakes);
    let place = |at: usize| text[..at.min(text.len())].matches('\n').count() + 1;
    match root {
        Ok(root) => Ok(value(&root)),
        Err(mistake) => {
            let line = mistake
                .at
                .map_or(String::new(), |at| format!("line {}: ", place(at.start as usize)));
            Err(format!("{line}{}", mistake.message))
        }
    }
}

fn value(node: &Node) -> Value {
    match &node.kind {
        Kind::List(items) => Value::Array(items.iter().map(|item| value(item)).collect()),
        Kind::Map(entries) => {
            let entries = entries.iter().map(|(key, node)| (key.text.clone(), value(node)));
            Value::Object(entries.collect::<Map<_, _>>())
        }
        Kind::Scalar { text, plain: false } => Value::String(text.clone()),
        Kind::Scalar { text, plain: true } => match text.as_str() {
            "" | "~" | "null" => Value::Null,
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            number => {
                let whole = number.parse::<i64>().ok().map(Number::from);
                let number = whole.or_else(|| {
                    number
                        .parse()
                        .ok()
                        .filter(|_| json::is_number(number))
                        .and_then(Number::from_f64)
                });
                number.map_or_else(|| Value::String(text.clone()), Value::Number)
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_and_yaml_are_read_alike() {
        let expected = json!({ "a": [1, -2.5, true, null, "x", "1"], "b": { "c": "2026-01-01", "3.0.1": "" } });
        let yaml = "# a comment\na: [1, -2.5, true, ~, x, \"1\"]\nb:\n  c: 2026-01-01\n  3.0.1: ''\n";
        assert_eq!(read_document(yaml), Ok(expected.clone()));
        assert_eq!(read_document(&expected.to_string()), Ok(expected));
        let wrong = read_document("a: [1\nb: 2\n").unwrap_err();
        assert!(wrong.starts_with("line "), "{wrong}");
        assert!(read_document("{ \"a\": 1, \"a\": 2 }").is_err());
    }
}

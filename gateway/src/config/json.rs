//! A value of any shape, for documents the config carries but does not read: fallbacks and fixed answers.
//!
//! YAML's core schema decides what a plain word is; numbers keep their digits.

use serde_json::{Map, Number, Value as Json};

use super::reader::{Read, Value};
use super::span::At;
use super::tree::{Kind, Node};

impl Read for At<Json> {
    fn read(value: &Value<'_>) -> Option<Self> {
        Some(Self::written(convert(value)?, value.node.span))
    }
}

fn convert(value: &Value<'_>) -> Option<Json> {
    let child = |node: &Node| {
        convert(&Value {
            node,
            key: node.span,
            path: value.path.clone(),
            cx: value.cx,
        })
    };
    match &value.node.kind {
        Kind::List(items) => items
            .iter()
            .map(|item| child(item))
            .collect::<Option<_>>()
            .map(Json::Array),
        Kind::Map(entries) => entries
            .iter()
            .map(|(key, node)| Some((key.text.clone(), child(node)?)))
            .collect::<Option<Map<_, _>>>()
            .map(Json::Object),
        Kind::Scalar { text, plain } => {
            let expanded = value.expand(text, *plain)?;
            let expands = expanded.is_some();
            let text = expanded.unwrap_or_else(|| text.clone());
            Some(if *plain && !expands {
                plain_word(text)
            } else {
                Json::String(text)
            })
        }
    }
}

/// Text from a variable stays text, so this sees only what was written.
fn plain_word(text: String) -> Json {
    match text.as_str() {
        "" | "~" | "null" => Json::Null,
        "true" => Json::Bool(true),
        "false" => Json::Bool(false),
        number => match serde_json::from_str::<Number>(number) {
            Ok(number) => Json::Number(number),
            Err(_) => Json::String(text),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{Body, Target, parse};

    #[test]
    fn documents_keep_their_shape_and_digits() {
        let check = |body: &str, expected: &str| {
            let text = format!(
                "listeners: {{ a: {{ address: 127.0.0.1:80 }} }}\nroutes:\n  r:\n    match: {{ path: / }}\n    respond:\n      body: {body}\n"
            );
            let env = |name: &str| (name == "N").then(|| "1".to_owned());
            let config = parse("x", &text, Path::new("."), &env).expect(body).config;
            let Target::Respond(respond) = &config.routes.get("r").expect("it is written").target else {
                panic!()
            };
            let Some(Body::Json(json)) = &respond.body else {
                panic!("{body} is not JSON")
            };
            assert_eq!(json.to_string(), expected, "{body}");
        };
        check("[]", "[]");
        check("{ b: 1, a: [true, no, ~] }", r#"{"b":1,"a":[true,"no",null]}"#);
        check(
            "[1.10, 12345678901234567890123, -0]",
            "[1.10,12345678901234567890123,-0]",
        );
        check(
            "['1', \"true\", 007, +1, 0x10, .5]",
            r#"["1","true","007","+1","0x10",".5"]"#,
        );
        check("\n        - ${N}", r#"["1"]"#);
    }
}

//! Reads a value of any shape, for documents that the config carries but does not interpret: fallbacks and fixed
//! answers.
//!
//! YAML's core schema decides the type of a plain word. Numbers keep their digits.

use super::asked::Shape;
use super::mistake::{Code, Mistake};
use super::reader::Read;
use super::span::At;
use super::tree::{Kind, Node};
use super::value::Value;
use crate::json::{self, Document};

impl Read for At<Document> {
    const SHAPE: Shape = Shape::Anything;

    fn read(value: &Value<'_>) -> Option<Self> {
        let mut text = Vec::new();
        convert(value, &mut text)?;
        match Document::check(&text.into(), usize::MAX) {
            Ok(document) => Some(Self::written(document, value.node.span)),
            Err(refusal) => {
                let message = format!("`{}` cannot be written as JSON: {refusal}", value.path);
                value.push(Mistake::new(Code::BadValue, value.node.span, message));
                None
            }
        }
    }
}

/// Appends the value as JSON. Reads all of it, so that all mistakes are reported.
fn convert(value: &Value<'_>, out: &mut Vec<u8>) -> Option<()> {
    let child =
        |node: &Node, out: &mut Vec<u8>| convert(&Value::new(node, node.span, value.path.clone(), value.cx), out);
    match &value.node.kind {
        Kind::List(items) => {
            let mut sound = Some(());
            for (index, item) in items.iter().enumerate() {
                out.push(if index == 0 { b'[' } else { b',' });
                sound = child(item, out).and(sound);
            }
            out.extend_from_slice(if items.is_empty() { b"[]" } else { b"]" });
            sound
        }
        Kind::Map(entries) => {
            let mut sound = Some(());
            for (index, (key, node)) in entries.iter().enumerate() {
                out.push(if index == 0 { b'{' } else { b',' });
                json::write_string(&key.text, out);
                out.push(b':');
                sound = child(node, out).and(sound);
            }
            out.extend_from_slice(if entries.is_empty() { b"{}" } else { b"}" });
            sound
        }
        Kind::Scalar { text, plain } => {
            let expanded = value.expand(text, *plain)?;
            let is_word = *plain && expanded.is_none();
            let text = expanded.as_deref().unwrap_or(text);
            match text {
                // Text from a variable stays text, so only a written word becomes null.
                "" | "~" | "null" if is_word => out.extend_from_slice(b"null"),
                "true" | "false" if is_word => out.extend_from_slice(text.as_bytes()),
                number if is_word && json::is_number(number) => out.extend_from_slice(number.as_bytes()),
                text => json::write_string(text, out),
            }
            Some(())
        }
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
            assert_eq!(json.value().to_string(), expected, "{body}");
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

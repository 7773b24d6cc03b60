//! A JSON document, as the bytes that came or as a tree.
//!
//! Most parts are put into the answer as they are. Such a document is checked once and copied; it becomes a tree only
//! where shaping or merging has to reach into it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use smallvec::SmallVec;

#[derive(Debug, Clone)]
pub enum Document {
    /// Exactly one JSON value, without space around it.
    Raw(Bytes),
    Tree(Value),
}

/// What one part puts at the root of the answer: names, each once, with what stands there.
pub type Members = SmallVec<[(Arc<str>, Document); 1]>;

impl Document {
    /// Checks that `text` is one JSON value and nothing else.
    pub(super) fn raw(text: &Bytes) -> serde_json::Result<Self> {
        let value: &RawValue = serde_json::from_slice(text)?;
        Ok(Self::Raw(text.slice_ref(value.get().as_bytes())))
    }

    pub(super) fn is_array(&self) -> bool {
        match self {
            Self::Raw(text) => text.starts_with(b"["),
            Self::Tree(value) => value.is_array(),
        }
    }

    /// The document as bytes, cheap to clone.
    pub(super) fn frozen(self) -> Self {
        let mut text = Vec::new();
        self.write(&mut text);
        Self::Raw(text.into())
    }

    /// The object `{ name: self }`.
    pub(super) fn wrapped(self, name: &str) -> Self {
        match self {
            Self::Tree(value) => Self::Tree(Value::Object([(name.to_owned(), value)].into_iter().collect())),
            Self::Raw(text) => {
                let mut object = Vec::with_capacity(text.len() + name.len() + 5);
                object.push(b'{');
                write_name(&mut object, name);
                object.extend_from_slice(&text);
                object.push(b'}');
                Self::Raw(object.into())
            }
        }
    }

    /// Length when written, if known without writing; a guess otherwise.
    pub(super) fn size_hint(&self) -> usize {
        match self {
            Self::Raw(text) => text.len(),
            Self::Tree(_) => 256,
        }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Raw(text) => out.extend_from_slice(text),
            Self::Tree(value) => {
                serde_json::to_writer(out, value).expect("a tree has string keys, and a Vec takes it all")
            }
        }
    }
}

/// `"name":`
pub(super) fn write_name(out: &mut Vec<u8>, name: &str) {
    serde_json::to_writer(&mut *out, name).expect("any string can be written as JSON, and a Vec takes it all");
    out.push(b':');
}

/// The fields of the object in `text`, checked and split in one pass, values as they came.
///
/// Of a name that stands twice the last value counts, in the place of the first, as in a tree.
pub(super) fn split_object(text: &Bytes) -> serde_json::Result<Members> {
    struct Fields<'a>(&'a Bytes);

    impl<'de> Visitor<'de> for Fields<'_> {
        type Value = Members;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Members, A::Error> {
            let mut members = Members::new();
            let mut places = HashMap::<Arc<str>, usize>::new();
            while let Some((name, value)) = fields.next_entry::<Arc<str>, &'de RawValue>()? {
                let document = Document::Raw(self.0.slice_ref(value.get().as_bytes()));
                match places.get(&name) {
                    Some(place) => members[*place].1 = document,
                    None => {
                        places.insert(name.clone(), members.len());
                        members.push((name, document));
                    }
                }
            }
            Ok(members)
        }
    }

    let mut reader = serde_json::Deserializer::from_slice(text);
    let members = reader.deserialize_map(Fields(text))?;
    reader.end()?;
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(document: &Document) -> String {
        let mut out = Vec::new();
        document.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn raw_is_one_value_without_space_around_it() {
        let check = |text: &'static str, expected: Option<&str>| {
            let raw = Document::raw(&Bytes::from_static(text.as_bytes())).ok();
            assert_eq!(raw.as_ref().map(written).as_deref(), expected, "{text}");
        };
        check(" {\"a\": 1.0} \r\n", Some("{\"a\": 1.0}"));
        check("12345678901234567890.10", Some("12345678901234567890.10"));
        check("null", Some("null"));
        for text in [
            "",
            " ",
            "{",
            "{\"a\":}",
            "{} {}",
            "[1,]",
            "01",
            "nul",
            "'a'",
            "\u{feff}{}",
        ] {
            check(text, None);
        }
        assert!(Document::raw(&Bytes::from_static(b"\"\xff\"")).is_err());
    }

    #[test]
    fn an_object_is_split_into_fields() {
        let check = |text: &'static str, expected: Option<&str>| {
            let members = split_object(&Bytes::from_static(text.as_bytes())).ok();
            let lines = members.map(|members| {
                let lines: Vec<_> = members
                    .iter()
                    .map(|(name, value)| format!("{name}={}", written(value)))
                    .collect();
                lines.join(";")
            });
            assert_eq!(lines.as_deref(), expected, "{text}");
        };
        check("{}", Some(""));
        check(
            " { \"b\" : 1e5 , \"a\\u0041\\n\": { \"x\" : [ ] } } ",
            Some("b=1e5;aA\n={ \"x\" : [ ] }"),
        );
        check("{\"a\":1,\"b\":2,\"a\":3}", Some("a=3;b=2"));
        for text in [
            "[]",
            "1",
            "{\"a\":1",
            "{\"a\":1} x",
            "{\"a\":1,}",
            "{a:1}",
            "{\"\\ud800\":1}",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn wrapping_and_freezing_keep_the_text() {
        let raw = || Document::raw(&Bytes::from_static(b"[1.0]")).unwrap();
        assert_eq!(written(&raw().wrapped("a\"b")), r#"{"a\"b":[1.0]}"#);
        let tree = Document::Tree(serde_json::from_str("[1.0]").unwrap());
        assert_eq!(written(&tree.clone().wrapped("x").frozen()), r#"{"x":[1.0]}"#);
        assert!(raw().is_array() && tree.is_array() && tree.frozen().is_array());
    }
}

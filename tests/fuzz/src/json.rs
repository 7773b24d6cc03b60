//! Checks that the reader accepts the JSON that `serde_json` accepts, with the same values, except for stricter rules:
//! distinct names and a bounded depth. Every value taken from the document is JSON again.

use std::sync::Arc;

use bytes::Bytes;
use gateway::aggregate::{Shape, ShapeDraft};
use gateway::json::{Document, Kind, MAX_DEPTH, Name, Paths, Refusal, Selection, Value};
use serde::de::DeserializeSeed;
use serde_json::Value as Tree;

use self::strict::Strict;

#[path = "../../../gateway/src/json/strict.rs"]
mod strict;

/// Checks a text that may be JSON.
pub fn check(data: &[u8]) {
    let Some(document) = compare(data) else { return };
    let value = document.value();
    // A path finds the value that it leads to, and the value is a document.
    let mut paths = Vec::new();
    list(value, &mut Vec::new(), &mut paths);
    let wanted = Arc::new(Paths::new(paths.iter().map(AsRef::as_ref)));
    let selection = Selection::of(&document, &wanted);
    for path in &paths {
        let there = value.descend(path.iter().map(AsRef::as_ref)).expect("it was there");
        let found = selection.get(path).expect("it is found");
        assert_eq!(found.raw(), there.raw());
        assert_document(found.raw());
    }
    let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
    for draft in [
        ShapeDraft {
            keep: texts(&["a", "b.*", "*.c"]),
            ..ShapeDraft::default()
        },
        ShapeDraft {
            drop: texts(&["a", "b.*", "*.c"]),
            ..ShapeDraft::default()
        },
        ShapeDraft {
            target: Some("a.0".to_owned()),
            rename: vec![("a".to_owned(), "b".to_owned()), ("*.b".to_owned(), "a".to_owned())],
            ..ShapeDraft::default()
        },
    ] {
        let mut shaped = Vec::new();
        Shape::compile(&draft).expect("a shape").apply(value, &mut shaped);
        assert_document(&shaped);
    }
}

fn assert_document(text: &[u8]) {
    let text = Bytes::copy_from_slice(text);
    Document::check(&text, usize::MAX).unwrap_or_else(|refusal| panic!("{text:?}: {refusal}"));
}

/// Lists the paths to a few values within a value.
fn list(value: Value<'_>, path: &mut Vec<Box<str>>, paths: &mut Vec<Box<[Box<str>]>>) {
    if path.len() > 4 || paths.len() > 64 {
        return;
    }
    paths.push(path.as_slice().into());
    for (index, element) in value.elements().enumerate() {
        path.push(index.to_string().into());
        list(element, path, paths);
        path.pop();
    }
    for (name, member) in value.members() {
        path.push(name.text().into());
        list(member, path, paths);
        path.pop();
    }
}

/// Compares the reader with `serde_json`; returns the document, if there is one.
pub(crate) fn compare(text: &[u8]) -> Option<Document> {
    let told = String::from_utf8_lossy(text);
    let ours = Document::check(&Bytes::copy_from_slice(text), usize::MAX);
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let theirs = Strict
        .deserialize(&mut deserializer)
        .and_then(|tree| deserializer.end().map(|()| tree))
        .map_err(|error| error.to_string());
    match (ours, theirs) {
        (Ok(document), Ok(tree)) => {
            assert!(is_same(document.value(), &tree), "{told} is {tree}");
            Some(document)
        }
        (Ok(document), Err(error)) => {
            let value = document.value();
            let is_beyond = error.contains("recursion limit") || error.contains("number out of range");
            assert!(is_beyond || !value.is_unicode(), "{told}: {error}");
            Some(document)
        }
        (Err(refusal), Ok(_)) => panic!("{told}: {refusal}"),
        (Err(Refusal::TooDeep), Err(_)) => {
            let open = text.iter().filter(|byte| matches!(byte, b'[' | b'{')).count();
            assert!(open > MAX_DEPTH as usize, "{told}");
            None
        }
        (Err(_), Err(_)) => None,
    }
}

fn is_same(ours: Value<'_>, theirs: &Tree) -> bool {
    match (ours.kind(), theirs) {
        (Kind::Null, Tree::Null) => true,
        (Kind::Bool, Tree::Bool(theirs)) => ours.bool() == Some(*theirs),
        (Kind::Number, Tree::Number(theirs)) => {
            let (Some(ours), Some(theirs)) = (ours.f64(), theirs.as_f64()) else {
                return false;
            };
            // The number of `serde_json` may differ in the last bit.
            (ours - theirs).abs() <= theirs.abs() * 1e-15
        }
        (Kind::String, Tree::String(theirs)) => ours.text().is_some_and(|ours| ours == *theirs),
        (Kind::Array, Tree::Array(theirs)) => {
            ours.elements().count() == theirs.len()
                && ours.elements().zip(theirs).all(|(ours, theirs)| is_same(ours, theirs))
        }
        (Kind::Object, Tree::Object(theirs)) => {
            let is_there = |(name, ours): (Name<'_>, Value<'_>)| {
                let theirs = theirs.get(&*name.text());
                theirs.is_some_and(|theirs| is_same(ours, theirs))
            };
            ours.members().count() == theirs.len() && ours.members().all(is_there)
        }
        _ => false,
    }
}

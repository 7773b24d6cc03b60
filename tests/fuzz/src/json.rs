//! Checks that the reader accepts the JSON that `serde_json` accepts, with the same values, except for stricter rules:
//! distinct names and a bounded depth. Every value taken from the document is JSON again.

use std::sync::Arc;

use bytes::Bytes;
use gateway::aggregate::{Shape, ShapeDraft};
use gateway::json::{Document, Kind, MAX_DEPTH, Name, Paths, Refusal, Selection, Value};

pub(crate) use self::compare::compare;

#[path = "../../../gateway/src/json/compare.rs"]
mod compare;
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
        ShapeDraft {
            copies: vec![("*.a".to_owned(), "*.b".to_owned())],
            moves: vec![("a.b".to_owned(), "c".to_owned())],
            defaults: vec![("*.c".to_owned(), Document::of(&0))],
            ..ShapeDraft::default()
        },
    ] {
        let mut shaped = Vec::new();
        let shape = Shape::compile(&draft).expect("a shape");
        shape.apply(value, usize::MAX, &mut shaped).expect("there is room");
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

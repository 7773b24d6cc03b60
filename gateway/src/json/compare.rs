//! Compares the reader with `serde_json`, for tests and the fuzzer, which includes this file.

use bytes::Bytes;
use serde::de::DeserializeSeed;
use serde_json::Value as Tree;

use super::strict::Strict;
use super::{Document, Kind, MAX_DEPTH, Name, Refusal, Value};

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

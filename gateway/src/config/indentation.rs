//! Finds keys with too little or too much indentation, which YAML silently assigns to another section.

use std::rc::Rc;

use super::span::Span;
use super::tree::{Key, Kind, Node};

type Entries = [(Key, Rc<Node>)];

/// Returns the key above the one at `place` that has no value, if all keys between them are unknown too.
pub(super) fn empty_before<'e>(entries: &'e Entries, place: usize, known: &[&str]) -> Option<&'e str> {
    let above = entries[..place].iter().rev();
    let (key, node) = above.into_iter().find(|(key, node)| {
        let is_known = known.contains(&key.text.as_str());
        is_known || node.is_null()
    })?;
    node.is_null().then_some(&key.text)
}

/// Returns a hint for an entry of the wrong kind in a map keyed by name, if the entry above it is empty.
pub(super) fn under_empty(entries: &Entries, place: usize) -> Option<String> {
    let (above, node) = entries[..place]
        .iter()
        .rev()
        .find(|(_, node)| matches!(node.kind, Kind::Map(_)) || node.is_null())?;
    let own = &entries[place].0.text;
    node.is_null().then(|| {
        format!(
            "`{}` above it has nothing under it: indent `{own}` if it belongs there",
            above.text
        )
    })
}

/// Returns the entry that contains the missing key `name`, and the place of that key.
pub(super) fn stands_within<'e>(entries: &'e Entries, name: &str) -> Option<(&'e str, Span)> {
    let key_in = |node: &'e Node| match &node.kind {
        Kind::Map(inner) => inner.iter().find(|(key, _)| key.text == name).map(|(key, _)| key.span),
        _ => None,
    };
    entries.iter().find_map(|(key, node)| Some((&*key.text, key_in(node)?)))
}

#[cfg(test)]
mod tests;

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

/// Returns what is wrong with the indentation of the line at `start`, where YAML has found an error.
pub(super) fn of_line(text: &str, start: usize) -> Option<String> {
    let begin = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[begin..].lines().next()?;
    let indent = depth(line)?;
    if start - begin > indent {
        return None;
    }
    // Indentations of the open collections above: each such line is indented less than all lines below it.
    let (mut levels, mut least) = (Vec::new(), usize::MAX);
    for above in text[..begin].lines().rev() {
        let Some(depth) = depth(above).filter(|depth| *depth < least) else {
            continue;
        };
        let content = above.trim_start();
        if let Some(item) = content.strip_prefix("- ") {
            levels.push((depth + 2 + (item.len() - item.trim_start().len()), ""));
        }
        levels.push((depth, content));
        least = depth;
    }
    let spaces = |depth: usize| format!("{depth} space{}", if depth == 1 { "" } else { "s" });
    match levels.iter().find(|(depth, _)| *depth == indent) {
        Some((_, item)) if item.starts_with('-') && !line.trim_start().starts_with('-') => {
            let list = levels.iter().find(|(depth, _)| *depth < indent)?.0;
            Some(format!(
                "it is in line with the list above it: indent it by {} if it does not belong there, or begin it with `- `",
                spaces(list)
            ))
        }
        Some(_) => None,
        None => {
            let lower = levels
                .iter()
                .map(|(depth, _)| *depth)
                .filter(|depth| *depth < indent)
                .max();
            let higher = levels
                .iter()
                .map(|(depth, _)| *depth)
                .filter(|depth| *depth > indent)
                .min();
            let wanted: Vec<_> = lower.into_iter().chain(higher).map(spaces).collect();
            (!wanted.is_empty()).then(|| {
                format!(
                    "it is indented by {}, what is above it by {}: the indentation says what belongs together",
                    spaces(indent),
                    wanted.join(" or ")
                )
            })
        }
    }
}

/// Returns the number of leading spaces; `None` for an empty line and for a comment.
fn depth(line: &str) -> Option<usize> {
    let content = line.trim_start_matches(' ');
    (!content.trim().is_empty() && !content.starts_with('#')).then(|| line.len() - content.len())
}

#[cfg(test)]
mod tests;

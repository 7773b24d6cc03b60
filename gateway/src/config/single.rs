//! Fills a single value or a list into the map that may be meant by it.
//!
//! A filled map contains the written value. Whether it can be read without a mistake is for the reader to try.

use super::tree::{Kind, Node};

/// Maps that a single value may stand for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Single {
    /// Maps in order of preference. `$` stands for the value, `[$]` for a list of the values, and `%` for the text of
    /// the value where the map already has the quotes.
    pub maps: &'static [&'static str],
    /// Map for a value without meaning, such as `true`, and for a value that no other map accepts.
    pub sample: &'static str,
}

/// Largest number of list items that are repeated in a suggestion.
pub(super) const MOST_ITEMS: usize = 4;

/// Returns the map of texts that was meant by `name: value`, `name=value` or `name value`, alone or in a list.
pub(super) fn filled_pairs(node: &Node) -> Option<String> {
    let items: Vec<&str> = match &node.kind {
        Kind::Scalar { text, .. } => vec![text],
        Kind::List(items) => items
            .iter()
            .map(|item| match &item.kind {
                Kind::Scalar { text, .. } => Some(text.as_str()),
                Kind::List(_) | Kind::Map(_) => None,
            })
            .collect::<Option<_>>()?,
        Kind::Map(_) => return None,
    };
    let pair = |text: &str| {
        let (name, value) = text.split_once([':', '=', ' '])?;
        let name = name.trim();
        (!name.is_empty()).then(|| format!("{}: {}", quoted(name), quoted(value.trim())))
    };
    let pairs = items.into_iter().map(pair).collect::<Option<Vec<_>>>()?;
    (!pairs.is_empty() && pairs.len() <= MOST_ITEMS).then(|| format!("{{ {} }}", pairs.join(", ")))
}

/// Returns the item of a list with a single item.
pub(super) fn only_item(node: &Node) -> Option<String> {
    match &node.kind {
        Kind::List(items) => match items.as_slice() {
            [only] => texts(only)
                .filter(|_| matches!(only.kind, Kind::Scalar { .. }))
                .map(|texts| texts.concat()),
            _ => None,
        },
        Kind::Scalar { .. } | Kind::Map(_) => None,
    }
}

/// Returns a hint for a placeholder without quotes, which YAML takes for a map.
pub(super) fn placeholder(node: &Node) -> Option<String> {
    match &node.kind {
        Kind::Map(entries) => match entries.as_slice() {
            [(key, value)] if value.is_null() => Some(format!("put quotes around it: `\"{{{}}}\"`", key.text)),
            _ => None,
        },
        Kind::Scalar { .. } | Kind::List(_) => None,
    }
}

/// Returns whether a word only switches something on or off.
pub(super) fn is_switch(text: &str) -> bool {
    let word = text.to_ascii_lowercase();
    matches!(
        word.as_str(),
        "true" | "false" | "on" | "off" | "yes" | "no" | "enabled" | "disabled" | "default" | "none"
    )
}

/// Returns the texts of a single value or of a list, each in the form used in a config.
pub(super) fn texts(node: &Node) -> Option<Vec<String>> {
    match &node.kind {
        Kind::Scalar { text, plain } if *plain && is_plain(text) => Some(vec![text.clone()]),
        Kind::Scalar { text, .. } if !text.is_empty() => Some(vec![quoted(text)]),
        Kind::List(items) if !items.is_empty() && items.len() <= MOST_ITEMS => {
            let one = |item: &std::rc::Rc<Node>| match item.kind {
                Kind::Scalar { .. } => texts(item),
                Kind::List(_) | Kind::Map(_) => None,
            };
            items
                .iter()
                .map(one)
                .collect::<Option<Vec<_>>>()
                .map(|all| all.concat())
        }
        _ => None,
    }
}

/// Returns whether the text needs no quotes within `{ }`.
fn is_plain(text: &str) -> bool {
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte);
    text.bytes().all(is_safe)
        && text
            .bytes()
            .next()
            .is_some_and(|first| first.is_ascii_alphanumeric() || first == b'/')
}

pub(super) fn quoted(text: &str) -> String {
    if is_plain(text) {
        text.to_owned()
    } else {
        serde_json::Value::from(text).to_string()
    }
}

/// Returns the map with the values filled in.
pub(super) fn put(map: &str, values: &[String]) -> String {
    if map.contains('%') {
        let letters = values.concat();
        return map.replace('%', letters.trim_matches('"'));
    }
    let all = values.join(", ");
    let value = match values {
        [one] => one.clone(),
        _ => format!("[{all}]"),
    };
    map.replace("[$]", &format!("[{all}]")).replace('$', &value)
}

#[cfg(test)]
mod tests;

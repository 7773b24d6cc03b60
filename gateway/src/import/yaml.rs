//! Writes YAML: maps and lists in their order, with comments above entries.
//!
//! A map becomes one line in braces if it is short and says nothing more; else its entries stand on lines of their own.
//! Text is quoted wherever YAML or the config could read it as something else.

use std::fmt::Write as _;

use serde_json::Value;

/// Longest line of a map in braces.
const LINE: usize = 110;

/// A value with comments.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Yaml {
    /// Written as it is: a number, a word, a duration.
    Plain(String),
    Text(String),
    List(Vec<Yaml>),
    Map(Map),
}

/// Entries in their order.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Map(Vec<Entry>);

#[derive(Debug, Clone, PartialEq)]
struct Entry {
    comments: Vec<String>,
    key: String,
    value: Yaml,
}

impl Yaml {
    pub(super) fn plain(value: impl ToString) -> Self {
        Self::Plain(value.to_string())
    }

    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub(super) fn texts<T: Into<String>>(all: impl IntoIterator<Item = T>) -> Self {
        Self::List(all.into_iter().map(Self::text).collect())
    }

    /// Returns a value of JSON.
    pub(super) fn json(value: &Value) -> Self {
        match value {
            Value::String(text) => Self::text(text.as_str()),
            Value::Array(list) => Self::List(list.iter().map(Self::json).collect()),
            Value::Object(object) => Self::Map(
                object
                    .iter()
                    .fold(Map::default(), |map, (key, value)| map.with(key, Self::json(value))),
            ),
            other => Self::plain(other),
        }
    }
}

impl From<Map> for Yaml {
    fn from(map: Map) -> Self {
        Self::Map(map)
    }
}

impl Map {
    pub(super) fn with(mut self, key: &str, value: impl Into<Yaml>) -> Self {
        self.put(key, value);
        self
    }

    pub(super) fn put(&mut self, key: &str, value: impl Into<Yaml>) {
        self.put_noted(key, value, Vec::new());
    }

    /// Adds an entry below comments.
    pub(super) fn put_noted(&mut self, key: &str, value: impl Into<Yaml>, comments: Vec<String>) {
        self.0.push(Entry {
            comments,
            key: key.to_owned(),
            value: value.into(),
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the entries without their comments.
    pub(super) fn into_entries(self) -> impl Iterator<Item = (String, Yaml)> {
        self.0.into_iter().map(|entry| (entry.key, entry.value))
    }

    /// Returns the text of the map as a whole document.
    pub(super) fn document(&self) -> String {
        let mut text = String::new();
        for entry in &self.0 {
            entry.write(0, true, &mut text);
        }
        text
    }
}

impl Entry {
    fn write(&self, indent: usize, is_top: bool, out: &mut String) {
        let margin = " ".repeat(indent);
        for comment in &self.comments {
            for line in comment.lines() {
                // A control character or a line of its own would end the comment.
                let line: String = line.chars().filter(|c| !c.is_control()).collect();
                let _ = writeln!(out, "{margin}# {line}");
            }
        }
        let key = word(&self.key);
        let flow = if self.value.has_comments() {
            None
        } else {
            Some(self.value.flow())
        };
        match (&self.value, flow) {
            (Yaml::Map(map), flow) if !map.is_empty() => {
                let line = flow.map(|flow| format!("{margin}{key}: {flow}"));
                // What stands at the top is easier to change with an entry a line.
                match line.filter(|line| line.len() <= LINE && !(is_top && map.len() > 1)) {
                    Some(line) => out.push_str(&format!("{line}\n")),
                    None => {
                        let _ = writeln!(out, "{margin}{key}:");
                        map.0.iter().for_each(|entry| entry.write(indent + 2, false, out));
                    }
                }
            }
            (Yaml::List(list), Some(flow)) if margin.len() + key.len() + flow.len() > LINE && !list.is_empty() => {
                let _ = writeln!(out, "{margin}{key}:");
                for item in list {
                    let _ = writeln!(out, "{margin}  - {}", item.flow());
                }
            }
            (_, flow) => {
                let _ = writeln!(out, "{margin}{key}: {}", flow.unwrap_or_default());
            }
        }
    }
}

impl Yaml {
    fn has_comments(&self) -> bool {
        match self {
            Self::Map(map) => map
                .0
                .iter()
                .any(|entry| !entry.comments.is_empty() || entry.value.has_comments()),
            Self::List(list) => list.iter().any(Self::has_comments),
            Self::Plain(_) | Self::Text(_) => false,
        }
    }

    /// Returns the value on one line.
    fn flow(&self) -> String {
        match self {
            Self::Plain(text) => text.clone(),
            Self::Text(text) => word(text),
            Self::List(list) => format!("[{}]", list.iter().map(Self::flow).collect::<Vec<_>>().join(", ")),
            Self::Map(map) if map.is_empty() => "{}".to_owned(),
            Self::Map(map) => {
                let entries = map
                    .0
                    .iter()
                    .map(|entry| format!("{}: {}", word(&entry.key), entry.value.flow()));
                format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// Writes text plain if it can be read in no other way, else in double quotes.
fn word(text: &str) -> String {
    const WORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/' | '.');
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '/'));
    if starts && text.chars().all(is_plain) && !WORDS.contains(&text.to_ascii_lowercase().as_str()) {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    // A variable is read in quotes too.
    for c in text.replace("${", "$${").chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() || c == '\u{2028}' || c == '\u{2029}' || c == '\u{feff}' => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_could_be_read_otherwise_is_quoted() {
        for (text, expected) in [
            ("users", "users"),
            ("/users/list.json", "/users/list.json"),
            ("", "\"\""),
            ("yes", "\"yes\""),
            ("Off", "\"Off\""),
            ("12", "\"12\""),
            ("-x", "\"-x\""),
            ("/users/{id}", "\"/users/{id}\""),
            ("a: b", "\"a: b\""),
            ("a # b", "\"a # b\""),
            ("say \"x\"\\\n", "\"say \\\"x\\\"\\\\\\n\""),
            ("${HOME}", "\"$${HOME}\""),
            ("\u{7}", "\"\\u0007\""),
        ] {
            assert_eq!(word(text), expected);
        }
    }

    #[test]
    fn short_maps_are_one_line_and_comments_make_them_long() {
        let short = Map::default()
            .with("a", Yaml::plain(1))
            .with("b", Yaml::texts(["x", "y z"]));
        let mut noted = Map::default();
        noted.put_noted("c", Yaml::plain(2), vec!["two\nlines".to_owned()]);
        let top = Map::default().with("m", Map::default().with("short", short).with("noted", noted));
        assert_eq!(
            top.document(),
            "m:\n  short: { a: 1, b: [x, \"y z\"] }\n  noted:\n    # two\n    # lines\n    c: 2\n"
        );
    }
}

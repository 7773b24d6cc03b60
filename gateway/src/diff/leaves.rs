//! Takes a value apart into its single values with their paths, by what `Debug` writes of it.
//!
//! Every section of the config writes all of its fields there, defaults among them, and a new one comes by itself. A list
//! is numbered from 0; wrappers such as `Some(..)` have no name in a path; what is absent has no value.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};

/// Values by path.
pub(super) type Leaves = BTreeMap<String, String>;

/// One open bracket.
struct Open {
    /// Path of what stands within.
    path: String,
    kind: Kind,
    /// Number of values so far.
    count: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    List,
    /// A struct or a map.
    Named,
    /// A tuple, or a wrapper.
    Tuple,
}

/// Returns all values within a value.
pub(super) fn leaves(value: &impl Debug) -> Leaves {
    let mut text = String::new();
    write!(text, "{value:#?}").expect("a string takes any text");
    let mut leaves = Leaves::new();
    let mut open: Vec<Open> = Vec::new();
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with(['}', ']', ')']) {
            open.pop();
            continue;
        }
        let (label, rest) = split_label(line);
        let path = path(open.last_mut(), label);
        let bracket = match rest.chars().next_back() {
            Some('{') => Some(Kind::Named),
            Some('[') => Some(Kind::List),
            Some('(') => Some(Kind::Tuple),
            _ => None,
        };
        let Some(kind) = bracket else {
            let value = rest.strip_suffix(',').unwrap_or(rest);
            if value != "None" {
                leaves.insert(path, value.trim_matches('"').to_owned());
            }
            continue;
        };
        let name = rest[..rest.len() - 1].trim();
        if !name.is_empty() && name != "Some" {
            // The variant of an enum. The name of a struct is the same on both sides.
            leaves.insert(format!("{path}.(kind)"), name.to_owned());
        }
        open.push(Open { path, kind, count: 0 });
    }
    leaves
}

/// Splits `name: rest` and `"name": rest`. A label ends before the first `: ` outside of quotes.
fn split_label(line: &str) -> (Option<&str>, &str) {
    if let Some(quoted) = line.strip_prefix('"') {
        let mut escaped = false;
        for (at, letter) in quoted.char_indices() {
            match letter {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => {
                    let rest = &quoted[at + 1..];
                    return match rest.strip_prefix(": ") {
                        Some(rest) => (Some(&quoted[..at]), rest),
                        None => (None, line),
                    };
                }
                _ => {}
            }
        }
        return (None, line);
    }
    match line.split_once(": ") {
        Some((label, rest))
            if label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') && !label.is_empty() =>
        {
            (Some(label), rest)
        }
        _ => (None, line),
    }
}

fn path(within: Option<&mut Open>, label: Option<&str>) -> String {
    let Some(within) = within else {
        return label.unwrap_or_default().to_owned();
    };
    let number = within.count;
    within.count += 1;
    match (label, within.kind) {
        (Some(label), _) if within.path.is_empty() => label.to_owned(),
        (Some(label), _) => format!("{}.{label}", within.path),
        (None, Kind::Tuple) if number == 0 => within.path.clone(),
        (None, _) => format!("{}[{number}]", within.path),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{At, NamedMap};

    #[derive(Debug)]
    #[expect(dead_code, reason = "written by `Debug`")]
    struct Section {
        plain: At<u32>,
        text: String,
        absent: Option<u32>,
        present: Option<Duration>,
        list: Vec<(u8, u8)>,
        empty: Vec<u8>,
        named: NamedMap<Target>,
    }

    #[derive(Debug)]
    #[expect(dead_code, reason = "written by `Debug`")]
    enum Target {
        Backend { name: String },
        Off,
    }

    #[test]
    fn values_have_paths_like_those_of_the_config() {
        let mut named = NamedMap::default();
        named.put(
            "a: b",
            Target::Backend {
                name: "x: {".to_owned(),
            },
        );
        named.put("c", Target::Off);
        let found = leaves(&Section {
            plain: At::unwritten(7),
            text: "a\n\"b\" {".to_owned(),
            absent: None,
            present: Some(Duration::from_secs(60)),
            list: vec![(1, 2), (3, 4)],
            empty: Vec::new(),
            named,
        });
        let found: Vec<_> = found.iter().map(|(path, value)| format!("{path} = {value}")).collect();
        assert_eq!(
            found,
            [
                ".(kind) = Section",
                "empty = []",
                "list[0] = 1",
                "list[0][1] = 2",
                "list[1] = 3",
                "list[1][1] = 4",
                "named.a: b.(kind) = Backend",
                "named.a: b.name = x: {",
                "named.c = Off",
                "plain = 7",
                "present = 60s",
                "text = a\\n\\\"b\\\" {",
            ]
        );
    }
}

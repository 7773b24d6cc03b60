//! Changes single entries of a file of keys, tenants or revocations, and keeps every other byte of it.
//!
//! A change is a set of replaced ranges: of a field's value, of a line, or of an entry. A new entry is written in the
//! form of the last one, so the difference is what a person would have written. An editor trusts nothing that it has
//! written: the caller reads the result again and compares it with what was wanted. So a form of YAML that is not
//! understood here is refused and never damaged.

use std::ops::Range;
use std::rc::Rc;

use super::mistake::Mistakes;
use super::tree::{self, Key, Kind, Node};

/// A field of an entry and its value as YAML; `None` takes the field out.
pub type Field<'a> = (&'a str, Option<String>);

/// Selects an entry of a section.
#[derive(Debug, Clone, Copy)]
pub enum Entry<'a> {
    /// The entry of a map with this key.
    Named(&'a str),
    /// The item of a list whose fields have these values; `None` is a field that is not written.
    Having(&'a [(&'a str, Option<&'a str>)]),
}

/// Why a text is not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotEdited {
    /// The text is not YAML, or not a map.
    Unreadable,
    /// There is no such entry.
    Absent,
    /// The text is written in a form that is not understood.
    Form,
}

/// A text that is being changed.
pub struct Editor<'t> {
    text: &'t str,
    root: Rc<Node>,
    /// Ranges of the text and what replaces each.
    changes: Vec<(Range<usize>, String)>,
}

/// An entry that was found.
struct Found {
    /// Start of the entry: its key, or the dash of its list item.
    start: usize,
    node: Rc<Node>,
    /// Number of entries in the section.
    among: usize,
    /// Place of the entry in the section.
    place: usize,
    is_flow: bool,
}

impl<'t> Editor<'t> {
    /// Reads a text that has no mistakes.
    ///
    /// # Errors
    /// [`NotEdited::Unreadable`].
    pub fn new(text: &'t str) -> Result<Self, NotEdited> {
        let mut mistakes = Mistakes::default();
        let root = tree::parse(0, text, &mut mistakes).map_err(|_| NotEdited::Unreadable)?;
        if !mistakes.is_empty() {
            return Err(NotEdited::Unreadable);
        }
        let changes = Vec::new();
        Ok(Self { text, root, changes })
    }

    /// Returns the changed text.
    pub fn finish(mut self) -> String {
        self.changes.sort_by_key(|(range, _)| (range.start, range.end));
        let mut out = String::with_capacity(self.text.len() + 256);
        let mut done = 0;
        for (range, text) in &self.changes {
            out.push_str(&self.text[done.min(range.start)..range.start]);
            out.push_str(text);
            done = done.max(range.end);
        }
        out.push_str(&self.text[done..]);
        out
    }

    /// Sets fields of an entry, in this order if they are new.
    ///
    /// # Errors
    /// See [`NotEdited`].
    pub fn change(&mut self, section: &str, entry: Entry<'_>, fields: &[Field<'_>]) -> Result<(), NotEdited> {
        let found = self.find(section, entry)?;
        let node = &*found.node;
        let written = || {
            fields
                .iter()
                .filter_map(|(name, value)| Some((*name, value.as_deref()?)))
        };
        let entries = match &node.kind {
            Kind::Map(entries) if !entries.is_empty() => entries.as_slice(),
            Kind::Map(_) => {
                let start = node.span.start as usize;
                let end = self.end_of(node);
                self.changes.push((start..end, flow(written())));
                return Ok(());
            }
            Kind::Scalar { .. } if node.is_null() && !found.is_flow => {
                // Nothing is written, or `~`: what stands after the colon goes.
                let colon = self.text[found.start..].find(':').ok_or(NotEdited::Form)?;
                let colon = found.start + colon + 1;
                let end = (node.span.end as usize).max(colon);
                self.changes.push((colon..end, format!(" {}", flow(written()))));
                return Ok(());
            }
            Kind::Scalar { .. } | Kind::List(_) => return Err(NotEdited::Form),
        };
        let is_flow = self.is_flow(node);
        let mut added = Vec::new();
        for (name, value) in fields {
            let place = entries.iter().position(|(key, _)| key.text == *name);
            match (place, value) {
                (Some(place), Some(value)) => self.replace_value(&entries[place], value),
                (Some(place), None) => self.remove_field(entries, place, is_flow),
                (None, Some(value)) => added.push((*name, value.as_str())),
                (None, None) => {}
            }
        }
        let (last_key, last) = entries.last().ok_or(NotEdited::Form)?;
        if added.is_empty() {
            return Ok(());
        }
        if is_flow {
            let end = self.end_of_field(last_key, last);
            let text = added.iter().map(|(name, value)| format!(", {name}: {value}")).collect();
            self.changes.push((end..end, text));
        } else {
            let column = self.column(entries[0].0.span.start as usize);
            let at = self.line_end(self.end_of_field(last_key, last));
            let mut text = String::new();
            for (name, value) in added {
                text.push_str(&format!("{:column$}{name}: {value}\n", ""));
            }
            self.insert_line(at, text);
        }
        Ok(())
    }

    /// Adds an entry after the last one. `name` is the key of a map's entry as YAML; `None` adds an item to a list.
    ///
    /// # Errors
    /// See [`NotEdited`].
    pub fn insert(&mut self, section: &str, name: Option<&str>, fields: &[(&str, String)]) -> Result<(), NotEdited> {
        let written = || fields.iter().map(|(name, value)| (*name, value.as_str()));
        let head = |indent: usize| match name {
            Some(name) => format!("{:indent$}{name}:", ""),
            None => format!("{:indent$}-", ""),
        };
        let Kind::Map(sections) = &self.root.kind else {
            return Err(NotEdited::Unreadable);
        };
        let Some((key, node)) = sections.iter().find(|(key, _)| key.text == section) else {
            if !sections.is_empty() {
                return Err(NotEdited::Form);
            }
            let at = self.text.len();
            self.insert_line(at, format!("{section}:\n{} {}\n", head(2), flow(written())));
            return Ok(());
        };
        let last = match &node.kind {
            Kind::Map(entries) => entries.last().map(|(key, node)| (Some(key), node)),
            Kind::List(items) => items.last().map(|node| (None, node)),
            Kind::Scalar { .. } if node.is_null() => None,
            Kind::Scalar { .. } => return Err(NotEdited::Form),
        };
        let Some((last_key, last)) = last else {
            // `keys: []`, `tenants: {}` or nothing: the value goes, and the entry stands below.
            let colon = self.text[key.span.end as usize..].find(':').ok_or(NotEdited::Form)?;
            let colon = key.span.end as usize + colon + 1;
            if !node.is_null() {
                let end = self.end_of(node);
                self.changes.push((colon..end, String::new()));
            }
            let at = self.line_end(colon);
            self.insert_line(at, format!("{} {}\n", head(2), flow(written())));
            return Ok(());
        };
        if self.is_flow(node) {
            let end = self.end_of(last);
            let text = match name {
                Some(name) => format!(", {name}: {}", flow(written())),
                None => format!(", {}", flow(written())),
            };
            self.changes.push((end..end, text));
            return Ok(());
        }
        let start = match last_key {
            Some(key) => key.span.start as usize,
            None => self.dash_before(last).ok_or(NotEdited::Form)?,
        };
        let indent = self.column(start);
        let end = match last_key {
            Some(key) => self.end_of_field(key, last),
            None => self.end_of(last),
        };
        let at = self.line_end(end);
        let block = match &last.kind {
            Kind::Map(entries) if !self.is_flow(last) => entries.first().map(|(key, _)| key.span.start as usize),
            _ => None,
        };
        let text = match block.map(|first| self.column(first)) {
            Some(column) if !fields.is_empty() => {
                let mut text = head(indent);
                for (at, (name, value)) in written().enumerate() {
                    if at == 0 && last_key.is_none() {
                        text.push_str(&" ".repeat(column.saturating_sub(indent + 1).max(1)));
                    } else {
                        text.push_str(&format!("\n{:column$}", ""));
                    }
                    text.push_str(&format!("{name}: {value}"));
                }
                text + "\n"
            }
            _ => format!("{} {}\n", head(indent), flow(written())),
        };
        self.insert_line(at, text);
        Ok(())
    }

    /// Takes an entry out, with the comment that says when the gateway made it. Other comments stay.
    ///
    /// # Errors
    /// See [`NotEdited`].
    pub fn remove(&mut self, section: &str, entry: Entry<'_>) -> Result<(), NotEdited> {
        let found = self.find(section, entry)?;
        let end = self.end_of(&found.node).max(found.start + 1);
        if found.among == 1 {
            let Kind::Map(sections) = &self.root.kind else {
                return Err(NotEdited::Unreadable);
            };
            let (key, node) = sections
                .iter()
                .find(|(key, _)| key.text == section)
                .ok_or(NotEdited::Form)?;
            let empty = if matches!(node.kind, Kind::List(_)) {
                " []"
            } else {
                " {}"
            };
            let colon = self.text[key.span.end as usize..].find(':').ok_or(NotEdited::Form)?;
            let colon = key.span.end as usize + colon + 1;
            if found.is_flow {
                let end = self.end_of(node);
                self.changes.push((colon..end, empty.to_owned()));
                return Ok(());
            }
            self.changes.push((colon..colon, empty.to_owned()));
        }
        if found.is_flow {
            let range = match found.place {
                0 => found.start..self.next_after_comma(end),
                _ => self.comma_before(found.start)..end,
            };
            self.changes.push((range, String::new()));
            return Ok(());
        }
        let mut start = self.line_start(found.start);
        if !self.text[start..found.start].bytes().all(|byte| byte == b' ') {
            return Err(NotEdited::Form);
        }
        if let Some(before) = start.checked_sub(1) {
            let line = self.line_start(before);
            if self.text[line..before].trim_start().starts_with("# Made ") {
                start = line;
            }
        }
        self.changes.push((start..self.line_end(end), String::new()));
        Ok(())
    }

    /// Returns whether the text is a map with this key.
    pub fn names(&self, name: &str) -> bool {
        matches!(&self.root.kind, Kind::Map(entries) if entries.iter().any(|(key, _)| key.text == name))
    }

    /// Returns whether there is such an entry.
    pub fn has(&self, section: &str, entry: Entry<'_>) -> bool {
        self.find(section, entry).is_ok()
    }

    fn find(&self, section: &str, entry: Entry<'_>) -> Result<Found, NotEdited> {
        let Kind::Map(sections) = &self.root.kind else {
            return Err(NotEdited::Unreadable);
        };
        let (_, node) = sections
            .iter()
            .find(|(key, _)| key.text == section)
            .ok_or(NotEdited::Absent)?;
        let is_flow = self.is_flow(node);
        match (&node.kind, entry) {
            (Kind::Map(entries), Entry::Named(name)) => {
                let place = entries
                    .iter()
                    .position(|(key, _)| key.text == name)
                    .ok_or(NotEdited::Absent)?;
                let (key, node) = &entries[place];
                let (start, among) = (key.span.start as usize, entries.len());
                let node = Rc::clone(node);
                Ok(Found {
                    start,
                    node,
                    among,
                    place,
                    is_flow,
                })
            }
            (Kind::List(items), Entry::Having(fields)) => {
                let fits = |node: &Rc<Node>| {
                    let Kind::Map(entries) = &node.kind else { return false };
                    fields.iter().all(|(name, wanted)| {
                        let found = entries.iter().find(|(key, _)| key.text == *name);
                        let text = found.and_then(|(_, node)| match &node.kind {
                            Kind::Scalar { text, .. } => Some(text.as_str()),
                            _ => None,
                        });
                        // The file escapes what would be a variable.
                        text == *wanted || text.is_some_and(|text| wanted.is_some_and(|wanted| escapes(text, wanted)))
                    })
                };
                let place = items.iter().position(fits).ok_or(NotEdited::Absent)?;
                let node = Rc::clone(&items[place]);
                let start = match is_flow {
                    true => node.span.start as usize,
                    false => self.dash_before(&node).ok_or(NotEdited::Form)?,
                };
                let among = items.len();
                Ok(Found {
                    start,
                    node,
                    among,
                    place,
                    is_flow,
                })
            }
            (Kind::Scalar { .. }, _) => Err(NotEdited::Absent),
            _ => Err(NotEdited::Form),
        }
    }

    fn replace_value(&mut self, (key, node): &(Key, Rc<Node>), value: &str) {
        let (start, end) = (node.span.start as usize, self.end_of_field(key, node));
        let is_short = matches!(node.kind, Kind::Scalar { .. }) || self.is_flow(node);
        if is_short && !node.is_null() && start >= key.span.end as usize {
            self.changes.push((start..end, value.to_owned()));
            return;
        }
        // A value of several lines, or none: what stands after the colon.
        let colon = self.text[key.span.end as usize..].find(':').map_or(0, |at| at + 1);
        let colon = key.span.end as usize + colon;
        self.changes.push((colon..end.max(colon), format!(" {value}")));
    }

    fn remove_field(&mut self, entries: &[(Key, Rc<Node>)], place: usize, is_flow: bool) {
        let (key, node) = &entries[place];
        let (start, end) = (key.span.start as usize, self.end_of_field(key, node));
        let range = match (is_flow, place) {
            (true, 0) => start..self.next_after_comma(end),
            (true, _) => self.comma_before(start)..end,
            (false, _) => self.line_start(start)..self.line_end(end),
        };
        self.changes.push((range, String::new()));
    }

    /// Returns the end of what stands between the comma after `end` and the next value; `end` if there is no comma.
    fn next_after_comma(&self, end: usize) -> usize {
        let rest = &self.text[end..];
        let after = rest.trim_start();
        match after.strip_prefix(',') {
            Some(after) => self.text.len() - after.trim_start().len(),
            None => end,
        }
    }

    /// Returns the place of the comma before `start`; `start` if there is none.
    fn comma_before(&self, start: usize) -> usize {
        let before = self.text[..start].trim_end();
        match before.strip_suffix(',') {
            Some(before) => before.len(),
            None => start,
        }
    }

    /// Inserts whole lines at the start of a line, or at the end of a text whose last line has no end.
    fn insert_line(&mut self, at: usize, lines: String) {
        let is_torn = at > 0 && !self.text[..at].ends_with('\n');
        let lines = if is_torn { format!("\n{lines}") } else { lines };
        self.changes.push((at..at, lines));
    }

    fn is_flow(&self, node: &Node) -> bool {
        let rest = &self.text[node.span.start as usize..];
        match &node.kind {
            Kind::Map(_) => rest.starts_with('{'),
            Kind::List(_) => rest.starts_with('['),
            Kind::Scalar { .. } => false,
        }
    }

    /// Returns the end of a value. A value without a text ends where it begins.
    fn end_of(&self, node: &Node) -> usize {
        let start = node.span.start as usize;
        let inner = match &node.kind {
            Kind::Scalar { .. } => return node.span.end as usize,
            Kind::Map(entries) => entries.last().map(|(key, node)| self.end_of_field(key, node)),
            Kind::List(items) => items.last().map(|node| self.end_of(node)),
        };
        if !self.is_flow(node) {
            return inner.unwrap_or(start);
        }
        let mut at = inner.unwrap_or(start + 1);
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(at) {
            match byte {
                b'}' | b']' => return at + 1,
                b'#' => at = self.line_end(at),
                _ => at += 1,
            }
        }
        at
    }

    fn end_of_field(&self, key: &Key, node: &Node) -> usize {
        let colon = self.text[key.span.end as usize..].find(':').map_or(0, |at| at + 1);
        self.end_of(node).max(key.span.end as usize + colon)
    }

    /// Returns the place of the dash of a list item that begins on the same line.
    fn dash_before(&self, node: &Node) -> Option<usize> {
        let start = node.span.start as usize;
        let before = self.text[self.line_start(start)..start].trim_end_matches(' ');
        before.ends_with('-').then(|| self.line_start(start) + before.len() - 1)
    }

    fn line_start(&self, at: usize) -> usize {
        self.text[..at].rfind('\n').map_or(0, |newline| newline + 1)
    }

    /// Returns the start of the next line. A place at the start of a line after a line end counts as the line before.
    fn line_end(&self, at: usize) -> usize {
        if at > 0 && self.text.as_bytes()[at - 1] == b'\n' {
            return at;
        }
        self.text[at..]
            .find('\n')
            .map_or(self.text.len(), |newline| at + newline + 1)
    }

    fn column(&self, at: usize) -> usize {
        at - self.line_start(at)
    }
}

/// Returns whether `text` is `wanted`, with `$${` for `${`.
fn escapes(text: &str, wanted: &str) -> bool {
    wanted.contains("${") && text == wanted.replace("${", "$${")
}

/// Writes a map in one line.
fn flow<'a>(fields: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let fields: Vec<_> = fields.map(|(name, value)| format!("{name}: {value}")).collect();
    if fields.is_empty() {
        return "{}".to_owned();
    }
    format!("{{ {} }}", fields.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(text: &str, edit: impl FnOnce(&mut Editor<'_>) -> Result<(), NotEdited>) -> String {
        let mut editor = Editor::new(text).unwrap();
        edit(&mut editor).unwrap();
        editor.finish()
    }

    const BLOCK: &str = "\
# Our customers.
tenants:
  # The first one.
  acme: # since 2019
    tier: 'premium'   # by contract
    quotas:
      monthly: { limit: 100, every: month }

  globex:
    tier: free
# The end.
";

    const FLOW: &str = "\
tenants:
  acme: { tier: premium, in_flight: 20 } # since 2019
  \"b c\": { tier: \"free\" }
";

    const KEYS: &str = "\
keys:
  # Made 2026-01-01. The key itself is elsewhere.
  - { id: a-1, tenant: acme, digest: \"sha256:00\" }
  - id: a-2
    tenant: acme   # the second
    scopes: [a, b]
";

    fn yes() -> Option<String> {
        Some("true".to_owned())
    }

    #[test]
    fn a_field_changes_and_nothing_else() {
        let change = |text: &str, name: &str, fields: &[Field<'_>]| {
            edited(text, |editor| editor.change("tenants", Entry::Named(name), fields))
        };
        assert_eq!(
            change(BLOCK, "acme", &[("tier", Some("basic".into()))]),
            BLOCK.replace("'premium'", "basic")
        );
        assert_eq!(
            change(BLOCK, "acme", &[("disabled", yes())]),
            BLOCK.replace("month }\n", "month }\n    disabled: true\n")
        );
        assert_eq!(
            change(BLOCK, "globex", &[("disabled", yes())]),
            BLOCK.replace("tier: free\n", "tier: free\n    disabled: true\n")
        );
        assert_eq!(
            change(BLOCK, "acme", &[("quotas", None)]),
            BLOCK.replace("    quotas:\n      monthly: { limit: 100, every: month }\n", "")
        );
        assert_eq!(
            change(
                BLOCK,
                "acme",
                &[("quotas", Some("{ daily: { limit: 1, every: day } }".into()))]
            ),
            BLOCK.replace(
                "quotas:\n      monthly: { limit: 100, every: month }",
                "quotas: { daily: { limit: 1, every: day } }"
            )
        );
        assert_eq!(
            change(FLOW, "acme", &[("disabled", yes())]),
            FLOW.replace("20 }", "20, disabled: true }")
        );
        assert_eq!(
            change(FLOW, "acme", &[("tier", None)]),
            FLOW.replace("tier: premium, ", "")
        );
        assert_eq!(
            change(FLOW, "acme", &[("in_flight", None), ("tier", Some("free".into()))]),
            FLOW.replace("premium, in_flight: 20", "free")
        );
        assert_eq!(
            change(FLOW, "b c", &[("tier", Some("basic".into()))]),
            FLOW.replace("\"free\"", "basic")
        );
        for (text, expected) in [
            ("tenants:\n  a: {}\n", "tenants:\n  a: { disabled: true }\n"),
            (
                "tenants:\n  a:\n  b: {}\n",
                "tenants:\n  a: { disabled: true }\n  b: {}\n",
            ),
            (
                "tenants: { a: { tier: x } }",
                "tenants: { a: { tier: x, disabled: true } }",
            ),
        ] {
            assert_eq!(change(text, "a", &[("disabled", yes())]), expected);
        }
    }

    #[test]
    fn an_entry_is_added_in_the_form_of_the_last() {
        let insert = |text: &str| {
            edited(text, |editor| {
                editor.insert(
                    "tenants",
                    Some("new"),
                    &[("tier", "basic".to_owned()), ("burst", "9".to_owned())],
                )
            })
        };
        assert_eq!(
            insert(BLOCK),
            BLOCK.replace("tier: free\n", "tier: free\n  new:\n    tier: basic\n    burst: 9\n")
        );
        assert_eq!(insert(FLOW), format!("{FLOW}  new: {{ tier: basic, burst: 9 }}\n"));
        for (text, expected) in [
            ("", "tenants:\n  new: { tier: basic, burst: 9 }\n"),
            ("# None.\n", "# None.\ntenants:\n  new: { tier: basic, burst: 9 }\n"),
            (
                "tenants: {} # none\n",
                "tenants: # none\n  new: { tier: basic, burst: 9 }\n",
            ),
            ("tenants:\n", "tenants:\n  new: { tier: basic, burst: 9 }\n"),
            (
                "tenants: { a: {} }\n",
                "tenants: { a: {}, new: { tier: basic, burst: 9 } }\n",
            ),
            (
                "tenants:\n  a: {}",
                "tenants:\n  a: {}\n  new: { tier: basic, burst: 9 }\n",
            ),
        ] {
            assert_eq!(insert(text), expected);
        }
        let insert = |text: &str| {
            edited(text, |editor| {
                editor.insert("keys", None, &[("id", "n".to_owned()), ("tenant", "t".to_owned())])
            })
        };
        assert_eq!(insert(KEYS), format!("{KEYS}  - id: n\n    tenant: t\n"));
        assert_eq!(insert("keys: []\n"), "keys:\n  - { id: n, tenant: t }\n");
        assert_eq!(
            insert("keys:\n- { id: a }\n# End.\n"),
            "keys:\n- { id: a }\n- { id: n, tenant: t }\n# End.\n"
        );
    }

    #[test]
    fn an_entry_goes_with_its_lines_alone() {
        let remove = |text: &str, name: &str| edited(text, |editor| editor.remove("tenants", Entry::Named(name)));
        assert_eq!(
            remove(BLOCK, "globex"),
            BLOCK.replace("  globex:\n    tier: free\n", "")
        );
        assert_eq!(
            remove(FLOW, "acme"),
            FLOW.replace("  acme: { tier: premium, in_flight: 20 } # since 2019\n", "")
        );
        assert_eq!(
            remove("tenants:\n  a: {} # last\n# End.\n", "a"),
            "tenants: {}\n# End.\n"
        );
        assert_eq!(remove("tenants: { a: {}, b: {} }\n", "a"), "tenants: { b: {} }\n");
        assert_eq!(remove("tenants: { a: {}, b: {} }\n", "b"), "tenants: { a: {} }\n");
        let remove = |id: &str| {
            edited(KEYS, |editor| {
                editor.remove("keys", Entry::Having(&[("id", Some(id)), ("label", None)]))
            })
        };
        assert_eq!(remove("a-2"), KEYS.split("  - id: a-2").next().unwrap());
        assert_eq!(
            remove("a-1"),
            "keys:\n  - id: a-2\n    tenant: acme   # the second\n    scopes: [a, b]\n"
        );
    }

    #[test]
    fn what_is_not_there_is_not_changed() {
        let mut editor = Editor::new(BLOCK).unwrap();
        assert_eq!(editor.remove("tenants", Entry::Named("x")), Err(NotEdited::Absent));
        assert_eq!(editor.remove("keys", Entry::Named("x")), Err(NotEdited::Absent));
        assert!(matches!(Editor::new("a: ["), Err(NotEdited::Unreadable)));
        assert!(matches!(Editor::new("a: 1\na: 2"), Err(NotEdited::Unreadable)));
    }
}

//! Finds the entries of a long file by its lines, without parsing it.
//!
//! Only block style is understood: a section at the start of a line, and below it entries with one indentation. What is
//! found is parsed afterwards, so a text that only looks like an entry does no harm.

use super::edit::{Editor, Entry};

/// Longest run of lines that is looked at from the end, in bytes.
const RUN: usize = 64 << 10;

/// Form of the entries in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Key of the only section.
    pub section: &'static str,
    /// Whether the section is a list. Its items are told by their `id`.
    pub is_list: bool,
}

/// Lines of one entry or of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    pub start: usize,
    pub end: usize,
    /// Number of the first line, from 1.
    pub line: usize,
    pub is_one_line: bool,
}

/// Finds the entries of a text whose section is written in block style.
pub struct Lines<'t> {
    text: &'t str,
    at: usize,
    line: usize,
    indent: usize,
    layout: Layout,
    /// Whether a line that is no entry ended the section.
    has_ended: bool,
}

impl<'t> Lines<'t> {
    /// Returns `None` if the text does not begin with the section in block style.
    pub fn new(text: &'t str, layout: Layout) -> Option<Self> {
        let (mut at, mut line) = (0, 1);
        let mut is_open = false;
        while at < text.len() {
            let end = line_end(text, at);
            let content = text[at..end].trim_end();
            let bare = content.trim_start_matches(' ');
            if bare.is_empty() || bare.starts_with('#') || content == "---" && !is_open {
            } else if !is_open {
                let rest = content.strip_prefix(layout.section)?.strip_prefix(':')?.trim_start();
                if !rest.is_empty() && !rest.starts_with('#') {
                    return None;
                }
                is_open = true;
            } else {
                let indent = content.len() - bare.len();
                let fits = match layout.is_list {
                    true => bare.starts_with("- "),
                    false => indent > 0 && !bare.starts_with(['-', '?', '{', '\t']),
                };
                return fits.then_some(Self {
                    layout,
                    text,
                    at,
                    line,
                    indent,
                    has_ended: false,
                });
            }
            (at, line) = (end, line + 1);
        }
        None
    }

    /// Returns the next entry with the comments and empty lines after it.
    pub fn next_entry(&mut self) -> Option<Part> {
        if self.has_ended || self.at >= self.text.len() {
            return None;
        }
        let (start, line) = (self.at, self.line);
        let mut is_one_line = true;
        let mut is_first = true;
        while self.at < self.text.len() {
            let end = line_end(self.text, self.at);
            let content = &self.text.as_bytes()[self.at..end];
            let indent = content.iter().take_while(|byte| **byte == b' ').count();
            let is_blank = matches!(content.get(indent), None | Some(b'\n' | b'\r' | b'#'));
            if !is_blank {
                if indent < self.indent {
                    self.has_ended = true;
                    break;
                }
                let is_dash = content[indent] == b'-';
                if self.layout.is_list && indent == self.indent && !is_dash {
                    self.has_ended = true;
                    break;
                }
                let is_entry = indent == self.indent && is_dash == self.layout.is_list;
                if is_entry && !is_first {
                    break;
                }
                is_one_line &= is_first;
                is_first = false;
            }
            self.at = end;
            self.line += 1;
        }
        (!is_first).then_some(Part {
            start,
            end: self.at,
            line,
            is_one_line,
        })
    }

    /// Returns whether nothing but the section stands in the text.
    pub const fn is_over(&self) -> bool {
        !self.has_ended
    }
}

fn line_end(text: &str, at: usize) -> usize {
    memchr::memchr(b'\n', &text.as_bytes()[at..]).map_or(text.len(), |newline| at + newline + 1)
}

/// Returns the entry of a tenant in a text whose entries stand one below the other.
pub fn find(text: &str, layout: Layout, name: &str) -> Option<Part> {
    let lines = Lines::new(text, layout)?;
    if layout.is_list {
        return find_item(text, lines, name);
    }
    let indent = " ".repeat(lines.indent);
    // The usual spellings are searched for at once; any other is found entry by entry.
    for spelling in [name.to_owned(), super::written(name), format!("'{name}'")] {
        let wanted = format!("\n{indent}{spelling}:");
        if let Some(at) = memchr::memmem::find(text.as_bytes(), wanted.as_bytes()) {
            let mut lines = Lines::new(text, layout)?;
            if at + 1 >= lines.at {
                lines.line += memchr::memchr_iter(b'\n', &text.as_bytes()[lines.at..=at]).count();
                lines.at = at + 1;
                return lines.next_entry();
            }
        }
    }
    let mut lines = lines;
    while let Some(part) = lines.next_entry() {
        let quoted = text[part.start..].trim_start_matches(' ').starts_with(['"', '\'']);
        if quoted {
            let editor = Editor::new(&text[part.start..part.end]);
            if editor.is_ok_and(|editor| editor.names(name)) {
                return Some(part);
            }
        }
    }
    None
}

/// Returns the last entry of a text whose entries stand one below the other.
pub fn last(text: &str, layout: Layout) -> Option<Part> {
    let lines = Lines::new(text, layout)?;
    // Entries near the end are looked at first: the whole of a long file need not be.
    let mut from = text.len().saturating_sub(RUN);
    loop {
        from = text[..from].rfind('\n').map_or(0, |newline| newline + 1);
        let mut near = Lines {
            text,
            at: from.max(lines.at),
            line: 1,
            indent: lines.indent,
            layout,
            has_ended: false,
        };
        // The first line may lie within an entry.
        if from > lines.at {
            let _ = near.next_entry();
        }
        let mut found = None;
        while let Some(part) = near.next_entry() {
            found = Some(part);
        }
        if found.is_some() || from <= lines.at {
            return found;
        }
        from = from.saturating_sub(RUN).max(1) - 1;
    }
}

fn find_item(text: &str, mut lines: Lines<'_>, id: &str) -> Option<Part> {
    let section = lines.layout.section;
    let finder = memchr::memmem::Finder::new(id);
    let escaped = memchr::memmem::Finder::new("\\");
    while let Some(part) = lines.next_entry() {
        let entry = &text.as_bytes()[part.start..part.end];
        if finder.find(entry).is_none() && escaped.find(entry).is_none() {
            continue;
        }
        let entry = format!("{section}:\n{}", &text[part.start..part.end]);
        if Editor::new(&entry).is_ok_and(|editor| editor.has(section, Entry::Having(&[("id", Some(id))]))) {
            return Some(part);
        }
    }
    None
}

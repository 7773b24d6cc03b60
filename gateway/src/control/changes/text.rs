//! Edits an entry in the text of a file, and proves that nothing else has changed.
//!
//! In a long file only the lines of the entry are parsed, because everything else stays byte for byte.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::config::edit::{Editor, Entry, Field, NotEdited};
use crate::config::entry_lines::{self, Layout, Part};

/// Longest text that is edited and checked as a whole, in bytes.
const WHOLE: u64 = 64 << 10;

/// Fields of an entry as YAML, in the order in which they are written.
pub type Fields = Vec<(&'static str, String)>;

/// A part of a file and what replaces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Splice {
    pub part: Range<u64>,
    pub old: String,
    pub new: String,
}

/// The text of a file, or the beginning and the end of a long one.
#[derive(Debug, Clone)]
pub struct Excerpt {
    pub text: String,
    /// Length of the file in bytes. What is left out stands before the end of the text.
    pub length: u64,
}

/// Changes one entry of a text. `read` reads all entries of a text, and `wanted` is what it must find for this one. A new
/// entry needs only an excerpt.
///
/// # Errors
/// The text is written in a form that is not understood.
pub fn edited<T: PartialEq>(
    layout: Layout,
    excerpt: &Excerpt,
    name: &str,
    (before, after): (Option<&Fields>, Option<&Fields>),
    read: &dyn Fn(&str) -> Option<BTreeMap<String, T>>,
    wanted: Option<T>,
) -> Result<Splice, NotEdited> {
    let Excerpt { text, length } = excerpt;
    if *length <= WHOLE {
        let new = proven(layout, text, name, (before, after), read, wanted)?;
        return Ok(Splice {
            part: 0..*length,
            old: text.clone(),
            new,
        });
    }
    let part = match before {
        Some(_) => entry_lines::find(text, layout, name),
        None => entry_lines::last(text, layout),
    };
    let Part { start, end, .. } = part.ok_or(NotEdited::Form)?;
    let head = format!("{}:\n", layout.section);
    let old = &text[start..end];
    let new = proven(layout, &format!("{head}{old}"), name, (before, after), read, wanted)?;
    let new = new.strip_prefix(&head).ok_or(NotEdited::Form)?;
    let place = |at: usize| length - (text.len() - at) as u64;
    Ok(Splice {
        part: place(start)..place(end),
        old: old.to_owned(),
        new: new.to_owned(),
    })
}

fn proven<T: PartialEq>(
    layout: Layout,
    text: &str,
    name: &str,
    (before, after): (Option<&Fields>, Option<&Fields>),
    read: &dyn Fn(&str) -> Option<BTreeMap<String, T>>,
    wanted: Option<T>,
) -> Result<String, NotEdited> {
    let mut editor = Editor::new(text)?;
    let having = [("id", Some(name))];
    let entry = match layout.is_list {
        true => Entry::Having(&having),
        false => Entry::Named(name),
    };
    match (before, after) {
        (None, Some(fields)) => {
            let key = (!layout.is_list).then(|| crate::config::written(name));
            editor.insert(layout.section, key.as_deref(), fields)?;
        }
        (Some(before), Some(after)) => editor.change(layout.section, entry, &difference(before, after))?,
        (Some(_), None) => editor.remove(layout.section, entry)?,
        (None, None) => {}
    }
    let new = editor.finish();
    let mut expected = match text.trim().is_empty() {
        true => BTreeMap::new(),
        false => read(text).unwrap_or_default(),
    };
    match wanted {
        Some(wanted) => expected.insert(name.to_owned(), wanted),
        None => expected.remove(name),
    };
    if read(&new).is_none_or(|found| found != expected) {
        return Err(NotEdited::Form);
    }
    Ok(new)
}

/// Returns the fields that differ; `None` for those that are no longer written.
fn difference<'a>(before: &'a Fields, after: &'a Fields) -> Vec<Field<'a>> {
    let gone = before
        .iter()
        .filter(|(name, _)| !after.iter().any(|(other, _)| other == name));
    let gone = gone.map(|(name, _)| (*name, None));
    let new = after.iter().filter(|field| !before.contains(field));
    let new = new.map(|(name, value)| (*name, Some(value.clone())));
    gone.chain(new).collect()
}

/// Returns the lines that differ, each with `-` or `+` before it. Digests are cut.
pub fn lines_that_differ(old: &str, new: &str) -> String {
    let (old_bytes, new_bytes) = (old.as_bytes(), new.as_bytes());
    let same = same_start(old_bytes, new_bytes);
    let start = memchr::memrchr(b'\n', &old_bytes[..same]).map_or(0, |at| at + 1);
    let same = same_end(&old_bytes[start..], &new_bytes[start..]);
    let tail = &old_bytes[old_bytes.len() - same..];
    // Only whole lines at the end are the same.
    let is_whole = same == 0
        || [old_bytes, new_bytes].iter().all(|all| {
            let cut = all.len() - same;
            cut == start || all.get(cut.wrapping_sub(1)) == Some(&b'\n')
        });
    let skipped = if is_whole {
        0
    } else {
        tail.iter().position(|byte| *byte == b'\n').map_or(same, |at| at + 1)
    };
    let end = same - skipped;
    let mut out = String::new();
    for (mark, text, bytes) in [('-', old, old_bytes), ('+', new, new_bytes)] {
        for line in text[start..bytes.len() - end].lines() {
            out.push(mark);
            out.push_str(&without_digests(line));
            out.push('\n');
        }
    }
    out
}

/// Length of the steps in which long texts are compared.
const STEP: usize = 4096;

/// Returns the number of bytes at the start that are the same.
fn same_start(one: &[u8], other: &[u8]) -> usize {
    let steps = one.chunks_exact(STEP).zip(other.chunks_exact(STEP));
    let same = STEP * steps.take_while(|(one, other)| one == other).count();
    let rest = one[same..].iter().zip(&other[same..]);
    same + rest.take_while(|(one, other)| one == other).count()
}

/// Returns the number of bytes at the end that are the same.
fn same_end(one: &[u8], other: &[u8]) -> usize {
    let steps = one.rchunks_exact(STEP).zip(other.rchunks_exact(STEP));
    let same = STEP * steps.take_while(|(one, other)| one == other).count();
    let (one, other) = (&one[..one.len() - same], &other[..other.len() - same]);
    let rest = one.iter().rev().zip(other.iter().rev());
    same + rest.take_while(|(one, other)| one == other).count()
}

fn without_digests(line: &str) -> String {
    const MARK: &str = "sha256:";
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find(MARK) {
        let (before, after) = rest.split_at(at + MARK.len());
        out.push_str(before);
        let length = after.bytes().take_while(u8::is_ascii_hexdigit).count();
        out.push_str("...");
        rest = &after[length..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_lines_differ() {
        let check = |old: &str, new: &str, expected: &str| assert_eq!(lines_that_differ(old, new), expected);
        check("a\nb\nc\n", "a\nx\nc\n", "-b\n+x\n");
        check("a\nc\n", "a\nb\nc\n", "+b\n");
        check("a\nb\nc\n", "a\nc\n", "-b\n");
        check("", "a: 1\n", "+a: 1\n");
        check("a: {}\n", "a:\n  b: 1\n", "-a: {}\n+a:\n+  b: 1\n");
        check("  ab: x\n", "  ab: y, d: x\n", "-  ab: x\n+  ab: y, d: x\n");
        check("a\na\n", "a\na\na\n", "+a\n");
        check("same\n", "same\n", "");
        check(
            "k: \"sha256:00ff\" }\n",
            "k: \"sha256:00ff\", d }\n",
            "-k: \"sha256:...\" }\n+k: \"sha256:...\", d }\n",
        );
    }
}

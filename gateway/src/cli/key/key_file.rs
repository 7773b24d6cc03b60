//! Adds a line to the key file, which a running gateway may be reading.
//!
//! Invariant: a reader sees the file as it was or with the whole line, and no line of another process is lost. A file
//! that would not be valid with the line stays as it is.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use crate::config::{Sources, keys};
use crate::files::{self, FileContent, Replaced, replace_version};

/// Number of tries while other processes change the file.
const TRIES: u32 = 20;

/// Longest wait for another process that holds the lock on the folder.
const PATIENCE: Duration = Duration::from_secs(5);

/// Adds an entry to the key file, and creates the file if there is none.
///
/// # Errors
/// Says why the file is as it was.
pub(super) fn add(file: &Path, entry: &str) -> Result<(), String> {
    for _ in 0..TRIES {
        match files::read(file) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if create(file, entry)? {
                    return Ok(());
                }
            }
            Err(error) => return Err(error.to_string()),
            Ok(FileContent { bytes, stamp }) => {
                let text = with_entry(&bytes, entry)?;
                let replaced = replace_version(file, stamp, text.as_bytes(), PATIENCE);
                match replaced.map_err(|error| error.to_string())? {
                    // A version that came in between has no such line; begin again with it.
                    Replaced::Done { mut last, .. } => match last.written_since().map_err(|error| error.to_string())? {
                        None => return Ok(()),
                        Some(between) => {
                            let text = with_entry(&between.bytes, entry)?;
                            files::replace(file, text.as_bytes(), files::Mode::Kept)
                                .map_err(|error| error.to_string())?;
                            return Ok(());
                        }
                    },
                    Replaced::Changed => {}
                }
            }
        }
    }
    Err("other processes keep changing it".to_owned())
}

/// Creates the file. Returns false if another process was first.
fn create(file: &Path, entry: &str) -> Result<bool, String> {
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    match created.and_then(|mut created| created.write_all(format!("keys:\n{entry}").as_bytes())) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error.to_string()),
    }
}

/// Returns the text of a key file with one more entry.
fn with_entry(bytes: &[u8], entry: &str) -> Result<String, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    let is_empty = text
        .lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
    let mut text = text.to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    let before = if is_empty {
        text.push_str("keys:\n");
        0
    } else {
        count(&text)?
    };
    // An entry is indented by two spaces; a list may stand without any.
    let flush = text.lines().rev().find(|line| line.trim_start().starts_with("- "));
    if flush.is_some_and(|line| line.starts_with('-')) {
        entry
            .lines()
            .for_each(|line| text = format!("{text}{}\n", line.trim_start()));
    } else {
        text.push_str(entry);
    }
    match count(&text) {
        Ok(after) if after == before + 1 => Ok(text),
        Ok(_) => Err("its entries are written in another form: add the line by hand".to_owned()),
        Err(why) => Err(format!("it would not be valid with the new line:\n{why}")),
    }
}

/// Returns the number of keys in the text of a key file, or its mistakes.
fn count(text: &str) -> Result<usize, String> {
    let mut sources = Sources::default();
    let parsed = keys::parse("the file", text, &mut sources, &|name| std::env::var(name).ok());
    match parsed {
        Ok(file) => Ok(file.keys.len()),
        Err(mistakes) => Err(sources.render(&mistakes, false).trim_end().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn entry(id: &str) -> String {
        format!(
            "  - {{ id: {id}, tenant: acme, digest: \"sha256:{:0>64}\" }}\n",
            id.len()
        )
    }

    #[test]
    fn a_new_file_is_private_and_valid_and_grows() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.yaml");
        for (index, id) in ["a", "bb", "ccc"].into_iter().enumerate() {
            add(&file, &entry(id)).unwrap();
            assert_eq!(count(&fs::read_to_string(&file).unwrap()), Ok(index + 1));
        }
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn an_entry_is_added_in_the_form_of_the_others() {
        let added = |text: &str| with_entry(text.as_bytes(), &entry("new"));
        for text in [
            "",
            "# Keys.\n",
            "keys: []",
            &format!("keys:\n{}", entry("a")),
            &format!("keys:\n{}", entry("a").trim_end()),
            &format!("keys:\n{}", entry("a").trim_start()),
        ] {
            match text {
                "keys: []" => assert!(added(text).unwrap_err().contains("not be valid"), "{text}"),
                _ => assert!(added(text).unwrap().contains("id: new"), "{text}"),
            }
        }
        assert!(added(&format!("keys:\n{}", entry("new"))).is_err());
        assert!(added("- { id: a }\n").unwrap_err().contains("begins with `keys:`"));
    }

    #[test]
    fn no_line_of_another_process_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.yaml");
        let ids: Vec<_> = (1..=12).map(|length| "k".repeat(length)).collect();
        std::thread::scope(|scope| {
            for id in &ids {
                let file = &file;
                scope.spawn(move || add(file, &entry(id)).unwrap());
            }
        });
        assert_eq!(count(&fs::read_to_string(&file).unwrap()), Ok(ids.len()));
    }
}

//! Changes keys and tenants while the gateway runs: in the file that is the truth, and then in what is in force.
//!
//! A change reads the file, replaces what it is about, reads the result again, and replaces the file as a whole. Only
//! then it is in force, for all workers at once. So what is in force is never ahead of the file, and a crash, a full disk
//! or a folder without write access leaves the file as it was. A file that someone else has changed is read first.
//!
//! Runs on threads that may wait for files.

pub mod keys;
pub mod tenants;
pub mod text;

use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use self::text::{Excerpt, Splice};
use crate::config::edit::NotEdited;
use crate::files::{self, FileContent, Replaced, Stamp};
use crate::plan::managed_files::Turn;
use crate::plan::{LivePlan, State};

/// Longest wait for another change or a reload.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Length of the beginning and of the end of a long file that are read for a new entry, in bytes.
const ENDS: usize = 256 << 10;
/// Largest size of a file of keys, in bytes.
const MOST_KEYS: u64 = files::LARGEST;

/// State that a change must find.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Precondition {
    #[default]
    Any,
    /// An entry with one of these tags (`If-Match`).
    Tags(Vec<String>),
    /// Some entry (`If-Match: *`).
    Present,
    /// No entry (`If-None-Match: *`).
    Absent,
}

/// Manner of a change.
#[derive(Debug, Clone, Default)]
pub struct Order {
    pub precondition: Precondition,
    /// Whether everything but the change is done.
    pub is_trial: bool,
    /// Name of the token, for the audit.
    pub by: Arc<str>,
}

/// A change that was made, or would be.
#[derive(Debug, Clone, PartialEq)]
pub struct Changed<T> {
    pub before: Option<T>,
    pub after: Option<T>,
    /// Lines of the file that differ, each with `-` or `+` before it.
    pub lines: String,
    /// Whether the plan has to be compiled again before the change is wholly in force.
    pub needs_plan: bool,
}

/// Why nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotChanged {
    /// Another change, or a reload, has not finished.
    Busy,
    /// The config names no such file.
    NoFile,
    /// The file was changed by someone else and is not in force yet.
    Newer,
    /// There is no such entry.
    Absent,
    /// The entry is not what the precondition says. Holds its tag, if there is an entry.
    Precondition(Option<String>),
    /// Every mistake in what is wanted.
    Invalid(Vec<String>),
    /// The file is written in a form that cannot be changed here.
    Form(String),
    /// The file could not be written.
    NotWritten(String),
    /// There is no room for the file.
    Full(String),
}

impl Precondition {
    /// # Errors
    /// The entry is another one.
    fn check(&self, tag: Option<&str>) -> Result<(), NotChanged> {
        let fits = match (self, tag) {
            (Self::Any, _) | (Self::Present, Some(_)) | (Self::Absent, None) => true,
            (Self::Tags(tags), Some(tag)) => tags.iter().any(|known| known == tag),
            _ => false,
        };
        if fits {
            Ok(())
        } else {
            Err(NotChanged::Precondition(tag.map(str::to_owned)))
        }
    }
}

/// Waits for the turn.
fn turn(state: &State) -> Result<Turn<'_>, NotChanged> {
    state.managed.turn(PATIENCE).ok_or(NotChanged::Busy)
}

/// Reads a file whose version in force is `expected`.
fn read_file(path: &Path, most: u64, expected: Option<Stamp>) -> Result<(Excerpt, Stamp), NotChanged> {
    let content = files::read_up_to(path, most).map_err(|error| not_read(path, &error))?;
    let length = content.bytes.len() as u64;
    excerpt(path, content, length, expected)
}

/// Reads the beginning and the end of a long file whose version in force is `expected`.
fn read_ends(path: &Path, expected: Option<Stamp>) -> Result<(Excerpt, Stamp), NotChanged> {
    let (mut content, length) = files::read_ends(path, ENDS).map_err(|error| not_read(path, &error))?;
    if length > content.bytes.len() as u64 {
        // Whole lines, so that no letter is cut.
        let (head, tail) = content.bytes.split_at(ENDS);
        let head = memchr::memrchr(b'\n', head).map_or(0, |newline| newline + 1);
        let tail = ENDS + memchr::memchr(b'\n', tail).map_or(0, |newline| newline + 1);
        content.bytes.drain(head..tail);
    }
    excerpt(path, content, length, expected)
}

fn excerpt(
    path: &Path,
    content: FileContent,
    length: u64,
    expected: Option<Stamp>,
) -> Result<(Excerpt, Stamp), NotChanged> {
    if Some(content.stamp) != expected {
        return Err(NotChanged::Newer);
    }
    let text =
        String::from_utf8(content.bytes).map_err(|_| NotChanged::Form(format!("{} is not UTF-8", path.display())))?;
    Ok((Excerpt { text, length }, content.stamp))
}

fn not_read(path: &Path, error: &io::Error) -> NotChanged {
    NotChanged::NotWritten(format!("cannot read {}: {error}", path.display()))
}

/// Replaces a part of a file. Returns the new version.
fn write_file(path: &Path, expected: Stamp, splice: &Splice) -> Result<Stamp, NotChanged> {
    match files::splice_version(path, expected, splice.part.clone(), splice.new.as_bytes(), PATIENCE) {
        Ok(Replaced::Done { version, mut last }) => {
            if let Ok(Some(_)) = last.written_since() {
                tracing::error!(path = %path.display(), "somebody wrote to a file while it was replaced: that is lost");
            }
            Ok(version)
        }
        Ok(Replaced::Changed) => Err(NotChanged::Newer),
        Err(error) => Err(not_written(path, &error)),
    }
}

fn not_written(path: &Path, error: &io::Error) -> NotChanged {
    let why = format!("cannot write {}: {error}", path.display());
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => NotChanged::Full(why),
        _ => NotChanged::NotWritten(why),
    }
}

fn not_edited(path: &Path, why: NotEdited) -> NotChanged {
    let form = match why {
        NotEdited::Absent => return NotChanged::Absent,
        NotEdited::Unreadable => "it is not one YAML map",
        NotEdited::Form => "its entries are written in another form than one below the other",
    };
    NotChanged::Form(format!(
        "{} cannot be changed here, because {form}: change it by hand",
        path.display()
    ))
}

/// Returns the plan in force and the state, for a change.
pub type Running<'a> = (&'a LivePlan, &'a State);

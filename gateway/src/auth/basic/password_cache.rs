//! Cache of the verdicts of password comparisons. It lives as long as the process.
//!
//! A comparison shows that a password fits one line of the user file. So a verdict is keyed by the line and the
//! credential together, and counts exactly while the line is unchanged: a reload discards nothing, and a changed line
//! needs a new comparison.
//!
//! Invariant: no password is stored. Entries are HMACs with a key of this process, because a plain digest would make
//! the slow hash useless. Memory is bounded: one right credential for each line in use, and a limited number of wrong
//! ones.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use arc_swap::ArcSwapOption;
use aws_lc_rs::digest::{self, SHA256};
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use aws_lc_rs::rand::SystemRandom;
use quick_cache::sync::Cache;

/// HMAC of a line and a credential.
pub(crate) type Tag = [u8; 32];

/// SHA-256 of the inputs of a comparison: a user's name and hash.
type Digest = [u8; 32];

/// Number of leading bytes of a password that bcrypt uses.
pub(crate) const COUNTED: usize = 72;

/// All verdicts of the process.
pub struct KnownPasswords {
    /// Made with the first line, because the first random numbers take 30 ms of processor time, and a gateway without
    /// passwords is to start without them.
    key: LazyLock<hmac::Key>,
    lines: Mutex<HashMap<Digest, Weak<Line>>>,
    wrong: Cache<Tag, ()>,
}

/// One line of the user file, shared by all plans that have it unchanged.
pub(crate) struct Line {
    digest: Digest,
    /// Tag of the right credential. Passwords that differ only after the bytes that bcrypt uses have the same tag.
    right: ArcSwapOption<Tag>,
}

impl KnownPasswords {
    /// Caches at most `most_wrong` wrong credentials.
    pub fn new(most_wrong: usize) -> Self {
        Self {
            key: LazyLock::new(|| {
                hmac::Key::generate(HMAC_SHA256, &SystemRandom::new()).expect("the system has random numbers")
            }),
            lines: Mutex::default(),
            wrong: Cache::new(most_wrong),
        }
    }

    /// Returns the line of this user, with its verdict if an earlier plan had the same line.
    pub(crate) fn line(&self, id: &str, hash: &str) -> Arc<Line> {
        LazyLock::force(&self.key);
        let mut context = digest::Context::new(&SHA256);
        context.update(&(id.len() as u64).to_be_bytes());
        context.update(id.as_bytes());
        context.update(hash.as_bytes());
        let digest = context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes");
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.get(&digest).and_then(Weak::upgrade) {
            return line;
        }
        lines.retain(|_, line| line.strong_count() > 0);
        let line = Arc::new(Line {
            digest,
            right: ArcSwapOption::empty(),
        });
        lines.insert(digest, Arc::downgrade(&line));
        line
    }

    /// Returns the cache key of a credential, `name:password`. `line` is the line of the user with that name.
    pub(crate) fn tag(&self, line: Option<&Line>, name_and_colon: &[u8], password: &[u8]) -> Tag {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&line.map_or([0; 32], |line| line.digest));
        context.update(name_and_colon);
        context.update(&password[..password.len().min(COUNTED)]);
        context.sign().as_ref().try_into().expect("HMAC-SHA-256 has 32 bytes")
    }

    pub(crate) fn is_wrong(&self, tag: &Tag) -> bool {
        self.wrong.get(tag).is_some()
    }

    pub(crate) fn note_wrong(&self, tag: Tag) {
        self.wrong.insert(tag, ());
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> (usize, usize) {
        (self.lines.lock().unwrap().len(), self.wrong.len())
    }
}

impl Line {
    pub(crate) fn is_right(&self, tag: &Tag) -> bool {
        self.right.load().as_deref() == Some(tag)
    }

    pub(crate) fn note_right(&self, tag: Tag) {
        self.right.store(Some(Arc::new(tag)));
    }
}

impl std::fmt::Debug for KnownPasswords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KnownPasswords").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_belongs_to_one_line_and_one_credential() {
        let known = KnownPasswords::new(10);
        let line = known.line("ada", "hash");
        let tag = known.tag(Some(&line), b"ada:", b"lovelace");
        line.note_right(tag);
        let holds = |id: &str, hash: &str, name: &str, password: &str| {
            let line = known.line(id, hash);
            line.is_right(&known.tag(Some(&line), name.as_bytes(), password.as_bytes()))
        };
        assert!(holds("ada", "hash", "ada:", "lovelace"));
        assert!(!holds("ada", "other", "ada:", "lovelace"));
        assert!(!holds("adah", "ash", "ada:", "lovelace"));
        assert!(!holds("ada", "hash", "ada:", "lovelac"));
        assert!(!holds("ada", "hash", "ada:", ""));
        assert_ne!(known.tag(None, b"ada:", b"lovelace"), tag);
        assert_ne!(KnownPasswords::new(10).tag(Some(&line), b"ada:", b"lovelace"), tag);
    }

    #[test]
    fn a_line_that_no_plan_has_is_forgotten() {
        let known = KnownPasswords::new(10);
        let line = known.line("ada", "hash");
        let tag = known.tag(Some(&line), b"ada:", b"lovelace");
        line.note_right(tag);
        let after_reload = known.line("ada", "hash");
        drop(line);
        assert!(known.line("ada", "hash").is_right(&tag), "one plan has it still");
        drop(after_reload);
        assert!(!known.line("ada", "hash").is_right(&tag));
        for n in 0..100 {
            drop(known.line(&format!("user-{n}"), "hash"));
        }
        assert_eq!(known.len().0, 1);
    }
}

//! Remembers which entries of a config have mistakes, so that what is sound in the rest can be checked at once.
//!
//! A check that looks at several entries may report what follows from a mistake in one of them. Such a follow-up is
//! left out: it goes away with the mistake that it follows from.

use super::mistake::{Code, Mistake, Mistakes};
use super::span::Span;
use super::tree::{Kind, Node};

/// Entries with mistakes, of the config and of its sections.
#[derive(Debug, Clone, Default)]
pub struct Unsound {
    /// Entries with mistakes.
    all: Vec<Entry>,
    /// Those in which values are not what is written, because of errors of syntax.
    lossy: Vec<Entry>,
}

/// An entry from its key up to the next one.
#[derive(Debug, Clone)]
struct Entry {
    /// Path, such as `backends.users` or `time_limits.request`.
    path: String,
    start: u32,
    end: u32,
}

/// Sections that are left out entry by entry, not as a whole.
const BY_ENTRY: [&str; 6] = ["listeners", "callers", "tiers", "tenants", "backends", "routes"];

impl Unsound {
    /// Finds the entries that have a mistake.
    pub(super) fn of(root: &Node, mistakes: &Mistakes, lossy: &[Span]) -> Self {
        // What is missing at the top has no place of its own.
        let at: Vec<_> = mistakes
            .iter()
            .filter_map(|mistake| mistake.at.filter(|at| at.end > 0))
            .collect();
        if at.is_empty() {
            return Self::default();
        }
        let mut all = Vec::new();
        entries(root, "", u32::MAX, &mut all);
        all.retain(|entry: &Entry| at.iter().any(|at| at.source == root.span.source && entry.has(*at)));
        let below = |entry: &Entry| {
            all.iter()
                .any(|other| other.path.starts_with(&format!("{}.", entry.path)))
        };
        let all: Vec<_> = all.iter().filter(|entry| !below(entry)).cloned().collect();
        let lossy = all.iter().filter(|entry| lossy.iter().any(|at| entry.has(*at)));
        Self {
            lossy: lossy.cloned().collect(),
            all,
        }
    }

    /// Leaves out mistakes that may follow from an error of syntax.
    pub(super) fn without_follow_ups(&self, mistakes: Mistakes) -> Mistakes {
        let mut kept = Mistakes::default();
        kept.extend(
            mistakes
                .iter()
                .filter(|mistake| mistake.code == Code::Syntax || !self.is_lossy(mistake))
                .cloned(),
        );
        kept
    }

    fn is_lossy(&self, mistake: &Mistake) -> bool {
        let at = mistake.at.filter(|at| at.source == 0);
        at.is_some_and(|at| self.lossy.iter().any(|entry| entry.has(at)))
    }

    /// Returns whether no entry has a mistake.
    pub const fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Returns whether the section at `path`, or one within it, has a mistake.
    pub fn touches(&self, path: &str) -> bool {
        let below = |entry: &Entry| {
            entry
                .path
                .strip_prefix(path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        self.all.iter().any(below)
    }

    /// Returns the mistaken keys of the section at `path`; an empty one stands for the section as a whole.
    pub fn within<'s>(&'s self, path: &'s str) -> impl Iterator<Item = &'s str> {
        let rest = self.all.iter().filter_map(move |entry| entry.path.strip_prefix(path));
        rest.filter_map(|rest| {
            if rest.is_empty() {
                Some(rest)
            } else {
                rest.strip_prefix('.')
            }
        })
    }

    /// Returns whether what was found with the mistaken entries left out may follow from that.
    pub fn may_explain(&self, found: &Mistake) -> bool {
        let inside = |at: Span| at.source == 0 && self.all.iter().any(|entry| entry.has(at));
        let beside = found.related.iter().any(|(at, _)| inside(*at));
        let of_code = found.code == Code::OverParent && (beside || self.touches("time_limits"));
        let texts = [Some(&found.message), found.hint.as_ref()];
        let named = |entry: &Entry| {
            let is_own = found.at.is_some_and(|at| at.source == 0 && entry.has(at));
            // Routes are named together, and none depends on another.
            let is_route = entry.path.starts_with("routes.");
            !is_own && !is_route && texts.iter().flatten().any(|text| names(text, &entry.path))
        };
        let of_syntax = found.code != Code::MissingKey && self.is_lossy(found);
        of_code || of_syntax || self.all.iter().any(named)
    }
}

/// Returns whether a text names the entry at `path`, or what is within it.
fn names(text: &str, path: &str) -> bool {
    text.match_indices(path).any(|(at, _)| {
        let after = text[at + path.len()..].chars().next();
        text[..at].ends_with('`') && after.is_none_or(|after| matches!(after, '`' | '.' | ':' | ' '))
    })
}

impl Entry {
    const fn has(&self, at: Span) -> bool {
        self.start <= at.start && at.start < self.end
    }
}

fn entries(map: &Node, path: &str, end: u32, all: &mut Vec<Entry>) {
    let Kind::Map(found) = &map.kind else { return };
    let mut starts: Vec<u32> = found.iter().map(|(key, _)| key.span.start).collect();
    starts.sort_unstable();
    for (key, node) in found {
        let after = starts.partition_point(|start| *start <= key.span.start);
        let next = starts.get(after).copied().unwrap_or(end);
        let own = super::key_path::join(path, &key.text);
        if path.is_empty() && BY_ENTRY.contains(&&*own) {
            entries(node, &own, next, all);
        }
        all.push(Entry {
            path: own,
            start: key.span.start,
            end: next,
        });
    }
}

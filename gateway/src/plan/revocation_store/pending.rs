//! What was added to the list of revocations and is not safely in its file: when it is written, and what it outlives.
//!
//! An entry that cannot be written is tried again, at first after a second and then more and more seldom. One that was
//! written is kept in mind for a minute: whoever edits the file with a version from before would take it out without a
//! thought. Told the time; knows nothing of files.

use std::collections::BTreeMap;
use std::time::Duration;

use policies::Moment;

use crate::auth::revocations::{List, Revoked, Terms};

/// Between two tries at first; doubled with each further failure.
const RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// A version of the file that comes so soon after an entry was written does not take it out.
const RECENT: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct Pending {
    /// In force, and not in the file.
    unwritten: List,
    /// In the file since then.
    recent: BTreeMap<Revoked, (Terms, Moment)>,
    failures: u32,
    /// When it is tried again.
    due: Moment,
}

impl Pending {
    pub(super) fn len(&self) -> usize {
        self.unwritten.len()
    }

    /// These are in force now, and to be written.
    pub(super) fn add(&mut self, entries: List) {
        self.unwritten.extend(entries);
    }

    /// These are in force no more.
    pub(super) fn remove(&mut self, revoked: &Revoked) {
        self.unwritten.remove(revoked);
        self.recent.remove(revoked);
    }

    /// What is in force when the file says `list`, and how many entries the file has lost that were just written to it.
    pub(super) fn over(&mut self, mut list: List, now: Moment) -> (List, usize) {
        self.forget_old(now);
        let lost: Vec<_> = self
            .recent
            .extract_if(.., |revoked, _| !list.contains_key(revoked))
            .collect();
        let count = lost.len();
        self.add(lost.into_iter().map(|(revoked, (terms, _))| (revoked, terms)).collect());
        // Whatever could not be written before, it is another file now.
        (self.failures, self.due) = (0, now);
        list.extend(self.unwritten.clone());
        (list, count)
    }

    /// The file says this now, by our hand.
    pub(super) fn written(&mut self, list: &List, now: Moment) {
        self.forget_old(now);
        let written = self
            .unwritten
            .extract_if(.., |revoked, terms| list.get(revoked) == Some(terms));
        self.recent
            .extend(written.map(|(revoked, terms)| (revoked, (terms, now))));
        (self.failures, self.due) = (0, now);
    }

    /// It could not be written.
    pub(super) fn failed(&mut self, now: Moment) {
        let wait = RETRY.saturating_mul(1 << self.failures.min(16)).min(LONGEST_RETRY);
        self.failures = self.failures.saturating_add(1);
        self.due = now + wait;
    }

    /// Tries that have failed, one after another.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether there is something to write, and it is time to.
    pub(super) fn is_due(&self, now: Moment) -> bool {
        !self.unwritten.is_empty() && now >= self.due
    }

    fn forget_old(&mut self, now: Moment) {
        self.recent.retain(|_, (_, written)| now.since(*written) < RECENT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::revocations::RevokedKind;

    fn key(id: &str) -> Revoked {
        Revoked::new(RevokedKind::Key, id, None).unwrap()
    }

    fn list(ids: &str) -> List {
        let ids = ids.split(' ').filter(|id| !id.is_empty());
        ids.map(|id| (key(id), Terms::default())).collect()
    }

    fn names(list: &List) -> String {
        let names: Vec<_> = list.keys().map(|revoked| revoked.name().to_string()).collect();
        names.join(" ")
    }

    fn at(seconds: u64) -> Moment {
        Moment::ZERO + Duration::from_secs(1_000 + seconds)
    }

    #[test]
    fn what_was_just_added_outlives_the_versions_that_do_not_know_it() {
        let mut pending = Pending::default();
        let check = |pending: &mut Pending, file: &str, second, expected: &str, lost, unwritten| {
            let (list, found) = pending.over(list(file), at(second));
            assert_eq!((names(&list), found), (expected.to_owned(), lost), "{file} at {second}");
            assert_eq!(pending.len(), unwritten, "{file} at {second}");
        };
        check(&mut pending, "a", 0, "a", 0, 0);
        pending.add(list("b"));
        check(&mut pending, "a c", 1, "a b c", 0, 1);
        pending.written(&list("a b c"), at(2));
        check(&mut pending, "a b", 3, "a b", 0, 0);
        check(&mut pending, "a c", 4, "a b c", 1, 1);
        // Not written yet, for however long.
        check(&mut pending, "", 500, "b", 0, 1);
        pending.written(&list("b"), at(500));
        check(&mut pending, "", 559, "b", 1, 1);
        pending.written(&list("b"), at(560));
        check(&mut pending, "", 620, "", 0, 0);
        // Taken back, it is nobody's business any more.
        pending.add(list("d"));
        pending.written(&list("d"), at(630));
        pending.remove(&key("d"));
        check(&mut pending, "", 631, "", 0, 0);
        // The monotonic clock goes backwards.
        pending.add(list("e"));
        pending.written(&list("e"), at(640));
        check(&mut pending, "", 600, "e", 1, 1);
    }

    #[test]
    fn what_is_written_is_what_the_list_says() {
        let mut pending = Pending::default();
        pending.add(list("a b"));
        let mut written = list("a b");
        written.insert(
            key("b"),
            Terms {
                until: Some(7),
                reason: None,
            },
        );
        pending.written(&written, at(0));
        assert_eq!(pending.len(), 1, "it was added with other terms meanwhile");
    }

    #[test]
    fn it_is_tried_again_more_and_more_seldom() {
        let mut pending = Pending::default();
        assert!(!pending.is_due(at(0)), "there is nothing to write");
        pending.add(list("a"));
        assert!(pending.is_due(at(0)));
        let mut now = 0;
        for wait in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            pending.failed(at(now));
            assert!(
                !pending.is_due(at(now + wait - 1)) && pending.is_due(at(now + wait)),
                "{wait}"
            );
            now += wait;
        }
        assert_eq!(pending.failures(), 9);
        // Another version of the file: perhaps it can be.
        pending.over(list(""), at(now + 1));
        assert!(pending.is_due(at(now + 1)));
        pending.failed(at(now + 1));
        pending.written(&list("a"), at(now + 1));
        pending.add(list("b"));
        assert!(pending.is_due(at(now + 1)));
    }
}

//! Tracks revocations that were added but are not safely in the file: when to write them, and how long to protect them.
//!
//! A failed write is retried after one second, then at growing intervals. A written entry is protected for a minute: a
//! process that edits an older version of the file would remove the entry without knowing it.
//!
//! Takes the time as an argument and accesses no files.

use std::collections::BTreeMap;
use std::time::Duration;

use policies::Moment;

use crate::auth::revocations::{List, Revoked, Terms};

/// Wait before the first retry; each further failure doubles it.
const RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// Time after its write during which a new version of the file does not remove an entry.
const RECENT: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct Pending {
    /// Entries in force that are not in the file.
    unwritten: List,
    /// Entries written a short time ago, with the time of the write.
    recent: BTreeMap<Revoked, (Terms, Moment)>,
    failures: u32,
    /// Time of the next try.
    due: Moment,
}

impl Pending {
    pub(super) fn len(&self) -> usize {
        self.unwritten.len()
    }

    /// Returns all entries that are not written or were written a short time ago.
    pub(super) fn all(&mut self, now: Moment) -> List {
        self.forget_old(now);
        let recent = self.recent.iter();
        let mut all: List = recent
            .map(|(revoked, (terms, _))| (revoked.clone(), terms.clone()))
            .collect();
        all.extend(self.unwritten.clone());
        all
    }

    /// Adds entries that are in force and must be written.
    pub(super) fn add(&mut self, entries: List) {
        self.unwritten.extend(entries);
    }

    /// Forgets an entry that is no longer in force.
    pub(super) fn remove(&mut self, revoked: &Revoked) {
        self.unwritten.remove(revoked);
        self.recent.remove(revoked);
    }

    /// Returns the list in force if the file contains `list`, and how many recently written entries the file has lost.
    pub(super) fn over(&mut self, mut list: List, now: Moment) -> (List, usize) {
        self.forget_old(now);
        let lost: Vec<_> = self
            .recent
            .extract_if(.., |revoked, _| !list.contains_key(revoked))
            .collect();
        let count = lost.len();
        self.add(lost.into_iter().map(|(revoked, (terms, _))| (revoked, terms)).collect());
        // The file is a new one, so earlier failures do not count.
        (self.failures, self.due) = (0, now);
        list.extend(self.unwritten.clone());
        (list, count)
    }

    /// Notes that the gateway has written this list.
    pub(super) fn written(&mut self, list: &List, now: Moment) {
        self.forget_old(now);
        let written = self
            .unwritten
            .extract_if(.., |revoked, terms| list.get(revoked) == Some(terms));
        self.recent
            .extend(written.map(|(revoked, terms)| (revoked, (terms, now))));
        (self.failures, self.due) = (0, now);
    }

    /// Notes a failed write.
    pub(super) fn failed(&mut self, now: Moment) {
        let wait = RETRY.saturating_mul(1 << self.failures.min(16)).min(LONGEST_RETRY);
        self.failures = self.failures.saturating_add(1);
        self.due = now + wait;
    }

    /// Returns the number of consecutive failed writes.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// Returns true if there is something to write and the wait is over.
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
        // An entry that is not written stays for any time.
        check(&mut pending, "", 500, "b", 0, 1);
        pending.written(&list("b"), at(500));
        check(&mut pending, "", 559, "b", 1, 1);
        pending.written(&list("b"), at(560));
        check(&mut pending, "", 620, "", 0, 0);
        // An entry that was removed is not protected.
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
        // A new version of the file may be writable, so it is tried at once.
        pending.over(list(""), at(now + 1));
        assert!(pending.is_due(at(now + 1)));
        pending.failed(at(now + 1));
        pending.written(&list("a"), at(now + 1));
        pending.add(list("b"));
        assert!(pending.is_due(at(now + 1)));
    }
}

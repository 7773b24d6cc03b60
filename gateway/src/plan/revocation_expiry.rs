//! Decides when an ended revocation may be deleted: when both clocks agree that it ended long ago.
//!
//! The wall clock can be wrong for an hour, and an entry that leaves the list also leaves the file at the next change.
//! So the monotonic clock must agree: the wall time at which the entry was learnt plus the time since then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use policies::WallTime;

use crate::auth::revocations::{List, Revoked};
use crate::clock::Now;

/// Time that must pass after an entry's end, on each clock.
const LONG: Duration = Duration::from_secs(24 * 3600);
/// Time that an entry must be known, because the wall clock may have been wrong when it was learnt.
const KNOWN: Duration = Duration::from_secs(3600);

/// Time at which each entry with an end was learnt. It is no longer than the list, which is bounded.
#[derive(Default)]
pub(super) struct RevocationAges {
    list: Option<Arc<List>>,
    entries: BTreeMap<Revoked, Entry>,
}

struct Entry {
    /// End of the entry, in seconds since 1970.
    until: u64,
    learnt: Now,
}

impl RevocationAges {
    /// Returns the entries that ended long ago.
    pub(super) fn long_over(&mut self, list: &Arc<List>, now: Now) -> Vec<Revoked> {
        self.learn(list, now);
        let over = self
            .entries
            .iter()
            .filter(|(_, entry)| is_long_over(entry.until, entry.learnt, now));
        over.map(|(revoked, _)| revoked.clone()).collect()
    }

    fn learn(&mut self, list: &Arc<List>, now: Now) {
        if self.list.as_ref().is_some_and(|learnt| Arc::ptr_eq(learnt, list)) {
            return;
        }
        let until = |revoked: &Revoked| list.get(revoked).and_then(|terms| terms.until);
        self.entries
            .retain(|revoked, entry| until(revoked) == Some(entry.until));
        for (revoked, terms) in list.iter() {
            if let Some(until) = terms.until
                && !self.entries.contains_key(revoked)
            {
                self.entries.insert(revoked.clone(), Entry { until, learnt: now });
            }
        }
        self.list = Some(Arc::clone(list));
    }
}

fn is_long_over(until: u64, learnt: Now, now: Now) -> bool {
    let until = WallTime::since_epoch(Duration::from_secs(until).saturating_add(LONG));
    let known = now.moment.since(learnt.moment);
    let without_jumps = WallTime::since_epoch(learnt.wall.elapsed().saturating_add(known));
    known >= KNOWN && now.wall >= until && without_jumps >= until
}

#[cfg(test)]
mod tests {
    use policies::Moment;

    use super::*;
    use crate::auth::revocations::{RevokedKind, Terms};

    /// Clock readings in hours.
    fn at((moment, wall): (u64, u64)) -> Now {
        Now {
            moment: Moment::ZERO + Duration::from_secs(moment * 3600),
            wall: WallTime::since_epoch(Duration::from_secs(wall * 3600)),
        }
    }

    #[test]
    fn both_clocks_have_to_agree() {
        let check = |until: u64, learnt, now, expected| {
            let answer = is_long_over(until * 3600, at(learnt), at(now));
            assert_eq!(answer, expected, "until {until}, learnt at {learnt:?}, at {now:?}");
        };
        // Both clocks are correct.
        check(100, (5, 90), (15, 100), false);
        check(100, (5, 90), (38, 123), false);
        check(100, (5, 90), (39, 124), true);
        // The wall clock is ahead.
        check(100, (5, 90), (5, 9_999), false);
        check(100, (5, 90), (38, 9_999), false);
        check(100, (5, 90), (39, 9_999), true);
        // The wall clock is behind, or was set back.
        check(100, (5, 90), (39, 80), false);
        check(100, (5, 90), (999, 123), false);
        // The entry was learnt while the wall clock was ahead.
        check(100, (5, 9_999), (5, 9_999), false);
        check(100, (5, 9_999), (6, 90), false);
        check(100, (5, 9_999), (999, 90), false);
        // The entry was learnt long after its end, for example from an old file.
        check(100, (5, 500), (5, 500), false);
        check(100, (5, 500), (6, 501), true);
        // The monotonic clock goes backwards.
        check(100, (5, 500), (4, 501), false);
        check(u64::MAX / 3600, (5, 90), (9_999, 9_999), false);
    }

    #[test]
    fn an_entry_is_learnt_when_it_is_first_seen_with_its_end() {
        let list = |entries: &[(&str, Option<u64>)]| -> Arc<List> {
            let entry = |(id, until): &(&str, Option<u64>)| {
                let until = until.map(|until| until * 3600);
                (
                    Revoked::new(RevokedKind::Key, id, None).unwrap(),
                    Terms { until, reason: None },
                )
            };
            Arc::new(entries.iter().map(entry).collect())
        };
        let mut learnt = RevocationAges::default();
        let mut check = |list: &Arc<List>, now, expected: &[&str]| {
            let over = learnt.long_over(list, at(now));
            let over: Vec<_> = over.iter().map(|revoked| &**revoked.name()).collect();
            assert_eq!(over, expected, "at {now:?}");
        };
        let one = list(&[("a", Some(100)), ("b", Some(200)), ("c", None)]);
        check(&one, (0, 90), &[]);
        check(&one, (34, 124), &["a"]);
        // An entry of the old list keeps its learning time; an entry with another end is learnt anew.
        let two = list(&[("b", Some(200)), ("d", Some(50))]);
        check(&two, (100, 9_999), &[]);
        check(&two, (134, 9_999), &["b", "d"]);
        let three = list(&[("b", Some(150))]);
        check(&three, (134, 224), &[]);
        check(&three, (135, 225), &["b"]);
        check(&list(&[]), (999, 9_999), &[]);
    }
}

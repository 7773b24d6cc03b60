//! When an entry of the list of revocations may be forgotten: when both clocks say that it is long over.
//!
//! The wall clock may be wrong for an hour, and what it takes out of the list is taken out of the file by the next
//! change. So the monotonic clock has to agree: by the time at which the entry was learnt, and what has passed since.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use policies::WallTime;

use crate::auth::revocations::{List, Revoked};
use crate::clock::Now;

/// Time since an entry's end, on each clock.
const LONG: Duration = Duration::from_secs(24 * 3600);
/// Time that an entry has been known: it may have been learnt while the wall clock was wrong.
const KNOWN: Duration = Duration::from_secs(3600);

/// When each entry that ends was learnt. As long as the list, which is bounded.
#[derive(Default)]
pub(super) struct Learnt {
    list: Option<Arc<List>>,
    entries: BTreeMap<Revoked, Entry>,
}

struct Entry {
    /// Seconds since 1970.
    until: u64,
    learnt: Now,
}

impl Learnt {
    /// The entries of the list in force that are long over.
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

    /// Hours on either clock.
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
        // Both go on as they should.
        check(100, (5, 90), (15, 100), false);
        check(100, (5, 90), (38, 123), false);
        check(100, (5, 90), (39, 124), true);
        // The wall clock is ahead, for however long.
        check(100, (5, 90), (5, 9_999), false);
        check(100, (5, 90), (38, 9_999), false);
        check(100, (5, 90), (39, 9_999), true);
        // It is behind, or was set back.
        check(100, (5, 90), (39, 80), false);
        check(100, (5, 90), (999, 123), false);
        // Learnt while it was ahead.
        check(100, (5, 9_999), (5, 9_999), false);
        check(100, (5, 9_999), (6, 90), false);
        check(100, (5, 9_999), (999, 90), false);
        // Learnt long after its end, as from a file that nobody tends.
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
        let mut learnt = Learnt::default();
        let mut check = |list: &Arc<List>, now, expected: &[&str]| {
            let over = learnt.long_over(list, at(now));
            let over: Vec<_> = over.iter().map(|revoked| &**revoked.name()).collect();
            assert_eq!(over, expected, "at {now:?}");
        };
        let one = list(&[("a", Some(100)), ("b", Some(200)), ("c", None)]);
        check(&one, (0, 90), &[]);
        check(&one, (34, 124), &["a"]);
        // Another list with the same entry goes on from when that was learnt, one with another end does not.
        let two = list(&[("b", Some(200)), ("d", Some(50))]);
        check(&two, (100, 9_999), &[]);
        check(&two, (134, 9_999), &["b", "d"]);
        let three = list(&[("b", Some(150))]);
        check(&three, (134, 224), &[]);
        check(&three, (135, 225), &["b"]);
        check(&list(&[]), (999, 9_999), &[]);
    }
}

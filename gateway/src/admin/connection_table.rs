//! Tracks the open connections of an admin address, and chooses which one to close when there are too many.
//!
//! A connection without a request in progress holds nothing but its socket. So a new connection is always accepted.
//! When there are too many, one idle connection is closed: the one that is idle longest, of the peer that has the most.
//! A peer that opens hundreds loses its own, and a new probe is always served.
//!
//! This file knows neither sockets nor clocks.

use std::collections::HashMap;
use std::net::IpAddr;

use policies::Moment;

/// Open connections by number.
pub(super) struct ConnectionTable {
    most: usize,
    open: HashMap<u64, Entry>,
    next: u64,
}

struct Entry {
    peer: IpAddr,
    /// Number of requests in progress.
    busy: u32,
    since: Moment,
}

/// A new connection, and the connection that is closed for it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Admitted {
    pub(super) number: u64,
    /// Number of the connection to close, if there are too many.
    pub(super) closes: Option<u64>,
}

impl ConnectionTable {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            open: HashMap::new(),
            next: 0,
        }
    }

    /// Accepts a connection. Returns `None` if there are too many and each of them has a request in progress.
    pub(super) fn admit(&mut self, peer: IpAddr, now: Moment) -> Option<Admitted> {
        let closes = if self.open.len() < self.most {
            None
        } else {
            Some(self.least_deserving()?)
        };
        if let Some(number) = closes {
            self.open.remove(&number);
        }
        let number = self.next;
        self.next += 1;
        let entry = Entry {
            peer,
            busy: 0,
            since: now,
        };
        self.open.insert(number, entry);
        Some(Admitted { number, closes })
    }

    /// Records the start of a request. Returns false if the connection has been closed.
    pub(super) fn begin(&mut self, number: u64) -> bool {
        let entry = self.open.get_mut(&number);
        entry.is_some_and(|entry| {
            entry.busy += 1;
            true
        })
    }

    /// Records the end of a request.
    pub(super) fn end(&mut self, number: u64, now: Moment) {
        if let Some(entry) = self.open.get_mut(&number) {
            entry.busy = entry.busy.saturating_sub(1);
            entry.since = now;
        }
    }

    pub(super) fn remove(&mut self, number: u64) {
        self.open.remove(&number);
    }

    fn least_deserving(&self) -> Option<u64> {
        let mut by_peer: HashMap<IpAddr, usize> = HashMap::new();
        for entry in self.open.values() {
            *by_peer.entry(entry.peer).or_default() += 1;
        }
        let idle = self.open.iter().filter(|(_, entry)| entry.busy == 0);
        let worst = idle.max_by_key(|(number, entry)| {
            use std::cmp::Reverse;
            (by_peer[&entry.peer], Reverse(entry.since), Reverse(**number))
        });
        worst.map(|(number, _)| *number)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn at(seconds: u64) -> Moment {
        Moment::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn the_longest_idle_of_the_peer_with_most_makes_room() {
        let mut table = ConnectionTable::new(4);
        let mut admit = |who: u8, when: u64| {
            table
                .admit(peer(who), at(when))
                .map(|admitted| (admitted.number, admitted.closes))
        };
        assert_eq!(admit(1, 0), Some((0, None)));
        assert_eq!(admit(2, 1), Some((1, None)));
        assert_eq!(admit(2, 2), Some((2, None)));
        assert_eq!(admit(2, 3), Some((3, None)));
        // Peer 1 is idle longest, but peer 2 has the most connections.
        assert_eq!(admit(3, 4), Some((4, Some(1))));
        assert_eq!(admit(3, 5), Some((5, Some(2))));
        // Peers 1 and 2 have one, peer 3 has two.
        assert_eq!(admit(1, 6), Some((6, Some(4))));
        assert_eq!(
            admit(1, 7),
            Some((7, Some(0))),
            "peer 1 has most now, and its first is the oldest"
        );
    }

    #[test]
    fn who_is_being_answered_stays() {
        let mut table = ConnectionTable::new(2);
        let first = table.admit(peer(1), at(0)).unwrap().number;
        let second = table.admit(peer(1), at(1)).unwrap().number;
        assert!(table.begin(first));
        assert_eq!(table.admit(peer(2), at(2)).unwrap().closes, Some(second));
        assert!(!table.begin(second), "it has been closed");
        table.end(second, at(2));
        let third = 2;
        assert!(table.begin(third));
        assert_eq!(table.admit(peer(3), at(3)), None, "all are being answered");
        table.end(first, at(4));
        assert_eq!(table.admit(peer(3), at(5)).unwrap().closes, Some(first));
        table.remove(third);
        assert_eq!(table.admit(peer(4), at(0)).unwrap().closes, None, "time goes backwards");
    }

    #[test]
    fn time_since_an_answer_counts_and_not_since_the_opening() {
        let mut table = ConnectionTable::new(2);
        let first = table.admit(peer(1), at(0)).unwrap().number;
        let second = table.admit(peer(1), at(1)).unwrap().number;
        assert!(table.begin(first));
        table.end(first, at(9));
        assert_eq!(table.admit(peer(1), at(10)).unwrap().closes, Some(second));
    }
}

//! Compares passwords outside the worker threads, a few at a time.
//!
//! A comparison takes a tenth of a second of CPU; on a worker it would delay all requests there. Invariant: comparisons
//! use a limited number of cores, a limited number of credentials wait, and one address has a limited part of both.
//! Addresses take turns. An address with a recent wrong password comes after all others, and loses its place to them if
//! the queue is full. So guessing passwords keeps nobody else out, from however many addresses. Several requests with
//! one credential, as when a client opens many connections at its start, wait for one comparison. Credentials with a
//! cached verdict are not compared here.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use policies::Moment;
use policies::bulkhead::{Bulkhead, Entrant, Entry, Signal, Slot};
use quick_cache::sync::Cache;
use tokio::sync::{OnceCell, oneshot};

use crate::auth::basic::password_cache::Tag;
use crate::clock;
use crate::limits::owner::Owner;

/// Maximum number of credentials that wait.
const MOST: u32 = 64;
/// Maximum number of credentials from one address that wait or are being compared.
const MOST_OF_ONE: usize = 8;
/// Time until a retry when there is no place to wait. Some comparisons have ended by then.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Time after a wrong password for which an address comes after those without one.
const FAILURE_MEMORY: Duration = Duration::from_secs(600);
/// Maximum number of addresses with a wrong password that are remembered.
const MOST_FAILED: usize = 10_000;
/// Number of comparisons for addresses without a wrong password to one for those with.
const PREFERENCE: u32 = 1000;

/// All comparisons of the process.
#[derive(Debug)]
pub struct PasswordChecks {
    /// Slots and queue for the cores. Tenants are client addresses; tier 1 is for those with a wrong password, tier 0
    /// others.
    cores: Arc<Bulkhead<Wake>>,
    waiting: Mutex<HashMap<(Tag, IpAddr), Outcome>>,
    pub(super) failed: Cache<IpAddr, Moment>,
}

/// Verdict of a comparison once it has ended: whether the password is right, or `None` if the comparison panicked.
pub(super) type Outcome = Arc<OnceCell<Option<bool>>>;

/// Wakes the request whose credential is next.
#[derive(Debug)]
pub(super) struct Wake(oneshot::Sender<()>);

impl Signal for Wake {
    fn signal(self) {
        // A send error means that the caller has left. Its dropped ticket then passes the slot on.
        let _ = self.0.send(());
    }
}

/// A request's share of a comparison.
pub(super) struct ComparisonShare<'a> {
    checks: &'a PasswordChecks,
    key: (Tag, IpAddr),
    pub(super) outcome: Outcome,
}

impl PasswordChecks {
    /// Limits the comparisons to `cores` at once, at least one.
    pub fn new(cores: usize) -> Self {
        let cores = u32::try_from(cores).ok().and_then(NonZeroU32::new);
        Self {
            cores: Arc::new(Bulkhead::new(cores.unwrap_or(NonZeroU32::MIN), MOST)),
            waiting: Mutex::default(),
            failed: Cache::new(MOST_FAILED),
        }
    }

    pub(super) fn enter(&self, tag: Tag, client: IpAddr) -> Option<ComparisonShare<'_>> {
        let key = (tag, client);
        let mut waiting = self.lock();
        let of_client = waiting.keys().filter(|(_, of)| *of == client).count();
        if !waiting.contains_key(&key) && of_client >= MOST_OF_ONE {
            return None;
        }
        let outcome = Arc::clone(waiting.entry(key).or_default());
        Some(ComparisonShare {
            checks: self,
            key,
            outcome,
        })
    }

    /// Waits for this client's turn and returns a core for one comparison. `None` if there is no place to wait.
    pub(super) async fn core(&self, client: IpAddr, until: Moment) -> Option<Slot<Wake>> {
        let (now, mut woken) = (clock::now(), None);
        let entrant = self.entrant(client, now, until);
        let entry = self.cores.enter(now, entrant, || {
            let (wake, woke) = oneshot::channel();
            woken = Some(woke);
            Wake(wake)
        });
        let ticket = match entry {
            Entry::Admitted(slot) => return Some(slot),
            Entry::Full => return None,
            Entry::Queued(ticket) => ticket,
        };
        // The caller's own time limit ends the wait. After any wake-up, the ticket knows whether the turn has come.
        let _ = woken?.await;
        ticket.claim(clock::now()).ok()
    }

    fn entrant(&self, client: IpAddr, now: Moment, deadline: Moment) -> Entrant {
        let failed = self.failed.get(&client).is_some_and(|at| now < at + FAILURE_MEMORY);
        Entrant {
            tenant: Owner::Address(client).key().short(),
            tier: u32::from(failed),
            weight: if failed { 1 } else { PREFERENCE },
            deadline,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(Tag, IpAddr), Outcome>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ComparisonShare<'_> {
    fn drop(&mut self) {
        let mut waiting = self.checks.lock();
        // One reference is the map's, and one is this request's own.
        if Arc::strong_count(&self.outcome) <= 2 {
            waiting.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    #[test]
    fn one_address_has_its_share_of_the_room() {
        let checks = PasswordChecks::new(1);
        let tag = |n: usize| [u8::try_from(n).unwrap(); 32];
        let mut shares = Vec::new();
        for n in 0..MOST_OF_ONE {
            shares.push(checks.enter(tag(n), address(1)).expect("its share"));
        }
        assert!(checks.enter(tag(200), address(1)).is_none());
        let again = checks.enter(tag(0), address(1)).expect("one comparison for both");
        assert!(Arc::ptr_eq(&again.outcome, &shares[0].outcome));
        shares.push(checks.enter(tag(200), address(2)).expect("another has its own"));
        let same = checks.enter(tag(0), address(2)).expect("the same credential");
        assert!(
            !Arc::ptr_eq(&same.outcome, &again.outcome),
            "nobody waits for another's turn"
        );
        drop((shares, same));
        assert_eq!(checks.lock().len(), 1, "one still waits");
        drop(again);
        assert!(checks.lock().is_empty());
    }

    /// Clients that want one comparison each, in this order, while another is being made. Returns them in the order in
    /// which they are served. Capital letters have had a wrong password compared.
    async fn served(names: &str) -> String {
        let checks = Arc::new(PasswordChecks::new(1));
        for name in names.chars().filter(char::is_ascii_uppercase) {
            checks.failed.insert(address(name as u8), clock::now());
        }
        let (busy, served) = (
            checks.core(address(0), Moment::MAX).await,
            Arc::new(Mutex::new(String::new())),
        );
        let mut tasks = Vec::new();
        for name in names.chars() {
            let (checks, served) = (Arc::clone(&checks), Arc::clone(&served));
            tasks.push(tokio::spawn(async move {
                if let Some(core) = checks.core(address(name as u8), Moment::MAX).await {
                    served.lock().unwrap().push(name);
                    drop(core);
                }
            }));
            tokio::task::yield_now().await;
        }
        drop(busy);
        for task in tasks {
            task.await.unwrap();
        }
        let served = served.lock().unwrap();
        served.clone()
    }

    #[tokio::test]
    async fn addresses_take_turns_and_those_that_have_failed_come_last() {
        let check = async |names: &str, expected: &str| assert_eq!(served(names).await, expected, "{names}");
        check("a", "a").await;
        check("aaab", "abaa").await;
        check("AAAb", "bAAA").await;
        check("AABBAABBc", "cABABABAB").await;
        // One of a thousand turns belongs to addresses with a wrong password.
        check("ABaabb", "aAbabB").await;
    }

    #[tokio::test]
    async fn a_full_queue_has_room_for_addresses_that_have_not_failed() {
        let guessers = |each: usize| {
            ('A'..='P')
                .map(|name| name.to_string().repeat(each))
                .collect::<String>()
        };
        for waiting in [guessers(4), guessers(8)] {
            let order = served(&format!("{waiting}xyz")).await;
            assert_eq!(&order[..4], "xAyz", "{order}");
            assert_eq!(order.len(), MOST as usize);
        }
    }

    #[tokio::test]
    async fn a_wrong_password_is_forgotten_in_time() {
        let checks = PasswordChecks::new(1);
        let at = clock::now();
        checks.failed.insert(address(1), at);
        let tier = |client, after| checks.entrant(address(client), at + after, Moment::MAX).tier;
        assert_eq!((tier(1, Duration::ZERO), tier(2, Duration::ZERO)), (1, 0));
        assert_eq!(tier(1, FAILURE_MEMORY - Duration::from_secs(1)), 1);
        assert_eq!(tier(1, FAILURE_MEMORY), 0);
    }
}

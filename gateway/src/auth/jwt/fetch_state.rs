//! State of the key fetches of one issuer: which have begun and ended, and which a request may start.
//!
//! Invariant: a key is absent only after the end of a fetch that began after the request arrived. This file decides and
//! counts; [`crate::auth::jwt::key_fetch`] makes the fetches, and requests wait for them in
//! [`crate::auth::jwt::key_wait`].

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use policies::{Bucket, Moment, Quota};
use quick_cache::sync::Cache;
use tokio::sync::{Notify, watch};

/// Number of fetches that requests may start in a burst. The same number is earned in each `cool_down`.
pub const FETCHES: u64 = 6;

/// Maximum number of requests that wait for keys of one issuer.
const MOST_WAITING: usize = 500;

/// Maximum number of key names that are remembered as absent.
const MOST_ABSENT: usize = 1000;

/// Time until a retry if no better estimate is known, and the shortest time that is told.
pub(crate) const SOON: Duration = Duration::from_secs(1);

/// State of the key fetches of one issuer.
#[derive(Debug)]
pub(crate) struct KeyFetches {
    state: Mutex<State>,
    bucket: Bucket,
    /// Wakes the task that fetches.
    wanted: Notify,
    /// Number of the last fetch that has ended.
    pub(super) ended: watch::Sender<u64>,
    waiting: AtomicUsize,
    /// Time when a key name was found absent from a new key set, by the name's digest.
    absent: Cache<[u8; 32], Moment>,
}

/// Progress of the fetches. They are numbered from 1 and never overlap.
#[derive(Debug, Default)]
struct State {
    begun: u64,
    ended: u64,
    /// Whether the last ended fetch brought keys.
    was_good: bool,
    /// Whether a request has asked for the next fetch to begin at once.
    asked: bool,
    /// Time when the next fetch begins if no request asks for one.
    due: Moment,
}

/// Number of fetches that had begun and ended when a request arrived.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    begun: u64,
    ended: u64,
}

/// Next step of a request that lacks a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Wait for the end of the fetch with this number.
    Wait(u64),
    /// Stop waiting: the key does not exist.
    Absent,
    /// Give up: the answer cannot be known before `retry_after`.
    Unknown { retry_after: Duration },
}

/// Slot among the limited number of waiting requests. Frees it when dropped.
pub(super) struct WaitSlot<'a>(&'a KeyFetches);

impl Default for KeyFetches {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            bucket: Bucket::full(),
            wanted: Notify::new(),
            ended: watch::Sender::new(0),
            waiting: AtomicUsize::new(0),
            absent: Cache::new(MOST_ABSENT),
        }
    }
}

impl KeyFetches {
    /// Notes the start of a fetch.
    pub(crate) fn begin(&self) {
        let mut state = self.lock();
        state.begun += 1;
        state.asked = false;
    }

    /// Notes the end of a fetch, after its keys are in use. `due` is when the next one begins if no request asks for
    /// one.
    pub(crate) fn end(&self, was_good: bool, due: Moment) {
        let ended = {
            let mut state = self.lock();
            (state.ended, state.was_good, state.due) = (state.begun, was_good, due);
            state.ended
        };
        self.ended.send_replace(ended);
    }

    /// Waits until a request asks for a fetch.
    pub(crate) async fn asked(&self) {
        loop {
            // Registered before the check, so that no notification is lost in between.
            let woken = self.wanted.notified();
            if self.lock().asked {
                return;
            }
            woken.await;
        }
    }

    pub(super) fn arrival(&self) -> Arrival {
        let state = self.lock();
        Arrival {
            begun: state.begun,
            ended: state.ended,
        }
    }

    /// Decides the next step of a request. `kid` is the [`Lacked::digest`](crate::auth::jwt::key_wait::Lacked::digest) of the missing key.
    pub(super) fn step(
        &self,
        arrival: Arrival,
        kid: Option<[u8; 32]>,
        quota: &Quota,
        cool_down: Duration,
        now: Moment,
    ) -> Step {
        let mut state = self.lock();
        if state.ended > arrival.ended && !state.was_good {
            return Step::Unknown {
                retry_after: self.retry_after(&state, quota, now),
            };
        }
        if state.ended > arrival.begun
            && let Some(kid) = kid
        {
            self.absent.insert(kid, now);
            return Step::Absent;
        }
        if state.begun > state.ended {
            return Step::Wait(state.begun);
        }
        // The first fetch begins without a request.
        if state.asked || state.begun == 0 {
            return Step::Wait(state.begun + 1);
        }
        if self.is_absent(kid, quota, cool_down, now) {
            return Step::Absent;
        }
        if self.bucket.take(quota, now, 1).is_err() {
            return Step::Unknown {
                retry_after: self.retry_after(&state, quota, now),
            };
        }
        state.asked = true;
        self.wanted.notify_waiters();
        Step::Wait(state.begun + 1)
    }

    /// Whether a key was found absent less than a `cool_down` ago. Ignored while more than half of the fetches are
    /// left.
    pub(super) fn is_absent(&self, kid: Option<[u8; 32]>, quota: &Quota, cool_down: Duration, now: Moment) -> bool {
        let was_absent = kid.and_then(|kid| self.absent.get(&kid));
        was_absent.is_some_and(|at| now < at + cool_down) && self.bucket.balance(quota, now) <= FETCHES / 2
    }

    /// Number of requests that wait now.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// Time until a request may start a fetch or the next one begins, and at least [`SOON`].
    fn retry_after(&self, state: &State, quota: &Quota, now: Moment) -> Duration {
        let earned = self.bucket.wait_for(quota, now, 1).unwrap_or(SOON);
        earned.min(state.due.since(now)).max(SOON)
    }

    pub(super) fn enter(&self) -> Option<WaitSlot<'_>> {
        let slot = WaitSlot(self);
        (self.waiting.fetch_add(1, Relaxed) < MOST_WAITING).then_some(slot)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for WaitSlot<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOL_DOWN: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000)
    }

    fn quota() -> Quota {
        Quota::new(FETCHES, COOL_DOWN, FETCHES).unwrap()
    }

    struct Scene(KeyFetches);

    impl Scene {
        /// A scene after the end of the first fetch.
        fn new() -> Self {
            let scene = Self(KeyFetches::default());
            scene.fetch(true, 1);
            scene
        }

        pub(super) fn step(&self, arrival: Arrival, kid: u8, now: u64) -> Step {
            self.0.step(arrival, Some([kid; 32]), &quota(), COOL_DOWN, at(now))
        }

        fn fetch(&self, was_good: bool, now: u64) {
            self.0.begin();
            self.0.end(was_good, at(now + 300));
        }
    }

    #[test]
    fn one_fetch_is_for_all_that_come_before_it_begins() {
        let scene = Scene::new();
        let all: Vec<_> = (0..100).map(|_| scene.0.arrival()).collect();
        for (kid, arrival) in all.iter().enumerate() {
            let kid = u8::try_from(kid).unwrap();
            assert_eq!(scene.step(*arrival, kid, 100), Step::Wait(2));
        }
        assert_eq!(scene.0.bucket.balance(&quota(), at(100)), FETCHES - 1);
        scene.0.begin();
        for arrival in &all {
            assert_eq!(scene.step(*arrival, 1, 101), Step::Wait(2), "it is under way");
        }
        scene.0.end(true, at(400));
        for arrival in &all {
            assert_eq!(scene.step(*arrival, 1, 102), Step::Absent);
        }
    }

    #[test]
    fn the_first_fetch_is_waited_for_and_costs_nothing() {
        let scene = Scene(KeyFetches::default());
        for _ in 0..100 {
            assert_eq!(scene.step(scene.0.arrival(), 1, 100), Step::Wait(1));
        }
        assert!(!scene.0.lock().asked);
        assert_eq!(scene.0.bucket.balance(&quota(), at(100)), FETCHES);
    }

    #[test]
    fn what_was_under_way_before_a_request_came_proves_nothing_against_it() {
        let scene = Scene::new();
        scene.0.begin();
        let arrival = scene.0.arrival();
        assert_eq!(scene.step(arrival, 1, 100), Step::Wait(2));
        scene.0.end(true, at(400));
        assert_eq!(scene.step(arrival, 1, 100), Step::Wait(3), "a second look");
        scene.fetch(true, 100);
        assert_eq!(scene.step(arrival, 1, 100), Step::Absent);
    }

    #[test]
    fn a_fetch_that_fails_says_when_to_come_back() {
        let scene = Scene::new();
        let arrival = scene.0.arrival();
        assert_eq!(scene.step(arrival, 1, 100), Step::Wait(2));
        scene.0.begin();
        scene.0.end(false, at(105));
        let soon = Step::Unknown { retry_after: SOON };
        assert_eq!(scene.step(arrival, 1, 100), soon, "the next may be brought about");
        for number in 2..=FETCHES {
            let arrival = scene.0.arrival();
            assert_eq!(scene.step(arrival, 1, 100), Step::Wait(number + 1));
            scene.fetch(false, 100);
        }
        let arrival = scene.0.arrival();
        let earned = Duration::from_secs(10);
        assert_eq!(scene.step(arrival, 1, 100), Step::Unknown { retry_after: earned });
        scene.0.begin();
        scene.0.end(false, at(103));
        let due = Duration::from_secs(3);
        assert_eq!(
            scene.step(scene.0.arrival(), 1, 100),
            Step::Unknown { retry_after: due }
        );
        // A clock that runs backwards earns no fetches.
        assert!(matches!(scene.step(scene.0.arrival(), 1, 5), Step::Unknown { .. }));
        assert_eq!(
            scene.step(scene.0.arrival(), 1, 111),
            Step::Wait(scene.0.lock().begun + 1)
        );
    }

    #[test]
    fn names_that_are_not_there_leave_fetches_for_others() {
        let scene = Scene::new();
        // The same absent name again and again uses half of the fetches; then it is remembered.
        for _ in 0..20 {
            let arrival = scene.0.arrival();
            if matches!(scene.step(arrival, 1, 100), Step::Wait(_)) {
                scene.fetch(true, 100);
                assert_eq!(scene.step(arrival, 1, 100), Step::Absent);
            }
        }
        assert_eq!(scene.0.bucket.balance(&quota(), at(100)), FETCHES / 2);
        assert_eq!(scene.step(scene.0.arrival(), 1, 100), Step::Absent, "at once");
        // A new name starts a fetch.
        let arrival = scene.0.arrival();
        assert!(matches!(scene.step(arrival, 2, 100), Step::Wait(_)));
        scene.fetch(true, 100);
        // The total number of fetches is limited, whatever the names.
        for kid in 3..200 {
            let arrival = scene.0.arrival();
            if matches!(scene.step(arrival, kid, 100), Step::Wait(_)) {
                scene.fetch(true, 100);
            }
        }
        assert_eq!(scene.0.lock().ended, 1 + FETCHES);
        let refused = scene.step(scene.0.arrival(), 250, 100);
        let retry_after = COOL_DOWN / u32::try_from(FETCHES).unwrap();
        assert_eq!(refused, Step::Unknown { retry_after }, "never called bad");
        // An absent name is forgotten after the cool-down.
        assert!(matches!(scene.step(scene.0.arrival(), 1, 161), Step::Wait(_)));
    }

    #[test]
    fn few_wait() {
        let fetches = KeyFetches::default();
        let slots: Vec<_> = (0..MOST_WAITING).map(|_| fetches.enter().unwrap()).collect();
        assert!(fetches.enter().is_none());
        drop(slots);
        assert!(fetches.enter().is_some());
        assert_eq!(fetches.waiting.load(Relaxed), 0);
    }
}

//! Fetches of an issuer's keys that requests bring about, and wait for.
//!
//! A token that names a key which is not here is neither good nor bad: the key may have been published a moment ago, or
//! none may have come yet. Invariant: such a token is called bad only after a key set has come that was asked for later
//! than the token came. Until then its request waits for the fetch that is under way or brings one about; where it may
//! not, because too many have been brought about already, it is told when to come back.
//!
//! Decides and counts; the fetches themselves are made by [`crate::auth::jwt::key_fetch`]. A forged name of a key costs one of
//! [`FETCHES`] in a `cool_down`, and brings the newest keys along like any other, so it delays no rotation by more than
//! the time in which one is earned.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use policies::{Bucket, Moment, Quota};
use quick_cache::sync::Cache;
use tokio::sync::{Notify, watch};

use crate::auth::api_key::keys::digest_of;
use crate::auth::check::Check;
use crate::auth::jwt::key_fetch::Freshness;
use crate::auth::jwt::key_set::KeySet;
use crate::auth::jwt::live_keys::LiveKeys;
use crate::clock;
use crate::rejection::Rejection;

/// Fetches that requests may bring about at once; as many are earned in a `cool_down`.
pub const FETCHES: u64 = 6;

/// Requests that wait for keys of one issuer.
const MOST_WAITING: usize = 500;

/// Names of keys that are remembered not to be there.
const MOST_ABSENT: usize = 1000;

/// When to come back if nothing better is known.
pub(crate) const SOON: Duration = Duration::from_secs(1);

/// Of one issuer.
#[derive(Debug)]
pub(crate) struct KeyFetches {
    state: Mutex<State>,
    bucket: Bucket,
    /// Wakes the task that fetches.
    wanted: Notify,
    /// The number of the last fetch that has ended.
    ended: watch::Sender<u64>,
    waiting: AtomicUsize,
    /// When a key set came in which these names of keys, by their digests, were not.
    absent: Cache<[u8; 32], Moment>,
}

/// Fetches are numbered from 1; there is one at a time.
#[derive(Debug, Default)]
struct State {
    begun: u64,
    ended: u64,
    /// The last one that ended brought keys.
    was_good: bool,
    /// The next one is to begin at once.
    asked: bool,
    /// When the next one begins if nobody asks.
    due: Moment,
}

/// How many fetches had begun and ended when a request came.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    begun: u64,
    ended: u64,
}

/// What becomes of a request that lacks a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// It waits for the end of this fetch.
    Wait(u64),
    /// There is no such key.
    Absent,
    /// It cannot be told for so long.
    Unknown { retry_after: Duration },
}

/// The key that a request lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lacked {
    /// By what its token calls it; without a name any key will do.
    Named(Option<Box<str>>),
    /// Its token names no key, and is signed with none of the key set with this fingerprint.
    NotOf(u64),
}

/// A request that lacks a key.
pub struct KeyWait {
    keys: Arc<LiveKeys>,
    lacked: Lacked,
    freshness: Freshness,
    arrival: Arrival,
    pub check: Check,
}

/// A request that waits, among few.
struct Place<'a>(&'a KeyFetches);

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
    /// A fetch begins.
    pub(crate) fn begin(&self) {
        let mut state = self.lock();
        state.begun += 1;
        state.asked = false;
    }

    /// It has ended; `due` is when the next one begins if nobody asks. Keys that it brought are in use by now.
    pub(crate) fn end(&self, was_good: bool, due: Moment) {
        let ended = {
            let mut state = self.lock();
            (state.ended, state.was_good, state.due) = (state.begun, was_good, due);
            state.ended
        };
        self.ended.send_replace(ended);
    }

    /// Until a fetch is to begin at once.
    pub(crate) async fn asked(&self) {
        loop {
            // Made before the question, so that no answer falls in between.
            let woken = self.wanted.notified();
            if self.lock().asked {
                return;
            }
            woken.await;
        }
    }

    fn arrival(&self) -> Arrival {
        let state = self.lock();
        Arrival {
            begun: state.begun,
            ended: state.ended,
        }
    }

    /// `kid` is the digest of the key's name, if one is lacked by name.
    fn step(&self, arrival: Arrival, kid: Option<[u8; 32]>, quota: &Quota, cool_down: Duration, now: Moment) -> Step {
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
        // The first begins by itself.
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

    /// A name that was not there of late is asked for again only where enough is left for others.
    fn is_absent(&self, kid: Option<[u8; 32]>, quota: &Quota, cool_down: Duration, now: Moment) -> bool {
        let was_absent = kid.and_then(|kid| self.absent.get(&kid));
        was_absent.is_some_and(|at| now < at + cool_down) && self.bucket.balance(quota, now) <= FETCHES / 2
    }

    /// Requests that wait now.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// Until a fetch may be brought about, or begins by itself.
    fn retry_after(&self, state: &State, quota: &Quota, now: Moment) -> Duration {
        let earned = self.bucket.wait_for(quota, now, 1).unwrap_or(SOON);
        earned.min(state.due.since(now)).max(SOON)
    }

    fn enter(&self) -> Option<Place<'_>> {
        let place = Place(self);
        (self.waiting.fetch_add(1, Relaxed) < MOST_WAITING).then_some(place)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

impl Lacked {
    fn is_in(&self, keys: &KeySet) -> bool {
        match self {
            Self::Named(kid) => keys.knows(kid.as_deref()),
            Self::NotOf(fingerprint) => !keys.is_empty() && keys.fingerprint() != *fingerprint,
        }
    }

    /// By which it is remembered not to be there. All tokens that name no key have one.
    fn digest(&self) -> Option<[u8; 32]> {
        match self {
            Self::Named(kid) => kid.as_ref().map(|kid| digest_of(kid.as_bytes())),
            Self::NotOf(_) => Some([0; 32]),
        }
    }
}

impl KeyWait {
    /// A request whose token has failed `check` for want of a key.
    pub(crate) fn new(keys: &Arc<LiveKeys>, lacked: Lacked, freshness: Freshness, check: Check) -> Self {
        Self {
            arrival: keys.demand().arrival(),
            keys: Arc::clone(keys),
            lacked,
            freshness,
            check,
        }
    }

    /// Whether it is known already that there is no such key.
    pub(crate) fn is_vain(&self) -> bool {
        let cool_down = self.freshness.cool_down;
        Quota::new(FETCHES, cool_down, FETCHES).is_ok_and(|quota| {
            let fetches = self.keys.demand();
            fetches.is_absent(self.lacked.digest(), &quota, cool_down, clock::now())
        })
    }

    /// Ready when it can be told whether there is such a key.
    ///
    /// # Errors
    /// [`Rejection::KeysUnavailable`] if it cannot be told before `until` or the end of the time that a fetch has.
    pub async fn done(self, until: Moment) -> Result<(), Rejection> {
        let unavailable = |retry_after| Err(Rejection::KeysUnavailable { retry_after });
        let Freshness { cool_down, timeout, .. } = self.freshness;
        let fetches = self.keys.demand();
        let (Some(_place), Ok(quota)) = (fetches.enter(), Quota::new(FETCHES, cool_down, FETCHES)) else {
            return unavailable(SOON);
        };
        let until = clock::instant(until.min(clock::now() + timeout));
        let kid = self.lacked.digest();
        let mut ended = fetches.ended.subscribe();
        loop {
            if self.lacked.is_in(&self.keys.current()) {
                return Ok(());
            }
            match fetches.step(self.arrival, kid, &quota, cool_down, clock::now()) {
                Step::Absent => return Ok(()),
                Step::Unknown { retry_after } => return unavailable(retry_after),
                Step::Wait(number) => {
                    let waited = tokio::time::timeout_at(until, ended.wait_for(|ended| *ended >= number)).await;
                    if !matches!(waited, Ok(Ok(_))) {
                        return unavailable(SOON);
                    }
                }
            }
        }
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
        /// The first fetch has ended.
        fn new() -> Self {
            let scene = Self(KeyFetches::default());
            scene.fetch(true, 1);
            scene
        }

        fn step(&self, arrival: Arrival, kid: u8, now: u64) -> Step {
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
        // A clock that runs backwards changes nothing much.
        assert!(matches!(scene.step(scene.0.arrival(), 1, 5), Step::Unknown { .. }));
        assert_eq!(
            scene.step(scene.0.arrival(), 1, 111),
            Step::Wait(scene.0.lock().begun + 1)
        );
    }

    #[test]
    fn names_that_are_not_there_leave_fetches_for_others() {
        let scene = Scene::new();
        // The same name again and again: half of what there is, and then it is known.
        for _ in 0..20 {
            let arrival = scene.0.arrival();
            if matches!(scene.step(arrival, 1, 100), Step::Wait(_)) {
                scene.fetch(true, 100);
                assert_eq!(scene.step(arrival, 1, 100), Step::Absent);
            }
        }
        assert_eq!(scene.0.bucket.balance(&quota(), at(100)), FETCHES / 2);
        assert_eq!(scene.step(scene.0.arrival(), 1, 100), Step::Absent, "at once");
        // A new one is looked for.
        let arrival = scene.0.arrival();
        assert!(matches!(scene.step(arrival, 2, 100), Step::Wait(_)));
        scene.fetch(true, 100);
        // And whatever is asked for, there are no more than so many.
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
        // The name is forgotten with the cool-down.
        assert!(matches!(scene.step(scene.0.arrival(), 1, 161), Step::Wait(_)));
    }

    #[test]
    fn few_wait() {
        let fetches = KeyFetches::default();
        let places: Vec<_> = (0..MOST_WAITING).map(|_| fetches.enter().unwrap()).collect();
        assert!(fetches.enter().is_none());
        drop(places);
        assert!(fetches.enter().is_some());
        assert_eq!(fetches.waiting.load(Relaxed), 0);
    }
}

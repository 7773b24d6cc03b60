//! Ends connections that keep us waiting: for their first bytes, for a whole head or body, for room to write an answer.
//!
//! One coarse sweep per worker instead of a timer per connection: a connection notes in atomics what it is doing,
//! and the sweep ends what has been at it for too long. The time is the sweep's own, so noting costs no clock.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::time::Duration;

use policies::Moment;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::auth::mtls::caller_certificate::CallerCertificate;
use crate::clock;
use crate::observe::Awaited;
use crate::wire::expiry::Expiry;
use crate::wire::min_rate::{MinRate, TICK};
use crate::wire::slow_caller::{Overdue, Transfer, WaitLimits};

/// What a connection has to end by itself once it has been asked to.
const FAREWELL: Duration = Duration::from_secs(1);

/// How long a connection may take over what it is doing. Nobody has less time than a limit says, and at most two ticks
/// more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionTimeouts {
    /// From accepting to the first byte.
    pub(crate) first_byte: Duration,
    /// From the first byte of a head to its last.
    pub(crate) head: Duration,
    /// Between two requests.
    pub(crate) idle: Duration,
    /// Over a body or an answer.
    pub(crate) leave: WaitLimits,
}

const FRESH: u8 = 0;
const AWAITING_HEAD: u8 = 1;
const SERVING: u8 = 2;
const IDLE: u8 = 3;
/// Idle for too long, and about to be ended.
const DISMISSED: u8 = 4;
/// Too slow in sending a head, and about to be ended.
const LATE: u8 = 5;
/// Answered for the last time.
const LEAVING: u8 = 6;

/// What one connection is doing, and since which tick.
#[derive(Debug)]
pub(crate) struct ConnectionActivity {
    doing: AtomicU8,
    since: AtomicU32,
    /// Since when the caller takes nothing; 0 while it does.
    stalled: AtomicU32,
    /// It ends because the caller takes too little of an answer.
    unread: AtomicBool,
    /// When the answer under way has to have left. Where requests share the connection each knows for itself.
    expiry: Expiry,
    /// Another protocol is spoken.
    switched: AtomicBool,
    /// The answer under way is whole only if the connection is closed in good order.
    unframed: AtomicBool,
    /// Requests whose answers have not left yet.
    open: AtomicU32,
    requests: AtomicU32,
    /// Ticks at which the caller took nothing of what we have for it, and bytes that it took.
    takes: MinRate,
    /// Of the open requests, those that keep us waiting for something of their own.
    flows: Mutex<Vec<Arc<Transfer>>>,
    /// Whoever serves the connection holds no byte of a request or of an answer.
    at_rest: AtomicBool,
    /// Wakes it.
    server: OnceLock<Waker>,
    /// Something is still to come of a body. Where requests share the connection nobody says so.
    within_body: AtomicBool,
    /// Where requests share the connection: something of an answer has been handed over and has not left.
    owing: AtomicBool,
    /// There too: pieces of answers that were handed over and are not yet looked at.
    handed: AtomicU32,
    /// Where requests share the connection: tells it that it is to end.
    farewell: OnceLock<Arc<Notify>>,
    /// That the caller has shown.
    certificate: OnceLock<Arc<CallerCertificate>>,
    ticks: Arc<AtomicU32>,
}

impl ConnectionActivity {
    fn note(&self, doing: u8) {
        self.doing.store(doing, Relaxed);
        self.since.store(self.ticks.load(Relaxed), Relaxed);
    }

    /// Bytes have come from the caller. Where requests share a connection that says nothing about heads; there
    /// [`Self::begins_head`] and [`Self::ends_head`] do.
    pub(crate) fn note_read(&self) {
        if self.farewell.get().is_none() && matches!(self.doing.load(Relaxed), FRESH | IDLE) {
            self.note(AWAITING_HEAD);
        }
    }

    /// From now on requests share the connection; `farewell` is told when it is to end.
    pub(crate) fn share(&self, farewell: Arc<Notify>) {
        // Said once.
        let _ = self.farewell.set(farewell);
        self.note(IDLE);
    }

    /// The caller has shown this certificate, and the connection lasts as long as somebody vouches for it.
    pub(crate) fn shows(&self, certificate: Arc<CallerCertificate>) {
        // Said once.
        let _ = self.certificate.set(certificate);
    }

    /// That the caller has shown, if it has.
    pub(crate) fn certificate(&self) -> Option<&Arc<CallerCertificate>> {
        self.certificate.get()
    }

    /// Whether nobody vouches any more for the certificate that the connection was made with.
    pub(crate) fn is_withdrawn(&self) -> bool {
        self.certificate().is_some_and(|certificate| certificate.is_withdrawn())
    }

    /// Asks the connection to end with what is under way on it; whether it has to be ended from outside.
    fn withdraw(&self) -> bool {
        match (self.doing.load(Relaxed), self.farewell.get()) {
            (_, Some(farewell)) => {
                farewell.notify_one();
                false
            }
            (FRESH | IDLE, None) if self.stalled.load(Relaxed) == 0 => {
                self.doing.store(DISMISSED, Relaxed);
                true
            }
            // Its next answer is its last.
            _ => false,
        }
    }

    /// A head has come in part.
    pub(crate) fn begins_head(&self) {
        if self.doing.load(Relaxed) == IDLE {
            self.note(AWAITING_HEAD);
        }
    }

    /// It is there.
    pub(crate) fn ends_head(&self) {
        if self.doing.load(Relaxed) == AWAITING_HEAD {
            self.note(IDLE);
        }
    }

    /// Whom to wake when what serves the connection may be put away.
    pub(crate) fn set_server(&self, server: &Waker) {
        self.server.get_or_init(|| server.clone());
    }

    /// Whether whoever serves the connection holds no byte of a request or of an answer.
    pub(crate) fn rests(&self, at_rest: bool) {
        self.at_rest.store(at_rest, Relaxed);
    }

    /// Whether something is still to come of the body under way.
    pub(crate) fn notes_body(&self, within: bool) {
        self.within_body.store(within, Relaxed);
    }

    pub(crate) fn is_within_body(&self) -> bool {
        self.within_body.load(Relaxed)
    }

    /// Whether nothing has happened for a while, so that what serves requests may be put away until one comes.
    pub(crate) fn may_be_put_away(&self) -> bool {
        self.at_rest.load(Relaxed)
            && self.doing.load(Relaxed) == IDLE
            && self.ticks.load(Relaxed).wrapping_sub(self.since.load(Relaxed)) > 1
    }

    /// Counts from 1, four in a second.
    pub(crate) fn tick(&self) -> u32 {
        self.ticks.load(Relaxed)
    }

    /// A handshake is over, and the connection is as if it had just been accepted.
    pub(crate) fn begins_anew(&self) {
        self.note(FRESH);
    }

    /// All is said, and the caller may finish sending what nobody wants.
    pub(crate) fn takes_leave(&self) {
        self.note(LEAVING);
    }

    /// Whether it is being ended for idling, when nothing was owed to it.
    pub(crate) fn is_dismissed(&self) -> bool {
        self.doing.load(Relaxed) == DISMISSED
    }

    /// Whether it is being ended for sending a head too slowly.
    pub(crate) fn is_late(&self) -> bool {
        self.doing.load(Relaxed) == LATE
    }

    /// Whether an answer is owed.
    pub(crate) fn is_serving(&self) -> bool {
        self.doing.load(Relaxed) == SERVING
    }

    /// The answer switches to another protocol.
    pub(crate) fn switches(&self) {
        self.switched.store(true, Relaxed);
    }

    /// An answer begins whose end is that of the connection (RFC 9112 section 6.3).
    pub(crate) fn start_unframed_answer(&self) {
        self.unframed.store(true, Relaxed);
    }

    /// All that was to be said has been, and the connection is closed in good order.
    pub(crate) fn end_unframed_answer(&self) {
        self.unframed.store(false, Relaxed);
    }

    pub(crate) fn has_unframed_answer(&self) -> bool {
        self.unframed.load(Relaxed)
    }

    pub(crate) fn has_switched(&self) -> bool {
        self.switched.load(Relaxed)
    }

    /// A whole head has come; `flow` is what its request will have us waiting for, if anything.
    pub(crate) fn serves(&self, flow: Option<&Arc<Transfer>>) {
        if self.open.fetch_add(1, Relaxed) == 0 {
            self.note(SERVING);
            self.takes.begin();
        }
        if let Some(flow) = flow {
            lock(&self.flows).push(Arc::clone(flow));
        }
        self.requests
            .store(self.requests.load(Relaxed).saturating_add(1), Relaxed);
    }

    /// Requests that have come so far.
    pub(crate) fn requests(&self) -> u32 {
        self.requests.load(Relaxed)
    }

    /// The answer under way has to have left by then.
    pub(crate) fn expires(&self, moment: Option<Moment>) {
        self.expiry.set(moment);
    }

    /// Whether the answer under way has had all its time.
    pub(crate) fn has_expired(&self, now: Moment) -> bool {
        self.expiry.has_passed(now)
    }

    /// The last byte of the answer has been handed to the connection, or nobody wants it.
    pub(crate) fn end_answer(&self, flow: Option<&Arc<Transfer>>) {
        if let Some(flow) = flow {
            let mut flows = lock(&self.flows);
            if let Some(place) = flows.iter().position(|other| Arc::ptr_eq(other, flow)) {
                flows.swap_remove(place);
            }
        }
        if self.open.fetch_sub(1, Relaxed) == 1 {
            self.expiry.set(None);
            self.note(IDLE);
        }
    }

    /// The caller takes nothing at present.
    pub(crate) fn cannot_write(&self) {
        if self.stalled.load(Relaxed) == 0 {
            self.stalled.store(self.ticks.load(Relaxed), Relaxed);
        }
    }

    /// So many bytes have gone to the caller.
    pub(crate) fn note_written(&self, count: usize) {
        self.takes.progress(count);
        if self.stalled.load(Relaxed) != 0 {
            self.stalled.store(0, Relaxed);
            self.idles_anew();
        }
    }

    /// Whether an answer has not left to its last byte, although it may have been handed over.
    pub(crate) fn owes(&self, owes: bool) {
        if self.owing.load(Relaxed) != owes {
            self.owing.store(owes, Relaxed);
            self.idles_anew();
        }
    }

    /// What the caller took until now is no idling.
    fn idles_anew(&self) {
        if self.doing.load(Relaxed) == IDLE {
            self.note(IDLE);
        }
    }

    /// A piece of an answer has been handed over.
    pub(crate) fn hands_over(&self) {
        self.handed.store(self.handed.load(Relaxed).saturating_add(1), Relaxed);
    }

    /// So many have since the last look.
    pub(crate) fn take_handed(&self) -> u32 {
        let handed = self.handed.load(Relaxed);
        if handed > 0 {
            self.handed.store(0, Relaxed);
        }
        handed
    }

    /// Prepares the connection for its end; whether it has to be ended from outside.
    fn dismiss(&self) -> bool {
        match (self.doing.load(Relaxed), self.farewell.get()) {
            (IDLE, Some(farewell)) => {
                self.note(DISMISSED);
                farewell.notify_one();
                return false;
            }
            (FRESH | IDLE, _) => self.doing.store(DISMISSED, Relaxed),
            (AWAITING_HEAD, _) => self.doing.store(LATE, Relaxed),
            _ => {}
        }
        true
    }

    /// Whether it ends because the caller takes too little of an answer.
    pub(crate) fn is_unread(&self) -> bool {
        self.unread.load(Relaxed)
    }

    /// What has been waited for too long, if anything has. `count` is told of each request that is given up.
    fn look(&self, patience: &ConnectionTimeouts, now: Moment, count: &impl Fn(Awaited)) -> Option<Awaited> {
        for flow in &*lock(&self.flows) {
            match flow.look(&patience.leave, now) {
                Some(Overdue::Body) => count(Awaited::Body),
                Some(Overdue::Answer) => count(Awaited::Reader),
                None => {}
            }
        }
        if self.expiry.has_passed(now) {
            return Some(Awaited::Reader);
        }
        if let (true, Some(rates)) = (self.stalled.load(Relaxed) != 0, &patience.leave.rates)
            && self.takes.falls_behind(rates.grace, rates.answer)
        {
            return Some(Awaited::Reader);
        }
        self.overdue(patience)
    }

    fn overdue(&self, patience: &ConnectionTimeouts) -> Option<Awaited> {
        let now = self.ticks.load(Relaxed);
        // The tick it began in was under way already, so only the whole ones since then are certain.
        let longer = |since: u32, limit| TICK * now.wrapping_sub(since).saturating_sub(1) >= limit;
        let stalled = self.stalled.load(Relaxed);
        if stalled != 0 && longer(stalled, patience.leave.write) {
            return Some(Awaited::Reader);
        }
        let (awaited, limit) = match self.doing.load(Relaxed) {
            FRESH => (Awaited::FirstByte, patience.first_byte),
            AWAITING_HEAD => (Awaited::Head, patience.head),
            // Its last answer is still on its way.
            IDLE | DISMISSED if stalled != 0 => return None,
            IDLE | DISMISSED if self.owing.load(Relaxed) => (Awaited::Reader, patience.idle.max(patience.leave.write)),
            IDLE => (Awaited::NextRequest, patience.idle),
            DISMISSED => (Awaited::NextRequest, FAREWELL),
            // As long as a head may take; less, when we are to go.
            LEAVING => (Awaited::Body, patience.head.min(patience.idle)),
            _ => return None,
        };
        longer(self.since.load(Relaxed), limit).then_some(awaited)
    }
}

/// The connections of one worker.
pub(crate) struct Reaper {
    /// Counts from 1, so that 0 can stand for never.
    ticks: Arc<AtomicU32>,
    watched: Mutex<Watched>,
}

impl Default for Reaper {
    fn default() -> Self {
        Self {
            ticks: Arc::new(AtomicU32::new(1)),
            watched: Mutex::default(),
        }
    }
}

#[derive(Default)]
struct Watched {
    next: u64,
    connections: HashMap<u64, (Arc<ConnectionActivity>, Option<AbortHandle>)>,
}

impl Reaper {
    /// Starts watching; the connection's task is told by [`Self::attend`] once it runs.
    pub(crate) fn begin(&self) -> (u64, Arc<ConnectionActivity>) {
        let activity = Arc::new(ConnectionActivity {
            doing: AtomicU8::new(FRESH),
            since: AtomicU32::new(self.ticks.load(Relaxed)),
            stalled: AtomicU32::new(0),
            unread: AtomicBool::new(false),
            expiry: Expiry::default(),
            switched: AtomicBool::new(false),
            unframed: AtomicBool::new(false),
            open: AtomicU32::new(0),
            requests: AtomicU32::new(0),
            takes: MinRate::default(),
            flows: Mutex::default(),
            at_rest: AtomicBool::new(false),
            server: OnceLock::new(),
            within_body: AtomicBool::new(false),
            owing: AtomicBool::new(false),
            handed: AtomicU32::new(0),
            farewell: OnceLock::new(),
            certificate: OnceLock::new(),
            ticks: Arc::clone(&self.ticks),
        });
        let mut watched = self.lock();
        let id = watched.next;
        watched.next += 1;
        watched.connections.insert(id, (Arc::clone(&activity), None));
        (id, activity)
    }

    pub(crate) fn attend(&self, id: u64, task: AbortHandle) {
        if let Some((_, handle)) = self.lock().connections.get_mut(&id) {
            *handle = Some(task);
        }
    }

    /// The connections that were made with a certificate.
    pub(crate) fn certified(&self) -> Vec<(u64, Arc<CallerCertificate>)> {
        let watched = self.lock();
        let certified = watched.connections.iter().filter_map(|(id, (activity, _))| {
            let certificate = activity.certificate()?;
            Some((*id, Arc::clone(certificate)))
        });
        certified.collect()
    }

    /// Ends a connection whose certificate does not count any more, if nothing is under way on it. Returns whether it is
    /// still there, to be asked again.
    pub(crate) fn withdraw(&self, id: u64) -> bool {
        match self.lock().connections.get(&id) {
            None => false,
            Some((activity, task)) => {
                if let (true, Some(task)) = (activity.withdraw(), task) {
                    task.abort();
                }
                true
            }
        }
    }

    pub(crate) fn end(&self, id: u64) {
        self.lock().connections.remove(&id);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().connections.is_empty()
    }

    /// Looks at all connections, for ever; `count` is told of each that is given up.
    pub(crate) async fn sweep(&self, patience: impl Fn() -> ConnectionTimeouts, count: impl Fn(Awaited)) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.ticks.fetch_add(1, Relaxed);
            let (patience, now) = (patience(), clock::now());
            for (activity, task) in self.lock().connections.values() {
                let Some(task) = task else { continue };
                let Some(awaited) = activity.look(&patience, now, &count) else {
                    if activity.may_be_put_away()
                        && let Some(server) = activity.server.get()
                    {
                        server.wake_by_ref();
                    }
                    continue;
                };
                if awaited == Awaited::Reader {
                    activity.unread.store(true, Relaxed);
                }
                if !activity.is_dismissed() {
                    count(awaited);
                }
                if activity.dismiss() {
                    task.abort();
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        lock(&self.watched)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is inside is whole at every step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::slow_caller::Rates;

    const SECOND: Duration = Duration::from_secs(1);

    fn patience() -> ConnectionTimeouts {
        ConnectionTimeouts {
            first_byte: SECOND,
            head: SECOND,
            idle: 4 * SECOND,
            leave: WaitLimits {
                write: 2 * SECOND,
                rates: None,
            },
        }
    }

    fn look(activity: &ConnectionActivity, patience: &ConnectionTimeouts) -> Option<Awaited> {
        activity.look(patience, Moment::ZERO, &|_| {})
    }

    #[test]
    fn a_caller_that_still_takes_its_last_answer_does_not_idle() {
        let patience = ConnectionTimeouts {
            idle: SECOND,
            ..patience()
        };
        let watch = Reaper::default();
        let (_, activity) = watch.begin();
        let wait = |ticks: u32| {
            watch.ticks.fetch_add(ticks, Relaxed);
            look(&activity, &patience)
        };
        activity.serves(None);
        activity.owes(true);
        activity.end_answer(None);
        assert_eq!(wait(8), None, "as long as it may take nothing");
        assert_eq!(wait(1), Some(Awaited::Reader), "and no longer");
        activity.owes(false);
        assert_eq!(wait(4), None, "it idles from now on");
        assert_eq!(wait(1), Some(Awaited::NextRequest));
        activity.cannot_write();
        assert_eq!(wait(4), None, "nor does it while there is no room to write");
        activity.note_written(1);
        assert_eq!(wait(4), None);
        assert_eq!(wait(1), Some(Awaited::NextRequest));
    }

    #[test]
    fn only_what_keeps_us_waiting_is_overdue() {
        let watch = Reaper::default();
        let (_, activity) = watch.begin();
        let wait = |seconds: u32| {
            watch.ticks.fetch_add(seconds * 4, Relaxed);
            look(&activity, &patience()).is_some()
        };
        assert!(!wait(1));
        assert!(wait(1), "no first byte");
        activity.serves(None);
        assert!(!wait(100), "a request may take its time");
        activity.cannot_write();
        assert!(!wait(2));
        activity.note_written(1);
        assert!(!wait(2));
        activity.cannot_write();
        assert!(wait(3), "the caller takes nothing");
        activity.note_written(1);
        activity.end_answer(None);
        assert!(!wait(4));
        assert!(wait(1), "idle for too long");
        activity.note_read();
        assert!(!wait(1));
        assert!(wait(1), "half a head");
        assert!(activity.dismiss());
        assert!(activity.is_late() && !activity.is_dismissed(), "it may be told so");
        activity.takes_leave();
        assert!(!wait(1));
        assert!(wait(1), "it does not end");
    }

    #[test]
    fn only_who_holds_nothing_and_has_idled_is_put_away() {
        let watch = Reaper::default();
        let (_, activity) = watch.begin();
        let after = |ticks: u32| {
            watch.ticks.fetch_add(ticks, Relaxed);
            activity.may_be_put_away()
        };
        activity.rests(true);
        assert!(!after(9), "nothing has been made yet");
        activity.serves(None);
        assert!(!after(9), "it is served");
        activity.end_answer(None);
        assert!(!after(1), "it may go on at once");
        assert!(after(1));
        activity.rests(false);
        assert!(!after(9), "something is still to be written");
        activity.rests(true);
        assert!(after(0));
        activity.note_read();
        assert!(!after(9), "a head is coming");
    }

    #[test]
    fn nobody_is_hurried_by_a_tick_that_falls_behind_them() {
        let patience = ConnectionTimeouts {
            first_byte: TICK / 2,
            ..patience()
        };
        let watch = Reaper::default();
        let (_, activity) = watch.begin();
        watch.ticks.fetch_add(1, Relaxed);
        assert!(look(&activity, &patience).is_none(), "it may have begun a moment ago");
        watch.ticks.fetch_add(1, Relaxed);
        assert!(look(&activity, &patience).is_some());
    }

    #[test]
    fn an_answer_must_be_taken_at_a_rate_for_as_long_as_there_is_more_of_it() {
        let rates = Rates {
            grace: 2 * SECOND,
            body: 100,
            answer: 100,
        };
        let patience = ConnectionTimeouts {
            leave: WaitLimits {
                write: 10 * SECOND,
                rates: Some(rates),
            },
            ..patience()
        };
        let after = |sweeps: usize, between: &dyn Fn(&ConnectionActivity)| {
            let watch = Reaper::default();
            let (_, activity) = watch.begin();
            activity.serves(None);
            (0..sweeps).find_map(|_| {
                between(&activity);
                watch.ticks.fetch_add(1, Relaxed);
                look(&activity, &patience)
            })
        };
        let takes = |bytes| {
            move |activity: &ConnectionActivity| {
                activity.note_written(bytes);
                activity.cannot_write();
            }
        };
        assert_eq!(after(9, &takes(1)), Some(Awaited::Reader));
        assert_eq!(after(1000, &takes(25)), None);
        assert_eq!(after(1000, &|activity| activity.note_written(1)), None);
    }

    #[test]
    fn a_shared_connection_is_busy_until_the_last_of_its_requests_is_answered() {
        let watch = Reaper::default();
        let (_, activity) = watch.begin();
        let farewell = Arc::new(Notify::new());
        activity.share(Arc::clone(&farewell));
        let wait = |seconds: u32| {
            watch.ticks.fetch_add(seconds * 4, Relaxed);
            look(&activity, &patience()).is_some()
        };
        activity.note_read();
        assert!(!wait(3), "what comes between requests begins no head");
        activity.begins_head();
        assert!(wait(3), "half a head");
        activity.ends_head();
        let (one, other) = (Arc::default(), Arc::default());
        activity.serves(Some(&one));
        activity.serves(Some(&other));
        activity.end_answer(Some(&one));
        assert!(!wait(100), "one is still under way");
        activity.end_answer(Some(&other));
        assert!(lock(&activity.flows).is_empty());
        assert!(!wait(4));
        assert!(wait(1), "idle for too long");
        assert!(!activity.dismiss(), "it is asked to end by itself");
        assert!(!wait(1));
        assert!(wait(1), "it has not");
        assert!(activity.dismiss());
    }

    #[test]
    fn an_answer_that_has_had_its_time_is_cut_and_the_next_one_is_not() {
        let at = |seconds| Moment::ZERO + seconds * SECOND;
        let watch = Reaper::default();
        let (_, activity) = watch.begin();
        let look = |now| activity.look(&patience(), now, &|_| {});
        activity.serves(None);
        activity.expires(Some(at(5)));
        assert_eq!(look(at(5)), None, "it may still end itself");
        assert_eq!(look(at(6)), Some(Awaited::Reader));
        activity.end_answer(None);
        activity.serves(None);
        assert_eq!(look(at(7)), None);
    }

    #[tokio::test]
    async fn a_request_that_is_given_up_is_counted_and_takes_no_connection_along() {
        let watch = Reaper::default();
        let (_, activity) = watch.begin();
        let flow = Arc::new(Transfer::default());
        flow.set_carrier(tokio::spawn(std::future::pending::<()>()).abort_handle());
        activity.serves(Some(&flow));
        flow.hands_over(1);
        let counted = std::cell::Cell::new(0);
        let given_up =
            (0..20).find_map(|_| activity.look(&patience(), Moment::ZERO, &|_| counted.set(counted.get() + 1)));
        assert_eq!((given_up, counted.get()), (None, 1));
    }
}

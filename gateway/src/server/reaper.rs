//! Ends connections whose caller is too slow: to send its first byte, a whole head or a body, or to read an answer.
//!
//! One coarse sweep per worker replaces a timer per connection. A connection records in atomics what it is doing, and
//! the sweep ends each connection that is in one state for too long. Only the sweep reads the clock, so recording
//! costs no clock call.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;

use policies::Moment;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::connection_state::{ConnectionState, ConnectionTimeouts, Event, Unsent};
use crate::auth::mtls::caller_certificate::CallerCertificate;
use crate::clock;
use crate::observe::Awaited;
use crate::wire::expiry::Expiry;
use crate::wire::min_rate::{MinRate, TICK};
use crate::wire::slow_caller::{Overdue, Transfer};

/// State of one connection, and the tick at which the state began.
#[derive(Debug)]
pub(crate) struct ConnectionActivity {
    /// A [`ConnectionState`].
    state: AtomicU8,
    since: AtomicU32,
    /// Tick since which the caller reads nothing; 0 while it reads.
    stalled: AtomicU32,
    /// Whether the connection ends because the caller reads too little of an answer.
    unread: AtomicBool,
    /// Moment by which the current answer must be sent. On HTTP/2 each request's [`Transfer`] holds its own.
    expiry: Expiry,
    /// Whether the connection has switched to another protocol.
    switched: AtomicBool,
    /// Whether the end of the current answer is the end of the connection, so that only an orderly close makes it
    /// complete.
    unframed: AtomicBool,
    /// Number of requests whose answers are not sent yet.
    open: AtomicU32,
    requests: AtomicU32,
    /// Ticks at which the caller read nothing although there was something to send, and bytes that it read.
    takes: MinRate,
    /// Transfers of the open requests that are checked one by one.
    flows: Mutex<Vec<Arc<Transfer>>>,
    /// Whether no byte of a request or of an answer is held.
    at_rest: AtomicBool,
    /// Whether the caller has closed its direction while it waits for an answer. Never set on HTTP/2.
    half_closed: AtomicBool,
    /// Waker of the connection's task.
    task: OnceLock<Waker>,
    /// On HTTP/2: whether a part of an answer was handed to the library and is not sent yet.
    owing: AtomicBool,
    /// On HTTP/2: number of pieces of answers handed over since the last call of `take_handed`.
    handed: AtomicU32,
    /// On HTTP/2: tells the connection to end.
    farewell: OnceLock<Arc<Notify>>,
    /// Certificate that the caller has presented.
    certificate: OnceLock<Arc<CallerCertificate>>,
    ticks: Arc<AtomicU32>,
}

impl ConnectionActivity {
    fn state(&self) -> ConnectionState {
        ConnectionState::of(self.state.load(Relaxed))
    }

    /// Records an event. A state that begins with it begins now.
    fn on(&self, event: Event) {
        if let Some(state) = self.state().on(event) {
            self.state.store(state as u8, Relaxed);
            self.since.store(self.ticks.load(Relaxed), Relaxed);
        }
    }

    /// Records that bytes came from the caller. On HTTP/2 this says nothing about heads; [`Self::begins_head`] and
    /// [`Self::ends_head`] do.
    pub(crate) fn note_read(&self) {
        if self.farewell.get().is_none() {
            self.on(Event::Read);
        }
    }

    /// Marks the connection as HTTP/2, where requests share it. `farewell` is notified when the connection must end.
    pub(crate) fn share(&self, farewell: Arc<Notify>) {
        // This is called once per connection, so the cell is empty.
        let _ = self.farewell.set(farewell);
        self.on(Event::RequestsEnded);
    }

    /// Records the certificate that the caller has presented. The connection ends when no authority accepts it any
    /// more.
    pub(crate) fn shows(&self, certificate: Arc<CallerCertificate>) {
        // This is called once per connection, so the cell is empty.
        let _ = self.certificate.set(certificate);
    }

    pub(crate) fn certificate(&self) -> Option<&Arc<CallerCertificate>> {
        self.certificate.get()
    }

    /// Returns whether no authority accepts the caller's certificate any more.
    pub(crate) fn is_withdrawn(&self) -> bool {
        self.certificate().is_some_and(|certificate| certificate.is_withdrawn())
    }

    /// Asks the connection to end after its current requests. Returns true if it is idle and its task must be aborted.
    fn end_when_idle(&self) -> bool {
        match (self.state(), self.farewell.get()) {
            (_, Some(farewell)) => {
                farewell.notify_one();
                false
            }
            (ConnectionState::Fresh | ConnectionState::Idle, None) if self.stalled.load(Relaxed) == 0 => {
                self.on(Event::Overdue);
                true
            }
            // The connection closes after its next answer.
            _ => false,
        }
    }

    /// Records that a part of a head has come.
    pub(crate) fn begins_head(&self) {
        self.on(Event::HeadBegan);
    }

    /// Records that the head is complete.
    pub(crate) fn ends_head(&self) {
        self.on(Event::HeadEnded);
    }

    /// Sets the waker to call when the connection may rest.
    pub(crate) fn set_task(&self, task: &Waker) {
        self.task.get_or_init(|| task.clone());
    }

    /// Records that the caller has closed its direction. Returns whether it may still wait for an answer: on HTTP/2 it has
    /// left.
    pub(crate) fn half_closes(&self) -> bool {
        let may_wait = self.farewell.get().is_none();
        self.half_closed.store(may_wait, Relaxed);
        may_wait
    }

    /// Returns whether the caller has closed its direction.
    pub(crate) fn is_half_closed(&self) -> bool {
        self.half_closed.load(Relaxed)
    }

    /// Records whether no byte of a request or of an answer is held.
    pub(crate) fn set_at_rest(&self, at_rest: bool) {
        self.at_rest.store(at_rest, Relaxed);
    }

    /// Returns whether the connection is idle for more than one tick, so that it may give its memory back until the next
    /// request.
    pub(crate) fn may_rest(&self) -> bool {
        self.at_rest.load(Relaxed)
            && self.state() == ConnectionState::Idle
            && self.ticks.load(Relaxed).wrapping_sub(self.since.load(Relaxed)) > 1
    }

    /// Current tick, counted from 1, four in a second.
    pub(crate) fn tick(&self) -> u32 {
        self.ticks.load(Relaxed)
    }

    /// Treats the connection as newly accepted, after a handshake or a PROXY header.
    pub(crate) fn reset_to_new(&self) {
        self.on(Event::Accepted);
    }

    /// Records that what still comes, as the rest of a body, is not used.
    pub(crate) fn start_discarding(&self) {
        self.on(Event::Discards);
    }

    /// Records that nothing of a request is to come any more.
    pub(crate) fn idles(&self) {
        self.on(Event::RequestsEnded);
    }

    /// Records that the last answer is sent, to a caller that has nothing more to send.
    pub(crate) fn start_closing(&self) {
        self.on(Event::Closes);
    }

    /// Returns whether the connection is being ended although nothing was waited for: no answer was due, or all are sent.
    pub(crate) fn is_dismissed(&self) -> bool {
        matches!(self.state(), ConnectionState::Dismissed | ConnectionState::Closing)
    }

    /// Returns whether the connection is being ended because it sent a head too slowly.
    pub(crate) fn is_late(&self) -> bool {
        self.state() == ConnectionState::Late
    }

    /// Returns whether an answer is due.
    pub(crate) fn is_serving(&self) -> bool {
        self.state() == ConnectionState::Serving
    }

    /// Records that the answer switches to another protocol.
    pub(crate) fn switches(&self) {
        self.switched.store(true, Relaxed);
    }

    /// Records the start of an answer whose end is the end of the connection (RFC 9112 section 6.3).
    pub(crate) fn start_unframed_answer(&self) {
        self.unframed.store(true, Relaxed);
    }

    /// Records that this answer is complete and the connection is closed in good order.
    pub(crate) fn end_unframed_answer(&self) {
        self.unframed.store(false, Relaxed);
    }

    pub(crate) fn has_unframed_answer(&self) -> bool {
        self.unframed.load(Relaxed)
    }

    pub(crate) fn has_switched(&self) -> bool {
        self.switched.load(Relaxed)
    }

    /// Records that a whole head has come. `flow` is the request's [`Transfer`], if its body or answer is watched.
    pub(crate) fn serves(&self, flow: Option<&Arc<Transfer>>) {
        if self.open.fetch_add(1, Relaxed) == 0 {
            self.on(Event::RequestBegan);
            self.takes.begin();
        }
        if let Some(flow) = flow {
            lock(&self.flows).push(Arc::clone(flow));
        }
        self.requests
            .store(self.requests.load(Relaxed).saturating_add(1), Relaxed);
    }

    /// Number of requests that have come so far.
    pub(crate) fn requests(&self) -> u32 {
        self.requests.load(Relaxed)
    }

    /// Sets the moment by which the current answer must be sent.
    pub(crate) fn expires(&self, moment: Option<Moment>) {
        self.expiry.set(moment);
    }

    /// Returns whether the current answer has used up its time.
    pub(crate) fn has_expired(&self, now: Moment) -> bool {
        self.expiry.has_passed(now)
    }

    /// Records that the last byte of the answer is handed to the connection, or that the answer is dropped.
    pub(crate) fn end_answer(&self, flow: Option<&Arc<Transfer>>) {
        if let Some(flow) = flow {
            let mut flows = lock(&self.flows);
            if let Some(place) = flows.iter().position(|other| Arc::ptr_eq(other, flow)) {
                flows.swap_remove(place);
            }
        }
        if self.open.fetch_sub(1, Relaxed) == 1 {
            self.expiry.set(None);
            self.on(Event::RequestsEnded);
        }
    }

    /// Records that the caller reads nothing at present.
    pub(crate) fn cannot_write(&self) {
        if self.stalled.load(Relaxed) == 0 {
            self.stalled.store(self.ticks.load(Relaxed), Relaxed);
        }
    }

    /// Records that `count` bytes have gone to the caller.
    pub(crate) fn note_written(&self, count: usize) {
        self.takes.progress(count);
        if self.stalled.load(Relaxed) != 0 {
            self.stalled.store(0, Relaxed);
            self.idles_anew();
        }
    }

    /// Records whether a part of an answer is not sent yet, even if it was handed to the library.
    pub(crate) fn set_unsent(&self, set_unsent: bool) {
        if self.owing.load(Relaxed) != set_unsent {
            self.owing.store(set_unsent, Relaxed);
            self.idles_anew();
        }
    }

    /// Restarts the idle time, because time in which the caller reads an answer is not idle time.
    fn idles_anew(&self) {
        if self.state() == ConnectionState::Idle {
            self.on(Event::RequestsEnded);
        }
    }

    /// Records that a piece of an answer was handed to the library.
    pub(crate) fn hands_over(&self) {
        self.handed.store(self.handed.load(Relaxed).saturating_add(1), Relaxed);
    }

    /// Returns the number of pieces handed over since the last call.
    pub(crate) fn take_handed(&self) -> u32 {
        let handed = self.handed.load(Relaxed);
        if handed > 0 {
            self.handed.store(0, Relaxed);
        }
        handed
    }

    /// Prepares the connection for its end. Returns whether its task must be aborted.
    fn dismiss(&self) -> bool {
        let was_idle = self.state() == ConnectionState::Idle;
        self.on(Event::Overdue);
        match self.farewell.get() {
            Some(farewell) if was_idle => {
                farewell.notify_one();
                false
            }
            _ => true,
        }
    }

    /// Returns whether the connection ends because the caller reads too little of an answer.
    pub(crate) fn is_unread(&self) -> bool {
        self.unread.load(Relaxed)
    }

    /// Returns what has been waited for too long, if anything. Calls `count` for each single request that is given up.
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
        // The first tick was already under way when the state began, so only the whole ticks after it are counted.
        let longer = |since: u32, limit| TICK * now.wrapping_sub(since).saturating_sub(1) >= limit;
        let stalled = self.stalled.load(Relaxed);
        if stalled != 0 && longer(stalled, patience.leave.write) {
            return Some(Awaited::Reader);
        }
        let unsent = match (stalled != 0, self.owing.load(Relaxed)) {
            (true, _) => Unsent::Stalled,
            (false, true) => Unsent::Owed,
            (false, false) => Unsent::Nothing,
        };
        let (awaited, limit) = self.state().limit(unsent, patience)?;
        longer(self.since.load(Relaxed), limit).then_some(awaited)
    }
}

/// Watches the connections of one worker.
pub(crate) struct Reaper {
    /// Counts from 1, so that 0 can mean never.
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
    /// Starts to watch a connection. [`Self::attend`] sets its task once it runs.
    pub(crate) fn begin(&self) -> (u64, Arc<ConnectionActivity>) {
        let activity = Arc::new(ConnectionActivity {
            state: AtomicU8::new(ConnectionState::Fresh as u8),
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
            half_closed: AtomicBool::new(false),
            task: OnceLock::new(),
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

    /// Returns the connections that were made with a certificate.
    pub(crate) fn certified(&self) -> Vec<(u64, Arc<CallerCertificate>)> {
        let watched = self.lock();
        let certified = watched.connections.iter().filter_map(|(id, (activity, _))| {
            let certificate = activity.certificate()?;
            Some((*id, Arc::clone(certificate)))
        });
        certified.collect()
    }

    /// Ends a connection whose certificate is no longer accepted, if no request is under way on it. Returns whether the
    /// connection still exists and must be asked again.
    pub(crate) fn end_when_idle(&self, id: u64) -> bool {
        match self.lock().connections.get(&id) {
            None => false,
            Some((activity, task)) => {
                if let (true, Some(task)) = (activity.end_when_idle(), task) {
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

    /// Checks all connections once a tick, for ever. Calls `count` for each one that is given up.
    pub(crate) async fn sweep(&self, mut patience: impl FnMut() -> ConnectionTimeouts, count: impl Fn(Awaited)) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.ticks.fetch_add(1, Relaxed);
            let (patience, now) = (patience(), clock::now());
            for (activity, task) in self.lock().connections.values() {
                let Some(task) = task else { continue };
                let Some(awaited) = activity.look(&patience, now, &count) else {
                    if activity.may_rest()
                        && let Some(task) = activity.task.get()
                    {
                        task.wake_by_ref();
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
    // A panic leaves the content valid, because every change is one step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::wire::slow_caller::{Rates, WaitLimits};

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
        activity.set_unsent(true);
        activity.end_answer(None);
        assert_eq!(wait(8), None, "as long as it may take nothing");
        assert_eq!(wait(1), Some(Awaited::Reader), "and no longer");
        activity.set_unsent(false);
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
        activity.start_closing();
        assert!(!wait(1));
        assert!(wait(1), "it does not end");
    }

    #[test]
    fn only_who_holds_nothing_and_has_idled_is_put_away() {
        let watch = Reaper::default();
        let (_, activity) = watch.begin();
        let after = |ticks: u32| {
            watch.ticks.fetch_add(ticks, Relaxed);
            activity.may_rest()
        };
        activity.set_at_rest(true);
        assert!(!after(9), "nothing has been made yet");
        activity.serves(None);
        assert!(!after(9), "it is served");
        activity.end_answer(None);
        assert!(!after(1), "it may go on at once");
        assert!(after(1));
        activity.set_at_rest(false);
        assert!(!after(9), "something is still to be written");
        activity.set_at_rest(true);
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

    #[test]
    fn a_request_that_is_given_up_is_counted_and_takes_no_connection_along() {
        let watch = Reaper::default();
        let (_, activity) = watch.begin();
        let flow = Arc::new(Transfer::default());
        flow.set_carrier(Waker::noop());
        activity.serves(Some(&flow));
        flow.hands_over(1);
        let counted = std::cell::Cell::new(0);
        let given_up =
            (0..20).find_map(|_| activity.look(&patience(), Moment::ZERO, &|_| counted.set(counted.get() + 1)));
        assert_eq!((given_up, counted.get()), (None, 1));
    }
}

//! Keeps one connection to the store: decides when it is given up and when another one is tried.
//!
//! Calls use the connection while there is one. Their results go to a breaker, which opens after a few that failed in a
//! row, or after half of those in a second. Some kinds of trouble end the connection at once. Then calls fail at once
//! until one task has connected and checked the store again. Its tries are the probes of the breaker, so the waits
//! between them grow and differ between replicas.
//!
//! Invariant: the state says up exactly while there is a connection.

use std::cmp::Ordering;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use policies::breaker::{Outcome, State};
use policies::{Breaker, BreakerSettings, Moment, Ratio};
use redis::{Pipeline, Value};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::call::{self, Connection, Replies};
use super::command::MOST_EXACT;
use super::connection::{self, Connected};
use super::counts::CallCounts;
use super::presence::{self, Replica};
use super::scripts::{Common, Memory, read_epoch};
use super::settings::StoreSettings;
use super::spread::{Spread, SpreadKeys};
use super::state::{Health, StoreState};
use super::trouble::{Failure, Trouble};
use crate::clock;

/// Most pipelines under way, of those that wait for a place, and of the others.
const MOST_CALLS: usize = 64;
/// Time limit to connect and check.
const CONNECT_LIMIT: Duration = Duration::from_millis(750);
/// Interval between looks at the store, which find what other replicas have announced; and after a look that failed.
const LOOK: Duration = Duration::from_millis(450);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Shortest time between two looks.
const SHORTEST: Duration = Duration::from_millis(20);
/// Interval between reads of the eviction policy, and between words of this replica.
const POLICY_EVERY: Duration = Duration::from_secs(30);
const PRESENCE_EVERY: Duration = Duration::from_secs(5);
/// Most reads of changes in one look.
const MOST_READS: usize = 100;

/// Opens after three failures in a row, or half of at least ten in a second. Tries come 0.1 s to 0.4 s apart.
fn breaker_settings() -> BreakerSettings {
    BreakerSettings {
        window: Duration::from_secs(1),
        min_calls: 10,
        failure_ratio: Ratio::from_millionths(500_000),
        consecutive: NonZeroU32::new(3),
        open_for: Duration::from_millis(100),
        growth: 2.0,
        open_for_max: Duration::from_millis(400),
        jitter: Ratio::from_millionths(300_000).unwrap_or(Ratio::ZERO),
        probes: NonZeroU32::MIN,
        ..BreakerSettings::default()
    }
}

/// A connection in use.
#[derive(Debug)]
pub(super) struct Link {
    number: u64,
    connection: Connection,
}

/// The connection, or why there is none.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) settings: StoreSettings,
    pub(super) common: Common,
    link: ArcSwapOption<Link>,
    breaker: Arc<Breaker>,
    state: watch::Sender<StoreState>,
    /// Name of the store's memory as last seen; zero before it was.
    epoch: AtomicU64,
    places: Semaphore,
    /// Places of calls that wait for one. They must not take those of the counts, which do not wait.
    patient_places: Semaphore,
    /// Last failure. Locked also while the connection is replaced.
    failure: Mutex<Option<Failure>>,
    lost: Notify,
    pub(super) counts: CallCounts,
    /// Moment at which an answer told last that there is nothing new to read.
    heard: AtomicU64,
    pub(super) spread: Spread,
    pub(super) keys: SpreadKeys,
    /// Random name of this process, and what it tells of itself; empty if nothing.
    replica: u64,
    presence: Mutex<Box<str>>,
    presence_is_new: AtomicBool,
}

impl Keeper {
    pub(super) fn new(settings: StoreSettings, replica: u64) -> Keeper {
        let health = Health::Down {
            since: clock::now(),
            trouble: Trouble::Connecting,
        };
        Keeper {
            common: Common::new(
                &settings.prefix,
                settings.lease_time,
                settings.heartbeat,
                settings.address.is_cluster,
            ),
            keys: SpreadKeys::new(&settings.prefix),
            settings,
            link: ArcSwapOption::empty(),
            breaker: Arc::new(Breaker::seeded(breaker_settings(), replica)),
            state: watch::Sender::new(StoreState {
                health,
                epoch: None,
                eviction: None,
            }),
            epoch: AtomicU64::new(0),
            places: Semaphore::new(MOST_CALLS),
            patient_places: Semaphore::new(MOST_CALLS),
            failure: Mutex::new(None),
            lost: Notify::new(),
            counts: CallCounts::default(),
            heard: AtomicU64::new(0),
            spread: Spread::default(),
            replica,
            presence: Mutex::default(),
            presence_is_new: AtomicBool::new(false),
        }
    }

    pub(super) fn state(&self) -> StoreState {
        *self.state.borrow()
    }

    pub(super) fn watch(&self) -> watch::Receiver<StoreState> {
        self.state.subscribe()
    }

    /// Returns the detail of the last failure.
    pub(super) fn detail(&self) -> Option<Box<str>> {
        self.last_failure().as_ref().map(|failure| failure.detail.clone())
    }

    fn last_failure(&self) -> MutexGuard<'_, Option<Failure>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a pipeline and returns its replies, within the call limit. Error replies are among them.
    pub(super) async fn call(&self, pipeline: &Pipeline) -> Result<Replies, Trouble> {
        let began = clock::now();
        let result = self.call_uncounted(pipeline, began, false).await;
        self.count(&result, began);
        result
    }

    /// Like [`Keeper::call`], but waits for a place among the pipelines under way, within the call limit.
    pub(super) async fn call_in_turn(&self, pipeline: &Pipeline) -> Result<Replies, Trouble> {
        let began = clock::now();
        let result = self.call_uncounted(pipeline, began, true).await;
        self.count(&result, began);
        result
    }

    fn count(&self, result: &Result<Replies, Trouble>, began: Moment) {
        let trouble = match result {
            Ok(replies) => replies.trouble(),
            Err(trouble) => Some(*trouble),
        };
        self.counts.note(trouble, clock::now().since(began));
    }

    async fn call_uncounted(&self, pipeline: &Pipeline, began: Moment, waits: bool) -> Result<Replies, Trouble> {
        let link = self.link.load_full();
        let Some(link) = link else {
            return Err(match self.state().health {
                Health::Down { trouble, .. } => trouble,
                // The connection was replaced in between.
                Health::Up { .. } => Trouble::Closed,
            });
        };
        let deadline = clock::instant(began + self.settings.call_limit);
        let place = match waits {
            false => self.places.try_acquire().ok(),
            true => tokio::time::timeout_at(deadline, self.patient_places.acquire())
                .await
                .ok()
                .and_then(Result::ok),
        };
        let Some(_place) = place else {
            return Err(Trouble::TooMany);
        };
        // Without a connection it is open, so this is refused only in a race with the last failure.
        let permit = self.breaker.admit(began).map_err(|_| Trouble::Timeout)?;
        let replies = call::send(&link.connection, pipeline);
        let result = match tokio::time::timeout_at(deadline, replies).await {
            Ok(result) => result,
            Err(_) => Err(Failure::new(
                Trouble::Timeout,
                format_args!("no answer in {:?}", self.settings.call_limit),
            )),
        };
        let now = clock::now();
        let failure = match &result {
            Ok(replies) => replies.failure().cloned(),
            Err(failure) => Some(failure.clone()),
        };
        let took = now.since(began);
        match failure {
            None => {
                self.breaker.record(permit, Outcome::Success { took }, now);
            }
            Some(failure) => {
                let opened = self.breaker.record(permit, Outcome::Failure { took }, now);
                // The client library replaces the connection to a node of a cluster by itself.
                let is_of_node = self.common.is_cluster && failure.trouble == Trouble::Closed;
                if opened.is_some() || failure.trouble.ends_connection() && !is_of_node {
                    self.lose(link.number, failure);
                }
            }
        }
        result.map_err(|failure| failure.trouble)
    }

    /// Tells the name of the store's memory, as an answer has it.
    pub(super) fn note_epoch(&self, epoch: u64) {
        if self.epoch.load(Relaxed) == epoch {
            return;
        }
        let before = self.epoch.swap(epoch, Relaxed);
        if before != 0 && before != epoch {
            tracing::warn!("the shared store has lost its memory: the counts of all limits begin anew");
        }
        self.state.send_modify(|state| state.epoch = Some(epoch));
    }

    /// Gives up a connection, unless another one has replaced it.
    fn lose(&self, number: u64, failure: Failure) {
        let mut last = self.last_failure();
        let is_current = self.link.load().as_ref().is_some_and(|link| link.number == number);
        if !is_current {
            return;
        }
        self.link.store(None);
        self.down(&failure);
        *last = Some(failure);
        drop(last);
        self.lost.notify_one();
    }

    /// Tells that the store is down; since when it is does not change while it is.
    fn down(&self, failure: &Failure) {
        let now = clock::now();
        let trouble = failure.trouble;
        let is_news = self.state.send_if_modified(|state| {
            let (since, before) = match state.health {
                Health::Up { .. } => (now, None),
                Health::Down { since, trouble } => (since, Some(trouble)),
            };
            state.health = Health::Down { since, trouble };
            before != Some(trouble)
        });
        if is_news {
            let (address, detail) = (&self.settings.address, &*failure.detail);
            tracing::warn!(%address, %trouble, detail, "the shared store is down");
        }
    }

    fn up(&self, number: u64, connected: Connected) {
        let last = self.last_failure();
        let link = Link {
            number,
            connection: connected.connection,
        };
        self.link.store(Some(Arc::new(link)));
        let now = clock::now();
        self.note_epoch(connected.epoch);
        let before = self.state();
        self.state.send_modify(|state| {
            state.health = Health::Up { since: now };
            state.eviction = connected.eviction;
        });
        drop(last);
        let address = &self.settings.address;
        match before.health {
            Health::Down { since, .. } => {
                let down_for = now.since(since);
                tracing::info!(%address, ?down_for, "the shared store is up");
            }
            Health::Up { .. } => {}
        }
        self.warn_of_eviction(before);
    }

    fn warn_of_eviction(&self, before: StoreState) {
        let state = self.state();
        if state.may_evict() && before.eviction != state.eviction {
            let policy = state.eviction.map_or("", |eviction| eviction.word());
            tracing::warn!(
                policy,
                "the shared store may drop counts when its memory is full, and their owners then start with fresh limits: \
                 set `maxmemory-policy noeviction` there"
            );
        }
    }

    /// Connects, and connects again whenever the connection is lost, forever.
    pub(super) async fn run(self: Arc<Self>) {
        for number in 1.. {
            let now = clock::now();
            let permit = match self.breaker.admit(now) {
                Ok(permit) => permit,
                Err(open) => {
                    tokio::time::sleep(open.retry_in.max(Duration::from_millis(1))).await;
                    continue;
                }
            };
            match self.connect().await {
                Ok((connected, driver)) => {
                    let now = clock::now();
                    self.breaker
                        .record(permit, Outcome::Success { took: Duration::ZERO }, now);
                    self.up(number, connected);
                    self.stay(number, driver).await;
                }
                Err(failure) => {
                    let now = clock::now();
                    self.breaker
                        .record(permit, Outcome::Failure { took: Duration::ZERO }, now);
                    self.down(&failure);
                    *self.last_failure() = Some(failure);
                    if self.breaker.state(now) == State::Closed {
                        let pause = Duration::from_millis(fastrand::u64(5..50));
                        tokio::time::sleep(pause).await;
                    }
                }
            }
        }
    }

    async fn connect(&self) -> Result<(Connected, AbortOnDrop), Failure> {
        let connect = async {
            let (connection, driver) = connection::open(&self.settings).await?;
            let driver = AbortOnDrop(tokio::spawn(driver));
            let (keys, limit) = (&self.keys, self.settings.call_limit);
            let connected = connection::check(connection, &self.common, keys, self.replica, limit).await?;
            Ok((connected, driver))
        };
        let limit = CONNECT_LIMIT.max(self.settings.call_limit * 4);
        let timed_out = || {
            Err(Failure::new(
                Trouble::Timeout,
                format_args!("not connected in {limit:?}"),
            ))
        };
        timeout(limit, connect).await.unwrap_or_else(|_| timed_out())
    }

    /// Takes in what an answer tells of the store's memory, so that it need not be asked for. Looks at the store at once
    /// if there is something new.
    pub(super) fn note_answer(&self, memory: Memory) {
        // In a cluster each owner's memory has its own name.
        if !self.common.is_cluster {
            self.note_epoch(memory.epoch);
        }
        let known = memory
            .version
            .and_then(|version| self.spread.compare(memory.epoch, version));
        match known {
            Some(Ordering::Equal) => self.heard.store(clock::now().nanos(), Relaxed),
            Some(Ordering::Less) => self.spread.wake.notify_one(),
            // The next look finds out.
            Some(Ordering::Greater) | None => {}
        }
    }

    /// Returns when the connection is lost. Looks at the store from time to time, so that this is noticed without calls.
    async fn stay(&self, number: u64, mut driver: AbortOnDrop) {
        let mut looks = Looks::new(clock::now());
        loop {
            let wait = looks.next.since(clock::now());
            tokio::select! {
                () = self.lost.notified() => {
                    // The notice may be of an earlier connection.
                    if self.link.load().is_none() {
                        return;
                    }
                }
                _ = &mut driver.0 => {
                    self.lose(number, Failure::new(Trouble::Closed, "the connection was closed"));
                    return;
                }
                // In time, or at once if something is to be told or read.
                is_woken = wait_for(wait, &self.spread.wake) => self.look_if_due(&mut looks, is_woken).await,
            }
        }
    }

    /// Looks at the store, unless other answers have told what a look would.
    async fn look_if_due(&self, looks: &mut Looks, is_woken: bool) {
        // A flood of answers that tell of something new leads to no flood of looks.
        let pause = looks.last.map(|last| SHORTEST.saturating_sub(clock::now().since(last)));
        tokio::time::sleep(pause.unwrap_or_default()).await;
        let now = clock::now();
        let every = LOOK.mul_f64(0.9 + 0.2 * fastrand::f64());
        let known_until = Moment::from_nanos(self.heard.load(Relaxed)) + every;
        let reads_memory = is_woken || looks.last.is_none() || known_until <= now;
        looks.next = if reads_memory { now + every } else { known_until };
        looks.last = Some(now);
        if self.look(looks, reads_memory).await.is_err() {
            looks.next = clock::now() + LOOK_AGAIN;
            looks.presence = now;
        }
    }

    /// Reads the name of the store's memory and exchanges notices, unless answers to other calls have told the same;
    /// sometimes tells of this replica and reads the eviction policy.
    async fn look(&self, looks: &mut Looks, reads_memory: bool) -> Result<(), Trouble> {
        let (now, mut pipeline) = (clock::now(), Pipeline::new());
        if reads_memory {
            pipeline.cmd("MGET").arg(self.common.epoch()).arg(&self.keys.version);
        }
        let is_due = |moment: Moment| now >= moment;
        let presence = self.presence.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let tells = self.presence_is_new.swap(false, Relaxed) || is_due(looks.presence);
        if tells {
            looks.presence = now + PRESENCE_EVERY;
            if !presence.is_empty() {
                pipeline.add_command(presence::tell(&self.keys, self.replica, &presence));
            }
        }
        let reads_policy = is_due(looks.policy);
        if reads_policy {
            looks.policy = now + POLICY_EVERY;
            pipeline.cmd("INFO").arg("memory");
        }
        if pipeline.is_empty() {
            return Ok(());
        }
        let replies = self.ask(&pipeline).await?;
        if reads_policy && let Some(memory) = replies.values().last() {
            let (before, eviction) = (self.state(), connection::eviction(memory));
            if eviction.is_some() && eviction != before.eviction {
                self.state.send_modify(|state| state.eviction = eviction);
                self.warn_of_eviction(before);
            }
        }
        match replies.values() {
            [Value::Array(read), ..] if reads_memory => self.note_memory(read).await,
            _ if reads_memory => Err(Trouble::Unexpected),
            _ => Ok(()),
        }
    }

    /// Follows the name of the memory and the last version of the notices.
    async fn note_memory(&self, read: &[Value]) -> Result<(), Trouble> {
        let [epoch, version] = read else {
            return Err(Trouble::Unexpected);
        };
        // A memory without a name gets one from the next script, and is told everything then.
        let Some(epoch) = read_epoch(epoch) else {
            let mut pipeline = Pipeline::new();
            let name = fastrand::u64(1..MOST_EXACT);
            pipeline.cmd("SET").arg(self.common.epoch()).arg(name).arg("NX");
            self.ask(&pipeline).await?;
            return Ok(());
        };
        self.note_epoch(epoch);
        let version = read_epoch(version).unwrap_or(0);
        let mut is_behind = self.spread.note_memory(epoch, version);
        loop {
            let announcements = self.spread.to_send();
            if announcements.is_empty() {
                break;
            }
            let mut pipeline = Pipeline::new();
            for announcement in &announcements {
                pipeline.add_command(announcement.call(&self.keys));
            }
            let replies = self.ask(&pipeline).await?;
            self.spread.sent(announcements.len());
            is_behind = true;
            if replies.values().contains(&Value::Int(0)) {
                tracing::warn!(
                    "the shared store keeps no more notices for other replicas: they do not learn the newest"
                );
            }
        }
        for _ in 0..MOST_READS {
            if !is_behind {
                break;
            }
            let mut pipeline = Pipeline::new();
            pipeline.add_command(self.keys.changes(self.spread.version()));
            let replies = self.ask(&pipeline).await?;
            let listed = replies.values().first();
            is_behind = listed
                .and_then(|listed| self.spread.take_in(listed))
                .ok_or(Trouble::Unexpected)?;
        }
        if !is_behind {
            // Notices that have ended are not listed.
            self.spread.note_read(version);
        }
        Ok(())
    }

    /// Calls the store. An error reply is an error.
    async fn ask(&self, pipeline: &Pipeline) -> Result<Replies, Trouble> {
        let replies = self.call(pipeline).await?;
        match replies.trouble() {
            Some(trouble) => Err(trouble),
            None => Ok(replies),
        }
    }

    /// Tells of this replica from now on; with an empty text no more.
    pub(super) fn set_presence(&self, text: &str, at_once: bool) {
        if text.len() <= presence::LONGEST {
            let mut presence = self.presence.lock().unwrap_or_else(PoisonError::into_inner);
            if **presence != *text {
                *presence = text.into();
                if at_once {
                    self.presence_is_new.store(true, Relaxed);
                    self.spread.wake.notify_one();
                }
            }
        }
    }

    /// Tells that this replica leaves.
    pub(super) async fn leave(&self) {
        self.set_presence("", false);
        let mut pipeline = Pipeline::new();
        pipeline.add_command(presence::tell(&self.keys, self.replica, ""));
        let _ = self.call(&pipeline).await;
    }

    /// Lists the replicas.
    pub(super) async fn replicas(&self) -> Result<Vec<Replica>, Trouble> {
        let mut pipeline = Pipeline::new();
        pipeline.add_command(presence::list(&self.keys));
        let replies = self.ask(&pipeline).await?;
        let listed = replies.values().first();
        listed.and_then(presence::read).ok_or(Trouble::Unexpected)
    }
}

/// Waits for a time, or until it is woken. Returns whether it was woken.
async fn wait_for(time: Duration, wake: &Notify) -> bool {
    timeout(time, wake.notified()).await.is_ok()
}

/// Moments of the looks at the store over one connection.
struct Looks {
    last: Option<Moment>,
    next: Moment,
    /// Next word of this replica.
    presence: Moment,
    /// Next read of the eviction policy.
    policy: Moment,
}

impl Looks {
    /// Begins at once. The eviction policy was read when the connection was made.
    fn new(now: Moment) -> Looks {
        Looks {
            last: None,
            next: now,
            presence: now,
            policy: now + POLICY_EVERY,
        }
    }
}

/// Task that is ended when this is dropped.
#[derive(Debug)]
pub(super) struct AbortOnDrop(pub(super) JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

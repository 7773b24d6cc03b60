//! Pools the HTTP/1.1 connections of one worker to one endpoint. The pool is bounded, reuses the newest connection
//! first, and drops old ones.
//!
//! Each worker has its own pool. Its lock is taken by that worker and by the control thread (sweep, admin API).
//!
//! A connection belongs to the exchange that uses it, and returns only after a complete exchange. A connection dropped
//! earlier is closed at the socket, so that the backend learns that its caller has gone.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use policies::Moment;

use super::http1::{BackendStream, MessageStream};
use super::timer::Timer;

/// Limits of the pools of one backend, for each worker and endpoint.
#[derive(Debug, Clone, Copy, Default)]
pub struct PoolSettings {
    /// Maximum number of idle connections.
    pub idle_limit: usize,
    /// Maximum idle time, after which a connection is not used again.
    pub idle_for: Duration,
    /// Maximum age at which a connection is used for a new request.
    pub max_age: Duration,
    /// Maximum number of concurrent exchanges on a shared connection.
    pub streams: u32,
    /// Time after which a silent connection in use is checked with a PING (HTTP/2).
    pub ping: Duration,
    /// Maximum number of fields of an answer.
    pub answer_fields: usize,
    /// Whether interim answers are passed on to callers.
    pub forwards_interim: bool,
}

/// Open connection to an endpoint, for one exchange at a time.
pub(crate) struct Connection {
    /// Boxed, because connections are moved into and out of the pool.
    pub(crate) stream: Box<MessageStream>,
    born: Moment,
    /// Whether the connection has carried an exchange before.
    pub(crate) used: bool,
    /// Time for which the endpoint keeps the idle connection, if it said so.
    kept_for: Option<Duration>,
    /// Timer of the exchange. It is kept and reset, which is cheaper than creating one.
    pub(crate) timer: Timer,
}

impl Connection {
    pub(crate) fn new(stream: MessageStream, now: Moment) -> Self {
        Self {
            stream: Box::new(stream),
            born: now,
            used: false,
            kept_for: None,
            timer: Timer::default(),
        }
    }

    /// Notes for how many seconds the endpoint keeps the idle connection, if it says so. It is used for a second less, because a
    /// request may be on its way when the endpoint closes.
    pub(crate) fn keep_for(&mut self, seconds: Option<u32>) {
        const MARGIN: u32 = 1;
        if let Some(seconds) = seconds {
            self.kept_for = Some(Duration::from_secs(seconds.saturating_sub(MARGIN).into()));
        }
    }

    /// Whether the connection has been idle for longer than the endpoint keeps it, or is too old.
    fn has_expired(&self, since: Moment, settings: &PoolSettings, now: Moment) -> bool {
        now.since(self.born) > settings.max_age || self.kept_for.is_some_and(|time| now.since(since) >= time)
    }
}

/// Idle connections of one worker to one endpoint.
pub(crate) struct Pool {
    idle: Mutex<VecDeque<(Connection, Moment)>>,
    leased: AtomicUsize,
    /// Whether connections are kept for further exchanges. Changed with the lock held.
    is_open: AtomicBool,
}

impl Pool {
    pub(crate) fn new() -> Self {
        Self {
            idle: Mutex::new(VecDeque::new()),
            leased: AtomicUsize::new(0),
            is_open: AtomicBool::new(true),
        }
    }

    /// Opens or closes the pool. A closed pool closes its idle connections, and each other one after its exchange.
    pub(crate) fn set_open(&self, is_open: bool) {
        let mut idle = self.lock();
        self.is_open.store(is_open, Relaxed);
        if !is_open {
            idle.clear();
        }
    }

    /// Takes the newest usable connection, if there is one.
    pub(crate) fn take(&self, settings: &PoolSettings, now: Moment) -> Option<Connection> {
        let mut idle = self.lock();
        while let Some((mut connection, since)) = idle.pop_back() {
            if now.since(since) > settings.idle_for {
                // The connections before this one have been idle even longer.
                idle.clear();
                return None;
            }
            if !connection.has_expired(since, settings, now) && connection.stream.is_quiet() {
                return Some(connection);
            }
        }
        None
    }

    pub(crate) fn put(&self, mut connection: Connection, settings: &PoolSettings, now: Moment) {
        if connection.has_expired(now, settings, now) || !connection.stream.is_reusable() {
            return;
        }
        connection.used = true;
        connection.stream.rest();
        let mut idle = self.lock();
        if !self.is_open.load(Relaxed) {
            return;
        }
        while idle.len() >= settings.idle_limit {
            idle.pop_front();
        }
        idle.push_back((connection, now));
    }

    /// Closes connections that have been idle for too long, and the longest idle ones that the endpoint has closed. Stops
    /// at the first that is open, because an endpoint closes the longest idle ones first, and looking at each takes time.
    pub(crate) fn sweep(&self, settings: &PoolSettings, now: Moment) {
        let mut idle = self.lock();
        idle.retain(|(connection, since)| {
            now.since(*since) <= settings.idle_for && !connection.has_expired(*since, settings, now)
        });
        while idle
            .front()
            .is_some_and(|(connection, _)| connection.stream.is_closed())
        {
            idle.pop_front();
        }
    }

    pub(crate) fn idle(&self) -> usize {
        self.lock().len()
    }

    /// Number of connections held by an exchange.
    pub(crate) fn leased(&self) -> usize {
        self.leased.load(Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Connection, Moment)>> {
        self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Connection taken from a pool. It counts as in use until it is dropped.
pub(crate) struct PooledConnection {
    connection: Option<Connection>,
    pool: Arc<Pool>,
}

impl PooledConnection {
    pub(crate) fn new(connection: Connection, pool: Arc<Pool>) -> Self {
        pool.leased.fetch_add(1, Relaxed);
        Self {
            connection: Some(connection),
            pool,
        }
    }

    pub(crate) fn connection(&mut self) -> &mut Connection {
        self.connection
            .as_mut()
            .expect("a lease holds its connection until it is given back")
    }

    pub(crate) fn stream(&self) -> Option<&MessageStream> {
        self.connection.as_ref().map(|connection| &*connection.stream)
    }

    /// Takes the connection out after a switch to another protocol. It still counts as in use.
    pub(crate) fn take_switched(&mut self) -> Option<BackendStream> {
        self.connection
            .take()
            .map(|connection| connection.stream.into_switched())
    }

    /// Returns the connection to the pool after a complete exchange.
    pub(crate) fn give_back(mut self, settings: &PoolSettings, now: Moment) {
        if let Some(connection) = self.connection.take() {
            self.pool.put(connection, settings, now);
        }
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        self.pool.leased.fetch_sub(1, Relaxed);
    }
}

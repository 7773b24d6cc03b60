//! The connections of one worker to one endpoint: bounded, newest reused first, aged out.
//!
//! Each worker has its own pool, so its lock is taken by that worker alone (and for a look by the admin API).
//! A connection is owned by whoever uses it and comes back only after a whole exchange; dropped in the middle it is
//! closed at the socket, which is how a backend learns that its caller has gone.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use hyper::client::conn::http1::SendRequest;
use policies::Moment;
use tokio::task::AbortHandle;

use super::replay::Outbound;
use super::timer::Timer;
use crate::wire::framing::Awaited;

/// What bounds the pool of one backend; per worker and endpoint.
#[derive(Debug, Clone, Copy, Default)]
pub struct PoolSettings {
    /// Idle connections kept.
    pub idle_limit: usize,
    /// An idle connection older than this is not used again.
    pub idle_for: Duration,
    /// A connection is not used for a new request past this age.
    pub max_age: Duration,
    /// Exchanges at once on a connection that is shared.
    pub streams: u32,
    /// A shared connection that is used and silent for so long is asked whether its peer is there.
    pub ping: Duration,
}

/// An open connection to an endpoint, ready for one exchange at a time.
pub(crate) struct Connection {
    pub(crate) sender: SendRequest<Outbound>,
    /// To be told of every request before it is sent.
    pub(crate) awaited: Arc<Awaited>,
    driver: AbortHandle,
    born: Moment,
    /// Whether an exchange has gone over it before.
    pub(crate) used: bool,
    /// Whether it is closed after the exchange that it carries.
    is_last: bool,
    /// Set anew for each exchange, which is cheaper than making one.
    pub(crate) timer: Timer,
}

impl Connection {
    pub(crate) fn new(sender: SendRequest<Outbound>, awaited: Arc<Awaited>, driver: AbortHandle, now: Moment) -> Self {
        Self {
            sender,
            awaited,
            driver,
            born: now,
            used: false,
            is_last: false,
            timer: Timer::default(),
        }
    }

    /// Closes it after the exchange that it carries.
    pub(crate) fn end_with_exchange(&mut self) {
        self.is_last = true;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Idle connections of one worker to one endpoint.
pub(crate) struct Pool {
    idle: Mutex<VecDeque<(Connection, Moment)>>,
    leased: AtomicUsize,
}

impl Pool {
    pub(crate) fn new() -> Self {
        Self {
            idle: Mutex::new(VecDeque::new()),
            leased: AtomicUsize::new(0),
        }
    }

    /// The newest connection that is still good, if there is one.
    pub(crate) fn take(&self, settings: &PoolSettings, now: Moment) -> Option<Connection> {
        let mut idle = self.lock();
        while let Some((connection, since)) = idle.pop_back() {
            if now.since(since) > settings.idle_for {
                // Everything in front of it has been idle for longer still.
                idle.clear();
                return None;
            }
            if !connection.sender.is_closed() && now.since(connection.born) <= settings.max_age {
                return Some(connection);
            }
        }
        None
    }

    pub(crate) fn put(&self, mut connection: Connection, settings: &PoolSettings, now: Moment) {
        if connection.is_last || connection.sender.is_closed() || now.since(connection.born) > settings.max_age {
            return;
        }
        connection.used = true;
        let mut idle = self.lock();
        while idle.len() >= settings.idle_limit {
            idle.pop_front();
        }
        idle.push_back((connection, now));
    }

    /// Closes what has been idle for too long.
    pub(crate) fn sweep(&self, settings: &PoolSettings, now: Moment) {
        self.lock()
            .retain(|(connection, since)| !connection.sender.is_closed() && now.since(*since) <= settings.idle_for);
    }

    pub(crate) fn idle(&self) -> usize {
        self.lock().len()
    }

    /// Connections that an exchange holds.
    pub(crate) fn leased(&self) -> usize {
        self.leased.load(Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Connection, Moment)>> {
        self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A connection taken from a pool, with the way back.
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

    /// For the end of a whole exchange: the connection may serve another.
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

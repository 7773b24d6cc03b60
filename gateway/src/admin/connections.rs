//! Serves an admin router so that no connection can keep another from being answered.
//!
//! Each write, each request and each connection has a time limit. [`ConnectionTable`] and [`RequestSlots`] limit their
//! numbers.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use axum::Router;
use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use policies::Moment;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::connection_table::ConnectionTable;
use super::request_slots::RequestSlots;
use super::timed_io::TimedIo;
use crate::client::address;
use crate::clock;

/// Largest number of open connections of one admin address.
const MOST: usize = 512;
/// Time for a request's head to arrive, and for the next request on a kept-alive connection.
const HEAD: Duration = Duration::from_secs(75);
/// Longest time in which the other side reads nothing of what is written.
const WRITE: Duration = Duration::from_secs(10);
/// Longest life of a connection. An answer in progress at that time is still finished.
const LIFE: Duration = Duration::from_secs(600);
/// Time between two checks of a connection's limits.
const LOOK: Duration = Duration::from_secs(1);

/// The connections of one admin address.
struct Connections {
    table: Mutex<Open>,
    slots: Arc<RequestSlots>,
}

struct Open {
    table: ConnectionTable,
    by_number: HashMap<u64, Arc<Connection>>,
}

/// One connection, as its requests see it.
pub(super) struct Connection {
    number: u64,
    peer: IpAddr,
    opened: Moment,
    all: Weak<Connections>,
    slots: Arc<RequestSlots>,
    /// Number and deadline of each request in progress.
    ends: Mutex<Vec<(u64, Moment)>>,
    closed: Notify,
}

/// Marks a request as in progress until dropped.
#[must_use = "the answer counts as ended when this is dropped"]
pub(super) struct InAnswer {
    connection: Arc<Connection>,
    id: u64,
}

/// Accepts connections for ever.
pub(super) async fn serve(listener: TcpListener, router: Router) {
    let all = Arc::new(Connections {
        table: Mutex::new(Open {
            table: ConnectionTable::new(MOST),
            by_number: HashMap::new(),
        }),
        slots: Arc::default(),
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_header_size(16 * 1024);
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if let Some(connection) = all.admit(peer) {
                    tokio::spawn(run(http.clone(), stream, connection, router.clone()));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept an admin connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn run(http: http1::Builder, stream: TcpStream, connection: Arc<Connection>, router: Router) {
    let router = TowerToHyperService::new(router);
    let of_connection = Arc::clone(&connection);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Arc::clone(&of_connection));
        let answer = router.call(request);
        async move { Ok::<Response, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
    });
    let served = http.serve_connection(TokioIo::new(TimedIo::new(stream, WRITE)), service);
    {
        let mut served = pin!(served);
        tokio::select! {
            // The result of a closed connection is of no interest.
            _ = &mut served => {}
            () = connection.closed.notified() => {}
            () = connection.outlives_its_limits() => {}
        }
    }
    connection.forget();
}

impl Connections {
    fn admit(self: &Arc<Self>, peer: SocketAddr) -> Option<Arc<Connection>> {
        let (peer, now) = (address::key(peer.ip(), 64), clock::now());
        let mut open = self.open();
        let admitted = open.table.admit(peer, now)?;
        if let Some(closed) = admitted.closes.and_then(|number| open.by_number.remove(&number)) {
            closed.closed.notify_one();
        }
        let connection = Arc::new(Connection {
            number: admitted.number,
            peer,
            opened: now,
            all: Arc::downgrade(self),
            slots: Arc::clone(&self.slots),
            ends: Mutex::default(),
            closed: Notify::new(),
        });
        open.by_number.insert(admitted.number, Arc::clone(&connection));
        Some(connection)
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    pub(super) fn peer(&self) -> IpAddr {
        self.peer
    }

    pub(super) fn slots(&self) -> &Arc<RequestSlots> {
        &self.slots
    }

    /// Records the start of a request that may take as long as `limit`.
    pub(super) fn begin(self: &Arc<Self>, limit: Duration) -> InAnswer {
        if let Some(all) = self.all.upgrade() {
            // A connection that was closed meanwhile ends anyway.
            let _ = all.open().table.begin(self.number);
        }
        let mut ends = self.ends();
        let id = ends.last().map_or(0, |(id, _)| id + 1);
        ends.push((id, clock::now() + limit));
        InAnswer {
            connection: Arc::clone(self),
            id,
        }
    }

    /// Waits until a request exceeds its limit, or until the connection is too old and has no request in progress.
    async fn outlives_its_limits(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            let now = clock::now();
            let first = self.ends().iter().map(|(_, end)| *end).min();
            if now >= first.unwrap_or(self.opened + LIFE) {
                return;
            }
        }
    }

    fn forget(&self) {
        if let Some(all) = self.all.upgrade() {
            let mut open = all.open();
            open.table.remove(self.number);
            open.by_number.remove(&self.number);
        }
    }

    fn ends(&self) -> MutexGuard<'_, Vec<(u64, Moment)>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InAnswer {
    fn drop(&mut self) {
        let connection = &self.connection;
        connection.ends().retain(|(id, _)| *id != self.id);
        if let Some(all) = connection.all.upgrade() {
            all.open().table.end(connection.number, clock::now());
        }
    }
}

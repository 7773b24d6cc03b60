//! Accepts the connections of one worker, which runs on a thread and a runtime of its own, until the drain is over.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::Handle;

use super::connection_guard::ConnectionGuard;
use super::connection_state::ConnectionTimeouts;
use super::early_refusal::{self, EarlyRefusal};
use super::lifecycle::Phase;
use super::sockets::ListenerSocket;
use super::worker::Worker;
use super::{certificate_sweep, connection, delay_watch, proxied, tls};
use crate::client::proxy_protocol::Origin;
use crate::clock;
use crate::observe::{ConnectionRefusal, Family};
use crate::plan::Protocols;
use crate::wire::slow_caller::WaitLimits;

/// Time after the start of a drain in which a kept-alive connection may still send one request. Closing at once would
/// fail a request that is on its way. That request is answered, and its answer closes the connection.
const LINGER: Duration = Duration::from_secs(1);

/// Stack of a worker, in bytes. The nesting of input from callers is bounded (see [`crate::json`]) and takes a small
/// part of it.
const STACK: usize = 4 << 20;

/// Protocol and security of a connection.
enum Spoken {
    Plain(Protocols),
    Tls(tls::Terms),
}

/// Starts a worker's thread.
///
/// # Errors
/// Fails if the thread cannot be started.
pub(crate) fn spawn(worker: Worker, sockets: Vec<ListenerSocket>) -> io::Result<(Handle, JoinHandle<()>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let worker = Arc::new(worker);
    let thread = std::thread::Builder::new()
        .name(format!("worker-{}", worker.index))
        .stack_size(STACK)
        .spawn(move || runtime.block_on(run(worker, sockets)))?;
    Ok((handle, thread))
}

/// Accepts and serves until the drain is over.
async fn run(worker: Arc<Worker>, sockets: Vec<ListenerSocket>) {
    let sweeper = Arc::clone(&worker);
    tokio::spawn(async move {
        let mut lingers_until = None;
        let patience = || {
            let edge = &sweeper.live.load().edge;
            let idle = if sweeper.lifecycle.phase() < Phase::Draining {
                edge.idle
            } else {
                let now = clock::now();
                // A connection that has been idle for long when the drain begins gets this time too.
                let until = *lingers_until.get_or_insert(now + LINGER);
                if now < until { edge.idle } else { LINGER }
            };
            ConnectionTimeouts {
                first_byte: edge.first_byte.min(idle),
                head: edge.head,
                idle,
                leave: WaitLimits {
                    write: edge.write,
                    rates: edge.rates,
                },
            }
        };
        let count = |awaited| {
            let plan = sweeper.live.load();
            plan.observer.registry.process.add(Family::OverdueConnections, awaited);
        };
        sweeper.watch.sweep(patience, count).await;
    });
    tokio::spawn(certificate_sweep::sweep(Arc::clone(&worker)));
    tokio::spawn(delay_watch::watch(Arc::clone(&worker)));
    for ListenerSocket { listener, socket } in sockets {
        match tokio::net::TcpListener::from_std(socket) {
            Ok(socket) => drop(tokio::spawn(accept(Arc::clone(&worker), listener, socket))),
            Err(error) => tracing::error!(%error, "a socket cannot be used"),
        }
    }
    worker.lifecycle.reached(Phase::Draining).await;
    let drained = async {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        loop {
            tick.tick().await;
            // A request with an idempotency key goes on without its caller, on any worker.
            if worker.watch.is_empty() && worker.live.load().idempotency.under_way() == 0 {
                return;
            }
        }
    };
    tokio::select! {
        () = drained => {}
        () = worker.lifecycle.reached(Phase::Cut) => worker.live.load().observer.cuts(),
    }
}

/// Accepts until the drain begins, and then all that wait in the queue, because closing a socket resets them. If another
/// process accepts from the same socket, the queue is left to it.
async fn accept(worker: Arc<Worker>, listener: usize, socket: tokio::net::TcpListener) {
    loop {
        tokio::select! {
            biased;
            accepted = socket.accept() => match accepted {
                Ok((stream, address)) => admit(&worker, listener, stream, address),
                Err(error) => pause(&error).await,
            },
            () = worker.lifecycle.reached(Phase::Draining) => break,
        }
    }
    if worker.lifecycle.is_passed_on(listener) {
        return;
    }
    let Ok(socket) = socket.into_std() else { return };
    while let Ok((stream, address)) = socket.accept() {
        if let Ok(stream) = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)) {
            admit(&worker, listener, stream, address);
        }
    }
}

/// Starts the task of a connection, or refuses it. `listener` is an index into the listeners of the plan in force,
/// whose certificates are used.
fn admit(worker: &Arc<Worker>, listener: usize, stream: TcpStream, address: SocketAddr) {
    // A failure means that the caller has left already; serving it ends at its first read.
    let _ = stream.set_nodelay(true);
    let edge = &worker.live.load().edge;
    let place = listener;
    let listener = &edge.listeners[place];
    if worker.lifecycle.connections() >= edge.most_connections {
        worker.refuse(ConnectionRefusal::TooMany);
        if listener.tls.is_none() && !listener.proxy_protocol {
            turn_away(worker, &stream, address, EarlyRefusal::TooMany);
        }
        return;
    }
    let guard = ConnectionGuard::new(Arc::clone(worker));
    let id = guard.id();
    let spoken = match &listener.tls {
        None => Spoken::Plain(listener.protocols),
        Some(tls) => Spoken::Tls(tls::Terms {
            tls: tls.clone(),
            listener: place,
        }),
    };
    let task = if listener.proxy_protocol {
        tokio::spawn(serve_proxied(stream, address, spoken, guard))
    } else {
        let Some(guard) = guard.of(address) else {
            if let Spoken::Plain(_) = spoken {
                turn_away(worker, &stream, address, EarlyRefusal::TooManyFromAddress);
            }
            return;
        };
        match spoken {
            Spoken::Plain(protocols) => tokio::spawn(connection::serve_plain(stream, address, protocols, guard)),
            Spoken::Tls(terms) => tokio::spawn(tls::serve(stream, address, terms, guard)),
        }
    };
    worker.watch.attend(id, task.abort_handle());
}

/// Sends a refusal to a caller whose connection is not accepted.
fn turn_away(worker: &Worker, stream: &TcpStream, address: SocketAddr, why: EarlyRefusal) {
    // A caller that does not receive it in time still sees the connection end.
    let _ = stream.try_write(&early_refusal::answer(worker, address, &[], why, None));
}

/// Reads the client's address from the load balancer, and serves the connection.
async fn serve_proxied(mut stream: TcpStream, sender: SocketAddr, spoken: Spoken, mut guard: ConnectionGuard) {
    let address = match proxied::origin(&mut stream, sender, &guard).await {
        None => return,
        Some(Origin::Client(address)) => address,
        Some(Origin::Sender) => sender,
        Some(Origin::Unknown) => {
            guard.client_is_unknown();
            sender
        }
    };
    let worker = Arc::clone(guard.worker());
    let Some(guard) = guard.of(address) else {
        if let Spoken::Plain(_) = spoken {
            turn_away(&worker, &stream, address, EarlyRefusal::TooManyFromAddress);
        }
        return;
    };
    guard.activity().reset_to_new();
    match spoken {
        Spoken::Plain(protocols) => connection::serve_plain(stream, address, protocols, guard).await,
        Spoken::Tls(terms) => tls::serve(stream, address, terms, guard).await,
    }
}

/// Waits after a failed accept. Without descriptors or memory, accepting again at once would spin.
async fn pause(error: &io::Error) {
    tracing::warn!(%error, "cannot accept a connection");
    tokio::time::sleep(Duration::from_millis(50)).await;
}

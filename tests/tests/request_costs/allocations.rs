//! Counts allocations of the gateway, and tells the count to the test over a socket in the gateway's folder.

use std::alloc::System;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::thread;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tests::Gateway;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const SOCKET: &str = "allocations.socket";

/// Answers each connection with the count so far. Called in the gateway's process, whose folder is its own.
pub(crate) fn tell_on_request() {
    let listener = UnixListener::bind(SOCKET).expect("the folder takes a socket");
    thread::spawn(move || {
        for connection in listener.incoming() {
            let stats = ALLOCATOR.stats();
            let count = stats.allocations + stats.reallocations;
            // Fails only if the test is gone.
            let _ = connection.and_then(|mut connection| connection.write_all(&count.to_le_bytes()));
        }
    });
}

/// Returns the count so far. Asking costs the same few allocations each time.
pub(crate) async fn of(gateway: &Gateway) -> usize {
    let mut connection = UnixStream::connect(gateway.path(SOCKET)).await.expect("it answers");
    let mut count = [0; size_of::<usize>()];
    connection.read_exact(&mut count).await.expect("it tells the count");
    usize::from_le_bytes(count)
}

//! Measures the gateway from outside: open-loop load, and the runs that check a promise under load.
//!
//! Knows nothing of the gateway but its command line, its ready file and HTTP, so the same load can be put on any
//! peer. What a figure means is decided here, and stated beside it: latencies count from the intended moment of
//! sending, so a server that stalls cannot hide the requests it kept from being sent.

pub mod arrivals;
pub mod client;
pub mod generate;
pub mod report;
pub mod scenario;
pub mod target;

/// What a run may fail with: told to whoever started it, never handled.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

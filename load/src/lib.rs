//! Measures the gateway from outside: open load, and runs that check a promise under load.
//!
//! It knows only the gateway's command line, its ready file and HTTP, so the same load can be sent to any other server.
//! This crate defines what a figure means, and prints the definition beside it. Latencies count from the intended time
//! of sending, so a server that stalls cannot hide requests that could not be sent.

pub mod arrivals;
pub mod client;
pub mod generate;
pub mod instructions;
pub mod report;
pub mod scenario;
pub mod target;

/// Error of a run: shown to the user, never handled.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
pub type Result<T> = std::result::Result<T, Error>;

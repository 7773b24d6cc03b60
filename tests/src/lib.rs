//! Provides the harness of the end-to-end tests: the real binary, real sockets, a pretend fleet, and no gateway type.
//!
//! A test needs a [`Gateway`], started from a config as a user would write it, and a fleet that fails on request. A
//! failing test prints the config of the gateway, its log and its metrics.

mod answer;
mod binary;
mod client;
mod eventually;
mod gateway;
mod metrics;
mod raw;
mod recorder;
mod setup;

pub mod abrupt;
pub mod configs;
pub mod crowd;
pub mod frames;
pub mod http2;
pub mod http2_caller;
pub mod message;
pub mod tls;

pub use answer::Answer;
pub use client::{Ask, Client, Failure, Streaming, Upload};
pub use eventually::{eventually, within};
pub use gateway::{Gateway, Past, Signal};
pub use metrics::Page;
pub use raw::Raw;
pub use recorder::{Arrived, Recorder, Script};
pub use setup::{Cli, Setup, cli, cli_reading};

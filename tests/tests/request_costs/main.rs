//! Counts the allocations and system calls of one request, and fails if a count is above its number in the table.
//!
//! The binary plays three roles. Started by cargo, it starts itself as the test, with `GATEWAY_BIN` set to itself, so
//! that the harness starts it a third time as the gateway: with an allocator that counts. Counts do not depend on the
//! speed of the machine. They are those of a debug build, where a few more allocations remain than in a release.

#![allow(clippy::print_stdout)]

mod allocations;
mod exchanges;
mod system_calls;

use std::env;
use std::process::{Command, ExitCode};

use crate::exchanges::Exchange;

/// Enough that the regular work of a worker, a few times a second, does not count.
const REQUESTS: usize = 400;

/// Highest counts for one request of each kind. Lower them when the gateway gets cheaper; a higher number needs a
/// reason in the commit.
const TABLE: [(Exchange, Costs); 5] = [
    (
        Exchange::Plain,
        Costs {
            allocations: 11.2,
            system_calls: 6.0,
        },
    ),
    (
        Exchange::Token,
        Costs {
            allocations: 11.2,
            system_calls: 6.0,
        },
    ),
    (
        Exchange::Limited,
        Costs {
            allocations: 17.2,
            system_calls: 3.0,
        },
    ),
    (
        Exchange::Http2,
        Costs {
            allocations: 18.2,
            system_calls: 6.0,
        },
    ),
    (
        Exchange::Aggregate,
        Costs {
            allocations: 59.0,
            system_calls: 11.5,
        },
    ),
];

/// Part of a call that regular work may add.
const NOISE: f64 = 0.25;

/// Average counts for one request.
#[derive(Debug, Clone, Copy)]
struct Costs {
    /// Allocations and changes of an allocation's size, in all threads.
    allocations: f64,
    /// System calls of the worker.
    system_calls: f64,
}

fn main() -> ExitCode {
    let this = env::current_exe().expect("a process knows its own file");
    if env::var_os("GATEWAY_BIN").is_none_or(|named| named != this) {
        let ended = Command::new(&this).env("GATEWAY_BIN", &this).status();
        let successful = ended.expect("a process can start itself").success();
        return if successful {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    if env::args().nth(1).as_deref() == Some("run") {
        allocations::tell_on_request();
        return gateway::cli::main();
    }
    measured()
}

#[tokio::main(flavor = "current_thread")]
async fn measured() -> ExitCode {
    let mut too_many = 0;
    let can_trace = system_calls::can_be_counted();
    if !can_trace {
        println!("SKIPPED: no system calls are counted, because `strace` is missing or may not trace");
        assert!(env::var_os("REQUIRE_STRACE").is_none(), "REQUIRE_STRACE is set");
    }
    println!(
        "{:<10} {:>22} {:>22}",
        "", "allocations (at most)", "system calls (at most)"
    );
    for (exchange, most) in TABLE {
        let mut running = exchange.start().await;
        running.send(REQUESTS).await;
        let before = allocations::of(&running.gateway).await;
        running.send(REQUESTS).await;
        let allocations = (allocations::of(&running.gateway).await - before) as f64 / REQUESTS as f64;
        let system_calls = if can_trace {
            let trace = system_calls::Trace::begin(&running.gateway);
            running.send(REQUESTS).await;
            trace.end() as f64 / REQUESTS as f64
        } else {
            0.0
        };
        let found = Costs {
            allocations,
            system_calls,
        };
        println!(
            "{:<10} {:>12.2} {:>9.2} {:>12.2} {:>9.2}",
            exchange.name(),
            found.allocations,
            most.allocations,
            found.system_calls,
            most.system_calls
        );
        let above = |found: f64, most: f64| usize::from(found > most + NOISE);
        too_many += above(found.allocations, most.allocations) + above(found.system_calls, most.system_calls);
    }
    match too_many {
        0 => ExitCode::SUCCESS,
        _ => {
            println!("{too_many} of the counts are above the table in tests/tests/request_costs/main.rs");
            ExitCode::FAILURE
        }
    }
}

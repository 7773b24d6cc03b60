//! The gateway's binary; everything is in the library.

use std::process::ExitCode;

/// Allocator that returns freed pages to the system after half a second (`.cargo/config.toml` sets the times). The
/// system's own allocator keeps holes: with it an idle connection takes 7 to 22 KB instead of 3, and most memory of a
/// flood of requests is never returned.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    gateway::cli::main()
}

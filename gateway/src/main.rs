//! The gateway's binary; everything is in the library.

use std::process::ExitCode;

/// Returns freed pages to the system after half a second (`.cargo/config.toml` sets the times), where the system's own
/// allocator keeps holes: 7 to 22 KB an idle connection instead of 3, and most of a flood's memory for good.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    gateway::cli::main()
}

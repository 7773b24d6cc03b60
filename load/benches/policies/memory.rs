//! Measures the memory for a million tenants without tokens, whose accounts therefore must not be forgotten.
//!
//! Each holder is measured in its own process, because an allocator keeps freed memory, and the second holder would
//! seem to need less. Linux only: reads resident pages from `/proc/self/statm`.

use std::env;
use std::fs;
use std::hint::black_box;
use std::io::{self, Write};
use std::process::Command;
use std::time::Duration;

use gateway::clock::Now;
use gateway::limits::kinds::Terms;
use gateway::limits::owner::Owner;
use gateway::limits::store::Origin;
use governor::RateLimiter;

use crate::buckets::{KEYS, governor_scarce, scarce, table, tenants};

const OURS: &str = "ours: the gateway's table of buckets";
const GOVERNOR: &str = "governor: its dashmap, u128 keys";

pub(crate) const HOLDERS: [&str; 2] = [OURS, GOVERNOR];

/// Returns the bytes for each tenant, as measured in another process.
pub(crate) fn bytes_each(holder: &str) -> io::Result<f64> {
    let weighed = Command::new(env::current_exe()?).args(["--memory", holder]).output()?;
    String::from_utf8_lossy(&weighed.stdout)
        .trim()
        .parse()
        .map_err(io::Error::other)
}

/// Prints the bytes for each tenant.
pub(crate) fn weigh(holder: &str) -> io::Result<()> {
    let bytes = if holder == GOVERNOR { governors()? } else { ours()? };
    writeln!(io::stdout(), "{}", bytes as f64 / KEYS as f64)
}

fn ours() -> io::Result<u64> {
    let (tenants, quota) = (tenants(), scarce());
    let before = resident()?;
    let table = table(quota);
    for tenant in &tenants {
        let account = table.account(Owner::Tenant(tenant), Terms::Bucket(quota), Origin::Request);
        let _ = account.take(Now::read(), 1, Duration::ZERO);
    }
    let after = resident()?;
    black_box(table);
    Ok(after - before)
}

fn governors() -> io::Result<u64> {
    let before = resident()?;
    let limiter = RateLimiter::dashmap(governor_scarce());
    for key in 0..KEYS as u128 {
        let _ = limiter.check_key(&key);
    }
    let after = resident()?;
    black_box(limiter);
    Ok(after - before)
}

/// Returns the resident memory of this process in bytes.
fn resident() -> io::Result<u64> {
    // Page size of every machine this runs on.
    const PAGE: u64 = 4096;
    let statm = fs::read_to_string("/proc/self/statm")?;
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    Ok(pages.ok_or_else(|| io::Error::other("statm has no second number"))? * PAGE)
}

//! Measures the cost of one decision of a policy, with `governor` in the same run for comparison.
//!
//! Every subject runs once in each round, in an order that rotates, so that other load on the machine affects all of
//! them alike. The table shows medians. No framework is used: the figures are a few nanoseconds, so the loop that
//! measures them should be readable. Prints Markdown.
//!
//! `cargo bench -p load` (`-- --rounds N` sets the number of rounds).

mod buckets;
mod guards;
mod memory;
mod moments;
mod rounds;

use std::env;
use std::io::{self, Write};

use rounds::{Row, Subject};

const ROUNDS: usize = 15;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = env::args().collect();
    let after = |flag: &str| {
        arguments
            .iter()
            .position(|argument| argument == flag)
            .and_then(|at| arguments.get(at + 1))
    };
    if let Some(holder) = after("--memory") {
        return memory::weigh(holder);
    }
    let rounds = after("--rounds")
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(ROUNDS);
    let subjects: Vec<Subject> = buckets::subjects().into_iter().chain(guards::subjects()).collect();
    let rows = rounds::run(&subjects, rounds);
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "ns per decision, medians of {rounds} interleaved rounds (fastest in brackets); on two threads, the time each of"
    )?;
    writeln!(out, "them spends on one of its own decisions.\n")?;
    writeln!(out, "| decision | one thread | two threads |\n|---|--:|--:|")?;
    for Row { name, one, two } in rows {
        writeln!(out, "| {name} | {one} | {two} |")?;
    }
    writeln!(out, "\n| held for a million drained tenants | bytes each |\n|---|--:|")?;
    for holder in memory::HOLDERS {
        writeln!(out, "| {holder} | {:.0} |", memory::bytes_each(holder)?)?;
    }
    Ok(())
}

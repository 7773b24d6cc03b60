//! `make replay`: the adapter through which `run_vectors.py` judges the gateway on any folder of vectors.
//!
//! Reads one question a line and writes one answer a line. It is an example target, so nothing of it is in the
//! gateway's binary.

#![allow(clippy::disallowed_methods)]

use std::io::{self, BufRead, Write};
use std::panic::catch_unwind;

use serde_json::{Value, json};

mod suites;

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let question: Value = serde_json::from_str(&line?)?;
        // A panic is a wrong answer to one question, and must not leave the others unasked.
        let answer = catch_unwind(|| reply(&question)).unwrap_or_else(|_| json!({ "panicked": true }));
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

fn reply(question: &Value) -> Value {
    suites::answer(question["suite"].as_str().unwrap_or_default(), &question["case"])
}

//! Puts a case of the published vectors to the gateway's own code, and answers in the vectors' words.
//!
//! One module a suite, each a translation: what a case's policy is in our settings, what its steps are in our calls.
//! A translation knows no case by name and no expectation, so it holds for folders that nobody here has seen. What a
//! case asks for and we do not have is said to be unsupported, with the reason, and never guessed.

use std::time::Duration;

use policies::Moment;
use serde_json::{Value, json};

mod aggregate;
mod breaker;
mod bucket;
mod headers;
mod jws;
pub(crate) mod jwt;
mod retry;

/// The vectors' answer, or what it takes that we do not have.
type Answer = Result<Value, &'static str>;

/// Answers one line of the adapter protocol (README of the vectors): `{"suite": ..., "case": {...}}`.
pub(crate) fn answer(suite: &str, case: &Value) -> Value {
    let answer = match suite {
        "aggregate" => aggregate::answer(case),
        "breaker" => breaker::answer(case),
        "bucket" => bucket::answer(case),
        "headers" => headers::answer(case),
        "jws" => jws::answer(case),
        "jwt" => jwt::answer(case),
        "retry" => retry::answer(case),
        _ => Err("no such suite"),
    };
    answer.unwrap_or_else(|why| json!({ "unsupported": true, "why": why }))
}

fn list<'a>(case: &'a Value, name: &str) -> Result<&'a [Value], &'static str> {
    case[name].as_array().map(Vec::as_slice).ok_or("a list is missing")
}

fn text<'a>(case: &'a Value, name: &str) -> Result<&'a str, &'static str> {
    case[name].as_str().ok_or("a text is missing")
}

fn number(case: &Value, name: &str) -> Result<f64, &'static str> {
    case[name].as_f64().ok_or("a number is missing")
}

fn whole(case: &Value, name: &str) -> Result<u64, &'static str> {
    case[name].as_u64().ok_or("a whole number is missing")
}

/// Of a number of milliseconds, perhaps with a fraction.
fn millis(case: &Value, name: &str) -> Result<Duration, &'static str> {
    match case[name].as_u64() {
        Some(millis) => Ok(Duration::from_millis(millis)),
        None => Duration::try_from_secs_f64(number(case, name)? / 1e3).map_err(|_| "a time is out of range"),
    }
}

fn optional(case: &Value, name: &str) -> Result<Option<Duration>, &'static str> {
    (!case[name].is_null()).then(|| millis(case, name)).transpose()
}

fn in_millis(duration: Duration) -> Value {
    (duration.as_nanos() as f64 / 1e6).into()
}

/// When a step happens, on the vectors' clock that starts at 0.
fn moment_of(step: &Value) -> Result<Moment, &'static str> {
    Ok(Moment::ZERO + millis(step, "t_ms")?)
}

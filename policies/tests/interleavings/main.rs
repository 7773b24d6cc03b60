//! Runs the policies under every interleaving that a weak memory model allows, not only those that this machine happens
//! to produce: loom runs each model again and again until no interleaving is left.
//!
//! A model is small, because the number of interleavings explodes: two or three threads, one or two steps each, and at
//! most three preemptions (most known bugs need fewer). `make prove` runs the models; without it this file is empty.

#![cfg(loom)]

mod balance;
mod breaker;
mod bucket;
mod bulkhead;
mod calendar;
mod ejection;
mod in_flight;
mod lease;
mod retry_budget;
mod time_share;

use loom::thread;
use policies::Moment;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

fn at(milliseconds: u64) -> Moment {
    Moment::ZERO + Duration::from_millis(milliseconds)
}

/// Runs `model` under each of its interleavings, and counts them.
fn explore(name: &str, model: impl Fn() + Send + Sync + 'static) {
    let mut explorer = loom::model::Builder::new();
    explorer.preemption_bound = Some(3);
    explorer.max_branches = 10_000;
    let explored = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&explored);
    explorer.check(move || {
        count.fetch_add(1, Relaxed);
        model();
    });
    cases::report("interleavings", name, explored.load(Relaxed));
}

/// Step of one thread.
type Step<S, R> = fn(&S) -> R;

/// Runs the steps at once, each on its own thread; returns their results in the order of the steps.
fn race<S, R>(subject: &Arc<S>, steps: &[Step<S, R>]) -> Vec<R>
where
    S: Send + Sync + 'static,
    R: Send + 'static,
{
    let (here, elsewhere) = steps.split_last().expect("a race has steps");
    let threads: Vec<_> = elsewhere
        .iter()
        .map(|&step| {
            let subject = Arc::clone(subject);
            thread::spawn(move || step(&subject))
        })
        .collect();
    let last = here(subject);
    let mut results: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    results.push(last);
    results
}

/// Checks that concurrent steps have the effect of the same steps in some order: the same results, and the same state
/// as returned by `look`.
fn explore_orders<S, R>(name: &str, new: fn() -> S, steps: &'static [Step<S, R>], look: Step<S, R>)
where
    S: Send + Sync + 'static,
    R: Debug + PartialEq + Send + 'static,
{
    explore(name, move || {
        let in_order = orders(steps.len()).into_iter().map(|order| {
            let subject = Arc::new(new());
            let mut results: Vec<_> = order.iter().map(|&step| (step, steps[step](&subject))).collect();
            results.sort_by_key(|(step, _)| *step);
            let results: Vec<R> = results.into_iter().map(|(_, result)| result).collect();
            (results, look(&subject))
        });
        let in_order: Vec<_> = in_order.collect();
        let subject = Arc::new(new());
        let raced = (race(&subject, steps), look(&subject));
        assert!(
            in_order.contains(&raced),
            "{raced:?} is what no order gives: {in_order:?}"
        );
    });
}

/// Returns the permutations of `0..count`.
fn orders(count: usize) -> Vec<Vec<usize>> {
    let Some(last) = count.checked_sub(1) else {
        return vec![vec![]];
    };
    let with_last_at = |order: &Vec<usize>, index| {
        let mut order = order.clone();
        order.insert(index, last);
        order
    };
    orders(last)
        .iter()
        .flat_map(|order| (0..count).map(|index| with_last_at(order, index)).collect::<Vec<_>>())
        .collect()
}

//! Times subjects in turn, on one thread and on two.

use std::fmt;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

/// Function that makes the given number of decisions; its second argument is the number of the thread, from 0.
pub(crate) type Work = Arc<dyn Fn(u64, usize) + Send + Sync>;

pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) work: Work,
}

impl Subject {
    pub(crate) fn new(name: &'static str, work: impl Fn(u64, usize) + Send + Sync + 'static) -> Self {
        Self {
            name,
            work: Arc::new(work),
        }
    }
}

pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) one: Figure,
    pub(crate) two: Figure,
}

/// Nanoseconds for each decision.
pub(crate) struct Figure {
    median: f64,
    fastest: f64,
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} ({:.1})", self.median, self.fastest)
    }
}

/// Target length of one timing: many times the cost of starting a thread, and short enough for many rounds.
const TIMING: Duration = Duration::from_millis(20);

pub(crate) fn run(subjects: &[Subject], rounds: usize) -> Vec<Row> {
    let decisions: Vec<u64> = subjects.iter().map(|subject| enough(&subject.work)).collect();
    let mut figures = vec![[const { Vec::new() }; 2]; subjects.len()];
    for round in 0..rounds {
        for turn in 0..subjects.len() {
            let which = (round + turn) % subjects.len();
            for (threads, figures) in (1..).zip(&mut figures[which]) {
                figures.push(time(&subjects[which].work, decisions[which], threads));
            }
        }
    }
    let row = |(subject, [one, two]): (&Subject, [Vec<f64>; 2])| Row {
        name: subject.name,
        one: Figure::of(one),
        two: Figure::of(two),
    };
    subjects.iter().zip(figures).map(row).collect()
}

impl Figure {
    fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        Self {
            median: samples[samples.len() / 2],
            fastest: samples[0],
        }
    }
}

/// Returns the number of decisions that take about [`TIMING`].
fn enough(work: &Work) -> u64 {
    let mut decisions = 1_000;
    loop {
        let nanos = time(work, decisions, 1) * decisions as f64;
        if nanos > TIMING.as_nanos() as f64 / 4.0 {
            return (decisions as f64 * TIMING.as_nanos() as f64 / nanos) as u64;
        }
        decisions *= 4;
    }
}

/// Returns the nanoseconds for each decision on the slowest thread.
fn time(work: &Work, decisions: u64, threads: usize) -> f64 {
    let start = Arc::new(Barrier::new(threads));
    let running: Vec<_> = (0..threads)
        .map(|thread| {
            let (work, start) = (Arc::clone(work), Arc::clone(&start));
            thread::spawn(move || {
                start.wait();
                let began = Instant::now();
                work(decisions, thread);
                began.elapsed()
            })
        })
        .collect();
    let slowest = running
        .into_iter()
        .map(|thread| thread.join().expect("a timed thread does not panic"))
        .max();
    slowest.unwrap_or_default().as_nanos() as f64 / decisions as f64
}

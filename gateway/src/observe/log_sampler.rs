//! Limits the operational log to a few lines per second of each kind.
//!
//! A peer can cause some of the lines that libraries log: a frame of 17 bytes makes a line of 100 bytes, as often as
//! the peer likes. That can fill the disk or hide important lines. The gateway's own lines have one allowance per place
//! in the code. All lines of a library share one allowance, because a peer can choose among them. Dropped lines are
//! counted, and the log reports their number once a second. Debug lines are never dropped, because an operator has
//! asked for them.
//!
//! Invariant: there are at most as many allowances as places in the code that log, so memory is bounded by the program.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use policies::{Bucket, Moment, Quota};
use tracing::callsite::Identifier;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter};

use crate::clock;

/// Lines per second of one kind.
const RATE: u64 = 5;
/// Maximum burst of one kind after a silence, in lines.
const BURST: u64 = 20;

static OF_PROCESS: LazyLock<LogSampler> = LazyLock::new(LogSampler::default);

/// Decides which lines are written.
#[derive(Default)]
pub struct LogSampler {
    kinds: Mutex<HashMap<Kind, Allowance>>,
    left_out: AtomicU64,
}

/// The key of an allowance.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Kind {
    /// A place in the gateway's own code.
    Place(Identifier),
    /// All lines of one library.
    Library(&'static str),
}

struct Allowance {
    lines: Bucket,
    name: &'static str,
    /// Number of lines dropped since the last report.
    left_out: u64,
}

/// The lines that were dropped since the last report.
#[derive(Debug, PartialEq, Eq)]
pub struct DroppedLines {
    pub lines: u64,
    /// The kind with the most dropped lines: a module of the gateway or a library.
    pub most_of: &'static str,
}

/// Target of lines that are never left out: who has changed what. Only operators can cause them.
pub const AUDIT: &str = "audit";

impl LogSampler {
    pub fn of_process() -> &'static Self {
        &OF_PROCESS
    }

    /// Returns the number of lines dropped since the start.
    pub fn left_out(&self) -> u64 {
        self.left_out.load(Relaxed)
    }

    /// Returns the lines dropped since the last call; `None` if there are none.
    pub fn report(&self) -> Option<DroppedLines> {
        let mut kinds = self.lock();
        let most = kinds.values().max_by_key(|kind| kind.left_out)?;
        let most_of = most.name;
        let lines = kinds.values_mut().map(|kind| std::mem::take(&mut kind.left_out)).sum();
        (lines > 0).then_some(DroppedLines { lines, most_of })
    }

    fn admits(&self, line: &'static Metadata<'static>, now: Moment) -> bool {
        if *line.level() > Level::INFO || line.target() == AUDIT {
            return true;
        }
        let kind = Kind::of(line);
        let mut kinds = self.lock();
        let allowance = match kinds.entry(kind) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let name = new.key().name(line);
                new.insert(Allowance {
                    lines: Bucket::full(),
                    name,
                    left_out: 0,
                })
            }
        };
        let quota = Quota::new(RATE, Duration::from_secs(1), BURST).expect("both numbers are above 0");
        let admitted = allowance.lines.take(&quota, now, 1).is_ok();
        if !admitted {
            allowance.left_out += 1;
            self.left_out.fetch_add(1, Relaxed);
        }
        admitted
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Kind, Allowance>> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kind {
    fn of(line: &'static Metadata<'static>) -> Self {
        const OWN: &str = env!("CARGO_CRATE_NAME");
        let target = line.target();
        match target.split_once("::").map_or(target, |(root, _)| root) {
            OWN => Self::Place(line.callsite()),
            library => Self::Library(library),
        }
    }

    fn name(&self, line: &'static Metadata<'static>) -> &'static str {
        match self {
            Self::Place(_) => line.target(),
            Self::Library(name) => name,
        }
    }
}

/// Filters the log through the sampler of the process.
impl<S: Subscriber> Filter<S> for &'static LogSampler {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        self.admits(event.metadata(), clock::now())
    }
}

#[cfg(test)]
mod tests {
    use tracing::callsite::Callsite as _;

    use super::*;

    /// Builds the metadata of a line of this level from this module.
    macro_rules! line {
        ($target:expr, $level:expr) => {{
            static __CALLSITE: tracing::callsite::DefaultCallsite = tracing::callsite2! {
                name: "line", kind: tracing::metadata::Kind::EVENT, target: $target, level: $level, fields: message
            };
            __CALLSITE.metadata()
        }};
    }

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    fn admitted(sampler: &LogSampler, line: &'static Metadata<'static>, now: Moment) -> usize {
        (0..1000).filter(|_| sampler.admits(line, now)).count()
    }

    #[test]
    fn a_line_is_written_a_few_times_a_second_and_what_is_left_out_is_told_once() {
        let sampler = LogSampler::default();
        let own = line!("gateway::call", Level::WARN);
        assert_eq!(sampler.report(), None);
        assert_eq!(admitted(&sampler, own, at(0)), 20);
        assert_eq!(admitted(&sampler, own, at(1000)), 5);
        assert_eq!(admitted(&sampler, own, at(61_000)), 20);
        let told = DroppedLines {
            lines: 2955,
            most_of: "gateway::call",
        };
        assert_eq!((sampler.report(), sampler.report()), (Some(told), None));
        assert_eq!(sampler.left_out(), 2955);
        // A clock that goes backwards does not refill the allowance.
        assert_eq!(admitted(&sampler, own, at(500)), 0);
    }

    #[test]
    fn places_of_ours_are_told_apart_and_those_of_a_library_are_not() {
        let sampler = LogSampler::default();
        let ours = [line!("gateway::call", Level::WARN), line!("gateway::call", Level::INFO)];
        let theirs = [
            line!("h2::proto::ping_pong", Level::WARN),
            line!("h2", Level::ERROR),
            line!("h2::codec", Level::INFO),
        ];
        assert_eq!(ours.map(|line| admitted(&sampler, line, at(0))), [20, 20]);
        assert_eq!(theirs.map(|line| admitted(&sampler, line, at(0))), [20, 0, 0]);
        assert_eq!(admitted(&sampler, line!("hyper::proto", Level::WARN), at(0)), 20);
        assert_eq!(sampler.report().map(|told| told.most_of), Some("h2"));
    }

    #[test]
    fn who_asks_for_all_lines_gets_them() {
        let sampler = LogSampler::default();
        assert_eq!(admitted(&sampler, line!("h2::codec", Level::DEBUG), at(0)), 1000);
        assert_eq!(admitted(&sampler, line!("gateway::call", Level::TRACE), at(0)), 1000);
        assert_eq!(sampler.left_out(), 0);
    }
}

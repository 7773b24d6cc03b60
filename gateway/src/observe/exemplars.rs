//! Keeps one traced request for each bucket of a histogram, so that a point of a chart leads to a trace.
//!
//! The writer is the end of a request whose trace is exported, on whatever worker; other requests never come here. The
//! reader is a scrape.
//!
//! Invariant: what is read was written together. A place that is being written is not written by another, and not read.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Duration;

use super::histogram::{BUCKETS, bucket};
use crate::headers::TraceId;

/// Exemplars of one histogram. Room is made when the first request of the series is traced.
#[derive(Debug, Default)]
pub struct Exemplars(OnceLock<Box<[Place; BUCKETS]>>);

/// A traced request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exemplar {
    pub trace: TraceId,
    /// Observed value.
    pub took: Duration,
    /// End of the request, as time since 1970-01-01T00:00:00Z.
    pub at: Duration,
}

/// Newest exemplar of a bucket.
#[derive(Debug, Default)]
struct Place {
    /// Number of writes begun and ended: odd while one is under way, zero before the first.
    version: AtomicU64,
    /// Halves of the trace id.
    trace: [AtomicU64; 2],
    took_nanos: AtomicU64,
    at_millis: AtomicU64,
}

impl Exemplars {
    /// Puts the exemplar in place of an older one of its bucket. Does nothing while another worker writes there.
    pub(super) fn put(&self, exemplar: &Exemplar) {
        let places = self.0.get_or_init(Box::default);
        places[bucket(exemplar.took)].write(exemplar);
    }

    /// Returns the exemplar of each bucket.
    pub(super) fn read(&self) -> [Option<Exemplar>; BUCKETS] {
        let places = self.0.get();
        std::array::from_fn(|bucket| places?[bucket].read())
    }
}

impl Place {
    fn write(&self, exemplar: &Exemplar) {
        let version = self.version.load(Ordering::Relaxed);
        let is_free = version.is_multiple_of(2);
        let begun = |version: u64| {
            let next = version.wrapping_add(1);
            let swapped = self
                .version
                .compare_exchange(version, next, Ordering::Relaxed, Ordering::Relaxed);
            swapped.is_ok()
        };
        if !is_free || !begun(version) {
            return;
        }
        // A reader that sees one of the stores below also sees that the version is odd.
        fence(Ordering::Release);
        let number = exemplar.trace.number();
        self.trace[0].store((number >> 64) as u64, Ordering::Relaxed);
        self.trace[1].store(number as u64, Ordering::Relaxed);
        self.took_nanos.store(
            u64::try_from(exemplar.took.as_nanos()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
        self.at_millis.store(
            u64::try_from(exemplar.at.as_millis()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }

    /// Returns what was written last; `None` if nothing was, or while it is being replaced.
    fn read(&self) -> Option<Exemplar> {
        let version = self.version.load(Ordering::Acquire);
        if version == 0 || !version.is_multiple_of(2) {
            return None;
        }
        let [high, low] = [0, 1].map(|half: usize| u128::from(self.trace[half].load(Ordering::Relaxed)));
        let took = Duration::from_nanos(self.took_nanos.load(Ordering::Relaxed));
        let at = Duration::from_millis(self.at_millis.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let is_whole = self.version.load(Ordering::Relaxed) == version;
        is_whole.then(|| Exemplar {
            trace: TraceId::of(high << 64 | low),
            took,
            at,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;

    fn exemplar(number: u64) -> Exemplar {
        Exemplar {
            trace: TraceId::of(u128::from(number) << 64 | u128::from(number)),
            took: Duration::from_nanos(number),
            at: Duration::from_millis(number),
        }
    }

    #[test]
    fn each_bucket_keeps_its_newest() {
        let exemplars = Exemplars::default();
        assert_eq!(exemplars.read(), [None; BUCKETS]);
        let [first, second, slow] = [exemplar(7), exemplar(8), exemplar(40_000_000_000)];
        for exemplar in [&first, &slow, &second] {
            exemplars.put(exemplar);
        }
        let read = exemplars.read();
        assert_eq!((read[0], read[BUCKETS - 1]), (Some(second), Some(slow)));
        assert_eq!(read.iter().flatten().count(), 2);
    }

    #[test]
    fn what_is_read_was_written_together() {
        let (exemplars, over) = (Exemplars::default(), AtomicBool::new(false));
        exemplars.put(&exemplar(1));
        thread::scope(|scope| {
            for writer in 1..3 {
                let (exemplars, over) = (&exemplars, &over);
                scope.spawn(move || {
                    let mut number = writer;
                    while !over.load(Ordering::Relaxed) {
                        exemplars.put(&exemplar(number));
                        number = number % 1_000 + 2;
                    }
                });
            }
            let mut seen = 0;
            while seen < 20_000 {
                let Some(read) = exemplars.read()[0] else { continue };
                let number = read.took.as_nanos() as u64;
                assert_eq!(read, exemplar(number));
                seen += 1;
            }
            over.store(true, Ordering::Relaxed);
        });
    }
}

//! Generates times without reading a clock; the time continues from one timing to the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use policies::Moment;

/// Nanoseconds between two decisions.
const STEP: u64 = 10;

#[derive(Clone)]
pub(crate) struct Moments(Arc<AtomicU64>);

impl Moments {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicU64::new(1_000_000_000)))
    }

    /// Returns the moments of this many decisions. Changes the shared time only once, so that this is not what is
    /// measured.
    pub(crate) fn next(&self, decisions: u64) -> impl Iterator<Item = Moment> + use<> {
        let from = self.0.fetch_add(decisions * STEP, Relaxed);
        (0..decisions).map(move |passed| Moment::from_nanos(from + passed * STEP))
    }
}

//! A time that passes without a clock being read, and goes on from one timing to the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use policies::Moment;

/// Between two decisions.
const STEP: u64 = 10;

#[derive(Clone)]
pub(crate) struct Moments(Arc<AtomicU64>);

impl Moments {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicU64::new(1_000_000_000)))
    }

    /// The moments of so many decisions. Shared between threads it is touched once, so as not to be what is measured.
    pub(crate) fn next(&self, decisions: u64) -> impl Iterator<Item = Moment> + use<> {
        let from = self.0.fetch_add(decisions * STEP, Relaxed);
        (0..decisions).map(move |passed| Moment::from_nanos(from + passed * STEP))
    }
}

//! Measures how late a worker runs what is ready: a timer that should fire now and is served later has waited as long as
//! any other task.

use std::sync::Arc;
use std::time::Duration;

use policies::overload::{OverloadGuard, OverloadSettings};

use super::worker::Worker;
use crate::clock;

/// Ticks in a period.
const TICKS: u32 = 5;
/// Time between two looks at the plan while the guard is off.
const LOOK: Duration = Duration::from_millis(200);
/// Periods without a refusal after which an overload is over.
const QUIET: u32 = 10;

/// Drives the guard of one worker, for ever.
pub(super) async fn watch(worker: Arc<Worker>) {
    let load = &worker.load;
    let mut guard: Option<OverloadGuard> = None;
    let mut settings = worker.live.load().edge.overload;
    let mut episode = Episode::default();
    loop {
        let due = clock::now() + settings.map_or(LOOK, tick);
        clock::wait_until(due).await;
        let now = clock::now();
        let Some(current) = settings else {
            if guard.take().is_some() {
                load.admission.open();
                load.show(Default::default());
                episode = Episode::default();
            }
            settings = worker.live.load().edge.overload;
            continue;
        };
        let guard = guard.get_or_insert_with(|| OverloadGuard::new(current, now));
        if let Some(period) = guard.tick(now.since(due), now, &load.admission) {
            load.show(period);
            episode.note(worker.index, period.delay, load.admission.refused_ranks());
            settings = worker.live.load().edge.overload;
            if let Some(other) = settings.filter(|other| *other != current) {
                guard.reconfigure(other);
            }
        }
    }
}

fn tick(settings: OverloadSettings) -> Duration {
    settings.period / TICKS
}

/// Time in which newcomers are refused, with short gaps. Its beginning and end are logged, and each further tier.
#[derive(Default)]
struct Episode {
    /// Most tiers that have been refused so far, the last one perhaps in part; 0 outside of an episode.
    tiers: u32,
    /// Periods since the last refusal.
    quiet: u32,
}

impl Episode {
    fn note(&mut self, worker: usize, delay: Duration, ranks: f64) {
        let tiers = ranks.ceil() as u32;
        if tiers > self.tiers {
            self.tiers = tiers;
            tracing::warn!(
                worker,
                ?delay,
                tiers,
                "overloaded: newcomers of the cheapest tiers are refused"
            );
        }
        self.quiet = if tiers > 0 { 0 } else { self.quiet.saturating_add(1) };
        if self.tiers > 0 && self.quiet >= QUIET {
            *self = Self::default();
            tracing::warn!(worker, ?delay, "no longer overloaded");
        }
    }
}

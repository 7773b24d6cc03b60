//! Ends the connections whose certificates nobody vouches for any more, after a reload that took an authority out.
//!
//! A request on such a connection is refused in any case; this is for those that bring none, and for streams and tunnels
//! that go on without one. What is under way may finish.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::worker::Worker;
use crate::clock;

/// Between two looks for a new plan.
const LOOK: Duration = Duration::from_millis(200);

/// Looks at the connections of one worker, for ever.
pub(super) async fn sweep(worker: Arc<Worker>) {
    let mut looked_in = worker.live.load().generation;
    // Those that had something under way when they were asked to end.
    let mut ending: HashSet<u64> = HashSet::new();
    let mut round = tokio::time::interval(LOOK);
    round.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        round.tick().await;
        ending.retain(|id| worker.watch.withdraw(*id));
        let plan = worker.live.load();
        if plan.generation == looked_in {
            continue;
        }
        looked_in = plan.generation;
        let before = ending.len();
        for (id, certificate) in worker.watch.certified() {
            let authorities = plan.edge.client_authorities(certificate.listener());
            let _ = certificate.check(plan.generation, authorities, clock::unix_seconds());
            if certificate.is_withdrawn() {
                ending.insert(id);
            }
            // A signature may have been checked: others have a turn in between.
            tokio::task::yield_now().await;
        }
        let ended = ending.len() - before;
        ending.retain(|id| worker.watch.withdraw(*id));
        if ended > 0 {
            tracing::info!(
                connections = ended,
                worker = worker.index,
                "connections end: no authority of the new config vouches for their certificates"
            );
        }
    }
}

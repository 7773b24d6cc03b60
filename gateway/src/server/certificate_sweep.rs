//! Ends connections whose certificates are no longer accepted after a reload has removed an authority.
//!
//! A request on such a connection is rejected in any case. This sweep is for idle connections, and for streams and
//! tunnels that last. Requests under way may finish.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::worker::Worker;
use crate::clock;

/// Time between two checks for a new plan.
const LOOK: Duration = Duration::from_millis(200);

/// Checks the connections of one worker, for ever.
pub(super) async fn sweep(worker: Arc<Worker>) {
    let mut looked_in = worker.live.load().generation;
    // Ids of connections that were asked to end and still exist.
    let mut ending: HashSet<u64> = HashSet::new();
    let mut round = tokio::time::interval(LOOK);
    round.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        round.tick().await;
        ending.retain(|id| worker.watch.end_when_idle(*id));
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
            // A check may verify a signature, so other tasks run in between.
            tokio::task::yield_now().await;
        }
        let ended = ending.len() - before;
        ending.retain(|id| worker.watch.end_when_idle(*id));
        if ended > 0 {
            tracing::info!(
                connections = ended,
                worker = worker.index,
                "connections end: no authority of the new config vouches for their certificates"
            );
        }
    }
}

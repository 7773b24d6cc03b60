//! Delivers minutes of usage to a receiver, as batches of CloudEvents.
//!
//! It runs on the control thread. A batch is sent again until the receiver takes it (2xx), with growing waits, in the
//! order of time. Meanwhile the queue fills, and what finds no room in it is dropped and counted.
//!
//! Invariant: an event is sent with the same id and content each time, also by the next process.

use std::sync::Arc;
use std::time::Duration;

use policies::Moment;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use tokio::sync::watch::Receiver;
use tokio::time::sleep;

use crate::auth::jwt::key_fetch;
use crate::clock;
use crate::observe::timestamp::Timestamp;
use crate::plan::LivePlan;
use crate::usage::{PushSettings, Usage, events};

/// Time between two looks at the queue.
const EVERY: Duration = Duration::from_millis(500);
/// Wait after the first failure. It doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Longest wait, also if the receiver asks for a longer one.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Time between two lines about a receiver that takes nothing.
const QUIET: Duration = Duration::from_secs(60);
/// Number of bytes of an answer that are read, so that its connection can be used again.
const MAX_ANSWER: usize = 64 << 10;

/// Delivers until `stopping` is true or its sender is gone. Then it sends what is left, until a try fails.
pub async fn push_usage(live: Arc<LivePlan>, usage: Arc<Usage>, mut stopping: Receiver<bool>) {
    let Ok(client) = key_fetch::client() else { return };
    let (mut wait, mut told) = (EVERY, None);
    loop {
        let is_last = tokio::select! {
            () = sleep(wait) => false,
            // Without a sender, the process ends too.
            _ = stopping.wait_for(|stopping| *stopping) => true,
        };
        let settings = live.load().edge.usage.clone();
        let Some(settings) = settings.as_ref().and_then(|usage| usage.push.as_ref()) else {
            if is_last {
                return;
            }
            wait = EVERY;
            continue;
        };
        match push_all(&client, settings, &usage).await {
            Ok(()) => (wait, told) = (EVERY, None),
            Err(Failed { why, retry_after }) => {
                let next = if wait < FIRST_WAIT { FIRST_WAIT } else { wait * 2 };
                // Spread, so that replicas that failed together do not come back together.
                wait = retry_after
                    .unwrap_or(next.mul_f64(0.75 + fastrand::f64() / 2.0))
                    .min(LONGEST_WAIT);
                tell(&mut told, settings, &usage, &why);
            }
        }
        if is_last {
            return;
        }
    }
}

struct Failed {
    why: String,
    retry_after: Option<Duration>,
}

/// Sends what waits, batch after batch.
async fn push_all(client: &reqwest::Client, settings: &PushSettings, usage: &Usage) -> Result<(), Failed> {
    loop {
        let records = usage.ledger().waiting(settings.batch);
        if records.is_empty() {
            return Ok(());
        }
        let time = |time: Duration| Timestamp(time).whole_seconds();
        let body = events::batch(usage.replica(), &records, time);
        send(client, settings, body).await?;
        usage.ledger().delivered_all(&records);
    }
}

async fn send(client: &reqwest::Client, settings: &PushSettings, body: Vec<u8>) -> Result<(), Failed> {
    let mut request = client.post(settings.url.clone()).timeout(settings.time_limit);
    for (name, value) in &settings.headers {
        request = request.header(name, value);
    }
    let sent = request
        .header(CONTENT_TYPE, events::CONTENT_TYPE)
        .body(body)
        .send()
        .await;
    let mut answer = sent.map_err(|error| Failed {
        why: innermost(&error),
        retry_after: None,
    })?;
    let (status, retry_after) = (answer.status(), answer.headers().get(RETRY_AFTER).cloned());
    let mut read = 0;
    while let Ok(Some(piece)) = answer.chunk().await {
        read += piece.len();
        if read > MAX_ANSWER {
            break;
        }
    }
    if status.is_success() {
        return Ok(());
    }
    let seconds = retry_after.and_then(|field| field.to_str().ok()?.parse().ok());
    Err(Failed {
        why: format!("it answers {status}"),
        retry_after: seconds.map(Duration::from_secs),
    })
}

fn tell(told: &mut Option<Moment>, settings: &PushSettings, usage: &Usage, why: &str) {
    let now = clock::now();
    if told.is_none_or(|told| now.since(told) >= QUIET) {
        *told = Some(now);
        let waiting = usage.ledger().waiting_count();
        tracing::warn!(url = %settings.url, waiting, "usage was not delivered: {why}");
    }
}

/// Returns the cause of an error; the outer ones say only that a request failed.
fn innermost(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), innermost)
}

//! Sends the traces that requests leave behind to a collector.
//!
//! It runs on the control thread, so that no worker builds or sends anything. What the collector does not take is sent
//! again a few times and then dropped; meanwhile the queue fills, and what finds no room in it is counted. Whatever the
//! collector does, requests are served.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use policies::Moment;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use tokio::sync::watch::Receiver;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::auth::jwt::key_fetch;
use crate::observe::record::RequestRecord;
use crate::observe::traces::TraceSettings;
use crate::observe::traces::otlp::{self, RouteFact, RouteFacts};
use crate::observe::{Observer, TraceOutcome};
use crate::plan::outline::{RouteOutline, TargetOutline};
use crate::plan::{LivePlan, Plan, State};
use crate::{clock, json};

/// Time between two looks at the queue.
const EVERY: Duration = Duration::from_millis(250);
/// Largest number of traces of one export.
const BATCH: usize = 200;
/// Largest number of times that one export is sent.
const TRIES: u32 = 5;
/// Wait before the second try. It doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Longest wait that a collector may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Time between two estimates of what is slow.
const LEARN_EVERY: Duration = Duration::from_secs(10);
/// Longest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 << 10;
/// Time between two lines about a collector that takes nothing.
const QUIET: Duration = Duration::from_secs(60);

/// Exports traces until `stopping` is true or its sender is gone. Then it sends what is left, with one try for each
/// batch.
pub async fn export_traces(live: Arc<LivePlan>, state: Arc<State>, mut stopping: Receiver<bool>) {
    let Ok(client) = key_fetch::client() else { return };
    let mut exporter = Exporter::new(client, Arc::clone(&state.observer));
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut learnt = clock::now();
    loop {
        let is_last = tokio::select! {
            _ = ticks.tick() => false,
            () = stop(&mut stopping) => true,
        };
        let plan = live.load();
        if let Some(settings) = plan.edge.tracing.clone() {
            if clock::now().since(learnt) >= LEARN_EVERY {
                learnt = clock::now();
                plan.listed.iter().for_each(|route| route.metrics.learn_slow());
            }
            exporter.follow(&plan);
            drop(plan);
            while exporter.export(&settings, &mut stopping).await {
                tokio::task::yield_now().await;
            }
        }
        if is_last {
            return;
        }
    }
}

/// Waits for the end of the process.
async fn stop(stopping: &mut Receiver<bool>) {
    // Without a sender, the process ends too.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

struct Exporter {
    client: reqwest::Client,
    observer: Arc<Observer>,
    facts: RouteFacts,
    /// Generation of the plan that `facts` are of.
    generation: u64,
    /// Time of the last line about a failure; `None` while the collector takes what it gets.
    told: Option<Moment>,
}

/// What became of a try.
enum Answer {
    /// All but so many traces were taken.
    Taken,
    /// Worth another try, after so long if the collector says so.
    Again(Option<Duration>, String),
    Refused(String),
}

impl Exporter {
    fn new(client: reqwest::Client, observer: Arc<Observer>) -> Self {
        Self {
            client,
            observer,
            facts: RouteFacts::default(),
            generation: 0,
            told: None,
        }
    }

    /// Takes over the facts of a new plan.
    fn follow(&mut self, plan: &Plan) {
        if self.generation != plan.generation {
            self.generation = plan.generation;
            self.facts = facts(plan);
        }
    }

    /// Exports one batch; returns false if there is none.
    async fn export(&mut self, settings: &TraceSettings, stopping: &mut Receiver<bool>) -> bool {
        let records = self.observer.traces.take(BATCH);
        if records.is_empty() {
            return false;
        }
        let body = otlp::export(&settings.service, &records, &self.facts).to_string();
        let mut wait = FIRST_WAIT;
        let mut why = String::new();
        for number in 1..=TRIES {
            match self.send(settings, body.clone()).await {
                Answer::Taken => {
                    self.told = None;
                    self.observer.traces.count(TraceOutcome::Exported, records.len());
                    return true;
                }
                Answer::Refused(reason) => {
                    why = reason;
                    break;
                }
                Answer::Again(asked, reason) => {
                    why = reason;
                    let wait_now = asked.unwrap_or(wait).min(LONGEST_WAIT);
                    let is_over = number == TRIES
                        || tokio::select! {
                            () = sleep(wait_now) => false,
                            () = stop(stopping) => true,
                        };
                    if is_over {
                        break;
                    }
                    wait *= 2;
                }
            }
        }
        self.give_up(settings, &records, &why);
        true
    }

    fn give_up(&mut self, settings: &TraceSettings, records: &[RequestRecord], why: &str) {
        self.observer.traces.count(TraceOutcome::NotAccepted, records.len());
        let now = clock::now();
        if self.told.is_none_or(|told| now.since(told) >= QUIET) {
            self.told = Some(now);
            tracing::warn!(url = %settings.url, traces = records.len(), "traces were not accepted: {why}");
        }
    }

    async fn send(&self, settings: &TraceSettings, body: String) -> Answer {
        let mut request = self.client.post(settings.url.clone()).timeout(settings.time_limit);
        for (name, value) in &settings.headers {
            request = request.header(name, value);
        }
        let sent = request.header(CONTENT_TYPE, "application/json").body(body).send().await;
        let mut answer = match sent {
            Ok(answer) => answer,
            Err(error) => return Answer::Again(None, innermost(&error)),
        };
        let (status, retry_after) = (answer.status(), answer.headers().get(RETRY_AFTER).cloned());
        let mut body = Vec::new();
        while let Ok(Some(piece)) = answer.chunk().await {
            if body.len() + piece.len() > MAX_ANSWER {
                break;
            }
            body.extend_from_slice(&piece);
        }
        match status {
            status if status.is_success() => self.judge(&body),
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => {
                let seconds = retry_after.and_then(|field| field.to_str().ok()?.parse().ok());
                Answer::Again(seconds.map(Duration::from_secs), format!("it answers {status}"))
            }
            status => Answer::Refused(format!("it answers {status}")),
        }
    }

    /// Reads from an answer how many spans the collector has left out. They are not sent again (OTLP, partial success).
    fn judge(&self, body: &[u8]) -> Answer {
        let told: serde_json::Value = json::typed(body, MAX_ANSWER).unwrap_or_default();
        let partial = &told["partialSuccess"];
        let count = &partial["rejectedSpans"];
        let rejected = count
            .as_str()
            .and_then(|text| text.parse().ok())
            .or_else(|| count.as_u64());
        if rejected.is_some_and(|count: u64| count > 0) {
            let why = partial["errorMessage"].as_str().unwrap_or("it does not say why");
            tracing::warn!(rejected, "the collector has left out spans: {why}");
        }
        Answer::Taken
    }
}

/// Returns the cause of an error; the outer ones say only that a request failed.
fn innermost(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), innermost)
}

/// Returns the pattern of each route that has one, and the methods of its parts. Of several patterns, the record does not
/// know which one matched.
fn facts(plan: &Plan) -> RouteFacts {
    let fact = |route: &RouteOutline| {
        let matches = &route.matches;
        let below = |prefix: &String| format!("{}/{{*rest}}", prefix.trim_end_matches('/'));
        let pattern = match (matches.paths.as_slice(), matches.prefixes.as_slice()) {
            ([path], []) => Some(path.clone()),
            ([], [prefix]) => Some(below(prefix)),
            _ => None,
        };
        let methods = match &route.target {
            TargetOutline::Aggregate { parts, .. } => parts
                .iter()
                .map(|part| (Arc::clone(&part.name), part.method.clone()))
                .collect(),
            _ => BTreeMap::new(),
        };
        (Arc::clone(&route.name), RouteFact { pattern, methods })
    };
    RouteFacts(plan.outline.routes.iter().map(fact).collect())
}

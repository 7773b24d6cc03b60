//! Sends requests from many callers at once, and collects their results.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::answer::Answer;
use crate::client::{Ask, Client, Failure};

/// Result of one request.
#[derive(Debug)]
pub struct Told {
    pub sent: Instant,
    pub took: Duration,
    pub came: Result<Answer, Failure>,
}

/// Results of all requests.
#[derive(Debug, Default)]
pub struct Tally {
    pub told: Vec<Told>,
}

impl Tally {
    pub fn with_status(&self, status: u16) -> usize {
        self.answers().filter(|answer| answer.status == status).count()
    }

    pub fn answers(&self) -> impl Iterator<Item = &Answer> {
        self.told.iter().filter_map(|told| told.came.as_ref().ok())
    }

    pub fn failures(&self) -> Vec<String> {
        let failed = self.told.iter().filter_map(|told| told.came.as_ref().err());
        failed.map(ToString::to_string).collect()
    }

    /// Returns the number of answers by status and reason; failures count as status 0.
    pub fn statuses(&self) -> BTreeMap<(u16, String), usize> {
        let mut counts = BTreeMap::new();
        for told in &self.told {
            let kind = match &told.came {
                Ok(answer) => (answer.status, answer.reason().unwrap_or_default().to_owned()),
                Err(failure) => (0, failure.to_string()),
            };
            *counts.entry(kind).or_default() += 1;
        }
        counts
    }

    /// # Panics
    /// Not every request had this status.
    #[track_caller]
    pub fn all(&self, status: u16) {
        let others: BTreeMap<_, _> = self.statuses().into_iter().filter(|((s, _), _)| *s != status).collect();
        assert!(others.is_empty(), "of {} not {status}: {others:?}", self.told.len());
    }

    /// Returns the time within which this share of the answers came.
    ///
    /// # Panics
    /// There were no answers.
    pub fn quantile(&self, share: f64) -> Duration {
        let mut times: Vec<Duration> = self.told.iter().map(|told| told.took).collect();
        times.sort_unstable();
        let last = times.len().checked_sub(1).expect("somebody was told something");
        times[(last as f64 * share).round() as usize]
    }
}

/// Sends this many requests at the same time, each once.
pub async fn at_once(count: usize, ask: impl Fn(usize) -> Ask) -> Tally {
    let mut crowd = JoinSet::new();
    for number in 0..count {
        crowd.spawn(told(ask(number)));
    }
    Tally {
        told: crowd.join_all().await,
    }
}

/// Sends requests at a steady rate until the future ends, without waiting for answers: in this open loop a slow answer
/// delays no other request.
pub async fn steadily<T>(per_second: u32, ask: impl Fn() -> Ask, until: impl Future<Output = T>) -> (Tally, T) {
    let mut crowd = JoinSet::new();
    let mut ticks = interval(Duration::from_secs(1) / per_second);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    tokio::pin!(until);
    let value = loop {
        tokio::select! {
            biased;
            value = &mut until => break value,
            _ = ticks.tick() => { crowd.spawn(told(ask())); }
        }
    };
    let told = crowd.join_all().await;
    (Tally { told }, value)
}

/// Sends from several connections for a time, each at its share of the rate and with at most one request under way.
pub async fn paced(
    clients: Vec<Client>,
    per_second: u32,
    time: Duration,
    ask: impl Fn(&Client) -> Ask + Clone + Send + 'static,
) -> Tally {
    let pace = Duration::from_secs(1) * u32::try_from(clients.len()).expect("a handful") / per_second;
    let mut crowd = JoinSet::new();
    for client in clients {
        let ask = ask.clone();
        crowd.spawn(async move {
            let end = Instant::now() + time;
            let mut ticks = interval(pace);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut all = Vec::new();
            loop {
                ticks.tick().await;
                if Instant::now() >= end {
                    return all;
                }
                all.push(told(ask(&client)).await);
            }
        });
    }
    Tally {
        told: crowd.join_all().await.into_iter().flatten().collect(),
    }
}

async fn told(ask: Ask) -> Told {
    let sent = Instant::now();
    let came = ask.try_send().await;
    Told {
        sent,
        took: sent.elapsed(),
        came,
    }
}

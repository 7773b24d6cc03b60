//! Collects the results of a load: how requests ended, and how long they took.
//!
//! Invariant: every scheduled request is in exactly one of `statuses`, `faults` and `unsent`.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::time::Duration;

use hdrhistogram::Histogram;
use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::client::Fault;

/// Longest latency; latencies are kept to three digits, from a microsecond to an hour.
const LONGEST_MICROS: u64 = 3_600_000_000;

#[derive(Clone, Debug)]
pub struct Report {
    /// Time from the intended sending to the last byte of the answer, in microseconds, for answers of any status.
    /// Faults are counted but not timed.
    latency: Histogram<u64>,
    pub statuses: BTreeMap<u16, u64>,
    pub faults: BTreeMap<Fault, u64>,
    /// Requests that were scheduled but not sent before the run ended: the server, or this machine, was too slow.
    pub unsent: u64,
    /// Time from the first sending to the last answer.
    pub span: Duration,
    /// Time from the first answer to the last sending. The server had at least this time between its first decision and
    /// its last, and at most `span`.
    pub inner: Inner,
}

/// Ends of [`Report::inner`], from the start of the run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inner {
    first_answer: Option<Duration>,
    last_sending: Option<Duration>,
}

impl Inner {
    pub fn note(&mut self, sent: Duration, answered: Duration) {
        self.first_answer.get_or_insert(answered);
        self.last_sending = Some(sent);
    }

    pub fn duration(&self) -> Duration {
        self.last_sending
            .unwrap_or_default()
            .saturating_sub(self.first_answer.unwrap_or_default())
    }

    fn merge(&mut self, other: Self) {
        let firsts = self.first_answer.into_iter().chain(other.first_answer);
        self.first_answer = firsts.min();
        self.last_sending = self.last_sending.max(other.last_sending);
    }
}

impl Default for Report {
    fn default() -> Self {
        let latency = Histogram::new_with_max(LONGEST_MICROS, 3).expect("three digits and an hour are in range");
        Self {
            latency,
            statuses: BTreeMap::new(),
            faults: BTreeMap::new(),
            unsent: 0,
            span: Duration::ZERO,
            inner: Inner::default(),
        }
    }
}

impl Report {
    pub fn note(&mut self, ended: Result<StatusCode, Fault>, latency: Duration) {
        match ended {
            Ok(status) => {
                *self.statuses.entry(status.as_u16()).or_default() += 1;
                self.latency
                    .saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
            }
            Err(fault) => *self.faults.entry(fault).or_default() += 1,
        }
    }

    /// Adds the results of another connection or thread of the same run.
    pub fn merge(&mut self, other: &Self) {
        self.latency
            .add(&other.latency)
            .expect("all histograms have the same range");
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        for (fault, count) in &other.faults {
            *self.faults.entry(*fault).or_default() += count;
        }
        self.unsent += other.unsent;
        self.span = self.span.max(other.span);
        self.inner.merge(other.inner);
    }

    pub fn status(&self, status: u16) -> u64 {
        self.statuses.get(&status).copied().unwrap_or(0)
    }

    pub fn fault(&self, fault: Fault) -> u64 {
        self.faults.get(&fault).copied().unwrap_or(0)
    }

    /// Returns the number of requests that were sent, however they ended.
    pub fn sent(&self) -> u64 {
        self.statuses.values().sum::<u64>() + self.faults.values().sum::<u64>()
    }

    /// Returns the number of requests that did not end in this status, including the unsent ones.
    pub fn other_than(&self, status: u16) -> u64 {
        self.sent() + self.unsent - self.status(status)
    }

    /// Returns the latency that this share of answers (0 to 1) did not exceed; zero without answers.
    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_micros(self.latency.value_at_quantile(share))
    }

    pub fn max(&self) -> Duration {
        Duration::from_micros(self.latency.max())
    }

    /// Returns the answers in a second.
    pub fn rate(&self) -> f64 {
        let answers = self.latency.len() as f64;
        if self.span.is_zero() {
            0.0
        } else {
            answers / self.span.as_secs_f64()
        }
    }

    /// Returns the endings as text, for example `12 x 200, 3 x timed_out`.
    pub fn endings(&self) -> String {
        let statuses = self
            .statuses
            .iter()
            .map(|(status, count)| format!("{count} x {status}"));
        let faults = self.faults.iter().map(|(fault, count)| format!("{count} x {fault}"));
        let unsent = (self.unsent > 0).then(|| format!("{} x unsent", self.unsent));
        let all: Vec<String> = statuses.chain(faults).chain(unsent).collect();
        if all.is_empty() {
            "nothing was sent".to_owned()
        } else {
            all.join(", ")
        }
    }

    pub fn to_json(&self) -> Value {
        let counted = |counts: Vec<(String, u64)>| -> Map<String, Value> {
            counts.into_iter().map(|(name, count)| (name, count.into())).collect()
        };
        let latencies: Map<String, Value> = QUANTILES
            .iter()
            .map(|(name, share)| ((*name).to_owned(), micros(self.quantile(*share))))
            .collect();
        json!({
            "sent": self.sent(),
            "unsent": self.unsent,
            "seconds": self.span.as_secs_f64(),
            "answers_per_second": self.rate(),
            "statuses": counted(self.statuses.iter().map(|(status, count)| (status.to_string(), *count)).collect()),
            "faults": counted(self.faults.iter().map(|(fault, count)| (fault.to_string(), *count)).collect()),
            "latency_us": latencies,
        })
    }
}

const QUANTILES: [(&str, f64); 6] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("p99.99", 0.9999),
    ("max", 1.0),
];

impl fmt::Display for Report {
    /// Writes two lines without a frame, because reports are read next to others.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} in {:.2} s, {:.1} answers/s: {}",
            self.sent(),
            self.span.as_secs_f64(),
            self.rate(),
            self.endings()
        )?;
        let mut latencies = String::new();
        for (name, share) in QUANTILES {
            write!(latencies, "  {name} {}", millis(self.quantile(share)))?;
        }
        write!(f, "latency from the intended sending:{latencies}")
    }
}

/// Returns the duration as text, for example `12.3 ms`.
pub fn millis(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1e3;
    if millis < 10.0 {
        format!("{millis:.2} ms")
    } else {
        format!("{millis:.1} ms")
    }
}

fn micros(duration: Duration) -> Value {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).into()
}

#[cfg(test)]
mod tests {
    use super::{Fault, Report};
    use http::StatusCode;
    use std::time::Duration;

    #[test]
    fn every_request_is_counted_once() {
        let mut report = Report::default();
        report.note(Ok(StatusCode::OK), Duration::from_millis(1));
        report.note(Ok(StatusCode::TOO_MANY_REQUESTS), Duration::from_millis(3));
        report.note(Err(Fault::TimedOut), Duration::from_secs(9));
        let mut other = Report {
            unsent: 2,
            span: Duration::from_secs(1),
            ..Report::default()
        };
        other.note(Ok(StatusCode::OK), Duration::from_millis(2));
        report.merge(&other);
        assert_eq!((report.sent(), report.unsent, report.other_than(200)), (4, 2, 4));
        assert_eq!(report.endings(), "2 x 200, 1 x 429, 1 x timed_out, 2 x unsent");
    }

    #[test]
    fn faults_do_not_count_as_latencies() {
        let mut report = Report::default();
        report.note(Ok(StatusCode::OK), Duration::from_millis(10));
        report.note(Err(Fault::Broken), Duration::from_secs(100));
        // Three digits are kept.
        let max = report.max();
        assert!((9_990..=10_010).contains(&max.as_micros()), "{max:?}");
        assert_eq!(Report::default().quantile(0.99), Duration::ZERO);
    }

    #[test]
    fn json_says_the_same() {
        let mut report = Report {
            span: Duration::from_secs(2),
            ..Report::default()
        };
        report.note(Ok(StatusCode::OK), Duration::from_micros(500));
        let json = report.to_json();
        assert_eq!(json["statuses"]["200"], 1);
        assert_eq!(json["answers_per_second"], 0.5);
        assert_eq!(json["latency_us"]["p99"], 500);
    }
}

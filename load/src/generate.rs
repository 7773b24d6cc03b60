//! Sends an open load to a target: requests leave on schedule, however the earlier ones end.
//!
//! A separate thread keeps the schedule, because a runtime's timers have a resolution of only a millisecond, and the
//! difference would count as latency of the target. Connections take due requests in order. If all connections are busy
//! the request waits, and the wait counts: latency is measured from the intended time of sending. Measuring it
//! otherwise is the error known as "coordinated omission".

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use http_body_util::Full;
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::arrivals::{Arrivals, Pace};
use crate::client::{Client, ending};
use crate::report::Report;
use crate::target::Target;

/// Complete definition of a load, which ends by itself.
#[derive(Clone, Debug)]
pub struct Load {
    pub target: Target,
    pub method: Method,
    pub headers: HeaderMap,
    /// Header fields that each use their values in turn.
    pub rotating: Vec<(HeaderName, Vec<HeaderValue>)>,
    pub body: Bytes,
    /// Requests in a second, above 0.
    pub rate: f64,
    pub pace: Pace,
    pub seed: u64,
    pub connections: usize,
    pub duration: Duration,
    /// Largest number of requests.
    pub count: Option<u64>,
    /// Longest time for an answer. A request that is not sent by this time after the end is given up.
    pub limit: Duration,
}

impl Load {
    /// Returns a load of GET requests at a constant pace, without body or header fields, over eight connections.
    pub fn new(target: Target, rate: f64, duration: Duration) -> Self {
        Self {
            target,
            method: Method::GET,
            headers: HeaderMap::new(),
            rotating: Vec::new(),
            body: Bytes::new(),
            rate,
            pace: Pace::Constant,
            seed: 1,
            connections: 8,
            duration,
            count: None,
            limit: Duration::from_secs(10),
        }
    }

    #[must_use]
    pub fn connections(self, connections: usize) -> Self {
        Self { connections, ..self }
    }

    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    fn request(&self, number: u64) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.target.path.clone().into();
        let headers = request.headers_mut();
        headers.clone_from(&self.headers);
        headers.entry(header::HOST).or_insert_with(|| self.target.host.clone());
        for (name, values) in &self.rotating {
            if let Some(value) = values.get(number as usize % values.len().max(1)) {
                headers.insert(name.clone(), value.clone());
            }
        }
        request
    }
}

/// Request that is due.
struct Due {
    number: u64,
    at: Instant,
}

type Queue = Arc<Mutex<UnboundedReceiver<Due>>>;

/// Runs the load to its end.
pub async fn generate(load: Load) -> Report {
    let load = Arc::new(load);
    let (due, queue) = unbounded_channel();
    let queue: Queue = Arc::new(Mutex::new(queue));
    let start = Instant::now();
    let mut connections = JoinSet::new();
    for _ in 0..load.connections {
        connections.spawn(send(Arc::clone(&load), Arc::clone(&queue), start));
    }
    // If the load's future is dropped, the receivers are gone, and the schedule ends too.
    drop(queue);
    let schedule = Arc::clone(&load);
    let pacer = thread::spawn(move || keep_schedule(&schedule, start, &due));
    let mut report = Report::default();
    while let Some(part) = connections.join_next().await {
        report.merge(&part.expect("a connection's task does not panic"));
    }
    pacer.join().expect("the schedule's thread does not panic");
    report
}

fn keep_schedule(load: &Load, start: Instant, due: &UnboundedSender<Due>) {
    let arrivals = Arrivals::new(load.rate, load.pace, load.seed).take_while(|after| *after < load.duration);
    for (number, after) in (0..load.count.unwrap_or(u64::MAX)).zip(arrivals) {
        let at = start + after;
        thread::sleep(at.saturating_duration_since(Instant::now()));
        if due.send(Due { number, at }).is_err() {
            return;
        }
    }
}

/// Runs one connection.
async fn send(load: Arc<Load>, queue: Queue, start: Instant) -> Report {
    let give_up = start + load.duration + load.limit;
    let mut client = Client::new(load.target.address);
    let mut report = Report::default();
    loop {
        let next = queue.lock().await.recv().await;
        let Some(Due { number, at }) = next else { return report };
        let sent = Instant::now();
        if sent > give_up {
            report.unsent += 1;
            continue;
        }
        let ended = client.ask(load.request(number), load.limit).await;
        let now = Instant::now();
        report.note(ending(&ended), now.duration_since(at));
        report.span = now.duration_since(start);
        report.inner.note(sent.duration_since(start), report.span);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fixtures::fleet::{Behaviour, Fault, Fleet, Handle, Latency, Spec};
    use http::{HeaderName, HeaderValue};

    use super::{Load, generate};
    use crate::client;
    use crate::target::Target;

    async fn one() -> (Fleet, Handle) {
        let fleet = Fleet::start([Spec::new("one")]).await.expect("a free port");
        let handle = fleet.backend("one");
        (fleet, handle)
    }

    fn target(backend: &Handle) -> Target {
        Target::new(backend.address(), "/bytes/10").expect("a path")
    }

    #[tokio::test]
    async fn sends_what_was_scheduled_and_no_more() {
        let (_fleet, backend) = one().await;
        let report = generate(Load::new(target(&backend), 500.0, Duration::from_millis(200))).await;
        assert_eq!((report.status(200), report.other_than(200)), (100, 0), "{report}");
        assert_eq!(backend.counts().requests, 100);
        let few = Load {
            count: Some(7),
            ..Load::new(target(&backend), 500.0, Duration::from_secs(60))
        };
        assert_eq!(generate(few).await.sent(), 7);
    }

    #[tokio::test]
    async fn a_stall_is_charged_to_every_request_it_kept_waiting() {
        let (_fleet, backend) = one().await;
        // Each answer takes 20 ms, and a request is due every 5 ms on the only connection.
        backend.behave(Behaviour::late(Latency::fixed(20))).await;
        let load = Load {
            count: Some(20),
            ..Load::new(target(&backend), 200.0, Duration::from_secs(5))
        };
        let report = generate(load.connections(1)).await;
        assert_eq!(report.status(200), 20, "{report}");
        // The last request was due after 95 ms and answered after 400 ms. Measured from its sending it would be 20 ms.
        assert!(report.max() >= Duration::from_millis(300), "{report}");
    }

    #[tokio::test]
    async fn counts_statuses_and_faults_apart() {
        let (_fleet, backend) = one().await;
        let hang = Behaviour::always(Fault::Hang);
        backend.next([
            Behaviour::status(503),
            Behaviour::always(Fault::Reset),
            Behaviour::always(Fault::Garbage),
            hang,
        ]);
        let load = Load {
            count: Some(5),
            limit: Duration::from_millis(300),
            ..Load::new(target(&backend), 1000.0, Duration::from_secs(1))
        };
        let report = generate(load.connections(1)).await;
        assert_eq!(
            report.endings(),
            "1 x 200, 1 x 503, 1 x unanswered, 1 x broken, 1 x timed_out",
            "{report}"
        );
        backend.behave(Behaviour::refusing()).await;
        let load = Load {
            count: Some(2),
            ..Load::new(target(&backend), 1000.0, Duration::from_secs(1))
        };
        assert_eq!(generate(load).await.fault(client::Fault::Unconnected), 2);
    }

    #[tokio::test]
    async fn a_rotating_header_takes_each_value_in_turn() {
        let (_fleet, backend) = one().await;
        let values = ["a", "b", "c"].map(HeaderValue::from_static).to_vec();
        let load = Load {
            rotating: vec![(HeaderName::from_static("x-api-key"), values)],
            count: Some(6),
            ..Load::new(target(&backend), 1000.0, Duration::from_secs(1))
        };
        generate(load.connections(1)).await;
        let seen: Vec<_> = backend
            .requests()
            .iter()
            .map(|request| request.header("x-api-key").map(str::to_owned))
            .collect();
        let expected = ["a", "b", "c", "a", "b", "c"].map(|key| Some(key.to_owned()));
        assert_eq!(seen, expected);
    }
}

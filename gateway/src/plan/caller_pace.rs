//! Tests that the breaker's record of a backend does not depend on how fast callers send or read. Whole calls run on a
//! virtual clock, over connections in memory.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::uri::PathAndQuery;
use http_body_util::BodyExt;
use policies::breaker::{Counts, State};
use policies::bulkhead::Entrant;
use policies::{Deadline, Moment};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use tokio::time::sleep;

use crate::call::backend::Backend;
use crate::call::replay::Replay;
use crate::call::scripted::{Behaviour, Scripted, Tail, caller_body};
use crate::call::{self, CallBody, CallRequest, Facts, Reply, Streaming};
use crate::clock;
use crate::headers::AddedFields;
use crate::message::FieldMap;
use crate::observe::Attempts;
use crate::plan::Plan;
use crate::plan::time_budget::properties::{on_paused_time, plan};
use crate::rejection::{Reason, Rejection};

const LIMIT: Duration = Duration::from_secs(2);

/// Builds a config: an attempt may take 2 s and is slow above 400 ms. `more` adds keys to the breaker.
fn config(more: &str) -> String {
    format!(
        "listeners: {{ public: {{ address: \"127.0.0.1:0\" }} }}\n\
         time_limits: {{ request: 30s, reserve: 2s, minimum: 5ms, idle_stream: 1h }}\n\
         callers: {{ anonymous: {{ by: client_address }} }}\n\
         backends:\n  b: {{ endpoints: [{{ url: \"http://nowhere.invalid\" }}], retry: off, time_limit: 2s, \
         breaker: {{ min_calls: 1000, slow: {{ over: 400ms, ratio: 1 }}, open_for: 1s, probes: 2{more} }} }}\n\
         routes:\n  r: {{ match: {{ path: /r }}, access: {{ any_of: [anonymous] }}, backend: b }}\n"
    )
}

fn backend(plan: &Plan) -> Arc<Backend> {
    Arc::clone(&plan.backends[0])
}

/// Calls the backend with this body. `wish` is the deadline that the caller asks for.
async fn ask(backend: &Arc<Backend>, body: CallBody, wish: Option<Duration>) -> Result<Reply, Rejection> {
    let now = clock::now();
    let operator_deadline = Deadline::at(now + Duration::from_secs(28));
    let mut order = CallRequest {
        method: Method::POST,
        target: PathAndQuery::from_static("/"),
        headers: FieldMap::new(),
        added: AddedFields::default(),
        body,
        deadline: wish.map_or(operator_deadline, |wish| operator_deadline.child(now, wish)),
        deadline_by: None,
        operator_deadline,
        caller_deadline: wish.map(|wish| Deadline::at(now + wish)),
        trailers: false,
        operator_limit: Duration::from_secs(28),
        entrant: Entrant {
            tenant: 1,
            tier: 0,
            weight: 1,
            deadline: Moment::MAX,
        },
        is_retry: false,
        streaming: Streaming::Never,
        switches: false,
        interim: None,
        expects: false,
        hash_keys: Default::default(),
        mirror: None,
        hedge: None,
        cost_header: None,
    };
    call::call(backend, 0, &mut order, &mut Attempts::default(), &mut Facts::default()).await
}

fn counts(backend: &Backend) -> Counts {
    backend.guards.breaker.counts(clock::now())
}

fn answers(after: Duration) -> Behaviour {
    Behaviour::Answer {
        after,
        status: 200,
        retry_after: None,
        tail: Tail::AtOnce,
    }
}

/// The way in which a caller sends its body: pieces, each with a pause before it in ms; whether it states the length;
/// whether it finishes; and the deadline that it asks for, in ms.
#[derive(Debug, Clone)]
struct Pace {
    pieces: Vec<(u64, usize)>,
    has_length: bool,
    ends: bool,
    wish: Option<u64>,
}

impl Pace {
    async fn body(&self) -> CallBody {
        let pieces: Vec<_> = self
            .pieces
            .iter()
            .map(|(pause, size)| (Duration::from_millis(*pause), *size))
            .collect();
        let sum: usize = pieces.iter().map(|(_, size)| size).sum();
        let length = self.has_length.then_some(sum + usize::from(!self.ends));
        let body = caller_body(pieces, length, self.ends);
        let limit = crate::setting::Configured {
            value: 1 << 20,
            by: crate::setting::SettingId::URI,
        };
        CallBody::Streamed(Replay::new(body, limit, 1024))
    }

    /// Returns when the last byte is sent; `None` if the caller does not finish.
    fn upload(&self) -> Option<Duration> {
        let sum = self.pieces.iter().map(|(pause, _)| pause).sum();
        self.ends.then(|| Duration::from_millis(sum))
    }
}

fn pace() -> impl Strategy<Value = Pace> {
    let pieces = prop::collection::vec((0..900_u64, 1..5_000_usize), 1..6);
    let wish = prop::option::weighted(0.3, 6..4_000_u64);
    (pieces, any::<bool>(), prop::bool::weighted(0.8), wish).prop_map(|(pieces, has_length, ends, wish)| Pace {
        pieces,
        has_length,
        ends,
        wish,
    })
}

async fn no_pace_is_recorded(x: Duration, paces: &[Pace]) -> TestCaseResult {
    let plan = plan(&config(""));
    let backend = backend(&plan);
    let _scripted = Scripted::behind(&backend, paces.len(), move || answers(x)).await;
    let mut answered = 0;
    for pace in paces {
        let told = ask(&backend, pace.body().await, pace.wish.map(Duration::from_millis)).await;
        let told = told.map(|_| ()).map_err(|rejection| rejection.reason());
        let limit = LIMIT.min(pace.wish.map_or(LIMIT, Duration::from_millis));
        // Timers have a resolution of one millisecond.
        let slack = Duration::from_millis(10);
        match (told, pace.upload()) {
            (Ok(()), Some(upload)) => {
                answered += 1;
                prop_assert!(upload + x <= limit + slack, "{:?}", pace);
            }
            (Err(Reason::RequestTimeout), upload) => {
                prop_assert!(upload.is_none_or(|upload| upload + slack >= limit), "{:?}", pace);
            }
            (Err(Reason::BackendTimeout | Reason::OutOfTime), Some(upload)) => {
                prop_assert!(upload + x + slack >= limit && upload <= limit + slack, "{:?}", pace);
            }
            (told, _) => prop_assert!(false, "{:?}: {:?}", told, pace),
        }
        let counts = counts(&backend);
        prop_assert_eq!(
            (counts.failures, counts.slow, counts.calls),
            (0, 0, answered),
            "{:?}",
            pace
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..cases::counted() })]

    /// A backend that answers within 400 ms of the last byte is recorded as a success or not at all.
    #[test]
    fn of_a_backend_that_answers_soon_no_failure_and_no_slow_call_is_recorded(
        x in 0..390_u64, paces in prop::collection::vec(pace(), 1..8),
    ) {
        on_paused_time(no_pace_is_recorded(Duration::from_millis(x), &paces))?;
    }
}

#[test]
fn a_backend_that_breaks_during_an_upload_fails() {
    on_paused_time(async {
        let plan = plan(&config(""));
        let backend = backend(&plan);
        let after = Duration::from_millis(300);
        let _scripted = Scripted::behind(&backend, 4, move || Behaviour::Break { after }).await;
        for (number, has_length, pieces) in [
            (1, true, vec![]),
            (2, false, vec![]),
            (3, true, vec![(100, 10); 20]),
            (4, false, vec![(100, 10); 20]),
        ] {
            let pace = Pace {
                pieces,
                has_length,
                ends: false,
                wish: None,
            };
            let told = ask(&backend, pace.body().await, None).await;
            assert_eq!(told.map(|_| ()).unwrap_err().reason(), Reason::BackendBroken);
            assert_eq!((counts(&backend).failures, counts(&backend).slow), (number, 0));
        }
    });
}

#[test]
fn a_caller_that_is_slow_to_read_has_its_backend_break_off_without_blame() {
    on_paused_time(async {
        let plan = plan(&config(""));
        let backend = backend(&plan);
        let turn = || Behaviour::Answer {
            after: Duration::ZERO,
            status: 200,
            retry_after: None,
            tail: Tail::Breaks,
        };
        let _scripted = Scripted::behind(&backend, 2, turn).await;
        for (reads_after, failures) in [(1_500, 0), (0, 1)] {
            let mut body = ask(&backend, CallBody::Empty, None).await.expect("a head").body;
            let first = body.frame().await.expect("a piece").expect("no failure");
            assert_eq!(first.into_data().expect("data"), Bytes::from_static(b"{\"id\""));
            sleep(Duration::from_millis(reads_after)).await;
            assert!(body.frame().await.expect("not the end").is_err());
            assert_eq!(counts(&backend).failures, failures);
        }
    });
}

#[test]
fn a_body_that_was_read_ahead_is_sent_whole_and_in_order() {
    on_paused_time(async {
        let plan = plan(&config(", consecutive: 1"));
        let backend = backend(&plan);
        let turns = [
            Behaviour::Break { after: Duration::ZERO },
            answers(Duration::ZERO),
            answers(Duration::ZERO),
        ];
        let mut turns = turns.into_iter();
        let scripted = Scripted::behind(&backend, 3, move || turns.next().expect("three requests")).await;
        let broken = ask(&backend, CallBody::Empty, None).await;
        assert!(broken.is_err());
        sleep(Duration::from_secs(1)).await;
        // First a few bytes at once, then more than the gateway keeps or waits for.
        for pieces in [
            vec![(0, 3_000), (200, 10)],
            vec![(0, 50_000), (100, 50_000), (300, 50_000)],
        ] {
            assert_eq!(backend.guards.breaker.state(clock::now()), State::HalfOpen);
            let sum: usize = pieces.iter().map(|(_, size)| size).sum();
            let pace = Pace {
                pieces,
                has_length: false,
                ends: true,
                wish: None,
            };
            let answered = ask(&backend, pace.body().await, None).await;
            answered.map(|_| ()).expect("it is answered");
            assert_eq!(scripted.arrivals().last().expect("it came").body, sum);
        }
        assert_eq!(backend.guards.breaker.state(clock::now()), State::Closed);
    });
}

//! Calls one part for every element of an array, a few at once, and makes an array of the answers.
//!
//! Invariant: the array's order is kept, and of several failures the one of the first element is reported, whichever
//! came first. Nothing is cut off unsaid: more elements than the limit are a failure, and so is an array of which
//! nothing is left but failures.

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::{self, StreamExt};

use super::document::Document;
use super::fan_out::{Called, PartResult};
use super::fault::{Cause, PartFault};
use super::render::Element;
use crate::template::Placeholder;

/// Over what a part is called, and how.
#[derive(Debug, Clone)]
pub struct ForEach {
    pub over: Placeholder,
    /// Elements, at least 1; more are a failed part.
    pub limit: usize,
    /// Calls that run at the same time, at least 1.
    pub at_once: usize,
    pub on_failure: OnFailure,
}

impl ForEach {
    /// Into how many rounds the calls fall at most. A slow call holds back those behind it, and never a round longer
    /// than it takes: with `k` at once, an element starts when those `k` or more before it have ended.
    pub fn waves(&self) -> u32 {
        u32::try_from(self.limit.div_ceil(self.at_once)).unwrap_or(u32::MAX)
    }
}

/// What one failed element does to its part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// The part fails with it.
    Fail,
    /// It is not in the array.
    Omit,
    /// A null stands in its place.
    Null,
}

/// Runs `call` for each element that is to be called; `limit` is the bytes that the whole array may have.
pub(super) async fn for_each<'f, F>(
    terms: &ForEach,
    elements: Vec<Element>,
    limit: usize,
    call: impl Fn(super::render::PartRequest) -> F + 'f,
) -> PartResult
where
    F: Future<Output = Called> + 'f,
{
    let count = elements.len();
    let mut answers = stream::iter(elements)
        .map(|element| {
            let called = match element {
                Element::Call(request) => Ok(call(request)),
                Element::Omitted => Err(None),
                Element::Failed(fault) => Err(Some(fault)),
            };
            async {
                match called {
                    Ok(call) => Some(read(call.await.result)),
                    Err(None) => None,
                    Err(Some(fault)) => Some(Err(fault)),
                }
            }
        })
        .buffered(terms.at_once);
    let mut array = BytesMut::from(&b"["[..]);
    let mut first = None;
    let (mut failed, mut has_data, mut is_fatal) = (0, false, false);
    while let Some(answer) = answers.next().await {
        let item = match answer {
            None if terms.on_failure == OnFailure::Null => NULL,
            None => continue,
            Some(Ok((item, fault))) => {
                has_data = true;
                failed += usize::from(fault.is_some());
                first = first.or(fault);
                item
            }
            Some(Err(fault)) => {
                failed += 1;
                match terms.on_failure {
                    OnFailure::Fail => {
                        first = Some(fault);
                        is_fatal = true;
                        break;
                    }
                    OnFailure::Omit => {
                        first.get_or_insert(fault);
                        continue;
                    }
                    OnFailure::Null => {
                        first.get_or_insert(fault);
                        NULL
                    }
                }
            }
        };
        if array.len() + item.len() + 2 > limit {
            return PartResult::Failed(PartFault::new(Cause::TooLarge));
        }
        if array.len() > 1 {
            array.put_u8(b',');
        }
        array.extend_from_slice(&item);
    }
    array.put_u8(b']');
    match first {
        None => PartResult::Body(array.freeze()),
        Some(fault) => {
            let fault = PartFault {
                retry_after: fault.retry_after,
                served: fault.served.clone(),
                cause: Cause::Elements {
                    failed,
                    of: count,
                    first: Box::new(fault),
                },
            };
            if has_data && !is_fatal {
                PartResult::Some(array.freeze(), fault)
            } else {
                PartResult::Failed(fault)
            }
        }
    }
}

const NULL: Bytes = Bytes::from_static(b"null");

/// One element's answer, as it will stand in the array, and what it stands in for.
fn read(result: PartResult) -> Result<(Bytes, Option<PartFault>), PartFault> {
    let (body, fault) = match result {
        PartResult::Body(body) => (body, None),
        PartResult::Some(body, fault) => (body, Some(fault)),
        PartResult::Absent => return Ok((NULL, None)),
        PartResult::Failed(fault) => return Err(fault),
    };
    match Document::raw(&body) {
        Ok(Document::Raw(item)) => Ok((item, fault)),
        _ => Err(PartFault::new(Cause::InvalidJson)),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use http::uri::PathAndQuery;
    use http::{HeaderMap, StatusCode};
    use proptest::prelude::*;
    use tokio::runtime::Builder;
    use tokio::time::{Instant, sleep};

    use super::super::fault::Missing;
    use super::super::render::PartRequest;
    use super::*;
    use crate::call::OrderBody;
    use crate::rejection::Reason;

    const ROOM: usize = 1 << 20;

    /// What comes of one element.
    #[derive(Debug, Clone)]
    enum Act {
        Answer(&'static str),
        Absent,
        Fail(u16),
        Omit,
        Lack,
    }

    fn terms(at_once: usize, on_failure: OnFailure) -> ForEach {
        let over = Placeholder::alone("{body}").unwrap();
        ForEach {
            over,
            limit: 100,
            at_once,
            on_failure,
        }
    }

    fn missing() -> PartFault {
        PartFault::new(Cause::ValueMissing(Missing::InRequest))
    }

    /// The result, and the most calls that ran at the same time. Requests carry their number as their target.
    fn run(terms: &ForEach, acts: &[Act], delays: &[u64], room: usize) -> (PartResult, usize) {
        let elements = acts.iter().enumerate().map(|(index, act)| match act {
            Act::Omit => Element::Omitted,
            Act::Lack => Element::Failed(missing()),
            _ => Element::Call(PartRequest {
                target: PathAndQuery::try_from(format!("/{index}")).unwrap(),
                headers: HeaderMap::new(),
                body: OrderBody::Empty,
            }),
        });
        let (running, most) = (Cell::new(0_usize), Cell::new(0));
        let call = |request: PartRequest| {
            running.set(running.get() + 1);
            most.set(most.get().max(running.get()));
            let running = &running;
            async move {
                let index: usize = request.target.as_str()[1..].parse().unwrap();
                sleep(Duration::from_millis(delays[index % delays.len()])).await;
                running.set(running.get() - 1);
                let result = match &acts[index] {
                    Act::Answer(body) => PartResult::Body(Bytes::from_static(body.as_bytes())),
                    Act::Absent => PartResult::Absent,
                    Act::Fail(status) => PartResult::of(StatusCode::from_u16(*status).unwrap(), Bytes::new(), None),
                    Act::Omit | Act::Lack => unreachable!("it is not called"),
                };
                Called::from(result)
            }
        };
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let result = runtime.block_on(for_each(terms, elements.collect(), room, call));
        (result, most.get())
    }

    /// An array as text, with the failures in it as `failed/of first` behind it; or the failure alone.
    fn told(result: &PartResult) -> String {
        let fault_text = |fault: &PartFault| match &fault.cause {
            Cause::Elements { failed, of, first } => format!("{failed}/{of} {}", first.status().as_u16()),
            _ => fault.reason().to_owned(),
        };
        match result {
            PartResult::Body(body) => String::from_utf8_lossy(body).into_owned(),
            PartResult::Some(body, fault) => format!("{} {}", String::from_utf8_lossy(body), fault_text(fault)),
            PartResult::Failed(fault) => fault_text(fault),
            PartResult::Absent => "absent".to_owned(),
        }
    }

    #[test]
    fn answers_become_an_array() {
        use Act::{Absent, Answer, Fail, Lack, Omit};
        use OnFailure::{Fail as Whole, Null, Omit as Without};
        let check = |on_failure, acts: &[Act], expected: &str| {
            let (result, _) = run(&terms(2, on_failure), acts, &[5, 1, 9], ROOM);
            assert_eq!(told(&result), expected, "{on_failure:?} {acts:?}");
        };
        let all = [Answer(" {\"a\": 1.0} "), Answer("7"), Absent, Answer("[]")];
        for on_failure in [Whole, Without, Null] {
            check(on_failure, &[], "[]");
            check(on_failure, &all, r#"[{"a": 1.0},7,null,[]]"#);
            check(
                on_failure,
                &[Fail(404), Fail(503)],
                if on_failure == Whole { "1/2 404" } else { "2/2 404" },
            );
            check(on_failure, &[Lack], "1/1 400");
        }
        let some = [Answer("1"), Fail(500), Answer("3"), Answer("<html>"), Answer("5")];
        check(Whole, &some, "1/5 502");
        check(Without, &some, "[1,3,5] 2/5 502");
        check(Null, &some, "[1,null,3,null,5] 2/5 502");
        let gaps = [Omit, Answer("2"), Omit];
        check(Whole, &gaps, "[2]");
        check(Without, &gaps, "[2]");
        check(Null, &gaps, "[null,2,null]");
    }

    #[test]
    fn an_array_has_its_room_and_no_more() {
        let acts = [Act::Answer("11"), Act::Answer("22")];
        for (room, expected) in [(7, "[11,22]"), (6, "too_large")] {
            let (result, _) = run(&terms(1, OnFailure::Fail), &acts, &[0], room);
            assert_eq!(told(&result), expected, "{room}");
        }
    }

    #[test]
    fn a_failure_ends_what_comes_after_it() {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let elements = (0..10).map(|index| {
            Element::Call(PartRequest {
                target: PathAndQuery::try_from(format!("/{index}")).unwrap(),
                headers: HeaderMap::new(),
                body: OrderBody::Empty,
            })
        });
        let calls = Cell::new(0);
        let call = |_| {
            calls.set(calls.get() + 1);
            let first = calls.get() == 1;
            async move {
                if first {
                    sleep(Duration::from_millis(5)).await;
                    return Called::from(PartResult::Failed(PartFault::new(Cause::Call(Reason::BreakerOpen))));
                }
                std::future::pending().await
            }
        };
        runtime.block_on(async {
            let begun = Instant::now();
            let result = for_each(&terms(3, OnFailure::Fail), elements.collect(), ROOM, call).await;
            assert_eq!(
                (told(&result).as_str(), begun.elapsed()),
                ("1/10 503", Duration::from_millis(5))
            );
        });
        assert_eq!(calls.get(), 3);
    }

    #[test]
    fn waves_are_counted_up() {
        for (limit, at_once, waves) in [(1, 1, 1), (20, 4, 5), (21, 4, 6), (3, 100, 1), (1000, 1, 1000)] {
            let terms = ForEach {
                limit,
                ..terms(at_once, OnFailure::Fail)
            };
            assert_eq!(terms.waves(), waves, "{limit}, {at_once} at once");
        }
    }

    proptest! {
        #![proptest_config(cases::counted())]

        /// The result depends on what comes of the elements, never on when; and no more run at once than may.
        #[test]
        fn neither_time_nor_concurrency_changes_the_array(
            acts in prop::collection::vec(prop_oneof![
                4 => Just(Act::Answer("{}")),
                1 => Just(Act::Answer("{")),
                1 => Just(Act::Absent),
                1 => Just(Act::Fail(404)),
                1 => Just(Act::Fail(503)),
                1 => Just(Act::Omit),
                1 => Just(Act::Lack),
            ], 0..12),
            on_failure in prop::sample::select(vec![OnFailure::Fail, OnFailure::Omit, OnFailure::Null]),
            schedules in prop::collection::vec((1..6_usize, prop::collection::vec(0..9_u64, 12)), 3),
        ) {
            let (alone, _) = run(&terms(1, on_failure), &acts, &[0], ROOM);
            for (at_once, delays) in schedules {
                let (result, most) = run(&terms(at_once, on_failure), &acts, &delays, ROOM);
                prop_assert_eq!(told(&result), told(&alone));
                prop_assert!(most <= at_once, "{} at once", most);
            }
        }
    }
}

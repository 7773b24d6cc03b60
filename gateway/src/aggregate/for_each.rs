//! Calls one part for every element of an array, several at a time, and makes an array of the answers. The request for
//! an element is made only when its call starts, so no more requests exist than calls are running.
//!
//! Invariant: the array keeps its order. Of several failures, the failure of the first element is reported, whichever
//! came first in time. Nothing is truncated silently: more elements than the limit fail the part, and so does an array
//! in which every called element failed.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use futures_util::stream::{FuturesOrdered, StreamExt};

use super::embed::ElementPlace;
use super::fan_out::{Called, PartResult};
use super::fault::{Cause, FailedElement, PartFault};
use super::part_call::{ForEach, OnFailure};
use super::render::{Element, PartRequest};
use crate::json::{Document, Paths, Reservation, Selection};
use crate::setting::Configured;

/// Total size in bytes of the running requests above which the next element waits for one of them to end.
const UNDER_WAY: usize = 1 << 20;

/// Element of the array.
pub(super) struct ListElement {
    /// Values that the part's requests use.
    pub(super) wanted: Selection,
    /// The answer can be put into the element, or stands elsewhere.
    pub(super) fits: bool,
}

/// Returns the elements in order with their wanted values, or `None` if the array has more than `limit` elements.
/// `place` is where the answers are put into them.
pub(super) fn elements(
    array: &Document,
    limit: usize,
    wanted: &Arc<Paths>,
    place: Option<&ElementPlace>,
) -> Option<Vec<ListElement>> {
    let mut found = Vec::new();
    for element in array.value().elements() {
        if found.len() == limit {
            return None;
        }
        found.push(ListElement {
            wanted: Selection::of(&array.share(element), wanted),
            fits: place.is_none_or(|place| place.fits(element)),
        });
    }
    Some(found)
}

/// Makes a request for each element with `make` when it may start, and runs `call` with it. `limit` is the most bytes
/// of the array of answers. The size of the running requests is reserved from `reservation`.
pub(super) async fn for_each<'f, F>(
    terms: &ForEach,
    elements: &[ListElement],
    limit: Configured<usize>,
    reservation: &Reservation,
    make: impl Fn(usize, &Selection) -> Element,
    call: impl Fn(u32, PartRequest) -> F + 'f,
) -> PartResult
where
    F: Future<Output = Called> + 'f,
{
    let mut running = FuturesOrdered::new();
    let mut waiting = elements.iter().enumerate();
    // Bytes of the running requests.
    let mut under_way = 0;
    let mut array = Answers::new(terms, elements.len(), limit);
    loop {
        while running.len() < terms.at_once && under_way < UNDER_WAY {
            let Some((index, element)) = waiting.next() else { break };
            let mut size = 0;
            let made = match element.fits {
                true => make(index, &element.wanted),
                false => Element::Failed(PartFault::new(Cause::NotMergeable)),
            };
            let called = match made {
                Element::Omitted => Err(None),
                Element::Failed(fault) => Err(Some(fault)),
                Element::Call(request) => {
                    let own = request.size();
                    match reservation.grow(own, own) {
                        Ok(()) => {
                            size = own;
                            Ok(call(index as u32, request))
                        }
                        Err(blocked_outcome) => Err(Some(blocked_outcome.into())),
                    }
                }
            };
            under_way += size;
            running.push_back(async move {
                let answer = match called {
                    Ok(call) => Some(call.await.result),
                    Err(fault) => fault.map(PartResult::Failed),
                };
                (answer, size)
            });
        }
        let Some((answer, size)) = running.next().await else {
            return array.finish();
        };
        under_way -= size;
        reservation.shrink(size);
        if let Err(fault) = array.add(answer) {
            return PartResult::Failed(fault);
        }
    }
}

/// Answers added so far, as a JSON array.
struct Answers {
    on_failure: OnFailure,
    /// Every element has an entry, so that each answer can be put into its own element.
    keeps_positions: bool,
    of: usize,
    limit: Configured<usize>,
    array: BytesMut,
    /// Number of elements added so far.
    added: usize,
    failed: usize,
    listed: Vec<FailedElement>,
    first: Option<PartFault>,
    has_data: bool,
}

impl Answers {
    fn new(terms: &ForEach, of: usize, limit: Configured<usize>) -> Self {
        Self {
            on_failure: terms.on_failure,
            keeps_positions: terms.embeds,
            of,
            limit,
            array: BytesMut::from(&b"["[..]),
            added: 0,
            failed: 0,
            listed: Vec::new(),
            first: None,
            has_data: false,
        }
    }

    /// Adds the answer for the next element; `None` if the element was not called. Fails if this answer fails the part.
    fn add(&mut self, answer: Option<PartResult>) -> Result<(), PartFault> {
        let index = self.added;
        self.added += 1;
        match answer {
            None => self.push_nothing(),
            Some(PartResult::Body(item)) => {
                self.has_data = true;
                self.push(item.bytes())
            }
            Some(PartResult::Absent) => {
                self.has_data = true;
                self.push(NULL)
            }
            Some(PartResult::Some(item, fault)) => {
                self.has_data = true;
                self.note(index, fault);
                self.push(item.bytes())
            }
            Some(PartResult::Failed(fault)) if self.on_failure == OnFailure::Fail => {
                self.note(index, fault.clone());
                Err(self.all(fault))
            }
            Some(PartResult::Failed(fault)) => {
                self.note(index, fault);
                self.push_nothing()
            }
        }
    }

    fn note(&mut self, index: usize, fault: PartFault) {
        self.failed += 1;
        if self.listed.len() < MOST_LISTED {
            self.listed.push(FailedElement {
                index,
                reason: fault.reason(),
                status: fault.status(),
            });
        }
        self.first.get_or_insert(fault);
    }

    /// Adds what stands for an element that has no answer.
    fn push_nothing(&mut self) -> Result<(), PartFault> {
        match self.keeps_positions || self.on_failure == OnFailure::Null {
            true => self.push(NULL),
            false => Ok(()),
        }
    }

    fn push(&mut self, item: &[u8]) -> Result<(), PartFault> {
        if self.array.len() + item.len() + 2 > self.limit.value {
            return Err(PartFault::new(Cause::TooLarge).by(self.limit.by));
        }
        if self.array.len() > 1 {
            self.array.put_u8(b',');
        }
        self.array.extend_from_slice(item);
        Ok(())
    }

    /// Returns the fault of the whole part. `first` is the fault of its first failed element.
    fn all(&self, first: PartFault) -> PartFault {
        PartFault {
            retry_after: first.retry_after,
            served: first.served.clone(),
            ..PartFault::new(Cause::Elements {
                failed: self.failed,
                of: self.of,
                first: Box::new(first),
                elements: self.listed.clone().into(),
            })
        }
    }

    fn finish(mut self) -> PartResult {
        self.array.put_u8(b']');
        let fault = self.first.take().map(|first| self.all(first));
        let array = || Document::from_checked(self.array.freeze());
        match fault {
            None => PartResult::Body(array()),
            Some(fault) if self.has_data => PartResult::Some(array(), fault),
            Some(fault) => PartResult::Failed(fault),
        }
    }
}

const NULL: &[u8] = b"null";

/// Most failed elements that are listed one by one.
const MOST_LISTED: usize = 16;

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use crate::message::FieldMap;
    use bytes::Bytes;
    use http::StatusCode;
    use http::uri::PathAndQuery;
    use policies::Moment;
    use proptest::prelude::*;
    use tokio::runtime::Builder;
    use tokio::time::{Instant, sleep};

    use super::super::fault::Missing;
    use super::*;
    use crate::call::CallBody;
    use crate::json::Workspace;
    use crate::rejection::Reason;
    use crate::template::Placeholder;

    const ROOM: usize = 1 << 20;

    const fn bytes(value: usize) -> Configured<usize> {
        Configured {
            value,
            by: crate::setting::SettingId::URI,
        }
    }

    /// Result of one element's call.
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
            embeds: false,
        }
    }

    fn missing() -> PartFault {
        PartFault::new(Cause::ValueMissing(Missing::InRequest))
    }

    /// Makes an array of `count` elements.
    fn array(count: usize) -> Vec<ListElement> {
        let array = Document::of(&vec![0; count]);
        elements(&array, count, &Arc::default(), None).unwrap()
    }

    fn reservation() -> Reservation {
        Arc::new(Workspace::new(1)).reserve(u64::MAX, 0, (Moment::MAX, None))
    }

    /// Makes a request with its index as the target and a body of `body` bytes.
    fn numbered(index: usize, body: usize) -> PartRequest {
        PartRequest {
            target: PathAndQuery::try_from(format!("/{index}")).unwrap(),
            headers: FieldMap::new(),
            body: CallBody::Whole(vec![b' '; body].into()),
        }
    }

    /// Returns the result and the largest number of calls that ran at the same time.
    fn run(terms: &ForEach, acts: &[Act], delays: &[u64], room: usize) -> (PartResult, usize) {
        let make = |index: usize, _: &Selection| match &acts[index] {
            Act::Omit => Element::Omitted,
            Act::Lack => Element::Failed(missing()),
            _ => Element::Call(numbered(index, 0)),
        };
        let (running, most) = (Cell::new(0_usize), Cell::new(0));
        let call = |_, request: PartRequest| {
            running.set(running.get() + 1);
            most.set(most.get().max(running.get()));
            let running = &running;
            async move {
                let index: usize = request.target.as_str()[1..].parse().unwrap();
                sleep(Duration::from_millis(delays[index % delays.len()])).await;
                running.set(running.get() - 1);
                let result = match &acts[index] {
                    Act::Answer(body) => {
                        PartResult::of(StatusCode::OK, &Bytes::from_static(body.as_bytes()), usize::MAX, None)
                    }
                    Act::Absent => PartResult::Absent,
                    Act::Fail(status) => {
                        PartResult::of(StatusCode::from_u16(*status).unwrap(), &Bytes::new(), usize::MAX, None)
                    }
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
        let reservation = reservation();
        let result = runtime.block_on(for_each(
            terms,
            &array(acts.len()),
            bytes(room),
            &reservation,
            make,
            call,
        ));
        (result, most.get())
    }

    /// Describes an array as text, followed by its failures as `failed/of first`. A failed part is described by its
    /// fault alone.
    fn told(result: &PartResult) -> String {
        let fault_text = |fault: &PartFault| match &fault.cause {
            Cause::Elements { failed, of, first, .. } => format!("{failed}/{of} {}", first.status().as_u16()),
            _ => fault.reason().to_owned(),
        };
        match result {
            PartResult::Body(body) => body.value().to_string(),
            PartResult::Some(body, fault) => format!("{} {}", body.value(), fault_text(fault)),
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
        let calls = Cell::new(0);
        let call = |_, _| {
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
            let make = |index: usize, _: &Selection| Element::Call(numbered(index, 0));
            let terms = terms(3, OnFailure::Fail);
            let result = for_each(&terms, &array(10), bytes(ROOM), &reservation(), make, call).await;
            assert_eq!(
                (told(&result).as_str(), begun.elapsed()),
                ("1/10 503", Duration::from_millis(5))
            );
        });
        assert_eq!(calls.get(), 3);
    }

    #[test]
    fn a_request_is_made_when_its_turn_comes_and_counted() {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        // Counts the requests that exist at the same time, with bodies of `body` bytes and a budget of reserved bytes.
        let check = |body: usize, budget: u64, expected: &str, most_expected: usize| {
            let workspace = Arc::new(Workspace::new(1));
            let reservation = workspace.reserve(budget, 0, (Moment::MAX, None));
            let (made, ended, most, most_bytes) = (Cell::new(0_usize), Cell::new(0), Cell::new(0), Cell::new(0));
            let make = |index: usize, _: &Selection| Element::Call(numbered(index, body));
            let call = |_, _: PartRequest| {
                made.set(made.get() + 1);
                most.set(most.get().max(made.get() - ended.get()));
                most_bytes.set(most_bytes.get().max(workspace.reserved()));
                async {
                    sleep(Duration::from_millis(1)).await;
                    ended.set(ended.get() + 1);
                    Called::from(PartResult::Absent)
                }
            };
            let terms = terms(20, OnFailure::Fail);
            let result = runtime.block_on(for_each(&terms, &array(50), bytes(ROOM), &reservation, make, call));
            assert_eq!(told(&result), expected, "{body}");
            assert_eq!(most.get(), most_expected, "{body}");
            assert!(most_bytes.get() >= (most_expected * body) as u64 && most_bytes.get() <= budget);
            if let PartResult::Body(_) = result {
                assert_eq!(workspace.reserved(), 0);
            }
        };
        let nulls = format!("[{}null]", "null,".repeat(49));
        check(0, u64::MAX, &nulls, 20);
        check(UNDER_WAY / 4, u64::MAX, &nulls, 4);
        check(2 * UNDER_WAY, u64::MAX, &nulls, 1);
        // The fifth request is refused: a tenant may reserve at most half of the budget.
        check(1_000, 10_000, "1/50 503", 4);
    }

    #[test]
    fn an_array_is_taken_apart_up_to_its_limit() {
        let check = |array: &'static str, limit, expected: Option<&[&str]>| {
            let array = Document::check(&Bytes::from_static(array.as_bytes()), usize::MAX).unwrap();
            let whole = Arc::new(Paths::new([&[][..]]));
            let found = elements(&array, limit, &whole, None).map(|all| {
                let texts = all.iter().map(|element| element.wanted.get(&[]).unwrap().to_string());
                texts.collect::<Vec<_>>()
            });
            let expected = expected.map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>());
            assert_eq!(found, expected, "{:?}", array);
        };
        check("[]", 1, Some(&[]));
        check("[1.0, {\"a\": [2]} ]", 2, Some(&["1.0", "{\"a\": [2]}"]));
        check("[1,2,3]", 2, None);
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

        /// The result depends on the outcomes of the elements, never on their times. No more calls run at once than
        /// allowed.
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

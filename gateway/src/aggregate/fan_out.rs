//! Runs the parts of a recipe on the caller's own task. Each part starts when all parts that it needs have succeeded.
//!
//! Invariant: after a required part has failed, no part starts any more and the running parts are dropped, which
//! cancels their calls. Failures that are ready at the same instant are all recorded, so that the recipe's order, not
//! chance, decides which failure is reported.
//!
//! Knows nothing of requests or backends: `render` makes the requests and `call` makes the calls.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::StatusCode;
use smallvec::{SmallVec, smallvec};

use super::contribution::Contribution;
use super::draft::OnMissing;
use super::fault::{Cause, Missing, PartFault};
use super::part::Part;
use super::recipe::Recipe;
use crate::json::{Document, Reservation, Selection};

/// Result of a part's call.
#[derive(Debug, Clone)]
pub enum PartResult {
    /// Whole body of a 2xx answer.
    Body(Document),
    /// Incomplete data and its fault: a fallback in place of a failed part's answer, an answer that declares itself
    /// incomplete, or the array of a `for_each` part of which some elements failed.
    Some(Document, PartFault),
    /// Success without a body: 204, 205, an empty 2xx other than 200, or any 2xx to HEAD.
    Absent,
    Failed(PartFault),
}

impl PartResult {
    /// Classifies a complete answer by its status and body. Any 2xx is a success. A 200 must have a body; other 2xx may
    /// have none. A body must be JSON of at most `limit` bytes, otherwise the part fails.
    pub fn of(status: StatusCode, body: &Bytes, limit: usize, retry_after: Option<Duration>) -> Self {
        let has_none = matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT);
        if !status.is_success() {
            return Self::Failed(PartFault {
                retry_after,
                ..PartFault::new(Cause::Status(status))
            });
        }
        if has_none || (body.is_empty() && status != StatusCode::OK) {
            return Self::Absent;
        }
        match Document::check(body, limit) {
            Ok(document) => Self::Body(document),
            Err(refusal) => Self::Failed(refusal.into()),
        }
    }
}

/// Result of a call, and the backend's status if it answered.
#[derive(Debug, Clone)]
pub struct Called {
    pub status: Option<StatusCode>,
    pub result: PartResult,
}

impl From<PartResult> for Called {
    fn from(result: PartResult) -> Self {
        let status = match &result {
            PartResult::Failed(fault) => fault.backend_status(),
            _ => None,
        };
        Self { status, result }
    }
}

/// Reason not to call a part although all parts that it needs have succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotCalled {
    Missing(Missing),
    /// The part's condition is false.
    Unwanted,
}

impl From<Missing> for NotCalled {
    fn from(missing: Missing) -> Self {
        Self::Missing(missing)
    }
}

/// Final state of a part.
#[derive(Debug, Clone)]
pub enum Outcome {
    Data(Contribution),
    /// The part failed, fully or for some of its elements, but has data: a fallback or the other elements.
    Incomplete(Contribution, Box<PartFault>),
    Absent,
    /// The recipe left the part out: its condition is false, a value that may be skipped was missing, or it needs a
    /// part that was left out.
    Skipped,
    Failed(PartFault),
    /// The part was cancelled or never started, because a required part had failed.
    Cancelled,
}

impl Outcome {
    /// Bytes that the part contributes to the answer.
    pub fn size(&self) -> usize {
        match self {
            Self::Data(found) | Self::Incomplete(found, _) => found.size(),
            Self::Absent | Self::Skipped | Self::Failed(_) | Self::Cancelled => 0,
        }
    }
}

/// Read access to the parts that have ended.
#[derive(Clone, Copy)]
pub struct EndedParts<'v> {
    recipe: &'v Recipe,
    states: &'v [PartState],
}

impl<'v> EndedParts<'v> {
    /// Returns the values that other parts take from a part's answer, or `None` if it has no answer.
    pub fn answer(&self, part: &str) -> Option<&'v Arc<Selection>> {
        self.states[self.recipe.index_of(part)?].value.as_ref()
    }

    /// Returns the status of a part's backend, if it answered.
    pub fn status(&self, part: &str) -> Option<StatusCode> {
        self.states[self.recipe.index_of(part)?].status
    }
}

/// Runs every part of `recipe` and returns the outcomes in declared order.
///
/// `render` makes the request of the part with the given index, with values from earlier answers. It is called once for
/// each part that starts, in declared order if several parts can start. `call` makes the call; dropping its future
/// cancels the call. `reservation` decides where long answers are read.
pub async fn fan_out<R, F>(
    recipe: &Recipe,
    reservation: &Reservation,
    render: impl Fn(usize, EndedParts<'_>) -> Result<R, NotCalled>,
    call: impl Fn(usize, R) -> F,
) -> Vec<Outcome>
where
    F: Future<Output: Into<Called>>,
{
    let mut progress = Progress::new(recipe);
    let mut running = FuturesUnordered::new();
    while !progress.has_fatal_failure {
        if let Some(index) = progress.ready.pop_front() {
            match progress.render(index, &render) {
                Ok(request) => {
                    let answer = call(index, request);
                    let part = &recipe.parts()[index];
                    running.push(async move { (index, read(part, answer.await.into(), reservation).await) });
                }
                Err(outcome) => progress.settle(index, outcome),
            }
            continue;
        }
        let Some((index, result)) = running.next().await else {
            break;
        };
        progress.take(index, result);
        while let Some(Some((index, result))) = running.next().now_or_never() {
            progress.take(index, result);
        }
    }
    progress.finish()
}

/// Part whose call has ended and whose answer has been read.
struct Ended {
    status: Option<StatusCode>,
    outcome: Outcome,
    /// Size of the answer in bytes.
    size: usize,
    /// Values that other parts take from the answer.
    value: Option<Arc<Selection>>,
}

/// Reads and shapes an answer.
async fn read(part: &Arc<Part>, called: Called, reservation: &Reservation) -> Ended {
    let without = |outcome| Ended {
        status: called.status,
        outcome,
        size: 0,
        value: None,
    };
    let (document, fault) = match called.result {
        PartResult::Body(document) => (document, None),
        PartResult::Some(document, fault) => (document, Some(fault)),
        PartResult::Absent => return without(Outcome::Absent),
        PartResult::Failed(fault) => return without(Outcome::Failed(fault)),
    };
    let size = document.bytes().len();
    let own = Arc::clone(part);
    let (found, value) = match reservation.read(size, move || own.read(&document)).await {
        Ok(Ok(read)) => read,
        Ok(Err(cause)) => return without(Outcome::Failed(part.shape_fault(cause))),
        Err(blocked_outcome) => return without(Outcome::Failed(blocked_outcome.into())),
    };
    Ended {
        status: called.status,
        outcome: match fault {
            None => Outcome::Data(found),
            Some(fault) => Outcome::Incomplete(found, Box::new(fault)),
        },
        size,
        value: value.map(Arc::new),
    }
}

/// State of one part.
#[derive(Default)]
struct PartState {
    outcome: Option<Outcome>,
    status: Option<StatusCode>,
    /// Size of the answer in bytes.
    size: usize,
    /// Values that other parts take from the answer.
    value: Option<Arc<Selection>>,
    /// Number of awaited parts that have not ended yet.
    waiting_for: usize,
}

struct Progress<'r> {
    recipe: &'r Recipe,
    /// State of each part, in declared order.
    states: Vec<PartState>,
    ready: VecDeque<usize>,
    /// True once a required part has failed.
    has_fatal_failure: bool,
}

impl PartState {
    fn waiting_for(parts: usize) -> Self {
        Self {
            waiting_for: parts,
            ..Self::default()
        }
    }
}

impl<'r> Progress<'r> {
    fn new(recipe: &'r Recipe) -> Self {
        let parts = recipe.parts();
        Self {
            recipe,
            states: parts
                .iter()
                .map(|part| PartState::waiting_for(part.awaits.len()))
                .collect(),
            ready: (0..parts.len())
                .filter(|index| parts[*index].awaits.is_empty())
                .collect(),
            has_fatal_failure: false,
        }
    }

    fn render<R>(
        &self,
        index: usize,
        render: impl Fn(usize, EndedParts<'_>) -> Result<R, NotCalled>,
    ) -> Result<R, Outcome> {
        let earlier = EndedParts {
            recipe: self.recipe,
            states: &self.states,
        };
        render(index, earlier).map_err(|why| match (why, self.recipe.parts()[index].on_missing) {
            (NotCalled::Unwanted, _) | (NotCalled::Missing(_), OnMissing::Skip) => Outcome::Skipped,
            (NotCalled::Missing(missing), OnMissing::Fail) => {
                Outcome::Failed(PartFault::new(Cause::ValueMissing(missing)))
            }
        })
    }

    fn take(&mut self, index: usize, ended: Ended) {
        let state = &mut self.states[index];
        state.status = ended.status;
        state.size = ended.size;
        state.value = ended.value;
        self.settle(index, ended.outcome);
    }

    /// Returns the outcome of every part. The size limit is applied here in declared order, because only then all sizes
    /// are known.
    fn finish(self) -> Vec<Outcome> {
        // After a fatal failure no limit is applied, so that the failed required part is the one reported.
        let mut room = if self.has_fatal_failure {
            usize::MAX
        } else {
            self.recipe.body_limit.map_or(usize::MAX, |limit| limit.value)
        };
        let too_large = PartFault {
            setting: self.recipe.body_limit.map(|limit| limit.by),
            ..PartFault::new(Cause::TooLarge)
        };
        self.states
            .into_iter()
            .map(
                |PartState { outcome, size, .. }| match outcome.unwrap_or(Outcome::Cancelled) {
                    Outcome::Data(_) | Outcome::Incomplete(..) if size > room => Outcome::Failed(too_large.clone()),
                    taken @ (Outcome::Data(_) | Outcome::Incomplete(..)) => {
                        room -= size;
                        taken
                    }
                    other => other,
                },
            )
            .collect()
    }

    /// Records an outcome and the outcomes that follow from it. A loop, not recursion, because one part may settle a
    /// long chain of parts.
    fn settle(&mut self, index: usize, outcome: Outcome) {
        let mut ended: SmallVec<[(usize, Outcome); 1]> = smallvec![(index, outcome)];
        while let Some((index, outcome)) = ended.pop() {
            let part = &self.recipe.parts()[index];
            let is_fatal = part.required && matches!(outcome, Outcome::Failed(_));
            self.states[index].outcome = Some(outcome);
            if is_fatal {
                // Dependent parts are cancelled, not failed, so that this part is the one reported.
                self.has_fatal_failure = true;
                continue;
            }
            for dependent in &part.awaited_by {
                let waiting_for = &mut self.states[*dependent].waiting_for;
                *waiting_for -= 1;
                // Decided only when the last awaited part has ended, so that their order in time does not matter.
                if *waiting_for == 0 {
                    match self.blocked_outcome(*dependent) {
                        Some(outcome) => ended.push((*dependent, outcome)),
                        None => self.ready.push_back(*dependent),
                    }
                }
            }
        }
    }

    /// Returns the outcome of a part that cannot start because of the parts that it needs. A fallback value is for the
    /// caller only; it does not make a needed part succeed.
    fn blocked_outcome(&self, index: usize) -> Option<Outcome> {
        let parts = self.recipe.parts();
        let needs = || {
            parts[index]
                .needs
                .iter()
                .map(|need| (&parts[*need].name, &self.states[*need].outcome))
        };
        let failed = needs().find_map(|(name, outcome)| match outcome {
            Some(Outcome::Failed(fault)) => Some(Outcome::Failed(fault.passed_on(name))),
            _ => None,
        });
        failed.or_else(|| {
            needs()
                .any(|(_, outcome)| matches!(outcome, Some(Outcome::Skipped)))
                .then_some(Outcome::Skipped)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use tokio::time::{Instant, sleep};

    use super::super::draft::{PartDraft, Partial, RecipeDraft};
    use super::*;
    use crate::json::Workspace;
    use crate::rejection::Reason;
    use crate::setting::{Configured, SettingId};
    use policies::Moment;

    fn part(name: &str, needs: &[&str]) -> PartDraft {
        let needs = needs.iter().map(ToString::to_string).collect();
        PartDraft {
            name: name.into(),
            needs,
            ..PartDraft::default()
        }
    }

    fn required(draft: PartDraft) -> PartDraft {
        PartDraft {
            required: true,
            ..draft
        }
    }

    fn recipe(parts: Vec<PartDraft>) -> Recipe {
        Recipe::compile(RecipeDraft {
            parts,
            partial: Partial::Allow,
            ..RecipeDraft::default()
        })
        .unwrap()
    }

    fn answer(text: &'static str) -> PartResult {
        PartResult::of(StatusCode::OK, &Bytes::from_static(text.as_bytes()), usize::MAX, None)
    }

    fn body() -> PartResult {
        answer(r#"{"id":7}"#)
    }

    fn room() -> Reservation {
        Arc::new(Workspace::new(1)).reserve(u64::MAX, 0, (Moment::MAX, None))
    }

    fn down() -> PartResult {
        PartResult::Failed(PartFault::new(Cause::Call(Reason::BackendTimeout)))
    }

    /// Runs the recipe; each part's result comes after its time. Also returns which part started after how many
    /// milliseconds.
    async fn run(recipe: &Recipe, script: &[(u64, PartResult)]) -> (Vec<Outcome>, Vec<(usize, u64)>) {
        let start = Instant::now();
        let started = RefCell::new(Vec::new());
        let room = room();
        let outcomes = fan_out(
            recipe,
            &room,
            |_, _| Ok(()),
            |index, ()| {
                started.borrow_mut().push((index, start.elapsed().as_millis() as u64));
                let (delay, result) = script[index].clone();
                async move {
                    sleep(Duration::from_millis(delay)).await;
                    result
                }
            },
        )
        .await;
        (outcomes, started.into_inner())
    }

    /// Encodes each outcome as one letter.
    fn letters(outcomes: &[Outcome]) -> String {
        let letter = |outcome: &Outcome| match outcome {
            Outcome::Data(_) => 'd',
            Outcome::Incomplete(..) => 'i',
            Outcome::Absent => 'a',
            Outcome::Skipped => 's',
            Outcome::Failed(_) => 'f',
            Outcome::Cancelled => 'c',
        };
        outcomes.iter().map(letter).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn three_parts_of_100_ms_take_100_ms() {
        let recipe = recipe(vec![part("a", &[]), part("b", &[]), part("c", &[])]);
        let start = Instant::now();
        let (outcomes, _) = run(&recipe, &[(100, body()), (100, body()), (100, body())]).await;
        assert_eq!(start.elapsed(), Duration::from_millis(100));
        assert_eq!(letters(&outcomes), "ddd");
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_starts_when_the_last_of_its_needs_has_succeeded() {
        let recipe = recipe(vec![
            part("c", &["a", "b"]),
            part("a", &[]),
            part("b", &[]),
            part("d", &["a"]),
        ]);
        let script = [(1, body()), (10, body()), (30, PartResult::Absent), (100, body())];
        let (outcomes, started) = run(&recipe, &script).await;
        assert_eq!(started, [(1, 0), (2, 0), (3, 10), (0, 30)]);
        assert_eq!(letters(&outcomes), "ddad");
    }

    #[tokio::test(start_paused = true)]
    async fn what_needs_a_failed_part_fails_with_it_and_never_starts() {
        let recipe = recipe(vec![
            part("a", &[]),
            part("b", &["a"]),
            part("c", &["b"]),
            part("d", &[]),
        ]);
        let (outcomes, started) = run(&recipe, &[(5, down()), (0, body()), (0, body()), (50, body())]).await;
        assert_eq!(started, [(0, 0), (3, 0)]);
        assert_eq!(letters(&outcomes), "fffd");
        let Outcome::Failed(fault) = &outcomes[2] else {
            panic!("{outcomes:?}")
        };
        assert!(
            matches!(&fault.cause, Cause::NeedFailed(part, _) if **part == *"a"),
            "{fault:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_required_part_drops_its_siblings_at_once() {
        struct Guard<'a>(&'a Cell<u32>);
        impl Drop for Guard<'_> {
            fn drop(&mut self) {
                self.0.set(self.0.get() + 1);
            }
        }

        let recipe = recipe(vec![
            part("a", &[]),
            required(part("b", &[])),
            part("c", &[]),
            part("d", &["c"]),
        ]);
        let dropped = Cell::new(0);
        let start = Instant::now();
        let call = |index, ()| {
            let guard = Guard(&dropped);
            async move {
                let _guard = guard;
                if index == 1 {
                    sleep(Duration::from_millis(20)).await;
                    return down();
                }
                std::future::pending().await
            }
        };
        let outcomes = fan_out(&recipe, &room(), |_, _| Ok(()), call).await;
        assert_eq!(letters(&outcomes), "cfcc");
        assert_eq!(start.elapsed(), Duration::from_millis(20));
        assert_eq!(
            dropped.get(),
            3,
            "every call that was made has ended, and `d` was never made"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn failures_of_the_same_instant_are_all_noted() {
        let recipe = recipe(vec![part("z", &[]), required(part("a", &[])), required(part("b", &[]))]);
        let (outcomes, _) = run(&recipe, &[(9, body()), (5, down()), (5, down())]).await;
        assert_eq!(letters(&outcomes), "cff");
    }

    #[tokio::test(start_paused = true)]
    async fn a_required_parts_failure_is_not_blamed_on_another_need() {
        let recipe = recipe(vec![
            part("a", &[]),
            required(part("b", &["a", "c"])),
            required(part("c", &[])),
        ]);
        for (delays, expected) in [([1, 2], "fcf"), ([2, 2], "fcf"), ([2, 1], "ccf")] {
            let (outcomes, _) = run(&recipe, &[(delays[0], down()), (0, body()), (delays[1], down())]).await;
            assert_eq!(letters(&outcomes), expected, "{delays:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_not_json_is_a_failed_part() {
        let recipe = recipe(vec![required(part("a", &[])), part("b", &[])]);
        let html = answer("<html>");
        let (outcomes, _) = run(&recipe, &[(5, html), (9, body())]).await;
        assert!(matches!(&outcomes[0], Outcome::Failed(fault) if fault.cause == Cause::InvalidJson));
        assert_eq!(letters(&outcomes), "fc");
    }

    #[tokio::test(start_paused = true)]
    async fn what_all_parts_have_together_is_bounded_in_declared_order() {
        let check = async |limit, script: &[(u64, PartResult)], expected: &str| {
            let recipe = Recipe::compile(RecipeDraft {
                parts: vec![
                    part("a", &[]),
                    part("b", &[]),
                    required(part("c", &["b"])),
                    part("d", &[]),
                ],
                partial: Partial::Allow,
                body_limit: Some(Configured {
                    value: limit,
                    by: SettingId::URI,
                }),
                ..RecipeDraft::default()
            });
            let (outcomes, _) = run(&recipe.unwrap(), script).await;
            assert_eq!(letters(&outcomes), expected, "{limit}");
        };
        let long = || answer(r#"{"id":7000}"#);
        for late in 0..4 {
            let at = |index| if index == late { 9 } else { 1 };
            let script = [
                (at(0), body()),
                (at(1), long()),
                (at(2), body()),
                (at(3), PartResult::Absent),
            ];
            check(27, &script, "ddda").await;
            check(26, &script, "ddfa").await;
            check(18, &script, "dfda").await;
            check(7, &script, "fffa").await;
        }
        let some = || match body() {
            PartResult::Body(document) => PartResult::Some(document, PartFault::new(Cause::InvalidJson)),
            other => other,
        };
        check(
            15,
            &[(1, some()), (1, some()), (1, PartResult::Absent), (1, down())],
            "ifaf",
        )
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_takes_values_from_earlier_answers() {
        let credit = PartDraft {
            splices: vec!["user".into()],
            ..part("credit", &[])
        };
        let recipe = recipe(vec![credit, part("user", &[])]);
        let render = |index, earlier: EndedParts<'_>| match index {
            0 => earlier
                .answer("user")
                .and_then(|user| Some(format!("/credit/{}", user.get(&[])?.get("id")?)))
                .ok_or(Missing::InAnswer.into()),
            _ => Ok("/user".to_owned()),
        };
        let requests = RefCell::new(Vec::new());
        let call = |_, request| {
            requests.borrow_mut().push(request);
            std::future::ready(body())
        };
        let outcomes = fan_out(&recipe, &room(), render, call).await;
        assert_eq!(letters(&outcomes), "dd");
        assert_eq!(requests.into_inner(), ["/user", "/credit/7"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_missing_value_skips_or_fails_what_depends_on_it() {
        let check = async |on_missing, drafts: Vec<PartDraft>, expected: &str| {
            let mut drafts = drafts;
            drafts[0].on_missing = on_missing;
            let recipe = recipe(drafts);
            let render = |index, _: EndedParts<'_>| {
                if index == 0 {
                    Err(Missing::InRequest.into())
                } else {
                    Ok(())
                }
            };
            let outcomes = fan_out(&recipe, &room(), render, |_, ()| std::future::ready(body())).await;
            assert_eq!(letters(&outcomes), expected, "{on_missing:?}");
        };
        let optional = || vec![part("a", &[]), part("b", &["a"]), part("c", &[])];
        check(OnMissing::Skip, optional(), "ssd").await;
        check(OnMissing::Fail, optional(), "ffd").await;
        let needed = || vec![required(part("a", &[])), part("b", &["a"]), part("c", &[])];
        check(OnMissing::Skip, needed(), "ssd").await;
        check(OnMissing::Fail, needed(), "fcc").await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_may_wait_for_another_that_fails_and_see_its_status() {
        let create = PartDraft {
            after: vec!["find".into()],
            ..part("create", &[])
        };
        let recipe = recipe(vec![create, part("find", &[]), part("log", &["create"])]);
        let check = async |status: u16, expected: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            let render = |index, earlier: EndedParts<'_>| match (index, earlier.status("find")) {
                (0, Some(StatusCode::NOT_FOUND)) | (1 | 2, _) => Ok(index),
                _ => Err(NotCalled::Unwanted),
            };
            let call = |_, index| {
                let called = Called {
                    status: Some(status),
                    result: PartResult::of(status, &Bytes::from_static(b"{}"), usize::MAX, None),
                };
                std::future::ready(if index == 1 { called } else { body().into() })
            };
            let outcomes = fan_out(&recipe, &room(), render, call).await;
            assert_eq!(letters(&outcomes), expected, "{status}");
        };
        check(404, "dfd").await;
        check(200, "sds").await;
        check(500, "sfs").await;
    }

    #[test]
    fn a_backends_status_says_what_a_part_has() {
        let check = |status: u16, body: &'static [u8], expected: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            let result = PartResult::of(status, &Bytes::from_static(body), usize::MAX, None);
            let found = match result {
                PartResult::Body(_) => "body",
                PartResult::Some(..) => unreachable!("one answer has no elements"),
                PartResult::Absent => "absent",
                PartResult::Failed(_) => "failed",
            };
            assert_eq!(found, expected, "{status} {body:?}");
        };
        check(200, b"{}", "body");
        check(200, b"", "failed");
        check(200, b"<html>", "failed");
        check(201, b"{}", "body");
        check(201, b"", "absent");
        check(202, b"", "absent");
        check(204, b"", "absent");
        check(301, b"{}", "failed");
        check(404, b"{}", "failed");
        check(503, b"", "failed");
    }
}

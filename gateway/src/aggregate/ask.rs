//! Makes the calls of one part. Each is a full guarded call within the part's share of the deadline. If the backend
//! gives no good answer, the part's fallbacks are tried in order.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode, header};
use http_body_util::BodyExt;
use policies::Deadline;

use super::answer::is_said_to_be_incomplete;
use super::compiled::Aggregate;
use super::draft::Errors;
use super::error_body;
use super::fan_out::{Called, PartResult};
use super::fault::{Cause, ErrorAnswer, PartFault, Substitute};
use super::for_each::{ListElement, elements, for_each};
use super::notes::{Notes, notes_lack};
use super::part::Part;
use super::part_call::{ForEach, PartCall, PartFallback};
use super::render::{Array, ELEMENTS_LIMIT, PartRequest, Rendered};
use super::request::Request;
use crate::cache::{self, CachedAnswer, Key, Terms, conditional};
use crate::call::backend::{Backend, BackendSettingIds};
use crate::call::reply::ReplyBody;
use crate::call::{self, CallRequest, Facts, Streaming};
use crate::clock;
use crate::json::{self, Document, GatherError, Reservation, Selection, WorkspaceError};
use crate::message::{FieldMap, ResponseHead};
use crate::observe::{Attempts, Outcome};
use crate::rejection::Reason;
use crate::setting::{Configured, SettingId};
use crate::wire::content_encoding::{Codings, DecodeError};

/// Makes the calls of one part for one request.
#[derive(Clone, Copy)]
pub(super) struct PartCaller<'a> {
    pub(super) aggregate: &'a Aggregate,
    pub(super) part: &'a PartCall,
    pub(super) request: &'a Request<'a>,
    pub(super) index: usize,
    /// Index of the element that is asked for, from 0.
    pub(super) element: Option<u32>,
    /// Whether the request asks the backend to confirm a stored answer, so that a 304 is an answer.
    pub(super) confirms: bool,
    notes: &'a Mutex<Notes>,
}

/// Time limits of one part's calls.
#[derive(Clone, Copy)]
struct PartLimits {
    deadline: Deadline,
    /// Setting that `deadline` comes from; `None` if the caller set it.
    deadline_by: Option<SettingId>,
    /// Deadline by the operators' limits alone, without the caller's own limit.
    by_operator: Deadline,
}

/// Settings by which an answer can fail while its body is read.
#[derive(Clone, Copy)]
pub(super) struct ReadSettings {
    /// Setting that limits the time; `None` if the caller set it.
    pub(super) time: Option<SettingId>,
    pub(super) backend: BackendSettingIds,
}

impl ReadSettings {
    /// Returns the fault of an answer that broke off.
    fn broken(self, reason: Reason) -> PartFault {
        let setting = match reason {
            Reason::OutOfTime => self.time,
            Reason::BulkheadFull => Some(self.backend.bulkhead.slots),
            _ => Some(self.backend.endpoints),
        };
        PartFault {
            setting,
            ..PartFault::new(Cause::Call(reason))
        }
    }
}

impl<'a> PartCaller<'a> {
    pub(super) fn new(
        aggregate: &'a Aggregate,
        request: &'a Request<'a>,
        index: usize,
        notes: &'a Mutex<Notes>,
    ) -> Self {
        Self {
            aggregate,
            part: &aggregate.calls[index],
            request,
            index,
            element: None,
            confirms: false,
            notes,
        }
    }

    pub(super) async fn call(self, rendered: Rendered) -> Called {
        let now = clock::now();
        let within = |deadline: Deadline| match self.part.time_limit {
            Some(limit) => deadline.child(now, limit),
            None => deadline,
        };
        let deadline = within(self.request.deadline);
        let limits = PartLimits {
            deadline,
            deadline_by: if deadline < self.request.deadline {
                Some(self.part.ids.time_limit)
            } else {
                self.request.deadline_by
            },
            by_operator: within(self.request.operator_deadline),
        };
        match (rendered, &self.part.for_each) {
            (Rendered::Once(request), _) => self.ask_once(request, limits).await,
            (Rendered::Each(array), Some(terms)) => self.ask_each(&array, terms, limits).await.into(),
            (Rendered::Impossible(cause), _) => PartResult::Failed(PartFault::new(cause)).into(),
            (Rendered::Each(_), None) => unreachable!("elements come from `for_each`"),
        }
    }

    async fn ask_once(self, request: PartRequest, limits: PartLimits) -> Called {
        let size = request.size();
        let reservation = self.request.reservation;
        if let Err(blocked_outcome) = reservation.grow(size, size) {
            return PartResult::Failed(blocked_outcome.into()).into();
        }
        let called = self.ask(None, request, limits).await;
        reservation.shrink(size);
        called
    }

    async fn ask_each(self, array: &Array, terms: &ForEach, limits: PartLimits) -> PartResult {
        let reservation = self.request.reservation;
        let (document, limit) = (array.document.clone(), terms.limit);
        let wanted = Arc::clone(&self.aggregate.item_paths[self.index]);
        let part = &self.aggregate.recipe.parts()[self.index];
        let own = Arc::clone(part);
        let read = reservation.read(document.bytes().len(), move || {
            elements(&document, limit, &wanted, own.element_place())
        });
        let is_sendable =
            |elements: &Vec<ListElement>| self.part.size_of_all(self.request, array, elements) <= ELEMENTS_LIMIT;
        let elements = match read.await {
            Ok(Some(elements)) if is_sendable(&elements) => elements,
            Ok(_) => return PartResult::Failed(PartFault::new(Cause::TooManyElements(array.whence))),
            Err(blocked_outcome) => return PartResult::Failed(blocked_outcome.into()),
        };
        let lacks = |what: &str, why: &str| notes_lack(self.notes, part, what, why);
        let make = |index: usize, item: &Selection| {
            self.part
                .render_element(part, self.request, array, (index, item), &lacks)
        };
        let ask = |element, request| Box::pin(self.ask(Some(element), request, limits));
        for_each(terms, &elements, self.part.body_limit, reservation, make, ask).await
    }

    /// Makes the call of the part, or the call for the element with this index.
    async fn ask(mut self, element: Option<u32>, request: PartRequest, limits: PartLimits) -> Called {
        self.element = element;
        let PartRequest { target, headers, body } = request;
        let (part, request) = (self.part, self.request);
        let mut order = CallRequest {
            method: part.method.clone(),
            target,
            headers,
            added: request.added.clone(),
            body,
            deadline: limits.deadline,
            deadline_by: limits.deadline_by,
            operator_deadline: limits.by_operator,
            caller_deadline: request.caller_deadline,
            trailers: false,
            operator_limit: part
                .time_limit
                .map_or(request.operator_limit, |limit| limit.min(request.operator_limit)),
            entrant: request.entrant,
            is_retry: request.is_retry,
            streaming: Streaming::Never,
            switches: false,
            interim: None,
            expects: false,
            cost_header: request.cost_header.cloned(),
            hash_keys: request.hash_keys.clone(),
            mirror: None,
            hedge: part.hedge.clone(),
        };
        if let (Some(terms), Some(caller)) = (&part.cache, request.cache_caller) {
            // Boxed, so that calls without a cache do not carry the size of this future.
            return Box::pin(self.ask_with_cache(&mut order, terms, caller)).await;
        }
        let (called, head) = if part.fallbacks.is_empty() {
            self.exchange(&part.backend, &mut order, &mut false).await
        } else {
            self.ask_or_fall_back(&mut order).await
        };
        self.hear(head);
        called
    }

    /// Calls the backend of the part, and its fallbacks if that fails. Returns the head as well if the answer is one of
    /// the part's own backend; those of others have been heard.
    pub(super) async fn ask_or_fall_back(self, order: &mut CallRequest) -> (Called, Option<ResponseHead>) {
        let mut sent = false;
        let (called, head) = self.exchange(&self.part.backend, order, &mut sent).await;
        let Some(fault) = outage(&called.result) else {
            if let (PartResult::Body(body), Some(head)) = (&called.result, &head) {
                self.keep_last_good(order, &head.headers, body.bytes());
            }
            return (called, head);
        };
        let key = self.key(order).map(|(key, _)| key);
        if self.confirms {
            // The tags of one backend mean nothing to another.
            conditional::ask_for_the_whole(&mut order.headers);
        }
        for fallback in &self.part.fallbacks {
            if let Some(called) = self.fall_back(fallback, order, key.as_ref(), &fault, &mut sent).await {
                return (called, None);
            }
        }
        let failed = Called {
            status: called.status,
            result: PartResult::Failed(fault),
        };
        (failed, None)
    }

    /// Keeps a good answer for the part's stale fallback, if it has one.
    pub(super) fn keep_last_good(self, order: &CallRequest, answered: &FieldMap, body: &Bytes) {
        let Some((key, terms)) = self.key(order) else { return };
        if !cache::may_be_kept(&order.headers, answered) {
            return;
        }
        let kept = CachedAnswer {
            status: StatusCode::OK,
            headers: FieldMap::new(),
            body: body.clone(),
            at: clock::now(),
            reuse: None,
        };
        self.aggregate.answers.cache.store().keep(key, kept, terms);
    }

    /// Returns the key and the terms for keeping a good answer, or `None` if the part has no stale fallback or the
    /// method is not repeatable.
    fn key(self, order: &CallRequest) -> Option<(Key, Terms)> {
        let within = |fallback: &PartFallback| match fallback {
            PartFallback::Stale(within) => Some(*within),
            PartFallback::Backend(_) => None,
        };
        let within = self.part.fallbacks.iter().filter_map(within).max()?;
        if !cache::is_repeatable(&order.method) {
            return None;
        }
        let part = self.aggregate.recipe.parts()[self.index].name();
        let place = [&*self.aggregate.route, part];
        let key = Key::of(&place, &order.method, order.target.as_str(), &order.headers);
        let tenant = order.entrant.tenant;
        Some((key, Terms { tenant, within }))
    }

    async fn fall_back(
        self,
        fallback: &PartFallback,
        order: &mut CallRequest,
        key: Option<&Key>,
        fault: &PartFault,
        sent: &mut bool,
    ) -> Option<Called> {
        match fallback {
            PartFallback::Stale(within) => {
                let now = clock::now();
                let kept = self.aggregate.answers.cache.store().recall(key?, now, *within)?;
                let fault = fault.clone().served_by(Substitute::Stale(now.since(kept.at)));
                Some(PartResult::Some(Document::from_checked(kept.body), fault).into())
            }
            PartFallback::Backend(backend) => {
                if *sent && !order.method.is_idempotent() {
                    return None;
                }
                // What is slow for one backend is not so for another.
                order.hedge = None;
                let (other, head) = self.exchange(backend, order, sent).await;
                if outage(&other.result).is_some() {
                    return None;
                }
                self.hear(head);
                let PartResult::Body(body) = other.result else {
                    // An absent body, a refusal or an incomplete answer of the fallback backend is passed on as it is.
                    return Some(other);
                };
                let fault = fault.clone().served_by(Substitute::Backend(Arc::clone(&backend.name)));
                Some(Called {
                    status: other.status,
                    result: PartResult::Some(body, fault),
                })
            }
        }
    }

    /// Makes one call with all its attempts. Returns the head as well if the answer is good. Sets `sent` to true if the
    /// backend may have received the request.
    async fn exchange(
        self,
        backend: &Arc<Backend>,
        order: &mut CallRequest,
        sent: &mut bool,
    ) -> (Called, Option<ResponseHead>) {
        let mut known = Known {
            asking: self,
            attempts: Attempts::default(),
            facts: Facts::default(),
        };
        let (attempts, facts) = (&mut known.attempts, &mut known.facts);
        let replied = call::call(backend, self.request.worker, order, attempts, facts).await;
        *sent |= known.facts.sent;
        let reply = match replied {
            Ok(reply) => reply,
            Err(rejection) => {
                return (PartResult::Failed(PartFault::of_rejection(&rejection)).into(), None);
            }
        };
        let head = reply.head;
        if !order.method.is_safe() && self.aggregate.answers.are_used {
            self.invalidate(backend, order, &head);
        }
        let retry_after = call::classify::retry_after(&head.headers);
        let ends_before = reply.body.ends_by().is_some_and(|last| last < order.deadline.moment());
        let settings = ReadSettings {
            time: if ends_before {
                Some(backend.ids.time_limit)
            } else {
                order.deadline_by
            },
            backend: backend.ids,
        };
        let (mut result, detail) = self.read(&head, reply.body, settings, retry_after).await;
        match &mut result {
            PartResult::Body(document) if is_said_to_be_incomplete(&head.headers) => {
                let incomplete = PartFault::new(Cause::Incomplete).by(backend.ids.endpoints);
                result = PartResult::Some(document.clone(), incomplete);
            }
            // An answer that cannot be used comes from the backend's endpoints, unless a limit refused it.
            PartResult::Failed(fault) if !matches!(fault.cause, Cause::Call(_)) => {
                fault.setting.get_or_insert(backend.ids.endpoints);
            }
            _ => {}
        }
        known.end(&result);
        drop(known);
        if let Some(detail) = detail {
            self.note(|notes| {
                let name = &backend.name;
                notes.facts.detail.get_or_insert_with(|| format!("{name}: {detail}"));
            });
        }
        let status = Some(head.status);
        let is_confirmation = self.confirms && head.status == StatusCode::NOT_MODIFIED;
        let is_good = is_confirmation || !matches!(result, PartResult::Failed(_));
        (Called { status, result }, is_good.then_some(head))
    }

    /// Reads and checks an answer's body, if the status and the method call for one. Returns the log detail with a body
    /// that is refused.
    async fn read(
        self,
        head: &ResponseHead,
        body: Box<ReplyBody>,
        settings: ReadSettings,
        retry_after: Option<Duration>,
    ) -> (PartResult, Option<String>) {
        let (status, limit) = (head.status, self.part.body_limit.value);
        let too_long = PartFault::new(Cause::TooLarge).by(self.part.body_limit.by);
        if !status.is_success() {
            let fault = PartFault {
                retry_after,
                error: self.read_error(head, body).await,
                ..PartFault::new(Cause::Status(status))
            };
            return (PartResult::Failed(fault), None);
        }
        if self.part.method == Method::HEAD {
            // A HEAD answer has no body: its status is the whole result.
            let result = match drain(body, limit).await {
                Ok(()) => PartResult::Absent,
                Err(DrainError::TooLong) => PartResult::Failed(too_long),
                Err(DrainError::Broken(reason)) => PartResult::Failed(settings.broken(reason)),
            };
            return (result, None);
        }
        let part = &self.aggregate.recipe.parts()[self.index];
        let limit = self.part.body_limit;
        read_body(head, body, (part, limit), self.request.reservation, settings).await
    }

    /// Ends the use of stored answers that a successful request has changed (RFC 9111 section 4.4).
    fn invalidate(self, backend: &Backend, order: &CallRequest, head: &ResponseHead) {
        if !head.status.is_success() && !head.status.is_redirection() {
            return;
        }
        let (cache, target) = (&self.aggregate.answers.cache, order.target.as_str());
        cache.invalidate_part(&backend.name, target);
        for changed in conditional::changed_targets(&head.headers, "", target) {
            cache.invalidate_part(&backend.name, &changed);
        }
    }

    /// Reads the details of an answer outside 2xx. An error while its body is read does not change the status.
    async fn read_error(self, head: &ResponseHead, body: Box<ReplyBody>) -> Option<Box<ErrorAnswer>> {
        let details = if self.aggregate.recipe.errors == Errors::Detailed {
            error_body::read(head, body, self.request.reservation).await
        } else {
            error_body::drain(body).await;
            None
        };
        let allow = (head.status == StatusCode::METHOD_NOT_ALLOWED)
            .then(|| head.headers.get(header::ALLOW).cloned())
            .flatten();
        (allow.is_some() || details.is_some()).then(|| Box::new(ErrorAnswer { allow, details }))
    }

    /// Records what a good answer's head adds to the whole answer.
    pub(super) fn hear(self, head: Option<ResponseHead>) {
        let Some(head) = head else { return };
        self.note(|notes| {
            notes.caching.add(&head.headers);
            notes.varies.add(&head.headers);
            if self.aggregate.keeps_head_of(self.index) {
                notes.heads.push((self.index, head));
            }
        });
    }

    pub(super) fn note(self, note: impl FnOnce(&mut Notes)) {
        note(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Attempts and facts of one call. They are recorded on drop, because a cancelled call may have been sent too.
struct Known<'a> {
    asking: PartCaller<'a>,
    attempts: Attempts,
    facts: Facts,
}

impl Known<'_> {
    /// Ends the last attempt, whose answer has been read with this result.
    fn end(&mut self, result: &PartResult) {
        let fault = match result {
            PartResult::Failed(fault) | PartResult::Some(_, fault) => Some(fault),
            PartResult::Body(_) | PartResult::Absent => None,
        };
        let (outcome, reason) = match fault.map(|fault| (&fault.cause, fault.reason())) {
            None | Some((Cause::Status(_), _)) => (None, None),
            Some((Cause::Call(reason), word)) => match Outcome::of(*reason) {
                Outcome::Refused => (None, Some(word)),
                outcome => (Some(outcome), None),
            },
            Some((Cause::Incomplete, word)) => (None, Some(word)),
            Some((_, word)) => (Some(Outcome::Invalid), Some(word)),
        };
        self.attempts.end(clock::now(), outcome, reason);
    }
}

impl Drop for Known<'_> {
    fn drop(&mut self) {
        let (facts, mut attempts) = (std::mem::take(&mut self.facts), std::mem::take(&mut self.attempts));
        if attempts.is_open() {
            attempts.end(clock::now(), Some(Outcome::Cancelled), None);
        }
        let asking = self.asking;
        attempts.set_part(asking.aggregate.recipe.parts()[asking.index].name(), asking.element);
        asking.note(|notes| {
            notes.facts.add(facts);
            notes.attempts.merge(attempts);
        });
    }
}

/// Reads and checks the body of a good answer to a part. Returns the log detail with a body that is refused.
pub(super) async fn read_body(
    head: &ResponseHead,
    body: Box<ReplyBody>,
    (part, body_limit): (&Arc<Part>, Configured<usize>),
    reservation: &Reservation,
    settings: ReadSettings,
) -> (PartResult, Option<String>) {
    let (status, limit) = (head.status, body_limit.value);
    let too_long = PartFault::new(Cause::TooLarge).by(body_limit.by);
    let codings = match Codings::read(&head.headers) {
        Ok(codings) => codings,
        Err(unsupported) => {
            let detail = unsupported.to_string();
            return (PartResult::Failed(PartFault::new(unsupported.into())), Some(detail));
        }
    };
    let whole = match json::gather(body, limit, reservation).await {
        Ok(whole) => whole,
        Err(GatherError::TooLong) => return (PartResult::Failed(too_long), None),
        Err(GatherError::Overloaded) => return (PartResult::Failed(WorkspaceError::Overloaded.into()), None),
        Err(GatherError::Broken(broken)) => return (PartResult::Failed(settings.broken(broken.reason())), None),
    };
    // The decoded length is unknown until decoding ends. Until then the full limit is reserved.
    let encoded = (!codings.is_empty()).then_some(limit.saturating_sub(whole.len()));
    if let Some(more) = encoded
        && let Err(blocked_outcome) = reservation.grow(more, limit)
    {
        return (PartResult::Failed(blocked_outcome.into()), None);
    }
    let length = if encoded.is_some() { limit } else { whole.len() };
    let part = Arc::clone(part);
    let read = reservation.read(length, move || {
        let text = match codings.undo(whole.into_text(), limit) {
            Ok(text) => json::without_mark(text),
            Err(undecodable) => {
                let detail = undecodable.to_string();
                let fault = match undecodable {
                    DecodeError::TooLarge => too_long,
                    DecodeError::Unsupported(_) | DecodeError::Damaged(_) => PartFault::new(undecodable.into()),
                };
                return (PartResult::Failed(fault), 0, Some(detail));
            }
        };
        let result = PartResult::of(status, &text, limit, None);
        if let PartResult::Body(document) = &result
            && !part.shape.has_target(document.value())
        {
            let fault = PartFault::new(Cause::TargetMissing);
            let detail = "there is nothing where `target` leads in its answer".to_owned();
            return (PartResult::Failed(fault), text.len(), Some(detail));
        }
        let is_refused = matches!(&result, PartResult::Failed(fault) if fault.cause == Cause::InvalidJson);
        let detail = is_refused.then(|| format!("refused at byte {} of its answer", json::refused_at(&text, limit)));
        (result, text.len(), detail)
    });
    let (result, decoded, detail) = match read.await {
        Ok(read) => read,
        Err(blocked_outcome) => return (PartResult::Failed(blocked_outcome.into()), None),
    };
    if let Some(more) = encoded {
        reservation.shrink(more.saturating_sub(decoded));
    }
    let detail = detail.map(|detail| match head.headers.get(header::CONTENT_TYPE) {
        Some(value) => format!("{detail} (content-type {value:?})"),
        None => format!("{detail} (without a content-type)"),
    });
    (result, detail)
}

/// Returns the fault if it is an outage that a fallback may replace.
pub(super) fn outage(result: &PartResult) -> Option<PartFault> {
    match result {
        PartResult::Failed(fault) => fault.is_outage().then(|| fault.clone()),
        PartResult::Body(_) | PartResult::Some(..) | PartResult::Absent => None,
    }
}

/// Reason why an unused body was not read to its end.
enum DrainError {
    TooLong,
    Broken(Reason),
}

/// Reads an unused body to its end, so that its connection can be reused. Fails if it has more than `limit` bytes.
async fn drain(mut body: Box<ReplyBody>, limit: usize) -> Result<(), DrainError> {
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|broken| DrainError::Broken(broken.reason()))?;
        length += frame.data_ref().map_or(0, Bytes::len);
        if length > limit {
            return Err(DrainError::TooLong);
        }
    }
    Ok(())
}

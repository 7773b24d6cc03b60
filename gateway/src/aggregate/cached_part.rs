//! Answers the calls of a part from the response cache, and stores what its backend answers.
//!
//! The cache decides ([`crate::cache::responses`]); this file waits, calls, and keeps what is used again: the answer as
//! it was received and checked, before it is shaped. Only answers that the part can use are stored.
//!
//! Invariant: a stored answer takes no slot, asks no breaker, and is counted by no backend.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HOST};
use http::{Method, StatusCode};
use policies::{Deadline, Moment};

use super::answer::is_said_to_be_incomplete;
use super::ask::{PartCaller, ReadSettings, outage, read_body};
use super::fan_out::{Called, PartResult};
use super::fault::{Cause, PartFault, Substitute};
use super::part::Part;
use crate::cache::cache_status::{CacheStatus, Forward};
use crate::cache::directives::RequestDirectives;
use crate::cache::flights::{Joined, Landing, Leader};
use crate::cache::freshness::Arrival;
use crate::cache::responses::{
    CacheCaller, CacheKeys, CacheRequest, CacheTerms, Found, ResponseCache, Step, Verdict, host_of_backend, is_failure,
};
use crate::cache::{BODY_LIMIT, CachedAnswer, conditional};
use crate::call::backend::Backend;
use crate::call::{self, CallRequest, Facts};
use crate::clock::{self, Now};
use crate::json::{Document, Reservation};
use crate::message::{FieldMap, Response, ResponseHead};
use crate::observe::{Attempts, CacheResult, Family};
use crate::rejection::{Reason, Rejection};
use crate::setting::Configured;

/// Number of times that a call looks again after the request that it waited for has left.
const MOST_WAITS: u32 = 3;

/// Facts of a part's request that the cache needs. They outlive the request.
struct CachedCall {
    route: Arc<str>,
    terms: Arc<CacheTerms>,
    caller: Arc<CacheCaller>,
    host: String,
    target: String,
    /// Name of the part, and the `Host` of the caller, which the backend may see.
    destination: [String; 2],
    headers: FieldMap,
    directives: RequestDirectives,
}

impl CachedCall {
    fn request(&self) -> CacheRequest<'_> {
        let caller = &self.caller;
        CacheRequest {
            route: &self.route,
            terms: &self.terms,
            tenant: &caller.tenant,
            tier: &caller.tier,
            is_identified: caller.is_identified,
            caller: caller.identity(),
            claims: &caller.claims,
            owner: caller.owner,
            scheme: "part",
            host: &self.host,
            target: &self.target,
            destination: &self.destination,
            headers: &self.headers,
        }
    }

    /// Stores an answer whose body has been read and checked. Returns it for the requests that wait for it, and whether
    /// it was stored.
    fn keep(
        &self,
        cache: &ResponseCache,
        keys: &CacheKeys,
        (head, body): (&ResponseHead, Bytes),
        verdict: &crate::cache::freshness::Storable,
        origin: (crate::cache::reuse::UriHandle, Arrival),
    ) -> (Found, bool) {
        // The stored body is plain JSON.
        let mut headers = head.headers.clone();
        headers.remove(CONTENT_ENCODING);
        headers.remove(CONTENT_LENGTH);
        cache.keep(&self.request(), keys, (head.status, &headers, body), verdict, origin)
    }
}

/// Use that the calls of one part made of the cache.
#[derive(Debug, Clone, Copy)]
pub(super) struct PartUse {
    pub index: usize,
    pub calls: u32,
    /// Calls answered from the store.
    pub hits: u32,
    /// Seconds for which all these answers stay fresh.
    pub ttl: i64,
    /// Status of the last call that was sent on.
    pub forwarded: Option<CacheStatus>,
}

impl PartUse {
    fn new(index: usize) -> Self {
        Self {
            index,
            calls: 0,
            hits: 0,
            ttl: i64::MAX,
            forwarded: None,
        }
    }

    fn add(&mut self, status: CacheStatus) {
        self.calls += 1;
        match status {
            CacheStatus::Hit { ttl } => {
                self.hits += 1;
                self.ttl = self.ttl.min(ttl);
            }
            CacheStatus::Forwarded { .. } => self.forwarded = Some(status),
        }
    }

    /// Returns one status for all calls: a hit only if each was one.
    pub(super) fn status(&self) -> CacheStatus {
        self.forwarded.unwrap_or(CacheStatus::Hit { ttl: self.ttl })
    }
}

impl PartCaller<'_> {
    /// Returns the answer to a part's request: a stored one, that of another request for the same, or the backend's.
    pub(super) async fn ask_with_cache(
        mut self,
        order: &mut CallRequest,
        terms: &Arc<CacheTerms>,
        caller: &Arc<CacheCaller>,
    ) -> Called {
        let began = clock::now();
        let cache = &self.aggregate.answers.cache;
        let asked = self.cached_call(order, terms, caller);
        let keys = CacheKeys::of_request(&asked.request());
        let mut waits = 0;
        let (found, leader) = loop {
            let found = match cache.decide(&asked.request(), &keys, &asked.directives, clock::now()) {
                Step::Serve(answer) if self.can_use(&answer) => return self.serve_hit(&answer, began),
                Step::ServeAndRefresh(found) if self.can_use(&found.answer) => {
                    let called = self.serve_hit(&found.answer, began);
                    if let Joined::Leader(leader) = cache.join(&asked.request(), &keys, Some(&found)) {
                        self.refresh(order, asked, keys, found, leader);
                    }
                    return called;
                }
                Step::Ask(found) => found.filter(|found| self.can_use(&found.answer)),
                Step::Serve(_) | Step::ServeAndRefresh(_) | Step::OnlyStored => None,
            };
            // A caller that wants the newest state gets no answer that was asked for before.
            if asked.directives.no_cache || waits > MOST_WAITS {
                break (found, None);
            }
            let follower = match cache.join(&asked.request(), &keys, found.as_ref()) {
                Joined::Leader(leader) => break (found, Some(leader)),
                Joined::Follower(follower) => follower,
            };
            waits += 1;
            let until = clock::instant(order.deadline.moment());
            match tokio::time::timeout_at(until, follower.wait()).await {
                Err(_) => return self.out_of_time(order),
                Ok(Some(Landing::Answer(landed)))
                    if cache.is_for(&landed, &asked.request(), &keys) && self.can_use(&landed.answer) =>
                {
                    let status = forwarded(reason(found.as_ref()), None, false, true);
                    return self.serve_stored(&landed.answer, (CacheResult::Collapsed, status), began);
                }
                // The backend fails, and would fail again.
                Ok(Some(Landing::StandIn(landed, status)))
                    if cache.is_for(&landed, &asked.request(), &keys) && self.can_use(&landed.answer) =>
                {
                    let cause = status.map_or(Cause::Call(Reason::BackendBroken), Cause::Status);
                    let fault = PartFault::new(cause).by(self.part.backend.ids.endpoints);
                    return self.serve_stand_in(&landed, fault, forwarded(Forward::Stale, status, false, true));
                }
                Ok(Some(Landing::Answer(_) | Landing::StandIn(..) | Landing::Nothing | Landing::Coming)) => {
                    break (found, None);
                }
                // The request that was waited for has left. Another one asks.
                Ok(None) => {}
            }
        };
        let why = reason(found.as_ref());
        if let Some(found) = &found {
            conditional::ask_again(&found.answer.headers, &mut order.headers);
            self.confirms = true;
        }
        let uri = match &leader {
            Some(leader) => leader.uri(),
            None => cache.uris().enter(&asked.host, &asked.target),
        };
        let began = clock::now();
        let (called, head) = self.ask_or_fall_back(order).await;
        let Some(head) = head else {
            return self.stand_in(called, found, why, leader);
        };
        let (arrival, of_head) = (arrival(began), (head.status, &head.headers));
        let body = stored_body(&called.result);
        match (
            cache.judge(&asked.request(), &asked.directives, found.as_ref(), of_head, arrival),
            body,
        ) {
            (Verdict::Confirmed(answer), _) => {
                if let (Some(leader), Some(found)) = (leader, found) {
                    let answer = Arc::clone(&answer);
                    leader.land(Landing::Answer(Found { answer, ..found }));
                }
                self.keep_last_good(order, &answer.headers, &answer.body);
                let status = forwarded(why, Some(StatusCode::NOT_MODIFIED), true, false);
                self.count(CacheResult::Revalidated, status);
                self.hear(Some(head_of(&answer)));
                self.reserved(called_with(&answer))
            }
            (Verdict::Store(storable), Some(body)) => {
                let (kept, stored) = asked.keep(cache, &keys, (&head, body), &storable, (uri, arrival));
                if let Some(leader) = leader {
                    leader.land(Landing::Answer(kept));
                }
                self.count(CacheResult::Miss, forwarded(why, None, stored, false));
                self.hear(Some(head));
                called
            }
            (Verdict::Store(_) | Verdict::StandsIn(_) | Verdict::Pass, _) => {
                if let Some(leader) = leader {
                    leader.land(Landing::Nothing);
                }
                self.count(CacheResult::Miss, CacheStatus::forwarded(why));
                self.hear(Some(head));
                called
            }
        }
    }

    fn cached_call(&self, order: &CallRequest, terms: &Arc<CacheTerms>, caller: &Arc<CacheCaller>) -> CachedCall {
        let host = order.headers.get(HOST).and_then(|host| host.to_str().ok());
        CachedCall {
            route: Arc::clone(&self.aggregate.route),
            terms: Arc::clone(terms),
            caller: Arc::clone(caller),
            host: host_of_backend(&self.part.backend.name),
            target: order.target.as_str().to_owned(),
            destination: [
                self.recipe_part().name().to_string(),
                host.unwrap_or_default().to_ascii_lowercase(),
            ],
            headers: order.headers.clone(),
            directives: match terms.heeds_callers {
                // The caller asks for the whole document, which is not what is stored here.
                true => RequestDirectives {
                    only_if_cached: false,
                    ..RequestDirectives::read(self.request.headers)
                },
                false => RequestDirectives::default(),
            },
        }
    }

    /// Whether an answer that was stored under an earlier config can be used under this one.
    fn can_use(&self, answer: &CachedAnswer) -> bool {
        answer.body.len() <= self.part.body_limit.value
            && (answer.body.is_empty() || {
                let document = Document::from_checked(answer.body.clone());
                self.recipe_part().shape.has_target(document.value())
            })
    }

    fn serve_hit(&self, answer: &CachedAnswer, began: Moment) -> Called {
        let ttl = answer
            .reuse
            .as_ref()
            .map_or(0, |reuse| reuse.freshness.ttl(clock::now()));
        let result = if ttl > 0 { CacheResult::Hit } else { CacheResult::Stale };
        self.serve_stored(answer, (result, CacheStatus::Hit { ttl }), began)
    }

    /// Answers with a stored answer, without the backend.
    fn serve_stored(
        &self,
        answer: &CachedAnswer,
        (result, status): (CacheResult, CacheStatus),
        began: Moment,
    ) -> Called {
        let mut attempts = Attempts::default();
        attempts.add_cached(&self.part.backend.name, began, clock::now());
        attempts.set_part(self.recipe_part().name(), self.element);
        self.note(|notes| notes.attempts.merge(attempts));
        self.count(result, status);
        self.hear(Some(head_of(answer)));
        self.reserved(called_with(answer))
    }

    /// Reserves memory for a stored answer. Its text is shared, but not what is made of it for this document.
    fn reserved(&self, called: Called) -> Called {
        let (PartResult::Body(document) | PartResult::Some(document, _)) = &called.result else {
            return called;
        };
        let length = document.bytes().len();
        match self.request.reservation.grow(length, length) {
            Ok(()) => called,
            Err(blocked_outcome) => PartResult::Failed(blocked_outcome.into()).into(),
        }
    }

    /// Replaces a failure by a stale answer, where it may be used because the backend fails.
    fn stand_in(&self, called: Called, found: Option<Found>, why: Forward, leader: Option<Leader>) -> Called {
        let found = found.filter(|found| found.stands_in(clock::now()));
        // The statuses of RFC 5861 section 4; other outages have none.
        let is_covered = |fault: &PartFault| !matches!(fault.cause, Cause::Status(status) if !is_failure(status));
        let (Some(found), Some(fault)) = (found, outage(&called.result).filter(is_covered)) else {
            self.count(CacheResult::Miss, CacheStatus::forwarded(why));
            return called;
        };
        if let Some(leader) = leader {
            let status = fault.backend_status();
            leader.land(Landing::StandIn(found.clone(), status));
        }
        let status = CacheStatus::Forwarded {
            why,
            status: called.status,
            stored: false,
            collapsed: false,
            detail: Some("stale-if-error"),
        };
        self.serve_stand_in(&found, fault, status)
    }

    /// Answers with a stale answer in place of a failure.
    fn serve_stand_in(&self, found: &Found, fault: PartFault, status: CacheStatus) -> Called {
        self.count(CacheResult::Stale, status);
        self.hear(Some(head_of(&found.answer)));
        let fault = fault.served_by(Substitute::Stale(clock::now().since(found.answer.at)));
        let result = match called_with(&found.answer).result {
            PartResult::Body(document) => PartResult::Some(document, fault),
            absent => absent,
        };
        self.reserved(Called {
            status: Some(found.answer.status),
            result,
        })
    }

    /// Fails a call whose time was over before the answer to another request came.
    fn out_of_time(&self, order: &CallRequest) -> Called {
        let is_callers = order.caller_deadline.is_some_and(|own| own <= order.deadline);
        self.note(|notes| notes.facts.by_callers_time |= is_callers);
        self.count(CacheResult::Collapsed, forwarded(Forward::UriMiss, None, false, true));
        PartResult::Failed(PartFault::of_rejection(&Rejection::OutOfTime(order.deadline_by))).into()
    }

    fn count(&self, result: CacheResult, status: CacheStatus) {
        self.aggregate.answers.metrics.add(Family::CachePartRequests, result);
        let index = self.index;
        self.note(|notes| {
            let known = notes.cached.iter_mut().find(|part| part.index == index);
            match known {
                Some(known) => known.add(status),
                None => {
                    let mut first = PartUse::new(index);
                    first.add(status);
                    notes.cached.push(first);
                }
            }
        });
    }

    /// Fetches a newer answer while the stale one is used. Nobody waits for it, and it costs its tenant nothing.
    fn refresh(&self, order: &mut CallRequest, asked: CachedCall, keys: CacheKeys, found: Found, leader: Leader) {
        let now = clock::now();
        let deadline = Deadline::at(now + order.operator_limit);
        let mut headers = std::mem::take(&mut order.headers);
        conditional::ask_again(&found.answer.headers, &mut headers);
        let order = CallRequest {
            method: Method::GET,
            target: order.target.clone(),
            headers,
            added: order.added.clone(),
            body: call::CallBody::Empty,
            deadline,
            deadline_by: None,
            operator_deadline: deadline,
            caller_deadline: None,
            trailers: false,
            operator_limit: order.operator_limit,
            entrant: order.entrant,
            is_retry: false,
            streaming: call::Streaming::Never,
            switches: false,
            interim: None,
            expects: false,
            cost_header: None,
            hash_keys: order.hash_keys.clone(),
            mirror: None,
            hedge: None,
        };
        let refresh = Refresh {
            cache: Arc::clone(&self.aggregate.answers.cache),
            backend: Arc::clone(&self.part.backend),
            part: Arc::clone(self.recipe_part()),
            limit: self.part.body_limit,
            reservation: self.request.reservation.another(deadline.moment()),
            worker: self.request.worker,
            asked,
            keys,
            found,
            leader,
        };
        drop(tokio::spawn(refresh.run(order, now)));
    }

    fn recipe_part(&self) -> &Arc<Part> {
        &self.aggregate.recipe.parts()[self.index]
    }
}

/// A newer answer that is fetched while the stale one is used.
struct Refresh {
    cache: Arc<ResponseCache>,
    backend: Arc<Backend>,
    part: Arc<Part>,
    limit: Configured<usize>,
    reservation: Reservation,
    worker: usize,
    asked: CachedCall,
    keys: CacheKeys,
    found: Found,
    leader: Leader,
}

impl Refresh {
    async fn run(self, mut order: CallRequest, began: Moment) {
        let (mut attempts, mut facts) = (Attempts::default(), Facts::default());
        let called = call::call(&self.backend, self.worker, &mut order, &mut attempts, &mut facts).await;
        // A failure leaves the stale answer as it is: the next request asks again.
        let Ok(call::Reply { head, body }) = called else {
            return;
        };
        let (arrival, of_head) = (arrival(began), (head.status, &head.headers));
        let request = self.asked.request();
        match self
            .cache
            .judge(&request, &self.asked.directives, Some(&self.found), of_head, arrival)
        {
            Verdict::Confirmed(answer) => self.leader.land(Landing::Answer(Found { answer, ..self.found })),
            Verdict::Store(storable) if head.status.is_success() => {
                let settings = ReadSettings {
                    time: Some(self.backend.ids.time_limit),
                    backend: self.backend.ids,
                };
                let read = read_body(&head, body, (&self.part, self.limit), &self.reservation, settings);
                let (result, _) = read.await;
                if let Some(body) = stored_body(&result).filter(|_| !is_said_to_be_incomplete(&head.headers)) {
                    let origin = (self.leader.uri(), arrival);
                    let (kept, _) = self
                        .asked
                        .keep(&self.cache, &self.keys, (&head, body), &storable, origin);
                    self.leader.land(Landing::Answer(kept));
                }
            }
            // The newest answer may not be stored, and the stored one is not used any more.
            Verdict::Store(_) | Verdict::Pass if !is_failure(head.status) => self.cache.forget(&self.found),
            Verdict::Store(_) | Verdict::Pass | Verdict::StandsIn(_) => {}
        }
    }
}

/// Returns the body to be stored of a result that can be used again; empty if the answer has none.
fn stored_body(result: &PartResult) -> Option<Bytes> {
    match result {
        PartResult::Body(document) => Some(document.bytes().clone()).filter(|body| body.len() <= BODY_LIMIT),
        PartResult::Absent => Some(Bytes::new()),
        PartResult::Some(..) | PartResult::Failed(_) => None,
    }
}

fn called_with(answer: &CachedAnswer) -> Called {
    let result = if answer.body.is_empty() {
        PartResult::Absent
    } else {
        PartResult::Body(Document::from_checked(answer.body.clone()))
    };
    Called {
        status: Some(answer.status),
        result,
    }
}

/// Returns the head of a stored answer, with its age.
fn head_of(answer: &CachedAnswer) -> ResponseHead {
    let mut response = Response::new(());
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.aged_headers(clock::now());
    response.into_parts().0
}

fn reason(found: Option<&Found>) -> Forward {
    match found.and_then(|found| found.answer.reuse.as_ref()) {
        None => Forward::UriMiss,
        Some(reuse) if reuse.freshness.ttl(clock::now()) > 0 => Forward::Request,
        Some(_) => Forward::Stale,
    }
}

const fn forwarded(why: Forward, status: Option<StatusCode>, stored: bool, collapsed: bool) -> CacheStatus {
    CacheStatus::Forwarded {
        why,
        status,
        stored,
        collapsed,
        detail: None,
    }
}

fn arrival(began: Moment) -> Arrival {
    let now = Now::read();
    Arrival {
        moment: now.moment,
        wall: SystemTime::UNIX_EPOCH + now.wall.elapsed(),
        delay: now.moment.since(began),
    }
}

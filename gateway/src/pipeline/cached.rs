//! Answers requests from the response cache, and stores what their backends answer.
//!
//! The cache decides ([`crate::cache::responses`]); this file calls, waits and answers. A route without a `cache` only
//! passes through here if the config has a cache at all, and a request that changes something ends the use of what is
//! stored.
//!
//! Requests for the same thing wait for one answer (*single flight*). The answer is read to its end before it is sent,
//! so no slow caller holds up those that wait.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use http::{Method, StatusCode};
use http_body::Body;
use policies::{Deadline, Moment};

use super::decision::AuthorizedRequest;
use super::exchange::Exchange;
use super::fallback::is_outage;
use super::one_backend::rewritten_target;
use crate::auth::caller::Kind;
use crate::cache::cache_status::{CACHE_STATUS, CacheStatus, Forward};
use crate::cache::conditional::{self, Conditions};
use crate::cache::directives::RequestDirectives;
use crate::cache::flights::{Joined, Landing, Leader};
use crate::cache::freshness::{Arrival, Storable};
use crate::cache::responses::{CacheCaller, CacheKeys, CacheRequest, CacheTerms, Found, ResponseCache, Step, Verdict};
use crate::cache::reuse::UriHandle;
use crate::cache::{CachedAnswer, PendingBody};
use crate::call::backend::Backend;
use crate::call::reply::Broken;
use crate::call::{self, CallRequest, Facts};
use crate::clock::{self, Now};
use crate::headers::{self, Via};
use crate::message::{FieldMap, Response};
use crate::observe::{Attempts, CacheResult};
use crate::plan::Destination;
use crate::rejection::Rejection;
use crate::response::Content;
use crate::response::gather::{Gathered, gather};
use crate::tenancy::Principal;
use crate::wire::caller_body::CallerBody;

/// How often a request looks again after the request that it waited for has left.
const MOST_WAITS: u32 = 3;

/// What of a request the cache needs. Outlives the request, which the call consumes.
struct Asked {
    route: Arc<str>,
    terms: Arc<CacheTerms>,
    caller: CacheCaller,
    scheme: &'static str,
    host: String,
    target: String,
    destination: Vec<String>,
    /// Fields as the backend gets them, without conditions.
    headers: FieldMap,
    directives: RequestDirectives,
    conditions: Conditions,
}

impl Asked {
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
            scheme: self.scheme,
            host: &self.host,
            target: &self.target,
            destination: &self.destination,
            headers: &self.headers,
        }
    }
}

/// Returns what the cache distinguishes callers by.
pub(super) fn cache_caller(principal: &Principal) -> CacheCaller {
    let caller = &principal.caller;
    CacheCaller {
        tenant: Arc::clone(&caller.tenant),
        tier: Arc::clone(&principal.tier.name),
        kind: caller.kind.as_str(),
        is_identified: caller.kind != Kind::Anonymous,
        issuer: match &caller.kind {
            Kind::Jwt(issuer) => Arc::clone(issuer),
            Kind::ApiKey | Kind::Mtls | Kind::Basic | Kind::External | Kind::Anonymous => Arc::default(),
        },
        id: Arc::clone(&caller.id),
        claims: caller
            .claims
            .as_ref()
            .map_or_else(Bytes::new, |claims| claims.bytes().clone()),
        owner: principal.share,
    }
}

impl Exchange<'_> {
    /// Answers a request of a config that has a cache.
    pub(super) async fn call_with_cache(
        &mut self,
        request: Box<AuthorizedRequest<'_>>,
        body: CallerBody,
    ) -> Result<Response<Content>, Rejection> {
        let method = &request.head.method;
        if !method.is_safe() {
            return self.call_and_invalidate(request, body).await;
        }
        let Some(terms) = &request.route.cache else {
            return self.call_target(request, body).await;
        };
        let is_stored = matches!(*method, Method::GET | Method::HEAD);
        let is_plain = body.is_end_stream() && request.handshake.is_none() && !self.is_grpc;
        if !is_stored || !is_plain || conditional::is_for_backend_alone(&request.head.headers) {
            let why = if is_stored { Forward::Bypass } else { Forward::Method };
            self.record.cache = Some(CacheResult::Bypass);
            let answered = self.call_target(request, body).await;
            return answered.map(|response| marked(response, CacheStatus::forwarded(why)));
        }
        let terms = Arc::clone(terms);
        self.answer_with_cache(request, body, terms).await
    }

    /// Calls the target of a request that may change what is stored (RFC 9111 section 4.4).
    async fn call_and_invalidate(
        &mut self,
        request: Box<AuthorizedRequest<'_>>,
        body: CallerBody,
    ) -> Result<Response<Content>, Rejection> {
        let change = Change::of(&request, &self.plan.responses);
        let answered = self.call_target(request, body).await;
        if let Ok(response) = &answered {
            change.end_use(response.status(), response.headers());
        }
        answered
    }

    async fn answer_with_cache(
        &mut self,
        mut request: Box<AuthorizedRequest<'_>>,
        body: CallerBody,
        terms: Arc<CacheTerms>,
    ) -> Result<Response<Content>, Rejection> {
        let cache = Arc::clone(&self.plan.responses);
        let asked = self.asked(&mut request, terms)?;
        let keys = CacheKeys::of_request(&asked.request());
        let is_head = request.head.method == Method::HEAD;
        let mut waits = 0;
        let (found, leader) = loop {
            let found = match cache.decide(&asked.request(), &keys, &asked.directives, clock::now()) {
                Step::Serve(answer) => return Ok(self.serve_hit(&asked, &answer)),
                Step::OnlyStored => return Ok(only_stored()),
                Step::ServeAndRefresh(found) => {
                    let joined = cache.join(&asked.request(), &keys, Some(&found));
                    let backend = match request.route.target.destination(request.chosen) {
                        Destination::Backend { backend, rewrite } => Some((Arc::clone(backend), rewrite)),
                        _ => None,
                    };
                    match (joined, backend) {
                        (Joined::Leader(leader), Some((backend, rewrite))) => {
                            let answer = Arc::clone(&found.answer);
                            let response = self.serve_hit(&asked, &answer);
                            let (order, _) = self.order(request, &backend, rewrite, body)?;
                            Refresh::new(self, cache, asked, keys, found, leader).begin(backend, order);
                            return Ok(response);
                        }
                        // The caller that comes first waits for a newer answer of several backends.
                        (Joined::Leader(leader), None) => break (Some(found), Some(leader)),
                        (Joined::Follower(_), _) => return Ok(self.serve_hit(&asked, &found.answer)),
                    }
                }
                Step::Ask(found) => found,
            };
            // A caller that wants the newest state gets no answer that was asked for before.
            if is_head || asked.directives.no_cache || waits > MOST_WAITS {
                break (found, None);
            }
            let follower = match cache.join(&asked.request(), &keys, found.as_ref()) {
                Joined::Leader(leader) => break (found, Some(leader)),
                Joined::Follower(follower) => follower,
            };
            waits += 1;
            let until = clock::instant(request.budget.deadline.moment());
            match tokio::time::timeout_at(until, follower.wait()).await {
                Err(_) => return Err(Rejection::OutOfTime(request.budget.by)),
                Ok(Some(Landing::Answer(landed))) if cache.is_for(&landed, &asked.request(), &keys) => {
                    return Ok(self.serve_collapsed(&asked, &landed.answer, found.is_some()));
                }
                Ok(Some(Landing::Answer(_) | Landing::StandIn(..) | Landing::Nothing | Landing::Coming)) => {
                    break (found, None);
                }
                // The request that was waited for has left. Another one asks.
                Ok(None) => {}
            }
        };
        self.fetch(request, body, &asked, &keys, found, leader).await
    }

    /// Takes what the cache needs out of a request, and its conditions, which are checked here.
    fn asked(&mut self, request: &mut AuthorizedRequest<'_>, terms: Arc<CacheTerms>) -> Result<Asked, Rejection> {
        let conditions = Conditions::take(&mut request.head.headers);
        let directives = match terms.heeds_callers {
            true => RequestDirectives::read(&request.head.headers),
            false => RequestDirectives::default(),
        };
        let mut destination = Vec::new();
        if let Destination::Backend { backend, rewrite } = request.route.target.destination(request.chosen) {
            destination.push(backend.name.to_string());
            if let Some(rewrite) = rewrite {
                destination.push(rewritten_target(request, rewrite)?.to_string());
            }
        }
        Ok(Asked {
            route: Arc::clone(&request.route.name),
            terms,
            caller: cache_caller(&request.principal),
            scheme: self.peer.scheme.as_str(),
            host: host_of(request),
            target: target_of(request),
            destination,
            headers: request.head.headers.clone(),
            directives,
            conditions,
        })
    }

    /// Asks the backend, and stores its answer.
    async fn fetch(
        &mut self,
        request: Box<AuthorizedRequest<'_>>,
        body: CallerBody,
        asked: &Asked,
        keys: &CacheKeys,
        found: Option<Found>,
        leader: Option<Leader>,
    ) -> Result<Response<Content>, Rejection> {
        let cache = Arc::clone(&self.plan.responses);
        let is_get = request.head.method == Method::GET;
        let why = match &found {
            None => Forward::UriMiss,
            Some(found)
                if found
                    .answer
                    .reuse
                    .as_ref()
                    .is_some_and(|reuse| reuse.freshness.ttl(clock::now()) > 0) =>
            {
                Forward::Request
            }
            Some(_) => Forward::Stale,
        };
        self.record.cache = Some(CacheResult::Miss);
        if let Some(found) = &found {
            conditional::ask_again(&found.answer.headers, &mut request.head.headers);
        }
        let uri = match &leader {
            Some(leader) => leader.uri(),
            None => cache.uris().enter(&asked.host, &asked.target),
        };
        let began = clock::now();
        let backend = match request.route.target.destination(request.chosen) {
            Destination::Backend { backend, .. } => Some(backend.ids.endpoints),
            _ => None,
        };
        let budget_by = request.budget.by;
        let answered = self.call_target(request, body).await;
        let response = match answered {
            Ok(response) => response,
            Err(rejection) => {
                return match found.filter(|found| is_outage(rejection.reason()) && found.stands_in(clock::now())) {
                    Some(found) => Ok(self.stand_in(asked, &found, why, None, rejection.reason().as_str(), leader)),
                    None => Err(rejection),
                };
            }
        };
        let (head, content) = response.into_parts();
        let arrival = arrival(began);
        let verdict = cache.judge(
            &asked.request(),
            &asked.directives,
            found.as_ref(),
            (head.status, &head.headers),
            arrival,
        );
        let storable = match verdict {
            Verdict::Confirmed(answer) => {
                self.record.attempts.end(clock::now(), None, None);
                self.record.cache = Some(CacheResult::Revalidated);
                let status = CacheStatus::Forwarded {
                    why,
                    status: Some(StatusCode::NOT_MODIFIED),
                    stored: true,
                    collapsed: false,
                    detail: None,
                };
                if let (Some(leader), Some(found)) = (leader, found) {
                    let answer = Arc::clone(&answer);
                    leader.land(Landing::Answer(Found { answer, ..found }));
                }
                return Ok(answer_of(asked, &answer, status));
            }
            Verdict::StandsIn(_) => {
                let found = found.ok_or(Rejection::Internal)?;
                return Ok(self.stand_in(asked, &found, why, Some(head.status), "backend_status", leader));
            }
            Verdict::Store(storable) if is_get => Some(storable),
            Verdict::Store(_) | Verdict::Pass => None,
        };
        let status = CacheStatus::forwarded(why);
        // What is stored must be whole. So must be what the caller may have already: then it is not sent again.
        let is_known = head.status == StatusCode::OK && asked.conditions.are_met_by(&head.headers);
        if storable.is_none() && !is_known {
            if let Some(leader) = leader {
                leader.land(Landing::Nothing);
            }
            return Ok(marked(Response::from_parts(head, content), status));
        }
        let whole = match content {
            Content::Reply(reply) if !reply.is_event_stream() => {
                match gather(reply, PendingBody::begin(Arc::clone(cache.store()))).await {
                    Gathered::Whole(bytes) => {
                        self.record.attempts.end(clock::now(), None, None);
                        bytes
                    }
                    Gathered::TooMuch(resumed) => {
                        if let Some(leader) = leader {
                            leader.land(Landing::Nothing);
                        }
                        let content = Content::Resumed(resumed);
                        return Ok(marked(Response::from_parts(head, content), status));
                    }
                    Gathered::Broken(broken) => {
                        self.record.attempts.end(clock::now(), Some(broken.outcome()), None);
                        self.record.note_fault(broken.to_string());
                        if let Some(found) = found.filter(|found| found.stands_in(clock::now())) {
                            let reason = broken.reason().as_str();
                            return Ok(self.stand_in(asked, &found, why, Some(head.status), reason, leader));
                        }
                        return Err(match (broken, backend) {
                            (Broken::Backend(_), Some(backend)) => Rejection::BackendBroken(backend),
                            _ => Rejection::OutOfTime(budget_by),
                        });
                    }
                }
            }
            Content::Whole(bytes) => bytes,
            Content::Empty => Bytes::new(),
            other => {
                if let Some(leader) = leader {
                    leader.land(Landing::Nothing);
                }
                return Ok(marked(Response::from_parts(head, other), status));
            }
        };
        let Some(storable) = storable else {
            let mut response = Response::new(Content::Empty);
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            *response.headers_mut() = conditional::unchanged(&head.headers);
            return Ok(marked(response, status));
        };
        let (kept, stored) = keep(
            &cache,
            asked,
            keys,
            (head.status, &head.headers, whole),
            &storable,
            (uri, arrival),
        );
        let answer = Arc::clone(&kept.answer);
        if let Some(leader) = leader {
            leader.land(Landing::Answer(kept));
        }
        let status = CacheStatus::Forwarded {
            why,
            status: None,
            stored,
            collapsed: false,
            detail: None,
        };
        Ok(answer_of(asked, &answer, status))
    }

    /// Answers with the stored answer, without the backend.
    fn serve_hit(&mut self, asked: &Asked, answer: &Arc<CachedAnswer>) -> Response<Content> {
        let now = clock::now();
        let ttl = answer.reuse.as_ref().map_or(0, |reuse| reuse.freshness.ttl(now));
        self.record.cache = Some(if ttl > 0 { CacheResult::Hit } else { CacheResult::Stale });
        answer_of(asked, answer, CacheStatus::Hit { ttl })
    }

    /// Answers with what the backend answered to another request.
    fn serve_collapsed(&mut self, asked: &Asked, answer: &Arc<CachedAnswer>, was_stale: bool) -> Response<Content> {
        self.record.cache = Some(CacheResult::Collapsed);
        let status = CacheStatus::Forwarded {
            why: if was_stale { Forward::Stale } else { Forward::UriMiss },
            status: None,
            stored: false,
            collapsed: true,
            detail: None,
        };
        answer_of(asked, answer, status)
    }

    /// Answers with a stale answer, because the backend fails.
    fn stand_in(
        &mut self,
        asked: &Asked,
        found: &Found,
        why: Forward,
        received: Option<StatusCode>,
        reason: &str,
        leader: Option<Leader>,
    ) -> Response<Content> {
        self.record.attempts.end(clock::now(), None, None);
        self.record.cache = Some(CacheResult::Stale);
        self.record.note_fault(format!("{reason}; served a stale answer"));
        if let Some(leader) = leader {
            leader.land(Landing::Answer(found.clone()));
        }
        let status = CacheStatus::Forwarded {
            why,
            status: received,
            stored: false,
            collapsed: false,
            detail: Some("stale-if-error"),
        };
        answer_of(asked, &found.answer, status)
    }
}

/// A request that may change what is stored.
pub(super) struct Change {
    cache: Arc<ResponseCache>,
    host: String,
    target: String,
    /// The backend that gets the request, and the target that it gets; `None` if several are called.
    of_backend: Option<(Arc<str>, String)>,
}

impl Change {
    pub(super) fn of(request: &AuthorizedRequest<'_>, cache: &Arc<ResponseCache>) -> Self {
        Self {
            cache: Arc::clone(cache),
            host: host_of(request),
            target: target_of(request),
            of_backend: backend_target(request),
        }
    }

    /// Ends the use of the stored answers that the request has made invalid, if it succeeded.
    pub(super) fn end_use(&self, status: StatusCode, headers: &FieldMap) {
        if !status.is_success() && !status.is_redirection() {
            return;
        }
        self.cache.invalidate(&self.host, &self.target);
        for changed in conditional::changed_targets(headers, &self.host, &self.target) {
            self.cache.invalidate(&self.host, &changed);
        }
        if let Some((backend, target)) = &self.of_backend {
            self.cache.invalidate_part(backend, target);
        }
    }
}

/// A newer answer that is fetched while the stale one is served.
struct Refresh {
    cache: Arc<ResponseCache>,
    asked: Asked,
    keys: CacheKeys,
    found: Found,
    leader: Leader,
    worker: usize,
    via: Via,
    limit: Duration,
}

impl Refresh {
    fn new(
        exchange: &Exchange<'_>,
        cache: Arc<ResponseCache>,
        asked: Asked,
        keys: CacheKeys,
        found: Found,
        leader: Leader,
    ) -> Self {
        Self {
            cache,
            asked,
            keys,
            found,
            leader,
            worker: exchange.peer.worker,
            via: exchange.plan.via.clone(),
            limit: exchange.plan.time.request,
        }
    }

    /// Fetches the answer on its own, with the time limits of the backend. Nobody waits for it.
    fn begin(self, backend: Arc<Backend>, mut order: CallRequest) {
        let now = clock::now();
        let deadline = Deadline::at(now + self.limit.min(order.operator_limit));
        order.method = Method::GET;
        order.deadline = deadline;
        order.operator_deadline = deadline;
        order.caller_deadline = None;
        order.interim = None;
        order.is_retry = false;
        order.mirror = None;
        order.hedge = None;
        conditional::ask_again(&self.found.answer.headers, &mut order.headers);
        drop(tokio::spawn(self.run(backend, order, now)));
    }

    async fn run(self, backend: Arc<Backend>, mut order: CallRequest, began: Moment) {
        let (mut attempts, mut facts) = (Attempts::default(), Facts::default());
        let called = call::call(&backend, self.worker, &mut order, &mut attempts, &mut facts).await;
        // A failure leaves the stale answer as it is: the next request asks again.
        let Ok(call::Reply { mut head, body }) = called else {
            return;
        };
        if headers::clean_response(&mut head.headers, head.version, &self.via).is_err() {
            return;
        }
        let Self {
            cache,
            asked,
            keys,
            found,
            leader,
            ..
        } = self;
        let arrival = arrival(began);
        let of_head = (head.status, &head.headers);
        match cache.judge(&asked.request(), &asked.directives, Some(&found), of_head, arrival) {
            Verdict::Confirmed(answer) => leader.land(Landing::Answer(Found { answer, ..found })),
            Verdict::Store(storable) if !body.is_event_stream() => {
                let pending = PendingBody::begin(Arc::clone(cache.store()));
                if let Gathered::Whole(bytes) = gather(body, pending).await {
                    let whole = (head.status, &head.headers, bytes);
                    let (kept, _) = keep(&cache, &asked, &keys, whole, &storable, (leader.uri(), arrival));
                    leader.land(Landing::Answer(kept));
                }
            }
            Verdict::Store(_) | Verdict::StandsIn(_) => {}
            // The newest answer may not be stored, and the stored one is not used any more.
            Verdict::Pass => {
                if !crate::cache::responses::is_failure(head.status) {
                    cache.forget(&found);
                }
            }
        }
    }
}

fn keep(
    cache: &ResponseCache,
    asked: &Asked,
    keys: &CacheKeys,
    whole: (StatusCode, &FieldMap, Bytes),
    storable: &Storable,
    origin: (UriHandle, Arrival),
) -> (Found, bool) {
    cache.keep(&asked.request(), keys, whole, storable, origin)
}

fn arrival(began: Moment) -> Arrival {
    let now = Now::read();
    Arrival {
        moment: now.moment,
        wall: std::time::SystemTime::UNIX_EPOCH + now.wall.elapsed(),
        delay: now.moment.since(began),
    }
}

/// Makes the response of a stored answer: a 304 if the caller has it already.
fn answer_of(asked: &Asked, answer: &CachedAnswer, status: CacheStatus) -> Response<Content> {
    let headers = answer.aged_headers(clock::now());
    let is_known = answer.status == StatusCode::OK && asked.conditions.are_met_by(&headers);
    let mut response = if is_known {
        let mut response = Response::new(Content::Empty);
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.headers_mut() = conditional::unchanged(&headers);
        response
    } else {
        let mut response = Response::new(Content::Whole(answer.body.clone()));
        *response.status_mut() = answer.status;
        *response.headers_mut() = headers;
        if answer.status != StatusCode::NO_CONTENT {
            let length = answer.body.len();
            response.headers_mut().insert(CONTENT_LENGTH, length.into());
        }
        response
    };
    if is_known && let Some(age) = age_of(answer) {
        response.headers_mut().insert(http::header::AGE, age.into());
    }
    marked(response, status)
}

fn age_of(answer: &CachedAnswer) -> Option<u64> {
    let reuse = answer.reuse.as_ref()?;
    Some(reuse.freshness.age(clock::now()).as_secs())
}

/// Answers a caller that wants nothing but a stored answer (RFC 9111 section 5.2.1.7).
fn only_stored() -> Response<Content> {
    let mut response = Response::new(Content::Empty);
    *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
    response.headers_mut().insert(CONTENT_LENGTH, 0.into());
    let status = CacheStatus::Forwarded {
        why: Forward::UriMiss,
        status: None,
        stored: false,
        collapsed: false,
        detail: Some("only-if-cached"),
    };
    marked(response, status)
}

fn marked(mut response: Response<Content>, status: CacheStatus) -> Response<Content> {
    // Caches nearer to the origin come first (RFC 9211 section 2).
    response.headers_mut().append(CACHE_STATUS, status.to_value());
    response
}

fn host_of(request: &AuthorizedRequest<'_>) -> String {
    let own = request.head.headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = own.or_else(|| request.target.uri.authority().map(http::uri::Authority::as_str));
    host.unwrap_or_default().to_ascii_lowercase()
}

/// Returns the backend that a request goes to and the target that it gets; `None` if several are called.
fn backend_target(request: &AuthorizedRequest<'_>) -> Option<(Arc<str>, String)> {
    match request.route.target.destination(request.chosen) {
        Destination::Backend { backend, rewrite } => {
            let target = match rewrite {
                Some(rewrite) => rewritten_target(request, rewrite).ok()?.to_string(),
                None => target_of(request),
            };
            Some((Arc::clone(&backend.name), target))
        }
        _ => None,
    }
}

fn target_of(request: &AuthorizedRequest<'_>) -> String {
    let target = request.target.uri.path_and_query();
    target.map_or("/", |target| target.as_str()).to_owned()
}

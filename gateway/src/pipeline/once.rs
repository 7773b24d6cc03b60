//! Does a request once however often it is sent, on routes with `idempotency`.
//!
//! [`crate::idempotency`] decides; this file reads the request, calls and answers. The body is read to its end first,
//! because whether a key was sent with the same request depends on it. Then a task of its own looks the key up, calls the
//! backend and records how that ended, within the operator's time limits: a caller that leaves or gives up ends nothing,
//! and finds the answer when it sends the request again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, SET_COOKIE};
use http::{HeaderName, HeaderValue, StatusCode};
use policies::Deadline;
use tokio::sync::oneshot;

use super::cached::Change;
use super::decision::AuthorizedRequest;
use super::exchange::Exchange;
use crate::auth::caller::{Caller, Kind};
use crate::cache::PendingBody;
use crate::call::backend::Backend;
use crate::call::reply::Broken;
use crate::call::{self, CallBody, CallRequest, Facts, Reply};
use crate::clock;
use crate::headers::{self, Via};
use crate::idempotency::{
    Begun, Claim, Ending, FingerprintInput, IdempotencyKey, IdempotencyTerms, Records, StoredAnswer, Subject, UnderWay,
    fingerprint,
};
use crate::message::Response;
use crate::observe::{Attempts, IdempotencyResult};
use crate::plan::Destination;
use crate::rejection::Rejection;
use crate::response::Content;
use crate::response::gather::{Gathered, gather};
use crate::setting::SettingId;
use crate::wire::caller_body::CallerBody;
use crate::wire::json_body;

const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Time beyond the request's limit after which a record counts as lost: that to tell the store how the request ended.
const LEASE_MARGIN: Duration = Duration::from_secs(5);

impl Exchange<'_> {
    /// Answers a request of a route with `idempotency`.
    pub(super) async fn call_once(
        &mut self,
        request: Box<AuthorizedRequest<'_>>,
        body: CallerBody,
        terms: Arc<IdempotencyTerms>,
    ) -> Result<Response<Content>, Rejection> {
        if request.head.method.is_safe() {
            return self.call_unprotected(request, body).await;
        }
        let Some(key) = self.key_of(&request, &terms)? else {
            self.record.idempotency = Some(IdempotencyResult::WithoutKey);
            return self.call_unprotected(request, body).await;
        };
        let body = self.whole_body(&request, body).await?;
        let length = body.len();
        let budget = request.budget;
        let claim = self.claim(&request, &key, &terms, &body);
        let route = request.route;
        let Destination::Backend { backend, rewrite } = route.target.destination(request.chosen) else {
            // The config does not have `idempotency` on other routes.
            return Err(Rejection::Internal);
        };
        let change = self.plan.has_cache.then(|| Change::of(&request, &self.plan.responses));
        let (mut order, _) = self.order(request, backend, rewrite, CallerBody::empty(headers::clean_trailers))?;
        order.body = match body.is_empty() {
            true => CallBody::Empty,
            false => CallBody::Whole(body),
        };
        order.deadline = order.operator_deadline;
        order.deadline_by = Some(route.ids.time_limit);
        order.caller_deadline = None;
        order.interim = None;
        order.expects = false;
        let (tell, told) = oneshot::channel();
        let call = ProtectedCall {
            records: Arc::clone(&self.plan.idempotency),
            claim: Arc::new(claim),
            terms,
            backend: Arc::clone(backend),
            order,
            worker: self.peer.worker,
            via: self.plan.via.clone(),
            pending: PendingBody::begin(Arc::clone(&self.plan.stale)),
            change,
            _under_way: self.plan.idempotency.enter(),
            tell,
        };
        // What a caller that leaves now is counted as.
        self.record.idempotency = Some(IdempotencyResult::GoesOn);
        self.record.bytes_in = length as u64;
        drop(tokio::spawn(call.run()));
        let done = if budget.by.is_none() {
            // The caller's own time ends its wait, and not the call.
            match tokio::time::timeout_at(clock::instant(budget.deadline.moment()), told).await {
                Ok(told) => told,
                Err(_) => {
                    self.refund.by_callers_time = true;
                    return Err(Rejection::OutOfTime(None));
                }
            }
        } else {
            told.await
        };
        // Without a word the task has panicked.
        let Done {
            result,
            how,
            attempts,
            facts,
            called,
        } = done.map_err(|_| Rejection::Internal)?;
        self.record.idempotency = Some(how);
        if called {
            self.record.backend = Some(Arc::clone(&backend.name));
        }
        self.record.attempts = attempts;
        self.note_calls(facts);
        self.record.bytes_in = length as u64;
        result
    }

    /// Calls as a route without `idempotency` does.
    async fn call_unprotected(
        &mut self,
        request: Box<AuthorizedRequest<'_>>,
        body: CallerBody,
    ) -> Result<Response<Content>, Rejection> {
        if self.plan.has_cache {
            return self.call_with_cache(request, body).await;
        }
        self.call_target(request, body).await
    }

    /// Reads the key of a request; `None` if it has none and needs none.
    fn key_of(
        &mut self,
        request: &AuthorizedRequest<'_>,
        terms: &IdempotencyTerms,
    ) -> Result<Option<IdempotencyKey>, Rejection> {
        let is_anonymous = request.principal.caller.kind == Kind::Anonymous;
        let by = terms.ids.idempotency;
        let read = IdempotencyKey::read(&request.head.headers, is_anonymous);
        let (how, rejection) = match read {
            Ok(None) if !terms.required => return Ok(None),
            Ok(None) => (
                IdempotencyResult::Missing,
                Rejection::IdempotencyKeyMissing(terms.ids.required),
            ),
            Ok(Some(_)) if self.is_grpc => (
                IdempotencyResult::Invalid,
                Rejection::IdempotencyKeyInvalid {
                    why: "the answer to a gRPC call is not stored, so a key does nothing there",
                    by,
                },
            ),
            Ok(key) => return Ok(key),
            Err(why) => (IdempotencyResult::Invalid, Rejection::IdempotencyKeyInvalid { why, by }),
        };
        self.record.idempotency = Some(how);
        Err(rejection)
    }

    /// Reads the body to its end, within the memory for bodies that are held whole.
    async fn whole_body(&mut self, request: &AuthorizedRequest<'_>, body: CallerBody) -> Result<Bytes, Rejection> {
        let (principal, budget, total) = (&request.principal, request.budget, self.plan.edge.json_total);
        let reservation = self
            .plan
            .workspace
            .reserve(total, principal.share, (budget.deadline.moment(), budget.by))
            .up_to(principal.tier.room(total));
        let began = clock::now();
        let until = (clock::instant(budget.deadline.moment()), budget.by);
        let body = json_body::whole(body, request.route.body_limit, until, &reservation).await?;
        let now = clock::now();
        self.refund.by_callers_time |= now.since(began) > budget.deadline.remaining(now);
        Ok(reservation.keep_for(body))
    }

    /// Returns the claim of a request on its key.
    fn claim(
        &self,
        request: &AuthorizedRequest<'_>,
        key: &IdempotencyKey,
        terms: &IdempotencyTerms,
        body: &[u8],
    ) -> Claim {
        let (route, caller) = (request.route, &request.principal.caller);
        let is_anonymous = caller.kind == Kind::Anonymous;
        let target = request.target.uri.path_and_query();
        let fingerprint = fingerprint(&FingerprintInput {
            method: &request.head.method,
            target: target.map_or("/", |target| target.as_str()),
            headers: &request.head.headers,
            named: &terms.headers,
            is_anonymous,
            body,
        });
        let subject = Arc::new(Subject {
            route: Arc::clone(&route.name),
            tenant: Arc::clone(&caller.tenant),
            // All callers without a credential are one tenant, so they never share.
            caller: match terms.shares_with_tenant && !is_anonymous {
                true => "".into(),
                false => caller_text(caller).into(),
            },
            key: key.as_str().into(),
        });
        let ends = Deadline::at(self.started + route.time_limit);
        Claim {
            id: subject.id(),
            subject,
            fingerprint,
            token: fastrand::u64(..),
            lease: ends.remaining(clock::now()) + LEASE_MARGIN,
            keep_for: terms.keep_for,
        }
    }
}

/// Returns kind and id of a caller. No two callers of one tenant have the same.
fn caller_text(caller: &Caller) -> String {
    let id = &caller.id;
    match &caller.kind {
        Kind::Jwt(issuer) => format!("jwt:{}:{id}", issuer.replace('%', "%25").replace(':', "%3A")),
        kind => format!("{}:{id}", kind.as_str()),
    }
}

/// What came of a request with a key.
struct Done {
    result: Result<Response<Content>, Rejection>,
    how: IdempotencyResult,
    attempts: Attempts,
    facts: Facts,
    /// Whether the backend was called.
    called: bool,
}

/// A request with a key, apart from the caller that waits for its answer.
struct ProtectedCall {
    records: Arc<Records>,
    claim: Arc<Claim>,
    terms: Arc<IdempotencyTerms>,
    backend: Arc<Backend>,
    order: CallRequest,
    worker: usize,
    via: Via,
    pending: PendingBody,
    /// What stored answers are no longer used if the request succeeds.
    change: Option<Change>,
    /// Lets the process wait for it when it stops.
    _under_way: UnderWay,
    tell: oneshot::Sender<Done>,
}

/// Records that the outcome is unknown if the call ends without having told how, as by a panic.
struct LossGuard {
    records: Arc<Records>,
    claim: Arc<Claim>,
    in_store: bool,
    is_told: bool,
}

impl Drop for LossGuard {
    fn drop(&mut self) {
        if !self.is_told {
            self.records.lose(&self.claim, self.in_store);
        }
    }
}

impl ProtectedCall {
    async fn run(self) {
        let ids = self.terms.ids;
        let begun = self.records.begin(&self.claim, self.terms.in_store).await;
        let (result, how) = match begun {
            Ok(Begun::First) => return Box::pin(self.call(true)).await,
            Ok(Begun::Running) => (
                Err(Rejection::IdempotencyKeyInUse(ids.idempotency)),
                IdempotencyResult::Running,
            ),
            Ok(Begun::Answered(answer)) => match replayed(&answer) {
                Some(response) => (Ok(response), IdempotencyResult::Replayed),
                // A replica of another version has written it.
                None => (
                    Err(Rejection::AnswerNotKept {
                        status: 0,
                        by: ids.max_answer,
                    }),
                    IdempotencyResult::Locked,
                ),
            },
            Ok(Begun::Unknown { kept_for }) => (
                Err(Rejection::OutcomeUnknown {
                    kept_for,
                    by: ids.idempotency,
                }),
                IdempotencyResult::Locked,
            ),
            Ok(Begun::NotKept { status }) => (
                Err(Rejection::AnswerNotKept {
                    status,
                    by: ids.max_answer,
                }),
                IdempotencyResult::Locked,
            ),
            Ok(Begun::Reused) => (
                Err(Rejection::IdempotencyKeyReused(ids.idempotency)),
                IdempotencyResult::Reused,
            ),
            Ok(Begun::Full { retry_after }) => (
                Err(Rejection::IdempotencyFull {
                    retry_after,
                    by: ids.max_bytes,
                }),
                IdempotencyResult::Full,
            ),
            Err(_) if self.terms.is_open_when_down => return Box::pin(self.call(false)).await,
            Err(unreached) => {
                if unreached.may_be_done {
                    self.records.release(&self.claim, true).await;
                }
                (
                    Err(Rejection::IdempotencyUnavailable(ids.when_down)),
                    IdempotencyResult::Unavailable,
                )
            }
        };
        let _ = self.tell.send(Done {
            result,
            how,
            attempts: Attempts::default(),
            facts: Facts::default(),
            called: false,
        });
    }

    /// Calls the backend, and records how that ended. `is_recorded` says whether the key is recorded as running.
    async fn call(mut self, is_recorded: bool) {
        let in_store = self.terms.in_store;
        if self.tell.is_closed() {
            // The caller has left, and nothing was sent.
            self.records.release(&self.claim, in_store).await;
            return;
        }
        let mut guard = LossGuard {
            records: Arc::clone(&self.records),
            claim: Arc::clone(&self.claim),
            in_store,
            is_told: false,
        };
        let (mut attempts, mut facts) = (Attempts::default(), Facts::default());
        let called = call::call(&self.backend, self.worker, &mut self.order, &mut attempts, &mut facts).await;
        let (records, claim) = (Arc::clone(&self.records), Arc::clone(&self.claim));
        let (ending, result, how) = match called {
            // The backend may have acted on it.
            Err(rejection) if facts.sent => (Some(Ending::Unknown), Err(rejection), IdempotencyResult::Unknown),
            Err(rejection) => (None, Err(rejection), IdempotencyResult::Released),
            Ok(reply) => {
                let by = (self.backend.ids.endpoints, self.order.deadline_by);
                Self::take(
                    reply,
                    &self.terms,
                    &self.via,
                    self.pending,
                    by,
                    (facts.attempts, &mut attempts),
                )
                .await
            }
        };
        if let (Ok(response), Some(change)) = (&result, &self.change) {
            change.end_use(response.status(), response.headers());
        }
        // Recorded before the caller has the answer, so that it finds the record when it sends the request again.
        match ending {
            Some(ending) => records.finish(&claim, ending, in_store).await,
            None => records.release(&claim, in_store).await,
        }
        guard.is_told = true;
        let how = if is_recorded {
            how
        } else {
            IdempotencyResult::Unprotected
        };
        let _ = self.tell.send(Done {
            result,
            how,
            attempts,
            facts,
            called: true,
        });
    }

    /// Reads the backend's answer as far as it is stored. Without an ending the key is free.
    async fn take(
        Reply { mut head, body }: Reply,
        terms: &IdempotencyTerms,
        via: &Via,
        pending: PendingBody,
        (endpoints, time): (SettingId, Option<SettingId>),
        (tries, attempts): (u32, &mut Attempts),
    ) -> (Option<Ending>, Result<Response<Content>, Rejection>, IdempotencyResult) {
        if headers::clean_response(&mut head.headers, head.version, via).is_err() {
            return (
                Some(Ending::Unknown),
                Err(Rejection::BackendInvalid(endpoints)),
                IdempotencyResult::Unknown,
            );
        }
        head.version = http::Version::HTTP_11;
        let status = head.status;
        let answered = |head, content| Ok(Response::from_parts(head, content));
        if terms.release_on.contains(&status.as_u16()) {
            // An earlier attempt may have done what this one was refused.
            let (ending, how) = match tries {
                1 => (None, IdempotencyResult::Released),
                _ => (Some(Ending::Unknown), IdempotencyResult::Unknown),
            };
            return (ending, answered(head, Content::Reply(body)), how);
        }
        let not_kept = Some(Ending::NotKept {
            status: status.as_u16(),
        });
        if body.is_event_stream() {
            return (
                not_kept,
                answered(head, Content::Reply(body)),
                IdempotencyResult::NotKept,
            );
        }
        match gather(body, pending.up_to(terms.max_answer)).await {
            Gathered::Whole(bytes) => {
                attempts.end(clock::now(), None, None);
                let mut stored = head.headers.clone();
                stored.remove(CONTENT_LENGTH);
                if terms.shares_with_tenant {
                    // A session belongs to the caller that it was opened for.
                    stored.remove(SET_COOKIE);
                }
                let kept = StoredAnswer::of(status, &stored, &bytes, terms.max_answer);
                if status != StatusCode::NO_CONTENT {
                    head.headers.insert(CONTENT_LENGTH, bytes.len().into());
                }
                let response = answered(head, Content::Whole(bytes));
                match kept {
                    Some(answer) => (Some(Ending::Answered(answer)), response, IdempotencyResult::Kept),
                    None => (not_kept, response, IdempotencyResult::NotKept),
                }
            }
            Gathered::TooMuch(resumed) => (
                not_kept,
                answered(head, Content::Resumed(resumed)),
                IdempotencyResult::NotKept,
            ),
            Gathered::Broken(broken) => {
                attempts.end(clock::now(), Some(broken.outcome()), None);
                let rejection = match broken {
                    Broken::Backend(_) => Rejection::BackendBroken(endpoints),
                    _ => Rejection::OutOfTime(time),
                };
                (Some(Ending::Unknown), Err(rejection), IdempotencyResult::Unknown)
            }
        }
    }
}

/// Makes the response of a stored answer.
fn replayed(answer: &StoredAnswer) -> Option<Response<Content>> {
    let (status, headers, body) = answer.read()?;
    let length = body.len();
    let mut response = Response::new(Content::Whole(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    if status != StatusCode::NO_CONTENT {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    response
        .headers_mut()
        .insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    Some(response)
}

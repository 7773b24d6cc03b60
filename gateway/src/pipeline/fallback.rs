//! Serves a route's fallbacks when its backend gives no good response (graceful degradation in the resilience article).
//!
//! Only an outage is replaced. A rejection or a 4xx is a valid answer: to serve a resource that is gone would be false.
//! A fallback response carries `x-gateway-fallback` and `Proxy-Status`. Unless it comes from another backend, it is
//! `no-store`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AGE, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, SET_COOKIE};
use http::{HeaderName, HeaderValue, StatusCode};

use super::exchange::Exchange;
use crate::aggregate::proxy_status;
use crate::cache::{self, CachedAnswer, Key, Terms};
use crate::call::backend::Backend;
use crate::call::{CallBody, CallRequest, Facts};
use crate::clock;
use crate::message::Response;
use crate::observe::FallbackKind;
use crate::plan::{Fallback, Route};
use crate::rejection::{Reason, Rejection};
use crate::response::{CachePlacement, Content};

const FALLBACK: HeaderName = HeaderName::from_static("x-gateway-fallback");
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

impl Exchange<'_> {
    /// Calls the route's backend, and if there is no good answer, goes through the route's fallbacks in order.
    pub(super) async fn call_or_fall_back(
        &mut self,
        route: &Route,
        backend: &Arc<Backend>,
        order: &mut CallRequest,
    ) -> Result<Response<Content>, Rejection> {
        let mut facts = Facts::default();
        let key = self.key(route, order);
        let answered = self.call(backend, order, None, &mut facts).await;
        let answered = match answered {
            Ok(response) if !response.status().is_server_error() => {
                self.note_calls(facts);
                return Ok(self.keep(response, key, order));
            }
            Err(rejection) if !is_outage(rejection.reason()) => {
                self.note_calls(facts);
                return Err(rejection);
            }
            outage => outage,
        };
        let outage = Outage::of(&answered);
        for fallback in &route.fallbacks {
            let served = match fallback {
                Fallback::Value(body) => Some(value(body)),
                Fallback::Stale(within) => key.as_ref().and_then(|(key, _)| self.recall(key, *within)),
                Fallback::Backend(other) if order.method.is_idempotent() || !facts.sent => {
                    // What is slow for one backend is not so for another.
                    order.hedge = None;
                    let answer = self.call(other, order, None, &mut facts).await;
                    answer.ok().filter(|response| !response.status().is_server_error())
                }
                Fallback::Backend(_) => None,
            };
            if let Some(mut response) = served {
                if fallback.kind() != FallbackKind::Backend {
                    // The backend's own answer is dropped here.
                    self.record.attempts.end(clock::now(), None, None);
                }
                self.note_calls(facts);
                let kind = fallback.kind();
                self.record.fallbacks.push(kind);
                self.record
                    .note_fault(format!("{}; served {}", outage.why, kind.as_str()));
                outage.mark(&mut response, kind);
                return Ok(response);
            }
        }
        self.note_calls(facts);
        // The record names the route's own backend, not the last fallback.
        self.record.backend = Some(Arc::clone(&backend.name));
        answered
    }

    /// Returns the cache key and the maximum age if the route has a stale fallback and the request can be cached.
    fn key(&self, route: &Route, order: &CallRequest) -> Option<(Key, Terms)> {
        let within = |fallback: &Fallback| match fallback {
            Fallback::Stale(within) => Some(*within),
            Fallback::Value(_) | Fallback::Backend(_) => None,
        };
        let within = route.fallbacks.iter().filter_map(within).max()?;
        let has_body = !matches!(order.body, CallBody::Empty);
        if has_body || !cache::is_repeatable(&order.method) {
            return None;
        }
        let key = Key::of(&[&*route.name], &order.method, order.target.as_str(), &order.headers);
        let tenant = order.entrant.tenant;
        Some((key, Terms { tenant, within }))
    }

    /// Stores a good response in the stale cache while it is passed on.
    fn keep(&self, response: Response<Content>, key: Option<(Key, Terms)>, order: &CallRequest) -> Response<Content> {
        let Some((key, terms)) = key else { return response };
        let (head, content) = response.into_parts();
        let content = match content {
            Content::Reply(reply)
                if head.status == StatusCode::OK
                    && !reply.is_event_stream()
                    && cache::may_be_kept(&order.headers, &head.headers) =>
            {
                let mut headers = head.headers.clone();
                // A cookie belongs to one client and must not be replayed to another.
                headers.remove(SET_COOKIE);
                let kept = CachedAnswer {
                    status: head.status,
                    headers,
                    body: Bytes::new(),
                    at: clock::now(),
                    reuse: None,
                };
                let place = CachePlacement {
                    store: Arc::clone(&self.plan.stale),
                    key,
                    kept,
                    terms,
                };
                Content::kept(reply, place)
            }
            other => other,
        };
        Response::from_parts(head, content)
    }

    fn recall(&self, key: &Key, within: Duration) -> Option<Response<Content>> {
        let now = clock::now();
        let kept = self.plan.stale.recall(key, now, within)?;
        // The response may already have been old when the backend sent it (RFC 9111, section 5.1).
        let before = kept
            .headers
            .get(AGE)
            .and_then(|age| age.to_str().ok()?.parse::<u64>().ok());
        let age = now.since(kept.at).as_secs().saturating_add(before.unwrap_or(0));
        let mut response = Response::new(Content::Whole(kept.body.clone()));
        *response.status_mut() = kept.status;
        *response.headers_mut() = kept.headers;
        response.headers_mut().insert(AGE, age.into());
        response.headers_mut().insert(CONTENT_LENGTH, kept.body.len().into());
        Some(response)
    }
}

/// Why a fallback is served.
struct Outage {
    why: &'static str,
    error: Option<&'static str>,
    status: Option<StatusCode>,
}

impl Outage {
    fn of(answered: &Result<Response<Content>, Rejection>) -> Self {
        match answered {
            Ok(response) => Self {
                why: "backend_status",
                error: None,
                status: Some(response.status()),
            },
            Err(rejection) => {
                let reason = rejection.reason();
                Self {
                    why: reason.as_str(),
                    error: Some(proxy_status::error_of(reason)),
                    status: None,
                }
            }
        }
    }

    fn mark(&self, response: &mut Response<Content>, kind: FallbackKind) {
        let details = format!("{}; served {}", self.why, kind.as_str());
        let member = proxy_status::Member {
            error: self.error,
            received_status: self.status,
            details: Some(&details),
        };
        let headers = response.headers_mut();
        headers.insert(FALLBACK, HeaderValue::from_static(kind.as_str()));
        headers.append(PROXY_STATUS, member.to_value());
        if kind != FallbackKind::Backend {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
    }
}

fn value(body: &Bytes) -> Response<Content> {
    let mut response = Response::new(Content::Whole(body.clone()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, body.len().into());
    response
}

/// Returns true if the reason is a failure of the backend and not of the request or its caller.
pub(super) const fn is_outage(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::BreakerOpen
            | Reason::BulkheadFull
            | Reason::BulkheadTimeout
            | Reason::NoEndpoint
            | Reason::BackendUnreached
            | Reason::BackendBroken
            | Reason::BackendInvalid
            | Reason::BackendTimeout
            | Reason::OutOfTime
    )
}

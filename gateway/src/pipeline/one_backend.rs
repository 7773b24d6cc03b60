//! Calls the backend of a route that has exactly one.

use std::sync::Arc;

use http::header::ACCEPT_ENCODING;
use http::uri::PathAndQuery;
use http::{HeaderValue, StatusCode, Version};
use http_body::Body;
use policies::Deadline;

use super::decision::AuthorizedRequest;
use super::exchange::{Exchange, entrant};
use crate::call::backend::Backend;
use crate::call::mirror::MirrorOrder;
use crate::call::replay::Replay;
use crate::call::{self, CallBody, CallRequest, Facts, Reply, Streaming};
use crate::headers;
use crate::headers::websocket::{self, Handshake};
use crate::message::Response;
use crate::rejection::Rejection;
use crate::response::Content;
use crate::response::tunnel::Tunnel;
use crate::template::{Missing, Sources, Template};
use crate::wire::caller_body::CallerBody;
use crate::wire::interim::InterimTarget;
use crate::wire::switched_stream::SwitchableStream;

/// A caller whose connection or stream becomes a WebSocket if the backend agrees.
pub(super) struct Switching {
    handshake: Handshake,
}

impl Exchange<'_> {
    /// Calls the route's backend, and the route's fallbacks if it fails.
    pub(super) async fn call_backend(
        &mut self,
        request: Box<AuthorizedRequest<'_>>,
        backend: &Arc<Backend>,
        rewrite: Option<&Template>,
        body: CallerBody,
    ) -> Result<Response<Content>, Rejection> {
        let route = request.route;
        let (mut order, switching) = self.order(request, backend, rewrite, body)?;
        // A WebSocket has no fallback.
        if !route.fallbacks.is_empty() && switching.is_none() {
            return Box::pin(self.call_or_fall_back(route, backend, &mut order)).await;
        }
        let mut facts = Facts::default();
        let called = self.call(backend, &mut order, switching, &mut facts).await;
        self.note_calls(facts);
        called
    }

    /// Builds the request for the route's backend.
    pub(super) fn order(
        &mut self,
        request: Box<AuthorizedRequest<'_>>,
        backend: &Arc<Backend>,
        rewrite: Option<&Template>,
        body: CallerBody,
    ) -> Result<(CallRequest, Option<Switching>), Rejection> {
        let AuthorizedRequest {
            route,
            chosen: _,
            is_mirrored,
            hash_keys,
            captures,
            principal,
            target: received,
            head,
            added,
            hints,
            handshake,
            budget,
        } = *request;
        // If the connection cannot be switched, the request goes on as a plain one: its upgrade fields are already
        // removed.
        let switching = handshake.and_then(|handshake| {
            let can_switch = !handshake.of_stream || head.extensions.remove::<SwitchableStream>().is_some();
            can_switch.then_some(Switching { handshake })
        });
        if switching.is_some() && !body.is_end_stream() {
            // The backend could not tell the bytes of a body from those of the tunnel.
            return Err(Rejection::malformed("a request that opens a WebSocket has no body"));
        }
        if let Some(switching) = &switching {
            switching.handshake.stamp(&mut head.headers);
        }
        let target = match rewrite {
            None => received.uri.path_and_query().cloned(),
            Some(rewrite) => {
                let claims = principal.caller.claims.as_ref();
                let sources = Sources::of_request(&captures, &received.query, &head.headers, claims);
                Some(rewritten(rewrite, &sources, received.uri.query()).map_err(|missing| {
                    self.record
                        .note_fault(format!("{}: {}", missing.placeholder, missing.why));
                    UNUSABLE
                })?)
            }
        };
        let of_connection = self.peer.interim.clone().map(InterimTarget::Connection);
        let interim = of_connection.or_else(|| body.flow().cloned().map(InterimTarget::Stream));
        let limit = route.body_limit;
        let body = if let Some(measured) = &self.measured {
            // An encoded answer could not be read while it passes.
            head.headers
                .insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            match measured.body.is_empty() {
                true => CallBody::Empty,
                false => CallBody::Whole(measured.body.clone()),
            }
        } else if body.is_end_stream() {
            CallBody::Empty
        } else if body.size_hint().lower() > limit.value {
            return Err(Rejection::BodyTooLarge(limit));
        } else {
            CallBody::Streamed(Replay::new(body, limit, backend.settings.keep))
        };
        let order = CallRequest {
            method: std::mem::take(&mut head.method),
            target: target.unwrap_or_else(|| PathAndQuery::from_static("/")),
            headers: std::mem::take(&mut head.headers),
            added,
            body,
            deadline: budget.deadline,
            deadline_by: budget.by,
            operator_deadline: Deadline::at(self.started + route.time_limit),
            caller_deadline: hints.deadline.map(|wish| Deadline::at(self.started + wish)),
            trailers: hints.trailers,
            expects: hints.expects && self.measured.is_none(),
            operator_limit: route.time_limit,
            entrant: entrant(&principal),
            is_retry: hints.is_retry,
            streaming: if route.stream {
                Streaming::Always
            } else {
                Streaming::IfDeclared
            },
            switches: switching.is_some(),
            interim,
            cost_header: route.cost_header.clone(),
            hash_keys,
            hedge: route.hedge.clone(),
            mirror: route
                .mirror
                .as_ref()
                .filter(|_| is_mirrored)
                .map(|mirror| Box::new(MirrorOrder::new(Arc::clone(&mirror.mirror), Arc::clone(backend)))),
        };
        Ok((order, switching))
    }

    pub(super) async fn call(
        &mut self,
        backend: &Arc<Backend>,
        order: &mut CallRequest,
        switching: Option<Switching>,
        facts: &mut Facts,
    ) -> Result<Response<Content>, Rejection> {
        self.record.backend = Some(Arc::clone(&backend.name));
        let mut own = Facts::default();
        let called = call::call(backend, self.peer.worker, order, &mut self.record.attempts, &mut own).await;
        facts.add(own);
        let Reply { mut head, mut body } = called.inspect_err(|rejection| self.refund.fail(rejection.reason()))?;
        let switched = match switching {
            Some(switching) if head.status == StatusCode::SWITCHING_PROTOCOLS => {
                if let Err(why) = switching.handshake.check(&order.headers, &head.headers) {
                    self.record.note_fault(why);
                    return Err(Rejection::BackendInvalid(backend.ids.endpoints));
                }
                Some(body.take_switched().ok_or(Rejection::Internal)?)
            }
            Some(switching) if switching.handshake.of_stream && head.status.is_success() => {
                self.record.note_fault("the backend answered, and did not switch");
                return Err(Rejection::BackendInvalid(backend.ids.endpoints));
            }
            _ => None,
        };
        headers::clean_response(&mut head.headers, head.version, &self.plan.via)
            .map_err(|_| Rejection::BackendInvalid(backend.ids.endpoints))?;
        head.version = Version::HTTP_11;
        let content = match switched {
            None => Content::Reply(body),
            Some(to) => {
                websocket::stamp_upgrade(&mut head.headers);
                Content::Switched(Box::new(Tunnel {
                    backend: to,
                    held: body,
                    idle: backend.settings.idle_stream,
                    limit: backend.settings.stream_limit,
                }))
            }
        };
        Ok(Response::from_parts(head, content))
    }
}

/// Rejection of a request that lacks a value for the rewritten request target.
const UNUSABLE: Rejection = Rejection::malformed("a value that this route needs is missing or cannot be used");

/// Checks that a request target can be rewritten.
///
/// # Errors
/// The rejection of a request that lacks a value.
pub(super) fn rewritten_or_refused(
    rewrite: &Template,
    sources: &Sources<'_>,
    query: Option<&str>,
) -> Result<(), Rejection> {
    rewritten(rewrite, sources, query).map(|_| ()).map_err(|_| UNUSABLE)
}

/// Returns the rewritten target of a request.
///
/// # Errors
/// The rejection of a request that lacks a value.
pub(super) fn rewritten_target(request: &AuthorizedRequest<'_>, rewrite: &Template) -> Result<PathAndQuery, Rejection> {
    let claims = request.principal.caller.claims.as_ref();
    let sources = Sources::of_request(&request.captures, &request.target.query, &request.head.headers, claims);
    rewritten(rewrite, &sources, request.target.uri.query()).map_err(|_| UNUSABLE)
}

/// Renders the rewritten request target. The original query is appended unless the rewrite contains a query itself.
fn rewritten(rewrite: &Template, sources: &Sources<'_>, query: Option<&str>) -> Result<PathAndQuery, Missing> {
    let mut text = String::with_capacity(64);
    rewrite.render(sources, &mut text)?;
    if let (Some(query), false) = (query, text.contains('?')) {
        text.push('?');
        text.push_str(query);
    }
    PathAndQuery::try_from(text).map_err(|_| Missing {
        placeholder: "rewrite".to_owned(),
        why: "the result is not a request target",
    })
}

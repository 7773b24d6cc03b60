//! Runs one request through the gateway, from its head to the last byte of its response.
//!
//! ```text
//! decide -> admit -> charge -> call -> respond -> observe
//! ```
//!
//! - `decide` looks at the head: which route, who, allowed, which limits, until when. The answer is a
//!   `Decision`, a value; nothing has been done yet. Its stages are in `decide.rs`, in order.
//! - `admit` refuses some requests while the worker is overloaded, by tier.
//! - On a route whose cost is read from answers, the body is read first, and says what may be charged (`measured.rs`).
//! - `charge` takes the decision's charges from the limits. A 429 is decided here.
//! - `call` waits for tokens that were taken in advance, then calls the route's backend, or several for an aggregate,
//!   or answers directly. After it, the charge is corrected.
//! - `Exchange::respond` makes the response, also of a rejection, and adds the header fields of the route.
//! - The record is written at three places (`record.rs`): from the decision, from the facts of the calls, and from a
//!   rejection. It goes to the metrics and the access log at the last byte of the response.
//!
//! `?` ends the request with a [`Rejection`], which carries the setting that decided.

mod admission;
mod authenticate;
mod backend_head;
mod cached;
mod charge;
mod decide;
mod decision;
mod decision_input;
mod exchange;
pub mod explain;
mod fallback;
mod measured;
mod once;
mod one_backend;
mod peer;
mod record;
mod redirect;
mod respond;
mod route_rules;
mod self_service;
mod several_backends;

use std::panic::AssertUnwindSafe;
use std::pin::pin;

use futures_util::FutureExt;

use self::admission::admit;
use self::charge::charge;
use self::decide::decide;
use self::decision::{AuthorizedRequest, Findings, Stop};
use self::decision_input::DecisionInput;
use self::exchange::Exchange;
use self::measured::SettleOnDrop;
pub use self::peer::Peer;
use crate::clock::{self, Now};
use crate::message::{Request, Response};
use crate::plan::{Destination, Plan};
use crate::rejection::Rejection;
use crate::response::{AnswerBody, Content};
use crate::wire::caller_body::CallerBody;

/// Answers one request. Every request ends in a response, also after a panic.
pub async fn serve(plan: &Plan, peer: &Peer, mut request: Request<CallerBody>) -> Response<AnswerBody> {
    let now = Now::read();
    let mut exchange = Exchange::begin(plan, peer, &mut request, now);
    // A panic affects one request only: its caller gets a 500, and other requests on the connection go on.
    let result = {
        let run = pin!(run(&mut exchange, request, now));
        let result = AssertUnwindSafe(run).catch_unwind().await;
        result.unwrap_or_else(|_| Err(Rejection::Internal))
    };
    exchange.respond(result)
}

/// Runs a request from its head to the head of the response.
async fn run(
    exchange: &mut Exchange<'_>,
    request: Request<CallerBody>,
    now: Now,
) -> Result<Response<Content>, Rejection> {
    let (plan, peer) = (exchange.plan, exchange.peer);
    let (head, mut body) = request.into_parts();
    let mut head = DecisionInput::read(plan, head, &exchange.trace);
    let explained = explain::asked(plan, &head);

    let note = |found: &Findings<'_>| exchange.note_findings(found);
    let mut decision = decide(plan, peer, &mut head, now, note).await;
    exchange.note_findings(&decision.found);
    exchange.response_headers = decision.found.response_headers.take();
    exchange.compression = decision.found.compression.take();
    if let Some(asked) = explained {
        return Ok(explain::answer(plan, peer, &asked, &decision, now));
    }

    let (mut measured, mut is_foreseen) = (None, false);
    if let Ok(request) = &decision.outcome {
        admit(peer, request)?;
        if let Some(metering) = &request.route.metering {
            let reserve = measured::reserve(plan, request, metering, &mut decision.charges, &mut body);
            // Apart from the request's future, which would else be larger for all.
            match Box::pin(reserve).await {
                Ok(reserved) => measured = Some(reserved),
                Err(rejection) => {
                    is_foreseen = rejection.violation().is_some();
                    decision.outcome = Err(rejection.into());
                }
            }
        }
    }
    let receipt = charge(plan, &mut decision).await?;
    let (trace, has_own_id) = (&exchange.trace, exchange.has_own_id);
    decision.write_head(plan, peer, trace, has_own_id, &mut exchange.text);
    let request = match decision.outcome {
        Ok(request) => request,
        Err(Stop::Refused(rejection)) => {
            // A limit was about to refuse, and tokens have come since.
            if is_foreseen {
                receipt.refund(Now::read());
            }
            return Err(rejection);
        }
        Err(Stop::Preflight(fields)) => return Ok(respond::to_preflight(fields)),
    };
    exchange.note_charge(receipt, request.route, request.budget);
    if let Some(measured) = measured {
        exchange.note_reserved(measured);
    }

    let cost = request.route.cost;
    let guard = SettleOnDrop(exchange);
    let answered = call(guard.0, request, body).await;
    guard.0.settle(&answered, cost);
    let response = guard.0.measure(answered?);
    Ok(guard.0.with_limits_told(response))
}

/// Answers a request by its route's target.
async fn call(
    exchange: &mut Exchange<'_>,
    request: Box<AuthorizedRequest<'_>>,
    body: CallerBody,
) -> Result<Response<Content>, Rejection> {
    if body.has_no_room() {
        return Err(Rejection::no_room_for_upload());
    }
    exchange.wait_for_tokens().await;
    if let Some(terms) = &request.route.idempotency {
        let terms = std::sync::Arc::clone(terms);
        return Box::pin(exchange.call_once(request, body, terms)).await;
    }
    if exchange.plan.has_cache {
        return Box::pin(exchange.call_with_cache(request, body)).await;
    }
    exchange.call_target(request, body).await
}

impl Exchange<'_> {
    /// Calls the target of a request.
    async fn call_target(
        &mut self,
        request: Box<AuthorizedRequest<'_>>,
        body: CallerBody,
    ) -> Result<Response<Content>, Rejection> {
        match request.route.target.destination(request.chosen) {
            Destination::Backend { backend, rewrite } => self.call_backend(request, backend, rewrite, body).await,
            Destination::Aggregate(aggregate) => {
                // Its parts begin and end one after the other within a poll.
                clock::read_anew_in_each_poll(Box::pin(self.call_aggregate(request, aggregate, body))).await
            }
            Destination::Respond {
                status,
                headers,
                tells_limits: true,
                ..
            } => Ok(self.own_plan(status, headers, &request.principal)),
            Destination::Respond {
                status, headers, body, ..
            } => Ok(respond::directly(status, headers, body)),
            Destination::Redirect(redirect) => self.redirect(redirect, &request),
        }
    }
}

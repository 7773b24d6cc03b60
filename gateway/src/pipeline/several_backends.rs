//! Answers a request to an aggregate by calling several backends.

use std::sync::Arc;

use http::StatusCode;
use policies::Deadline;

use super::cached::cache_caller;
use super::decision::AuthorizedRequest;
use super::exchange::{Exchange, entrant};
use crate::aggregate::{self, Aggregate, Failure};
use crate::auth::credential_removal;
use crate::message::Response;
use crate::rejection::Rejection;
use crate::response::Content;
use crate::wire::caller_body::CallerBody;
use crate::wire::json_body;
use crate::{clock, problem};

impl Exchange<'_> {
    pub(super) async fn call_aggregate(
        &mut self,
        request: Box<AuthorizedRequest<'_>>,
        aggregate: &Aggregate,
        body: CallerBody,
    ) -> Result<Response<Content>, Rejection> {
        let principal = &request.principal;
        let fields = match &aggregate.fields {
            Some(choice) => choice.read(&request.target.query)?,
            None => None,
        };
        let caller_deadline = request.hints.deadline.map(|wish| Deadline::at(self.started + wish));
        let (workspace, total) = (&self.plan.workspace, self.plan.edge.json_total);
        let reservation = workspace
            .reserve(
                total,
                principal.share,
                (request.budget.deadline.moment(), request.budget.by),
            )
            .up_to(principal.tier.room(total));
        let body = if aggregate.reads_body() {
            let began = clock::now();
            let until = (clock::instant(request.budget.deadline.moment()), request.budget.by);
            let limit = request.route.body_limit;
            let body = json_body::read(body, limit, until, &aggregate.body_paths, &reservation).await?;
            // If sending the body took longer than the time that is left for the answer, the caller counts as the slow
            // side.
            let now = clock::now();
            self.refund.by_callers_time |= now.since(began) > request.budget.deadline.remaining(now);
            body
        } else {
            None
        };
        let (body, received) = body.unzip();
        let not_taken = credential_removal::not_taken(
            &request.head.headers,
            self.plan.credential_fields(),
            &request.route.access,
            &principal.caller.kind,
        );
        let cache_caller = aggregate.has_cache().then(|| Arc::new(cache_caller(principal)));
        let of_parts = aggregate::Request {
            method: &request.head.method,
            captures: &request.captures,
            query: &request.target.query,
            headers: &request.head.headers,
            not_taken: &not_taken,
            added: &request.added,
            claims: principal.caller.claims.as_ref(),
            cache_caller: cache_caller.as_ref(),
            body: body.as_ref(),
            reservation: &reservation,
            fields: fields.as_ref(),
            deadline: request.budget.deadline,
            deadline_by: request.budget.by,
            operator_deadline: Deadline::at(self.started + request.route.time_limit),
            caller_deadline,
            cost_header: request.route.cost_header.as_ref(),
            operator_limit: request.route.time_limit,
            entrant: entrant(principal),
            hash_keys: &request.hash_keys,
            is_retry: request.hints.is_retry,
            worker: self.peer.worker,
        };
        let (answered, facts) = aggregate.serve(&of_parts, &mut self.record.attempts).await;
        self.note_calls(facts);
        self.record.bytes_in = received.unwrap_or_default() as u64;
        match &answered {
            Ok(answer) => {
                for (_, fault) in &answer.faults {
                    self.refund.fail(fault.rejection());
                }
            }
            Err(failure) => self.refund.fail(failure.fault.rejection()),
        }
        self.record.complete = Some(matches!(&answered, Ok(answer) if answer.is_complete()));
        let answer = match answered {
            Ok(answer) => answer,
            Err(failure) => return Ok(self.fail(aggregate, &failure)),
        };
        self.record.fallbacks.extend(answer.fallbacks());
        if answer.is_known_to(&request.head.headers) {
            let mut response = Response::new(Content::Empty);
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            answer.write_unchanged_headers(response.headers_mut());
            return Ok(response);
        }
        let body = reservation.keep_for(answer.body.clone());
        let mut response = Response::new(Content::Whole(body));
        *response.status_mut() = answer.status;
        answer.write_headers(response.headers_mut());
        Ok(response)
    }

    /// Builds the response of an aggregate whose required part failed.
    fn fail(&mut self, aggregate: &Aggregate, failure: &Failure) -> Response<Content> {
        let request_id = self.record.request_id.clone();
        self.record
            .note_fault(format!("part {}: {}", failure.part, failure.reason()));
        // A backend's own refusal is passed on as its answer, not recorded as a rejection by the gateway.
        self.record.reason = (!failure.fault.is_refusal()).then(|| failure.fault.rejection());
        self.record.decided = self.decided_by(aggregate.setting_of(failure));
        let fault = &failure.fault;
        let failed = problem::FailedPart {
            status: failure.status(),
            reason: failure.reason(),
            part: &failure.part,
            refused: fault.backend_status().is_some(),
            wait: failure.retry_after(),
            allow: fault.error().and_then(|error| error.allow.as_ref()),
            details: fault.details(),
        };
        let mut response = problem::part_failed(&failed, request_id.as_str());
        failure.write_headers(response.headers_mut());
        response.map(Content::Whole)
    }
}

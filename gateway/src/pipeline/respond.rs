//! Makes the response to a request. A header field that every response must have is added in [`Exchange::respond`].

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};

use super::exchange::Exchange;
use crate::clock::Now;
use crate::compression::Encoder;
use crate::header_fields::{self, GRPC_STATUS};
use crate::headers;
use crate::limits;
use crate::message::{FieldMap, Response};
use crate::problem;
use crate::rejection::Rejection;
use crate::response::{AnswerBody, Content};
use crate::wire::grpc;

impl Exchange<'_> {
    /// Makes the response from the result of the calls or from a rejection. The body takes the record and the place
    /// among the requests in flight, and releases both at its last byte.
    pub(super) fn respond(mut self, result: Result<Response<Content>, Rejection>) -> Response<AnswerBody> {
        let mut response = match result {
            Ok(response) => response,
            Err(rejection) => {
                let refusal = self.refuse(&rejection);
                // A rejected request is no longer in flight, even if its caller reads the response slowly.
                self.receipt = None;
                refusal
            }
        };
        if let Some(fields) = &self.response_headers {
            fields.apply(self.peer.scheme, response.headers_mut());
        }
        let encoder = self.compress(&mut response);
        let presence = self.receipt.map(|receipt| receipt.presence).unwrap_or_default();
        let mut record = self.record;
        record.status = response.status().as_u16();
        if self.is_grpc {
            record.grpc_status = grpc::stated(response.headers().get(&GRPC_STATUS));
        }
        response
            .headers_mut()
            .insert(headers::X_REQUEST_ID.clone(), self.request_id);
        response.map(|content| match content {
            Content::Whole(_) if self.is_head => AnswerBody::new(Content::Empty, record, presence),
            content if self.is_grpc => AnswerBody::new(content, record, presence).of_grpc(),
            content => AnswerBody::new(content, record, presence).compressed(encoder),
        })
    }

    /// Decides whether the response is compressed, and changes its header fields accordingly.
    fn compress(&mut self, response: &mut Response<Content>) -> Option<Encoder> {
        let compression = self.compression.take()?;
        let length = match response.body() {
            Content::Switched(_) => return None,
            _ if self.is_grpc => return None,
            content @ Content::Whole(_) => content.length(),
            // The response to HEAD is about the body of that to GET.
            _ if self.is_head => stated_length(response.headers()),
            content => content.length(),
        };
        compression.apply(response.status(), response.headers_mut(), length)
    }

    /// Makes the response to a rejected request.
    fn refuse(&mut self, rejection: &Rejection) -> Response<Content> {
        self.note_refusal(rejection);
        let request_id = self.request_id.to_str().unwrap_or_default();
        let mut response = match self.is_grpc {
            true => grpc::refusal(rejection, request_id),
            false => problem::answer(rejection, request_id),
        };
        // A rejection by a limit tells of the limits that refused; any other, of all that were charged.
        let is_legacy = self.plan.edge.legacy_limit_fields;
        match (&self.receipt, rejection.violation()) {
            (_, Some(violation)) if is_legacy => {
                let reset = header_fields::whole_seconds(violation.wait);
                limits::legacy(response.headers_mut(), violation.most, 0, reset);
            }
            (Some(receipt), None) if self.tells_limits => {
                let now = Now::read();
                receipt.tell(response.headers_mut(), now);
                if is_legacy {
                    receipt.tell_legacy(response.headers_mut(), now);
                }
            }
            _ => {}
        }
        response.map(Content::Whole)
    }
}

fn stated_length(headers: &FieldMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Answers a CORS preflight.
pub(super) fn to_preflight(fields: FieldMap) -> Response<Content> {
    let mut response = Response::new(Content::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    *response.headers_mut() = fields;
    response
}

/// Answers by a route's `respond`.
pub(super) fn directly(status: StatusCode, headers: &FieldMap, body: &Bytes) -> Response<Content> {
    let mut response = Response::new(Content::Whole(body.clone()));
    *response.status_mut() = status;
    *response.headers_mut() = headers.clone();
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    response
}

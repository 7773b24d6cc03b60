//! The head of the request of one attempt, written from the call's fields without a copy of them.

use std::time::Duration;

use bytes::BytesMut;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Uri, header};
use http_body::Body as _;

use crate::call::replay::Outbound;
use crate::call::stamp::{self, stamp_attempt};
use crate::header_fields::{Digits, GRPC_TIMEOUT, X_ATTEMPT, X_REQUEST_TIMEOUT_MS};
use crate::headers::AddedFields;
use crate::message::{FieldMap, Request};
use crate::wire::http1::{BodyLength, begin_request_head, end_head, write_field};

/// Bytes that a head usually needs.
const USUAL: usize = 1024;

/// Head of the request of one attempt.
#[derive(Clone, Copy)]
pub(crate) struct AttemptHead<'a> {
    pub(crate) method: &'a Method,
    pub(crate) target: &'a PathAndQuery,
    /// Fields of all attempts.
    pub(crate) headers: &'a FieldMap,
    /// Fields of all attempts that are not among `headers`.
    pub(crate) added: &'a AddedFields,
    /// Host, in place of the one among the fields.
    pub(crate) host: &'a HeaderValue,
    /// Time that the attempt may take.
    pub(crate) remaining: Duration,
    /// Number of the attempt, counted from 1.
    pub(crate) attempt: u32,
    /// Whether the backend is to say first whether it wants the body.
    pub(crate) expects: bool,
}

impl AttemptHead<'_> {
    /// Returns how the body is framed. Framing does not depend on the method (RFC 9112 section 6.3); but a request that
    /// usually has a body says so if it has none (RFC 9110 section 8.6).
    pub(super) fn length_of(&self, body: &Outbound) -> Option<BodyLength> {
        if body.is_end_stream() {
            let is_usual = matches!(*self.method, Method::POST | Method::PUT | Method::PATCH);
            let is_stated = is_usual || self.headers.contains_key(header::CONTENT_LENGTH);
            return is_stated.then_some(BodyLength::Exact(0));
        }
        Some(match body.size_hint().exact() {
            Some(length) => BodyLength::Exact(length),
            None => BodyLength::Chunked,
        })
    }

    /// Writes the head in HTTP/1.1.
    pub(super) fn write(&self, out: &mut BytesMut, length: Option<BodyLength>) {
        let own = [&header::HOST, &X_REQUEST_TIMEOUT_MS, &X_ATTEMPT, &GRPC_TIMEOUT];
        let fields = self.headers.iter().filter(|(name, _)| !own.contains(name));
        let start = (self.method.as_str(), self.target.as_str(), Some(self.host));
        out.reserve(USUAL);
        begin_request_head(out, start, fields);
        out.extend_from_slice(self.added.as_lines());
        let milliseconds = u64::try_from(self.remaining.as_millis()).unwrap_or(u64::MAX);
        write_field(out, X_REQUEST_TIMEOUT_MS.as_str(), Digits::of(milliseconds).as_bytes());
        write_field(out, X_ATTEMPT.as_str(), Digits::of(self.attempt.into()).as_bytes());
        if self.headers.contains_key(&GRPC_TIMEOUT) {
            write_field(out, GRPC_TIMEOUT.as_str(), stamp::grpc_timeout(milliseconds).as_bytes());
        }
        if self.expects {
            write_field(out, header::EXPECT.as_str(), b"100-continue");
        }
        end_head(out, length);
    }

    /// Returns the request for a connection that takes it as a value.
    pub(crate) fn to_request(self, body: Outbound) -> Request<Outbound> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::from(self.target.clone());
        let headers = request.headers_mut();
        headers.reserve(self.headers.len() + 3);
        for (name, value) in self.headers {
            headers.append(name, value.clone());
        }
        self.added.insert_into(headers);
        headers.insert(header::HOST, self.host.clone());
        stamp_attempt(headers, self.remaining, self.attempt);
        request
    }
}

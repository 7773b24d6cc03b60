//! Decides how an answer is framed and whether it is the last one, and writes its head.

use bytes::BytesMut;
use http::header::{CONNECTION, DATE, UPGRADE};
use http::{StatusCode, Version};
use http_body::Body;
use hyper::ext::ReasonPhrase;

use crate::message::Response;
use crate::server::date;
use crate::wire::http1::{BodyLength, begin_answer_head, end_head, write_field};

/// What the head of a request decides about its answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) version: Version,
    pub(super) is_head: bool,
    /// Whether the caller reads trailers (RFC 9110 section 6.5.1).
    pub(super) takes_trailers: bool,
    /// Whether the request is the last on its connection.
    pub(super) is_last: bool,
}

impl Asked {
    /// Returns how the answer's body is framed. `None` means that the answer ends with its head, whatever its fields say.
    pub(super) fn framing<B: Body>(&self, answer: &Response<B>) -> Option<BodyLength> {
        let status = answer.status();
        if self.is_head
            || status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        {
            return None;
        }
        let body = answer.body();
        let length = if body.is_end_stream() {
            Some(0)
        } else {
            body.size_hint().exact()
        };
        Some(match length {
            Some(length) => BodyLength::Exact(length),
            None if self.version == Version::HTTP_10 => BodyLength::UntilClose,
            None => BodyLength::Chunked,
        })
    }

    /// Writes the head of the answer. `is_last` says whether the connection closes after it.
    pub(super) fn write_head<B>(
        &self,
        out: &mut BytesMut,
        answer: &Response<B>,
        length: Option<BodyLength>,
        is_last: bool,
    ) {
        let (status, fields) = (answer.status(), answer.headers());
        let (mut names_upgrade, mut has_date) = (false, false);
        let reason = answer.extensions().get::<ReasonPhrase>().map(ReasonPhrase::as_bytes);
        let own = fields.iter().filter(|(name, _)| {
            names_upgrade |= **name == UPGRADE;
            has_date |= **name == DATE;
            **name != CONNECTION
        });
        begin_answer_head(out, (self.version, status, reason), own, length);
        if !has_date {
            write_field(out, DATE.as_str(), date::field().as_bytes());
        }
        let option: &[u8] = match (names_upgrade, is_last) {
            (true, true) if status != StatusCode::SWITCHING_PROTOCOLS => b"upgrade, close",
            (true, _) => b"upgrade",
            (false, true) => b"close",
            (false, false) if self.version == Version::HTTP_10 => b"keep-alive",
            (false, false) => b"",
        };
        if !option.is_empty() {
            write_field(out, CONNECTION.as_str(), option);
        }
        end_head(out, length);
    }
}

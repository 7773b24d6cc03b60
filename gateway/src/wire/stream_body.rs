//! Body of a request that comes on an HTTP/2 stream.
//!
//! Space in the caller's window is returned for what was read, and for nothing else.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::header::CONTENT_LENGTH;
use http_body::{Frame, SizeHint};

use crate::message::FieldMap;
use crate::wire::caller_body::BodyError;

#[derive(Debug)]
pub struct StreamBody {
    stream: RecvStream,
    /// Number of bytes that must still come, if that is known. The library resets a stream on which another number comes.
    remaining: Option<u64>,
    /// Whether only trailers can still come.
    is_content_over: bool,
}

impl StreamBody {
    /// Wraps the body of a request with these fields.
    pub fn new(stream: RecvStream, fields: &FieldMap) -> Self {
        let remaining = match stream.is_end_stream() {
            true => Some(0),
            false => stated_length(fields),
        };
        Self {
            stream,
            remaining,
            is_content_over: false,
        }
    }

    /// Returns the next piece of the body, or its trailers.
    ///
    /// # Errors
    /// [`BodyError::Broken`] if the stream ended before the body. A reset with `NO_ERROR` is no end: it is one only for
    /// answers (RFC 9113 section 8.1).
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if !self.is_content_over {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // This fails only if less has come.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    if let Some(remaining) = &mut self.remaining {
                        *remaining = remaining.saturating_sub(data.len() as u64);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(_)) => return Poll::Ready(Some(Err(BodyError::Broken))),
                None => self.is_content_over = true,
            }
        }
        Poll::Ready(match ready!(self.stream.poll_trailers(cx)) {
            Ok(Some(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Ok(None) if self.stream.is_end_stream() => None,
            Ok(None) | Err(_) => Some(Err(BodyError::Broken)),
        })
    }

    pub fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    pub fn size_hint(&self) -> SizeHint {
        self.remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Returns the length of the body that the fields state; `None` if they state none, or several.
fn stated_length(fields: &FieldMap) -> Option<u64> {
    let lines = fields.get_all(CONTENT_LENGTH).iter();
    let mut lengths = lines
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(|length| {
            let digits = length.trim_ascii();
            let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
            let text = std::str::from_utf8(digits).ok().filter(|_| is_number)?;
            text.parse::<u64>().ok()
        });
    let first = lengths.next()??;
    lengths.all(|other| other == Some(first)).then_some(first)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_length_is_stated_once_or_several_times_alike() {
        let check = |lines: &[&'static str], expected| {
            let fields = lines
                .iter()
                .map(|line| (CONTENT_LENGTH, HeaderValue::from_static(line)));
            assert_eq!(stated_length(&fields.collect()), expected, "{lines:?}");
        };
        check(&[], None);
        check(&["5"], Some(5));
        check(&["5, 5", "5"], Some(5));
        check(&["5, 6"], None);
        check(&["5", "6"], None);
        check(&["+5"], None);
        check(&[""], None);
        check(&["99999999999999999999"], None);
    }
}

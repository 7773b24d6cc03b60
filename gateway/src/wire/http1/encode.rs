//! Writes heads, and frames bodies and trailers.
//!
//! Invariant: a message frames itself as its body is, whatever its fields say: only this file writes `Content-Length`
//! and `Transfer-Encoding`, except where an answer without a body states the length that another one would have.

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};

use super::body::BodyLength;
use crate::header_fields::Digits;

/// Writes the head of a request. `fields` are all fields but Host; those that frame are replaced by `length`.
pub fn write_request_head<'a>(
    out: &mut BytesMut,
    start: (&str, &str, Option<&HeaderValue>),
    fields: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>,
    length: Option<BodyLength>,
) {
    begin_request_head(out, start, fields);
    end_head(out, length);
}

/// Writes a request line and fields, and leaves the head open for more of them.
pub(crate) fn begin_request_head<'a>(
    out: &mut BytesMut,
    (method, target, host): (&str, &str, Option<&HeaderValue>),
    fields: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>,
) {
    for part in [method, " ", target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    if let Some(host) = host {
        write_field(out, "host", host.as_bytes());
    }
    write_fields(out, fields, false);
}

/// Writes the head of an answer. The fields that frame are replaced by `length`. Without a length, which means that the
/// answer ends with its head, its own `Content-Length` passes.
pub fn write_answer_head<'a>(
    out: &mut BytesMut,
    start: (Version, StatusCode, Option<&[u8]>),
    fields: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>,
    length: Option<BodyLength>,
) {
    begin_answer_head(out, start, fields, length);
    end_head(out, length);
}

/// Writes a status line and fields, and leaves the head open for more of them.
pub(crate) fn begin_answer_head<'a>(
    out: &mut BytesMut,
    (version, status, reason): (Version, StatusCode, Option<&[u8]>),
    fields: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>,
    length: Option<BodyLength>,
) {
    out.extend_from_slice(if version == Version::HTTP_10 {
        b"HTTP/1.0 "
    } else {
        b"HTTP/1.1 "
    });
    out.extend_from_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    out.extend_from_slice(reason.unwrap_or_else(|| status.canonical_reason().unwrap_or_default().as_bytes()));
    out.extend_from_slice(b"\r\n");
    write_fields(out, fields, length.is_none());
}

fn write_fields<'a>(
    out: &mut BytesMut,
    fields: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>,
    states_length: bool,
) {
    for (name, value) in fields {
        let frames = name == header::TRANSFER_ENCODING || name == header::CONTENT_LENGTH && !states_length;
        if !frames {
            write_field(out, name.as_str(), value.as_bytes());
        }
    }
}

/// Writes one field line. Name and value must be those of a field.
pub(crate) fn write_field(out: &mut BytesMut, name: &str, value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Ends a head with the field that frames its body, if there is one.
pub(crate) fn end_head(out: &mut BytesMut, length: Option<BodyLength>) {
    match length {
        Some(BodyLength::Exact(length)) => {
            out.extend_from_slice(b"content-length: ");
            out.extend_from_slice(Digits::of(length).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Some(BodyLength::Chunked) => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Some(BodyLength::UntilClose) | None => {}
    }
    out.extend_from_slice(b"\r\n");
}

/// Framing of a body that is being written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyEncoder(State);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Number of bytes that must still come.
    Owed(u64),
    Chunked,
    UntilClose,
    Ended,
}

/// Content is longer than the length that the head states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overrun;

/// The body ended before the length that the head states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Short;

/// Bytes around a piece of content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkFrame {
    before: [u8; 18],
    before_length: u8,
    pub after: &'static [u8],
}

impl ChunkFrame {
    const NONE: Self = Self {
        before: [0; 18],
        before_length: 0,
        after: b"",
    };

    /// Creates the frame of a chunk of `length` bytes.
    fn of(mut length: usize) -> Self {
        let (mut digits, mut at) = ([0; 16], 16);
        while length > 0 {
            at -= 1;
            digits[at] = b"0123456789abcdef"[length & 15];
            length >>= 4;
        }
        let count = 16 - at;
        let mut frame = Self {
            after: b"\r\n",
            before_length: count as u8 + 2,
            ..Self::NONE
        };
        frame.before[..count].copy_from_slice(&digits[at..]);
        frame.before[count..count + 2].copy_from_slice(b"\r\n");
        frame
    }

    pub fn before(&self) -> &[u8] {
        &self.before[..usize::from(self.before_length)]
    }
}

impl BodyEncoder {
    /// Begins a body after its head. `None` means that there is none.
    pub const fn new(length: Option<BodyLength>) -> Self {
        Self(match length {
            None | Some(BodyLength::Exact(0)) => State::Ended,
            Some(BodyLength::Exact(length)) => State::Owed(length),
            Some(BodyLength::Chunked) => State::Chunked,
            Some(BodyLength::UntilClose) => State::UntilClose,
        })
    }

    /// Returns the bytes that go around a piece of `length` bytes. A piece of no bytes must not be written.
    ///
    /// # Errors
    /// Refuses content beyond the end of the body.
    pub fn frame(&mut self, length: usize) -> Result<ChunkFrame, Overrun> {
        match &mut self.0 {
            _ if length == 0 => Ok(ChunkFrame::NONE),
            State::Owed(left) => {
                *left = left.checked_sub(length as u64).ok_or(Overrun)?;
                if *left == 0 {
                    self.0 = State::Ended;
                }
                Ok(ChunkFrame::NONE)
            }
            State::Chunked => Ok(ChunkFrame::of(length)),
            State::UntilClose => Ok(ChunkFrame::NONE),
            State::Ended => Err(Overrun),
        }
    }

    /// Ends the body, with trailers if it is chunked and has any.
    ///
    /// # Errors
    /// Fails if content is owed. The message can then only be cut.
    pub fn end(&mut self, trailers: Option<&HeaderMap>, out: &mut BytesMut) -> Result<(), Short> {
        match self.0 {
            State::Owed(_) => return Err(Short),
            State::Chunked => {
                out.extend_from_slice(b"0\r\n");
                for (name, value) in trailers.into_iter().flatten() {
                    write_field(out, name.as_str(), value.as_bytes());
                }
                out.extend_from_slice(b"\r\n");
            }
            State::UntilClose | State::Ended => {}
        }
        self.0 = State::Ended;
        Ok(())
    }

    /// Whether the body is complete.
    pub const fn has_ended(&self) -> bool {
        matches!(self.0, State::Ended)
    }
}

//! Reads a body: finds its content among chunk sizes, extensions and the ends of chunks, and keeps its trailer section.
//!
//! Framing is read byte by byte in a state machine, because a chunk's line may arrive in any number of pieces. Content
//! is counted and skipped.

use std::mem;

use super::octets::{is_token_byte, is_value_byte};
use super::{Limits, Refusal, Result, malformed};

/// Maximum digits of a chunk's size, with leading zeros. More would not fit into 64 bits.
const SIZE_DIGITS: u32 = 16;

/// Length of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// Number of bytes.
    Exact(u64),
    Chunked,
    /// The body ends with the connection.
    UntilClose,
}

/// Rest of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    /// Number of remaining bytes.
    Length(u64),
    Chunked(Chunked),
    UntilClose,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunked {
    state: State,
    /// Remaining bytes of the current chunk.
    size: u64,
    digits: u32,
    extensions: u32,
    /// Trailer section as far as it has come, without the empty line at its end.
    trailers: Vec<u8>,
    trailer_lines: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    /// White space after the size; only an extension may follow.
    SpaceBeforeExtension,
    /// Position after `;`.
    SpaceBeforeName,
    Name,
    SpaceAfterName,
    /// Position after `=`.
    SpaceBeforeValue,
    Value,
    Quoted,
    Escaped,
    /// Position after the closing quote.
    Closed,
    SpaceAfterValue,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    LineStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    End,
}

/// What comes next in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// More bytes are needed.
    More,
    /// So many bytes of content.
    Content(usize),
    /// The body is complete.
    End,
}

impl Body {
    pub(crate) const fn new(length: BodyLength) -> Self {
        match length {
            BodyLength::Exact(length) => Self::Length(length),
            BodyLength::UntilClose => Self::UntilClose,
            BodyLength::Chunked => Self::Chunked(Chunked {
                state: State::Size,
                size: 0,
                digits: 0,
                extensions: 0,
                trailers: Vec::new(),
                trailer_lines: 0,
            }),
        }
    }

    /// Reads on. Returns how many of `bytes` are framing, and what follows them. Content counts as read.
    pub(crate) fn read(&mut self, bytes: &[u8], limits: &Limits) -> (usize, Result<Found>) {
        match self {
            Self::Length(0) => (0, Ok(Found::End)),
            _ if bytes.is_empty() => (0, Ok(Found::More)),
            Self::UntilClose => (0, Ok(Found::Content(bytes.len()))),
            Self::Length(left) => (0, Ok(Found::Content(skip(left, bytes.len())))),
            Self::Chunked(chunked) => {
                for (at, &byte) in bytes.iter().enumerate() {
                    if chunked.state == State::Data {
                        let content = skip(&mut chunked.size, bytes.len() - at);
                        if chunked.size == 0 {
                            chunked.state = State::DataCr;
                        }
                        return (at, Ok(Found::Content(content)));
                    }
                    if let Err(refusal) = chunked.take(byte, limits) {
                        return (at, Err(refusal));
                    }
                    if chunked.state == State::End {
                        return (at + 1, Ok(Found::End));
                    }
                }
                (bytes.len(), Ok(Found::More))
            }
        }
    }

    /// Takes the trailer section of a complete body, without its empty line. It is empty if there is none.
    pub(crate) fn take_trailers(&mut self) -> Vec<u8> {
        match self {
            Self::Chunked(chunked) => mem::take(&mut chunked.trailers),
            Self::Length(_) | Self::UntilClose => Vec::new(),
        }
    }

    /// Whether all content of a body of known length was read.
    pub(crate) const fn has_all(&self) -> bool {
        matches!(self, Self::Length(0))
    }

    /// Whether the end of the connection is the end of the body.
    pub(crate) const fn ends_with_connection(&self) -> bool {
        matches!(self, Self::UntilClose)
    }
}

/// Subtracts up to `most` from `left`. Returns how much it subtracted.
fn skip(left: &mut u64, most: usize) -> usize {
    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(most);
    *left -= taken as u64;
    taken
}

impl Chunked {
    /// Checks one byte of framing (RFC 9112 section 7.1).
    fn take(&mut self, byte: u8, limits: &Limits) -> Result<()> {
        use State as S;
        if matches!(
            self.state,
            S::SpaceBeforeExtension | S::SpaceBeforeName | S::Name | S::SpaceAfterName
        ) || matches!(
            self.state,
            S::SpaceBeforeValue | S::Value | S::Quoted | S::Escaped | S::Closed
        ) || self.state == S::SpaceAfterValue
        {
            count(
                &mut self.extensions,
                limits.extensions,
                "the chunk extensions are too long",
            )?;
        }
        let is_trailer = match self.state {
            S::TrailerName | S::TrailerValue | S::TrailerLf => true,
            S::LineStart => byte != b'\r',
            _ => false,
        };
        if is_trailer && self.trailers.len() >= limits.trailers {
            return malformed("the trailer section is too long");
        }
        self.state = match (self.state, byte) {
            (S::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                count(&mut self.digits, SIZE_DIGITS, "a chunk size has too many digits")?;
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                self.size = self.size << 4 | u64::from(digit);
                S::Size
            }
            (S::Size, _) if self.digits == 0 => return malformed("a chunk has no size"),
            (S::Size | S::SpaceBeforeExtension, b';')
            | (S::Name | S::SpaceAfterName | S::Value | S::Closed | S::SpaceAfterValue, b';') => S::SpaceBeforeName,
            (S::Size | S::Name | S::Value | S::Closed, b'\r') => S::SizeLf,
            (S::Size | S::SpaceBeforeExtension, b' ' | b'\t') => S::SpaceBeforeExtension,
            (S::SpaceBeforeName, b' ' | b'\t') => S::SpaceBeforeName,
            (S::SpaceBeforeName | S::Name, _) if is_token_byte(byte) => S::Name,
            (S::Name | S::SpaceAfterName, b'=') => S::SpaceBeforeValue,
            (S::Name | S::SpaceAfterName, b' ' | b'\t') => S::SpaceAfterName,
            (S::SpaceBeforeValue, b' ' | b'\t') => S::SpaceBeforeValue,
            (S::SpaceBeforeValue, b'"') => S::Quoted,
            (S::SpaceBeforeValue | S::Value, _) if is_token_byte(byte) => S::Value,
            (S::Quoted, b'"') => S::Closed,
            (S::Quoted, b'\\') => S::Escaped,
            (S::Quoted | S::Escaped, _) if is_value_byte(byte) => S::Quoted,
            (S::Value | S::Closed | S::SpaceAfterValue, b' ' | b'\t') => S::SpaceAfterValue,
            (S::SizeLf, b'\n') => {
                self.digits = 0;
                if self.size == 0 { S::LineStart } else { S::Data }
            }
            (S::DataCr, b'\r') => S::DataLf,
            (S::DataLf, b'\n') => S::Size,
            (S::DataCr | S::DataLf, _) => return malformed("a chunk is longer than its size"),
            (S::LineStart, b'\r') => S::EndLf,
            (S::EndLf, b'\n') => S::End,
            (S::LineStart, _) if is_token_byte(byte) => {
                count(
                    &mut self.trailer_lines,
                    limits.trailer_lines,
                    "there are too many trailers",
                )?;
                S::TrailerName
            }
            (S::TrailerName, b':') => S::TrailerValue,
            (S::TrailerName, _) if is_token_byte(byte) => S::TrailerName,
            (S::TrailerValue, b'\r') => S::TrailerLf,
            (S::TrailerValue, _) if is_value_byte(byte) => S::TrailerValue,
            (S::TrailerLf, b'\n') => S::LineStart,
            (S::LineStart | S::EndLf | S::TrailerName | S::TrailerValue | S::TrailerLf, _) => {
                return malformed("a trailer is not a field line that ends in CRLF");
            }
            _ => return malformed("the line of a chunk's size is not a size, extensions and CRLF"),
        };
        if is_trailer {
            self.trailers.push(byte);
        }
        Ok(())
    }
}

fn count(counted: &mut u32, most: u32, why: &'static str) -> Result<()> {
    *counted += 1;
    if *counted > most {
        return Err(Refusal::Malformed(why));
    }
    Ok(())
}

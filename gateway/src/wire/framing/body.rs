//! Checks the framing of a body byte by byte: chunk sizes, extensions, the ends of chunks, the trailer section.
//!
//! Content is counted and skipped. The check is a state machine, because a chunk's line may arrive in any number of
//! pieces.

use crate::wire::framing::octets::{is_token_byte, is_value_byte};
use crate::wire::framing::{Refusal, Result, malformed};

/// Maximum bytes of all chunk extensions of a body. Nobody uses them, so many of them are an attack. Below hyper's
/// limit.
const EXTENSIONS: u32 = 8 * 1024;
/// Maximum bytes and lines of a trailer section. Below hyper's limits, whatever the limits for heads are.
const TRAILERS: u32 = 4 * 1024;
const TRAILER_LINES: u32 = 64;
/// Maximum digits of a chunk's size, with leading zeros. More would not fit into 64 bits.
const SIZE_DIGITS: u32 = 16;

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
    trailers: u32,
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

impl Body {
    pub(crate) const fn of(length: u64) -> Self {
        Self::Length(length)
    }

    pub(crate) const fn chunked() -> Self {
        Self::Chunked(Chunked {
            state: State::Size,
            size: 0,
            digits: 0,
            extensions: 0,
            trailers: 0,
            trailer_lines: 0,
        })
    }

    /// Returns how many of `bytes` belong to this body, and the result if the body ends here or is malformed.
    pub(crate) fn pass(&mut self, bytes: &[u8]) -> (usize, Option<Result<()>>) {
        match self {
            Self::UntilClose => (bytes.len(), None),
            Self::Length(left) => {
                let passed = skip(left, bytes.len());
                (passed, (*left == 0).then_some(Ok(())))
            }
            Self::Chunked(chunked) => {
                let mut at = 0;
                while at < bytes.len() {
                    if chunked.state == State::Data {
                        at += skip(&mut chunked.size, bytes.len() - at);
                        if chunked.size == 0 {
                            chunked.state = State::DataCr;
                        }
                        continue;
                    }
                    if let Err(refusal) = chunked.take(bytes[at]) {
                        return (at, Some(Err(refusal)));
                    }
                    at += 1;
                    if chunked.state == State::End {
                        return (at, Some(Ok(())));
                    }
                }
                (at, None)
            }
        }
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
    fn take(&mut self, byte: u8) -> Result<()> {
        use State as S;
        if matches!(
            self.state,
            S::SpaceBeforeExtension | S::SpaceBeforeName | S::Name | S::SpaceAfterName
        ) || matches!(
            self.state,
            S::SpaceBeforeValue | S::Value | S::Quoted | S::Escaped | S::Closed
        ) || self.state == S::SpaceAfterValue
        {
            count(&mut self.extensions, EXTENSIONS, "the chunk extensions are too long")?;
        } else if matches!(self.state, S::LineStart | S::TrailerName | S::TrailerValue) {
            count(&mut self.trailers, TRAILERS, "the trailer section is too long")?;
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
                count(&mut self.trailer_lines, TRAILER_LINES, "there are too many trailers")?;
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
        Ok(())
    }
}

#[cfg(test)]
impl Body {
    /// Whether the next byte is content.
    pub(crate) fn is_in_content(&self) -> bool {
        match self {
            Self::Length(left) => *left > 0,
            Self::Chunked(chunked) => chunked.state == State::Data,
            Self::UntilClose => true,
        }
    }
}

fn count(counted: &mut u32, most: u32, why: &'static str) -> Result<()> {
    *counted += 1;
    if *counted > most {
        return Err(Refusal::Malformed(why));
    }
    Ok(())
}

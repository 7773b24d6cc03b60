//! Reads a head line by line, and derives from it where the message ends.
//!
//! A line is judged once, when its last byte has arrived, so its bytes are contiguous. The limits are checked before the
//! content, so a line that is too long gets the same verdict wherever the network cuts it. The same pass notes where
//! each part of the head lies, and which kind each field is.

use std::ops::Range;

use bytes::Bytes;
use http::{Method, StatusCode, Version};
use memchr::memchr;

use super::body::BodyLength;
use super::fields::{Fields, Place};
use super::kind::FieldKind;
use super::octets::{is_target, is_token, is_value};
use super::{Limits, Refusal, Result, field, malformed};

/// Limit of the `http` crate on a target in bytes.
const LONGEST_TARGET: usize = 65_534;
/// Bytes allowed for the rest of a request line beside its target: method, version, spaces.
const REST_OF_REQUEST_LINE: usize = 64;

/// Request that an answer belongs to, as far as it decides where the answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    Head,
    Connect,
    Other,
}

impl From<&Method> for Asked {
    fn from(method: &Method) -> Self {
        match *method {
            Method::HEAD => Self::Head,
            Method::CONNECT => Self::Connect,
            _ => Self::Other,
        }
    }
}

/// Kind of message that a head begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    Answer(Asked),
}

/// Kind of data that follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Follows {
    Body(BodyLength),
    Nothing,
    /// Another head: the final answer to the same request, after an interim one.
    AnotherHead,
    /// Data of another protocol.
    Switch,
}

/// Head that passed all checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub fields: Fields,
    start: Start,
    version: Version,
    pub(crate) follows: Follows,
    /// Whether this is the last message on the connection.
    pub(crate) last: bool,
    options: Options,
    keep_alive: Option<u32>,
}

/// First line of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartLine<'a> {
    Request { method: &'a [u8], target: &'a [u8] },
    Answer { status: u16, reason: &'a [u8] },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Start {
    Request { method: Range<u32>, target: Range<u32> },
    Answer { status: u16, reason: Range<u32> },
}

/// Options of the connection and expectations that a head states.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Options {
    close: bool,
    keep_alive: bool,
    upgrade: bool,
    expects_continue: bool,
    has_upgrade: bool,
}

impl Head {
    /// Returns the head with its empty line, as it came.
    pub const fn bytes(&self) -> &Bytes {
        self.fields.bytes()
    }

    pub fn start_line(&self) -> StartLine<'_> {
        let bytes = |range: &Range<u32>| &self.fields.bytes()[range.start as usize..range.end as usize];
        match &self.start {
            Start::Request { method, target } => StartLine::Request {
                method: bytes(method),
                target: bytes(target),
            },
            Start::Answer { status, reason } => StartLine::Answer {
                status: *status,
                reason: bytes(reason),
            },
        }
    }

    /// Returns the status of an answer.
    pub fn status(&self) -> Option<StatusCode> {
        match self.start {
            Start::Answer { status, .. } => StatusCode::from_u16(status).ok(),
            Start::Request { .. } => None,
        }
    }

    /// Returns the reason of an answer's status line, as it came.
    pub fn reason(&self) -> &[u8] {
        match self.start_line() {
            StartLine::Answer { reason, .. } => reason,
            StartLine::Request { .. } => b"",
        }
    }

    pub const fn version(&self) -> Version {
        self.version
    }

    /// Returns the length of the body that follows; `None` if the message ends with its head whatever its fields say, and
    /// if a request has no body.
    pub const fn body(&self) -> Option<BodyLength> {
        match self.follows {
            Follows::Body(length) => Some(length),
            Follows::Nothing | Follows::AnotherHead | Follows::Switch => None,
        }
    }

    /// Whether the connection carries no message after this one.
    pub const fn is_last(&self) -> bool {
        self.last
    }

    /// Whether a request asks for another protocol (RFC 9110 section 7.8).
    pub const fn asks_to_switch(&self) -> bool {
        self.options.upgrade && self.options.has_upgrade && matches!(self.version, Version::HTTP_11)
    }

    /// Whether a request waits for `100 Continue` before its body (RFC 9110 section 10.1.1).
    pub const fn expects_continue(&self) -> bool {
        self.options.expects_continue && matches!(self.version, Version::HTTP_11)
    }

    /// Returns for how many seconds the sender keeps the idle connection, if it says so (`Keep-Alive: timeout`).
    pub const fn keep_alive(&self) -> Option<u32> {
        self.keep_alive
    }
}

/// Head of which some lines have been judged.
#[derive(Debug)]
pub(crate) struct HeadReader {
    kind: Kind,
    /// Bytes in judged lines.
    judged: usize,
    /// Bytes of the current line already searched for its end.
    searched: usize,
    /// Number of judged lines, with the first line.
    lines: usize,
    /// Whether the one empty line that may precede a request was skipped (RFC 9112 section 2.2).
    skipped: bool,
    start: Start,
    is_11: bool,
    hosts: u32,
    length: Option<u64>,
    chunked: bool,
    options: Options,
    keep_alive: Option<u32>,
    follows: Follows,
    last: bool,
}

/// Line that is not at once seen to be a good field line, with its length.
enum AnotherLine {
    Field(field::Line),
    /// First line of the head, or the empty line that may precede it.
    First(usize),
    /// The empty line at the end.
    Last(usize),
    Incomplete,
}

impl HeadReader {
    pub(crate) const fn new(kind: Kind) -> Self {
        Self {
            kind,
            judged: 0,
            searched: 0,
            lines: 0,
            skipped: false,
            start: Start::Answer {
                status: 0,
                reason: 0..0,
            },
            is_11: false,
            hosts: 0,
            length: None,
            chunked: false,
            options: Options {
                close: false,
                keep_alive: false,
                upgrade: false,
                expects_continue: false,
                has_upgrade: false,
            },
            keep_alive: None,
            follows: Follows::Nothing,
            last: false,
        }
    }

    /// Reads on; `bytes` is everything since the head began. Returns the length of the head with its empty line, or
    /// `None` until the head is complete. Adds the places of the fields to `places`.
    pub(crate) fn read(&mut self, bytes: &[u8], limits: &Limits, places: &mut Vec<Place>) -> Result<Option<usize>> {
        loop {
            let rest = &bytes[self.judged..];
            let good = if self.lines > 0 { field::good_line(rest) } else { None };
            let line = if let Some(line) = good {
                self.fits(line.length, limits)?;
                line
            } else {
                match self.another_line(rest, limits)? {
                    AnotherLine::Field(line) => line,
                    AnotherLine::First(length) => {
                        self.judged += length;
                        self.searched = 0;
                        continue;
                    }
                    AnotherLine::Last(length) => {
                        self.end()?;
                        return Ok(Some(self.judged + length));
                    }
                    AnotherLine::Incomplete => return Ok(None),
                }
            };
            self.field(rest, &line, limits, places)?;
            self.judged += line.length;
            self.searched = 0;
        }
    }

    /// Reads a line that is not at once seen to be a good field line.
    fn another_line(&mut self, rest: &[u8], limits: &Limits) -> Result<AnotherLine> {
        let Some(end) = memchr(b'\n', &rest[self.searched..]) else {
            self.searched = rest.len();
            self.fits(rest.len(), limits)?;
            return Ok(AnotherLine::Incomplete);
        };
        let end = self.searched + end;
        self.fits(end + 1, limits)?;
        let Some(line) = rest[..end].strip_suffix(b"\r") else {
            return malformed("a line ends in LF alone");
        };
        if self.lines == 0 {
            self.first_line(line, limits)?;
            return Ok(AnotherLine::First(end + 1));
        }
        if line.is_empty() {
            return Ok(AnotherLine::Last(end + 1));
        }
        self.has_room_for_field(limits)?;
        let (name_length, value) = field::split(line)?;
        Ok(AnotherLine::Field(field::Line {
            length: end + 1,
            name_length,
            kind: FieldKind::of(&line[..name_length]),
            value,
        }))
    }

    /// Returns the complete head, whose bytes are `bytes` and whose fields lie at `places`.
    pub(crate) fn complete(&self, bytes: Bytes, places: Vec<Place>) -> Head {
        Head {
            fields: Fields::new(bytes, places),
            start: self.start.clone(),
            version: if self.is_11 { Version::HTTP_11 } else { Version::HTTP_10 },
            follows: self.follows,
            last: self.last,
            options: self.options,
            keep_alive: self.keep_alive,
        }
    }

    /// Checks that a line of `length` bytes and everything before it are within the limits.
    fn fits(&self, length: usize, limits: &Limits) -> Result<()> {
        if self.lines == 0 && self.kind == Kind::Request && length > limits.target + REST_OF_REQUEST_LINE {
            return Err(Refusal::TargetTooLong);
        }
        if self.judged + length > limits.head.min(u32::MAX as usize) {
            return Err(Refusal::HeadTooLarge);
        }
        Ok(())
    }

    fn first_line(&mut self, line: &[u8], limits: &Limits) -> Result<()> {
        match self.kind {
            Kind::Request if line.is_empty() && !self.skipped => {
                self.skipped = true;
                return Ok(());
            }
            Kind::Request => self.request_line(line, self.judged, limits)?,
            Kind::Answer(_) => self.status_line(line, self.judged)?,
        }
        self.lines += 1;
        Ok(())
    }

    const fn has_room_for_field(&self, limits: &Limits) -> Result<()> {
        if self.lines > limits.fields {
            Err(Refusal::TooManyFields)
        } else {
            Ok(())
        }
    }

    /// Reads a request line (RFC 9112 section 3).
    fn request_line(&mut self, line: &[u8], at: usize, limits: &Limits) -> Result<()> {
        let mut words = line.splitn(3, |&byte| byte == b' ');
        let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next()) else {
            return malformed("the request line is not a method, a target and a version with single spaces between");
        };
        if !is_token(method) {
            return malformed("the method is not a token");
        }
        if target.len() > limits.target.min(LONGEST_TARGET) {
            return Err(Refusal::TargetTooLong);
        }
        if !is_target(target) {
            return malformed("the request target holds a character that must be percent-encoded");
        }
        if !is_form(method, target) {
            return malformed("the request target must be a path that begins with '/'");
        }
        self.is_11 = match version {
            b"HTTP/1.1" => true,
            b"HTTP/1.0" => false,
            _ => return malformed("the version is neither HTTP/1.0 nor HTTP/1.1"),
        };
        let end_of_method = at + method.len();
        self.start = Start::Request {
            method: offset(at)..offset(end_of_method),
            target: offset(end_of_method + 1)..offset(end_of_method + 1 + target.len()),
        };
        Ok(())
    }

    /// Reads a status line (RFC 9112 section 4). The space before an empty reason may be missing, because many servers
    /// omit it and it does not affect framing.
    fn status_line(&mut self, line: &[u8], at: usize) -> Result<()> {
        let (version, status, reason) = match line {
            [
                b'H',
                b'T',
                b'T',
                b'P',
                b'/',
                b'1',
                b'.',
                minor @ (b'0' | b'1'),
                b' ',
                a,
                b,
                c,
                reason @ ..,
            ] => (*minor, [*a, *b, *c], reason),
            _ => return malformed("the status line is not a version of HTTP/1 and three digits"),
        };
        let [a @ b'1'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9'] = status else {
            return malformed("the status is not a number from 100 to 599");
        };
        if !(reason.is_empty() || reason[0] == b' ' && is_value(reason)) {
            return malformed("the reason of the status line is not text");
        }
        self.is_11 = version == b'1';
        let end = at + line.len();
        self.start = Start::Answer {
            status: u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0'),
            reason: offset(end - reason.len().saturating_sub(1))..offset(end),
        };
        Ok(())
    }

    /// Notes the field line with which `bytes` begin, and evaluates the fields that frame the message.
    fn field(&mut self, bytes: &[u8], line: &field::Line, limits: &Limits, places: &mut Vec<Place>) -> Result<()> {
        self.has_room_for_field(limits)?;
        let value = &bytes[line.value.clone()];
        match line.kind {
            FieldKind::Host => self.hosts += 1,
            FieldKind::Connection => {
                for option in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                    self.options.close |= option.eq_ignore_ascii_case(b"close");
                    // Readers differ on whether other bytes than ASCII spoil the list; then the connection is not kept.
                    self.options.keep_alive |= value.is_ascii() && option.eq_ignore_ascii_case(b"keep-alive");
                    self.options.upgrade |= option.eq_ignore_ascii_case(b"upgrade");
                }
            }
            FieldKind::ContentLength => {
                // Nobody means more, and no sum of two lengths overflows.
                let number = number(value).filter(|&number| number <= u64::MAX / 2);
                if number.is_none() || self.length.replace(number.unwrap_or_default()).is_some() {
                    return malformed("Content-Length is not one number");
                }
            }
            FieldKind::TransferEncoding => {
                if self.chunked || !self.is_11 || !value.eq_ignore_ascii_case(b"chunked") {
                    return malformed("the only transfer coding is one 'chunked', on HTTP/1.1");
                }
                self.chunked = true;
            }
            FieldKind::Expect => self.options.expects_continue |= value.eq_ignore_ascii_case(b"100-continue"),
            FieldKind::Upgrade => self.options.has_upgrade = true,
            FieldKind::KeepAlive => self.keep_alive = timeout(value).or(self.keep_alive),
            _ => {}
        }
        let at = self.judged;
        places.push(Place {
            name: offset(at),
            value: offset(at + line.value.start),
            value_end: offset(at + line.value.end),
            name_length: u16::try_from(line.name_length).map_err(|_| Refusal::HeadTooLarge)?,
            kind: line.kind,
        });
        self.lines += 1;
        Ok(())
    }

    /// Evaluates the head at its empty line (RFC 9112 section 6.3).
    fn end(&mut self) -> Result<()> {
        if self.chunked && self.length.is_some() {
            return malformed("Content-Length and Transfer-Encoding exclude each other");
        }
        let length = match (self.chunked, self.length) {
            (true, _) => Some(BodyLength::Chunked),
            (false, length) => length.map(BodyLength::Exact),
        };
        self.last = self.options.close || !self.is_11 && !self.options.keep_alive;
        self.follows = match (self.kind, &self.start) {
            (Kind::Answer(asked), &Start::Answer { status, .. }) => self.follows_answer(status, asked, length)?,
            _ if self.hosts > 1 => return malformed("the request has more than one Host"),
            _ if self.hosts == 0 && self.is_11 => return malformed("the request has no Host"),
            _ => length.map_or(Follows::Nothing, Follows::Body),
        };
        Ok(())
    }

    fn follows_answer(&mut self, status: u16, asked: Asked, length: Option<BodyLength>) -> Result<Follows> {
        let announces_a_body = matches!(length, Some(BodyLength::Chunked | BodyLength::Exact(1..)));
        Ok(match status {
            // A length of 0 is forbidden here as well, but does no harm (RFC 9110 section 8.6).
            100..=199 if announces_a_body => return malformed("an interim answer announces a body"),
            101 => Follows::Switch,
            100..=199 => Follows::AnotherHead,
            200..=299 if asked == Asked::Connect => Follows::Switch,
            204 | 304 => {
                // The answer ends here, whatever its fields say. A sender that says more may also send it.
                self.last |= announces_a_body;
                Follows::Nothing
            }
            _ if asked == Asked::Head => Follows::Nothing,
            _ => {
                self.last |= length.is_none();
                Follows::Body(length.unwrap_or(BodyLength::UntilClose))
            }
        })
    }
}

/// Converts a place in a head, whose length fits.
fn offset(at: usize) -> u32 {
    u32::try_from(at).expect("the limit of a head fits into 32 bits")
}

/// Reads a number of decimal digits alone.
fn number(digits: &[u8]) -> Option<u64> {
    let add = |sum: u64, digit: &u8| {
        let digit = digit.wrapping_sub(b'0');
        (digit < 10).then(|| sum.checked_mul(10)?.checked_add(digit.into()))?
    };
    (!digits.is_empty()).then(|| digits.iter().try_fold(0, add))?
}

/// Returns the seconds of `timeout=N` in a `Keep-Alive` field.
fn timeout(value: &[u8]) -> Option<u32> {
    value.split(|&byte| byte == b',').find_map(|parameter| {
        let (name, seconds) = parameter.split_at(parameter.iter().position(|&byte| byte == b'=')?);
        if !name.trim_ascii().eq_ignore_ascii_case(b"timeout") {
            return None;
        }
        std::str::from_utf8(seconds[1..].trim_ascii()).ok()?.parse().ok()
    })
}

/// Whether a target has one of the four forms (RFC 9112 section 3.2). The usual form is recognised by its first byte;
/// the others are read by the parser that routing uses.
fn is_form(method: &[u8], target: &[u8]) -> bool {
    match target {
        [b'/', ..] => true,
        b"*" => method == b"OPTIONS",
        _ => http::Uri::try_from(target)
            .is_ok_and(|uri| uri.authority().is_some() && (uri.scheme().is_some() != (method == b"CONNECT"))),
    }
}

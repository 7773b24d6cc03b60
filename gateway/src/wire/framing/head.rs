//! Checks a head line by line, and derives from it which body follows.
//!
//! A line is judged once, when its last byte has arrived, so its bytes are contiguous. The limits are checked
//! before the content, so a line that is too long gets the same verdict wherever the network cuts it.

use memchr::memchr;

use crate::wire::framing::body::Body;
use crate::wire::framing::octets::{is_target, is_token, is_value};
use crate::wire::framing::{Limits, Refusal, Result, field, malformed};

/// hyper's limit on a target in bytes.
const LONGEST_TARGET: usize = 65_534;
/// Bytes allowed for the rest of a request line beside its target: method, version, spaces.
const REST_OF_REQUEST_LINE: usize = 64;

/// Kind of message that a head begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    Answer { to_head: bool },
}

/// Kind of data that follows a head.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Follows {
    Body(Body),
    Nothing,
    /// Another head: the final answer to the same request, after an interim one.
    AnotherHead,
    /// Data of another protocol.
    Switch,
}

/// Head that passed all checks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Good {
    /// Length in bytes, with the empty line.
    pub(crate) length: usize,
    pub(crate) follows: Follows,
    /// Whether this is the last message on the connection.
    pub(crate) last: bool,
}

/// Head of which some lines have been judged.
#[derive(Debug)]
pub(crate) struct Head {
    kind: Kind,
    /// Bytes in judged lines.
    judged: usize,
    /// Bytes of the current line already searched for its end.
    searched: usize,
    /// Number of judged lines, with the first line.
    lines: usize,
    /// Whether the one empty line that may precede a request was skipped (RFC 9112 section 2.2).
    skipped: bool,
    is_11: bool,
    status: u16,
    hosts: usize,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
}

impl Head {
    pub(crate) const fn new(kind: Kind) -> Self {
        Self {
            kind,
            judged: 0,
            searched: 0,
            lines: 0,
            skipped: false,
            is_11: false,
            status: 0,
            hosts: 0,
            length: None,
            chunked: false,
            close: false,
            keep_alive: false,
        }
    }

    /// Reads on; `bytes` is everything since the head began. Returns `None` until the head is complete.
    pub(crate) fn read(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<Good>> {
        loop {
            let rest = &bytes[self.judged..];
            let Some(end) = memchr(b'\n', &rest[self.searched..]) else {
                self.searched = rest.len();
                self.fits(rest.len(), limits)?;
                return Ok(None);
            };
            let end = self.searched + end;
            self.fits(end + 1, limits)?;
            self.judged += end + 1;
            self.searched = 0;
            let Some(line) = rest[..end].strip_suffix(b"\r") else {
                return malformed("a line ends in LF alone");
            };
            if self.lines > 0 && line.is_empty() {
                return self.end().map(Some);
            }
            self.line(line, limits)?;
        }
    }

    /// Checks that a line of `length` bytes and everything before it are within the limits.
    fn fits(&self, length: usize, limits: &Limits) -> Result<()> {
        if self.lines == 0 && self.kind == Kind::Request && length > limits.target + REST_OF_REQUEST_LINE {
            return Err(Refusal::TargetTooLong);
        }
        if self.judged + length > limits.head {
            return Err(Refusal::HeadTooLarge);
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8], limits: &Limits) -> Result<()> {
        if self.lines == 0 {
            match self.kind {
                Kind::Request if line.is_empty() && !self.skipped => {
                    self.skipped = true;
                    return Ok(());
                }
                Kind::Request => self.request_line(line, limits)?,
                Kind::Answer { .. } => self.status_line(line)?,
            }
        } else if self.lines > limits.fields {
            return Err(Refusal::TooManyFields);
        } else {
            self.field(line)?;
        }
        self.lines += 1;
        Ok(())
    }

    /// Checks a request line (RFC 9112 section 3).
    fn request_line(&mut self, line: &[u8], limits: &Limits) -> Result<()> {
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
        Ok(())
    }

    /// Checks a status line (RFC 9112 section 4). The space before an empty reason may be missing, because many servers
    /// omit it and it does not affect framing.
    fn status_line(&mut self, line: &[u8]) -> Result<()> {
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
        self.status = u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0');
        Ok(())
    }

    /// Checks a field line, and evaluates the fields that frame the message.
    fn field(&mut self, line: &[u8]) -> Result<()> {
        let (name, value) = field::split(line)?;
        let is = |field: &str| name.eq_ignore_ascii_case(field.as_bytes());
        match name.len() {
            4 if is("host") => self.hosts += 1,
            10 if is("connection") => {
                for option in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            14 if is("content-length") => {
                let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
                let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                // hyper supports no larger lengths.
                let number = number.filter(|&number| is_number && number <= u64::MAX / 2);
                if number.is_none() || self.length.replace(number.unwrap_or_default()).is_some() {
                    return malformed("Content-Length is not one number");
                }
            }
            17 if is("transfer-encoding") => {
                if self.chunked || !self.is_11 || !value.eq_ignore_ascii_case(b"chunked") {
                    return malformed("the only transfer coding is one 'chunked', on HTTP/1.1");
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// Evaluates the head at its empty line (RFC 9112 section 6.3).
    fn end(&self) -> Result<Good> {
        if self.chunked && self.length.is_some() {
            return malformed("Content-Length and Transfer-Encoding exclude each other");
        }
        let framed = match (self.chunked, self.length) {
            (true, _) => Some(Body::chunked()),
            (false, Some(length)) => Some(Body::of(length)),
            (false, None) => None,
        };
        let follows = match self.kind {
            Kind::Request if self.hosts > 1 => return malformed("the request has more than one Host"),
            Kind::Request if self.hosts == 0 && self.is_11 => return malformed("the request has no Host"),
            Kind::Request => framed.map_or(Follows::Nothing, Follows::Body),
            Kind::Answer { to_head } => self.follows_answer(to_head, framed)?,
        };
        Ok(Good {
            length: self.judged,
            follows: if follows == Follows::Body(Body::of(0)) {
                Follows::Nothing
            } else {
                follows
            },
            last: self.close || !self.is_11 && !self.keep_alive,
        })
    }

    fn follows_answer(&self, to_head: bool, framed: Option<Body>) -> Result<Follows> {
        let bodyless = matches!(self.status, 100..=199 | 204);
        // A length of 0 is forbidden here as well, but accepted because so many servers send it (RFC 9110 section 8.6).
        if bodyless && (self.chunked || self.length.is_some_and(|length| length > 0)) {
            return malformed("a status without a body announces one");
        }
        Ok(match self.status {
            101 => Follows::Switch,
            100..=199 => Follows::AnotherHead,
            204 | 304 => Follows::Nothing,
            _ if to_head => Follows::Nothing,
            _ => Follows::Body(framed.unwrap_or(Body::UntilClose)),
        })
    }
}

/// Whether a target has one of the four forms (RFC 9112 section 3.2). The usual form is recognised by its first byte;
/// the others are read by the parser that hyper uses.
fn is_form(method: &[u8], target: &[u8]) -> bool {
    match target {
        [b'/', ..] => true,
        b"*" => method == b"OPTIONS",
        _ => http::Uri::try_from(target)
            .is_ok_and(|uri| uri.authority().is_some() && (uri.scheme().is_some() != (method == b"CONNECT"))),
    }
}

//! A head, line by line, and what it says about the body that follows.
//!
//! A line is judged when its last byte has come, so each is contiguous and is looked at once. The limits are compared
//! before the content: a line that is too long is too long wherever the network cuts it.

use memchr::memchr;

use crate::wire::framing::body::Body;
use crate::wire::framing::octets::{is_target, is_token, is_value};
use crate::wire::framing::{Limits, Refusal, Result, field, malformed};

/// hyper's own bound on a target, in bytes.
const LONGEST_TARGET: usize = 65_534;
/// Room for the rest of a request line beside its target: method, version, spaces.
const REST_OF_REQUEST_LINE: usize = 64;

/// What a head begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    Answer { to_head: bool },
}

/// What follows a head.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Follows {
    Body(Body),
    Nothing,
    /// The answer proper, to the same request.
    AnotherHead,
    /// Another protocol.
    Switch,
}

/// A good head.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Good {
    /// In bytes, with the empty line.
    pub(crate) length: usize,
    pub(crate) follows: Follows,
    /// No other message may follow this one.
    pub(crate) last: bool,
}

/// A head of which some lines have been judged.
#[derive(Debug)]
pub(crate) struct Head {
    kind: Kind,
    /// Bytes of the lines that have been judged.
    judged: usize,
    /// Bytes that hold no end of the line under way.
    searched: usize,
    /// Judged, the first included.
    lines: usize,
    /// The empty line that may precede a request (RFC 9112 section 2.2).
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

    /// Goes on reading; `bytes` are all since the head began. `None` until it is complete.
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

    /// Whether a line of `length` bytes and what precedes it are within the limits.
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

    /// RFC 9112 section 3.
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

    /// RFC 9112 section 4. The space before an empty reason may be missing: many servers leave it out, and it frames
    /// nothing.
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

    /// Looks at the fields that frame the message.
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
                // Beyond that hyper has no lengths.
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

    /// At the empty line (RFC 9112 section 6.3).
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
        // A length of nothing is forbidden there as well, and sent by so many that it has to do (RFC 9110 section 8.6).
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

/// Whether a target is in one of the four forms (RFC 9112 section 3.2). The usual one is told by its first byte; the
/// others are read by the same parser as hyper reads them with.
fn is_form(method: &[u8], target: &[u8]) -> bool {
    match target {
        [b'/', ..] => true,
        b"*" => method == b"OPTIONS",
        _ => http::Uri::try_from(target)
            .is_ok_and(|uri| uri.authority().is_some() && (uri.scheme().is_some() != (method == b"CONNECT"))),
    }
}

//! Gives every request a request id and a place in a trace, so that logs can name it.
//!
//! A value that the caller sends is kept if it is well formed, and replaced if it is not, so that every logged value
//! has a known alphabet and length.

use std::fmt;

use http::HeaderValue;

use super::added::put_line;
use super::value_text::ValueText;
use crate::headers::{TRACEPARENT, TRACESTATE, X_REQUEST_ID};
use crate::message::FieldMap;

/// Id of the trace that a request belongs to. It is written as 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceId([u8; 16]);

impl TraceId {
    pub const fn of(number: u128) -> Self {
        Self(number.to_be_bytes())
    }

    pub const fn number(self) -> u128 {
        u128::from_be_bytes(self.0)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(hex(self.0).as_flattened()).expect("hexadecimal digits"))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Trace of a request: the caller's, or a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    pub id: TraceId,
    /// Id of the gateway's span. It is drawn with the trace, so that no chance is left when the trace is written.
    span: u64,
    flags: u8,
    is_callers: bool,
    /// Whether the caller sent a trace, readable or not.
    was_sent: bool,
}

impl Trace {
    /// Reads the caller's trace, or starts one; `sampled` is the flag of a new one. A `traceparent` that is unreadable or
    /// repeated counts as none (W3C Trace Context).
    pub fn read_or_start(headers: &FieldMap, sampled: bool) -> Self {
        let mut lines = headers.get_all(&TRACEPARENT).iter();
        let (first, second) = (lines.next(), lines.next());
        let was_sent = first.is_some();
        let received = match (first, second) {
            (Some(line), None) => read(line.as_bytes()),
            _ => None,
        };
        let (id, flags) = received.unwrap_or_else(|| (TraceId::of(fastrand::u128(1..)), u8::from(sampled)));
        Self {
            id,
            span: fastrand::u64(1..),
            flags,
            is_callers: received.is_some(),
            was_sent,
        }
    }

    /// Returns the id of the span that the caller's trace names; `None` without a readable trace of the caller.
    pub fn parent(headers: &FieldMap) -> Option<u64> {
        let mut lines = headers.get_all(&TRACEPARENT).iter();
        let (line, None) = (lines.next()?.as_bytes(), lines.next()) else {
            return None;
        };
        read(line)?;
        u64::from_str_radix(std::str::from_utf8(&line[36..52]).ok()?, 16).ok()
    }

    /// Returns the id of the gateway's span.
    pub const fn span(&self) -> u64 {
        self.span
    }

    /// Returns the flags: bit 0 says that the trace is sampled.
    pub const fn flags(&self) -> u8 {
        self.flags
    }

    /// Returns a number that was drawn for this request and that no caller chooses.
    pub const fn chance(&self) -> u64 {
        self.span
    }

    /// Writes the trace with the span of the gateway, and removes the caller's. A `tracestate` of another trace is removed.
    pub fn write(&self, headers: &mut FieldMap, text: &mut ValueText) {
        if !self.is_callers {
            headers.remove(&TRACESTATE);
        }
        if self.was_sent {
            headers.remove(&TRACEPARENT);
        }
        let mut value = *b"00-................................-................-00";
        value[3..35].copy_from_slice(hex(self.id.0).as_flattened());
        value[36..52].copy_from_slice(hex(self.span.to_be_bytes()).as_flattened());
        value[53..].copy_from_slice(hex([self.flags]).as_flattened());
        put_line(text, &TRACEPARENT, &value);
    }
}

/// Gives the trace of a request to a backend a span of its own, and returns its id; `None` if the request has no trace.
pub fn renew_span(headers: &mut FieldMap) -> Option<u64> {
    let field = headers.get_mut(&TRACEPARENT)?;
    let mut value: [u8; 55] = field.as_bytes().try_into().ok()?;
    let span = fastrand::u64(1..);
    value[36..52].copy_from_slice(hex(span.to_be_bytes()).as_flattened());
    *field = HeaderValue::from_bytes(&value).ok()?;
    Some(span)
}

/// Returns the caller's `x-request-id` if it has 1 to 128 letters, digits, `.`, `_` and `-`; else inserts a new one and
/// returns that. Returns also whether it is new.
pub fn request_id(headers: &mut FieldMap, text: &mut ValueText) -> (HeaderValue, bool) {
    let mut lines = headers.get_all(&X_REQUEST_ID).iter();
    let sane = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    match (lines.next(), lines.next()) {
        (Some(id), None) if (1..=128).contains(&id.len()) && id.as_bytes().iter().all(sane) => (id.clone(), false),
        _ => {
            let mut id = text.value(hex(fastrand::u128(..).to_be_bytes()).as_flattened());
            // It never comes again, so HTTP/2 need not remember it.
            id.set_sensitive(true);
            headers.insert(&X_REQUEST_ID, id.clone());
            (id, true)
        }
    }
}

/// Reads trace id and flags from `VERSION-TRACE-PARENT-FLAGS`; later versions may append more.
fn read(text: &[u8]) -> Option<(TraceId, u8)> {
    let (head, rest) = text.split_at_checked(55)?;
    let lower_hex = |digits: &[u8]| digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    let not_zero = |digits: &[u8]| lower_hex(digits) && digits.iter().any(|&digit| digit != b'0');
    let (version, trace, parent, flags) = (&head[..2], &head[3..35], &head[36..52], &head[53..]);
    let hyphens = [head[2], head[35], head[52]] == *b"---";
    let ended = rest.is_empty() || (version != b"00" && rest[0] == b'-');
    if !(hyphens && ended && lower_hex(version) && version != b"ff") {
        return None;
    }
    if !(not_zero(trace) && not_zero(parent) && lower_hex(flags)) {
        return None;
    }
    // Version 00 defines only the flags "sampled" and, since level 2, "random".
    let flags = u8::from_str_radix(std::str::from_utf8(flags).ok()?, 16).ok()? & 0x03;
    let trace = u128::from_str_radix(std::str::from_utf8(trace).ok()?, 16).ok()?;
    Some((TraceId::of(trace), flags))
}

/// Returns the two hexadecimal digits of each byte, in lower case.
fn hex<const N: usize>(bytes: [u8; N]) -> [[u8; 2]; N] {
    let digit = |number: u8| number + if number < 10 { b'0' } else { b'a' - 10 };
    bytes.map(|byte| [digit(byte >> 4), digit(byte & 0x0f)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::AddedFields;
    use crate::headers::tests::{lines, map};

    fn write(trace: &Trace, headers: &mut FieldMap) {
        let mut text = ValueText::default();
        trace.write(headers, &mut text);
        for (name, value) in AddedFields::take(&mut text).iter() {
            headers.append(name, value);
        }
    }

    #[test]
    fn traces_are_continued_or_started() {
        const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        const PARENT: &str = "00f067aa0ba902b7";
        let continued = |text: &str| {
            let mut headers = map(&[("traceparent", text), ("tracestate", "a=b")]);
            let read = Trace::read_or_start(&headers, true);
            write(&read, &mut headers);
            let trace = read.id.to_string();
            let written = lines(&headers, "traceparent").remove(0);
            assert_eq!((written.len(), &written[3..35]), (55, &*trace), "{written}");
            assert!(!written.contains(PARENT), "the span is ours");
            assert_eq!(headers.contains_key("tracestate"), trace == TRACE);
            (trace == TRACE).then(|| written[52..].to_owned())
        };
        assert_eq!(continued(&format!("00-{TRACE}-{PARENT}-01")).as_deref(), Some("-01"));
        assert_eq!(continued(&format!("00-{TRACE}-{PARENT}-00")).as_deref(), Some("-00"));
        assert_eq!(
            continued(&format!("cc-{TRACE}-{PARENT}-ff-more")).as_deref(),
            Some("-03")
        );
        for bad in [
            String::new(),
            format!("ff-{TRACE}-{PARENT}-01"),
            format!("00-{TRACE}-{PARENT}-01-more"),
            format!("00-{TRACE}-{PARENT}-0"),
            format!("00-{TRACE}-{PARENT}-0g"),
            format!("00-{}-{PARENT}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{}-{PARENT}-01", TRACE.to_uppercase()),
            format!("00_{TRACE}-{PARENT}-01"),
        ] {
            assert_eq!(continued(&bad), None, "{bad}");
        }
        let mut twice = map(&[("traceparent", "a"), ("traceparent", "b")]);
        write(&Trace::read_or_start(&twice, false), &mut twice);
        assert_eq!(lines(&twice, "traceparent").len(), 1);
        assert!(lines(&twice, "traceparent")[0].ends_with("-00"));
    }

    #[test]
    fn each_attempt_has_a_span_in_the_trace() {
        const SENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let mut headers = map(&[("traceparent", SENT)]);
        assert_eq!(Trace::parent(&headers), Some(0x00f0_67aa_0ba9_02b7));
        let first = renew_span(&mut headers).expect("a trace");
        let second = renew_span(&mut headers).expect("a trace");
        assert_ne!(first, second);
        let written = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{second:016x}-01");
        assert_eq!(lines(&headers, "traceparent"), [written]);
        let none: &[(&str, &str)] = &[];
        assert_eq!((renew_span(&mut map(none)), Trace::parent(&map(none))), (None, None));
        assert_eq!(renew_span(&mut map(&[("traceparent", "of another version")])), None);
        assert_eq!(
            Trace::parent(&map(&[("traceparent", SENT), ("traceparent", SENT)])),
            None
        );
        assert_eq!(
            Trace::parent(&map(&[(
                "traceparent",
                &SENT.replace("00f067aa0ba902b7", "0000000000000000")
            )])),
            None
        );
    }

    #[test]
    fn request_ids_are_kept_if_sane() {
        let id = |given: &[(&str, &str)]| {
            let mut headers = map(given);
            let (id, is_new) = request_id(&mut headers, &mut ValueText::default());
            assert_eq!(is_new, given.is_empty() || given[0].1 != id);
            assert_eq!(headers["x-request-id"], id);
            id.to_str().expect("ASCII").to_owned()
        };
        for kept in ["a", "550e8400-e29b-41d4-a716-446655440000", &"x".repeat(128), "A_b.c-9"] {
            assert_eq!(id(&[("x-request-id", kept)]), kept);
        }
        for replaced in ["", "a b", "a,b", "\u{e9}", "a\"", &"x".repeat(129)] {
            let id = id(&[("x-request-id", replaced)]);
            assert!(
                id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
                "{replaced} gave {id}"
            );
        }
        assert_ne!(id(&[]), id(&[]));
        assert_eq!(id(&[("x-request-id", "a"), ("x-request-id", "b")]).len(), 32);
    }
}

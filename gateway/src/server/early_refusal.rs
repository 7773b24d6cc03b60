//! Writes the answer to a head that was never read as a request: a problem document, counted and logged as any
//! rejection.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::header::ORIGIN;
use http::{HeaderValue, Method};

use super::worker::Worker;
use crate::headers::response::PendingResponseHeaders;
use crate::headers::{self, Scheme, ValueText};
use crate::message::FieldMap;
use crate::observe::{Decided, RequestRecord};
use crate::rejection::Rejection;
use crate::setting::{SettingId, Settings};
use crate::wire::http1::Refusal;
use crate::{clock, problem};

/// Reason why the request was not read.
#[derive(Debug, Clone, Copy)]
pub(super) enum EarlyRefusal {
    Refused(Refusal),
    /// The head was not complete in time.
    TooSlow,
    /// The process has too many connections.
    TooMany,
    /// The client's address has too many connections.
    TooManyFromAddress,
}

const fn overloaded(by: SettingId) -> Rejection {
    Rejection::Overloaded {
        retry_after: Duration::from_secs(1),
        by: Some(by),
    }
}

/// Returns the bytes to write before the connection closes. `head` is the part of the head that has come.
///
/// `settings` are those of the plan under which the head was read; without them, those in force are used.
pub(super) fn answer(
    worker: &Worker,
    address: SocketAddr,
    head: &[u8],
    unread: EarlyRefusal,
    settings: Option<&Arc<Settings>>,
) -> Bytes {
    let (rejection, why) = match unread {
        EarlyRefusal::Refused(refusal) => {
            worker.lifecycle.malformed();
            (rejection(refusal), refusal.why())
        }
        EarlyRefusal::TooMany => (overloaded(SettingId::CONNECTIONS), "there are too many connections"),
        EarlyRefusal::TooManyFromAddress => (
            overloaded(SettingId::CONNECTIONS_PER_ADDRESS),
            "there are too many connections from this address",
        ),
        EarlyRefusal::TooSlow => (
            Rejection::RequestTimeout(Some(SettingId::HEAD_TIME)),
            "the head did not come in time",
        ),
    };
    let plan = worker.live.load();
    let mut fields = FieldMap::new();
    let (request_id, _) = headers::request_id(&mut fields, &mut ValueText::default());
    let request_id = request_id.to_str().unwrap_or_default();
    let (method, path) = named(head);
    let now = clock::unix_time();
    let record = RequestRecord::begin(clock::now(), now, request_id, method, &path);
    let mut request = plan.observer.begin(record);
    request.client = Some(plan.edge.trusted.client_address(address, &FieldMap::new()).ip);
    request.note_fault(why);
    request.refused(rejection.reason());
    let settings = Arc::clone(settings.unwrap_or(&plan.settings));
    request.decided = rejection
        .setting()
        .map(|setting| Box::new(Decided { setting, settings }));

    let origins = origins(head);
    let (mut head, body) = problem::answer(&rejection, request_id).into_parts();
    if let Some(finish) = &plan.edge.finish {
        PendingResponseHeaders::begin(finish, &origins, false).apply(Scheme::Http, &mut head.headers);
    }
    request.bytes_out = body.len() as u64;
    let mut text = format!("HTTP/1.1 {}\r\n", head.status);
    for (name, value) in &head.headers {
        let value = value.to_str().unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = write!(text, "{name}: {value}\r\n");
    }
    let date = httpdate::fmt_http_date(UNIX_EPOCH + now);
    let _ = write!(
        text,
        "x-request-id: {request_id}\r\nconnection: close\r\ndate: {date}\r\n\r\n"
    );
    request.end();
    [text.as_bytes(), &body].concat().into()
}

const fn rejection(refusal: Refusal) -> Rejection {
    match refusal {
        Refusal::Malformed(why) => Rejection::malformed(why),
        Refusal::TargetTooLong => Rejection::UriTooLong,
        Refusal::HeadTooLarge => Rejection::HeadersTooLarge(SettingId::HEAD_BYTES),
        Refusal::TooManyFields => Rejection::HeadersTooLarge(SettingId::HEAD_FIELDS),
    }
}

/// Returns the `Origin` fields of the head, at most two.
fn origins(head: &[u8]) -> FieldMap {
    let lines = head.split(|byte| *byte == b'\n').skip(1);
    let of_origin = |line: &[u8]| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        let value = name.eq_ignore_ascii_case(ORIGIN.as_str().as_bytes()).then_some(value)?;
        Some((ORIGIN, HeaderValue::from_bytes(value).ok()?))
    };
    lines.filter_map(of_origin).take(2).collect()
}

/// Returns method and path for the log, cut to 32 and 256 bytes; `-` stands for an unreadable one.
fn named(head: &[u8]) -> (Method, String) {
    let line = head
        .trim_ascii_start()
        .split(|byte| byte.is_ascii_control())
        .next()
        .unwrap_or_default();
    let mut words = line.split(|&byte| byte == b' ');
    let method = words
        .next()
        .and_then(|word| Method::from_bytes(word.get(..32).unwrap_or(word)).ok());
    let path = words
        .next()
        .map(|target| target.split(|&byte| byte == b'?').next().unwrap_or_default());
    let path = path.map(|path| String::from_utf8_lossy(path.get(..256).unwrap_or(path)).into_owned());
    let unknown = || Method::from_bytes(b"-").expect("a hyphen is a token");
    (method.unwrap_or_else(unknown), path.unwrap_or_else(|| "-".to_owned()))
}

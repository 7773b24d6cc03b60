//! Removes header fields that must not pass through a gateway, and adds those that only a gateway may set.
//!
//! Functions in order of use: [`check`] refuses ambiguous framing; [`clean_request`] removes fields and returns what
//! they ask of the gateway; [`request_id`], [`Trace`], [`ForwardedLines`] and [`IdentityLines`] add fields
//! once per request; the call adds its own for every attempt. On the way back, [`clean_response`] cleans the answer.
//!
//! Invariant: a cleaned request has no field of the caller's that names the caller, and a cleaned message has no field
//! that belongs to one connection. A message without fields to remove causes no allocation.

mod added;
pub mod cookies;
mod framing;
mod names;
mod request_hints;
mod stamp;
mod trace;
mod value_text;
mod via;

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_LOCATION,
    CONTENT_RANGE, CONTENT_TYPE, COOKIE, DATE, EXPECT, HOST, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, MAX_FORWARDS, ORIGIN, PRAGMA, RANGE, REFERER, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, VIA,
};
use http::{HeaderName, HeaderValue, Uri, Version};
use smallvec::SmallVec;

use crate::header_fields::GRPC_TIMEOUT;
use crate::message::FieldMap;
use crate::rejection::Rejection;
use crate::setting::SettingId;

pub use crate::header_fields::X_FORWARDED_FOR;
pub use added::{AddedFields, AddedHeaders, is_added};
pub use framing::{check, check_size};
pub use names::is_always_removed;
pub(crate) use names::{Kind, kind, needs_attention};
pub use names::{
    TRACEPARENT, TRACESTATE, X_CALLER_ID, X_FORWARDED_HOST, X_FORWARDED_PROTO, X_REQUEST_ID, X_TENANT_ID, X_TENANT_TIER,
};
pub use request_hints::{RequestHints, wanted_deadline};
pub use stamp::{ForwardedLines, IdentityLines, Scheme, continue_forwarded, stamp_trailers};
pub use trace::{Trace, TraceId, renew_span, request_id};
pub use value_text::ValueText;
pub use via::Via;

/// Handling of fields that ask for another method than the request's (`X-HTTP-Method-Override` and similar ones).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MethodOverride {
    /// Holds the setting that says so.
    Reject(SettingId),
    Strip,
}

/// The answer of a backend has a transfer coding that the gateway cannot undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnsupportedCoding;

/// Removes every field that a backend must not see, and adds the gateway's `Via`. Returns what the removed fields asked
/// of the gateway.
///
/// Removed are hop-by-hop fields, the fields that `Connection` names (except protected ones), `Expect` (the server
/// answers it), fields that identify the caller, the gateway's own fields, and, unless `trusted_peer`, the fields that
/// proxies set. Fields that ask for another method are removed too, if they do not cause a rejection. `Trailer` stays,
/// because trailers are passed on and HTTP/1.1 needs it for them.
///
/// # Errors
/// [`Rejection::MalformedRequest`] for a request that has passed through this gateway before, an expectation other than
/// `100-continue`, a malformed deadline, or a field that asks for another method where that is rejected.
pub fn clean_request(
    headers: &mut FieldMap,
    version: Version,
    trusted_peer: bool,
    method_override: MethodOverride,
    via: &Via,
) -> Result<RequestHints, Rejection> {
    if !headers.keys().any(names::needs_attention) {
        // Most requests have no field to remove or to read, and no `Via`.
        headers.append(VIA, via.value(version));
        return Ok(RequestHints::default());
    }
    if via.is_in(headers) {
        return Err(malformed(
            "the request has passed through this gateway before (a routing loop)",
        ));
    }
    // An HTTP/1.0 request has no expectations; `Expect` is ignored there (RFC 9110 section 10.1.1).
    let expected = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if version >= Version::HTTP_11 && !headers.get_all(EXPECT).iter().all(expected) {
        return Err(malformed("the only expectation that can be met is 100-continue"));
    }
    let hints = RequestHints::read(headers, trusted_peer)?;
    let mut overrides_method = false;
    remove(headers, |kind| match kind {
        Kind::EndToEnd => false,
        Kind::HopByHop | Kind::Identity | Kind::Gateway => true,
        Kind::MethodOverride => {
            overrides_method = true;
            true
        }
        Kind::FromProxies => !trusted_peer,
    });
    if let (true, MethodOverride::Reject(by)) = (overrides_method, method_override) {
        return Err(Rejection::MalformedRequest {
            why: "no field may ask for another method than that of the request",
            by: Some(by),
        });
    }
    headers.append(VIA, via.value(version));
    Ok(hints)
}

/// Fields that frame or route a message, modify a request, authenticate its sender, or say how content is to be read
/// (RFC 9110 section 6.5.1).
static NO_TRAILERS: [HeaderName; 24] = [
    AUTHORIZATION,
    CACHE_CONTROL,
    CONTENT_ENCODING,
    CONTENT_LANGUAGE,
    CONTENT_LENGTH,
    CONTENT_LOCATION,
    CONTENT_RANGE,
    CONTENT_TYPE,
    COOKIE,
    DATE,
    EXPECT,
    HOST,
    IF_MATCH,
    IF_MODIFIED_SINCE,
    IF_NONE_MATCH,
    IF_RANGE,
    IF_UNMODIFIED_SINCE,
    MAX_FORWARDS,
    ORIGIN,
    PRAGMA,
    RANGE,
    REFERER,
    TRAILER,
    VIA,
];

/// Removes trailers of a request that must not arrive at its end: those of `NO_TRAILERS`, because it is too late for
/// them, and those that only the gateway may set, because a backend may merge trailers into the header fields.
pub fn clean_trailers(trailers: &mut FieldMap) {
    remove(trailers, |kind| kind != Kind::EndToEnd);
    for name in &NO_TRAILERS {
        trailers.remove(name);
    }
    for name in [&X_REQUEST_ID, &TRACEPARENT, &TRACESTATE, &GRPC_TIMEOUT] {
        trailers.remove(name);
    }
}

/// Removes from the trailers of an answer hop-by-hop fields, `x-gateway-*`, and what frames a message or says how its
/// content is to be read, because it is too late for that (RFC 9110 section 6.5.1).
pub fn clean_answer_trailers(trailers: &mut FieldMap) {
    remove(trailers, |kind| matches!(kind, Kind::HopByHop | Kind::Gateway));
    for name in [
        CACHE_CONTROL,
        CONTENT_ENCODING,
        CONTENT_LENGTH,
        CONTENT_RANGE,
        CONTENT_TYPE,
    ] {
        trailers.remove(name);
    }
    for name in [HOST, SET_COOKIE, TRAILER] {
        trailers.remove(name);
    }
}

/// Removes hop-by-hop fields and `x-gateway-*` from a backend's answer, and adds the gateway's `Via`.
///
/// # Errors
/// The answer has a transfer coding other than `chunked` alone. The coding would be lost on the way, and the caller
/// would take the coded bytes for the content.
pub fn clean_response(headers: &mut FieldMap, version: Version, via: &Via) -> Result<(), UnsupportedCoding> {
    let is_removed = |kind| matches!(kind, Kind::HopByHop | Kind::Gateway);
    // `Transfer-Encoding` and `Connection`, which may name others, are among those.
    if headers.keys().any(|name| is_removed(names::kind(name.as_str()))) {
        if !framing::is_chunked_or_absent(headers) {
            return Err(UnsupportedCoding);
        }
        remove(headers, is_removed);
    }
    headers.append(VIA, via.value(version));
    Ok(())
}

/// Copies the host of an HTTP/2 request from `:authority` into `Host`, where all later code and the backend read it
/// (RFC 9113 section 8.3.1).
pub fn name_host(version: Version, target: &Uri, headers: &mut FieldMap) {
    if version >= Version::HTTP_2
        && !headers.contains_key(HOST)
        && let Some(authority) = target.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        headers.insert(HOST, host);
    }
}

/// Joins the `Cookie` lines that HTTP/2 allows into the one line that HTTP/1.1 has (RFC 9113 section 8.2.3).
pub fn join_cookies(version: Version, headers: &mut FieldMap) {
    if version < Version::HTTP_2 {
        return;
    }
    let mut lines = headers.get_all(COOKIE).iter();
    if let (Some(first), Some(second)) = (lines.next(), lines.next()) {
        let mut joined = [first.as_bytes(), b"; ", second.as_bytes()].concat();
        for line in lines {
            joined.extend_from_slice(b"; ");
            joined.extend_from_slice(line.as_bytes());
        }
        let joined = HeaderValue::from_maybe_shared(Bytes::from(joined));
        headers.insert(
            COOKIE,
            joined.expect("values and what stands between them make a value"),
        );
    }
}

/// Removes the fields of the `doomed` kinds, and the unprotected ones that `Connection` names.
fn remove(headers: &mut FieldMap, mut doomed: impl FnMut(Kind) -> bool) {
    let mut named: SmallVec<[HeaderName; 8]> = SmallVec::new();
    for line in headers.get_all(CONNECTION) {
        for token in line.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            // Nearly every `Connection` holds one of these; the field `keep-alive` is hop-by-hop and is removed anyway.
            if token.eq_ignore_ascii_case(b"keep-alive") || token.eq_ignore_ascii_case(b"close") {
                continue;
            }
            let is_there = std::str::from_utf8(token).is_ok_and(|name| headers.contains_key(name));
            if let (true, Ok(name)) = (is_there, HeaderName::from_bytes(token))
                && !names::is_protected(name.as_str())
                && !named.contains(&name)
            {
                named.push(name);
            }
        }
    }
    headers.retain(|name, _| !doomed(names::kind(name.as_str())) && !named.contains(name));
}

/// Whether a list field holds the token; case and parameters are ignored.
pub(crate) fn lists(headers: &FieldMap, field: &HeaderName, token: &str) -> bool {
    let is_token = |item: &str| {
        item.split(';')
            .next()
            .is_some_and(|item| item.trim().eq_ignore_ascii_case(token))
    };
    headers
        .get_all(field)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .any(|line| line.split(',').any(is_token))
}

const fn malformed(why: &'static str) -> Rejection {
    Rejection::malformed(why)
}

pub mod cors;
pub mod response;
pub mod rules;
pub mod security;
#[cfg(test)]
mod tests;
pub mod websocket;

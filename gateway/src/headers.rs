//! Takes out of a message what must not pass through a gateway, and puts in what only a gateway may say.
//!
//! In order of use: [`check`] (one framing or none), [`clean_request`] (what goes, and what it asked for), then what
//! is stamped once per request ([`request_id`], [`continue_trace`], [`stamp_forwarded`], [`stamp_identity`]) and what
//! the call stamps anew for every attempt; on the way back [`clean_response`].
//!
//! Invariant: after cleaning, a request says nothing about its caller, and no message holds a field that belonged to
//! one connection. Nothing is allocated for a message that has nothing to be removed.

mod framing;
mod names;
mod request_hints;
mod stamp;
mod trace;
mod via;

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use smallvec::SmallVec;

use self::names::Kind;
use crate::header_fields::GRPC_TIMEOUT;
use crate::rejection::Rejection;

pub use crate::header_fields::X_FORWARDED_FOR;
pub use framing::{check, check_size};
pub(crate) use names::says_something;
pub use names::{
    TRACEPARENT, TRACESTATE, X_CALLER_ID, X_FORWARDED_HOST, X_FORWARDED_PROTO, X_REQUEST_ID, X_TENANT_ID, X_TENANT_TIER,
};
pub use request_hints::{RequestHints, wanted_deadline};
pub use stamp::{Scheme, stamp_forwarded, stamp_identity, stamp_trailers};
pub use trace::{TraceId, continue_trace, request_id};
pub use via::Via;

/// What becomes of a field that asks for another method than that of the request (`X-HTTP-Method-Override` and kin).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MethodOverride {
    Reject,
    Strip,
}

/// Removes every field that is not for a backend, and adds our `Via`; says what the removed ones asked for.
///
/// Gone afterwards: hop-by-hop fields and those that `Connection` names (but for protected ones, which it cannot
/// name away), `Expect` (the server answers it), fields that say who the caller is, fields of the gateway itself, and
/// unless `trusted_peer` what proxies say. `Trailer` stays: trailers are passed on, and HTTP/1.1 needs it for that.
/// Fields that ask for another method than the one that was authorised go as well, where that is not refused.
///
/// # Errors
/// [`Rejection::MalformedRequest`] for a request that has been here before, an expectation other than
/// `100-continue`, a malformed deadline, or a wish for another method.
pub fn clean_request(
    headers: &mut HeaderMap,
    version: Version,
    trusted_peer: bool,
    method_override: MethodOverride,
    via: &Via,
) -> Result<RequestHints, Rejection> {
    if !headers.keys().any(names::says_something) {
        // Nothing is to be removed and nothing was asked for, as in most requests.
        headers.insert(VIA, via.value(version));
        return Ok(RequestHints::default());
    }
    if via.is_in(headers) {
        return Err(malformed(
            "the request has passed through this gateway before (a routing loop)",
        ));
    }
    // HTTP/1.0 has no expectations; they are to be ignored there (RFC 9110 section 10.1.1).
    let expected = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if version >= Version::HTTP_11 && !headers.get_all(EXPECT).iter().all(expected) {
        return Err(malformed("the only expectation that can be met is 100-continue"));
    }
    let wishes = RequestHints::read(headers, trusted_peer)?;
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
    if overrides_method && method_override == MethodOverride::Reject {
        return Err(malformed(ASKS_FOR_ANOTHER_METHOD));
    }
    headers.append(VIA, via.value(version));
    Ok(wishes)
}

/// Removes from the trailers of a request what must not come in by its end either: what frames or routes a message,
/// which is too late then, and what only we may say, since a backend may take trailers for fields (RFC 9110
/// section 6.5.1).
pub fn clean_trailers(trailers: &mut HeaderMap) {
    remove(trailers, |kind| kind != Kind::EndToEnd);
    for name in [AUTHORIZATION, CONTENT_LENGTH, COOKIE, HOST, TRAILER, VIA] {
        trailers.remove(name);
    }
    for name in [&X_REQUEST_ID, &TRACEPARENT, &TRACESTATE, &GRPC_TIMEOUT] {
        trailers.remove(name);
    }
}

/// Removes hop-by-hop fields and `x-gateway-*` from the trailers of an answer.
pub fn clean_answer_trailers(trailers: &mut HeaderMap) {
    remove(trailers, |kind| matches!(kind, Kind::HopByHop | Kind::Gateway));
}

/// Removes hop-by-hop fields and `x-gateway-*` from a backend's answer, and adds our `Via`.
///
/// # Errors
/// [`Rejection::BackendInvalid`] if the body is in a transfer coding that would be lost on the way (anything but
/// `chunked` alone), so that the caller would take the coded bytes for the content.
pub fn clean_response(headers: &mut HeaderMap, version: Version, via: &Via) -> Result<(), Rejection> {
    if !framing::is_chunked_or_absent(headers) {
        return Err(Rejection::BackendInvalid);
    }
    remove(headers, |kind| matches!(kind, Kind::HopByHop | Kind::Gateway));
    headers.append(VIA, via.value(version));
    Ok(())
}

/// Says in `Host` what HTTP/2 says in `:authority`: everyone behind here reads the one (RFC 9113 section 8.3.1).
pub fn name_host(version: Version, host: &str, headers: &mut HeaderMap) {
    if version >= Version::HTTP_2
        && !headers.contains_key(HOST)
        && let Ok(host) = HeaderValue::from_str(host)
    {
        headers.insert(HOST, host);
    }
}

/// Makes one field of the cookies that HTTP/2 may send apart, as everyone else knows them (RFC 9113 section 8.2.3).
pub fn join_cookies(version: Version, headers: &mut HeaderMap) {
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

/// Removes the fields of the doomed kinds, and the unprotected ones that `Connection` names.
fn remove(headers: &mut HeaderMap, mut doomed: impl FnMut(Kind) -> bool) {
    let mut gone: SmallVec<[HeaderName; 8]> = headers
        .keys()
        .filter(|name| doomed(names::kind(name.as_str())))
        .cloned()
        .collect();
    for line in headers.get_all(CONNECTION) {
        for token in line.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            // What nearly every message says; `keep-alive` is gone already.
            if token.eq_ignore_ascii_case(b"keep-alive") || token.eq_ignore_ascii_case(b"close") {
                continue;
            }
            let named = std::str::from_utf8(token).is_ok_and(|name| headers.contains_key(name));
            if let (true, Ok(name)) = (named, HeaderName::from_bytes(token))
                && !names::is_protected(name.as_str())
            {
                gone.push(name);
            }
        }
    }
    for name in gone {
        headers.remove(name);
    }
}

/// Whether a list field holds a token, ignoring case and parameters.
pub(crate) fn lists(headers: &HeaderMap, field: &HeaderName, token: &str) -> bool {
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

/// Why a request is refused that overrides its method where a route does not have it.
pub const ASKS_FOR_ANOTHER_METHOD: &str = "no field may ask for another method than that of the request";

const fn malformed(why: &'static str) -> Rejection {
    Rejection::MalformedRequest { why }
}

pub mod cors;
pub mod response;
pub mod rules;
pub mod security;
#[cfg(test)]
mod tests;
pub mod websocket;

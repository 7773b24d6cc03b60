//! The form of HTTP/1.1, which everything inside the gateway has, and that of HTTP/2.
//!
//! A WebSocket is asked for by an upgrade in one and by an extended CONNECT in the other (RFC 8441). Nobody proves
//! there that the key was read; the stream cannot be mistaken for anything else, so the proof is ours to give.

use http::header::{CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, TE, UPGRADE};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, uri};
use hyper::ext::Protocol;

use crate::wire::grpc;
use crate::wire::websocket;

/// Of an answer's head, as on HTTP/1.1.
pub(super) const MOST_FIELDS: usize = 100;

/// Beyond it there are no statuses (RFC 9110 section 15), nor on HTTP/1.1.
pub(super) const HIGHEST_STATUS: u16 = 599;

/// Whom and how a request is for.
pub(crate) struct RequestTarget<'a> {
    /// The endpoint's own, as a field and as part of a URI.
    pub(crate) host: &'a HeaderValue,
    pub(crate) authority: &'a Authority,
    pub(crate) is_secure: bool,
    /// Whether the caller reads trailers.
    pub(crate) trailers: bool,
    /// Whether it asks for a WebSocket.
    pub(crate) switches: bool,
}

/// Puts a request into the form of HTTP/2. The path bytes stay as they are.
pub(super) fn put<B>(request: &mut Request<B>, toward: &RequestTarget<'_>) {
    *request.version_mut() = Version::HTTP_2;
    let headers = request.headers_mut();
    let authority = match headers.remove(HOST) {
        Some(host) if host != toward.host => Authority::try_from(host.as_bytes()).ok(),
        _ => None,
    };
    for of_connection in [
        "connection",
        "upgrade",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "te",
    ] {
        headers.remove(of_connection);
    }
    if toward.trailers || grpc::is_grpc(headers) {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if toward.switches {
        headers.remove(SEC_WEBSOCKET_KEY);
        *request.method_mut() = Method::CONNECT;
        request.extensions_mut().insert(Protocol::from_static("websocket"));
    }
    let mut parts = uri::Parts::default();
    parts.scheme = Some(if toward.is_secure { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(authority.unwrap_or_else(|| toward.authority.clone()));
    parts.path_and_query = request.uri().path_and_query().cloned();
    *request.uri_mut() = Uri::from_parts(parts).expect("scheme, authority and path make a URI");
}

/// The key of a caller who asks for a WebSocket.
pub(super) fn key(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(SEC_WEBSOCKET_KEY).cloned()
}

/// Gives an answer that agrees to a WebSocket the form that it has in HTTP/1.1.
pub(super) fn switched<B>(response: &mut Response<B>, key: Option<&HeaderValue>) {
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Some(proof) = key.and_then(|key| HeaderValue::try_from(websocket::accept(key.as_bytes())).ok()) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, proof);
    }
}

//! Converts requests from HTTP/1.1, the form used inside the gateway, to HTTP/2, and answers back.
//!
//! A WebSocket is requested by an upgrade in HTTP/1.1 and by an extended CONNECT in HTTP/2 (RFC 8441). In HTTP/2 the
//! backend sends no proof of the key, because the stream cannot be mistaken for anything else. The gateway computes the
//! proof for the caller.

use h2::ext::Protocol;
use http::header::{
    AUTHORIZATION, CONNECTION, COOKIE, HOST, PROXY_AUTHORIZATION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Authority, Scheme};
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri, Version, uri};

use crate::message::{FieldMap, Request, Response};
use crate::wire::grpc;
use crate::wire::websocket;

/// Highest status (RFC 9110 section 15), as on HTTP/1.1.
pub(super) const HIGHEST_STATUS: u16 = 599;

/// Fields of one connection, which HTTP/2 does not know (RFC 9113 section 8.2.2).
static OF_CONNECTION: [HeaderName; 6] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    CONNECTION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Target of a request.
pub(crate) struct RequestTarget<'a> {
    /// The endpoint's own host, as a field value and as part of a URI.
    pub(crate) host: &'a HeaderValue,
    pub(crate) authority: &'a Authority,
    pub(crate) is_secure: bool,
    /// Whether the caller accepts trailers.
    pub(crate) trailers: bool,
    /// Whether the request asks for a WebSocket.
    pub(crate) switches: bool,
}

/// Converts a request to HTTP/2. The bytes of the path are unchanged.
pub(super) fn put<B>(request: &mut Request<B>, target: &RequestTarget<'_>) {
    *request.version_mut() = Version::HTTP_2;
    let headers = request.headers_mut();
    let authority = match headers.remove(HOST) {
        Some(host) if host != target.host => Authority::try_from(host.as_bytes()).ok(),
        _ => None,
    };
    headers.retain(|name, _| !OF_CONNECTION.contains(name));
    if target.trailers || grpc::is_grpc(headers) {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    hide_secrets(headers);
    if target.switches {
        headers.remove(SEC_WEBSOCKET_KEY);
        *request.method_mut() = Method::CONNECT;
        request.extensions_mut().insert(Protocol::from_static("websocket"));
    }
    let mut parts = uri::Parts::default();
    parts.scheme = Some(if target.is_secure { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(authority.unwrap_or_else(|| target.authority.clone()));
    parts.path_and_query = request.uri().path_and_query().cloned();
    *request.uri_mut() = Uri::from_parts(parts).expect("scheme, authority and path make a URI");
}

/// Keeps credentials out of the table of fields that all exchanges of the connection share, where one caller could guess at
/// another's by the size of its own request (RFC 7541 section 7.1).
fn hide_secrets(headers: &mut FieldMap) {
    static SECRETS: [HeaderName; 3] = [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE];
    for (name, value) in headers.iter_mut() {
        if SECRETS.contains(name) {
            value.set_sensitive(true);
        }
    }
}

/// Returns the WebSocket key that the caller sent.
pub(super) fn key(headers: &FieldMap) -> Option<HeaderValue> {
    headers.get(SEC_WEBSOCKET_KEY).cloned()
}

/// Converts an answer that accepts a WebSocket to the form of HTTP/1.1.
pub(super) fn switched<B>(response: &mut Response<B>, key: Option<&HeaderValue>) {
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Some(proof) = key.and_then(|key| HeaderValue::try_from(websocket::accept(key.as_bytes())).ok()) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, proof);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_never_indexed() {
        let mut headers = FieldMap::new();
        headers.append(AUTHORIZATION, HeaderValue::from_static("Bearer a"));
        headers.append(COOKIE, HeaderValue::from_static("a=1"));
        headers.append(COOKIE, HeaderValue::from_static("b=2"));
        headers.append(TE, HeaderValue::from_static("trailers"));
        hide_secrets(&mut headers);
        let hidden = |(name, value): (&HeaderName, &HeaderValue)| (name.to_string(), value.is_sensitive());
        let hidden: Vec<_> = headers.iter().map(hidden).collect();
        let expected = [
            ("authorization", true),
            ("cookie", true),
            ("cookie", true),
            ("te", false),
        ];
        assert_eq!(hidden, expected.map(|(name, is_hidden)| (name.to_owned(), is_hidden)));
    }
}

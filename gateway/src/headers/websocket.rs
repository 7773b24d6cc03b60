//! Checks and forwards the opening handshake of a WebSocket (RFC 6455 section 4, RFC 8441).
//!
//! All later code knows only the HTTP/1.1 form: an extended CONNECT on an HTTP/2 stream becomes a GET with a key of the
//! gateway's own.
//!
//! A backend that does not speak the protocol must not be taken for one that has switched, because a caller could hide
//! requests in such a connection. So the handshake must be well formed before it is sent, and the backend's answer must
//! prove that it read the handshake and must accept only what it was offered.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use h2::ext::Protocol;
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderValue, Method, Version, header};

use crate::headers::lists;
use crate::message::{FieldMap, RequestHead};
use crate::rejection::Rejection;
use crate::wire::websocket::accept;

/// A caller's well-formed request to switch to a WebSocket.
#[derive(Debug)]
pub struct Handshake {
    /// Key that is sent to the backend.
    key: HeaderValue,
    /// `Sec-WebSocket-Accept` of a server that has read the key.
    accept: String,
    /// Whether an HTTP/2 stream is to switch, not a whole connection. On a stream, any 2xx status tells the caller that
    /// it has.
    pub of_stream: bool,
}

/// Turns an extended CONNECT for a WebSocket into a GET; the protocol that it asks for stays in the extensions.
pub fn unfold(head: &mut RequestHead) {
    if head.method == Method::CONNECT && asks_on_stream(head) {
        head.method = Method::GET;
    }
}

/// Whether the request asks for a WebSocket on an HTTP/2 stream.
pub fn asks_on_stream(head: &RequestHead) -> bool {
    head.extensions
        .get::<Protocol>()
        .is_some_and(|protocol| protocol.as_str().eq_ignore_ascii_case("websocket"))
}

impl Handshake {
    /// Reads the handshake; `None` if the request does not ask for a WebSocket. Called before the fields are cleaned.
    ///
    /// # Errors
    /// [`Rejection::WebSocketVersion`] for another version than 13, and [`Rejection::MalformedRequest`] for a handshake that
    /// RFC 6455 section 4.2.1 does not allow, or that has a body.
    pub fn read(head: &RequestHead) -> Result<Option<Self>, Rejection> {
        let headers = &head.headers;
        let of_stream = asks_on_stream(head);
        if !of_stream
            && (head.version != Version::HTTP_11
                || !lists(headers, &UPGRADE, "websocket")
                || !lists(headers, &CONNECTION, "upgrade"))
        {
            return Ok(None);
        }
        if head.method != Method::GET {
            return Err(malformed("a WebSocket is opened with GET"));
        }
        let has_body = headers.contains_key(TRANSFER_ENCODING)
            || headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
        if has_body {
            return Err(malformed("a WebSocket is opened without a body"));
        }
        if only(headers, &SEC_WEBSOCKET_VERSION).ok_or(malformed("Sec-WebSocket-Version stands once"))? != "13" {
            return Err(Rejection::WebSocketVersion);
        }
        let key = if of_stream {
            fresh_key()
        } else {
            only(headers, &SEC_WEBSOCKET_KEY)
                .filter(|key| STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16))
                .ok_or(malformed("Sec-WebSocket-Key is 16 bytes in base64, once"))?
                .clone()
        };
        Ok(Some(Self {
            accept: accept(key.as_bytes()),
            key,
            of_stream,
        }))
    }

    /// Adds the handshake to a request whose hop-by-hop fields are removed.
    pub fn stamp(&self, headers: &mut FieldMap) {
        stamp_upgrade(headers);
        headers.insert(SEC_WEBSOCKET_KEY, self.key.clone());
    }

    /// Checks that an answer to switch comes from a server that has read this handshake. `sent` is the head of the
    /// request.
    ///
    /// # Errors
    /// The fault in the answer, for the log (RFC 6455 section 4.1).
    pub fn check(&self, sent: &FieldMap, answer: &FieldMap) -> Result<(), &'static str> {
        let switches = only(answer, &UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"))
            && lists(answer, &CONNECTION, "upgrade")
            && only(answer, &SEC_WEBSOCKET_ACCEPT).is_some_and(|told| told == self.accept.as_str());
        if !switches {
            return Err("the backend switched to something else than was asked for");
        }
        if !has_offered_protocol(sent, answer) {
            return Err("the backend chose a subprotocol that it was not offered");
        }
        if !has_offered_extensions(sent, answer) {
            return Err("the backend uses an extension that it was not offered");
        }
        Ok(())
    }
}

/// Whether the answer chooses no subprotocol, or exactly one that was offered by the same name.
fn has_offered_protocol(sent: &FieldMap, answer: &FieldMap) -> bool {
    if !answer.contains_key(SEC_WEBSOCKET_PROTOCOL) {
        return true;
    }
    let lines = sent.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let mut offered = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    only(answer, &SEC_WEBSOCKET_PROTOCOL).is_some_and(|chosen| {
        let chosen = chosen.as_bytes();
        !chosen.is_empty() && offered.any(|name| name.trim_ascii() == chosen)
    })
}

/// Whether all extensions in the answer were offered. Their parameters are left to both ends.
fn has_offered_extensions(sent: &FieldMap, answer: &FieldMap) -> bool {
    let mut lines = answer.get_all(SEC_WEBSOCKET_EXTENSIONS).iter();
    let offers = |name: &&[u8]| {
        let mut lines = sent.get_all(SEC_WEBSOCKET_EXTENSIONS).iter();
        lines.any(|line| extensions(line.as_bytes()).is_some_and(|offered| offered.contains(name)))
    };
    lines.all(|line| extensions(line.as_bytes()).is_some_and(|used| used.iter().all(offers)))
}

/// Returns the names of the extensions in a line (RFC 6455 section 9.1); `None` if a quote stays open.
fn extensions(line: &[u8]) -> Option<Vec<&[u8]>> {
    let (mut names, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for at in 0..=line.len() {
        match line.get(at) {
            Some(_) if escaped => escaped = false,
            Some(b'\\') if quoted => escaped = true,
            Some(b'"') => quoted = !quoted,
            None | Some(b',') if !quoted => {
                let name = line[start..at].split(|byte| *byte == b';').next().unwrap_or_default();
                // Empty list elements are ignored (RFC 9110 section 5.6.1.2).
                if !line[start..at].trim_ascii().is_empty() {
                    names.push(name.trim_ascii());
                }
                start = at + 1;
            }
            _ => {}
        }
    }
    (!quoted).then_some(names)
}

/// Adds the upgrade fields to a request or an answer whose hop-by-hop fields are removed.
pub fn stamp_upgrade(headers: &mut FieldMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

/// Returns a random key. It needs no secrecy: it only tells the answer to this handshake from the answer to another.
fn fresh_key() -> HeaderValue {
    let nonce = fastrand::u128(..).to_ne_bytes();
    HeaderValue::try_from(STANDARD.encode(nonce)).expect("base64 is a header value")
}

fn only<'h>(headers: &'h FieldMap, name: &header::HeaderName) -> Option<&'h HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    lines.next().filter(|_| lines.next().is_none())
}

const fn malformed(why: &'static str) -> Rejection {
    Rejection::malformed(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 6455 section 1.3.
    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

    fn map(text: &str) -> FieldMap {
        let line = |line: &str| {
            let (name, value) = line.trim().split_once(": ").expect("a field");
            (
                name.parse::<header::HeaderName>().expect("a name"),
                HeaderValue::from_str(value).expect("a value"),
            )
        };
        text.split('|').map(line).collect()
    }

    fn wish(more: &str) -> FieldMap {
        map(&format!(
            "connection: keep-alive, Upgrade|upgrade: WebSocket|sec-websocket-version: 13|{more}"
        ))
    }

    fn head(method: Method, version: Version, headers: &FieldMap) -> RequestHead {
        let (mut head, ()) = crate::message::Request::new(()).into_parts();
        (head.method, head.version, head.headers) = (method, version, headers.clone());
        head
    }

    #[test]
    fn the_wish_of_a_stream_becomes_one_that_every_backend_knows() {
        let asked = map("sec-websocket-version: 13|sec-websocket-protocol: chat");
        let mut head = head(Method::CONNECT, Version::HTTP_2, &asked);
        unfold(&mut head);
        assert_eq!(head.method, Method::CONNECT, "another tunnel is none of ours");
        head.extensions.insert(Protocol::from_static("websocket"));
        unfold(&mut head);
        assert_eq!(head.method, Method::GET);
        let handshake = Handshake::read(&head).unwrap().expect("a wish");
        handshake.stamp(&mut head.headers);
        assert_eq!(
            STANDARD
                .decode(&head.headers["sec-websocket-key"])
                .map(|nonce| nonce.len()),
            Ok(16)
        );
        let proof = accept(head.headers["sec-websocket-key"].as_bytes());
        let answer = map(&format!(
            "connection: upgrade|upgrade: websocket|sec-websocket-accept: {proof}"
        ));
        assert_eq!(handshake.check(&head.headers, &answer), Ok(()));
        head.headers.remove("sec-websocket-version");
        assert!(Handshake::read(&head).is_err());
    }

    #[test]
    fn a_wish_is_understood_or_refused() {
        let key = format!("sec-websocket-key: {KEY}");
        let read = |headers: &FieldMap| Handshake::read(&head(Method::GET, Version::HTTP_11, headers));
        assert_eq!(read(&wish(&key)).unwrap().unwrap().accept, ACCEPT);
        for other in [
            map("upgrade: websocket"),
            map("connection: upgrade"),
            map("connection: upgrade|upgrade: h2c"),
        ] {
            assert!(read(&other).unwrap().is_none(), "{other:?}");
        }
        let h10 = Handshake::read(&head(Method::GET, Version::HTTP_10, &wish(&key)));
        assert!(h10.unwrap().is_none());
        assert!(Handshake::read(&head(Method::POST, Version::HTTP_11, &wish(&key))).is_err());
        for bad in [
            "x: no-key",
            "sec-websocket-key: short",
            "sec-websocket-key: dGhlIHNhbXBsZSBub25jZXM=",
            &format!("{key}|{key}"),
            &format!("{key}|content-length: 5"),
            &format!("{key}|transfer-encoding: chunked"),
            &format!("{key}|sec-websocket-version: 8"),
        ] {
            assert!(read(&wish(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_proof_is_taken_for_a_switch() {
        let handshake = Handshake {
            key: HeaderValue::from_static(KEY),
            accept: accept(KEY.as_bytes()),
            of_stream: false,
        };
        let says = |text: &str| handshake.check(&FieldMap::new(), &map(text)).is_ok();
        assert!(says(&format!(
            "connection: Upgrade|upgrade: WebSocket|sec-websocket-accept: {ACCEPT}"
        )));
        for lie in [
            "connection: upgrade|upgrade: websocket".to_owned(),
            "connection: upgrade|upgrade: websocket|sec-websocket-accept: AAAA".to_owned(),
            format!("connection: upgrade|upgrade: h2c|sec-websocket-accept: {ACCEPT}"),
            format!("connection: close|upgrade: websocket|sec-websocket-accept: {ACCEPT}"),
        ] {
            assert!(!says(&lie), "{lie}");
        }
    }

    #[test]
    fn a_backend_agrees_to_what_it_was_offered_and_nothing_else() {
        let handshake = Handshake {
            key: HeaderValue::from_static(KEY),
            accept: accept(KEY.as_bytes()),
            of_stream: false,
        };
        let head = format!("connection: upgrade|upgrade: websocket|sec-websocket-accept: {ACCEPT}");
        let check = |offer: &str, answer: &str, as_protocol: bool, as_extension: bool| {
            for (field, expected) in [("protocol", as_protocol), ("extensions", as_extension)] {
                let lines = |head: &str, text: &str| {
                    let lines = text.split('|').filter(|line| *line != "none");
                    lines.fold(head.to_owned(), |head, line| {
                        format!("{head}|sec-websocket-{field}: {line}")
                    })
                };
                let (sent, answer) = (map(&lines("host: a", offer)), map(&lines(&head, answer)));
                let checked = handshake.check(&sent, &answer);
                assert_eq!(checked.is_ok(), expected, "{sent:?} {answer:?}");
            }
        };
        check("none", "none", true, true);
        check("a", "none", true, true);
        check("a", "a", true, true);
        check("b, a", "a", true, true);
        check("b ,a,c", "a", true, true);
        check("b|a", "a", true, true);
        // The answer may use several extensions, each with parameters.
        check("a, b", "a, b", false, true);
        check("a, b", "a|b", false, true);
        check("a", "a; x=1", false, true);
        check("a; x, b", "a; y", false, true);
        check("a", ",a ,", false, true);
        check("a", "a; x=\"b, c\"", false, true);
        check("none", "a", false, false);
        check("b", "a", false, false);
        check("b", "a, b", false, false);
        check("b", "b|a", false, false);
        check("aa", "a", false, false);
        check("a", "aa", false, false);
        check("A", "a", false, false);
        check("a b", "a", false, false);
        check("a", "a; x=\"b", false, false);
        check("x; a=\"a, b\"", "b", false, false);
    }

    #[test]
    fn extensions_have_names_and_parameters() {
        let check = |line: &str, expected: Option<&[&str]>| {
            let found = extensions(line.as_bytes());
            let expected = expected.map(|names| names.iter().map(|name| name.as_bytes()).collect::<Vec<_>>());
            assert_eq!(found, expected, "{line}");
        };
        check("permessage-deflate", Some(&["permessage-deflate"]));
        check(
            "permessage-deflate; client_max_window_bits=10, x-a",
            Some(&["permessage-deflate", "x-a"]),
        );
        check("a; x=\"1, b\", c", Some(&["a", "c"]));
        check("a; x=\"\\\", b\" , c", Some(&["a", "c"]));
        check("a; x=\"1, b", None);
        check("", Some(&[]));
        check(" , ", Some(&[]));
        check("; a", Some(&[""]));
    }
}

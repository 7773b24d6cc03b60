//! Reads the body of a backend's error answer, to be shown to the caller.
//!
//! Invariant: only JSON that passes the gateway's own check is passed on, and only if it is short and shallow enough to
//! be embedded in another document. The backend's content type alone proves nothing. Any other body is read to its end
//! and dropped; the status remains.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http_body_util::BodyExt;

use crate::call::reply::ReplyBody;
use crate::json::{self, Document, GatherError, Reservation};
use crate::message::{FieldMap, ResponseHead};
use crate::wire::content_encoding::Codings;

/// Longest error body that is passed on, in bytes after decoding. A longer one is dropped whole.
const LIMIT: usize = 8 << 10;

/// Deepest nesting of an error body that is passed on. The enclosing document adds levels of its own.
const DEPTH: u32 = 32;

/// Returns the body if it is JSON that can be passed on.
pub(super) async fn read(head: &ResponseHead, mut body: Box<ReplyBody>, reservation: &Reservation) -> Option<Document> {
    if !may_be_json(&head.headers) {
        drain(body).await;
        return None;
    }
    match json::gather(&mut body, LIMIT, reservation).await {
        Ok(whole) => details(&head.headers, whole.into_text()),
        Err(GatherError::TooLong) => {
            drain(body).await;
            None
        }
        Err(GatherError::Overloaded | GatherError::Broken(_)) => None,
    }
}

/// Reads a body to its end, so that its connection can be reused. Stops at a long body or at an error.
pub(super) async fn drain(mut body: Box<ReplyBody>) {
    let mut length = 0;
    while let Some(Ok(frame)) = body.frame().await {
        length += frame.data_ref().map_or(0, Bytes::len);
        if length > json::LONG {
            return;
        }
    }
}

/// Returns whether the content type is JSON or absent.
fn may_be_json(headers: &FieldMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return true;
    };
    let text = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
    let media_type = text.split(';').next().unwrap_or_default().trim();
    matches!(media_type, "application/json" | "text/json") || media_type.ends_with("+json")
}

fn details(headers: &FieldMap, text: Bytes) -> Option<Document> {
    let text = Codings::read(headers).ok()?.undo(text, LIMIT).ok()?;
    // Copied, because the text may be a small slice of a large buffer.
    let text = Bytes::copy_from_slice(&json::without_mark(text));
    let document = Document::check(&text, LIMIT).ok()?;
    let value = document.value();
    (value.is_unicode() && value.depth() <= DEPTH).then_some(document)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_json_of_bounded_size_is_passed_on() {
        let check = |text: &str, expected: Option<&str>| {
            let found = details(&FieldMap::new(), Bytes::copy_from_slice(text.as_bytes()));
            let found = found.map(|document| document.value().to_string());
            assert_eq!(found.as_deref(), expected, "{text}");
        };
        for text in [
            r#"{"error":"declined","amount":1.50}"#,
            "[1E400]",
            "null",
            "\"text\"",
            "{}",
        ] {
            check(text, Some(text));
            check(&format!("\u{feff} {text}\n"), Some(text));
        }
        for text in [
            "",
            "<html>",
            "{",
            "{\"a\":1}}",
            "{\"a\":1},\"b\":2",
            r#"{"a":1,"\u0061":2}"#,
            r#"{"a":"\ud800"}"#,
            "nul",
            "'a'",
        ] {
            check(text, None);
        }
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        check(&nested(32), Some(&nested(32)));
        check(&nested(33), None);
        check(
            "[\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\"]",
            Some("[\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\"]"),
        );
        let long = |length: usize| format!("\"{}\"", "x".repeat(length - 2));
        check(&long(LIMIT), Some(&long(LIMIT)));
        check(&long(LIMIT + 1), None);
    }

    #[test]
    fn a_type_that_is_not_json_is_believed() {
        let check = |value: Option<&'static str>, expected: bool| {
            let mut headers = FieldMap::new();
            if let Some(value) = value {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
            }
            assert_eq!(may_be_json(&headers), expected, "{value:?}");
        };
        check(None, true);
        for json in [
            "application/json",
            "Application/JSON ; charset=utf-8",
            "text/json",
            "application/problem+json",
            "application/vnd.api+json; v=1",
        ] {
            check(Some(json), true);
        }
        for other in [
            "text/html",
            "text/plain",
            "application/xml",
            "application/jsonx",
            "",
            "json",
        ] {
            check(Some(other), false);
        }
    }
}

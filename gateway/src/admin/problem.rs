//! Problem documents (RFC 9457) of the admin API, in the form that callers of the gateway get.

use std::borrow::Cow;

use axum::http::header::{CONTENT_TYPE, ETAG, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// An error of the admin API. `detail` says what to do.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    status: StatusCode,
    /// Stable name of the error, the last part of the problem's type.
    word: &'static str,
    title: &'static str,
    detail: Cow<'static, str>,
    /// Everything that is wrong with the body, as sentences.
    errors: Vec<String>,
    /// Tag of the entry as it is.
    tag: Option<String>,
}

impl Problem {
    pub(super) const HOST_REFUSED: Self = Self::new(
        StatusCode::MISDIRECTED_REQUEST,
        "host_refused",
        "Not a name of this address",
        "Ask by an IP address or as localhost: other names are refused, so that no web page can reach this address.",
    );
    pub(super) const CHANGES_DISABLED: Self = Self::new(
        StatusCode::FORBIDDEN,
        "changes_disabled",
        "Nothing can be changed here",
        "Write a token of 16 characters or more to a file, name it as admin.token_file in the config, and restart; or name a file of several tokens as admin.tokens_file.",
    );
    pub(super) const TOKEN_MISSING: Self = Self::new(
        StatusCode::UNAUTHORIZED,
        "token_missing",
        "A change needs the admin token",
        "Send the content of admin.token_file as Authorization: Bearer ...",
    );
    pub(super) const TOKEN_INVALID: Self = Self::new(
        StatusCode::UNAUTHORIZED,
        "token_invalid",
        "Not the admin token",
        "Send the content of admin.token_file as Authorization: Bearer ...; it is read when the gateway starts.",
    );
    pub(super) const ROLE_MISSING: Self = Self::new(
        StatusCode::FORBIDDEN,
        "role_missing",
        "The token may not do this",
        "Its entry in admin.tokens_file lacks the role: `keys` changes tenants, keys, revocations and quotas, and `all` everything.",
    );
    pub(super) const READ_TOKEN_MISSING: Self = Self::new(
        StatusCode::UNAUTHORIZED,
        "read_token_missing",
        "Reading needs a token",
        "Send the content of admin.read_token_file as Authorization: Bearer ..., or as the password of any user.",
    );
    pub(super) const READ_TOKEN_INVALID: Self = Self::new(
        StatusCode::UNAUTHORIZED,
        "read_token_invalid",
        "Not a token that may read",
        "Send the content of admin.read_token_file as Authorization: Bearer ...; it is read when the gateway starts.",
    );
    pub(super) const TOO_MANY_REQUESTS: Self = Self::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "too_many_requests",
        "Too many requests are being answered here",
        "Try again soon, and let no reader hold connections without reading. /livez and /readyz are always answered.",
    );
    pub(super) const TOO_MANY_STREAMS: Self = Self::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "too_many_streams",
        "Too many event streams",
        "Close a dashboard that nobody looks at, or ask /api/v1/status and its siblings instead.",
    );
    pub(super) const DRAINING: Self = Self::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "draining",
        "The gateway is stopping",
        "No new stream is begun; /api/v1/status says how far it is.",
    );

    pub(super) const fn new(status: StatusCode, word: &'static str, title: &'static str, detail: &'static str) -> Self {
        Self {
            status,
            word,
            title,
            detail: Cow::Borrowed(detail),
            errors: Vec::new(),
            tag: None,
        }
    }

    /// Adds everything that is wrong with the body.
    pub(super) fn errors(self, errors: Vec<String>) -> Self {
        Self { errors, ..self }
    }

    /// Adds the tag of the entry as it is.
    pub(super) fn tag(self, tag: Option<String>) -> Self {
        Self { tag, ..self }
    }

    /// Replaces the detail with a text that is known only at run time.
    pub(super) fn detail(self, detail: String) -> Self {
        Self {
            detail: Cow::Owned(detail),
            ..self
        }
    }

    pub(super) fn bad_value(detail: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_value", "A value cannot be used", "").detail(detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": format!("urn:problem-type:gateway:admin:{}", self.word),
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
            "reason": self.word,
        });
        if !self.errors.is_empty() {
            body["errors"] = self.errors.into();
        }
        let mut response = (self.status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(tag) = self
            .tag
            .and_then(|tag| HeaderValue::try_from(format!("\"{tag}\"")).ok())
        {
            headers.insert(ETAG, tag);
        }
        match self.status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(
                    WWW_AUTHENTICATE,
                    HeaderValue::from_static("Bearer realm=\"gateway admin\""),
                );
                if self.word.starts_with("read_") {
                    headers.append(
                        WWW_AUTHENTICATE,
                        HeaderValue::from_static("Basic realm=\"gateway admin\", charset=\"UTF-8\""),
                    );
                }
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
            }
            _ => {}
        }
        response
    }
}

pub(super) async fn not_found() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "not_found",
        "Nothing is served here",
        "There are /livez, /readyz, /metrics, /, /docs/refusals.md, and /api/v1/status, routes, backends, tenants, keys, rejections, history, revocations, events.",
    )
}

pub(super) async fn method_not_allowed() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "Not for this method",
        "The allow field lists the methods that are served: GET looks; POST, PUT, PATCH and DELETE change.",
    )
}

#[cfg(test)]
mod tests;

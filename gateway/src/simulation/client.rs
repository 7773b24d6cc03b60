//! A caller on virtual time: sends one request over a connection of its own and reads the answer to its end.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;

use super::seen::{ID, Seen};
use crate::headers::Scheme;
use crate::message::FieldMap;
use crate::pipeline::explain::AssumedCaller;
use crate::problem::X_GATEWAY_REASON;
use crate::rejection::Reason;

/// One request.
#[derive(Debug, Clone)]
pub struct Message {
    pub method: Method,
    /// Path and query.
    pub target: Uri,
    pub scheme: Scheme,
    /// With `Host`.
    pub headers: FieldMap,
    pub body: Bytes,
    /// Client address; `None` is 127.0.0.1.
    pub from: Option<IpAddr>,
    /// Caller in place of credentials.
    pub assumed: Option<AssumedCaller>,
}

/// An answer as the caller has it; `None` if the connection ended without one.
pub(super) struct Answer {
    status: StatusCode,
    headers: FieldMap,
    body: Bytes,
}

/// A request that is over.
#[derive(Debug, Clone)]
pub struct Answered {
    /// Status of the answer; `None` if there was none.
    pub status: Option<StatusCode>,
    pub headers: FieldMap,
    pub body: Bytes,
    pub seen: Seen,
    /// Time at which it was sent, from the start.
    pub at: Duration,
}

impl Answered {
    pub(super) fn of(answer: Option<Answer>, seen: Option<Seen>, at: Duration) -> Self {
        let (status, headers, body) = match answer {
            Some(answer) => (Some(answer.status), answer.headers, answer.body),
            None => (None, FieldMap::new(), Bytes::new()),
        };
        // A message that is no valid request has no record of its own.
        let seen = seen.unwrap_or_else(|| Seen {
            reason: reason_of(&headers),
            ..Seen::default()
        });
        Self {
            status,
            headers,
            body,
            seen,
            at,
        }
    }
}

fn reason_of(headers: &FieldMap) -> Option<Reason> {
    let word = headers.get(&X_GATEWAY_REASON)?.to_str().ok()?;
    Reason::ALL.into_iter().find(|reason| reason.as_str() == word)
}

pub(super) async fn exchange(stream: DuplexStream, message: Message, number: u64) -> Option<Answer> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    let carrier = tokio::spawn(connection);
    let mut request = Request::new(Full::new(message.body));
    *request.method_mut() = message.method;
    *request.uri_mut() = message.target;
    *request.headers_mut() = message.headers.into();
    let id = HeaderValue::from_str(&format!("{ID}{number}")).expect("letters and digits are a field value");
    request.headers_mut().insert("x-request-id", id);
    request
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
    let answer = match sender.send_request(request).await {
        Ok(response) => {
            let (head, body) = response.into_parts();
            // A body that breaks off is recorded by the gateway.
            let body = match body.collect().await {
                Ok(body) => body.to_bytes(),
                Err(_) => Bytes::new(),
            };
            Some(Answer {
                status: head.status,
                headers: head.headers.into(),
                body,
            })
        }
        Err(_) => None,
    };
    drop(sender);
    // The record is complete once the gateway has ended the connection.
    let _ = carrier.await;
    answer
}

//! Runs a gRPC service without a schema: each message is bytes after their length (gRPC's PROTOCOL-HTTP2).

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use h2::SendStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Response};

use super::Ended;
use super::answers::{Incoming, Result, send};

/// Answers a call. The method selects the kind of call.
pub(super) async fn answer(method: &str, mut body: Incoming<'_>, respond: &mut SendResponse<Bytes>) -> Result<Ended> {
    let mut messages = Messages::default();
    match method {
        "Unary" => {
            let asked = messages.next(&mut body).await?.unwrap_or_default();
            let mut out = begin(respond)?;
            send(&mut out, framed(&asked), false).await?;
            end(&mut out, 0)?;
        }
        "Repeat" => {
            let asked = messages.next(&mut body).await?.unwrap_or_default();
            let mut out = begin(respond)?;
            for _ in 0..5 {
                send(&mut out, framed(&asked), false).await?;
            }
            end(&mut out, 0)?;
        }
        "Count" => {
            let mut count = 0;
            while messages.next(&mut body).await?.is_some() {
                count += 1;
            }
            let mut out = begin(respond)?;
            send(&mut out, framed(count.to_string().as_bytes()), false).await?;
            end(&mut out, 0)?;
        }
        // Answers at once with a head, and sends the trailers only after the whole request.
        "Listen" => {
            let mut out = begin(respond)?;
            while messages.next(&mut body).await?.is_some() {}
            end(&mut out, 0)?;
        }
        "Talk" => {
            let mut out = begin(respond)?;
            while let Some(message) = messages.next(&mut body).await? {
                send(&mut out, framed(&message), false).await?;
            }
            end(&mut out, 0)?;
        }
        "Endless" => {
            let mut out = begin(respond)?;
            let mut pace = tokio::time::interval(Duration::from_millis(20));
            loop {
                pace.tick().await;
                send(&mut out, framed(b"tick"), false).await?;
            }
        }
        "Late" => {
            let mut out = begin(respond)?;
            send(&mut out, framed(b"so far"), false).await?;
            end(&mut out, 14)?;
        }
        // `grpc.health.v1`: the service `well` is serving, `ill` is not, and no other is known.
        "Check" => {
            let asked = messages.next(&mut body).await?.unwrap_or_default();
            let state = match asked.get(2..) {
                Some(b"well") => 1,
                Some(b"ill") => 2,
                _ => {
                    let mut response = head();
                    response.headers_mut().insert("grpc-status", HeaderValue::from(5));
                    respond.send_response(response, true)?;
                    return Ok(Ended::Answered);
                }
            };
            let mut out = begin(respond)?;
            send(&mut out, framed(&[8, state]), false).await?;
            end(&mut out, 0)?;
        }
        // `Status14` and the like: the head has this status, and nothing else follows.
        status => {
            let mut response = head();
            let code = status.strip_prefix("Status").unwrap_or("12");
            let code = HeaderValue::from_str(code).expect("digits");
            response.headers_mut().insert("grpc-status", code);
            respond.send_response(response, true)?;
        }
    }
    Ok(Ended::Answered)
}

fn head() -> Response<()> {
    let mut response = Response::new(());
    let kind = HeaderValue::from_static("application/grpc+bytes");
    response.headers_mut().insert("content-type", kind);
    response
}

fn begin(respond: &mut SendResponse<Bytes>) -> Result<SendStream<Bytes>> {
    respond.send_response(head(), false)
}

fn end(out: &mut SendStream<Bytes>, status: u16) -> Result<()> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(status));
    out.send_trailers(trailers)
}

fn framed(message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(5 + message.len());
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.len()).expect("a small message"));
    bytes.put_slice(message);
    bytes.freeze()
}

#[derive(Default)]
struct Messages(BytesMut);

impl Messages {
    /// Returns the next message; `None` when the caller has sent all.
    async fn next(&mut self, body: &mut Incoming<'_>) -> Result<Option<Bytes>> {
        loop {
            if let Some(length) = self.0.get(1..5) {
                let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
                if self.0.len() >= 5 + length {
                    return Ok(Some(self.0.split_to(5 + length).freeze().slice(5..)));
                }
            }
            match body.piece().await? {
                Some(piece) => self.0.extend_from_slice(&piece),
                None => return Ok(None),
            }
        }
    }
}

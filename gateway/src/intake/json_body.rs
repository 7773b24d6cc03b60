//! Reads a request's body as JSON, for routes that take values from it.
//!
//! Invariant: no more than the route's limit is held, and nobody is waited for beyond the request's deadline.

use std::error::Error;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;
use tokio::time::Instant;

use super::unique_json;
use crate::caller_body::{CallerBody, Cut};
use crate::rejection::Rejection;

/// The value in `body`, which has at most `limit` bytes, and how many it has; `None` if there is no body.
///
/// # Errors
/// [`Rejection::BodyTooLarge`]; [`Rejection::RequestTimeout`] if the body is not complete by `until`, or
/// comes too slowly;
/// [`Rejection::CallerGone`] if it breaks off; [`Rejection::MalformedRequest`] if it is not JSON, or an object in it has
/// a name twice, of which two readers may take different ones (RFC 8259 section 4).
pub async fn read(body: CallerBody, limit: u64, until: Instant) -> Result<Option<(Value, usize)>, Rejection> {
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let gathered = tokio::time::timeout_at(until, Limited::new(body, most).collect()).await;
    let whole: Bytes = match gathered {
        Err(_) => return Err(Rejection::RequestTimeout),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(Rejection::BodyTooLarge { limit }),
        Ok(Err(error)) => return Err(broken(&*error)),
        Ok(Ok(body)) => body.to_bytes(),
    };
    if whole.is_empty() {
        return Ok(None);
    }
    let value = unique_json::value(&whole).ok_or(Rejection::MalformedRequest {
        why: "this route takes values from the body, which is not JSON, or has a name twice in one object",
    })?;
    Ok(Some((value, whole.len())))
}

fn broken(error: &(dyn Error + 'static)) -> Rejection {
    match error.downcast_ref() {
        Some(Cut::Malformed(why)) => Rejection::MalformedRequest { why },
        Some(Cut::TooSlow) => Rejection::RequestTimeout,
        Some(Cut::Broken) | None => Rejection::CallerGone,
    }
}

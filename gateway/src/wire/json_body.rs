//! Reads a request's body as JSON, for routes that use values from it.
//!
//! Invariant: at most the route's limit is held, and the body is awaited at most until the request's deadline. Values
//! that the route does not use are released before a backend is called.

use std::sync::Arc;

use bytes::Bytes;
use http_body::Body;
use tokio::time::Instant;

use crate::json::{self, Document, GatherError, Gathered, Paths, Refusal, Reservation, Selection, WorkspaceError};
use crate::rejection::Rejection;
use crate::setting::{Configured, SettingId};
use crate::wire::caller_body::{BodyError, CallerBody};

/// Default size limit of such a body in bytes.
pub const DEFAULT_LIMIT: u64 = 256 << 10;

/// Returns the `wanted` values of `body`, which may have at most `limit` bytes, and its length; `None` if there is no
/// body. The end of time comes with its setting, which is `None` if the caller set it.
///
/// # Errors
/// Returns [`Rejection::BodyTooLarge`]; [`Rejection::RequestTimeout`] if the body is not complete by `until` or comes
/// too slowly; [`Rejection::CallerGone`] if it breaks off; [`Rejection::MalformedRequest`] if it is not acceptable
/// JSON; [`Rejection::Overloaded`] if there is no room for it; [`Rejection::OutOfTime`] if it could not be parsed in
/// time.
pub async fn read(
    body: CallerBody,
    limit: Configured<u64>,
    (until, time): (Instant, Option<SettingId>),
    wanted: &Arc<Paths>,
    reservation: &Reservation,
) -> Result<Option<(Selection, usize)>, Rejection> {
    let most = usize::try_from(limit.value).unwrap_or(usize::MAX);
    let gathered = gathered(body, limit, (until, time), reservation).await?;
    if gathered.is_empty() {
        return Ok(None);
    }
    let (length, wanted) = (gathered.len(), Arc::clone(wanted));
    let read = move || Document::check(&gathered.into_text(), most).map(|document| Selection::of(&document, &wanted));
    let selection = reservation.read(length, read).await?.map_err(refused)?;
    reservation.shrink_to(selection.size());
    Ok(Some((selection, length)))
}

/// Returns the whole of `body`, which may have at most `limit` bytes and may be anything.
///
/// # Errors
/// As [`read`], but for those about JSON.
pub async fn whole(
    body: CallerBody,
    limit: Configured<u64>,
    until: (Instant, Option<SettingId>),
    reservation: &Reservation,
) -> Result<Bytes, Rejection> {
    Ok(gathered(body, limit, until, reservation).await?.into_text())
}

/// Reads a whole body of at most `limit` bytes, and has `look` look at it, which gets no document if there is no body,
/// and its length. Returns the body as it came.
///
/// # Errors
/// Those of [`read`].
pub async fn read_whole<T: Send + 'static>(
    body: &mut CallerBody,
    limit: Configured<u64>,
    until: (Instant, Option<SettingId>),
    reservation: Reservation,
    look: impl FnOnce(Option<&Document>, usize) -> T + Send + 'static,
) -> Result<(Bytes, T), Rejection> {
    let most = usize::try_from(limit.value).unwrap_or(usize::MAX);
    let gathered = gathered(body, limit, until, &reservation).await?;
    if gathered.is_empty() {
        return Ok((Bytes::new(), look(None, 0)));
    }
    let length = gathered.len();
    let read = move || {
        let text = gathered.into_text();
        let document = Document::check(&text, most)?;
        let seen = look(Some(&document), length);
        Ok((text, seen))
    };
    let (text, seen) = reservation.read(length, read).await?.map_err(refused)?;
    Ok((reservation.keep_for(text), seen))
}

async fn gathered(
    body: impl Body<Data = Bytes, Error = BodyError> + Unpin,
    limit: Configured<u64>,
    (until, time): (Instant, Option<SettingId>),
    reservation: &Reservation,
) -> Result<Gathered, Rejection> {
    let most = usize::try_from(limit.value).unwrap_or(usize::MAX);
    match tokio::time::timeout_at(until, json::gather(body, most, reservation)).await {
        Err(_) => Err(Rejection::RequestTimeout(time)),
        Ok(Err(GatherError::TooLong)) => Err(Rejection::BodyTooLarge(limit)),
        Ok(Err(GatherError::Overloaded)) => Err(WorkspaceError::Overloaded.into()),
        Ok(Err(GatherError::Broken(error))) => Err(broken(&error)),
        Ok(Ok(gathered)) => Ok(gathered),
    }
}

const fn refused(refusal: Refusal) -> Rejection {
    Rejection::malformed(match refusal {
        Refusal::NotJson => "this route takes values from the body, which is not JSON",
        Refusal::TooDeep => "this route takes values from the body, which is nested more than 128 levels deep",
        Refusal::DuplicateName => "this route takes values from the body, in which an object has a name twice",
        Refusal::TooLarge => "this route takes values from the body, which has more values than are taken",
    })
}

fn broken(error: &BodyError) -> Rejection {
    match error {
        BodyError::Malformed(why) => Rejection::malformed(why),
        BodyError::TooSlow => Rejection::RequestTimeout(Some(SettingId::BODY_RATE)),
        BodyError::Broken => Rejection::CallerGone,
    }
}

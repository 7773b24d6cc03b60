//! Reads a request's body as JSON, for routes that use values from it.
//!
//! Invariant: at most the route's limit is held, and the body is awaited at most until the request's deadline. Values
//! that the route does not use are released before a backend is called.

use std::sync::Arc;

use tokio::time::Instant;

use crate::json::{self, Document, GatherError, Paths, Refusal, Reservation, Selection, WorkspaceError};
use crate::rejection::{Rejection, Setting};
use crate::setting::SettingId;
use crate::wire::caller_body::{BodyError, CallerBody};

/// Default size limit of such a body in bytes.
pub const DEFAULT_LIMIT: u64 = 256 << 10;

/// Returns the `wanted` values of `body`, which may have at most `limit` bytes, and its length; `None` if there is no
/// body.
///
/// # Errors
/// Returns [`Rejection::BodyTooLarge`]; [`Rejection::RequestTimeout`] if the body is not complete by `until` or comes
/// too slowly; [`Rejection::CallerGone`] if it breaks off; [`Rejection::MalformedRequest`] if it is not acceptable
/// JSON; [`Rejection::Overloaded`] if there is no room for it; [`Rejection::OutOfTime`] if it could not be parsed in
/// time.
pub async fn read(
    body: CallerBody,
    limit: u64,
    until: Instant,
    wanted: &Arc<Paths>,
    reservation: &Reservation,
) -> Result<Option<(Selection, usize)>, Rejection> {
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let gathered = tokio::time::timeout_at(until, json::gather(body, most, reservation)).await;
    let whole = match gathered {
        Err(_) => return Err(Rejection::RequestTimeout(Setting::RouteTime)),
        Ok(Err(GatherError::TooLong)) => return Err(Rejection::BodyTooLarge { limit }),
        Ok(Err(GatherError::Overloaded)) => return Err(WorkspaceError::Overloaded.into()),
        Ok(Err(GatherError::Broken(error))) => return Err(broken(&error)),
        Ok(Ok(whole)) => whole,
    };
    if whole.is_empty() {
        return Ok(None);
    }
    let (length, wanted) = (whole.len(), Arc::clone(wanted));
    let read = move || Document::check(&whole.into_text(), most).map(|document| Selection::of(&document, &wanted));
    let selection = reservation.read(length, read).await?.map_err(refused)?;
    reservation.shrink_to(selection.size());
    Ok(Some((selection, length)))
}

const fn refused(refusal: Refusal) -> Rejection {
    Rejection::MalformedRequest {
        why: match refusal {
            Refusal::NotJson => "this route takes values from the body, which is not JSON",
            Refusal::TooDeep => "this route takes values from the body, which is nested more than 128 levels deep",
            Refusal::DuplicateName => "this route takes values from the body, in which an object has a name twice",
            Refusal::TooLarge => "this route takes values from the body, which has more values than are taken",
        },
    }
}

fn broken(error: &BodyError) -> Rejection {
    match error {
        BodyError::Malformed(why) => Rejection::MalformedRequest { why },
        BodyError::TooSlow => Rejection::RequestTimeout(Setting::At(SettingId::BODY_RATE)),
        BodyError::Broken => Rejection::CallerGone,
    }
}

//! Reads a request's body as JSON, for routes that take values from it.
//!
//! Invariant: no more than the route's limit is held, and nobody is waited for beyond the request's deadline. What is
//! not taken from it is let go before anyone is asked.

use std::sync::Arc;

use tokio::time::Instant;

use crate::json::{self, Document, GatherError, Paths, Refusal, Reservation, Selection, WorkspaceError};
use crate::rejection::{Rejection, Setting};
use crate::wire::caller_body::{CallerBody, Cut};

/// The limit of such a body where nothing is written, in bytes.
pub const DEFAULT_LIMIT: u64 = 256 << 10;

/// What is wanted of `body`, which has at most `limit` bytes, and how many it has; `None` if there is no body.
///
/// # Errors
/// [`Rejection::BodyTooLarge`]; [`Rejection::RequestTimeout`] if the body is not complete by `until`, or comes too
/// slowly; [`Rejection::CallerGone`] if it breaks off; [`Rejection::MalformedRequest`] if it is not JSON that is taken;
/// [`Rejection::Overloaded`] if there is no room for it, and [`Rejection::OutOfTime`] if it could not be read in time.
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

fn broken(error: &Cut) -> Rejection {
    match error {
        Cut::Malformed(why) => Rejection::MalformedRequest { why },
        Cut::TooSlow => Rejection::RequestTimeout(Setting::BodyPace),
        Cut::Broken => Rejection::CallerGone,
    }
}

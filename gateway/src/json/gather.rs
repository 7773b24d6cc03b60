//! Reads a body to its end, within its limit and the budget of the process.

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;

use super::workspace::Reservation;

/// What each byte of a text is counted as: the text, and what is made of it.
const WEIGHT: usize = 2;

/// Why there is no whole text.
#[derive(Debug)]
pub enum Unread<E> {
    /// Longer than it may be.
    TooLong,
    /// The budget is used up.
    Overloaded,
    Broken(E),
}

/// The whole of `body`, which may have `limit` bytes. Twice as many are reserved, as they come.
///
/// # Errors
/// [`Unread`].
pub async fn gather<B>(mut body: B, limit: usize, reservation: &Reservation) -> Result<Bytes, Unread<B::Error>>
where
    B: Body<Data = Bytes> + Unpin,
{
    if body.size_hint().lower() > limit as u64 {
        return Err(Unread::TooLong);
    }
    let (mut first, mut whole) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let data = frame.map_err(Unread::Broken)?.into_data().unwrap_or_default();
        let length = first.len() + whole.len() + data.len();
        if length > limit {
            return Err(Unread::TooLong);
        }
        let grown = reservation.grow(WEIGHT * data.len(), length);
        grown.map_err(|_| Unread::Overloaded)?;
        // Most come in one piece, which is not copied.
        if first.is_empty() && whole.is_empty() {
            first = data;
            continue;
        }
        if whole.is_empty() {
            let rest = usize::try_from(body.size_hint().exact().unwrap_or(0)).unwrap_or(0);
            whole.reserve(length.saturating_add(rest).min(limit));
            whole.extend_from_slice(&std::mem::take(&mut first));
        }
        whole.extend_from_slice(&data);
    }
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}

//! Reads a body to its end, within its limit and the budget of the process.

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;

use super::LONG;
use super::workspace::Reservation;

/// What each byte of a text is counted as: as it came, and once more when it is put together.
const WEIGHT: usize = 2;

/// Pieces of so many bytes are kept as they come; shorter ones are put together, so that none is a small part of a large
/// buffer.
const PIECE: usize = 16 << 10;

/// After so many bytes it is the turn of others on the same worker, however much there is to read.
const TURN: usize = 128 << 10;

/// Why there is no whole text.
#[derive(Debug)]
pub enum GatherError<E> {
    /// Longer than it may be.
    TooLong,
    /// The budget is used up.
    Overloaded,
    Broken(E),
}

/// A whole body, as it came. Room is made for what has come, and not for what was announced.
#[derive(Debug, Default)]
pub struct Gathered {
    pieces: Vec<Bytes>,
    last: BytesMut,
    length: usize,
}

/// The whole of `body`, which may have `limit` bytes. Twice as many are reserved, as they come.
///
/// # Errors
/// [`GatherError`].
pub async fn gather<B>(mut body: B, limit: usize, reservation: &Reservation) -> Result<Gathered, GatherError<B::Error>>
where
    B: Body<Data = Bytes> + Unpin,
{
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > limit {
        return Err(GatherError::TooLong);
    }
    // Nothing is begun for which there is no room now.
    let has_room = reservation.has_room(WEIGHT.saturating_mul(announced), announced);
    has_room.map_err(|_| GatherError::Overloaded)?;
    let (mut gathered, mut turn) = (Gathered::default(), 0);
    while let Some(frame) = body.frame().await {
        let data = frame.map_err(GatherError::Broken)?.into_data().unwrap_or_default();
        let length = gathered.length + data.len();
        if length > limit {
            return Err(GatherError::TooLong);
        }
        let grown = reservation.grow(WEIGHT * data.len(), length);
        grown.map_err(|_| GatherError::Overloaded)?;
        turn += data.len();
        gathered.push(data);
        if turn >= TURN {
            turn = 0;
            tokio::task::yield_now().await;
        }
    }
    Ok(gathered)
}

impl Gathered {
    /// Bytes.
    pub const fn len(&self) -> usize {
        self.length
    }

    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    fn push(&mut self, data: Bytes) {
        if data.is_empty() {
            return;
        }
        // Most come in one piece, which is not copied.
        let is_kept = self.length == 0 || data.len() >= PIECE;
        self.length += data.len();
        if is_kept {
            self.end_piece();
            self.pieces.push(data);
            return;
        }
        if self.last.len() + data.len() > LONG {
            self.end_piece();
        }
        self.last.extend_from_slice(&data);
    }

    fn end_piece(&mut self) {
        if !self.last.is_empty() {
            self.pieces.push(std::mem::take(&mut self.last).freeze());
        }
    }

    /// The text in one piece.
    pub fn into_text(mut self) -> Bytes {
        self.end_piece();
        if self.pieces.len() <= 1 {
            return self.pieces.pop().unwrap_or_default();
        }
        let mut text = Vec::with_capacity(self.length);
        for piece in self.pieces.drain(..) {
            text.extend_from_slice(&piece);
        }
        text.into()
    }
}

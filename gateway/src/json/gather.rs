//! Reads a body to its end, within its own limit and the memory budget of the process.

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;

use super::LONG;
use super::workspace::Reservation;

/// Bytes reserved per byte of a text: one as received, one for the joined copy.
const WEIGHT: usize = 2;

/// Pieces of at least this number of bytes are kept as received. Shorter pieces are copied together, so that none of
/// them keeps a large buffer alive.
const PIECE: usize = 16 << 10;

/// Bytes after which reading yields to other tasks of the same worker.
const TURN: usize = 128 << 10;

/// Reason why a body could not be gathered.
#[derive(Debug)]
pub enum GatherError<E> {
    /// The body is longer than its limit.
    TooLong,
    /// The memory budget is used up.
    Overloaded,
    Broken(E),
}

/// Whole body, as received. Memory is reserved for the bytes received, not for the announced length.
#[derive(Debug, Default)]
pub struct Gathered {
    pieces: Vec<Bytes>,
    last: BytesMut,
    length: usize,
}

/// Reads all of `body`, at most `limit` bytes. Twice the received bytes are reserved while they arrive.
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
    // A body whose announced length has no room now is not read at all.
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
    /// Length in bytes.
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
        // Most bodies arrive in one piece, which is not copied.
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

    /// Joins the body into one piece.
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

//! The Zstandard format (RFC 8878), with a window that every HTTP decoder has (RFC 9659).

use zstd::stream::raw::{CParameter, Encoder, InBuffer, Operation as _, OutBuffer};

use super::spare::Spare;

/// Window as a power of two: 128 KiB. It is also the most that is compressed at once.
const WINDOW_LOG: u32 = 17;
/// Room for output that is made at a time, in bytes.
const ROOM: usize = 16 * 1024;

thread_local! {
    static SPARE: Spare<Encoder<'static>> = const { Spare::new() };
}

/// Encoder of one frame.
pub(super) struct Zstd {
    level: u32,
    /// Present until it is dropped.
    encoder: Option<Encoder<'static>>,
}

impl Zstd {
    /// Returns `None` if the library has no memory.
    pub(super) fn new(level: u32) -> Option<Self> {
        let encoder = match SPARE.with(|spare| spare.take(level)) {
            Some(kept) => kept,
            None => {
                let mut encoder = Encoder::new(i32::try_from(level).ok()?).ok()?;
                encoder.set_parameter(CParameter::WindowLog(WINDOW_LOG)).ok()?;
                encoder
            }
        };
        Some(Self {
            level,
            encoder: Some(encoder),
        })
    }

    pub(super) fn write(&mut self, input: &[u8], out: &mut Vec<u8>) {
        let Some(encoder) = &mut self.encoder else { return };
        let mut input = InBuffer::around(input);
        while input.pos() < input.src.len() {
            with_room(out, |room| encoder.run(&mut input, room));
        }
    }

    /// Makes all that was written decodable.
    pub(super) fn flush(&mut self, out: &mut Vec<u8>) {
        let Some(encoder) = &mut self.encoder else { return };
        while with_room(out, |room| encoder.flush(room)) > 0 {}
    }

    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        let Some(encoder) = &mut self.encoder else { return };
        while with_room(out, |room| encoder.finish(room, true)) > 0 {}
    }
}

impl Drop for Zstd {
    fn drop(&mut self) {
        // Forgets what is left of a frame that did not come to its end.
        if let Some(mut encoder) = self.encoder.take()
            && encoder.reinit().is_ok()
        {
            // Fails only while the thread ends.
            let _ = SPARE.try_with(|spare| spare.give(self.level, encoder));
        }
    }
}

/// Appends what `run` makes, and returns what `run` returns.
fn with_room(out: &mut Vec<u8>, run: impl FnOnce(&mut OutBuffer<'_, [u8]>) -> std::io::Result<usize>) -> usize {
    let before = out.len();
    out.resize(before + ROOM, 0);
    let mut room = OutBuffer::around(&mut out[before..]);
    let result = run(&mut room);
    let made = room.pos();
    out.truncate(before + made);
    result.expect("valid parameters, and a frame that is not used after its end")
}

//! The Zstandard format (RFC 8878), with a window that every HTTP decoder has (RFC 9659).

use zstd::stream::raw::{CParameter, Encoder, InBuffer, Operation as _, OutBuffer};

/// Window as a power of two: 128 KiB. It is also the most that is compressed at once.
const WINDOW_LOG: u32 = 17;
/// Room for output that is made at a time, in bytes.
const ROOM: usize = 16 * 1024;

/// Encoder of one frame.
pub(super) struct Zstd(Encoder<'static>);

impl Zstd {
    /// Returns `None` if the library has no memory.
    pub(super) fn new(level: u32) -> Option<Self> {
        let mut encoder = Encoder::new(i32::try_from(level).ok()?).ok()?;
        encoder.set_parameter(CParameter::WindowLog(WINDOW_LOG)).ok()?;
        Some(Self(encoder))
    }

    pub(super) fn write(&mut self, input: &[u8], out: &mut Vec<u8>) {
        let mut input = InBuffer::around(input);
        while input.pos() < input.src.len() {
            with_room(out, |room| self.0.run(&mut input, room));
        }
    }

    /// Makes all that was written decodable.
    pub(super) fn flush(&mut self, out: &mut Vec<u8>) {
        while with_room(out, |room| self.0.flush(room)) > 0 {}
    }

    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        while with_room(out, |room| self.0.finish(room, true)) > 0 {}
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

//! The gzip format around a DEFLATE stream (RFC 1952).

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

use super::spare::Spare;

/// Header without name, time and operating system (RFC 1952 section 2.3).
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// Room for output that is made at a time, in bytes.
const ROOM: usize = 4096;

thread_local! {
    static SPARE: Spare<Compress> = const { Spare::new() };
}

/// Encoder of one gzip member.
pub(super) struct Gzip {
    level: u32,
    /// Present until it is dropped.
    deflate: Option<Compress>,
    checksum: Crc,
    has_begun: bool,
}

impl Gzip {
    pub(super) fn new(level: u32) -> Self {
        let kept = SPARE.with(|spare| spare.take(level));
        Self {
            level,
            deflate: Some(kept.unwrap_or_else(|| Compress::new(Compression::new(level), false))),
            checksum: Crc::new(),
            has_begun: false,
        }
    }

    pub(super) fn write(&mut self, input: &[u8], out: &mut Vec<u8>) {
        self.begin(out);
        self.checksum.update(input);
        self.run(input, out, FlushCompress::None);
    }

    /// Makes all that was written decodable.
    pub(super) fn flush(&mut self, out: &mut Vec<u8>) {
        self.begin(out);
        self.run(&[], out, FlushCompress::Sync);
    }

    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        self.begin(out);
        self.run(&[], out, FlushCompress::Finish);
        out.extend_from_slice(&self.checksum.sum().to_le_bytes());
        out.extend_from_slice(&self.checksum.amount().to_le_bytes());
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.has_begun, true) {
            out.extend_from_slice(&HEADER);
        }
    }

    fn run(&mut self, mut input: &[u8], out: &mut Vec<u8>, flush: FlushCompress) {
        let Some(deflate) = &mut self.deflate else { return };
        loop {
            out.reserve(ROOM);
            let before = deflate.total_in();
            let status = deflate.compress_vec(input, out, flush);
            let taken = usize::try_from(deflate.total_in() - before).unwrap_or(usize::MAX);
            input = &input[taken..];
            match (status.expect("the stream is not used after its end"), flush) {
                (Status::StreamEnd, _) => return,
                (_, FlushCompress::Finish) => {}
                // Room that is left shows that nothing waits to be written.
                _ if input.is_empty() && out.len() < out.capacity() => return,
                _ => {}
            }
        }
    }
}

impl Drop for Gzip {
    fn drop(&mut self) {
        if let Some(mut deflate) = self.deflate.take() {
            deflate.reset();
            // Fails only while the thread ends.
            let _ = SPARE.try_with(|spare| spare.give(self.level, deflate));
        }
    }
}

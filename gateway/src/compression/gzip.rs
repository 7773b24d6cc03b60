//! The gzip format around a DEFLATE stream (RFC 1952).

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

/// Header without name, time and operating system (RFC 1952 section 2.3).
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// Room for output that is made at a time, in bytes.
const ROOM: usize = 4096;

/// Encoder of one gzip member.
pub(super) struct Gzip {
    deflate: Compress,
    checksum: Crc,
    has_begun: bool,
}

impl Gzip {
    pub(super) fn new(level: u32) -> Self {
        Self {
            deflate: Compress::new(Compression::new(level), false),
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
        loop {
            out.reserve(ROOM);
            let before = self.deflate.total_in();
            let status = self.deflate.compress_vec(input, out, flush);
            let taken = usize::try_from(self.deflate.total_in() - before).unwrap_or(usize::MAX);
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

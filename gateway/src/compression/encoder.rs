//! Encodes one body piece by piece.
//!
//! Invariant: at most [`PIECE`] bytes are encoded by one call, so that a worker can do something else in between. What
//! was fed before a flush can be decoded from what came out by then. Only [`Encoder::finish`] writes the end of a coding.
//!
//! Reads no clock and does no IO.

use bytes::Bytes;

use super::gzip::Gzip;
use super::memory::MemoryShare;
use super::zstd_codec::Zstd;
use super::{Coding, Compression};

/// Bytes that are encoded at once: a fraction of a millisecond at every level.
pub const PIECE: usize = 16 * 1024;

/// Brotli's window as a power of two: 256 KiB. Level 5 takes thirty times the memory with a smaller one.
const BROTLI_WINDOW_LOG: i32 = 18;
/// Brotli's largest block as a power of two: what is compressed at once.
const BROTLI_BLOCK_LOG: i32 = 16;
/// Size of brotli's output buffer, in bytes.
const BROTLI_BUFFER: usize = 4096;

/// Encoder of one body.
pub struct Encoder {
    coding: Coding,
    /// `None` after the end.
    codec: Option<Codec>,
    /// Bytes that are fed and not yet encoded.
    input: Bytes,
    out: Vec<u8>,
    /// Whether something was encoded since the last flush.
    is_dirty: bool,
    encoded: u64,
    _memory: MemoryShare,
}

enum Codec {
    Gzip(Gzip),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(Zstd),
}

impl Encoder {
    /// Begins a body. Returns `None` if there is no memory left for it.
    pub(super) fn begin(coding: Coding, rules: &Compression) -> Option<Self> {
        let level = rules.levels.of(coding);
        let memory = MemoryShare::take(memory_of(coding, level), rules.memory)?;
        let codec = match coding {
            Coding::Gzip => Codec::Gzip(Gzip::new(level)),
            Coding::Brotli => Codec::Brotli(Box::new(brotli(level))),
            Coding::Zstd => Codec::Zstd(Zstd::new(level)?),
        };
        Some(Self {
            coding,
            codec: Some(codec),
            input: Bytes::new(),
            out: Vec::new(),
            is_dirty: false,
            encoded: 0,
            _memory: memory,
        })
    }

    pub const fn coding(&self) -> Coding {
        self.coding
    }

    /// Number of bytes that have been encoded.
    pub const fn encoded(&self) -> u64 {
        self.encoded
    }

    /// Adds bytes, when those before are encoded.
    pub fn feed(&mut self, input: Bytes) {
        debug_assert!(self.input.is_empty(), "the bytes before are not encoded yet");
        self.input = input;
    }

    /// Whether there are bytes to encode.
    pub fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// Encodes at most [`PIECE`] bytes, and returns how many.
    pub fn work(&mut self) -> usize {
        let piece = self.input.split_to(self.input.len().min(PIECE));
        if self.input.is_empty() {
            // An empty slice would keep the memory of all of it.
            self.input = Bytes::new();
        }
        if let Some(codec) = self.codec.as_mut().filter(|_| !piece.is_empty()) {
            codec.write(&piece, &mut self.out);
            self.is_dirty = true;
            self.encoded += piece.len() as u64;
        }
        piece.len()
    }

    /// Makes all that was encoded decodable.
    pub fn flush(&mut self) {
        if let Some(codec) = self.codec.as_mut().filter(|_| self.is_dirty) {
            codec.flush(&mut self.out);
            self.is_dirty = false;
        }
    }

    /// Writes the end of the body, and releases the state of the coding. All input must be encoded.
    pub fn finish(&mut self) {
        debug_assert!(self.input.is_empty(), "the end comes after all bytes");
        if let Some(codec) = self.codec.take() {
            codec.finish(&mut self.out);
        }
    }

    /// Takes the bytes that have come out; `None` if there are none.
    pub fn take_output(&mut self) -> Option<Bytes> {
        if self.out.is_empty() {
            return None;
        }
        if self.out.len() > self.out.capacity() / 2 {
            return Some(Bytes::from(std::mem::take(&mut self.out)));
        }
        // A short piece would keep the memory of a long one.
        let piece = Bytes::copy_from_slice(&self.out);
        self.out.clear();
        Some(piece)
    }

    /// Whether at least `bytes` bytes have come out.
    pub const fn has_output(&self, bytes: usize) -> bool {
        self.out.len() >= bytes
    }
}

impl Codec {
    fn write(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Gzip(gzip) => gzip.write(piece, out),
            Self::Zstd(zstd) => zstd.write(piece, out),
            Self::Brotli(writer) => {
                std::io::Write::write_all(writer, piece).expect(INTO_MEMORY);
                out.append(writer.get_mut());
            }
        }
    }

    fn flush(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::Gzip(gzip) => gzip.flush(out),
            Self::Zstd(zstd) => zstd.flush(out),
            Self::Brotli(writer) => {
                std::io::Write::flush(writer).expect(INTO_MEMORY);
                out.append(writer.get_mut());
            }
        }
    }

    fn finish(self, out: &mut Vec<u8>) {
        match self {
            Self::Gzip(mut gzip) => gzip.finish(out),
            Self::Zstd(mut zstd) => zstd.finish(out),
            Self::Brotli(writer) => out.append(&mut writer.into_inner()),
        }
    }
}

const INTO_MEMORY: &str = "a write into memory";

fn brotli(level: u32) -> brotli::CompressorWriter<Vec<u8>> {
    let parameters = brotli::enc::BrotliEncoderParams {
        quality: i32::try_from(level).unwrap_or(1),
        lgwin: BROTLI_WINDOW_LOG,
        lgblock: BROTLI_BLOCK_LOG,
        ..Default::default()
    };
    brotli::CompressorWriter::with_params(Vec::new(), BROTLI_BUFFER, &parameters)
}

/// Returns the memory that an encoder may take, in bytes: measured over bodies of 4 MiB, and rounded up.
const fn memory_of(coding: Coding, level: u32) -> u64 {
    const KIB: u64 = 1024;
    let kib = match (coding, level) {
        (Coding::Gzip, _) => 384,
        (Coding::Brotli, 0 | 1) => 512,
        (Coding::Brotli, 2 | 3) => 1536,
        (Coding::Brotli, 4) => 2560,
        (Coding::Brotli, 5) => 3072,
        (Coding::Brotli, _) => 4096,
        (Coding::Zstd, 0..=2) => 768,
        (Coding::Zstd, 3) => 1024,
        (Coding::Zstd, 4) => 1536,
        (Coding::Zstd, _) => 3072,
    };
    kib * KIB
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Read;

    use super::*;
    use crate::compression::{Levels, memory};

    pub(in crate::compression) fn rules() -> Compression {
        Compression {
            codings: Coding::ALL.to_vec(),
            levels: Levels {
                gzip: 6,
                brotli: 5,
                zstd: 3,
            },
            types: Vec::new(),
            minimum: 0,
            memory: u64::MAX,
        }
    }

    /// Decodes what there is, as far as it goes, and returns whether it ended in order.
    pub(in crate::compression) fn decoded(coding: Coding, encoded: &[u8]) -> (Vec<u8>, bool) {
        let mut decoder: Box<dyn Read> = match coding {
            Coding::Gzip => Box::new(flate2::read::GzDecoder::new(encoded)),
            Coding::Brotli => Box::new(brotli::Decompressor::new(encoded, 4096)),
            Coding::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(encoded).unwrap()),
        };
        let (mut plain, mut buffer) = (Vec::new(), [0; 1000]);
        loop {
            match decoder.read(&mut buffer) {
                Ok(0) => return (plain, true),
                Ok(count) => plain.extend_from_slice(&buffer[..count]),
                Err(_) => return (plain, false),
            }
        }
    }

    fn text(length: usize) -> Bytes {
        let words = (0..)
            .flat_map(|number: u64| format!("{{\"id\":{},\"n\":\"{number}\"}},", number * number % 977).into_bytes());
        words.take(length).collect()
    }

    fn encode(encoder: &mut Encoder, body: Bytes, out: &mut Vec<u8>) {
        encoder.feed(body);
        while encoder.has_input() {
            assert!(encoder.work() <= PIECE);
            out.extend(encoder.take_output().into_iter().flatten());
        }
    }

    #[test]
    fn a_body_comes_back_at_every_level() {
        for (coding, levels) in [(Coding::Gzip, 1..=9), (Coding::Brotli, 0..=6), (Coding::Zstd, 1..=6)] {
            for level in levels {
                for length in [0, 1, 1000, PIECE, PIECE + 1, 500_000] {
                    let (gzip, brotli, zstd) = (level, level, level);
                    let levels = Levels { gzip, brotli, zstd };
                    let mut encoder = Encoder::begin(coding, &Compression { levels, ..rules() }).unwrap();
                    let (body, mut out) = (text(length), Vec::new());
                    encode(&mut encoder, body.clone(), &mut out);
                    encoder.finish();
                    out.extend(encoder.take_output().into_iter().flatten());
                    assert!(!encoder.has_output(1) && encoder.encoded() == length as u64);
                    assert!(
                        decoded(coding, &out) == (body.to_vec(), true),
                        "{coding:?} {level} {length}"
                    );
                    assert!(
                        length < 1000 || out.len() < length / 2,
                        "{coding:?} {level}: {} of {length}",
                        out.len()
                    );
                }
            }
        }
    }

    #[test]
    fn what_was_flushed_can_be_decoded_and_is_no_end() {
        for coding in Coding::ALL {
            let mut encoder = Encoder::begin(coding, &rules()).unwrap();
            let (mut out, mut plain) = (Vec::new(), Vec::new());
            for length in [1, 10, 3000, 40_000, 5] {
                let piece = text(length);
                plain.extend_from_slice(&piece);
                encode(&mut encoder, piece, &mut out);
                encoder.flush();
                out.extend(encoder.take_output().into_iter().flatten());
                assert!(decoded(coding, &out) == (plain.clone(), false), "{coding:?} {length}");
                // A flush without anything new writes nothing.
                encoder.flush();
                assert_eq!(encoder.take_output(), None, "{coding:?}");
            }
            encoder.finish();
            out.extend(encoder.take_output().into_iter().flatten());
            assert!(decoded(coding, &out) == (plain, true), "{coding:?}");
        }
    }

    /// Encoders keep their state for the next body.
    #[test]
    fn nothing_of_a_body_gets_into_the_next_one() {
        for coding in Coding::ALL {
            for (round, left_at) in [0, 1, 5000, PIECE, 3 * PIECE].into_iter().cycle().take(12).enumerate() {
                let mut left = Encoder::begin(coding, &rules()).unwrap();
                encode(&mut left, Bytes::from(vec![b'#'; left_at]), &mut Vec::new());
                if round % 2 == 0 {
                    left.flush();
                }
                drop(left);
                let (mut encoder, mut out, body) =
                    (Encoder::begin(coding, &rules()).unwrap(), Vec::new(), text(20_000));
                encode(&mut encoder, body.clone(), &mut out);
                encoder.finish();
                out.extend(encoder.take_output().into_iter().flatten());
                assert!(decoded(coding, &out) == (body.to_vec(), true), "{coding:?} {round}");
            }
        }
    }

    #[test]
    fn memory_is_counted_and_limited() {
        // Other tests hold memory too, so only the limits of one encoder can be told apart.
        assert!(Encoder::begin(Coding::Gzip, &Compression { memory: 0, ..rules() }).is_none());
        let encoder = Encoder::begin(Coding::Gzip, &rules());
        assert!(encoder.is_some() && memory::held() >= memory_of(Coding::Gzip, 6));
    }
}

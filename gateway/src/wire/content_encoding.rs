//! Decodes a compressed body, so that the gateway can read it.
//!
//! Invariant: at most one byte more than `limit` is decoded, and no coding uses a window above 16 MiB, whatever the
//! encoded bytes claim. Supported are those codings of the HTTP Content Coding Registry that senders use in practice:
//! `gzip` (also `x-gzip`), `deflate`, `br` and `zstd` (RFC 9110 section 8.4.1, RFC 7932, RFC 8878).

use std::fmt;
use std::io::{self, Read};

use bytes::Bytes;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::header;
use smallvec::SmallVec;

use crate::message::FieldMap;

/// Maximum number of codings on one body. One is usual; a proxy that compresses again makes it two.
const MOST: usize = 2;

/// Largest zstd window, as a power of two: 8 MiB, which every HTTP decoder must support (RFC 9659 section 3).
const ZSTD_WINDOW_LOG: u32 = 23;

/// Size of the brotli decoder's read buffer in bytes.
const BUFFER: usize = 4096;

/// Reason why a body cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DecodeError {
    /// The coding is unknown, or there are too many codings. Holds the field's value, cut to 64 characters.
    Unsupported(String),
    /// The bytes are not valid in the named coding.
    Damaged(&'static str),
    /// The decoded body exceeds the limit.
    TooLarge,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

impl Coding {
    /// Finds a coding by its name, without regard to case (RFC 9110 section 8.4.1).
    fn named(name: &str) -> Option<Self> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match () {
            () if is("gzip") || is("x-gzip") => Some(Self::Gzip),
            () if is("deflate") => Some(Self::Deflate),
            () if is("br") => Some(Self::Brotli),
            () if is("zstd") => Some(Self::Zstd),
            () => None,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }
}

/// Codings of a body, in the order in which they were applied.
#[derive(Debug, Default)]
pub struct Codings(SmallVec<[Coding; MOST]>);

impl Codings {
    /// Reads the codings in `Content-Encoding`. Empty elements and `identity` are ignored.
    ///
    /// # Errors
    /// Returns [`DecodeError::Unsupported`].
    pub fn read(headers: &FieldMap) -> Result<Self, DecodeError> {
        let mut codings = SmallVec::new();
        for value in headers.get_all(header::CONTENT_ENCODING) {
            let unsupported = || {
                let text = String::from_utf8_lossy(value.as_bytes());
                DecodeError::Unsupported(text.chars().take(64).collect())
            };
            let names = value.to_str().map_err(|_| unsupported())?.split(',').map(str::trim);
            for name in names.filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case("identity")) {
                if codings.len() == MOST {
                    return Err(unsupported());
                }
                codings.push(Coding::named(name).ok_or_else(unsupported)?);
            }
        }
        Ok(Self(codings))
    }

    /// Whether the body has no coding.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Decodes a body, the last coding first. `limit` is the maximum size in bytes after each step.
    ///
    /// # Errors
    /// Returns [`DecodeError::Damaged`] or [`DecodeError::TooLarge`].
    pub fn undo(&self, body: Bytes, limit: usize) -> Result<Bytes, DecodeError> {
        let mut last_first = self.0.iter().rev();
        last_first.try_fold(body, |body, coding| undo(*coding, &body, limit))
    }
}

fn undo(coding: Coding, body: &[u8], limit: usize) -> Result<Bytes, DecodeError> {
    // An empty body is not encoded: servers name a coding on empty answers as well.
    if body.is_empty() {
        return Ok(Bytes::new());
    }
    let decoded = match coding {
        Coding::Gzip => read(MultiGzDecoder::new(body), limit),
        Coding::Deflate if is_zlib(body) => read(ZlibDecoder::new(body), limit),
        Coding::Deflate => read(DeflateDecoder::new(body), limit),
        Coding::Brotli => read(brotli::Decompressor::new(body, BUFFER), limit),
        Coding::Zstd => zstd::stream::read::Decoder::with_buffer(body)
            .and_then(|mut decoder| decoder.window_log_max(ZSTD_WINDOW_LOG).map(|()| decoder))
            .and_then(|decoder| read(decoder, limit)),
    };
    let decoded = decoded.map_err(|_| DecodeError::Damaged(coding.as_str()))?;
    if decoded.len() > limit {
        return Err(DecodeError::TooLarge);
    }
    Ok(decoded.into())
}

/// Reads at most one byte more than `limit`.
fn read(decoder: impl Read, limit: usize) -> io::Result<Vec<u8>> {
    let mut decoded = Vec::new();
    decoder
        .take(limit as u64 + 1)
        .read_to_end(&mut decoded)
        .map(|_| decoded)
}

/// Whether a `deflate` body starts with the zlib header. `deflate` means the zlib format (RFC 9110 section 8.4.1.2),
/// but some senders omit this header. Its two bytes state method 8 and, as one number, are a multiple of 31 (RFC 1950
/// section 2.2).
fn is_zlib(body: &[u8]) -> bool {
    match body {
        [method, flags, ..] => method & 0x0f == 8 && u16::from_be_bytes([*method, *flags]).is_multiple_of(31),
        _ => false,
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported(named) => write!(f, "its content-encoding cannot be undone: {named:?}"),
            Self::Damaged(coding) => write!(f, "its bytes are not {coding}, which its content-encoding names"),
            Self::TooLarge => f.write_str("decoded, it is longer than it may be"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use http::HeaderValue;

    use super::*;

    const TEXT: &[u8] = br#"{"id":7,"name":"usr"}"#;
    const LIMIT: usize = 1 << 16;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(plain: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn raw_deflate(plain: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn brotli(plain: &[u8]) -> Vec<u8> {
        let mut encoded = Vec::new();
        let mut encoder = brotli::CompressorWriter::new(&mut encoded, BUFFER, 4, 20);
        encoder.write_all(plain).unwrap();
        drop(encoder);
        encoded
    }

    fn zstd(plain: &[u8]) -> Vec<u8> {
        zstd::encode_all(plain, 1).unwrap()
    }

    /// Name of a coding and its encoder.
    type Encoder = (&'static str, fn(&[u8]) -> Vec<u8>);

    fn decoded(named: &[&str], body: Vec<u8>) -> Result<Bytes, DecodeError> {
        let mut headers = FieldMap::new();
        for value in named {
            headers.append(header::CONTENT_ENCODING, HeaderValue::from_str(value).unwrap());
        }
        Codings::read(&headers)?.undo(body.into(), LIMIT)
    }

    #[test]
    fn every_coding_is_undone_however_it_is_named() {
        let check = |named: &[&str], body: Vec<u8>| assert_eq!(decoded(named, body).as_deref(), Ok(TEXT), "{named:?}");
        check(&[], TEXT.to_vec());
        check(&[""], TEXT.to_vec());
        check(&["identity"], TEXT.to_vec());
        check(&[" , Identity,"], TEXT.to_vec());
        check(&["gzip"], gzip(TEXT));
        check(&["GZip"], gzip(TEXT));
        check(&["x-gzip"], gzip(TEXT));
        check(&["deflate"], zlib(TEXT));
        check(&["deflate"], raw_deflate(TEXT));
        check(&["br"], brotli(TEXT));
        check(&["zstd"], zstd(TEXT));
        check(&["identity, br"], brotli(TEXT));
        check(&["gzip, br"], brotli(&gzip(TEXT)));
        check(&["gzip", "br"], brotli(&gzip(TEXT)));
        // A gzip file of two members decodes to both, one after the other (RFC 1952 section 2.2).
        check(&["gzip"], [gzip(&TEXT[..5]), gzip(&TEXT[5..])].concat());
    }

    #[test]
    fn an_empty_body_has_no_coding() {
        for named in ["gzip", "deflate", "br", "zstd"] {
            assert_eq!(decoded(&[named], vec![]).as_deref(), Ok(&[][..]), "{named}");
        }
    }

    #[test]
    fn what_cannot_be_undone_is_told_apart() {
        let unsupported = |named: &str| {
            let told = decoded(&[named], gzip(TEXT));
            assert_eq!(told, Err(DecodeError::Unsupported(named.to_owned())));
        };
        unsupported("compress");
        unsupported("gzip, gzip, gzip");
        unsupported("gzip;q=1");
        let encoders: [Encoder; 4] = [("gzip", gzip), ("deflate", zlib), ("br", brotli), ("zstd", zstd)];
        for (named, encode) in encoders {
            let damaged = |body: Vec<u8>| assert_eq!(decoded(&[named], body), Err(DecodeError::Damaged(named)));
            damaged(TEXT.to_vec());
            let whole = encode(TEXT);
            damaged(whole[..whole.len() - 2].to_vec());
        }
    }

    #[test]
    fn a_small_body_does_not_become_a_large_one() {
        let encoders: [Encoder; 4] = [("gzip", gzip), ("deflate", raw_deflate), ("br", brotli), ("zstd", zstd)];
        for (named, encode) in encoders {
            let check = |length: usize, expected: Result<usize, DecodeError>| {
                let told = decoded(&[named], encode(&vec![b' '; length]));
                assert_eq!(told.map(|body| body.len()), expected, "{named} {length}");
            };
            check(LIMIT, Ok(LIMIT));
            check(LIMIT + 1, Err(DecodeError::TooLarge));
            check(64 << 20, Err(DecodeError::TooLarge));
        }
        let twice = gzip(&gzip(&vec![0; 64 << 20]));
        assert_eq!(decoded(&["gzip, gzip"], twice), Err(DecodeError::TooLarge));
    }
}

//! Compresses the body of an answer on its way to the caller.
//!
//! Invariant: before the body waits for more, the caller can decode all that has come. A body that breaks off is passed
//! on as far as it came, without the end of its coding.

use std::future::Future as _;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;

use super::Content;
use crate::call::reply::Broken;
use crate::compression::{Encoder, PIECE};

/// Bytes of output from which on they are handed over without waiting for more.
const ENOUGH: usize = 8 * 1024;

/// A body that is being compressed.
pub(super) struct Compressing {
    encoder: Encoder,
    /// Bytes encoded since the worker could do something else.
    in_a_row: usize,
    must_pause: bool,
    /// Whether nothing more comes from the content.
    has_ended: bool,
    /// Trailers, or the reason why the content broke off. It follows the last encoded bytes.
    last: Option<Result<Frame<Bytes>, Broken>>,
}

impl Compressing {
    pub(super) fn new(encoder: Encoder) -> Self {
        Self {
            encoder,
            in_a_row: 0,
            must_pause: false,
            has_ended: false,
            last: None,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.has_ended && !self.encoder.has_output(1) && self.last.is_none()
    }

    /// Bytes that were compressed so far.
    pub(super) const fn encoded(&self) -> u64 {
        self.encoder.encoded()
    }

    pub(super) fn poll_frame(
        &mut self,
        content: &mut Content,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        loop {
            if std::mem::take(&mut self.must_pause) {
                // The runtime wakes the task after others have had their turn. A wake at once would be noted within the
                // same poll of an HTTP/2 connection.
                let _ = pin!(tokio::task::yield_now()).poll(cx);
                return Poll::Pending;
            }
            if self.encoder.has_input() {
                self.in_a_row += self.encoder.work();
                if self.in_a_row >= PIECE {
                    (self.in_a_row, self.must_pause) = (0, true);
                }
                if self.encoder.has_output(ENOUGH) {
                    return Poll::Ready(self.output());
                }
                continue;
            }
            if self.has_ended {
                let output = self.output();
                return Poll::Ready(output.or_else(|| self.last.take()));
            }
            if content.is_over() {
                self.finish();
                continue;
            }
            match content.poll_frame(cx) {
                Poll::Pending => {
                    self.in_a_row = 0;
                    self.encoder.flush();
                    return match self.output() {
                        None => Poll::Pending,
                        output => Poll::Ready(output),
                    };
                }
                Poll::Ready(None) => self.finish(),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.encoder.feed(data),
                    Err(trailers) => {
                        self.finish();
                        self.last = Some(Ok(trailers));
                    }
                },
                Poll::Ready(Some(Err(broken))) => {
                    self.encoder.flush();
                    self.has_ended = true;
                    self.last = Some(Err(broken));
                }
            }
        }
    }

    fn finish(&mut self) {
        self.encoder.finish();
        self.has_ended = true;
    }

    fn output(&mut self) -> Option<Result<Frame<Bytes>, Broken>> {
        self.encoder.take_output().map(|output| Ok(Frame::data(output)))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::task::Waker;

    use crate::message::FieldMap;
    use http::{HeaderValue, Method, StatusCode, Version, header};

    use super::*;
    use crate::compression::{Coding, Compression, Levels, MediaRange, PendingCompression};

    fn compressing(coding: Coding) -> Compressing {
        let rules = Compression {
            codings: vec![coding],
            levels: Levels {
                gzip: 6,
                brotli: 5,
                zstd: 3,
            },
            types: MediaRange::parse("text/*").into_iter().collect(),
            minimum: 0,
            memory: u64::MAX,
        };
        let field = |name, value| FieldMap::from_iter([(name, HeaderValue::from_static(value))]);
        let request = field(header::ACCEPT_ENCODING, coding.as_str());
        let pending = PendingCompression::begin(&rules.into(), &Method::GET, Version::HTTP_2, &request);
        let mut answer = field(header::CONTENT_TYPE, "text/plain");
        Compressing::new(
            pending
                .apply(StatusCode::OK, &mut answer, None)
                .expect("it is compressed"),
        )
    }

    #[test]
    fn a_worker_can_do_something_else_after_each_piece() {
        const LENGTH: usize = 50 * PIECE + 7;
        let text: Vec<u8> = (0_u32..)
            .flat_map(|number| number.to_string().into_bytes())
            .take(LENGTH)
            .collect();
        for coding in Coding::ALL {
            let (mut compressing, mut content) = (compressing(coding), Content::Whole(text.clone().into()));
            let mut cx = Context::from_waker(Waker::noop());
            let (mut out, mut pauses, mut encoded) = (Vec::new(), 0, 0);
            loop {
                match compressing.poll_frame(&mut content, &mut cx) {
                    Poll::Ready(None) => break,
                    Poll::Ready(Some(frame)) => {
                        out.extend(frame.expect("nothing breaks off").into_data().expect("no trailers"));
                    }
                    Poll::Pending => {
                        pauses += 1;
                        let in_a_row = compressing.encoded() - std::mem::replace(&mut encoded, compressing.encoded());
                        assert!(in_a_row <= PIECE as u64, "{in_a_row}");
                    }
                }
            }
            assert!(compressing.is_over() && pauses == LENGTH / PIECE, "{coding:?} {pauses}");
            let mut plain = Vec::new();
            let mut decoder: Box<dyn Read> = match coding {
                Coding::Gzip => Box::new(flate2::read::GzDecoder::new(&*out)),
                Coding::Brotli => Box::new(brotli::Decompressor::new(&*out, 4096)),
                Coding::Zstd => Box::new(zstd::stream::read::Decoder::new(&*out).expect("it begins")),
            };
            decoder.read_to_end(&mut plain).expect("it is whole");
            assert!(plain == text, "{coding:?}");
        }
    }
}

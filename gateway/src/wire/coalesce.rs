//! Writes several small pieces of an HTTP/2 connection with one plain write.
//!
//! hyper hands over a head and a body as two pieces. A vectored write costs more than copying a few hundred bytes here.
//! Large pieces use a vectored write, because copying them would cost more.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use smallvec::SmallVec;

/// Maximum number of bytes that are copied.
const SMALL: usize = 2048;

/// Writes `bufs` as one piece if they are small, else with a vectored write.
pub fn write_as_one<W: Write>(
    stream: Pin<&mut W>,
    cx: &mut Context<'_>,
    bufs: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if let [only] = bufs {
        return stream.poll_write(cx, only);
    }
    let total: usize = bufs.iter().map(|buf| buf.len()).sum();
    if total > SMALL {
        return stream.poll_write_vectored(cx, bufs);
    }
    let mut whole: SmallVec<[u8; SMALL]> = SmallVec::new();
    for buf in bufs {
        whole.extend_from_slice(buf);
    }
    stream.poll_write(cx, &whole)
}

/// Stream whose small writes are combined.
pub struct Coalesced<T>(pub T);

impl<T: Read + Unpin> Read for Coalesced<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<T: Write + Unpin> Write for Coalesced<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        write_as_one(Pin::new(&mut self.0), cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Record of the writes and of their bytes.
    #[derive(Default)]
    struct Recorder {
        plain: usize,
        gathered: usize,
        bytes: Vec<u8>,
    }

    impl Write for Recorder {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.plain += 1;
            self.bytes.extend_from_slice(buf);
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.gathered += 1;
            bufs.iter().for_each(|buf| self.bytes.extend_from_slice(buf));
            Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn small_pieces_are_written_as_one_and_nothing_is_lost() {
        let check = |sizes: &[usize], plain, gathered| {
            let pieces: Vec<Vec<u8>> = (1..).zip(sizes).map(|(byte, size)| vec![byte; *size]).collect();
            let bufs: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
            let mut recorder = Recorder::default();
            let written = write_as_one(Pin::new(&mut recorder), &mut Context::from_waker(Waker::noop()), &bufs);
            assert!(
                matches!(written, Poll::Ready(Ok(count)) if count == sizes.iter().sum::<usize>()),
                "{sizes:?}"
            );
            assert_eq!((recorder.plain, recorder.gathered), (plain, gathered), "{sizes:?}");
            assert_eq!(recorder.bytes, pieces.concat(), "{sizes:?}");
        };
        check(&[500], 1, 0);
        check(&[100_000], 1, 0);
        check(&[300, 1024], 1, 0);
        check(&[1024, SMALL - 1024], 1, 0);
        check(&[1024, SMALL - 1023], 0, 1);
        check(&[300, 0, 100_000], 0, 1);
    }
}

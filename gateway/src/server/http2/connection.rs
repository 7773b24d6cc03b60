//! Runs the library and all exchanges of one connection in one task.
//!
//! The exchanges are polled between two polls of the library, so one poll of the task reads requests, serves them, and
//! writes their answers with one system call. An exchange that panics ends alone, and exchanges that are always ready
//! hold up neither the library nor other connections.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use h2::RecvStream;
use h2::server::{Connection as Library, Handshake, SendResponse};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};

use super::uploads::NewUploads;
use super::wakes::Part;
use crate::wire::gathered_io::{GatheredIo, GatheredWrites};
use crate::wire::slow_caller::Transfer;

/// Number of turns in one poll. More is done in the next poll, after other tasks.
const TURNS: usize = 4;
/// Number of requests that are taken in one turn.
const REQUESTS: usize = 8;

/// One exchange of a connection. Its future is boxed, so that it holds its memory only until it ends.
pub(super) struct Exchange<F> {
    exchange: F,
    flow: Arc<Transfer>,
}

pub(super) struct Connection<S, F> {
    stage: Stage<GatheredIo<S>>,
    writes: GatheredWrites<S>,
    exchanges: FuturesUnordered<Exchange<F>>,
    new_uploads: NewUploads,
    of_library: Part,
    of_exchanges: Part,
    is_leaving: bool,
}

enum Stage<S> {
    Handshake(Handshake<S, Bytes>),
    Open(Library<S, Bytes>),
}

impl<F> Exchange<F> {
    pub(super) const fn new(exchange: F, flow: Arc<Transfer>) -> Self {
        Self { exchange, flow }
    }
}

impl<F: Future<Output = ()> + Unpin> Future for Exchange<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.flow.set_carrier(cx.waker());
        if this.flow.is_cut() {
            return Poll::Ready(());
        }
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut this.exchange).poll(cx)));
        // The panic is reported already. The library resets a stream whose exchange ends without an answer.
        polled.unwrap_or(Poll::Ready(()))
    }
}

impl<S, F> Connection<S, F>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = ()> + Unpin,
{
    pub(super) fn new(
        handshake: Handshake<GatheredIo<S>, Bytes>,
        writes: GatheredWrites<S>,
        new_uploads: NewUploads,
    ) -> Self {
        Self {
            stage: Stage::Handshake(handshake),
            writes,
            exchanges: FuturesUnordered::new(),
            new_uploads,
            of_library: Part::new(),
            of_exchanges: Part::new(),
            is_leaving: false,
        }
    }

    /// Runs the connection. Calls `begin` for each request, and takes no more of them once `leaving` is ready. Is ready
    /// when the connection has ended; exchanges that are left are of no use then.
    ///
    /// # Errors
    /// Returns the library's error.
    pub(super) fn poll(
        &mut self,
        mut begin: impl FnMut(Request<RecvStream>, SendResponse<Bytes>) -> Exchange<F>,
        mut leaving: Pin<&mut impl Future<Output = ()>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), h2::Error>> {
        self.of_library.begin(cx.waker());
        self.of_exchanges.begin(cx.waker());
        let (mut ended, mut is_library_polled) = (Poll::Pending, false);
        for _ in 0..TURNS {
            let are_exchanges_woken = self.of_exchanges.take();
            if are_exchanges_woken {
                let mut cx = self.of_exchanges.context();
                while let Poll::Ready(Some(())) = self.exchanges.poll_next_unpin(&mut cx) {}
            }
            if self.of_library.take() {
                is_library_polled = true;
                ended = self.poll_library(&mut begin, leaving.as_mut());
                if ended.is_ready() {
                    break;
                }
            } else if !are_exchanges_woken {
                break;
            }
        }
        self.of_exchanges.end();
        self.of_library.end();
        if is_library_polled {
            self.writes.write(&mut self.of_library.context());
        }
        ended
    }

    fn poll_library(
        &mut self,
        begin: &mut impl FnMut(Request<RecvStream>, SendResponse<Bytes>) -> Exchange<F>,
        leaving: Pin<&mut impl Future<Output = ()>>,
    ) -> Poll<Result<(), h2::Error>> {
        let mut cx = self.of_library.context();
        let leaves = !self.is_leaving && leaving.poll(&mut cx).is_ready();
        self.is_leaving |= leaves;
        let library = match &mut self.stage {
            Stage::Open(library) => {
                if leaves {
                    library.graceful_shutdown();
                }
                library
            }
            Stage::Handshake(handshake) => {
                let mut library = std::task::ready!(Pin::new(handshake).poll(&mut cx))?;
                if self.is_leaving {
                    library.graceful_shutdown();
                }
                self.stage = Stage::Open(library);
                let Stage::Open(library) = &mut self.stage else {
                    return Poll::Pending;
                };
                library
            }
        };
        for _ in 0..REQUESTS {
            match library.poll_accept(&mut cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    self.exchanges.push(begin(request, respond));
                    self.of_exchanges.note();
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending if self.new_uploads.resume_reading() => {}
                Poll::Pending => return Poll::Pending,
            }
        }
        self.of_library.note();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;
    use std::time::Duration;

    use policies::Moment;

    use super::*;
    use crate::wire::slow_caller::{Overdue, WaitLimits};

    #[test]
    fn an_exchange_that_panics_or_is_cut_ends_alone() {
        let flows: [Arc<Transfer>; 3] = Default::default();
        let mut exchanges = FuturesUnordered::new();
        for (number, flow) in flows.iter().enumerate() {
            let exchange = async move {
                assert!(number != 0, "the first one panics");
                std::future::pending::<()>().await;
            };
            exchanges.push(Exchange::new(Box::pin(exchange), Arc::clone(flow)));
        }
        let mut poll = || {
            let mut cx = Context::from_waker(Waker::noop());
            while exchanges.poll_next_unpin(&mut cx).is_ready() {}
            exchanges.len()
        };
        assert_eq!(poll(), 2);
        assert_eq!(poll(), 2);
        let limits = WaitLimits {
            write: Duration::from_secs(1),
            rates: None,
        };
        flows[1].expires(Some(Moment::from_nanos(1)));
        for (flow, given_up) in flows[1..].iter().zip([Some(Overdue::Answer), None]) {
            assert_eq!(flow.look(&limits, Moment::MAX), given_up);
        }
        assert_eq!(poll(), 1);
    }
}

//! Serves a caller's HTTP/1.1 connection: one request after another, and perhaps a tunnel at the end.
//!
//! One task does everything, in the order of a request's life:
//!
//! | state | what happens | next state |
//! |---|---|---|
//! | idle | the first byte of a head comes | head |
//! | head | the head is complete | serving |
//! | head | bytes that are no head | closing, after the refusal |
//! | serving | the pipeline answers; meanwhile it is handed what it wants of the body | answering |
//! | answering | the answer is written; meanwhile the body goes on | rest of the body |
//! | rest of the body | all of it was read, or so little is left that it can be discarded | idle, or head if more has come |
//! | rest of the body, or any of the above on the last request | the answer said `Connection: close` | closing |
//! | answering | the answer switches protocols | tunnel |
//! | closing | the caller closes too, or has sent enough that is not read | |
//!
//! Whenever the task waits, it has tried to write all that is to be written. A caller that does not read its answers is
//! not read either.

mod answer_head;
mod caller_stream;
mod closing;
mod exchange;

use std::future::poll_fn;
use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};

use self::caller_stream::{CallerStream, Next, poll_first};
use self::closing::{LEFT_OF_BODY, LEFT_OF_HEAD, Left, close};
use self::exchange::{Ended, exchange};
use super::connection_guard::ConnectionGuard;
use super::in_flight::InFlight;
use super::last_words::LastWords;
use super::tunnelled;
use crate::clock;
use crate::pipeline::Peer;
use crate::response::Switched;
use crate::wire::switched_stream::SwitchedStream;

/// How a conversation ends.
enum End {
    /// The connection is idle for a while.
    Rest,
    /// All is written, and nothing more is served.
    Close(Left),
    /// The connection is broken, or an answer can only be cut.
    Broken,
    /// The connection becomes a tunnel, to which the bytes belong that have come already.
    Switch(Box<Switched>, InFlight, BytesMut),
}

/// Serves requests until either side closes the connection.
///
/// An idle connection keeps only its socket, because buffers and the state of a request take ten times as much memory.
pub(super) async fn serve<S>(socket: &mut S, peer: &Peer, guard: &ConnectionGuard)
where
    S: AsyncRead + AsyncWrite + LastWords + Unpin,
{
    let left = loop {
        let first = match poll_fn(|cx| poll_first(socket, cx)).await {
            Ok(first) if !first.is_empty() => first,
            Ok(_) => break Left::default(),
            Err(_) => return,
        };
        match clock::held_in_each_poll(Box::pin(converse(socket, first, peer, guard))).await {
            End::Rest => {}
            End::Close(left) => break left,
            End::Broken => return,
            // A tunnel is rare and its future is large; boxed, it does not enlarge that of an ordinary connection.
            End::Switch(tunnel, in_flight, received) => {
                let mut caller = SwitchedStream::new(socket, received);
                return Box::pin(tunnelled::carry(&mut caller, *tunnel, in_flight)).await;
            }
        }
    };
    // A caller that is gone needs no good order.
    let _ = close(socket, guard.activity(), left).await;
}

/// Serves requests while they come. `first` are the first bytes.
async fn converse<S>(socket: &mut S, first: BytesMut, peer: &Peer, guard: &ConnectionGuard) -> End
where
    S: AsyncRead + AsyncWrite + LastWords + Unpin,
{
    let mut caller = CallerStream::new(socket, first, peer, guard);
    serve_all(&mut caller, peer, guard).await.unwrap_or(End::Broken)
}

async fn serve_all<S>(caller: &mut CallerStream<'_, S>, peer: &Peer, guard: &ConnectionGuard) -> io::Result<End>
where
    S: AsyncRead + AsyncWrite + LastWords + Unpin,
{
    let bytes = loop {
        let head = match poll_fn(|cx| caller.poll_head(cx)).await? {
            Next::Head(head) => head,
            Next::Rest => return Ok(End::Rest),
            Next::Closed => break 0,
            Next::Refused(refusal) => {
                caller.refuse(refusal);
                break LEFT_OF_HEAD;
            }
        };
        match exchange(caller, head, peer, guard).await? {
            Ended::Whole { is_last: false } => {}
            Ended::Whole { is_last: true } => break LEFT_OF_HEAD,
            Ended::Unread => break LEFT_OF_BODY,
            Ended::Switched(tunnel, in_flight) => {
                return Ok(End::Switch(tunnel, in_flight, caller.take_received()));
            }
        }
    };
    poll_fn(|cx| caller.poll_output(cx)).await?;
    Ok(End::Close(Left {
        bytes,
        still_sends: caller.has_more() || bytes > LEFT_OF_HEAD,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::guarded_io::GuardedIo;

    /// Thousands of connections may be idle.
    #[test]
    fn the_future_of_an_idle_connection_stays_small() {
        fn size<'a, F>(_: impl FnOnce(&'a mut GuardedIo, &'a Peer, &'a ConnectionGuard) -> F) -> usize {
            size_of::<F>()
        }
        let bytes = size(serve::<GuardedIo>);
        assert!(bytes <= 250, "{bytes} bytes");
    }
}

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
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

use self::caller_stream::{CallerStream, Next};
use self::closing::{LEFT_OF_BODY, LEFT_OF_HEAD};
use self::exchange::{Ended, exchange};
use super::connection_guard::ConnectionGuard;
use super::in_flight::InFlight;
use super::last_words::LastWords;
use super::tunnelled;
use crate::pipeline::Peer;
use crate::response::Switched;

/// How a conversation ends.
enum End {
    /// The connection is idle for a while.
    Rest,
    /// The last answer was written. Holds the number of bytes that the caller may still send.
    Close(usize),
    /// The connection is broken, or an answer can only be cut.
    Broken,
    Switch(Box<Switched>, InFlight),
}

/// Serves requests until either side closes the connection.
///
/// An idle connection keeps only its stream, because buffers and the state of a request take ten times as much memory.
pub(super) async fn serve<S>(stream: S, peer: Peer, guard: ConnectionGuard)
where
    S: AsyncRead + AsyncWrite + LastWords + Unpin,
{
    let mut caller = CallerStream::new(stream, peer.address, &guard);
    while let Ok(1..) = poll_fn(|cx| caller.poll_fill(cx)).await {
        match Box::pin(converse(&mut caller, &peer, &guard)).await {
            End::Rest => caller.release(),
            End::Close(left) => return caller.close(left).await,
            End::Broken => return,
            // A tunnel is rare and its future is large; boxed, it does not enlarge the future of an ordinary connection.
            End::Switch(tunnel, in_flight) => {
                return Box::pin(tunnelled::carry(&mut caller, *tunnel, in_flight)).await;
            }
        }
    }
    // The connection may already be closed.
    let _ = poll_fn(|cx| Pin::new(&mut caller).poll_shutdown(cx)).await;
}

/// Serves requests while they come.
async fn converse<S>(caller: &mut CallerStream<S>, peer: &Peer, guard: &ConnectionGuard) -> End
where
    S: AsyncRead + AsyncWrite + LastWords + Unpin,
{
    loop {
        let head = match poll_fn(|cx| caller.poll_head(cx)).await {
            Ok(Next::Head(head)) => head,
            Ok(Next::Rest) => return End::Rest,
            Ok(Next::Closed) => return End::Close(0),
            Ok(Next::Refused(refusal)) => {
                caller.refuse(refusal);
                return End::Close(LEFT_OF_HEAD);
            }
            Err(_) => return End::Broken,
        };
        match exchange(caller, head, peer, guard).await {
            Ended::Whole { is_last: false } => {}
            Ended::Whole { is_last: true } => return End::Close(LEFT_OF_HEAD),
            Ended::Unread => return End::Close(LEFT_OF_BODY),
            Ended::Refused => return End::Close(LEFT_OF_HEAD),
            Ended::Broken => return End::Broken,
            Ended::Switched(tunnel, in_flight) => return End::Switch(tunnel, in_flight),
        }
    }
}

//! A connection that is no longer HTTP: bytes go both ways between a caller and a backend, until either has enough.
//!
//! What the call held (its slot, its connection) is held for as long as the tunnel lives. There is a limit on the whole,
//! and one on silence, which only whole frames of the caller end that are no pings, and bytes of the backend. Who ends it
//! without being asked to (we drain, or a limit is reached) says so in the protocol: a close frame "going away" to both
//! ends, at a place where a frame may stand.
//!
//! Invariant: bytes are passed on as they came; nothing of ours stands within a frame of theirs.

mod copy_buffer;
mod frames;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use policies::Moment;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use self::copy_buffer::CopyBuffer;
use self::frames::going_away;
use crate::call::reply::ReplyBody;
use crate::clock;

/// For the ends to take their leave once the tunnel is over.
const LEAVE: Duration = Duration::from_secs(1);

/// Two connections that are about to become one.
pub struct Tunnel {
    pub caller: OnUpgrade,
    pub backend: OnUpgrade,
    /// Holds the slot and the connection.
    pub held: ReplyBody,
    /// The longest silence.
    pub idle: Duration,
    /// The longest life.
    pub limit: Option<Duration>,
}

/// Where bytes that have gone by are counted, whatever ends the tunnel.
pub struct ByteCounts<'a> {
    pub from_caller: &'a mut u64,
    pub to_caller: &'a mut u64,
}

/// Why a tunnel ended.
#[derive(Debug)]
pub enum End {
    /// One of the two closed it.
    Closed,
    /// We are about to go.
    Leaving,
    /// Nobody has spoken for too long.
    Idle,
    /// It has lived as long as it may.
    Over,
    /// A connection broke.
    Broken(io::Error),
}

impl Tunnel {
    /// Carries bytes until the end; `leaving` is ready when we are about to go.
    pub async fn carry(self, mut carried: ByteCounts<'_>, leaving: impl Future<Output = ()>) -> End {
        let Self {
            caller,
            backend,
            held,
            idle,
            limit,
        } = self;
        let limits = Limits {
            idle,
            over: limit.map_or(Moment::MAX, |limit| clock::now() + limit),
        };
        let _held = held;
        match (caller.await, backend.await) {
            (Ok(caller), Ok(backend)) => {
                let (mut caller, mut backend): (TokioIo<Upgraded>, TokioIo<Upgraded>) =
                    (TokioIo::new(caller), TokioIo::new(backend));
                join(&mut caller, &mut backend, limits, &mut carried, leaving).await
            }
            (Err(error), _) | (_, Err(error)) => End::Broken(io::Error::other(error)),
        }
    }
}

/// How long a tunnel may go on.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Without a sign of life.
    idle: Duration,
    /// In all.
    over: Moment,
}

async fn join<C, B>(
    caller: &mut C,
    backend: &mut B,
    limits: Limits,
    carried: &mut ByteCounts<'_>,
    leaving: impl Future<Output = ()>,
) -> End
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut inward, mut outward) = (CopyBuffer::new(), CopyBuffer::new());
    let mut leaving = pin!(leaving);
    let mut wait = Wait::begin(limits);
    let end = poll_fn(|cx| {
        let (there, back) = (
            inward.poll(cx, caller, backend, carried.from_caller),
            outward.poll(cx, backend, caller, carried.to_caller),
        );
        match (there, back) {
            (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => return Poll::Ready(End::Broken(error)),
            (Poll::Ready(Ok(_)), _) | (_, Poll::Ready(Ok(_))) => return Poll::Ready(End::Closed),
            (Poll::Pending, Poll::Pending) => {}
        }
        // A lane that has no room to write does not read, and would not see its caller leave.
        if let Poll::Ready(Err(error)) = Pin::new(&mut *caller).poll_flush(cx) {
            return Poll::Ready(End::Broken(error));
        }
        if leaving.as_mut().poll(cx).is_ready() {
            return Poll::Ready(End::Leaving);
        }
        wait.poll(inward.signs_of_life().wrapping_add(outward.said()), cx)
    })
    .await;
    let parting = async {
        match &end {
            End::Closed => pass_on_the_end(caller, backend, &mut inward, &mut outward, carried).await,
            End::Leaving | End::Idle | End::Over => {
                take_leave(caller, backend, &mut inward, &mut outward, carried).await
            }
            End::Broken(_) => Ok(()),
        }
    };
    // Who does not take part in it is left behind.
    let _ = tokio::time::timeout(LEAVE, parting).await;
    end
}

/// One end has closed its direction; the other may still have an answer to that.
async fn pass_on_the_end<C, B>(
    caller: &mut C,
    backend: &mut B,
    inward: &mut CopyBuffer,
    outward: &mut CopyBuffer,
    carried: &mut ByteCounts<'_>,
) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let from_caller = poll_fn(|cx| Poll::Ready(inward.poll(cx, caller, backend, carried.from_caller))).await;
    if from_caller.is_ready() {
        backend.shutdown().await?;
        poll_fn(|cx| outward.poll(cx, backend, caller, carried.to_caller)).await?;
        caller.shutdown().await
    } else {
        caller.shutdown().await?;
        poll_fn(|cx| inward.poll(cx, caller, backend, carried.from_caller)).await?;
        backend.shutdown().await
    }
}

/// Lets both directions finish their frames, says that we go, and waits for the ends to agree.
async fn take_leave<C, B>(
    caller: &mut C,
    backend: &mut B,
    inward: &mut CopyBuffer,
    outward: &mut CopyBuffer,
    carried: &mut ByteCounts<'_>,
) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    inward.stop();
    outward.stop();
    // A lane that breaks is at rest as well; writing to its end tells.
    let (mut there, mut back) = (Poll::Pending, Poll::Pending);
    poll_fn(|cx| {
        if there.is_pending() {
            there = inward.poll(cx, caller, backend, carried.from_caller).map(Result::ok);
        }
        if back.is_pending() {
            back = outward.poll(cx, backend, caller, carried.to_caller).map(Result::ok);
        }
        match (there, back) {
            (Poll::Ready(_), Poll::Ready(_)) => Poll::Ready(()),
            _ => Poll::Pending,
        }
    })
    .await;
    if !outward.said_close() {
        caller.write_all(&going_away(None)).await?;
        caller.flush().await?;
    }
    if !inward.said_close() {
        let mask = fastrand::u32(..).to_ne_bytes();
        backend.write_all(&going_away(Some(mask))).await?;
        backend.flush().await?;
    }
    let (caller_agrees, backend_agrees) = (drain(caller, inward), drain(backend, outward));
    futures_util::future::join(caller_agrees, backend_agrees).await;
    let (one, other) = futures_util::future::join(caller.shutdown(), backend.shutdown()).await;
    one.and(other)
}

/// Reads until the other side has closed too, in its protocol or at its socket.
async fn drain<S: AsyncRead + Unpin>(stream: &mut S, from_here: &CopyBuffer) {
    let mut frames = frames::Frames::default();
    let mut buffer = [0; 512];
    while !from_here.said_close() && !frames.said_close() {
        match stream.read(&mut buffer).await {
            Ok(count @ 1..) => frames.pass(&buffer[..count]),
            Ok(0) | Err(_) => return,
        }
    }
}

/// Ends a tunnel in which nobody speaks, or that has lived long enough. Its timer is moved when it rings, not with every
/// byte.
struct Wait {
    limits: Limits,
    timer: Pin<Box<tokio::time::Sleep>>,
    until: Moment,
    /// Signs of life that have been seen.
    seen: u64,
}

impl Wait {
    fn begin(limits: Limits) -> Self {
        let until = (clock::now() + limits.idle).min(limits.over);
        Self {
            limits,
            timer: Box::pin(tokio::time::sleep_until(clock::instant(until))),
            until,
            seen: 0,
        }
    }

    fn poll(&mut self, signs: u64, cx: &mut std::task::Context<'_>) -> Poll<End> {
        if self.seen != signs {
            self.seen = signs;
            self.until = (clock::now() + self.limits.idle).min(self.limits.over);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            if clock::now() >= self.until {
                return Poll::Ready(match self.until == self.limits.over {
                    true => End::Over,
                    false => End::Idle,
                });
            }
            self.timer.as_mut().reset(clock::instant(self.until));
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests;

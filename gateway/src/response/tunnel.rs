//! Carries bytes both ways between a caller and a backend after a switch of protocols, until either side closes.
//!
//! The tunnel holds the slot and the connection of its call while it lives. Its whole duration and its idle time are
//! limited. An idle period ends with a whole frame from the caller that is neither ping nor pong, with 16 KiB of such
//! frames, or with any byte from the backend except pongs. When the gateway ends the tunnel (for a drain or a limit),
//! it sends a close frame "going away" to both sides, between two of their frames.
//!
//! Invariant: bytes are passed on unchanged, and the gateway never writes inside a frame of either side.

mod copy_buffer;
mod frames;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use policies::Moment;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use self::copy_buffer::CopyBuffer;
use self::frames::going_away;
use crate::call::SwitchedBackend;
use crate::call::reply::ReplyBody;
use crate::clock;

/// Time for both sides to close after the tunnel has ended.
const LEAVE: Duration = Duration::from_secs(1);

/// Two connections that become one tunnel.
pub struct Tunnel {
    pub backend: SwitchedBackend,
    /// Answer that holds the slot and the connection.
    pub held: Box<ReplyBody>,
    /// Maximum idle time.
    pub idle: Duration,
    /// Maximum duration.
    pub limit: Option<Duration>,
}

/// Counters of the bytes carried. They are correct however the tunnel ends.
pub struct ByteCounts<'a> {
    pub from_caller: &'a mut u64,
    pub to_caller: &'a mut u64,
}

/// Reason why a tunnel ended.
#[derive(Debug)]
pub enum End {
    /// The caller or the backend closed it.
    Closed,
    /// The process shuts down.
    Leaving,
    /// The idle time is over.
    Idle,
    /// The maximum duration is over.
    Over,
    /// A connection failed.
    Broken(io::Error),
}

impl Tunnel {
    /// Carries bytes until the end. `caller` is the connection that switches, `leaving` is ready when the process shuts
    /// down.
    pub async fn carry<C: AsyncRead + AsyncWrite + Unpin>(
        self,
        caller: &mut C,
        mut carried: ByteCounts<'_>,
        leaving: impl Future<Output = ()>,
    ) -> End {
        let Self {
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
        match backend {
            SwitchedBackend::Own(mut backend) => join(caller, &mut *backend, limits, &mut carried, leaving).await,
            SwitchedBackend::Shared(mut backend) => join(caller, &mut *backend, limits, &mut carried, leaving).await,
        }
    }
}

/// Time limits of a tunnel.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Maximum time without a sign of life.
    idle: Duration,
    /// End of the maximum duration.
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
        // A direction that cannot write does not read either, and would not notice that the caller has left.
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
            End::Broken(_) => pass_on_what_came(caller, backend, &mut outward, carried).await,
        }
    };
    // A side that does not close in time is dropped.
    let _ = tokio::time::timeout(LEAVE, parting).await;
    end
}

/// Passes on what the backend said before its connection failed, such as why it closed. Ends at once if the caller is
/// gone.
async fn pass_on_what_came<C, B>(
    caller: &mut C,
    backend: &mut B,
    outward: &mut CopyBuffer,
    carried: &mut ByteCounts<'_>,
) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    poll_fn(|cx| {
        let polled = outward.poll(cx, backend, caller, carried.to_caller);
        match (polled, Pin::new(&mut *caller).poll_flush(cx)) {
            (Poll::Pending, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
            (polled, _) => polled,
        }
    })
    .await?;
    caller.flush().await
}

/// Passes on the close of one direction. The other direction may still carry a reply.
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

/// Finishes the current frame of each direction, sends close frames, and waits for both sides to close.
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
    // A direction that fails is finished too; a write to its end reports the error.
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

/// Reads until the other side has closed as well, with a close frame or at its socket.
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

/// Timer that ends an idle tunnel or one at its maximum duration. It is reset when it fires, not at every byte.
struct Wait {
    limits: Limits,
    timer: Pin<Box<tokio::time::Sleep>>,
    until: Moment,
    /// Number of signs of life seen so far.
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

//! Sends a PING on a connection in use that is silent, and finds out whether the peer answers it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Sleep, sleep};

use super::link::Peer;
use crate::clock;

/// Maximum time in which a peer must acknowledge a PING. A shorter interval also shortens this time.
const PONG: Duration = Duration::from_secs(10);

pub(super) struct KeepAlive {
    pings: PingPong,
    /// Time of silence after which a PING is sent.
    interval: Duration,
    timer: Pin<Box<Sleep>>,
    /// Whether a PING is not acknowledged yet.
    awaits_pong: bool,
}

impl KeepAlive {
    pub(super) fn new(pings: PingPong, interval: Duration) -> Self {
        Self {
            pings,
            interval,
            timer: Box::pin(sleep(interval)),
            awaits_pong: false,
        }
    }

    /// Is ready when the peer has not acknowledged a PING in time.
    pub(super) fn poll(&mut self, peer: &Peer, cx: &mut Context<'_>) -> Poll<()> {
        if self.awaits_pong && self.pings.poll_pong(cx).is_ready() {
            self.awaits_pong = false;
            self.wait(self.interval);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            if self.awaits_pong {
                return Poll::Ready(());
            }
            let was_heard = peer.take_heard();
            if !was_heard && peer.is_in_use() && self.pings.send_ping(Ping::opaque()).is_ok() {
                self.awaits_pong = true;
                self.wait(self.interval.min(PONG));
                // Registers the waker for the answer.
                let _ = self.pings.poll_pong(cx);
            } else {
                self.wait(self.interval);
            }
        }
        Poll::Pending
    }

    fn wait(&mut self, time: Duration) {
        self.timer.as_mut().reset(clock::instant(clock::now() + time));
    }
}

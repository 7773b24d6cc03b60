//! One timer for a whole call. Each wait resets it to the nearest deadline, instead of adding a timer for each layer.
//!
//! Pitfall 3 of the resilience article is three timers of which only one takes effect. Here one timer is reset instead.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use policies::Moment;
use tokio::time::Sleep;

use crate::clock;

/// The time for some work ran out before the work was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Elapsed;

/// Timer that is created at its first use and reset afterwards.
#[derive(Default)]
pub(crate) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    set_to: Moment,
}

impl Timer {
    /// Runs `work` until `until` at the latest. Work that is not done by then is no longer polled.
    ///
    /// # Errors
    /// Returns [`Elapsed`] if the time ran out first.
    pub(crate) async fn run<F: Future>(&mut self, until: Moment, mut work: Pin<&mut F>) -> Result<F::Output, Elapsed> {
        std::future::poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(done));
            }
            self.poll_elapsed(until, cx).map(|()| Err(Elapsed))
        })
        .await
    }

    /// Ready once `until` has come.
    pub(crate) fn poll_elapsed(&mut self, until: Moment, cx: &mut Context<'_>) -> Poll<()> {
        let moved = self.set_to != until;
        self.set_to = until;
        match &mut self.sleep {
            Some(sleep) => {
                if moved {
                    sleep.as_mut().reset(clock::instant(until));
                }
                sleep.as_mut().poll(cx)
            }
            None => self
                .sleep
                .insert(Box::pin(tokio::time::sleep_until(clock::instant(until))))
                .as_mut()
                .poll(cx),
        }
    }

    /// Waits until `until`.
    pub(crate) async fn wait(&mut self, until: Moment) {
        std::future::poll_fn(|cx| self.poll_elapsed(until, cx)).await;
    }
}

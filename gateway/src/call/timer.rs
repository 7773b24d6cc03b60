//! One timer for the whole of a call: each wait sets it to what is nearest, instead of stacking a timer a layer.
//!
//! The article's pitfall 3 is three timers of which one counts; here there is one, and it is moved.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use policies::Moment;
use tokio::time::Sleep;

use crate::clock;

/// The time given to something ran out before it was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Elapsed;

/// A timer that is made at its first use and moved afterwards.
#[derive(Default)]
pub(crate) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    set_to: Moment,
}

impl Timer {
    /// Runs `work` until `until` at the latest; what is not finished by then is dropped.
    ///
    /// # Errors
    /// [`Elapsed`] if the time came first.
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

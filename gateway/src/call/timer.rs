//! One timer for a whole call. Each wait resets it to the nearest deadline, instead of adding a timer for each layer.
//!
//! Pitfall 3 of the resilience article is three timers of which only one takes effect. Here one timer is reset instead.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

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
    ///
    /// A timer that is set to an earlier time stays there and is reset when that time comes: nearly every wait ends
    /// before.
    pub(crate) fn poll_elapsed(&mut self, until: Moment, cx: &mut Context<'_>) -> Poll<()> {
        let Some(sleep) = &mut self.sleep else {
            self.set_to = until;
            let sleep = Box::pin(tokio::time::sleep_until(clock::instant(until)));
            return self.sleep.insert(sleep).as_mut().poll(cx);
        };
        if self.set_to < until {
            ready!(sleep.as_mut().poll(cx));
        }
        if self.set_to != until {
            self.set_to = until;
            sleep.as_mut().reset(clock::instant(until));
        }
        sleep.as_mut().poll(cx)
    }

    /// Waits until `until`.
    pub(crate) async fn wait(&mut self, until: Moment) {
        std::future::poll_fn(|cx| self.poll_elapsed(until, cx)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::pin::pin;
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;

    /// Waits that follow each other on one timer end when they should, whether it was set earlier or later before.
    #[tokio::test(start_paused = true)]
    async fn each_wait_ends_at_its_own_time() {
        let started = clock::now();
        let at = |seconds| started + Duration::from_secs(seconds);
        let mut timer = Timer::default();
        // Sets the timer to 10 s, and leaves it there.
        assert!(timer.wait(at(10)).now_or_never().is_none());
        for end in [20, 25, 21, 40, 30] {
            let end = at(end).max(clock::now());
            assert_eq!(timer.run(end, pin!(pending::<()>())).await, Err(Elapsed));
            let now = clock::now();
            // Timers have a resolution of a millisecond.
            assert!(
                end <= now && now.since(end) <= Duration::from_millis(1),
                "{now:?} for {end:?}"
            );
        }
        assert_eq!(timer.run(at(50), pin!(async { 7 })).await, Ok(7));
    }
}

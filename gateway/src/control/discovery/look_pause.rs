//! Computes the pauses between two looks at a source of endpoints.

use std::time::Duration;

use policies::{Backoff, Jitter, Moment};
use tokio::sync::Notify;

use crate::clock;

/// Shortest time from the start of a look to the next.
const SHORTEST: Duration = Duration::from_secs(1);
/// Longest time from the start of a look to the next.
const LONGEST: Duration = Duration::from_secs(60);
/// Share by which a time to live is shortened at most, so that replicas do not look at the same time.
const SPREAD: f64 = 0.1;
/// Pauses after failures.
const AFTER_FAILURES: Backoff = Backoff {
    initial: Duration::from_secs(1),
    max: Duration::from_secs(30),
    factor: 2.0,
    jitter: Jitter::Equal,
};

/// Returns the pause after an answer that holds for `ttl`. `random` is in `0.0..1.0`.
pub(super) fn after_answer(ttl: Duration, random: f64) -> Duration {
    let pause = ttl.clamp(SHORTEST, LONGEST).mul_f64(1.0 - SPREAD * random);
    pause.max(SHORTEST)
}

/// Returns the pause after a number of failures without a success in between, from 1. `random` is in `0.0..1.0`.
pub(super) fn after_failures(failures: u32, random: f64) -> Duration {
    AFTER_FAILURES.delay(failures, random)
}

/// Waits until `pause` has passed since `began`, or until `wake` is notified, but at least [`SHORTEST`] since `began`.
pub(super) async fn wait(began: Moment, pause: Duration, wake: &Notify) {
    let woken = async {
        wake.notified().await;
        clock::wait_until(began + SHORTEST).await;
    };
    tokio::select! {
        () = clock::wait_until(began + pause.max(SHORTEST)) => {}
        () = woken => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_live_is_kept_to_its_bounds_and_shortened() {
        let check = |ttl_ms, random, expected_ms| {
            let pause = after_answer(Duration::from_millis(ttl_ms), random);
            assert_eq!(pause, Duration::from_millis(expected_ms), "{ttl_ms} {random}");
        };
        check(0, 0.0, 1_000);
        check(1_000, 0.9, 1_000);
        check(10_000, 0.0, 10_000);
        check(10_000, 0.5, 9_500);
        check(60_000, 0.0, 60_000);
        check(86_400_000, 0.0, 60_000);
        check(86_400_000, 0.5, 57_000);
    }

    #[test]
    fn pauses_grow_with_failures() {
        let check = |failures, random, expected_ms| {
            let pause = after_failures(failures, random);
            assert_eq!(pause, Duration::from_millis(expected_ms), "{failures} {random}");
        };
        check(1, 0.0, 500);
        check(2, 0.5, 1_500);
        check(3, 0.5, 3_000);
        check(40, 0.0, 15_000);
        check(40, 0.5, 22_500);
    }

    /// Time until the wait ends, if it is woken after `woken`.
    async fn waited(pause: Duration, woken: Option<Duration>) -> Duration {
        let (wake, began) = (Notify::new(), clock::now());
        let waking = async {
            if let Some(after) = woken {
                tokio::time::sleep(after).await;
                wake.notify_one();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = wait(began, pause, &wake) => {}
            () = waking => {}
        }
        clock::now().since(began)
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_is_ended_early_but_not_within_a_second() {
        let seconds = Duration::from_secs;
        let check = async |pause, woken, expected: Duration| {
            let waited = waited(pause, woken).await;
            let late = waited.checked_sub(expected);
            assert!(late.is_some_and(|late| late < Duration::from_millis(5)), "{waited:?}");
        };
        check(seconds(20), None, seconds(20)).await;
        check(seconds(20), Some(seconds(7)), seconds(7)).await;
        check(seconds(20), Some(Duration::from_millis(3)), seconds(1)).await;
        check(Duration::ZERO, None, seconds(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_notification_from_before_the_wait_counts() {
        let (wake, began) = (Notify::new(), clock::now());
        wake.notify_one();
        wait(began, Duration::from_secs(20), &wake).await;
        assert!(clock::now().since(began) < Duration::from_secs(2));
    }
}

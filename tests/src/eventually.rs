//! Waits for a condition or a future, up to a limit.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

/// Pause between two checks of a condition.
const LOOK: Duration = Duration::from_millis(5);

/// Returns the value of the condition as soon as it has one.
///
/// # Panics
/// The condition has no value within the limit. The reason says what the test waited for.
pub async fn eventually<T, F>(limit: Duration, reason: &str, mut condition: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let begun = Instant::now();
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(begun.elapsed() < limit, "not within {limit:?}: {reason}");
        sleep(LOOK).await;
    }
}

/// Returns the result of the future.
///
/// # Panics
/// The future does not finish within the limit. The reason says what the test waited for.
pub async fn within<T>(limit: Duration, reason: &str, future: impl Future<Output = T>) -> T {
    match timeout(limit, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {limit:?}: {reason}"),
    }
}

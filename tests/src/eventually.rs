//! Waiting for what others do, without guessing how long they take.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

/// Between two looks at a condition that nothing announces.
const LOOK: Duration = Duration::from_millis(5);

/// Returns what the condition yields as soon as it yields something.
///
/// # Panics
/// It did not within the limit; the reason says what was waited for.
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

/// What a future comes to, if it does in time.
///
/// # Panics
/// It does not; the reason says what was waited for.
pub async fn within<T>(limit: Duration, reason: &str, future: impl Future<Output = T>) -> T {
    match timeout(limit, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {limit:?}: {reason}"),
    }
}

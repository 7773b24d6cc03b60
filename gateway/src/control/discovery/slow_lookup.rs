//! Waits for work that cannot be ended, such as a lookup by the system's resolver: it says when the work takes too long,
//! and waits on, so that there is never more than one piece of it.

use std::pin::pin;
use std::time::Duration;

/// Time after which a look that has not ended counts as failed.
pub(super) const LIMIT: Duration = Duration::from_secs(5);

/// Waits for `work`. Calls `late` once if it takes longer than [`LIMIT`].
pub(super) async fn wait_for<T>(work: impl Future<Output = T>, late: impl FnOnce()) -> T {
    let mut work = pin!(work);
    if let Ok(done) = tokio::time::timeout(LIMIT, &mut work).await {
        return done;
    }
    late();
    work.await
}

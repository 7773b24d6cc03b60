//! Carries a tunnel, and counts it and its request until the tunnel ends.

use tokio::io::{AsyncRead, AsyncWrite};

use super::in_flight::InFlight;
use super::lifecycle::Lifecycle;
use crate::response::Switched;

/// Carries a tunnel on a connection or stream that has switched.
pub(super) async fn carry<C>(caller: &mut C, tunnel: Switched, in_flight: InFlight)
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let _counted = Counted::new(&in_flight.worker.lifecycle);
    tunnel.carry(caller, in_flight.leaving()).await;
}

/// Counts a tunnel until it is dropped.
struct Counted<'a>(&'a Lifecycle);

impl<'a> Counted<'a> {
    fn new(lifecycle: &'a Lifecycle) -> Self {
        lifecycle.tunnel_opened();
        Self(lifecycle)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.tunnel_closed();
    }
}

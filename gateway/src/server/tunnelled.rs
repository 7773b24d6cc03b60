//! Carries a tunnel, and counts it and its request until the tunnel ends.

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::in_flight::InFlight;
use super::lifecycle::Lifecycle;
use crate::response::Switched;

/// Carries a tunnel on a connection that has switched.
pub(super) async fn carry<C>(caller: &mut C, tunnel: Switched, in_flight: InFlight)
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let _counted = Counted::new(&in_flight.worker.lifecycle);
    tunnel.carry(caller, in_flight.leaving()).await;
}

/// Carries a tunnel on one stream of an HTTP/2 connection.
pub(super) async fn carry_on_stream(mut tunnel: Switched, in_flight: InFlight) {
    let Some(stream) = tunnel.take_stream() else { return };
    match stream.await {
        Ok(stream) => carry(&mut TokioIo::new(stream), tunnel, in_flight).await,
        Err(error) => tunnel.fail(&error),
    }
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

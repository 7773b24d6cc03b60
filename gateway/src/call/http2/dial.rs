//! Opens a connection to an endpoint for all exchanges that wait for one.
//!
//! Runs in a task of its own, so that a caller who leaves does not stop the connection for the others.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::driver;
use super::link::{Link, Peer};
use super::metered::Metered;
use super::pool::DialGuard;
use crate::call::endpoints::Endpoint;
use crate::call::failure::Failure;
use crate::call::fault::Fault;
use crate::call::pool::PoolSettings;
use crate::call::transport::Transport;
use crate::clock;

/// Opens the connection of a duty, and those that follow from it. Each may take at most `within`.
pub(super) fn begin(endpoint: Arc<Endpoint>, duty: DialGuard, within: Duration, settings: PoolSettings) {
    tokio::spawn(async move {
        match dial(&endpoint, within, &settings).await {
            Ok(link) => {
                for more in duty.done(link, clock::now()) {
                    begin(Arc::clone(&endpoint), more, within, settings);
                }
            }
            Err(failure) => duty.failed(&failure),
        }
    });
}

async fn dial(endpoint: &Endpoint, within: Duration, settings: &PoolSettings) -> Result<Link, Failure> {
    let unreached = |why: String| Failure::new(Fault::Unreached, why);
    let address = endpoint.address();
    let opening = async {
        let stream = endpoint.reach().await?;
        if let Transport::Tls(tls) = &stream
            && tls.get_ref().1.alpn_protocol() != Some(b"h2")
        {
            return Err(io::Error::other("TLS: the backend does not offer HTTP/2 (ALPN `h2`)"));
        }
        let peer = Arc::<Peer>::default();
        let stream = Metered::new(stream, &endpoint.name, Arc::clone(&peer));
        driver::open(stream, peer, settings).await
    };
    match tokio::time::timeout(within, opening).await {
        Ok(Ok(link)) => Ok(link),
        Ok(Err(error)) => Err(unreached(format!("{address}: {error}"))),
        Err(_) => Err(Failure::connect_limit(address, within)),
    }
}

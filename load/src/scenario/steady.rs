//! Runs a fixed number of callers that each send again as soon as they are answered. This saturates a server, which a
//! schedule would not.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::task::JoinSet;
use tokio::time::Duration;

use crate::Result;
use crate::client::{Client, ending};
use crate::report::Report;

use super::gateway::Gateway;

const PATIENCE: Duration = Duration::from_secs(10);

/// Runs `callers` with this request until `end` returns true. `end` is called before each request, with the number of
/// requests that the caller has sent.
pub(crate) async fn steady(
    gateway: &Gateway,
    request: &Request<Full<Bytes>>,
    callers: usize,
    end: impl Fn(usize) -> bool + Clone + Send + 'static,
) -> Result<Report> {
    steady_at(gateway.address, request, callers, end).await
}

/// Like [`steady`], at any server. The report's `span` is the whole time.
pub(super) async fn steady_at(
    address: SocketAddr,
    request: &Request<Full<Bytes>>,
    callers: usize,
    end: impl Fn(usize) -> bool + Clone + Send + 'static,
) -> Result<Report> {
    let start = Instant::now();
    let mut running = JoinSet::new();
    for _ in 0..callers {
        let (request, end) = (request.clone(), end.clone());
        running.spawn(async move {
            let mut client = Client::new(address);
            let mut report = Report::default();
            for sent in 0.. {
                if end(sent) {
                    break;
                }
                let asked = Instant::now();
                let ended = client.ask(request.clone(), PATIENCE).await;
                report.note(ending(&ended), asked.elapsed());
            }
            report
        });
    }
    let mut report = Report::default();
    while let Some(part) = running.join_next().await {
        report.merge(&part?);
    }
    report.span = start.elapsed();
    Ok(report)
}

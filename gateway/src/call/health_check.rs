//! Probes an endpoint: asks whether it is well, on a connection of its own, and records the answer.
//!
//! A probe takes no slot of the bulkhead and no connection of the pool, so that a full backend is not taken for one that
//! is down. It speaks to the endpoint as calls do: same protocol, TLS and Host.

mod grpc;
mod http1;

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::header::USER_AGENT;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use policies::HealthSettings;
use policies::health::{Change, Probe, Verdict};
use tokio::task::JoinSet;

// Circle with `backend`: a backend holds the settings and counts of its probes, and a probe asks its endpoints.
use super::backend::Backend;
use super::endpoints::{Endpoint, Pools};
use super::failure::describe;
use crate::clock;
use crate::observe::ProbeOutcome;

/// Value of `User-Agent`, by which a backend knows its probes.
static AGENT: HeaderValue = HeaderValue::from_static("gateway-health-check");

/// Operator's settings of the probes of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    pub asks: Asks,
    /// Maximum time of one probe, with connecting.
    pub time_limit: Duration,
    /// Whether the interval is not written, and may be longer where there are many endpoints.
    pub is_paced: bool,
    pub settings: HealthSettings,
}

/// Question of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asks {
    /// Sends GET, and expects one of these statuses.
    Path(PathAndQuery, Vec<RangeInclusive<u16>>),
    /// Only connects.
    Tcp,
    /// Asks `grpc.health.v1.Health/Check` for a service; an empty name asks for the server as a whole.
    Grpc(String),
}

/// Number of probes of a backend, by result.
#[derive(Debug, Default)]
pub struct ProbeCounts {
    passed: AtomicU64,
    failed: AtomicU64,
}

impl ProbeCounts {
    /// Returns the number of probes with each result.
    pub fn all(&self) -> [(ProbeOutcome, u64); 2] {
        [
            (ProbeOutcome::Passed, self.passed.load(Relaxed)),
            (ProbeOutcome::Failed, self.failed.load(Relaxed)),
        ]
    }
}

impl Backend {
    /// Probes an endpoint once, and records the result. Logs once when the endpoint goes down or comes up.
    pub async fn probe(&self, check: &HealthCheck, endpoint: &Endpoint) {
        let began = clock::now();
        let result = match tokio::time::timeout(
            check.time_limit,
            check.asks.ask(endpoint, self.settings.pool.answer_fields),
        )
        .await
        {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {:?}", check.time_limit)),
        };
        let now = clock::now();
        let counts = &self.guards.probes;
        let count = if result.is_ok() { &counts.passed } else { &counts.failed };
        count.fetch_add(1, Relaxed);
        let probe = Probe {
            began,
            succeeded: result.is_ok(),
        };
        let ejection = endpoint.standing.ejection(now);
        let Verdict { change, ends_ejection } = endpoint.health.record(probe, ejection, &check.settings, now);
        endpoint.note_probe(result.err());
        self.log_health(endpoint, change);
        if ends_ejection {
            let changed = self.guards.ejector.bring_back(&endpoint.standing, now);
            self.log_ejection(endpoint, changed);
        }
    }

    fn log_health(&self, endpoint: &Endpoint, change: Option<Change>) {
        let (backend, name) = (&self.name, &endpoint.name);
        match change {
            Some(Change::WentDown) => {
                let error = endpoint.probe_error().unwrap_or_default();
                tracing::warn!(%backend, endpoint = %name, error = %error, "endpoint is down");
            }
            Some(Change::CameUp { down_for }) => {
                tracing::warn!(%backend, endpoint = %name, ?down_for, "endpoint is up");
            }
            Some(Change::FirstSeen) | None => {}
        }
    }
}

impl Asks {
    /// Asks once. Returns what is wrong in a few words. The answer may have at most `fields` fields.
    async fn ask(&self, endpoint: &Endpoint, fields: usize) -> Result<(), String> {
        match self {
            Self::Tcp => endpoint.reach().await.map(drop).map_err(in_words),
            Self::Path(path, expected) => {
                let status = match &endpoint.pools {
                    Pools::Http1(_) => http1::status(endpoint, path, fields).await?,
                    Pools::Http2(_) => {
                        let mut connection = JoinSet::new();
                        let request = request(endpoint, path.clone(), "GET", Bytes::new())?;
                        exchange(endpoint, request, &mut connection).await?.status()
                    }
                };
                let is_expected = expected.iter().any(|range| range.contains(&status.as_u16()));
                is_expected
                    .then_some(())
                    .ok_or_else(|| format!("status {}", status.as_u16()))
            }
            Self::Grpc(service) => {
                let mut connection = JoinSet::new();
                let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
                let mut request = request(endpoint, path, "POST", grpc::question(service))?;
                grpc::set_headers(request.headers_mut());
                let answer = exchange(endpoint, request, &mut connection).await?;
                if answer.status() != StatusCode::OK {
                    return Err(format!("status {}", answer.status().as_u16()));
                }
                grpc::read(answer).await
            }
        }
    }
}

/// Returns the first 200 bytes of an error's text, because some repeat what the peer sent.
fn in_words(error: impl Display) -> String {
    let mut text = error.to_string();
    text.truncate(text.floor_char_boundary(200));
    text
}

/// Returns a request in HTTP/2.
fn request(
    endpoint: &Endpoint,
    path: PathAndQuery,
    method: &'static str,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, String> {
    let scheme = if endpoint.speaks_tls() {
        Scheme::HTTPS
    } else {
        Scheme::HTTP
    };
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(scheme);
    parts.authority = Some(endpoint.authority().clone());
    parts.path_and_query = Some(path);
    Request::builder()
        .method(method)
        .header(USER_AGENT, &AGENT)
        .uri(Uri::from_parts(parts).map_err(in_words)?)
        .body(Full::new(body))
        .map_err(in_words)
}

/// Sends a request on a new HTTP/2 connection, which lasts as long as `connection`. Returns the head of the answer.
async fn exchange(
    endpoint: &Endpoint,
    request: Request<Full<Bytes>>,
    connection: &mut JoinSet<hyper::Result<()>>,
) -> Result<Response<Incoming>, String> {
    let stream = TokioIo::new(endpoint.reach().await.map_err(in_words)?);
    let failed = |error: hyper::Error| in_words(describe(&error));
    let (mut sender, driver) = http2::Builder::new(TokioExecutor::new())
        .max_header_list_size(16 * 1024)
        .handshake(stream)
        .await
        .map_err(failed)?;
    connection.spawn(driver);
    sender.send_request(request).await.map_err(failed)
}

//! Checks a backend that never answers: the caller gets an answer in time, the backend sees the remaining time shrink,
//! and a caller that disconnects cancels the call.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Behaviour, Fault, Fleet, Handle, Latency, Spec};
use http::{HeaderValue, Request};
use http_body_util::Full;

use super::Finding;
use super::gateway::Gateway;
use crate::Result;
use crate::client::{Client, ending};
use crate::report::{Report, millis};

const CONFIG: &str = r#"
callers: { api_keys: { file: keys.yaml } }
backends:
  hangs:
    endpoints: [{ url: "http://@hangs@" }]
    bulkhead: { limit: 1, queue: 0 }
    breaker: off
  fails:
    endpoints: [{ url: "http://@fails@" }]
    retry: { attempts: 3, backoff: 50ms..50ms, jitter: 0 }
routes:
  hangs: { match: { path: "/hangs" }, access: { any_of: [api_key] }, backend: hangs, time_limit: 1s }
  fails: { match: { path: "/fails" }, access: { any_of: [api_key] }, backend: fails, time_limit: 2s }
"#;

const KEY: &str = "caller";
const BUDGET: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(5);
const RUNS: usize = 10;

pub(super) async fn run(binary: &Path) -> Result<Vec<Finding>> {
    let hangs = Spec::new("hangs").behaviour(Behaviour::always(Fault::Hang));
    let fails = Spec::new("fails").behaviour(Behaviour::status(503).with_latency(Latency::fixed(100)));
    let fleet = Fleet::start([hangs, fails]).await?;
    let config = CONFIG
        .replace("@hangs@", &fleet.address("hangs").to_string())
        .replace("@fails@", &fleet.address("fails").to_string());
    let keys = key_file(&[KeyLine::new("caller", "caller", KEY).tier("enterprise")]);
    let gateway = Gateway::start(binary, &config, &keys).await?;
    let wish = ("x-request-timeout-ms", HeaderValue::from_static("200"));
    Ok(vec![
        in_time(&gateway, None, BUDGET, BUDGET + Duration::from_millis(50)).await?,
        in_time(
            &gateway,
            Some(wish),
            Duration::from_millis(200),
            Duration::from_millis(250),
        )
        .await?,
        shrinking(&gateway, &fleet.backend("fails")).await?,
        hung_up(&gateway, &fleet.backend("hangs")).await?,
    ])
}

async fn in_time(
    gateway: &Gateway,
    wish: Option<(&'static str, HeaderValue)>,
    budget: Duration,
    latest: Duration,
) -> Result<Finding> {
    let mut client = Client::new(gateway.address);
    let (mut report, mut soonest) = (Report::default(), Duration::MAX);
    for _ in 0..RUNS {
        let mut request = gateway.get("/hangs", KEY)?;
        if let Some((name, value)) = &wish {
            request.headers_mut().insert(*name, value.clone());
        }
        let asked = Instant::now();
        let ended = client.ask(request, PATIENCE).await;
        soonest = soonest.min(asked.elapsed());
        report.note(ending(&ended), asked.elapsed());
    }
    let asked = match wish {
        None => format!("504 within the budget of {budget:?} + 50 ms"),
        Some((name, value)) => format!(
            "504 within {latest:?} with `{name}: {}`",
            value.to_str().unwrap_or_default()
        ),
    };
    let measured = format!(
        "{} in {} to {}",
        report.endings(),
        millis(soonest),
        millis(report.max())
    );
    // An answer long before the end of the budget would be a different failure.
    let kept = report.other_than(504) == 0 && report.max() <= latest && soonest + Duration::from_millis(10) >= budget;
    Ok(Finding::new(asked, measured, kept))
}

async fn shrinking(gateway: &Gateway, fails: &Handle) -> Result<Finding> {
    let ended = Client::new(gateway.address)
        .ask(gateway.get("/fails", KEY)?, PATIENCE)
        .await;
    let status = ending(&ended).map_err(|fault| format!("/fails: {fault}"))?;
    let seen: Vec<Option<u64>> = fails
        .requests()
        .iter()
        .map(|request| {
            request
                .header("x-request-timeout-ms")
                .and_then(|left| left.parse().ok())
        })
        .collect();
    // An attempt takes 100 ms and the pause after it 50 ms.
    let shrinks = seen
        .windows(2)
        .all(|pair| matches!(pair, [Some(before), Some(after)] if after + 150 <= *before));
    Ok(Finding::new(
        "the backend sees a deadline that shrinks from attempt to attempt",
        format!("{status} after {} attempts with {seen:?} ms left", seen.len()),
        seen.len() == 3 && shrinks,
    ))
}

/// Checks a caller that disconnects. The backend has one slot and no queue, so a slot that is not given back shows in
/// the next answer.
async fn hung_up(gateway: &Gateway, hangs: &Handle) -> Result<Finding> {
    let limit = Duration::from_secs(2);
    let before = hangs.counts();
    let request: Request<Full<Bytes>> = gateway.get("/hangs", KEY)?;
    let address = gateway.address;
    let caller = tokio::spawn(async move { Client::new(address).ask(request, PATIENCE).await.map(drop) });
    hangs
        .wait_for(
            |counts| counts.in_flight == 1 && counts.requests > before.requests,
            limit,
        )
        .await?;
    let meanwhile = Client::new(address).ask(gateway.get("/hangs", KEY)?, PATIENCE).await;
    let held = ending(&meanwhile).is_ok_and(|status| status == 503);
    // Dropping the task of a client closes its socket.
    caller.abort();
    let gone = Instant::now();
    let freed = hangs
        .wait_for(|counts| counts.in_flight == 0 && counts.connections == 0, limit)
        .await;
    let took = gone.elapsed();
    hangs.behave(Behaviour::default()).await;
    let after = Client::new(address).ask(gateway.get("/hangs", KEY)?, PATIENCE).await;
    let served = ending(&after).is_ok_and(|status| status == 200);
    Ok(Finding::new(
        "a caller who hangs up frees slot and backend connection at once (within 50 ms)",
        format!(
            "slot held before: {held}; backend connection gone after {}; next request served: {served}",
            millis(took)
        ),
        held && freed.is_ok() && served && took <= Duration::from_millis(50),
    ))
}

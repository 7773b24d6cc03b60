//! Checks with two tenants, eight client threads, two workers and a reload in the middle that each tenant gets exactly
//! its quota, whichever worker handles its requests.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Fleet, Keep, Spec};
use http::Request;
use http_body_util::Full;
use tokio::time::sleep;

use super::Finding;
use super::gateway::{Gateway, Signal};
use crate::Result;
use crate::client::{Client, ending};
use crate::report::Report;

/// Config with buckets that earn nothing while the scenario runs.
const CONFIG: &str = r#"
callers: { api_keys: { file: keys.yaml } }
tiers:
  small: { rate: 1/h, burst: 700 }
  large: { rate: 1/h, burst: 1900 }
backends:
  fast: { endpoints: [{ url: "http://@fast@" }], bulkhead: { limit: 1000, queue: 1000, wait: 5s } }
routes:
  all: { match: { path: "/all" }, access: { any_of: [api_key] }, backend: fast, time_limit: @limit@ }
"#;

const THREADS: usize = 8;
/// Requests of each thread, in turn for both tenants: more than the quotas of both together.
const EACH: usize = 600;
const OWED: [(&str, u64); 2] = [("small", 700), ("large", 1_900)];

pub(super) async fn run(binary: &Path) -> Result<Vec<Finding>> {
    let keep = Keep {
        requests: THREADS * EACH,
        body_bytes: 0,
    };
    let fleet = Fleet::start([Spec::new("fast").keep(keep)]).await?;
    let config = CONFIG.replace("@fast@", &fleet.address("fast").to_string());
    let lines = OWED.map(|(name, _)| KeyLine::new(name, name, name).tier(name));
    let gateway = Gateway::start(binary, &config.replace("@limit@", "10s"), &key_file(&lines)).await?;
    let generation = gateway.metric("gateway_config_generation", "").await?;

    let (sent, start) = (Arc::new(AtomicU64::new(0)), Arc::new(Barrier::new(THREADS)));
    let callers: Vec<_> = (0..THREADS)
        .map(|_| {
            let requests = OWED.map(|(name, _)| gateway.get("/all", name));
            let [small, large] = requests;
            let requests = [small?, large?];
            let (address, sent, start) = (gateway.address, Arc::clone(&sent), Arc::clone(&start));
            Ok(thread::spawn(move || call(address, &requests, &sent, &start)))
        })
        .collect::<Result<_>>()?;
    while sent.load(Relaxed) < (THREADS * EACH / 2) as u64 {
        sleep(Duration::from_millis(1)).await;
    }
    let at = sent.load(Relaxed);
    gateway.rewrite(&config.replace("@limit@", "20s"))?;
    gateway.signal(Signal::Reload).await?;
    let reports = tokio::task::spawn_blocking(move || {
        callers
            .into_iter()
            .map(|caller| caller.join().expect("a caller does not panic"))
            .collect::<Vec<_>>()
    })
    .await?;

    let mut served: BTreeMap<String, u64> = BTreeMap::new();
    for request in fleet.backend("fast").take_requests() {
        *served
            .entry(request.header("x-tenant-id").unwrap_or("nobody").to_owned())
            .or_default() += 1;
    }
    let reloaded = gateway.metric("gateway_config_generation", "").await? != generation;
    let mut findings = vec![];
    for (tenant, (name, owed)) in OWED.into_iter().enumerate() {
        let mut report = Report::default();
        for part in &reports {
            report.merge(&part[tenant]);
        }
        let (admitted, refused) = (report.status(200), report.status(429));
        let reached = served.get(name).copied().unwrap_or(0);
        findings.push(Finding::new(
            format!(
                "{name}: exactly {owed} of {} admitted and passed on, a reload in the middle",
                report.sent()
            ),
            format!("{}; {reached} reached the backend as {name}", report.endings()),
            admitted == owed && reached == owed && admitted + refused == (THREADS * EACH / 2) as u64,
        ));
    }
    findings.push(Finding::new(
        "the reload took effect while they called",
        format!("after {at} requests: {reloaded}"),
        reloaded,
    ));
    Ok(findings)
}

/// Runs a client thread: sends requests for both tenants in turn, as fast as they are answered.
fn call(address: SocketAddr, requests: &[Request<Full<Bytes>>; 2], sent: &AtomicU64, start: &Barrier) -> [Report; 2] {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let mut reports = [Report::default(), Report::default()];
    start.wait();
    runtime.block_on(async {
        let mut client = Client::new(address);
        for number in 0..EACH {
            let ended = client.ask(requests[number % 2].clone(), Duration::from_secs(10)).await;
            reports[number % 2].note(ending(&ended), Duration::ZERO);
            sent.fetch_add(1, Relaxed);
        }
    });
    reports
}

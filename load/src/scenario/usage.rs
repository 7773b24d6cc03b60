//! Counts 100,000 requests of 50 tenants over two gateways that share a folder of usage, of which one is killed, and
//! delivers them to a receiver that fails every second time.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Behaviour, Fleet, Handle, Keep, Spec};
use http::{HeaderName, HeaderValue};
use serde_json::Value;
use tokio::time::sleep;

use super::Finding;
use super::gateway::Gateway;
use crate::Result;
use crate::generate::{Load, generate};

const TENANTS: usize = 50;
/// Of each gateway, a second.
const RATE: f64 = 2_500.0;
/// 50,000 requests for each gateway.
const FOR: Duration = Duration::from_secs(20);
const KILLED_AFTER: Duration = Duration::from_secs(9);
/// Longest time until the last minute is over and delivered.
const DELIVERED: Duration = Duration::from_secs(120);

const CONFIG: &str = r#"
overload: off
callers: { api_keys: { file: keys.yaml } }
tiers: { open: { rate: 1000000/s, burst: 1000000 } }
usage:
  folder: @folder@
  replica: @replica@
  push: { url: "http://@receiver@/events", batch: 20 }
backends:
  fast: { endpoints: [{ url: "http://@fast@" }], bulkhead: { limit: 1000, queue: 1000, wait: 5s } }
routes:
  all: { match: { path: "/bytes/{n}" }, access: { any_of: [api_key] }, backend: fast }
"#;

type Totals = BTreeMap<String, u64>;

pub(super) async fn run(binary: &Path) -> Result<Vec<Finding>> {
    let keep = Keep {
        requests: 10_000,
        body_bytes: 64 << 20,
    };
    let fleet = Fleet::start([Spec::new("fast").keep(Keep::NOTHING), Spec::new("receiver").keep(keep)]).await?;
    let receiver = &fleet.backend("receiver");
    // 503 and 204 in turn.
    receiver.next((0..10_000).map(|number| Behaviour::status(if number % 2 == 0 { 503 } else { 204 })));
    let folder = tempfile::tempdir()?;
    let names: Vec<String> = (0..TENANTS).map(|number| format!("tenant-{number}")).collect();
    let lines: Vec<_> = names
        .iter()
        .map(|name| KeyLine::new(name, name, name).tier("open"))
        .collect();
    let keys = key_file(&lines);
    let config = CONFIG
        .replace("@fast@", &fleet.address("fast").to_string())
        .replace("@receiver@", &fleet.address("receiver").to_string())
        .replace("@folder@", &format!("{:?}", folder.path().join("usage")));
    let first = Gateway::start(binary, &config.replace("@replica@", "first"), &keys).await?;
    let second = Gateway::start(binary, &config.replace("@replica@", "second"), &keys).await?;
    let load = |gateway: &Gateway| -> Result<_> {
        let values = names.iter().map(|name| HeaderValue::from_str(name));
        Ok(Load {
            rotating: vec![(
                HeaderName::from_static("x-api-key"),
                values.collect::<std::result::Result<_, _>>()?,
            )],
            ..Load::new(gateway.target("/bytes/100")?, RATE, FOR)
        }
        .connections(16))
    };
    let loads = (
        tokio::spawn(generate(load(&first)?)),
        tokio::spawn(generate(load(&second)?)),
    );
    sleep(KILLED_AFTER).await;
    // A drop kills the process with SIGKILL.
    drop(second);
    let (of_first, of_second) = (loads.0.await?, loads.1.await?);
    let answered = of_first.status(200) + of_second.status(200);
    let sent = of_first.sent() + of_second.sent();

    let shown = delivered(&first, receiver).await?;
    let counted: u64 = shown.values().sum();
    // The client's own connections, which wait for an answer, are sent and may be counted, but are not answered.
    let second_worth = (RATE * 1.1) as u64;
    let most = answered + of_second.other_than(200);
    let events = taken(receiver)?;
    let posts = receiver.requests().len();
    let (totals, repeated) = sums(&events);
    Ok(vec![
        Finding::new(
            "usage of two gateways, one killed: at least what was answered less one second's worth, never more than was sent",
            format!("{sent} sent, {answered} answered, {counted} counted ({posts} posts)"),
            counted + second_worth >= answered && counted <= most,
        ),
        Finding::new(
            "the gateway that stays counts each of its own requests",
            of_first.endings(),
            of_first.other_than(200) == 0 && of_first.unsent == 0,
        ),
        Finding::new(
            "a receiver that fails every second time has exactly these totals, tenant by tenant, by id",
            format!("{} events, {repeated} repeated", events.len()),
            totals == shown && shown.len() == TENANTS,
        ),
    ])
}

/// Waits until the last minute is over and all is delivered. Returns the requests of each tenant.
async fn delivered(gateway: &Gateway, receiver: &Handle) -> Result<Totals> {
    let began = Instant::now();
    loop {
        let shown: Value = serde_json::from_str(&gateway.admin_page("/api/v1/usage?by=day&limit=10000").await?)?;
        let mut totals = Totals::new();
        for row in shown["usage"].as_array().into_iter().flatten() {
            let tenant = row["tenant"].as_str().unwrap_or_default().to_owned();
            *totals.entry(tenant).or_default() += row["requests"].as_u64().unwrap_or_default();
        }
        let (sums, _) = sums(&taken(receiver)?);
        let has_gap = shown["gaps"].as_array().is_some_and(|gaps| !gaps.is_empty());
        if has_gap && sums == totals {
            return Ok(totals);
        }
        if began.elapsed() > DELIVERED {
            return Ok(totals);
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// Returns the events of all posts that were taken: every second one.
fn taken(receiver: &Handle) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for request in receiver.requests().into_iter().skip(1).step_by(2) {
        all.extend(serde_json::from_slice::<Vec<Value>>(&request.body)?);
    }
    Ok(all)
}

/// Sums the events up by tenant, each id once. Returns the number of those that came again, too.
fn sums(events: &[Value]) -> (Totals, usize) {
    let (mut totals, mut ids) = (Totals::new(), BTreeMap::new());
    for event in events {
        let id = event["id"].as_str().unwrap_or_default();
        if ids.insert(id, ()).is_none() {
            let tenant = event["data"]["tenant"].as_str().unwrap_or_default().to_owned();
            *totals.entry(tenant).or_default() += event["data"]["requests"].as_u64().unwrap_or_default();
        }
    }
    (totals, events.len() - ids.len())
}

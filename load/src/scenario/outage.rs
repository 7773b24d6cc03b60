//! Measures how much of a load, including retries, still reaches a backend that is down.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Behaviour, Fault, Fleet, Handle, Keep, Spec};
use http::{HeaderName, HeaderValue, Method};

use super::Finding;
use super::gateway::Gateway;
use crate::Result;
use crate::client::Client;
use crate::generate::{Load, generate};

/// Config in which `bare` has no breaker, because a breaker would hide the effect of the retry budget.
const CONFIG: &str = r#"
callers: { api_keys: { file: keys.yaml } }
tiers:
  unbounded: { rate: 100000/s, burst: 100000 }
backends:
  bare:
    endpoints: [{ url: "http://@bare@" }]
    breaker: off
    retry: { attempts: 3, backoff: 10ms..20ms, share: 0.2, floor: 3/s }
  guarded:
    endpoints: [{ url: "http://@guarded@" }]
    retry: { attempts: 3, backoff: 10ms..20ms, share: 0.2, floor: 3/s }
routes:
  bare: { match: { path: ["/bare", "/bare/{n}"] }, access: { any_of: [api_key] }, backend: bare }
  guarded: { match: { path: "/guarded" }, access: { any_of: [api_key] }, backend: guarded }
"#;

const RATE: f64 = 200.0;
const FOR: Duration = Duration::from_secs(5);
const POSTS: usize = 200;

pub(super) async fn run(binary: &Path) -> Result<Vec<Finding>> {
    let keep = Keep {
        requests: POSTS * 3,
        body_bytes: 0,
    };
    let fleet = Fleet::start(["bare", "guarded"].map(|name| Spec::new(name).keep(keep))).await?;
    let config = CONFIG
        .replace("@bare@", &fleet.address("bare").to_string())
        .replace("@guarded@", &fleet.address("guarded").to_string());
    let keys = key_file(&[KeyLine::new("caller", "caller", "caller").tier("unbounded")]);
    let gateway = Gateway::start(binary, &config, &keys).await?;
    let (bare, guarded) = (fleet.backend("bare"), fleet.backend("guarded"));
    let reset = Behaviour::always(Fault::Reset);
    Ok(vec![
        amplified(
            &gateway,
            &bare,
            "/bare",
            "503 to all, no breaker",
            Behaviour::status(503),
        )
        .await?,
        amplified(
            &gateway,
            &bare,
            "/bare",
            "reset by the backend, no breaker",
            reset.clone(),
        )
        .await?,
        amplified(
            &gateway,
            &guarded,
            "/guarded",
            "reset by the backend, breaker on",
            reset.clone(),
        )
        .await?,
        posted_once(&gateway, &bare, reset).await?,
    ])
}

async fn amplified(gateway: &Gateway, backend: &Handle, path: &str, how: &str, fault: Behaviour) -> Result<Finding> {
    backend.behave(fault).await;
    let before = backend.counts().requests;
    let load = Load::new(gateway.target(path)?, RATE, FOR).connections(16);
    let report = generate(load.header(HeaderName::from_static("x-api-key"), HeaderValue::from_static("caller"))).await;
    let reached = backend.counts().requests - before;
    // The budget starts with 20 retries and earns 3 a second in addition to the share.
    let floor = 20.0 + 3.0 * report.span.as_secs_f64();
    let most = 1.2 * report.sent() as f64 + floor;
    backend.heal().await;
    Ok(Finding::new(
        format!(
            "{how}: requests that reach it <= 1.2 x {} first attempts + {floor:.0} of the floor = {most:.0}",
            report.sent()
        ),
        format!("{reached} reached it; callers saw {}", report.endings()),
        report.status(200) == 0 && report.unsent == 0 && reached > 0 && reached as f64 <= most,
    ))
}

/// Checks that POST requests are not repeated. Each has its own path, so that the backend's record tells them apart.
async fn posted_once(gateway: &Gateway, backend: &Handle, fault: Behaviour) -> Result<Finding> {
    backend.behave(fault).await;
    backend.take_requests();
    let mut client = Client::new(gateway.address);
    let mut answers: BTreeMap<String, usize> = BTreeMap::new();
    for number in 0..POSTS {
        let mut request = gateway.get(&format!("/bare/{number}"), "caller")?;
        *request.method_mut() = Method::POST;
        *request.body_mut() = "order".into();
        let ended = client.ask(request, Duration::from_secs(5)).await;
        let ended = ended.map_or_else(|fault| fault.to_string(), |answer| answer.status().as_u16().to_string());
        *answers.entry(ended).or_default() += 1;
    }
    let mut reached: BTreeMap<String, usize> = BTreeMap::new();
    for request in backend.take_requests() {
        *reached.entry(request.target).or_default() += 1;
    }
    let most = reached.values().copied().max().unwrap_or(0);
    Ok(Finding::new(
        "a POST without Idempotency-Key reaches it at most once",
        format!(
            "{POSTS} POSTs, {} reached it, none more than {most} times; callers saw {answers:?}",
            reached.len()
        ),
        most <= 1 && !answers.contains_key("200"),
    ))
}

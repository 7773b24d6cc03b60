//! Checks two tenants of one tier at a saturated backend, of which one sends a hundred times as many requests as the
//! other.

use std::path::Path;
use std::thread;
use std::time::Duration;

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Behaviour, Fleet, Keep, Latency, Spec};
use http::{HeaderName, HeaderValue};

use super::Finding;
use super::gateway::Gateway;
use crate::Result;
use crate::generate::{Load, generate};
use crate::report::{Report, millis};

/// Config in which twenty slots of 20 ms serve a thousand requests a second; twice as many are sent.
const CONFIG: &str = r#"
callers: { api_keys: { file: keys.yaml } }
tiers:
  unbounded: { rate: 100000/s, burst: 100000 }
backends:
  busy:
    endpoints: [{ url: "http://@busy@" }]
    bulkhead: { limit: 20, queue: 100, wait: 2s, tenant_share: 1 }
    breaker: off
routes:
  busy: { match: { path: "/busy" }, access: { any_of: [api_key] }, backend: busy, time_limit: 5s }
"#;

const QUIET: f64 = 20.0;
const LOUD: f64 = 100.0 * QUIET;
const FOR: Duration = Duration::from_secs(5);
const WHATEVER_ALONE: Duration = Duration::from_millis(50);

pub(super) async fn run(binary: &Path) -> Result<Vec<Finding>> {
    let busy = Spec::new("busy")
        .behaviour(Behaviour::late(Latency::fixed(20)))
        .keep(Keep::NOTHING);
    let fleet = Fleet::start([busy]).await?;
    let config = CONFIG.replace("@busy@", &fleet.address("busy").to_string());
    let lines = ["quiet", "loud"].map(|name| KeyLine::new(name, name, name).tier("unbounded"));
    let gateway = Gateway::start(binary, &config, &key_file(&lines)).await?;

    let load = |key, rate, duration| -> Result<Load> {
        let load = Load::new(gateway.target("/busy")?, rate, duration);
        Ok(load.header(HeaderName::from_static("x-api-key"), HeaderValue::from_static(key)))
    };
    let alone = generate(load("quiet", QUIET, FOR)?).await;
    // On its own thread, so that the cost of the loud tenant is not part of the quiet tenant's measurement.
    let loud = load("loud", LOUD, FOR + Duration::from_secs(2))?.connections(400);
    let loud = thread::spawn(move || -> Result<Report> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(runtime.block_on(generate(loud)))
    });
    fleet
        .backend("busy")
        .wait_for(|counts| counts.in_flight == 20, Duration::from_secs(5))
        .await?;
    let beside = generate(load("quiet", QUIET, FOR)?).await;
    let loud = loud.join().expect("the load does not panic")?;

    let (idle, busy) = (alone.quantile(0.99), beside.quantile(0.99));
    Ok(vec![
        Finding::new(
            "none of the quiet tenant's requests fails beside one that asks 100 times as often",
            format!("{}; the loud one: {}", beside.endings(), loud.endings()),
            beside.other_than(200) == 0 && loud.other_than(200) > 0,
        ),
        Finding::new(
            "its p99 beside the loud one <= 3 x p99 alone, or 50 ms",
            format!("{} beside, {} alone", millis(busy), millis(idle)),
            busy <= (3 * idle).max(WHATEVER_ALONE),
        ),
    ])
}

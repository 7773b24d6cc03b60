//! Measures an aggregate of five parts under 500 connections while one backend hangs and another resets, and the effect
//! on the other three backends and on the callers.
//!
//! The breaker of the hanging backend is off. With it the part would fail at once, and a part that waits is the harder
//! case.

use std::path::Path;
use std::time::Duration;

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Behaviour, Fault, Fleet, Keep, Spec};
use http::{HeaderName, HeaderValue};

use super::Finding;
use super::gateway::Gateway;
use crate::Result;
use crate::generate::{Load, generate};
use crate::report::{Report, millis};

const CONFIG: &str = r#"
callers: { api_keys: { file: keys.yaml } }
tiers:
  unbounded: { rate: 100000/s, burst: 100000 }
backends:
  a: { endpoints: [{ url: "http://@a@" }], breaker: @breaker@ }
  b: { endpoints: [{ url: "http://@b@" }], breaker: @breaker@ }
  c: { endpoints: [{ url: "http://@c@" }], breaker: @breaker@ }
  hangs: { endpoints: [{ url: "http://@hangs@" }], breaker: off, bulkhead: { limit: 100, queue: 400, wait: 500ms } }
  resets: { endpoints: [{ url: "http://@resets@" }], breaker: @breaker@ }
routes:
  five:
    match: { path: "/five" }
    access: { any_of: [api_key] }
    time_limit: 2s
    aggregate:
      partial: allow
      parts:
        a: { backend: a, path: "/status/200", required: true }
        hangs: { backend: hangs, path: "/status/200", time_limit: 1s }
        b: { backend: b, path: "/status/200", required: true }
        resets: { backend: resets, path: "/status/200" }
        c: { backend: c, path: "/status/200", required: true }
"#;

const BREAKER: &str = "{ window: 5s, min_calls: 10, failure_ratio: 0.6, open_for: 30s, probes: 3 }";
const NAMES: [&str; 5] = ["a", "b", "c", "hangs", "resets"];
const WELL: [&str; 3] = ["a", "b", "c"];
const CALLERS: usize = 500;
/// Requests in a second. They keep all connections busy, because each waits a second for the hanging part.
const RATE: f64 = 500.0;
const FOR: Duration = Duration::from_secs(10);
const BUDGET: Duration = Duration::from_secs(2);

pub(super) async fn run(binary: &Path) -> Result<Vec<Finding>> {
    let fleet = Fleet::start(NAMES.map(|name| Spec::new(name).keep(Keep::NOTHING))).await?;
    let config = NAMES.iter().fold(CONFIG.replace("@breaker@", BREAKER), |config, name| {
        config.replace(&format!("@{name}@"), &fleet.address(name).to_string())
    });
    let keys = key_file(&[KeyLine::new("caller", "caller", "caller").tier("unbounded")]);
    let gateway = Gateway::start(binary, &config, &keys).await?;

    let well_before = Calls::read(&gateway).await?;
    let healthy = measure(&gateway).await?;
    let well_after = Calls::read(&gateway).await?;
    fleet.backend("hangs").behave(Behaviour::always(Fault::Hang)).await;
    fleet.backend("resets").behave(Behaviour::always(Fault::Reset)).await;
    let beside = measure(&gateway).await?;
    let sick_after = Calls::read(&gateway).await?;

    let (alone, sick) = (well_after.since(&well_before), sick_after.since(&well_after));
    let acted = async |names: &[&str]| -> Result<String> {
        let mut told = Vec::new();
        for name in names {
            let of = format!("backend=\"{name}\"");
            let opened = gateway.metric("gateway_breaker_transitions_total", &of).await?;
            let rejected = gateway.metric("gateway_backend_rejections_total", &of).await?;
            if opened.unwrap_or_default() + rejected.unwrap_or_default() > 0.0 {
                told.push(format!(
                    "{name}: {} breaker transitions, {} rejected calls",
                    opened.unwrap_or_default(),
                    rejected.unwrap_or_default()
                ));
            }
        }
        Ok(told.join("; "))
    };
    let (well, unwell) = (acted(&WELL).await?, acted(&["hangs", "resets"]).await?);
    Ok(vec![
        Finding::new(
            "the required parts' calls beside a hanging and a resetting part: mean within 5 ms of alone, 99 of 100 \
             within 25 ms",
            format!(
                "mean {:.2} ms beside, {:.2} ms alone; {:.3} % over 25 ms beside, {:.3} % alone",
                sick.mean_ms(),
                alone.mean_ms(),
                100.0 * sick.late_share(),
                100.0 * alone.late_share()
            ),
            sick.mean_ms() <= alone.mean_ms() + 5.0 && sick.late_share() <= 0.01,
        ),
        Finding::new(
            format!("{CALLERS} connections: every answer a 200 that says what is missing, within the budget of 2 s"),
            format!(
                "{}; p50 {}, p99 {}, longest {} (all well: p99 {})",
                beside.endings(),
                millis(beside.quantile(0.5)),
                millis(beside.quantile(0.99)),
                millis(beside.max()),
                millis(healthy.quantile(0.99))
            ),
            beside.other_than(200) == 0 && healthy.other_than(200) == 0 && beside.max() <= BUDGET,
        ),
        Finding::new(
            "breaker and bulkhead act on the sick ones",
            if unwell.is_empty() {
                "on none".to_owned()
            } else {
                unwell.clone()
            },
            unwell.contains("hangs") && unwell.contains("resets"),
        ),
        Finding::new(
            "and on no other",
            if well.is_empty() {
                "on none".to_owned()
            } else {
                well.clone()
            },
            well.is_empty(),
        ),
    ])
}

/// Calls to the healthy backends, as counted by the gateway.
struct Calls {
    count: f64,
    seconds: f64,
    within_25_ms: f64,
}

impl Calls {
    async fn read(gateway: &Gateway) -> Result<Self> {
        let mut sum = Self {
            count: 0.0,
            seconds: 0.0,
            within_25_ms: 0.0,
        };
        for name in WELL {
            let of = format!("backend=\"{name}\"");
            let read = async |suffix: &str, labels: &str| -> Result<f64> {
                let value = gateway
                    .metric(&format!("gateway_backend_duration_seconds_{suffix}"), labels)
                    .await?;
                Ok(value.unwrap_or_default())
            };
            sum.count += read("count", &of).await?;
            sum.seconds += read("sum", &of).await?;
            sum.within_25_ms += read("bucket", &format!("{of},le=\"0.025\"")).await?;
        }
        Ok(sum)
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            count: self.count - before.count,
            seconds: self.seconds - before.seconds,
            within_25_ms: self.within_25_ms - before.within_25_ms,
        }
    }

    fn mean_ms(&self) -> f64 {
        1e3 * self.seconds / self.count
    }

    fn late_share(&self) -> f64 {
        1.0 - self.within_25_ms / self.count
    }
}

async fn measure(gateway: &Gateway) -> Result<Report> {
    let load = Load::new(gateway.target("/five")?, RATE, FOR).connections(CALLERS);
    Ok(generate(load.header(HeaderName::from_static("x-api-key"), HeaderValue::from_static("caller"))).await)
}

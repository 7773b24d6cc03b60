//! Sends a thousand requests a second while the config changes ten times a second, every third time to a broken one.
//! Then sends SIGTERM during a load. What must stay over a minute of reloads is checked in `minute`.

mod minute;

use std::path::Path;
use std::time::Duration;

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Fleet, Keep, Spec};
use http::{HeaderName, HeaderValue};
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::Finding;
use super::gateway::{Gateway, Signal};
use crate::Result;
use crate::client::{Client, Fault, ending};
use crate::generate::{Load, generate};
use crate::report::{Report, millis};

const CONFIG: &str = r#"
callers: { api_keys: { file: keys.yaml } }
tiers:
  unbounded: { rate: 100000/s, burst: 100000 }
  once: { rate: 1/h, burst: 1 }
backends:
  fast: { endpoints: [{ url: "http://@fast@" }], bulkhead: { limit: 1000, queue: 1000, wait: 5s } }
routes:
  all: { match: { path: "/all" }, access: { any_of: [api_key] }, backend: fast, time_limit: @limit@ }
  @route@: { match: { path: "/@route@" }, access: { any_of: [api_key] }, backend: fast }
"#;

const RATE: f64 = 1_000.0;
const EVERY: Duration = Duration::from_millis(100);
const FOR: Duration = Duration::from_secs(10);

pub(super) async fn run(binary: &Path) -> Result<Vec<Finding>> {
    let fleet = Fleet::start([Spec::new("fast").keep(Keep::NOTHING)]).await?;
    let written = CONFIG.replace("@fast@", &fleet.address("fast").to_string());
    let one = written.replace("@limit@", "10s").replace("@route@", "one");
    let other = written.replace("@limit@", "20s").replace("@route@", "other");
    let broken = format!("{one}\nno_such_key: 1\n");
    let lines =
        [("busy", "unbounded"), ("drained", "once")].map(|(name, tier)| KeyLine::new(name, name, name).tier(tier));
    let gateway = Gateway::start(binary, &one, &key_file(&lines)).await?;

    let first = probe(&gateway).await?;
    let load = load(&gateway, FOR)?;
    let (report, swapped) = tokio::join!(generate(load), swap(&gateway, [&other, &broken, &one]));
    let swapped = swapped?;
    let drained = probe(&gateway).await?;
    let mut findings = vec![
        Finding::new(
            format!("{RATE} requests/s, a reload every {EVERY:?} for {FOR:?}: none fails"),
            format!(
                "{}, p99 {}, longest {}",
                report.endings(),
                millis(report.quantile(0.99)),
                millis(report.max())
            ),
            report.other_than(200) == 0 && report.sent() > 0,
        ),
        Finding::new(
            "a drained bucket is still drained",
            format!("{first} before, {drained} after {} reloads", swapped.count),
            (first.as_str(), drained.as_str()) == ("200", "429"),
        ),
        swapped.finding(),
    ];
    findings.push(end(gateway).await?);
    findings.extend(minute::run(binary).await?);
    Ok(findings)
}

fn load(gateway: &Gateway, duration: Duration) -> Result<Load> {
    let load = Load::new(gateway.target("/all")?, RATE, duration).connections(16);
    Ok(load.header(HeaderName::from_static("x-api-key"), HeaderValue::from_static("busy")))
}

/// Returns the answer to the tenant with one token an hour.
async fn probe(gateway: &Gateway) -> Result<String> {
    answered(gateway, "/all", "drained").await
}

async fn status(gateway: &Gateway, path: &str) -> Result<String> {
    answered(gateway, path, "busy").await
}

async fn answered(gateway: &Gateway, path: &str, key: &'static str) -> Result<String> {
    let mut client = Client::new(gateway.address);
    let ended = client.ask(gateway.get(path, key)?, Duration::from_secs(5)).await;
    Ok(ending(&ended).map_or_else(|fault| fault.to_string(), |status| status.as_u16().to_string()))
}

/// Results of the reloads.
struct Swapped {
    count: u32,
    /// Whether the good config stayed in force while the file was broken, judged by one of its routes.
    unchanged: bool,
    after_broken: Told,
    after_good: Told,
}

/// Result of the latest reload according to the gateway.
#[derive(Debug, Default)]
struct Told {
    /// Value of `gateway_config_last_reload_successful`.
    metric: Option<f64>,
    /// Value of `config.last_reload.successful` on the status page.
    status: Option<bool>,
    /// Number of refused configs in the log so far.
    logged: usize,
}

impl Swapped {
    fn finding(&self) -> Finding {
        let (broken, good) = (&self.after_broken, &self.after_good);
        Finding::new(
            "a broken config changes nothing and shows in the log, gateway_config_last_reload_successful and /api/v1/status",
            format!(
                "unchanged: {}; metric {:?}, status {:?}, {} refusals logged; after a good one metric {:?}, status {:?}",
                self.unchanged, broken.metric, broken.status, broken.logged, good.metric, good.status
            ),
            self.unchanged
                && broken.logged > 0
                && (broken.metric, broken.status) == (Some(0.0), Some(false))
                && (good.metric, good.status) == (Some(1.0), Some(true)),
        )
    }
}

async fn swap(gateway: &Gateway, configs: [&str; 3]) -> Result<Swapped> {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut count = 0;
    let swaps = usize::try_from(FOR.as_millis() / EVERY.as_millis())?;
    for config in configs.iter().cycle().take(swaps) {
        tick.tick().await;
        gateway.rewrite(config)?;
        gateway.signal(Signal::Reload).await?;
        count += 1;
    }
    let [other, broken, one] = configs;
    // The route of a config shows that this config is in force, and that no earlier reload is still pending.
    reload(gateway, other, async || Ok(status(gateway, "/other").await? == "200")).await?;
    let refused = Told::now(gateway).await?.logged;
    reload(gateway, broken, async || Ok(Told::now(gateway).await?.logged > refused)).await?;
    let after_broken = Told::now(gateway).await?;
    let unchanged = status(gateway, "/other").await? == "200" && status(gateway, "/one").await? == "404";
    reload(gateway, one, async || Ok(status(gateway, "/one").await? == "200")).await?;
    Ok(Swapped {
        count,
        unchanged,
        after_broken,
        after_good: Told::now(gateway).await?,
    })
}

/// Reloads and waits until `shows` is true, for at most two seconds. The findings check whether it became true.
async fn reload(gateway: &Gateway, config: &str, shows: impl AsyncFn() -> Result<bool>) -> Result<()> {
    gateway.rewrite(config)?;
    gateway.signal(Signal::Reload).await?;
    for _ in 0..200 {
        if shows().await? {
            break;
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

impl Told {
    async fn now(gateway: &Gateway) -> Result<Self> {
        let page = gateway.admin_page("/api/v1/status").await.ok();
        let page: Option<Value> = page.and_then(|page| serde_json::from_str(&page).ok());
        Ok(Self {
            metric: gateway.metric("gateway_config_last_reload_successful", "").await?,
            status: page.and_then(|page| page["config"]["last_reload"]["successful"].as_bool()),
            logged: gateway.log()?.matches("config not reloaded").count(),
        })
    }
}

/// Sends SIGTERM one second into a load of three seconds. Requests that find no connection any more were not accepted.
async fn end(gateway: Gateway) -> Result<Finding> {
    let load = load(&gateway, Duration::from_secs(3))?;
    let stop = async {
        sleep(Duration::from_secs(1)).await;
        gateway.signal(Signal::Terminate).await?;
        gateway.ended(Duration::from_secs(15)).await
    };
    let (report, status): (Report, _) = tokio::join!(generate(load), stop);
    let status = status?;
    let failed = report.other_than(200) - report.fault(Fault::Unconnected);
    Ok(Finding::new(
        "SIGTERM under the same load: no request that was accepted fails",
        format!("{}; {status}", report.endings()),
        failed == 0 && report.status(200) >= 1_000 && status.success(),
    ))
}

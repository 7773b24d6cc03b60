//! Checks the limit that is found for a backend of eight places, beside a limit set by hand, and then three times the
//! load from four tiers.

use std::path::Path;
use std::time::Duration;

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Behaviour, Fleet, Handle, Keep, Latency, Spec};
use http::{HeaderName, HeaderValue};
use tokio::time::{Instant, interval};

use super::Finding;
use super::gateway::Gateway;
use crate::Result;
use crate::arrivals::Pace;
use crate::generate::{Load, generate};
use crate::report::Report;

/// Config in which eight places of 20 ms answer 400 requests a second, at most.
const CONFIG: &str = r#"
callers: { api_keys: { file: keys.yaml } }
tiers:
  free:       { rate: 100000/s, burst: 100000, in_flight: 100000 }
  basic:      { rate: 100000/s, burst: 100000, in_flight: 100000 }
  premium:    { rate: 100000/s, burst: 100000, in_flight: 100000 }
  enterprise: { rate: 100000/s, burst: 100000, in_flight: 100000 }
overload: off
backends:
  eight:
    endpoints: [{ url: "http://@eight@" }]
    bulkhead: @bulkhead@
    breaker: off
    retry: off
routes:
  eight: { match: { path: "/eight" }, access: { any_of: [api_key] }, backend: eight, time_limit: 5s }
"#;

const BY_HAND: &str = "{ limit: 10, queue: 20, tenant_share: 1 }";
const FOUND: &str = "{ limit: adaptive, from: 4, to: 200, queue: 20, tenant_share: 1 }";
const PLACES: usize = 8;
const CAPACITY: f64 = 400.0;
/// Time in which the limit may be found.
const SETTLING: usize = 20;
const BY_HAND_FOR: usize = 20;
/// Requests a second by tier, together three times what the backend can answer.
const TIERS: [(&str, f64); 4] = [
    ("free", 2.25 * CAPACITY),
    ("basic", 0.25 * CAPACITY),
    ("premium", 0.25 * CAPACITY),
    ("enterprise", 0.25 * CAPACITY),
];

/// What one run has shown, second by second, once it has settled.
struct Run {
    answered: Vec<f64>,
    limits: Vec<f64>,
}

impl Run {
    fn mean(&self) -> f64 {
        self.answered.iter().sum::<f64>() / self.answered.len() as f64
    }

    /// Returns the fewest answers of two seconds in a row, in a second. One second alone has more chance in it.
    fn worst(&self) -> f64 {
        let pairs = self.answered.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0);
        pairs.fold(f64::INFINITY, f64::min)
    }
}

pub(super) async fn run(binary: &Path, seconds: usize) -> Result<Vec<Finding>> {
    let eight = Spec::new("eight")
        .places(PLACES)
        .behaviour(Behaviour::late(Latency::Uniform { from_ms: 18, to_ms: 22 }))
        .keep(Keep::NOTHING);
    let fleet = Fleet::start([eight]).await?;
    let backend = fleet.backend("eight");
    let by_hand = start(binary, &backend, BY_HAND).await?;
    let hand_set = watched(&by_hand, &backend, BY_HAND_FOR).await?;
    let peak = hand_set.mean();
    drop(by_hand);

    let gateway = start(binary, &backend, FOUND).await?;
    let found = watched(&gateway, &backend, seconds).await?;
    let (least, most) = found
        .limits
        .iter()
        .fold((f64::INFINITY, 0.0_f64), |(least, most), limit| {
            (least.min(*limit), most.max(*limit))
        });
    let mut findings = vec![
        Finding::new(
            format!("the limit of a backend of {PLACES} places settles between 8 and 16 ({seconds} s)"),
            format!("{least} to {most}"),
            least >= 8.0 && most <= 16.0,
        ),
        Finding::new(
            "its throughput >= 95 % of that of a limit set by hand (10)",
            format!(
                "{:.0} against {peak:.0} requests/s: {:.1} %",
                found.mean(),
                100.0 * found.mean() / peak
            ),
            found.mean() >= 0.95 * peak,
        ),
        Finding::new(
            "no two seconds in a row below 90 % of it: no periodic dip",
            format!(
                "worst {:.0} requests/s ({:.0} with the limit by hand)",
                found.worst(),
                hand_set.worst()
            ),
            found.worst() >= 0.9 * peak,
        ),
    ];
    findings.extend(tiers(&gateway, peak).await?);
    Ok(findings)
}

/// Sends three times the load from four tiers.
async fn tiers(gateway: &Gateway, peak: f64) -> Result<Vec<Finding>> {
    let time = Duration::from_secs(20);
    let [free, basic, premium, enterprise] = TIERS.map(|(tier, rate)| load(gateway, tier, rate, time));
    let (free, basic, premium, enterprise) = tokio::join!(
        generate(free?),
        generate(basic?),
        generate(premium?),
        generate(enterprise?)
    );
    Ok(shared_out(
        "a backend at 3 x its load",
        [&free, &basic, &premium, &enterprise],
        peak,
        time,
    ))
}

/// Returns the findings about who was served: the reports of the tiers, the cheapest first.
pub(super) fn shared_out(what: &str, reports: [&Report; 4], peak: f64, time: Duration) -> Vec<Finding> {
    let [free, .., enterprise] = reports;
    let share = |part: u64, whole: u64| 100.0 * part as f64 / (whole as f64).max(1.0);
    let served = share(enterprise.status(200), enterprise.sent() + enterprise.unsent);
    let refused: u64 = reports.iter().map(|report| report.other_than(200)).sum();
    let of_free = share(free.other_than(200), refused);
    let goodput = reports.iter().map(|report| report.status(200)).sum::<u64>() as f64 / time.as_secs_f64();
    let each = reports.map(|report| format!("{:.1}", share(report.status(200), report.sent() + report.unsent)));
    vec![
        Finding::new(
            format!("{what}: enterprise served >= 99 %"),
            format!("{served:.2} % (by tier, in %: {})", each.join(", ")),
            served >= 99.0,
        ),
        Finding::new(
            format!("{what}: free takes >= 90 % of the refusals"),
            format!("{of_free:.1} % of {refused}; free: {}", free.endings()),
            of_free >= 90.0,
        ),
        Finding::new(
            format!("{what}: goodput >= 90 % of the peak"),
            format!("{goodput:.0} of {peak:.0} requests/s: {:.1} %", 100.0 * goodput / peak),
            goodput >= 0.9 * peak,
        ),
    ]
}

async fn start(binary: &Path, backend: &Handle, bulkhead: &str) -> Result<Gateway> {
    let config = CONFIG
        .replace("@eight@", &backend.address().to_string())
        .replace("@bulkhead@", bulkhead);
    Gateway::start(binary, &config, &tier_keys()).await
}

/// Returns a key file with one tenant in each tier; key, tenant and tier have the same name.
pub(super) fn tier_keys() -> String {
    let lines = ["free", "basic", "premium", "enterprise"].map(|tier| KeyLine::new(tier, tier, tier).tier(tier));
    key_file(&lines)
}

fn load(gateway: &Gateway, key: &'static str, rate: f64, time: Duration) -> Result<Load> {
    let load = Load::new(gateway.target("/eight")?, rate, time).connections(100);
    let load = load.header(HeaderName::from_static("x-api-key"), HeaderValue::from_static(key));
    Ok(Load {
        pace: Pace::Poisson,
        ..load
    })
}

/// Sends one and a half times what the backend can answer, and watches for so many seconds once it has settled.
async fn watched(gateway: &Gateway, backend: &Handle, seconds: usize) -> Result<Run> {
    let time = Duration::from_secs((SETTLING + seconds + 1) as u64);
    let load = load(gateway, "enterprise", 1.5 * CAPACITY, time)?;
    let (report, run) = tokio::join!(generate(load), watch(gateway, backend, seconds));
    if report.faults.is_empty() {
        run
    } else {
        Err(format!("requests failed: {}", report.endings()).into())
    }
}

async fn watch(gateway: &Gateway, backend: &Handle, seconds: usize) -> Result<Run> {
    let mut run = Run {
        answered: Vec::new(),
        limits: Vec::new(),
    };
    let mut ticks = interval(Duration::from_secs(1));
    let (mut before, mut at) = (backend.counts().finished, Instant::now());
    for second in 0..=SETTLING + seconds {
        ticks.tick().await;
        let (finished, now) = (backend.counts().finished, Instant::now());
        let answered = (finished - before) as f64 / now.duration_since(at).as_secs_f64();
        (before, at) = (finished, now);
        let limit = gateway.metric("gateway_bulkhead_limit", "eight").await?;
        if second > SETTLING {
            run.answered.push(answered);
            run.limits
                .push(limit.ok_or("the gateway does not say what the limit is")?);
        }
    }
    Ok(run)
}

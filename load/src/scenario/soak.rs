//! Runs ten minutes of aggregates, 256 at once, and checks that memory does not grow.

use std::path::Path;
use std::time::{Duration, Instant};

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Fleet, Keep, Spec};
use tokio::time::{MissedTickBehavior, interval};

use super::Finding;
use super::gateway::Gateway;
use super::steady::steady;
use crate::Result;

const CONFIG: &str = r#"
callers: { api_keys: { file: keys.yaml } }
tiers:
  unbounded: { rate: 100000/s, burst: 100000 }
backends:
  a: { endpoints: [{ url: "http://@a@" }], bulkhead: { limit: 400, queue: 300, wait: 5s } }
  b: { endpoints: [{ url: "http://@b@" }], bulkhead: { limit: 400, queue: 300, wait: 5s } }
  c: { endpoints: [{ url: "http://@c@" }], bulkhead: { limit: 400, queue: 300, wait: 5s } }
routes:
  three:
    match: { path: "/three" }
    access: { any_of: [api_key] }
    aggregate:
      parts:
        a: { backend: a, path: "/echo?fill=@fill@", keep: [method, query] }
        b: { backend: b, path: "/echo?fill=@fill@" }
        c: { backend: c, path: "/echo?fill=@fill@", group: . }
"#;

const FOR: Duration = Duration::from_secs(600);
/// Warm-up; memory growth in this time does not count.
const WARM_UP: Duration = Duration::from_secs(60);
const CALLERS: usize = 256;
/// Largest growth. A leak of a hundred bytes in each request would be more than a hundred times this.
const FLAT_KIB_A_MINUTE: f64 = 64.0;

pub(super) async fn run(binary: &Path) -> Result<Vec<Finding>> {
    let names = ["a", "b", "c"];
    let fleet = Fleet::start(names.map(|name| Spec::new(name).keep(Keep::NOTHING))).await?;
    // The echoed documents are about a kilobyte in total.
    let config = names
        .iter()
        .fold(CONFIG.replace("@fill@", &"x".repeat(600)), |config, name| {
            config.replace(&format!("@{name}@"), &fleet.address(name).to_string())
        });
    let keys = key_file(&[KeyLine::new("caller", "caller", "caller").tier("unbounded")]);
    let gateway = Gateway::start(binary, &config, &keys).await?;
    let request = gateway.get("/three", "caller")?;
    let end = Instant::now() + FOR;
    let (report, memory) = tokio::try_join!(
        steady(&gateway, &request, CALLERS, move |_| Instant::now() >= end),
        watch_memory(&gateway, end),
    )?;
    let (first, last) = (
        memory.first().map_or(0.0, |point| point.1),
        memory.last().map_or(0.0, |point| point.1),
    );
    let slope = slope(&memory);
    Ok(vec![
        Finding::new(
            format!("{CALLERS} at once for {} minutes: none fails", FOR.as_secs() / 60),
            format!(
                "{}, {:.0}/s",
                report.endings(),
                report.sent() as f64 / FOR.as_secs_f64()
            ),
            report.other_than(200) == 0 && report.sent() > 0,
        ),
        Finding::new(
            format!("resident memory after the first minute: a slope below {FLAT_KIB_A_MINUTE} KiB a minute"),
            format!(
                "{slope:+.1} KiB a minute, from {:.1} MiB to {:.1} MiB",
                first / 1024.0,
                last / 1024.0
            ),
            memory.len() > 10 && slope < FLAT_KIB_A_MINUTE,
        ),
    ])
}

/// Returns samples of memory: minutes since the warm-up, and KiB.
async fn watch_memory(gateway: &Gateway, end: Instant) -> Result<Vec<(f64, f64)>> {
    let mut points = Vec::new();
    let start = Instant::now();
    let mut ticks = interval(Duration::from_secs(5));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while Instant::now() < end {
        ticks.tick().await;
        let Some(minutes) = start
            .elapsed()
            .checked_sub(WARM_UP)
            .map(|time| time.as_secs_f64() / 60.0)
        else {
            continue;
        };
        let bytes = gateway.metric("process_resident_memory_bytes", "").await?;
        points.push((minutes, bytes.unwrap_or_default() / 1024.0));
    }
    Ok(points)
}

/// Returns the slope of the least-squares line.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let along: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    along / spread
}

#[cfg(test)]
mod tests {
    use super::slope;

    #[test]
    fn the_slope_is_that_of_the_line_through_the_points() {
        assert!((slope(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]) - 2.0).abs() < 1e-9);
        assert!(slope(&[(0.0, 4.0), (1.0, 4.0)]).abs() < 1e-9);
    }
}

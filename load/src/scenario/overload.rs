//! Checks that a worker that gets three times the work it can do serves the dearest tier and refuses the cheapest.
//!
//! The work is a document of 60 KB that is read and shaped, so that a request costs a worker far more than its refusal.
//! The gateway has a processor for itself, with one worker, at its peak and under too much load, so that the generator
//! takes nothing from it.

use std::path::Path;
use std::time::{Duration, Instant};

use fixtures::fleet::{Behaviour, Fleet, Keep, Spec};
use http::{HeaderName, HeaderValue};

use super::Finding;
use super::adaptive::{shared_out, tier_keys};
use super::gateway::Gateway;
use super::processors::Processors;
use super::steady::steady;
use crate::Result;
use crate::arrivals::Pace;
use crate::generate::{Load, generate};
use crate::report::millis;

const CONFIG: &str = r#"
workers: 1
callers: { api_keys: { file: keys.yaml } }
tiers:
  free:       { rate: 100000/s, burst: 100000, in_flight: 100000 }
  basic:      { rate: 100000/s, burst: 100000, in_flight: 100000 }
  premium:    { rate: 100000/s, burst: 100000, in_flight: 100000 }
  enterprise: { rate: 100000/s, burst: 100000, in_flight: 100000 }
overload: @overload@
backends:
  rows:
    endpoints: [{ url: "http://@rows@" }]
    bulkhead: { limit: 10000, streams: 1 }
    breaker: off
    retry: off
routes:
  work:
    match: { path: /work }
    access: { any_of: [api_key] }
    time_limit: 10s
    aggregate:
      parts:
        one:   { backend: rows, path: /rows, keep: [items.number, items.name] }
        two:   { backend: rows, path: /rows, keep: [items.number, items.name] }
"#;

/// Rows of the document: 60 KB in all, so that it is read by the worker itself.
const ROWS: usize = 1000;
const CALLERS: usize = 32;
const FOR: Duration = Duration::from_secs(20);
/// Shares of the load, the cheapest tier first.
const MIX: [(&str, f64); 4] = [("free", 2.25), ("basic", 0.25), ("premium", 0.25), ("enterprise", 0.25)];

pub(super) async fn run(binary: &Path) -> Result<Vec<Finding>> {
    let row = |number: usize| format!(r#"{{"number":{number:04},"name":"row","more":[1,2,3],"x":{{"y":null}}}}"#);
    let rows: Vec<_> = (1000..1000 + ROWS).map(row).collect();
    let body = format!(r#"{{"items":[{}]}}"#, rows.join(","));
    let raw = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let spec = Spec::new("rows").behaviour(Behaviour::raw(raw)).keep(Keep::NOTHING);
    let fleet = Fleet::start([spec]).await?;
    let config = |overload| {
        CONFIG
            .replace("@rows@", &fleet.address("rows").to_string())
            .replace("@overload@", overload)
    };

    let processors = Processors::divide().await?;
    let unguarded = Gateway::start(binary, &config("off"), &tier_keys()).await?;
    processors.give(&unguarded).await?;
    let until = |time| {
        let end = Instant::now() + time;
        move |_| Instant::now() > end
    };
    let request = unguarded.get("/work", "enterprise")?;
    steady(&unguarded, &request, CALLERS, until(Duration::from_secs(2))).await?;
    let before = unguarded.processor_seconds()?;
    let saturated = steady(&unguarded, &request, CALLERS, until(Duration::from_secs(8))).await?;
    let (peak, time) = (saturated.status(200) as f64, saturated.span.as_secs_f64());
    let (peak, busy_at_peak) = (peak / time, (unguarded.processor_seconds()? - before) / time);
    if saturated.other_than(200) > 0 {
        return Err(format!("the peak: {}", saturated.endings()).into());
    }
    drop(unguarded);

    let gateway = Gateway::start(binary, &config("{ delay: 20ms, for: 100ms }"), &tier_keys()).await?;
    processors.give(&gateway).await?;
    let before = gateway.processor_seconds()?;
    let load = |(tier, share): (&'static str, f64)| -> Result<Load> {
        let load = Load::new(gateway.target("/work")?, share * peak, FOR).connections(200);
        let load = load.header(HeaderName::from_static("x-api-key"), HeaderValue::from_static(tier));
        Ok(Load {
            pace: Pace::Poisson,
            ..load
        })
    };
    let [free, basic, premium, enterprise] = MIX.map(load);
    let (free, basic, premium, enterprise) = tokio::join!(
        generate(free?),
        generate(basic?),
        generate(premium?),
        generate(enterprise?)
    );
    let busy = (gateway.processor_seconds()? - before) / FOR.as_secs_f64();
    processors.join().await?;
    let log = gateway.log()?;
    let begun = log
        .lines()
        .filter(|line| line.contains("overloaded: newcomers"))
        .count();
    let mut findings = shared_out(
        "a worker at 3 x its load",
        [&free, &basic, &premium, &enterprise],
        peak,
        FOR,
    );
    findings.push(Finding::new(
        "the gateway's processor is busy for >= 95 % of the time, at the peak and at 3 x the load",
        format!("{:.1} %, {:.1} %", 100.0 * busy_at_peak, 100.0 * busy),
        busy_at_peak >= 0.95 && busy >= 0.95,
    ));
    findings.push(Finding::new(
        "the log has a line for each change, and not for each refusal",
        format!(
            "{begun} lines; p50 of enterprise {}, p99 {}",
            millis(enterprise.quantile(0.5)),
            millis(enterprise.quantile(0.99))
        ),
        (1..100).contains(&begun),
    ));
    Ok(findings)
}

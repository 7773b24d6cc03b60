//! Measures a route alone and with a mirror that never answers, in turn on the same gateway and the same backend.
//!
//! The rounds are interleaved, and each pair is in the opposite order of the one before, so that what else the machine
//! does meets both alike. The figure is a ratio of two quantiles over all rounds.

use std::path::Path;
use std::time::Duration;

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Behaviour, Fault, Fleet, Keep, Latency, Spec};
use http::{HeaderName, HeaderValue};

use super::Finding;
use super::gateway::Gateway;
use crate::Result;
use crate::generate::{Load, generate};
use crate::report::{Report, millis};

/// A copy hangs for longer than a round, so that its place is taken for most of the rounds with a mirror.
const CONFIG: &str = r#"
callers: { api_keys: { file: keys.yaml } }
tiers:
  unbounded: { rate: 100000/s, burst: 100000 }
backends:
  well: { endpoints: [{ url: "http://@well@" }] }
  hangs: { endpoints: [{ url: "http://@hangs@" }], time_limit: 3s, breaker: off }
routes:
  alone: { match: { path: "/alone" }, access: { any_of: [api_key] }, backend: well }
  mirrored:
    match: { path: "/mirrored" }
    access: { any_of: [api_key] }
    backend: well
    mirror: { to: hangs, percent: 100 }
"#;

const RATE: f64 = 200.0;
/// Latency of the backend.
const LATENCY_MS: u64 = 20;
const ROUND: Duration = Duration::from_secs(2);
/// Pairs of rounds.
const PAIRS: usize = 10;
/// Largest ratio of the two p99.
const MOST: f64 = 1.02;
/// Default of `mirror.limit`.
const PLACES: u64 = 16;

pub(super) async fn run(binary: &Path) -> Result<Vec<Finding>> {
    let well = Spec::new("well").behaviour(Behaviour::late(Latency::fixed(LATENCY_MS)));
    let hangs = Spec::new("hangs").behaviour(Behaviour::always(Fault::Hang));
    let fleet = Fleet::start([well, hangs].map(|spec| spec.keep(Keep::NOTHING))).await?;
    let config = CONFIG
        .replace("@well@", &fleet.address("well").to_string())
        .replace("@hangs@", &fleet.address("hangs").to_string());
    let keys = key_file(&[KeyLine::new("caller", "caller", "caller").tier("unbounded")]);
    let gateway = Gateway::start(binary, &config, &keys).await?;

    // The first requests of a process are slower, on either route.
    for path in ["/alone", "/mirrored"] {
        measure(&gateway, path).await?;
    }
    let (mut alone, mut mirrored) = (Report::default(), Report::default());
    let mut most_hanging = 0;
    for pair in 0..PAIRS {
        let mut order = [("/alone", &mut alone), ("/mirrored", &mut mirrored)];
        if pair % 2 == 1 {
            order.reverse();
        }
        for (path, report) in order {
            report.merge(&measure(&gateway, path).await?);
            most_hanging = most_hanging.max(fleet.backend("hangs").in_flight());
        }
    }
    let outcome = async |word: &str| {
        let labels = format!("outcome=\"{word}\"");
        gateway.metric("gateway_mirrored_requests_total", &labels).await
    };
    let full = outcome("full").await?.unwrap_or(0.0);
    let timed_out = outcome("timed_out").await?.unwrap_or(0.0);
    let (without, with) = (alone.quantile(0.99), mirrored.quantile(0.99));
    let ratio = with.as_secs_f64() / without.as_secs_f64();
    Ok(vec![
        Finding::new(
            format!("p99 of a route whose mirror hangs <= {MOST} x p99 of the same route without one"),
            format!(
                "{ratio:.3} ({} with, {} without; {} requests each)",
                millis(with),
                millis(without),
                alone.sent()
            ),
            ratio <= MOST,
        ),
        Finding::new(
            "none of the requests fails",
            format!("{}; {}", alone.endings(), mirrored.endings()),
            alone.other_than(200) + mirrored.other_than(200) == 0,
        ),
        Finding::new(
            format!("at most {PLACES} copies hang, and the others are dropped and counted"),
            format!("{most_hanging} at most, {full} dropped, {timed_out} given up after their time limit"),
            (1..=PLACES).contains(&most_hanging) && full > 0.0 && timed_out > 0.0,
        ),
    ])
}

async fn measure(gateway: &Gateway, path: &str) -> Result<Report> {
    let load = Load::new(gateway.target(path)?, RATE, ROUND);
    let key = HeaderValue::from_static("caller");
    Ok(generate(load.header(HeaderName::from_static("x-api-key"), key)).await)
}

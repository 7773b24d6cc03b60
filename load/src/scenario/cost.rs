//! Measures the cost of an aggregate and of the single calls that it replaces, in processor time of the gateway.

use std::path::Path;

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Behaviour, Fault, Fleet, Keep, Spec};

use super::Finding;
use super::gateway::Gateway;
use super::steady::steady;
use crate::Result;

const CONFIG: &str = r#"
callers: { api_keys: { file: keys.yaml } }
tiers:
  unbounded: { rate: 100000/s, burst: 100000 }
backends:
  a: { endpoints: [{ url: "http://@a@" }] }
  b: { endpoints: [{ url: "http://@b@" }] }
  c: { endpoints: [{ url: "http://@c@" }] }
routes:
  one: { match: { path: "/one" }, access: { any_of: [api_key] }, backend: a }
  three:
    match: { path: "/three" }
    access: { any_of: [api_key] }
    aggregate:
      parts:
        a: { backend: a, path: "/a" }
        b: { backend: b, path: "/b" }
        c: { backend: c, path: "/c" }
"#;

const ROUNDS: usize = 5;
const CALLERS: usize = 32;
const EACH: usize = 500;
const MOST: f64 = 3.3;

pub(super) async fn run(binary: &Path) -> Result<Vec<Finding>> {
    let names = ["a", "b", "c"];
    let kilobyte = Behaviour::always(Fault::HugeBody { bytes: 1024 });
    let specs = names.map(|name| Spec::new(name).keep(Keep::NOTHING).behaviour(kilobyte.clone()));
    let fleet = Fleet::start(specs).await?;
    let config = names.iter().fold(CONFIG.to_owned(), |config, name| {
        config.replace(&format!("@{name}@"), &fleet.address(name).to_string())
    });
    let keys = key_file(&[KeyLine::new("caller", "caller", "caller").tier("unbounded")]);
    let gateway = Gateway::start(binary, &config, &keys).await?;
    // Opens connections and loads code before the measurement.
    micros(&gateway, "/one").await?;
    micros(&gateway, "/three").await?;
    let (mut one, mut three) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        one.push(micros(&gateway, "/one").await?);
        three.push(micros(&gateway, "/three").await?);
    }
    let (one, three) = (median(one), median(three));
    Ok(vec![Finding::new(
        format!("an aggregate of three 1 KB parts costs at most {MOST} x one proxied request (medians of {ROUNDS})"),
        format!("{three:.1} µs against {one:.1} µs: {:.2} x", three / one),
        three <= MOST * one,
    )])
}

/// Returns the gateway's processor time for each request, in microseconds.
async fn micros(gateway: &Gateway, path: &str) -> Result<f64> {
    let before = seconds(gateway).await?;
    let report = steady(gateway, &gateway.get(path, "caller")?, CALLERS, |sent| sent == EACH).await?;
    if report.other_than(200) > 0 {
        return Err(format!("{path}: {}", report.endings()).into());
    }
    Ok(1e6 * (seconds(gateway).await? - before) / report.sent() as f64)
}

async fn seconds(gateway: &Gateway) -> Result<f64> {
    let seconds = gateway.metric("process_cpu_seconds_total", "").await?;
    Ok(seconds.ok_or("the gateway does not say what processor time it took")?)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

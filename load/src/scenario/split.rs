//! Asks as each of ten thousand tenants which version of a backend answers it, at two replicas of the gateway.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Fleet, Keep, Spec};
use http::{HeaderValue, StatusCode};
use tokio::task::JoinSet;
use tokio::time::Duration;

use super::Finding;
use super::gateway::Gateway;
use crate::Result;
use crate::client::Client;

const CONFIG: &str = r#"
callers: { api_keys: { file: keys.yaml } }
tiers:
  unbounded: { rate: 100000/s, burst: 100000 }
backends:
  v1: { endpoints: [{ url: "http://@v1@" }], bulkhead: { limit: 100 } }
  v2: { endpoints: [{ url: "http://@v2@" }], bulkhead: { limit: 100 } }
routes:
  users:
    match: { path: "/users" }
    access: { any_of: [api_key] }
    rewrite: "/status/200"
    split: [{ backend: v2, percent: @percent@, key: tenant }, { backend: v1 }]
"#;

const TENANTS: usize = 10_000;
const CLIENTS: usize = 16;
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn run(binary: &Path) -> Result<Vec<Finding>> {
    let fleet = Fleet::start(["v1", "v2"].map(|name| Spec::new(name).keep(Keep::NOTHING))).await?;
    let config = |percent: u32| {
        CONFIG
            .replace("@v1@", &fleet.address("v1").to_string())
            .replace("@v2@", &fleet.address("v2").to_string())
            .replace("@percent@", &percent.to_string())
    };
    let keys: Vec<KeyLine> = (0..TENANTS)
        .map(|tenant| KeyLine::new(&format!("k{tenant}"), &format!("tenant-{tenant}"), &key(tenant)).tier("unbounded"))
        .collect();
    let keys = key_file(&keys);
    let one = Gateway::start(binary, &config(5), &keys).await?;
    let other = Gateway::start(binary, &config(5), &keys).await?;
    let at_5 = [in_v2(&one).await?, in_v2(&other).await?];
    one.reload(&config(10)).await?;
    other.reload(&config(10)).await?;
    let at_10 = [in_v2(&one).await?, in_v2(&other).await?];

    let share = |chosen: &[bool]| count(chosen) as f64 / TENANTS as f64 * 100.0;
    let left = at_5[0]
        .iter()
        .zip(&at_10[0])
        .filter(|(before, after)| **before && !**after);
    let left = left.count();
    let differ = |[one, other]: &[Vec<bool>; 2]| one.iter().zip(other).filter(|(one, other)| one != other).count();
    let mut different = String::new();
    write!(different, "{} at 5 %, {} at 10 %", differ(&at_5), differ(&at_10))?;
    Ok(vec![
        Finding::new(
            format!("{TENANTS} tenants at 5 %: 4.5 to 5.5 % go to v2"),
            format!("{:.2} %; at 10 % {:.2} %", share(&at_5[0]), share(&at_10[0])),
            (4.5..=5.5).contains(&share(&at_5[0])),
        ),
        Finding::new(
            "from 5 to 10 %: nobody leaves v2",
            format!("{left} of {} left, {} in all then", count(&at_5[0]), count(&at_10[0])),
            left == 0 && count(&at_10[0]) > count(&at_5[0]),
        ),
        Finding::new(
            "two replicas send each tenant to the same version",
            format!("tenants for which they differ: {different}"),
            differ(&at_5) + differ(&at_10) == 0,
        ),
    ])
}

fn key(tenant: usize) -> String {
    format!("key-{tenant}")
}

fn count(chosen: &[bool]) -> usize {
    chosen.iter().filter(|chosen| **chosen).count()
}

/// Returns for each tenant whether v2 answers it.
async fn in_v2(gateway: &Gateway) -> Result<Vec<bool>> {
    let request = Arc::new(gateway.get("/users", "none")?);
    let mut clients = JoinSet::new();
    for first in 0..CLIENTS {
        let (address, request) = (gateway.address, Arc::clone(&request));
        clients.spawn(async move {
            let mut client = Client::new(address);
            let mut answers = Vec::new();
            for tenant in (first..TENANTS).step_by(CLIENTS) {
                let mut request = (*request).clone();
                request
                    .headers_mut()
                    .insert("x-api-key", HeaderValue::from_str(&key(tenant))?);
                let answer = client.ask(request, PATIENCE).await;
                let answer = answer.map_err(|fault| format!("tenant {tenant}: {fault}"))?;
                if answer.status() != StatusCode::OK {
                    return Err(format!("tenant {tenant}: {}", answer.status()).into());
                }
                let backend = answer.headers().get("x-backend").cloned();
                let backend = backend.ok_or_else(|| format!("tenant {tenant}: no backend answered"))?;
                answers.push((tenant, backend == "v2"));
            }
            Ok::<_, crate::Error>(answers)
        });
    }
    let mut all = vec![false; TENANTS];
    while let Some(answers) = clients.join_next().await {
        for (tenant, is_v2) in answers?? {
            all[tenant] = is_v2;
        }
    }
    Ok(all)
}

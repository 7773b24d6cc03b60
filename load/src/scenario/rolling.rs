//! Restarts two endpoints of one backend in turn, as in a rolling release, and checks that no GET fails.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Behaviour, Fleet, Keep, Spec};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Finding;
use super::gateway::Gateway;
use crate::Result;
use crate::client::Client;

/// Config in which the backend has only default settings.
const CONFIG: &str = r#"
callers: { api_keys: { file: keys.yaml } }
tiers:
  unbounded: { rate: 100000/s, burst: 100000 }
backends:
  pair: { endpoints: [{ url: "http://@one@" }, { url: "http://@two@" }] }
routes:
  pair: { match: { path: "/status/{code}" }, access: { any_of: [api_key] }, backend: pair }
"#;

const CLIENTS: usize = 4;
const ROUNDS: usize = 3;
const DOWN_FOR: Duration = Duration::from_secs(2);
/// Pause from the return of one endpoint to the end of the other.
const BETWEEN: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn run(binary: &Path) -> Result<Vec<Finding>> {
    let fleet = Fleet::start(["one", "two"].map(|name| Spec::new(name).keep(Keep::NOTHING))).await?;
    let config = ["one", "two"].iter().fold(CONFIG.to_owned(), |config, name| {
        config.replace(&format!("@{name}@"), &fleet.address(name).to_string())
    });
    let keys = key_file(&[KeyLine::new("caller", "caller", "caller").tier("unbounded")]);
    let gateway = Gateway::start(binary, &config, &keys).await?;
    let done = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (address, request, done) = (
            gateway.address,
            gateway.get("/status/200", "caller")?,
            Arc::clone(&done),
        );
        clients.spawn(async move {
            let mut client = Client::new(address);
            let mut endings: BTreeMap<String, usize> = BTreeMap::new();
            while !done.load(Ordering::Relaxed) {
                let ended = client.ask(request.clone(), PATIENCE).await;
                let ended = ended.map_or_else(|fault| fault.to_string(), |answer| answer.status().as_u16().to_string());
                *endings.entry(ended).or_default() += 1;
                // Limits the rate to some hundreds of requests a second. Without it the clients would fill the log of a
                // slow machine.
                sleep(Duration::from_millis(2)).await;
            }
            endings
        });
    }
    for _ in 0..ROUNDS {
        for name in ["one", "two"] {
            sleep(BETWEEN).await;
            let backend = fleet.backend(name);
            backend.behave(Behaviour::refusing()).await;
            backend.reset_connections();
            sleep(DOWN_FOR).await;
            backend.heal().await;
        }
    }
    sleep(BETWEEN).await;
    done.store(true, Ordering::Relaxed);
    let mut endings: BTreeMap<String, usize> = BTreeMap::new();
    for (ended, count) in clients.join_all().await.into_iter().flatten() {
        *endings.entry(ended).or_default() += count;
    }
    let served = endings.get("200").copied().unwrap_or(0);
    let failed = endings.values().sum::<usize>() - served;
    Ok(vec![Finding::new(
        format!(
            "two endpoints, each down for {DOWN_FOR:?} in turn, {ROUNDS} rounds, {CLIENTS} clients one GET after the other: none fails"
        ),
        format!("{served} served, {failed} failed: {endings:?}"),
        failed == 0 && served > 1000,
    )])
}

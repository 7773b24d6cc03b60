//! Checks that an aggregate of three parts takes as long as its slowest part, and that its document does not depend on
//! the order of the answers.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Behaviour, Fleet, Keep, Latency, Spec};
use tokio::task::JoinSet;

use super::Finding;
use super::gateway::Gateway;
use crate::Result;
use crate::client::{Client, ending};
use crate::report::{Report, millis};

const CONFIG: &str = r#"
callers: { api_keys: { file: keys.yaml } }
tiers:
  unbounded: { rate: 100000/s, burst: 100000 }
backends:
  a: { endpoints: [{ url: "http://@a@" }] }
  b: { endpoints: [{ url: "http://@b@" }] }
  c: { endpoints: [{ url: "http://@c@" }] }
routes:
  all:
    match: { path: "/all", methods: [GET] }
    access: { any_of: [api_key] }
    aggregate:
      parts:
        a: { backend: a, path: "/status/200" }
        b: { backend: b, path: "/status/200" }
        c: { backend: c, path: "/status/200", group: . }
"#;

const RUNS: usize = 1_000;
const AT_ONCE: usize = 8;
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn run(binary: &Path) -> Result<Vec<Finding>> {
    let names = ["a", "b", "c"];
    let specs = (1..)
        .zip(names)
        .map(|(seed, name)| Spec::new(name).keep(Keep::NOTHING).seed(seed));
    let fleet = Fleet::start(specs).await?;
    let config = names.iter().fold(CONFIG.to_owned(), |config, name| {
        config.replace(&format!("@{name}@"), &fleet.address(name).to_string())
    });
    let keys = key_file(&[KeyLine::new("caller", "caller", "caller").tier("unbounded")]);
    let gateway = Gateway::start(binary, &config, &keys).await?;
    let behave = async |latency| {
        for backend in fleet.backends() {
            backend.behave(Behaviour::late(latency)).await;
        }
    };
    behave(Latency::fixed(100)).await;
    let at_once = as_long_as_one(&gateway).await?;
    behave(Latency::Uniform { from_ms: 0, to_ms: 10 }).await;
    Ok(vec![at_once, always_the_same(&gateway).await?])
}

async fn as_long_as_one(gateway: &Gateway) -> Result<Finding> {
    let mut client = Client::new(gateway.address);
    let mut report = Report::default();
    for _ in 0..20 {
        let asked = Instant::now();
        let ended = client.ask(gateway.get("/all", "caller")?, PATIENCE).await;
        report.note(ending(&ended), asked.elapsed());
    }
    let (median, worst) = (report.quantile(0.5), report.max());
    Ok(Finding::new(
        "three parts of 100 ms answer in about 100 ms (median of 20 within 120)",
        format!(
            "median {}, longest {}; {}",
            millis(median),
            millis(worst),
            report.endings()
        ),
        report.other_than(200) == 0 && median <= Duration::from_millis(120),
    ))
}

async fn always_the_same(gateway: &Gateway) -> Result<Finding> {
    let mut callers = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (address, request) = (gateway.address, gateway.get("/all", "caller")?);
        callers.spawn(async move {
            let mut client = Client::new(address);
            let mut seen = vec![];
            for _ in 0..RUNS / AT_ONCE {
                seen.push(match client.ask(request.clone(), PATIENCE).await {
                    Ok(answer) => format!("{} {}", answer.status(), String::from_utf8_lossy(answer.body())),
                    Err(fault) => fault.to_string(),
                });
            }
            seen
        });
    }
    let mut documents: BTreeMap<String, usize> = BTreeMap::new();
    for document in callers.join_all().await.into_iter().flatten() {
        *documents.entry(document).or_default() += 1;
    }
    let right = documents.len() == 1 && documents.keys().all(|document| document.starts_with("200 "));
    let shown: Vec<String> = documents
        .iter()
        .take(3)
        .map(|(document, count)| format!("{count} x `{document}`"))
        .collect();
    Ok(Finding::new(
        format!("the same document in {RUNS} runs, each part answering after 0 to 10 ms at random"),
        format!("{} different: {}", documents.len(), shown.join(", ")),
        right,
    ))
}

//! Changes tenants a thousand times by four writers beside a load, then kills the gateway during changes.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Fleet, Keep, Spec};
use http::{HeaderName, HeaderValue, Method};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::Finding;
use super::gateway::{Gateway, Signal};
use crate::Result;
use crate::generate::{Load, generate};
use crate::report::{Report, millis};

const RATE: f64 = 2_000.0;
/// Duration of each of the two loads.
const FOR: Duration = Duration::from_secs(16);
/// Time into the second load at which the writers begin.
const QUIET: Duration = Duration::from_secs(2);
const EACH: u64 = 250;
/// Interval between the changes of one writer, which all have ended before the load does.
const EVERY: Duration = Duration::from_millis(40);
/// Largest difference of the 99th percentiles with and without changes.
const DIFFERENCE: Duration = Duration::from_millis(5);
/// Number of kills with a short file, and with one that is changed in part.
const KILLS: u64 = 100;
const MANY: usize = 10_000;

const CONFIG: &str = r#"
overload: off
callers: { api_keys: { file: keys.yaml } }
tenants: { file: tenants.yaml }
tiers: { open: { rate: 1000000/s, burst: 1000000 } }
backends:
  fast: { endpoints: [{ url: "http://@fast@" }], bulkhead: { limit: 1000, queue: 1000, wait: 5s } }
routes:
  all: { match: { path: "/all" }, access: { any_of: [api_key] }, backend: fast }
"#;

const TENANT: &str = "/api/v1/tenants/globex";

pub(super) async fn run(binary: &Path) -> Result<Vec<Finding>> {
    let fleet = Fleet::start([Spec::new("fast").keep(Keep::NOTHING)]).await?;
    let config = CONFIG.replace("@fast@", &fleet.address("fast").to_string());
    let keys = key_file(&[KeyLine::new("load", "acme", "load").tier("open")]);
    let start = async |tenants: &str| {
        Gateway::start_with(binary, &config, &[("keys.yaml", &keys), ("tenants.yaml", tenants)]).await
    };
    let gateway = start(&file(0, None)).await?;
    let mut findings = beside_a_load(&gateway).await?;
    drop(gateway);
    for entries in [0, MANY] {
        findings.push(kills(binary, start(&file(entries, None)).await?, entries).await?);
    }
    Ok(findings)
}

/// Returns the text of a file of tenants, with so many more entries, and with this count in the label of one.
fn file(more: usize, count: Option<u64>) -> String {
    let filler: String = (0..more)
        .map(|number| format!("  t{number}: {{ tier: free }}\n"))
        .collect();
    let label = count.map_or_else(String::new, |count| format!(", labels: {{ count: \"{count}\" }}"));
    format!(
        "# Customers\ntenants:\n{filler}  globex: {{ tier: free{label} }} # one\n  acme: {{ tier: open }}\n# The end.\n"
    )
}

async fn load(gateway: &Gateway) -> Result<Report> {
    let load = Load::new(gateway.target("/all")?, RATE, FOR).connections(16);
    let (name, key) = (HeaderName::from_static("x-api-key"), HeaderValue::from_static("load"));
    Ok(generate(load.header(name, key)).await)
}

async fn beside_a_load(gateway: &Gateway) -> Result<Vec<Finding>> {
    let quiet = load(gateway).await?;
    let tried_again = AtomicU64::new(0);
    let writing = async {
        sleep(QUIET).await;
        let began = Instant::now();
        let write = |writer| write(gateway, writer, &tried_again);
        let (one, two, three, four) = tokio::try_join!(write(0), write(1), write(2), write(3))?;
        let mut took = [one, two, three, four].concat();
        took.sort();
        Result::Ok((took, began.elapsed()))
    };
    let (busy, written) = tokio::join!(load(gateway), writing);
    let (busy, (took, lasted)) = (busy?, written?);

    let shown: Value = serde_json::from_str(&gateway.admin_page(TENANT).await?)?;
    let last = (EACH - 1).to_string();
    let expected = json!({ "w0": last, "w1": last, "w2": last, "w3": last });
    let text = gateway.file("tenants.yaml")?;
    let audited = gateway.log()?.matches("audit:").count() as u64;
    let differing = text
        .lines()
        .filter(|line| !file(0, None).lines().any(|old| old == *line));
    let differing: Vec<_> = differing.collect();
    let is_whole = matches!(differing[..], [line] if line.contains("globex") && line.ends_with("# one"));
    let conflicts = tried_again.load(Relaxed);
    Ok(vec![
        Finding::new(
            "1,000 changes of one tenant by four writers with If-Match: none is lost",
            format!(
                "{} changes in {:.1} s, {conflicts} refused with 412 and tried again; a change takes {} in the middle, p99 {}",
                took.len(),
                lasted.as_secs_f64(),
                millis(took[took.len() / 2]),
                millis(took[took.len() * 99 / 100]),
            ),
            shown["record"]["labels"] == expected && is_whole && audited == 4 * EACH,
        ),
        Finding::new(
            format!("{RATE} requests/s beside them: none fails"),
            busy.endings(),
            busy.other_than(200) == 0 && busy.sent() > 0 && QUIET + lasted < FOR,
        ),
        Finding::new(
            format!("their p99 is that without changes, within {DIFFERENCE:?}"),
            format!(
                "p99 {} with changes, {} without; longest {} and {}",
                millis(busy.quantile(0.99)),
                millis(quiet.quantile(0.99)),
                millis(busy.max()),
                millis(quiet.max())
            ),
            busy.quantile(0.99) <= quiet.quantile(0.99) + DIFFERENCE,
        ),
    ])
}

/// Changes a label of its own again and again. Returns how long each change took.
async fn write(gateway: &Gateway, writer: usize, tried_again: &AtomicU64) -> Result<Vec<Duration>> {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut took = Vec::new();
    for number in 0..EACH {
        tick.tick().await;
        loop {
            let shown = gateway.ask(Method::GET, TENANT, None, None).await?;
            let tag = shown.headers().get("etag").ok_or("an entry has no tag")?;
            let mut labels = json!({});
            labels[format!("w{writer}")] = number.to_string().into();
            let body = json!({ "labels": labels });
            let began = Instant::now();
            let answer = gateway.ask(Method::PATCH, TENANT, Some(&body), Some(tag)).await?;
            match answer.status().as_u16() {
                200 => break took.push(began.elapsed()),
                412 => tried_again.fetch_add(1, Relaxed),
                status => return Err(format!("a change was answered with {status}").into()),
            };
        }
    }
    Ok(took)
}

async fn kills(binary: &Path, mut gateway: Gateway, entries: usize) -> Result<Finding> {
    let (mut last, mut number) = (None, 0);
    let (mut old, mut new, mut neither) = (0, 0, 0);
    for _ in 0..KILLS {
        let changing = async {
            loop {
                number += 1;
                let body = json!({ "labels": { "count": number.to_string() } });
                match gateway.ask(Method::PATCH, TENANT, Some(&body), None).await {
                    Ok(answer) if answer.status().as_u16() == 200 => last = Some(number),
                    Ok(answer) => return Err(format!("a change was answered with {}", answer.status()).into()),
                    Err(_) => return Result::Ok(()),
                }
            }
        };
        let killing = async {
            sleep(Duration::from_micros(fastrand::u64(5_000..60_000))).await;
            gateway.signal(Signal::Kill).await
        };
        let (changed, killed) = tokio::join!(changing, killing);
        changed.and(killed)?;
        let text = gateway.file("tenants.yaml")?;
        if text == file(entries, last) {
            old += 1;
        } else if text == file(entries, Some(number)) {
            (new, last) = (new + 1, Some(number));
        } else {
            neither += 1;
        }
        gateway.start_again(binary).await?;
    }
    Ok(Finding::new(
        format!(
            "kill -9 at {KILLS} random moments of changes of a file of {} entries: it is the one before or after a change",
            entries + 2
        ),
        format!("{old} times the one answered last, {new} times the one whose answer was cut, {neither} times neither"),
        neither == 0 && old + new == KILLS,
    ))
}

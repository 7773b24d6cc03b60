//! Reloads every 100 ms for a minute through the admin API, under callers of HTTP/1.1 and HTTP/2, and checks that nothing
//! fails, that nothing is refilled or forgotten, and that memory stays level.
//!
//! Two configs take turns: they differ in the limit of one tier and in one route. What a tenant may be admitted follows
//! from its rate, its burst and the time alone, so a bucket that a reload refilled would admit more.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Behaviour, Fleet, Keep, Spec};
use h2::client::SendRequest;
use http::{HeaderName, HeaderValue, Request, StatusCode};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::super::Finding;
use super::super::gateway::Gateway;
use crate::Result;
use crate::client::{Client, Fault, ending};
use crate::generate::{Load, generate};
use crate::report::{Report, millis};

const CONFIG: &str = r#"
time_limits: { request: 180s }
callers: { api_keys: { file: keys.yaml } }
tiers:
  unbounded: { rate: 100000/s, burst: 100000 }
  slow: { rate: 20/s, burst: 40 }
  fast: { rate: 50/s, burst: 100 }
  once: { rate: 1/h, burst: 5 }
  changed: { rate: @rate@/s, burst: @burst@ }
tenants:
  holder: { tier: unbounded, in_flight: 1 }
backends:
  fast: { endpoints: [{ url: "http://@fast@" }], bulkhead: { limit: 1000, queue: 1000, wait: 5s } }
  sick: { endpoints: [{ url: "http://@sick@" }], retry: off, breaker: { min_calls: 5, failure_ratio: 0.5, open_for: 1h } }
  held: { endpoints: [{ url: "http://@held@" }], time_limit: 170s, attempt_limit: 170s, retry: off, bulkhead: { limit: 1, queue: 0 } }
routes:
  all: { match: { path: "/all" }, access: { any_of: [api_key] }, backend: fast }
  sick: { match: { path: "/sick" }, access: { any_of: [api_key] }, backend: sick }
  held: { match: { path: "/held" }, access: { any_of: [api_key] }, backend: held }
  home:
    match: { path: "/home" }
    access: { any_of: [api_key] }
    aggregate:
      parts:
        one: { backend: fast, path: "/one" }
        two: { backend: fast, path: "/two" }
"#;

const ADDED: &str =
    "  added: { match: { path: \"/added\" }, access: { any_of: [api_key] }, respond: { status: 204 } }\n";

const FOR: Duration = Duration::from_secs(60);
const EVERY: Duration = Duration::from_millis(100);
/// Length of the run without reloads, with which latencies are compared.
const CALM: Duration = Duration::from_secs(10);
const BUSY: f64 = 400.0;
/// Requests in a second of all tenants whose admitted requests are counted; the run without reloads has as many.
const METERED_RATE: f64 = 275.0;
/// Largest growth of resident memory. A plan that each reload leaked would be more than this.
const MOST_GROWTH: f64 = 8.0;
/// Time at each end of the minute in which memory is sampled.
const SAMPLED: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(10);

/// Tenant whose admitted requests are counted.
struct Metered {
    name: &'static str,
    rate: f64,
    burst: f64,
    /// Requests in a second, above the rate.
    sent: f64,
    over_http2: bool,
}

const METERED: [Metered; 3] = [
    Metered {
        name: "slow",
        rate: 20.0,
        burst: 40.0,
        sent: 60.0,
        over_http2: false,
    },
    Metered {
        name: "fast",
        rate: 50.0,
        burst: 100.0,
        sent: 110.0,
        over_http2: true,
    },
    Metered {
        name: "once",
        rate: 1.0 / 3600.0,
        burst: 5.0,
        sent: 5.0,
        over_http2: true,
    },
];
/// Numbers that the tier `changed` has in turn: rate and burst.
const CHANGED: [(f64, f64); 2] = [(10.0, 20.0), (20.0, 40.0)];

pub(super) async fn run(binary: &Path) -> Result<Vec<Finding>> {
    let names = ["fast", "sick", "held"];
    let fleet = Fleet::start(names.map(|name| Spec::new(name).keep(Keep::NOTHING))).await?;
    fleet.backend("sick").behave(Behaviour::status(500)).await;
    let held = fleet.backend("held");
    held.close_gate();
    let written = names.iter().fold(CONFIG.to_owned(), |config, name| {
        config.replace(&format!("@{name}@"), &fleet.address(name).to_string())
    });
    let [one, other] = CHANGED.map(|(rate, burst)| {
        let config = written.replace("@rate@", &rate.to_string());
        config.replace("@burst@", &burst.to_string())
    });
    let configs = [format!("{one}{ADDED}"), other];
    let tiers = [
        ("busy", "unbounded"),
        ("holder", "unbounded"),
        ("slow", "slow"),
        ("fast", "fast"),
        ("once", "once"),
        ("changed", "changed"),
    ];
    let lines = tiers.map(|(name, tier)| KeyLine::new(name, name, name).tier(tier));
    let gateway = Gateway::start(binary, &configs[0], &key_file(&lines)).await?;

    // State that no reload may change: a request under way, that holds a slot and a tenant's place, and an open breaker.
    let under_way = tokio::spawn({
        let (mut client, request) = (Client::new(gateway.address), gateway.get("/held", "holder")?);
        async move { ending(&client.ask(request, FOR * 3).await) }
    });
    held.wait_for(|counts| counts.at_gate == 1, LIMIT)
        .await
        .map_err(|_| "the request that is held does not arrive")?;
    for _ in 0..5 {
        answered(&gateway, "/sick", "busy").await?;
    }
    let over = Arc::new(AtomicBool::new(false));
    let callers = beside(&gateway, &over);
    let others = generate(paced(&gateway, "busy", METERED_RATE, CALM)?);
    let (calm, _) = tokio::join!(generate(load(&gateway, CALM)?), others);
    over.store(true, Relaxed);
    for caller in callers {
        caller.await?;
    }

    let over = Arc::new(AtomicBool::new(false));
    let [h2_busy, home] = beside(&gateway, &over);
    let metered: Vec<JoinHandle<Report>> = METERED
        .iter()
        .map(|tenant| {
            let over = Arc::clone(&over);
            if tenant.over_http2 {
                Ok(tokio::spawn(over_http2(
                    gateway.address,
                    tenant.name,
                    tenant.sent,
                    over,
                )))
            } else {
                Ok(tokio::spawn(generate(paced(&gateway, tenant.name, tenant.sent, FOR)?)))
            }
        })
        .collect::<Result<_>>()?;
    let changed = tokio::spawn(generate(paced(&gateway, "changed", 100.0, FOR)?));
    let (busy, reloads) = tokio::join!(generate(load(&gateway, FOR)?), reload(&gateway, &configs));
    over.store(true, Relaxed);
    let reloads = reloads?;
    let (h2_busy, home, changed) = (h2_busy.await?, home.await?, changed.await?);
    held.open_gate();
    let under_way = under_way.await?;

    let mut findings = vec![
        reloads.finding(),
        none_fails(&format!("{BUSY} GETs/s over 16 connections of HTTP/1.1"), &busy),
        none_fails("200 GETs/s over one connection of HTTP/2", &h2_busy),
        none_fails("50 aggregates/s, each of them complete", &home),
        latency(&calm, &busy),
    ];
    for (tenant, report) in METERED.iter().zip(metered) {
        findings.push(tenant.finding(&report.await?));
    }
    findings.push(of_changed(&changed));
    findings.push(reasons(&gateway).await?);
    findings.push(reloads.kept(under_way));
    findings.push(reloads.memory());
    Ok(findings)
}

/// Starts the callers that send beside those of HTTP/1.1 until the end: one of HTTP/2, and one that asks for aggregates.
fn beside(gateway: &Gateway, over: &Arc<AtomicBool>) -> [JoinHandle<Report>; 2] {
    [
        tokio::spawn(over_http2(gateway.address, "busy", 200.0, Arc::clone(over))),
        tokio::spawn(aggregates(gateway.address, 50.0, Arc::clone(over))),
    ]
}

fn load(gateway: &Gateway, duration: Duration) -> Result<Load> {
    Ok(paced(gateway, "busy", BUSY, duration)?.connections(16))
}

fn paced(gateway: &Gateway, key: &'static str, rate: f64, duration: Duration) -> Result<Load> {
    let load = Load::new(gateway.target("/all")?, rate, duration).connections(2);
    Ok(load.header(HeaderName::from_static("x-api-key"), HeaderValue::from_static(key)))
}

async fn answered(gateway: &Gateway, path: &str, key: &'static str) -> Result<String> {
    let mut client = Client::new(gateway.address);
    let ended = ending(&client.ask(gateway.get(path, key)?, LIMIT).await);
    Ok(ended.map_or_else(|fault| fault.to_string(), |status| status.as_u16().to_string()))
}

/// What was seen during the minute.
#[derive(Default)]
struct Reloads {
    asked: usize,
    /// Generation at the beginning and at the end.
    generations: [f64; 2],
    /// Reloads after which the added route was not there as the config says.
    without_effect: usize,
    longest: Duration,
    /// Answers to requests that must be refused, by what must refuse them.
    full: Vec<String>,
    in_flight: Vec<String>,
    open: Vec<String>,
    /// Resident memory in MiB, at the beginning and at the end.
    memory: [Vec<f64>; 2],
}

async fn reload(gateway: &Gateway, configs: &[String; 2]) -> Result<Reloads> {
    let generation = async || -> Result<f64> {
        let found = gateway.metric("gateway_config_generation", "").await?;
        Ok(found.unwrap_or_default())
    };
    let mut seen = Reloads {
        generations: [generation().await?; 2],
        ..Reloads::default()
    };
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let start = Instant::now();
    while start.elapsed() < FOR {
        tick.tick().await;
        seen.asked += 1;
        // The first config is in force at the start.
        let is_other = seen.asked % 2 == 1;
        gateway.rewrite(&configs[usize::from(is_other)])?;
        let began = Instant::now();
        gateway.admin_post("/api/v1/reload", &json!({})).await?;
        seen.longest = seen.longest.max(began.elapsed());
        let added = answered(gateway, "/added", "busy").await?;
        seen.without_effect += usize::from(added != if is_other { "404" } else { "204" });
        seen.full.push(answered(gateway, "/held", "busy").await?);
        seen.in_flight.push(answered(gateway, "/all", "holder").await?);
        seen.open.push(answered(gateway, "/sick", "busy").await?);
        let at = start.elapsed();
        if at < SAMPLED || at > FOR - SAMPLED {
            let bytes = gateway.metric("process_resident_memory_bytes", "").await?;
            seen.memory[usize::from(at > SAMPLED)].push(bytes.unwrap_or_default() / 1024.0 / 1024.0);
        }
    }
    seen.generations[1] = generation().await?;
    Ok(seen)
}

impl Reloads {
    fn finding(&self) -> Finding {
        let [first, last] = self.generations;
        Finding::new(
            format!(
                "a reload through the admin API every {EVERY:?} for {FOR:?}: each is in force when it is answered, as a \
                 route shows that comes and goes"
            ),
            format!(
                "{} reloads, generation {first} to {last}, {} without effect; the longest took {}",
                self.asked,
                self.without_effect,
                millis(self.longest)
            ),
            self.without_effect == 0 && last - first == self.asked as f64 && self.asked >= 500,
        )
    }

    /// Judges the state that no reload may change.
    fn kept(&self, under_way: std::result::Result<StatusCode, Fault>) -> Finding {
        let all = |answers: &[String], status: &str| answers.iter().all(|answer| answer == status);
        let refused = |answers: &[String], status: &str| {
            let right = answers.iter().filter(|answer| *answer == status).count();
            format!("{right} of {} x {status}", answers.len())
        };
        Finding::new(
            "a full bulkhead stays full, a tenant's only place taken and a breaker open; the request under way ends well",
            format!(
                "bulkhead {}, in flight {}, breaker {}; {under_way:?}",
                refused(&self.full, "503"),
                refused(&self.in_flight, "429"),
                refused(&self.open, "503")
            ),
            all(&self.full, "503")
                && all(&self.in_flight, "429")
                && all(&self.open, "503")
                && under_way == Ok(StatusCode::OK),
        )
    }

    fn memory(&self) -> Finding {
        let [first, last] = &self.memory;
        let mean = |samples: &[f64]| samples.iter().sum::<f64>() / samples.len() as f64;
        let most = first.iter().chain(last).copied().fold(0.0, f64::max);
        let grown = mean(last) - mean(first);
        Finding::new(
            format!(
                "resident memory: at most {MOST_GROWTH} MiB more in the last {SAMPLED:?} than in the first (means)"
            ),
            format!("{:.1} MiB, then {:.1}; at most {most:.1}", mean(first), mean(last)),
            grown <= MOST_GROWTH,
        )
    }
}

fn none_fails(what: &str, report: &Report) -> Finding {
    Finding::new(
        format!("{what} beside the reloads: none fails"),
        format!(
            "{}, p99 {}, longest {}",
            report.endings(),
            millis(report.quantile(0.99)),
            millis(report.max())
        ),
        report.other_than(200) == 0 && report.sent() as f64 > FOR.as_secs_f64() * 25.0,
    )
}

/// Judges why requests were refused, as the gateway has counted it.
async fn reasons(gateway: &Gateway) -> Result<Finding> {
    const EXPECTED: [&str; 5] = [
        "rate_limited",
        "too_many_in_flight",
        "bulkhead_full",
        "breaker_open",
        "no_route",
    ];
    let page = gateway.admin_page("/metrics").await?;
    let refused = page.lines().filter_map(|line| {
        let (labels, count) = line.strip_prefix("gateway_rejections_total{")?.rsplit_once("} ")?;
        let reason = labels.split("reason=\"").nth(1)?.trim_end_matches('"');
        (count != "0").then(|| (reason.to_owned(), count.parse::<u64>().unwrap_or(u64::MAX)))
    });
    let mut by_reason = BTreeMap::<String, u64>::new();
    for (reason, count) in refused {
        *by_reason.entry(reason).or_default() += count;
    }
    let others = by_reason.keys().any(|reason| !EXPECTED.contains(&reason.as_str()));
    let told: Vec<String> = by_reason
        .iter()
        .map(|(reason, count)| format!("{count} x {reason}"))
        .collect();
    Ok(Finding::new(
        "requests are refused for their limit, their bulkhead, their breaker or a route that is gone, and for nothing else",
        told.join(", "),
        !others,
    ))
}

fn latency(calm: &Report, busy: &Report) -> Finding {
    let [alone, beside] = [calm, busy].map(|report| report.quantile(0.99));
    Finding::new(
        "p99 over HTTP/1.1 beside the reloads <= 3 x that of the same load without them, or 50 ms",
        format!("{} beside, {} without", millis(beside), millis(alone)),
        beside <= (alone * 3).max(Duration::from_millis(50)),
    )
}

impl Metered {
    /// The bucket is full at the first request and earns at most from before it until the last answer.
    fn finding(&self, report: &Report) -> Finding {
        let owed = |time: Duration| self.burst + self.rate * time.as_secs_f64();
        let (least, most) = (owed(report.inner.duration()).floor() - 1.0, owed(report.span).ceil());
        let admitted = report.status(200) as f64;
        let version = if self.over_http2 { "HTTP/2" } else { "HTTP/1.1" };
        Finding::new(
            format!(
                "tenant {}, {}/s over {version}: admitted are its burst and its rate, {least} to {most}",
                self.name, self.sent
            ),
            report.endings(),
            (least..=most).contains(&admitted) && admitted as u64 + report.status(429) == report.sent(),
        )
    }
}

/// Judges the tenant whose rate and burst change with each reload: it earns at least the lower rate, and at most the
/// higher one and the larger burst.
fn of_changed(report: &Report) -> Finding {
    let [(low, _), (high, burst)] = CHANGED;
    let least = (low * report.inner.duration().as_secs_f64()).floor();
    let most = (burst + high * report.span.as_secs_f64()).ceil();
    let admitted = report.status(200) as f64;
    Finding::new(
        format!(
            "the tenant whose limit changes between {low}/s and {high}/s, 100/s: admitted {least} to {most}, nothing is \
             refilled"
        ),
        report.endings(),
        (least..=most).contains(&admitted) && admitted as u64 + report.status(429) == report.sent(),
    )
}

/// Sends GETs at this rate over one connection of HTTP/2 until the end. A connection that ends is a fault of each request
/// from then on.
async fn over_http2(address: SocketAddr, key: &'static str, rate: f64, over: Arc<AtomicBool>) -> Report {
    let mut report = Report::default();
    let mut sender = open_http2(address).await;
    let mut tick = interval(Duration::from_secs_f64(1.0 / rate));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let start = Instant::now();
    while !over.load(Relaxed) {
        tick.tick().await;
        let sent = Instant::now();
        let ended = match &mut sender {
            Ok(sender) => timeout(LIMIT, ask_http2(sender, address, key)).await,
            Err(_) => Ok(Err(h2::Reason::CONNECT_ERROR.into())),
        };
        let ended = match ended {
            Ok(ended) => ended.map_err(|_| Fault::Broken),
            Err(_) => Err(Fault::TimedOut),
        };
        report.note(ended, sent.elapsed());
        report.span = start.elapsed();
        report.inner.note(sent.duration_since(start), report.span);
    }
    report
}

async fn open_http2(address: SocketAddr) -> Result<SendRequest<Bytes>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn ask_http2(
    sender: &mut SendRequest<Bytes>,
    address: SocketAddr,
    key: &str,
) -> std::result::Result<StatusCode, h2::Error> {
    let mut ready = sender.clone().ready().await?;
    let request = Request::get(format!("http://{address}/all")).header("x-api-key", key);
    let (answer, _) = ready.send_request(request.body(()).expect("a valid request"), true)?;
    let mut answer = answer.await?;
    while let Some(piece) = answer.body_mut().data().await {
        let piece: Bytes = piece?;
        answer.body_mut().flow_control().release_capacity(piece.len())?;
    }
    Ok(answer.status())
}

/// Asks for the aggregate at this rate until the end. An incomplete answer is a fault.
async fn aggregates(address: SocketAddr, rate: f64, over: Arc<AtomicBool>) -> Report {
    let mut report = Report::default();
    let mut client = Client::new(address);
    let mut tick = interval(Duration::from_secs_f64(1.0 / rate));
    while !over.load(Relaxed) {
        tick.tick().await;
        let request = Request::get("/home").header("host", "a").header("x-api-key", "busy");
        let request = request.body(Default::default()).expect("a valid request");
        let sent = Instant::now();
        let answer = client.ask(request, LIMIT).await;
        let is_partial = |answer: &http::Response<Bytes>| {
            answer.status() == StatusCode::OK
                && answer.headers().get("x-gateway-complete") != Some(&HeaderValue::from_static("true"))
        };
        let ended = match &answer {
            Ok(answer) if is_partial(answer) => Err(Fault::Broken),
            _ => ending(&answer),
        };
        report.note(ended, sent.elapsed());
    }
    report
}

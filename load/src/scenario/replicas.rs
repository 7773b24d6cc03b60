//! Loads three gateways that share their limits through one Redis, and counts what they admit and what they ask of it.

use std::path::Path;
use std::time::{Duration, Instant};

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::faulty_proxy::FaultyProxy;
use fixtures::fleet::{Fleet, Keep, Spec};
use fixtures::redis_server::RedisServer;
use http::{HeaderName, HeaderValue};
use policies::Ratio;
use policies::lease::LeaseTerms;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Finding;
use super::gateway::Gateway;
use super::steady::steady;
use crate::Result;
use crate::generate::{Load, generate};
use crate::report::{Report, millis};

const REPLICAS: u32 = 3;
const FOR: Duration = Duration::from_secs(30);
const LEASE_TIME: Duration = Duration::from_secs(2);

/// Built-in tiers with their rates; the burst is twice the rate.
const TIERS: [(&str, f64); 4] = [
    ("free", 10.0),
    ("basic", 50.0),
    ("premium", 200.0),
    ("enterprise", 1000.0),
];

/// Number of tenants that each ask at half their rate.
const CROWD: usize = 1000;

const CONFIG: &str = r#"
overload: off
limits_store: { redis: { url: "redis://@store@" } }
callers: { api_keys: { file: keys.yaml } }
tiers:
  crowd: { rate: 4/s, burst: 8 }
  open: { rate: 1000000/s, burst: 1000000 }
  here: { rate: 1000000/s, burst: 1000000, counted: local }
backends:
  fast: { endpoints: [{ url: "http://@fast@" }], bulkhead: { limit: 1000, queue: 1000, wait: 5s } }
routes:
  all: { match: { path: "/bytes/{n}" }, access: { any_of: [api_key] }, backend: fast }
  trouble:
    match: { path: "/trouble" }
    access: { any_of: [api_key] }
    rewrite: /bytes/100
    time_limit: 1s
    backend: fast
  quota:
    match: { path: "/quota" }
    access: { any_of: [api_key] }
    rewrite: /bytes/10
    limits: { month: { limit: 1000, every: month } }
    backend: fast
"#;

pub(super) async fn run(binary: &Path) -> Result<Vec<Finding>> {
    let store = RedisServer::start().ok_or("redis-server is missing")?;
    let proxy = FaultyProxy::start(store.address())?;
    let fleet = Fleet::start([Spec::new("fast").keep(Keep::NOTHING)]).await?;
    let crowd: Vec<String> = (0..CROWD).map(|number| format!("crowd-{number}")).collect();
    let mut lines: Vec<KeyLine> = ["greedy", "steady", "flood", "killed", "trouble"]
        .iter()
        .flat_map(|role| TIERS.map(|(tier, _)| (format!("{tier}-{role}"), tier)))
        .map(|(key, tier)| KeyLine::new(&key, &key, &key).tier(tier))
        .collect();
    lines.extend(crowd.iter().map(|key| KeyLine::new(key, key, key).tier("crowd")));
    for (key, tier) in [("quota", "open"), ("open", "open"), ("here", "here")] {
        lines.push(KeyLine::new(key, key, key).tier(tier));
    }
    let keys = key_file(&lines);
    let config = CONFIG.replace("@fast@", &fleet.address("fast").to_string());
    let config = config.replace("@store@", &proxy.address().to_string());
    let mut replicas = Replicas(Vec::new());
    for _ in 0..REPLICAS {
        replicas.0.push(Gateway::start(binary, &config, &keys).await?);
    }
    let mut findings = replicas.tiers().await?;
    findings.push(replicas.crowd(&crowd).await?);
    findings.push(replicas.quota().await?);
    for (tier, rate) in [TIERS[2], TIERS[3]] {
        findings.push(replicas.commands(&store, tier, rate).await?);
    }
    findings.push(replicas.flood(&store).await?);
    findings.push(replicas.idle(&store).await?);
    findings.extend(replicas.cost().await?);
    findings.push(beside(&store).await?);
    findings.push(
        replicas
            .trouble("stopped for 3 s", &store, &proxy, |store, _| store.pause())
            .await?,
    );
    let slow = |_: &RedisServer, proxy: &FaultyProxy| proxy.delay(Duration::from_millis(100));
    findings.push(replicas.trouble("200 ms away", &store, &proxy, slow).await?);
    let resets = |_: &RedisServer, proxy: &FaultyProxy| proxy.reset(0.05);
    findings.push(replicas.trouble("5 % resets", &store, &proxy, resets).await?);
    let vanishes = |_: &RedisServer, proxy: &FaultyProxy| proxy.silence();
    findings.push(replicas.trouble("silent", &store, &proxy, vanishes).await?);
    findings.push(replicas.one_is_killed().await?);
    Ok(findings)
}

/// Gateways before one backend and one store.
struct Replicas(Vec<Gateway>);

impl Replicas {
    /// Sends requests of these keys in turn, evenly over the gateways.
    async fn load(&self, path: &str, keys: &[String], rate: f64, time: Duration) -> Result<Report> {
        let mut loads = JoinSet::new();
        let each = rate / self.0.len() as f64;
        for gateway in &self.0 {
            let values = keys
                .iter()
                .map(|key| HeaderValue::from_str(key))
                .collect::<std::result::Result<_, _>>()?;
            let load = Load {
                rotating: vec![(HeaderName::from_static("x-api-key"), values)],
                ..Load::new(gateway.target(path)?, each, time)
            };
            loads.spawn(generate(load.connections(16)));
        }
        let mut whole = Report::default();
        while let Some(part) = loads.join_next().await {
            let part = part?;
            whole.span = whole.span.max(part.span);
            whole.merge(&part);
        }
        Ok(whole)
    }

    /// Loads one tenant of each tier at four times its rate.
    async fn tiers(&self) -> Result<Vec<Finding>> {
        let loads = TIERS.map(|(tier, rate)| async move {
            let report = self
                .load("/bytes/100", &[format!("{tier}-greedy")], 4.0 * rate, FOR)
                .await?;
            let burst = 2.0 * rate;
            let earned = burst + rate * report.span.as_secs_f64();
            let bound = lease_terms(burst)?.bound(rate, REPLICAS.try_into()?);
            let (admitted, most) = (report.status(200) as f64, earned + bound.on_lease as f64);
            // The last replica to answer defines the span, and the first token is earned before it is asked for.
            let least = 0.98 * (burst + rate * FOR.as_secs_f64());
            let clean = report.sent() == report.status(200) + report.status(429) && report.unsent == 0;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(Finding::new(
                format!(
                    "{tier}: at 4 x its rate for 30 s, {least:.0} to {most:.0} are admitted ({} on lease)",
                    bound.on_lease
                ),
                report.endings(),
                clean && (least..=most + 1.0).contains(&admitted),
            ))
        });
        let [free, basic, premium, enterprise] = loads;
        let (free, basic, premium, enterprise) = tokio::join!(free, basic, premium, enterprise);
        Ok(vec![free?, basic?, premium?, enterprise?])
    }

    async fn crowd(&self, keys: &[String]) -> Result<Finding> {
        let before = self.round_trips().await?;
        let time = Duration::from_secs(10);
        let report = self.load("/bytes/100", keys, 2.0 * CROWD as f64, time).await?;
        let trips = (self.round_trips().await? - before) / time.as_secs_f64() / f64::from(REPLICAS);
        Ok(Finding::new(
            format!("{CROWD} tenants at half their rate: no refusal, at most 500 round trips a second and replica"),
            format!("{}; {trips:.0} round trips a second", report.endings()),
            report.other_than(200) == 0 && report.unsent == 0 && trips <= 500.0,
        ))
    }

    async fn quota(&self) -> Result<Finding> {
        let report = self
            .load("/quota", &["quota".to_owned()], 500.0, Duration::from_secs(4))
            .await?;
        Ok(Finding::new(
            "a quota of 1,000 at 500/s over three replicas: exactly 1,000",
            report.endings(),
            report.status(200) == 1000 && report.sent() == 1000 + report.status(429),
        ))
    }

    /// Measures the store commands of a tenant at nine tenths of its rate.
    async fn commands(&self, store: &RedisServer, tier: &str, rate: f64) -> Result<Finding> {
        let lease = lease_terms(2.0 * rate)?.bound(rate, REPLICAS.try_into()?).lease;
        let keys = [format!("{tier}-steady")];
        // The store must have seen all replicas.
        self.load("/bytes/100", &keys, 0.9 * rate, Duration::from_secs(3))
            .await?;
        let before = commands(store);
        let report = self
            .load("/bytes/100", &keys, 0.9 * rate, Duration::from_secs(10))
            .await?;
        let calls = (commands(store) - before) as f64;
        let (each, most) = (calls / report.sent() as f64, 1.3 / lease as f64);
        Ok(Finding::new(
            format!("{tier}: at most 1.3 store commands for a lease of {lease}: {most:.4} a request"),
            format!("{calls} for {}: {each:.4}", report.endings()),
            each <= most && report.other_than(200) == 0,
        ))
    }

    /// Measures the store commands of a tenant that is refused most of the time.
    async fn flood(&self, store: &RedisServer) -> Result<Finding> {
        let before = commands(store);
        let time = Duration::from_secs(5);
        let report = self
            .load("/bytes/100", &["free-flood".to_owned()], 4000.0, time)
            .await?;
        let calls = commands(store) - before;
        let earned = 20.0 + 10.0 * report.span.as_secs_f64();
        Ok(Finding::new(
            "a free tenant at 400 x its rate: at most 3 store commands for each token",
            format!("{calls} for {earned:.0} tokens and {}", report.endings()),
            calls as f64 <= 3.0 * earned,
        ))
    }

    async fn idle(&self, store: &RedisServer) -> Result<Finding> {
        sleep(2 * LEASE_TIME + Duration::from_secs(1)).await;
        let (before, started) = (commands(store), Instant::now());
        sleep(Duration::from_secs(5)).await;
        let each = (commands(store) - before) as f64 / started.elapsed().as_secs_f64() / f64::from(REPLICAS);
        Ok(Finding::new(
            "an idle replica sends fewer than 5 store commands a second",
            format!("{each:.2}"),
            each < 5.0,
        ))
    }

    /// Loads one tenant while the store is in trouble for 3 s, and measures how long requests take, what is admitted, and
    /// how soon the store is used again.
    async fn trouble(
        &self,
        what: &str,
        store: &RedisServer,
        proxy: &FaultyProxy,
        harm: impl Fn(&RedisServer, &FaultyProxy),
    ) -> Result<Finding> {
        const BUDGET: Duration = Duration::from_secs(1);
        let (tier, rate) = TIERS[2];
        let keys = [format!("{tier}-trouble")];
        let on_lease = lease_terms(2.0 * rate)?.bound(rate, REPLICAS.try_into()?).on_lease as f64;
        let time = Duration::from_secs(8);
        let trouble = async {
            sleep(Duration::from_secs(2)).await;
            harm(store, proxy);
            sleep(Duration::from_secs(3)).await;
            store.resume();
            proxy.heal();
            let cured = Instant::now();
            while self.up().await? < f64::from(REPLICAS) {
                if cured.elapsed() > Duration::from_secs(10) {
                    return Err("the store is not used again".into());
                }
                sleep(Duration::from_millis(10)).await;
            }
            Ok::<_, crate::Error>(cured.elapsed())
        };
        let (report, back) = tokio::join!(self.load("/trouble", &keys, 2.0 * rate, time), trouble);
        let (report, back) = (report?, back?);
        let most = 4.0 * rate + rate * report.span.as_secs_f64() + on_lease;
        let admitted = report.status(200) as f64;
        Ok(Finding::new(
            format!(
                "store {what}: no 5xx, at most {most:.0} admitted, no request over its budget of {BUDGET:?} + 25 ms, well \
                 again within 2 s"
            ),
            format!(
                "{}; p99 {}, longest {}; well after {} ms",
                report.endings(),
                millis(report.quantile(0.99)),
                millis(report.max()),
                back.as_millis()
            ),
            report.sent() == report.status(200) + report.status(429)
                && admitted <= most
                && admitted >= 0.98 * rate * time.as_secs_f64() - on_lease
                && report.max() <= BUDGET + Duration::from_millis(25)
                && back <= Duration::from_secs(2),
        ))
    }

    /// Returns the number of replicas that reach the store.
    async fn up(&self) -> Result<f64> {
        let mut up = 0.0;
        for gateway in &self.0 {
            up += gateway.metric("gateway_store_up", "").await?.unwrap_or_default();
        }
        Ok(up)
    }

    /// Compares a limit that is leased with one that is counted in the process: the processor time of a gateway that has as
    /// much to do as it can, and the latency of one that has not, where a queue would hide it.
    async fn cost(&self) -> Result<[Finding; 2]> {
        const ROUNDS: usize = 15;
        const PACE: f64 = 1000.0;
        let gateway = &self.0[0];
        let (mut times, mut tails) = ([vec![], vec![]], [vec![], vec![]]);
        for round in 0..=ROUNDS {
            let mut kinds = [(0, "here"), (1, "open")];
            // Neither is always the second.
            if round % 2 == 1 {
                kinds.reverse();
            }
            for (kind, key) in kinds {
                let before = gateway.processor_seconds()?;
                let report = steady(gateway, &gateway.get("/bytes/100", key)?, 32, |sent| sent == 600).await?;
                times[kind].push((gateway.processor_seconds()? - before) * 1e6 / report.sent() as f64);
                let load = Load::new(gateway.target("/bytes/100")?, PACE, Duration::from_secs(2)).connections(16);
                let load = load.header(HeaderName::from_static("x-api-key"), HeaderValue::from_static(key));
                let paced = generate(load).await;
                tails[kind].push(paced.quantile(0.99).as_secs_f64() * 1e3);
                for report in [report, paced] {
                    if report.other_than(200) > 0 || report.unsent > 0 {
                        return Err(format!("{key}: {}", report.endings()).into());
                    }
                }
            }
        }
        // The first round opens connections.
        let [here, leased] = times.map(|times| median(times[1..].to_vec()));
        let [here_tail, leased_tail] = tails.map(|tails| median(tails[1..].to_vec()));
        Ok([
            Finding::new(
                "a leased limit costs at most 1.03 x the processor time of a local one (medians of 15)",
                format!("{leased:.1} against {here:.1} µs: {:.3} x", leased / here),
                leased <= 1.03 * here,
            ),
            Finding::new(
                format!("at {PACE} requests/s its p99 is at most 0.1 ms longer (medians of 15)"),
                format!("{leased_tail:.2} against {here_tail:.2} ms"),
                leased_tail <= here_tail + 0.1,
            ),
        ])
    }

    /// Kills a replica that holds leases, and measures what the tenant gets of the others.
    async fn one_is_killed(mut self) -> Result<Finding> {
        let (tier, rate) = TIERS[2];
        let keys = [format!("{tier}-killed")];
        let lease = lease_terms(2.0 * rate)?.bound(rate, REPLICAS.try_into()?).lease;
        self.load("/bytes/100", &keys, 2.0 * rate, Duration::from_secs(4))
            .await?;
        drop(self.0.pop());
        sleep(LEASE_TIME + Duration::from_secs_f64(lease as f64 / rate)).await;
        // What was earned meanwhile is spent first.
        self.load("/bytes/100", &keys, 8.0 * rate, Duration::from_secs(1))
            .await?;
        let time = Duration::from_secs(5);
        let report = self.load("/bytes/100", &keys, 2.0 * rate, time).await?;
        let share = report.status(200) as f64 / (rate * time.as_secs_f64());
        Ok(Finding::new(
            "a replica with leases killed by -9: after 2 s + lease / rate, the tenant has its whole rate",
            format!("{:.1} % of it; {}", 100.0 * share, report.endings()),
            share >= 0.98 && report.sent() == report.status(200) + report.status(429),
        ))
    }

    /// Returns how often all replicas asked the store.
    async fn round_trips(&self) -> Result<f64> {
        let mut sum = 0.0;
        for gateway in &self.0 {
            let trips = gateway.metric("gateway_store_calls_total", "").await?;
            sum += trips.ok_or("the gateway does not count its round trips to the store")?;
        }
        Ok(sum)
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn lease_terms(burst: f64) -> Result<LeaseTerms> {
    let share = Ratio::new(0.1).ok_or("the default share is a ratio")?;
    Ok(LeaseTerms::new(burst as u64, share, LEASE_TIME)?)
}

/// Measures what peers do: one script for each request.
async fn beside(store: &RedisServer) -> Result<Finding> {
    /// A token bucket as a theoretical arrival time.
    const SCRIPT: &str = "local now = redis.call('TIME'); now = now[1] * 1000000 + now[2] \
        local tat = tonumber(redis.call('GET', KEYS[1]) or now) \
        if tat < now then tat = now end \
        if tat - now > 2000000 then return 0 end \
        redis.call('SET', KEYS[1], tat + 1000, 'PX', 3000) return 1";
    let port = store.port().to_string();
    let output = Command::new("redis-benchmark")
        .args([
            "-p",
            &port,
            "-n",
            "100000",
            "-c",
            "48",
            "-q",
            "--precision",
            "3",
            "EVAL",
            SCRIPT,
            "1",
            "peer",
        ])
        .output()
        .await?;
    let said = String::from_utf8_lossy(&output.stdout);
    let last = said
        .lines()
        .flat_map(|line| line.split('\r'))
        .rfind(|line| line.contains("requests per second"));
    Ok(Finding::new(
        "one script for each request, as peers do it, beside this (for comparison)",
        last.map_or("redis-benchmark says nothing", figures),
        last.is_some(),
    ))
}

/// Returns what a line of redis-benchmark says after the command.
fn figures(line: &str) -> &str {
    line.rsplit_once(": ").map_or(line, |(_, figures)| figures).trim()
}

/// Returns the number of commands that gateways have sent, but for `INFO`, which they send twice a minute and this too.
/// The store counts those that a script calls as well, each by its own name; no script calls one of these.
fn commands(store: &RedisServer) -> u64 {
    const SENT: [&str; 4] = ["evalsha", "eval", "mget", "script|load"];
    let stats = store.command(&["INFO", "commandstats"]);
    let calls = stats.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let count = rest.split(',').next()?.parse::<u64>().ok()?;
        SENT.contains(&name).then_some(count)
    });
    calls.sum()
}

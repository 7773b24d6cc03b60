//! Kills, stops, drains and restarts the processes behind a backend under load, and checks that no GET fails.
//!
//! The endpoints are processes of their own, so that what the gateway meets is what the system does when a process is
//! gone (connections are refused) or stopped (connections are accepted and nothing is answered).

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::name_server::{Data, NameServer};
use http::{HeaderName, HeaderValue};
use serde_json::json;
use tokio::time::{Instant as TokioInstant, sleep, sleep_until};

use super::Finding;
use super::backend_process::{BackendProcess, Signal};
use super::gateway::Gateway;
use super::steady::steady;
use crate::Result;
use crate::generate::{Load, generate};
use crate::report::{Report, millis};

const CONFIG: &str = r#"
callers: { api_keys: { file: keys.yaml } }
tiers:
  unbounded: { rate: 100000/s, burst: 100000 }
backends:
  fleet:
    endpoints: @endpoints@
    health: { path: /healthz, every: 1s, time_limit: 500ms }
    attempt_limit: 1s
    bulkhead: { limit: 200 }
routes:
  fleet: { match: { path: "/delay/{ms}" }, access: { any_of: [api_key] }, backend: fleet }
"#;

const BACKEND: &str = "fleet";
/// A request takes ten milliseconds.
const PATH: &str = "/delay/10";
const RATE: f64 = 2_000.0;
const CONNECTIONS: usize = 64;
/// Time before the event of a phase.
const BEFORE: Duration = Duration::from_secs(1);
/// Time for which a process is dead or stopped.
const GONE_FOR: Duration = Duration::from_secs(6);
const DRAINED_FOR: Duration = Duration::from_secs(2);
/// `attempt_limit` of the config.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(1);
/// Length of a phase in which an endpoint has to recover.
const LONG_PHASE: Duration = Duration::from_secs(22);
const SHORT_PHASE: Duration = Duration::from_secs(6);
/// Interval of the samples of the admin API.
const LOOK: Duration = Duration::from_millis(10);
/// Time over which the shares of the endpoints are counted.
const COUNT_FOR: Duration = Duration::from_millis(500);
/// Longest time that an endpoint is observed after its return.
const RECOVERY: Duration = Duration::from_secs(15);
/// Share of the requests, of the even one, from which an endpoint counts as recovered.
const RECOVERED: f64 = 0.8;

const CLOSED_CALLERS: usize = 4;
const CLOSED_ROUNDS: usize = 2;
const CLOSED_GONE_FOR: Duration = Duration::from_millis(1_500);
const CLOSED_BETWEEN: Duration = Duration::from_millis(2_500);

pub(super) async fn run(binary: &Path) -> Result<Vec<Finding>> {
    let mut three = Vec::new();
    for name in ["one", "two", "three"] {
        three.push(BackendProcess::start(name, 0).await?);
    }
    let gateway = start(binary, &three).await?;
    let mut findings = killed(&gateway, &mut three).await?;
    findings.push(stopped(&gateway, &three).await?);
    findings.extend(drained(&gateway, &three).await?);
    findings.push(restarted(&gateway, &mut three).await?);
    drop(gateway);
    findings.extend(listed(binary, &three).await?);
    findings.extend(named(binary, &three).await?);
    three.truncate(2);
    findings.push(closed_loop(binary, &mut three).await?);
    Ok(findings)
}

async fn start(binary: &Path, members: &[BackendProcess]) -> Result<Gateway> {
    let config = CONFIG.replace("@endpoints@", &list(members));
    Gateway::start(binary, &config, &keys()).await
}

fn keys() -> String {
    key_file(&[KeyLine::new("caller", "caller", "caller").tier("unbounded")])
}

/// Returns the endpoints as a list in YAML.
fn list(members: &[BackendProcess]) -> String {
    let endpoints: Vec<String> = members
        .iter()
        .map(|member| format!("{{ url: \"http://{}\" }}", member.address))
        .collect();
    format!("[{}]", endpoints.join(", "))
}

fn load(gateway: &Gateway, duration: Duration) -> Result<Load> {
    let load = Load::new(gateway.target(PATH)?, RATE, duration).connections(CONNECTIONS);
    Ok(load.header(HeaderName::from_static("x-api-key"), HeaderValue::from_static("caller")))
}

/// Kills the first endpoint with SIGKILL, and starts it again after [`GONE_FOR`].
async fn killed(gateway: &Gateway, members: &mut [BackendProcess]) -> Result<Vec<Finding>> {
    let events = async {
        sleep(BEFORE).await;
        let before = Dials::now(gateway).await?;
        let address = members[0].address;
        let at = TokioInstant::now();
        members[0].kill().await?;
        let noticed = noticed(gateway, members, 0).await?;
        sleep_until(at + GONE_FOR).await;
        let dials = Dials::now(gateway).await?.since(&before);
        members[0].start_again().await?;
        let back = Instant::now();
        until_up(gateway, address).await?;
        let up = back.elapsed();
        let even = even_again(members, 0, back).await?;
        Ok::<_, crate::Error>((noticed, dials, up, even))
    };
    let (report, events) = tokio::join!(generate(load(gateway, LONG_PHASE)?), events);
    let (noticed, dials, up, even) = events?;
    Ok(vec![
        none_fails(
            &format!("one killed with -9, started again after {GONE_FOR:?}"),
            &report,
            &format!("{noticed}; up {} after its start, {even}", millis(up)),
        ),
        dials.finding(),
    ])
}

/// Stops the second endpoint with SIGSTOP, and lets it go on after [`GONE_FOR`].
async fn stopped(gateway: &Gateway, members: &[BackendProcess]) -> Result<Finding> {
    let events = async {
        sleep(BEFORE).await;
        let timed_out = attempts(gateway, "timed_out").await?;
        let address = members[1].address;
        let at = TokioInstant::now();
        members[1].signal(Signal::Stop).await?;
        let noticed = noticed(gateway, members, 1).await?;
        // What was sent there before has ended now, one way or the other.
        sleep(ATTEMPT_LIMIT + Duration::from_millis(200)).await;
        let failed_before = failed(gateway).await?;
        sleep_until(at + GONE_FOR).await;
        members[1].signal(Signal::Continue).await?;
        let back = Instant::now();
        until_up(gateway, address).await?;
        let up = back.elapsed();
        let timed_out = attempts(gateway, "timed_out").await? - timed_out;
        Ok::<_, crate::Error>((
            noticed,
            failed_before,
            timed_out,
            up,
            even_again(members, 1, back).await?,
        ))
    };
    let (report, events) = tokio::join!(generate(load(gateway, LONG_PHASE)?), events);
    let (noticed, failed_before, timed_out, up, even) = events?;
    let failed_after = failed(gateway).await? - failed_before;
    Ok(Finding::new(
        format!(
            "{RATE} GETs/s over three processes, one stopped with SIGSTOP for {GONE_FOR:?}: none fails that is sent \
             after it is noticed"
        ),
        format!(
            "{failed_after} failed; {}, p99 {}, longest {}; {noticed}, {timed_out} attempts timed out there; up {} \
             after SIGCONT, {even}",
            report.endings(),
            millis(report.quantile(0.99)),
            millis(report.max()),
            millis(up)
        ),
        failed_after == 0.0 && report.status(200) > 0 && report.unsent == 0,
    ))
}

/// Drains the third endpoint through the admin API, and takes the drain back after [`DRAINED_FOR`].
async fn drained(gateway: &Gateway, members: &[BackendProcess]) -> Result<Vec<Finding>> {
    let path = format!("/api/v1/backends/{BACKEND}/endpoints");
    let put = async |state: &str| {
        let body = json!({ "address": members[2].address, "state": state });
        gateway.admin_post(&path, &body).await
    };
    let events = async {
        sleep(BEFORE).await;
        put("drained").await?;
        // What was chosen before the drain may still arrive.
        sleep(Duration::from_millis(50)).await;
        let before = members[2].requests().await?;
        sleep(DRAINED_FOR).await;
        let meanwhile = members[2].requests().await? - before;
        put("auto").await?;
        let even = even_again(members, 2, Instant::now()).await?;
        Ok::<_, crate::Error>((meanwhile, even))
    };
    let (report, events) = tokio::join!(generate(load(gateway, SHORT_PHASE)?), events);
    let (meanwhile, even) = events?;
    Ok(vec![
        none_fails(
            &format!("one drained by the admin API for {DRAINED_FOR:?}"),
            &report,
            &even,
        ),
        Finding::new(
            "a drained endpoint gets no request from 50 ms after the drain",
            format!("{meanwhile} in {DRAINED_FOR:?}"),
            meanwhile == 0,
        ),
    ])
}

/// Restarts the third endpoint without a pause.
async fn restarted(gateway: &Gateway, members: &mut [BackendProcess]) -> Result<Finding> {
    let events = async {
        sleep(BEFORE).await;
        let at = Instant::now();
        members[2].kill().await?;
        members[2].start_again().await?;
        let took = at.elapsed();
        let even = even_again(members, 2, Instant::now()).await?;
        Ok::<_, crate::Error>((took, even))
    };
    let (report, events) = tokio::join!(generate(load(gateway, LONG_PHASE)?), events);
    let (took, even) = events?;
    Ok(none_fails(
        "one restarted",
        &report,
        &format!("its process was gone for {}; {even}", millis(took)),
    ))
}

/// Adds the third endpoint by a file that lists the first two, and then takes the first out of it.
async fn listed(binary: &Path, members: &[BackendProcess]) -> Result<Vec<Finding>> {
    const FILE: &str = "endpoints.yaml";
    let file = |members: &[BackendProcess]| format!("endpoints: {}\n", list(members));
    let config = CONFIG.replace("@endpoints@", &format!("{{ file: {FILE} }}"));
    let (keys, first_two) = (keys(), file(&members[..2]));
    let gateway = &Gateway::start_with(binary, &config, &[("keys.yaml", &keys), (FILE, &first_two)]).await?;
    let set = |members: &[BackendProcess]| gateway.replace(FILE, &file(members));
    moved(gateway, members, "a file", Duration::from_secs(1), set).await
}

/// Adds the third endpoint by DNS, whose records have the first two, and then takes the first out of them.
async fn named(binary: &Path, members: &[BackendProcess]) -> Result<Vec<Finding>> {
    const SERVICE: &str = "_http._tcp.fleet.test";
    const HOST: &str = "fleet.test";
    /// Time to live of the records in seconds, which is the longest that the gateway may not see a change.
    const TTL: u32 = 1;
    let server = NameServer::start().await?;
    server.set(HOST, TTL, [Data::A(Ipv4Addr::LOCALHOST)]);
    let answer = |members: &[BackendProcess]| {
        let targets = members.iter().map(|member| Data::srv(1, member.address.port(), HOST));
        server.set(SERVICE, TTL, targets);
        Ok(())
    };
    answer(&members[..2])?;
    let source = format!("{{ srv: {SERVICE}, name_server: \"{}\" }}", server.address());
    let gateway = Gateway::start(binary, &CONFIG.replace("@endpoints@", &source), &keys()).await?;
    // The gateway serves before it knows the endpoints.
    let started = Instant::now();
    while gateway.endpoints(BACKEND).await?.len() < 2 {
        if started.elapsed() > RECOVERY {
            return Err("the name server's endpoints are not known".into());
        }
        sleep(LOOK).await;
    }
    let source = format!("DNS (SRV records, TTL {TTL} s)");
    let noticed = Duration::from_secs(u64::from(TTL) + 1);
    moved(&gateway, members, &source, noticed, answer).await
}

/// Puts the third endpoint beside the first two, and then takes the first away. `set` writes endpoints into the source,
/// and the gateway has to notice it within the time `noticed`.
async fn moved(
    gateway: &Gateway,
    members: &[BackendProcess],
    source: &str,
    noticed: Duration,
    set: impl Fn(&[BackendProcess]) -> Result<()>,
) -> Result<Vec<Finding>> {
    let events = async {
        sleep(BEFORE).await;
        let before = members[2].requests().await?;
        set(members)?;
        let added = Instant::now();
        while members[2].requests().await? == before && added.elapsed() < RECOVERY {
            sleep(LOOK).await;
        }
        let first = (members[2].requests().await? > before).then(|| added.elapsed());
        let even = even_again(members, 2, added).await?;
        set(&members[1..])?;
        sleep(noticed).await;
        let before = members[0].requests().await?;
        sleep(DRAINED_FOR).await;
        let meanwhile = members[0].requests().await? - before;
        Ok::<_, crate::Error>((first, even, meanwhile))
    };
    let (report, events) = tokio::join!(generate(load(gateway, LONG_PHASE)?), events);
    let (first, even, meanwhile) = events?;
    let mut added = none_fails(
        &format!("one added by {source}, another taken out"),
        &report,
        &match first {
            Some(first) => format!("the first request after {}, {even}", millis(first)),
            None => "the added one gets none".to_owned(),
        },
    );
    added.kept &= first.is_some();
    Ok(vec![
        added,
        Finding::new(
            format!("an endpoint that is taken out of {source} gets no request from {noticed:?} on"),
            format!("{meanwhile} in {DRAINED_FOR:?}"),
            meanwhile == 0,
        ),
    ])
}

/// Kills two endpoints in turn under callers that each send again as soon as they are answered.
async fn closed_loop(binary: &Path, pair: &mut [BackendProcess]) -> Result<Finding> {
    let gateway = start(binary, pair).await?;
    let events = CLOSED_ROUNDS as u32 * 2;
    let end = Instant::now() + (CLOSED_BETWEEN + CLOSED_GONE_FOR) * events + CLOSED_BETWEEN;
    let request = gateway.get(PATH, "caller")?;
    let kill_in_turn = async {
        for _ in 0..CLOSED_ROUNDS {
            for member in &mut *pair {
                sleep(CLOSED_BETWEEN).await;
                member.kill().await?;
                sleep(CLOSED_GONE_FOR).await;
                member.start_again().await?;
            }
        }
        Ok(())
    };
    let (report, ()) = tokio::try_join!(
        steady(&gateway, &request, CLOSED_CALLERS, move |_| Instant::now() >= end),
        kill_in_turn
    )?;
    Ok(Finding::new(
        format!(
            "two processes, each killed with -9 in turn and gone for {CLOSED_GONE_FOR:?}, {CLOSED_ROUNDS} rounds, \
             {CLOSED_CALLERS} callers one GET after the other: none fails"
        ),
        format!("{}, longest {}", report.endings(), millis(report.max())),
        report.other_than(200) == 0 && report.sent() > 1_000,
    ))
}

fn none_fails(what: &str, report: &Report, recovery: &str) -> Finding {
    Finding::new(
        format!("{RATE} GETs/s over three processes, {what}: none fails"),
        format!(
            "{}, p99 {}, longest {}; {recovery}",
            report.endings(),
            millis(report.quantile(0.99)),
            millis(report.max())
        ),
        report.other_than(200) == 0 && report.sent() > 0,
    )
}

/// Waits until the endpoint is not up any more, for at most as long as it is gone. Returns what was seen.
async fn noticed(gateway: &Gateway, members: &[BackendProcess], index: usize) -> Result<String> {
    let address = members[index].address;
    let since = Instant::now();
    while since.elapsed() < GONE_FOR {
        let state = state(gateway, address).await?;
        if state == "ejected" || state == "down" {
            return Ok(format!("{state} after {}", millis(since.elapsed())));
        }
        sleep(LOOK).await;
    }
    Ok(format!("up for {GONE_FOR:?}"))
}

/// Waits until the endpoint gets calls again, for at most ten seconds.
async fn until_up(gateway: &Gateway, address: std::net::SocketAddr) -> Result<()> {
    let since = Instant::now();
    loop {
        let state = state(gateway, address).await?;
        if state == "up" || state == "warming" {
            return Ok(());
        }
        if since.elapsed() > Duration::from_secs(10) {
            return Err(format!("{address} is still {state} ten seconds after its return").into());
        }
        sleep(LOOK).await;
    }
}

async fn state(gateway: &Gateway, address: std::net::SocketAddr) -> Result<String> {
    let endpoints = gateway.endpoints(BACKEND).await?;
    let found = endpoints.into_iter().find(|endpoint| endpoint.address == address);
    Ok(found.ok_or_else(|| format!("{address} is no endpoint"))?.state)
}

/// Waits until the endpoint gets nearly its even share of the requests, for at most [`RECOVERY`]. Returns what was
/// seen.
async fn even_again(members: &[BackendProcess], index: usize, since: Instant) -> Result<String> {
    let count = async || -> Result<Vec<u64>> {
        let mut counts = Vec::new();
        for member in members {
            counts.push(member.requests().await?);
        }
        Ok(counts)
    };
    let mut share = 0.0;
    while since.elapsed() < RECOVERY {
        let before = count().await?;
        sleep(COUNT_FOR).await;
        let got: Vec<u64> = count()
            .await?
            .iter()
            .zip(&before)
            .map(|(now, before)| now - before)
            .collect();
        share = got[index] as f64 / got.iter().sum::<u64>().max(1) as f64 * got.len() as f64;
        if share >= RECOVERED {
            return Ok(format!(
                "{:.0} % of an even share after {:.1} s",
                share * 100.0,
                since.elapsed().as_secs_f64()
            ));
        }
    }
    Ok(format!(
        "only {:.0} % of an even share after {RECOVERY:?}",
        share * 100.0
    ))
}

/// Returns the attempts with this outcome so far.
async fn attempts(gateway: &Gateway, outcome: &str) -> Result<f64> {
    let labels = format!("outcome=\"{outcome}\"");
    Ok(gateway
        .metric("gateway_backend_attempts_total", &labels)
        .await?
        .unwrap_or(0.0))
}

/// Returns the requests that were answered with a 5xx so far.
async fn failed(gateway: &Gateway) -> Result<f64> {
    let failed = gateway.metric("gateway_requests_total", "code=\"5xx\"").await?;
    Ok(failed.unwrap_or(0.0))
}

/// Connection attempts that failed.
struct Dials {
    at: Instant,
    /// By calls.
    calls: f64,
    /// By health checks.
    probes: f64,
    /// In all, according to the system. Those of other processes of the machine count too, so the true number is at most
    /// this; `None` where the system does not say.
    system: Option<u64>,
}

impl Dials {
    async fn now(gateway: &Gateway) -> Result<Self> {
        let probes = gateway
            .metric("gateway_health_checks_total", "outcome=\"failed\"")
            .await?;
        Ok(Self {
            at: Instant::now(),
            calls: attempts(gateway, "unreached").await?,
            probes: probes.unwrap_or(0.0),
            system: fs::read_to_string("/proc/net/snmp")
                .ok()
                .and_then(|page| failed_connects(&page)),
        })
    }

    fn since(&self, before: &Self) -> Dialled {
        Dialled {
            time: self.at.duration_since(before.at),
            calls: self.calls - before.calls,
            probes: self.probes - before.probes,
            system: self.system.zip(before.system).map(|(now, before)| now - before),
        }
    }
}

struct Dialled {
    time: Duration,
    calls: f64,
    probes: f64,
    system: Option<u64>,
}

impl Dialled {
    fn finding(&self) -> Finding {
        // An ejected endpoint is tried every half second.
        let returns = self.time.as_secs_f64() / 0.5;
        let most = 1.0 + self.probes + returns.ceil();
        let system = self
            .system
            .map_or_else(|| "not known".to_owned(), |count| count.to_string());
        Finding::new(
            "the dead address is dialled at most once by calls, and once a health check or a try to bring it back",
            format!(
                "in {:.1} s {} by calls, {} by health checks, at most {returns:.0} to bring it back; in all, by the \
                 system's count, {system}",
                self.time.as_secs_f64(),
                self.calls,
                self.probes
            ),
            self.calls <= 1.0 && self.probes >= 1.0 && self.system.is_none_or(|all| all as f64 <= most),
        )
    }
}

/// Returns `AttemptFails` of the group `Tcp` in `/proc/net/snmp`.
fn failed_connects(page: &str) -> Option<u64> {
    let mut rows = page.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (rows.next()?, rows.next()?);
    let mut pairs = names.split(' ').zip(values.split(' '));
    pairs.find(|(name, _)| *name == "AttemptFails")?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::failed_connects;

    #[test]
    fn failed_connects_are_read_by_their_name() {
        let page = "Ip: Forwarding DefaultTTL\nIp: 1 64\nTcp: RtoMin ActiveOpens AttemptFails\nTcp: 200 7 42\n";
        assert_eq!(failed_connects(page), Some(42));
        assert_eq!(failed_connects("Ip: Forwarding\nIp: 1\n"), None);
        assert_eq!(failed_connects("Tcp: RtoMin\nTcp: 200\n"), None);
    }
}

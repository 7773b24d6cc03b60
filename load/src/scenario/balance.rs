//! Measures how calls are shared among three endpoints of which one is slow, fails at once, or says nothing.
//!
//! Beside HAProxy and Envoy where they are installed: `haproxy` in the path, and the program that `ENVOY` names. Each
//! proxy runs alone, one after the other, before the same endpoints.

use std::env;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Behaviour, Fault, Fleet, Handle, Keep, Latency, Spec};
use http::Request;
use http_body_util::Full;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::sleep;

use super::Finding;
use super::gateway::Gateway;
use super::steady::steady_at;
use crate::Result;
use crate::report::Report;

const CONFIG: &str = r#"
callers: { api_keys: { file: keys.yaml } }
tiers:
  unbounded: { rate: 100000/s, burst: 100000 }
backends:
  three:
    endpoints: [{ url: "http://@a@" }, { url: "http://@b@" }, { url: "http://@c@" }]
    retry: off
    breaker: off
    ejection: off
    bulkhead: { limit: 1000 }
routes:
  three: { match: { path: "/echo" }, access: { any_of: [api_key] }, backend: three }
"#;

const NAMES: [&str; 3] = ["a", "b", "c"];
/// Endpoint that is not like the others.
const ODD: usize = 2;
const FAST_MS: u64 = 20;
const SLOW_MS: u64 = 200;
const CALLERS: usize = 40;
const FOR: Duration = Duration::from_secs(5);
const ROUNDS: usize = 3;
/// Least throughput, in that of HAProxy.
const LEAST: f64 = 0.97;
const LOOK: Duration = Duration::from_millis(10);

pub(super) async fn run(binary: &Path) -> Result<Vec<Finding>> {
    let fleet = Fleet::start(NAMES.map(|name| Spec::new(name).keep(Keep::NOTHING))).await?;
    let members = NAMES.map(|name| fleet.backend(name));
    for member in &members {
        member.behave(Behaviour::late(Latency::fixed(FAST_MS))).await;
    }
    let mut findings = slow(binary, &members).await?;
    findings.push(failing(binary, &members).await?);
    findings.push(silent(binary, &members).await?);
    Ok(findings)
}

async fn start(binary: &Path, members: &[Handle; 3]) -> Result<Gateway> {
    let config = members.iter().fold(CONFIG.to_owned(), |config, member| {
        config.replace(&format!("@{}@", member.name()), &member.address().to_string())
    });
    let keys = key_file(&[KeyLine::new("caller", "caller", "caller").tier("unbounded")]);
    Gateway::start(binary, &config, &keys).await
}

/// Runs the callers for a time. Returns what they got, and the share of the odd endpoint.
async fn callers_for(
    address: SocketAddr,
    request: &Request<Full<Bytes>>,
    members: &[Handle; 3],
    time: Duration,
) -> Result<(Report, f64)> {
    let before = members.each_ref().map(|member| member.counts().requests);
    let end = Instant::now() + time;
    let report = steady_at(address, request, CALLERS, move |_| Instant::now() >= end).await?;
    let got: Vec<u64> = members
        .iter()
        .zip(before)
        .map(|(member, before)| member.counts().requests - before)
        .collect();
    Ok((report, got[ODD] as f64 / got.iter().sum::<u64>().max(1) as f64))
}

async fn slow(binary: &Path, members: &[Handle; 3]) -> Result<Vec<Finding>> {
    members[ODD].behave(Behaviour::late(Latency::fixed(SLOW_MS))).await;
    let gateway = start(binary, members).await?;
    let request = gateway.get("/echo", "caller")?;
    let mut peers = vec![];
    for peer in [Peer::haproxy(members).await?, Peer::envoy(members).await?] {
        peers.extend(peer);
    }
    let (mut ours, mut shares) = (vec![], vec![]);
    let mut theirs = vec![(vec![], vec![]); peers.len()];
    for _ in 0..ROUNDS {
        let (report, share) = callers_for(gateway.address, &request, members, FOR).await?;
        expect_200(&report)?;
        ours.push(report.rate());
        shares.push(share);
        for (peer, (rates, shares)) in peers.iter().zip(&mut theirs) {
            let (report, share) = callers_for(peer.address, &request, members, FOR).await?;
            expect_200(&report).map_err(|error| format!("{}: {error}", peer.name))?;
            rates.push(report.rate());
            shares.push(share);
        }
    }
    let asked = format!("{FAST_MS}/{FAST_MS}/{SLOW_MS} ms, {CALLERS} callers, medians of {ROUNDS}");
    let (rate, share) = (median(ours), median(shares));
    let mut findings = vec![Finding::new(
        format!("{asked}: the slow one gets 1 to 6 % of the calls"),
        format!("{:.2} % of {rate:.0} a second", share * 100.0),
        (0.01..=0.06).contains(&share),
    )];
    for (peer, (rates, shares)) in peers.iter().zip(theirs) {
        let (theirs, share) = (median(rates), median(shares));
        let (words, least) = if peer.is_measure {
            (format!("at least {LEAST} x"), LEAST)
        } else {
            ("beside".to_owned(), 0.0)
        };
        findings.push(Finding::new(
            format!("{asked}: answers a second, {words} those of {}", peer.name),
            format!(
                "{rate:.0} against {theirs:.0}: {:.2} x; its slow one gets {:.2} %",
                rate / theirs,
                share * 100.0
            ),
            rate >= least * theirs,
        ));
    }
    drop(peers);
    // The others have had their turns meanwhile, and the gateway has forgotten what it knew.
    callers_for(gateway.address, &request, members, Duration::from_secs(3)).await?;
    findings.push(well_again(&gateway, &request, members).await?);
    Ok(findings)
}

/// Makes the slow endpoint as fast as the others, and waits for its share.
async fn well_again(gateway: &Gateway, request: &Request<Full<Bytes>>, members: &[Handle; 3]) -> Result<Finding> {
    const LONGEST: Duration = Duration::from_secs(15);
    members[ODD].behave(Behaviour::late(Latency::fixed(FAST_MS))).await;
    let since = Instant::now();
    let mut seen = Vec::new();
    let mut even_after = None;
    while since.elapsed() < LONGEST && even_after.is_none() {
        let (report, share) = callers_for(gateway.address, request, members, Duration::from_secs(1)).await?;
        expect_200(&report)?;
        seen.push(format!("{:.0}", share * 100.0));
        even_after = (share >= 0.28).then(|| since.elapsed());
    }
    Ok(Finding::new(
        "the slow one answers in 20 ms again: at least 28 % of the calls within 15 s",
        format!(
            "{}; % in each second: {}",
            even_after.map_or_else(
                || "not within 15 s".to_owned(),
                |time| format!("after {:.1} s", time.as_secs_f64())
            ),
            seen.join(", ")
        ),
        even_after.is_some(),
    ))
}

async fn failing(binary: &Path, members: &[Handle; 3]) -> Result<Finding> {
    members[ODD].behave(Behaviour::status(500)).await;
    let gateway = start(binary, members).await?;
    let request = gateway.get("/echo", "caller")?;
    let (report, _) = callers_for(gateway.address, &request, members, FOR).await?;
    let share = report.other_than(200) as f64 / report.sent().max(1) as f64;
    Ok(Finding::new(
        "one of three answers 500 at once, ejection, breaker and retry off: at most 1 % errors",
        format!("{:.2} %: {}", share * 100.0, report.endings()),
        share <= 0.01 && report.status(500) > 0,
    ))
}

/// One endpoint accepts connections and says nothing, from one second after the start.
async fn silent(binary: &Path, members: &[Handle; 3]) -> Result<Finding> {
    members[ODD].behave(Behaviour::late(Latency::fixed(FAST_MS))).await;
    let gateway = start(binary, members).await?;
    let request = gateway.get("/echo", "caller")?;
    let address = members[ODD].address();
    let end = Instant::now() + FOR;
    let look = async {
        sleep(Duration::from_secs(1)).await;
        members[ODD].behave(Behaviour::always(Fault::Hang)).await;
        let (mut most, mut total, mut samples) = (0, 0, 0_u32);
        while Instant::now() < end {
            sleep(LOOK).await;
            for endpoint in gateway.endpoints("three").await? {
                total += endpoint.in_flight;
                if endpoint.address == address {
                    most = most.max(endpoint.in_flight);
                }
            }
            samples += 1;
        }
        let mean = total as f64 / f64::from(samples) / members.len() as f64;
        Ok((most, mean, samples))
    };
    let ((report, _), (most, mean, samples)) =
        tokio::try_join!(callers_for(gateway.address, &request, members, FOR), look)?;
    members[ODD].heal().await;
    Ok(Finding::new(
        format!(
            "one of three falls silent, {CALLERS} callers, retry off: in flight there never above twice the mean of all"
        ),
        format!(
            "at most {most}, the mean is {mean:.1}: {:.2} x, in {samples} samples; {}",
            most as f64 / mean,
            report.endings()
        ),
        most as f64 <= 2.0 * mean && samples > 100,
    ))
}

fn expect_200(report: &Report) -> Result<()> {
    if report.other_than(200) > 0 {
        return Err(report.endings().into());
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Other proxy before the same endpoints. Dropping it kills the process.
struct Peer {
    name: &'static str,
    /// Whether a promise is measured by it.
    is_measure: bool,
    address: SocketAddr,
    _process: Child,
    _folder: TempDir,
}

impl Peer {
    /// Starts HAProxy with `leastconn`; `None` if it is not installed.
    async fn haproxy(members: &[Handle; 3]) -> Result<Option<Self>> {
        let servers: String = members
            .iter()
            .map(|member| format!("  server {} {}\n", member.name(), member.address()))
            .collect();
        let config = |port: u16| {
            format!(
                "global\n  nbthread 2\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
                 frontend in\n  bind 127.0.0.1:{port}\n  default_backend three\n\
                 backend three\n  balance leastconn\n{servers}"
            )
        };
        Self::start("HAProxy leastconn", "haproxy", &["-f"], config, true).await
    }

    /// Starts Envoy with `LEAST_REQUEST`; `None` unless `ENVOY` names the program.
    async fn envoy(members: &[Handle; 3]) -> Result<Option<Self>> {
        let Ok(program) = env::var("ENVOY") else {
            return Ok(None);
        };
        let address = |at: SocketAddr| {
            format!(
                "{{ socket_address: {{ address: \"{}\", port_value: {} }} }}",
                at.ip(),
                at.port()
            )
        };
        let endpoints: Vec<String> = members
            .iter()
            .map(|member| format!("{{ endpoint: {{ address: {} }} }}", address(member.address())))
            .collect();
        let config = |port: u16| {
            format!(
                r#"static_resources:
  listeners:
  - address: {listen}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          route_config:
            virtual_hosts: [{{ name: all, domains: ["*"], routes: [{{ match: {{ prefix: "/" }}, route: {{ cluster: three }} }}] }}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
  clusters:
  - name: three
    type: STATIC
    lb_policy: LEAST_REQUEST
    load_assignment: {{ cluster_name: three, endpoints: [{{ lb_endpoints: [{endpoints}] }}] }}
"#,
                listen = address(([127, 0, 0, 1], port).into()),
                endpoints = endpoints.join(", ")
            )
        };
        let arguments = [
            "--concurrency",
            "2",
            "--log-level",
            "error",
            "--disable-hot-restart",
            "-c",
        ];
        Self::start("Envoy LEAST_REQUEST", &program, &arguments, config, false).await
    }

    async fn start(
        name: &'static str,
        program: &str,
        arguments: &[&str],
        config: impl Fn(u16) -> String,
        is_measure: bool,
    ) -> Result<Option<Self>> {
        // These programs do not say which port they took, so a free one is chosen for them.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let folder = tempfile::tempdir()?;
        let (file, log) = (folder.path().join("peer.yaml"), folder.path().join("log"));
        fs::write(&file, config(address.port()))?;
        let output = File::create(&log)?;
        let started = Command::new(program)
            .args(arguments)
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn();
        let Ok(process) = started else {
            return Ok(None);
        };
        let since = Instant::now();
        while TcpStream::connect(address).await.is_err() {
            if since.elapsed() > Duration::from_secs(10) {
                return Err(format!("{name} did not start:\n{}", fs::read_to_string(&log)?).into());
            }
            sleep(LOOK).await;
        }
        Ok(Some(Self {
            name,
            is_measure,
            address,
            _process: process,
            _folder: folder,
        }))
    }
}

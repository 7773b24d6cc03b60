//! Measures what a large config costs: ten thousand routes, a thousand backends of ten endpoints each, all probed.

use std::fmt::Write;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Finding;
use super::gateway::{Gateway, processor_seconds};
use crate::Result;
use crate::report::millis;

const ROUTES: usize = 10_000;
const BACKENDS: usize = 1_000;
const ENDPOINTS: usize = 10;
/// Longest time to check the config, and to start with it.
const LONGEST: Duration = Duration::from_millis(500);
const CHECKS: usize = 5;
/// Time after the start in which each endpoint is probed for the first time.
const SETTLE: Duration = Duration::from_secs(22);
/// Time over which the processor time is measured.
const MEASURE: Duration = Duration::from_secs(10);
/// Largest part of a core for probes.
const MOST_OF_A_CORE: f64 = 0.01;
const RELOADS: usize = 60;
/// Reloads from which memory is to be level.
const WARM_UP: usize = 10;
/// Largest growth from then to the last reload.
const LEVEL: f64 = 1.03;

pub(super) async fn run(binary: &Path) -> Result<Vec<Finding>> {
    let endpoints = Endpoints::start().await?;
    let probed = config(&endpoints.addresses, ", health: { path: /healthz }", 0);
    let other = config(&endpoints.addresses, ", health: { path: /healthz }", 1);
    let quiet = config(&endpoints.addresses, "", 0);
    let without = Gateway::start(binary, &quiet, "keys: []").await?;
    sleep(Duration::from_secs(2)).await;
    let without_probes = core(&without).await?.share;
    drop(without);

    let gateway = Gateway::start(binary, &probed, "keys: []").await?;
    let start_processor = gateway.processor_seconds()?;
    let mut findings = vec![
        checked(binary, &gateway).await?,
        Finding::new(
            format!("from the start of the process until it serves: below {LONGEST:?}"),
            format!(
                "{}; {:.0} ms of processor time",
                millis(gateway.started_in),
                start_processor * 1e3
            ),
            gateway.started_in < LONGEST,
        ),
    ];
    sleep(SETTLE).await;
    let Core { share, probes } = core(&gateway).await?;
    let probing = share - without_probes;
    findings.push(Finding::new(
        format!(
            "probes of {} endpoints at the default pace: below 1 % of a core",
            BACKENDS * ENDPOINTS
        ),
        format!(
            "{:.2} % of a core with {probes:.0} probes a second and {:.2} % without: {:.0} µs a probe",
            share * 100.0,
            without_probes * 100.0,
            probing * 1e6 / probes.max(1.0)
        ),
        probing < MOST_OF_A_CORE && probes > 0.0,
    ));
    findings.push(level(&gateway, [&probed, &other]).await?);
    Ok(findings)
}

/// Returns a config whose routes have paths that depend on `number`.
fn config(addresses: &[SocketAddr], health: &str, number: usize) -> String {
    let mut text = String::from("callers: { anonymous: { by: client_address } }\nbackends:\n");
    let urls: Vec<String> = addresses
        .iter()
        .map(|address| format!("{{ url: \"http://{address}\" }}"))
        .collect();
    let urls = urls.join(", ");
    for backend in 0..BACKENDS {
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "  b{backend}: {{ endpoints: [{urls}]{health} }}");
    }
    text.push_str("routes:\n");
    for route in 0..ROUTES {
        let backend = route % BACKENDS;
        let _ = writeln!(
            text,
            "  r{route}: {{ match: {{ path: \"/service{backend}/kind{}-{number}/{{id}}\" }}, \
             access: {{ any_of: [anonymous] }}, backend: b{backend} }}",
            route / BACKENDS
        );
    }
    text
}

async fn checked(binary: &Path, gateway: &Gateway) -> Result<Finding> {
    let of_children = || processor_seconds(&fs::read_to_string("/proc/self/stat")?, 2);
    let mut took = Vec::new();
    let before = of_children()?;
    for _ in 0..CHECKS {
        let began = Instant::now();
        let status = Command::new(binary)
            .args(["check", "-c"])
            .arg(gateway.config_file())
            .stdout(Stdio::null())
            .status()
            .await?;
        took.push(began.elapsed());
        if !status.success() {
            return Err(format!("check: {status}").into());
        }
    }
    let processor = (of_children()? - before) / CHECKS as f64;
    took.sort();
    let median = took[CHECKS / 2];
    Ok(Finding::new(
        format!("`check` of {ROUTES} routes and {BACKENDS} backends x {ENDPOINTS} endpoints: below {LONGEST:?}"),
        format!(
            "median of {CHECKS} {}, {} to {}; {:.0} ms of processor time",
            millis(median),
            millis(took[0]),
            millis(took[CHECKS - 1]),
            processor * 1e3
        ),
        median < LONGEST,
    ))
}

struct Core {
    /// Processor time of the gateway, in that of one core.
    share: f64,
    /// Probes in a second.
    probes: f64,
}

async fn core(gateway: &Gateway) -> Result<Core> {
    let probes = async || -> Result<f64> {
        let probes = gateway
            .metric("gateway_health_checks_total", "outcome=\"passed\"")
            .await?;
        Ok(probes.unwrap_or(0.0))
    };
    // A page of so many metrics takes a while, and is not to be measured.
    let probes_before = probes().await?;
    sleep(Duration::from_secs(1)).await;
    let (since, seconds_before) = (Instant::now(), gateway.processor_seconds()?);
    sleep(MEASURE).await;
    let time = since.elapsed().as_secs_f64();
    let seconds = gateway.processor_seconds()? - seconds_before;
    Ok(Core {
        share: seconds / time,
        probes: (probes().await? - probes_before) / (time + 1.0),
    })
}

async fn level(gateway: &Gateway, configs: [&str; 2]) -> Result<Finding> {
    let memory = async || -> Result<f64> {
        let bytes = gateway.metric("process_resident_memory_bytes", "").await?;
        Ok(bytes.unwrap_or_default() / f64::from(1 << 20))
    };
    let mut settled = vec![memory().await?];
    let (mut most, mut took) = (0.0_f64, Duration::ZERO);
    for (number, config) in configs.iter().cycle().skip(1).take(RELOADS).enumerate() {
        let began = Instant::now();
        gateway.reload(config).await?;
        took += began.elapsed();
        most = most.max(memory().await?);
        if number + 1 == WARM_UP || number + 1 == RELOADS {
            // The allocator returns what is free after half a second.
            sleep(Duration::from_secs(3)).await;
            settled.push(memory().await?);
        }
    }
    let [start, first, last] = settled[..] else {
        return Err("there are too few reloads".into());
    };
    Ok(Finding::new(
        format!("memory is level from the {WARM_UP}th to the {RELOADS}th reload, each with other routes"),
        format!(
            "{start:.1} MiB before, then {first:.1} and {last:.1}, at most {most:.1} for a moment; {} a reload",
            millis(took / RELOADS as u32)
        ),
        last <= first * LEVEL,
    ))
}

/// Sockets that answer every request with 200 at once. Their thread ends with the process.
struct Endpoints {
    addresses: Vec<SocketAddr>,
}

impl Endpoints {
    async fn start() -> Result<Self> {
        let (started, starting) = tokio::sync::oneshot::channel();
        std::thread::Builder::new().name("endpoints".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let served = runtime.and_then(|runtime| {
                runtime.block_on(async {
                    let mut listeners = Vec::new();
                    for _ in 0..ENDPOINTS {
                        listeners.push(TcpListener::bind("127.0.0.1:0").await?);
                    }
                    let addresses = listeners
                        .iter()
                        .map(TcpListener::local_addr)
                        .collect::<io::Result<Vec<_>>>()?;
                    let _ = started.send(addresses);
                    let mut all: JoinSet<io::Result<()>> = listeners.into_iter().map(accept).collect();
                    while all.join_next().await.is_some() {}
                    Ok(())
                })
            });
            // Without an address the scenario reports that nothing was started.
            drop(served);
        })?;
        Ok(Self {
            addresses: starting.await.map_err(|_| "no endpoint could be started")?,
        })
    }
}

async fn accept(listener: TcpListener) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        // A connection that breaks is the gateway's business.
        tokio::spawn(answer(stream));
    }
}

/// Answers each head that arrives in one piece, as those of probes do.
async fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut head = [0; 1024];
    while stream.read(&mut head).await? > 0 {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .await?;
    }
    Ok(())
}

//! Uploads as slowly as possible as a caller of the smallest tier, in every way that has opened a breaker or held its
//! probes. Another tenant calls the same backend at the same time.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Behaviour, Fleet, Handle, Keep, Latency, Spec};
use http::{HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Finding;
use super::gateway::Gateway;
use crate::Result;
use crate::client::Client;
use crate::generate::{Load, generate};

/// Config with breakers that open at ten failures, at ten slow calls, or by the mean latency of the last ten calls.
const CONFIG: &str = r#"
callers: { api_keys: { file: keys.yaml } }
tiers:
  unbounded: { rate: 100000/s, burst: 100000 }
backends:
  ratio:
    endpoints: [{ url: "http://@ratio@" }]
    time_limit: 2s
    retry: off
    breaker: { min_calls: 10, failure_ratio: 0.2, slow: { over: 500ms, ratio: 0.2 }, open_for: 1s, probes: 3 }
  adaptive:
    endpoints: [{ url: "http://@adaptive@" }]
    time_limit: 2s
    retry: off
    breaker: { min_calls: 10, adaptive: { latency_window: 10, threshold: 500ms }, open_for: 1s, probes: 3 }
routes:
  ratio: { match: { path: "/ratio" }, access: { any_of: [api_key] }, backend: ratio }
  adaptive: { match: { path: "/adaptive" }, access: { any_of: [api_key] }, backend: adaptive }
"#;

const BACKENDS: [&str; 2] = ["ratio", "adaptive"];
const UPLOADS: usize = 24;
/// Time until the last byte of a POST. With a longer time the request would time out before its backend could answer.
const LAST_BYTE: Duration = Duration::from_millis(1_850);
const RATE: f64 = 20.0;
const FOR: Duration = Duration::from_secs(10);
const ROUNDS: u32 = 5;
const OPEN_FOR: Duration = Duration::from_secs(1);

pub(super) async fn run(binary: &Path) -> Result<Vec<Finding>> {
    let backend = |name| {
        Spec::new(name)
            .behaviour(Behaviour::late(Latency::fixed(50)))
            .keep(Keep::NOTHING)
    };
    let fleet = Fleet::start(BACKENDS.map(backend)).await?;
    let config = BACKENDS.iter().fold(CONFIG.to_owned(), |config, name| {
        config.replace(&format!("@{name}@"), &fleet.address(name).to_string())
    });
    let lines = [
        KeyLine::new("slow", "slow", "slow").tier("free"),
        KeyLine::new("victim", "victim", "victim").tier("unbounded"),
    ];
    let gateway = Gateway::start(binary, &config, &key_file(&lines)).await?;
    let mut findings = Vec::new();
    for name in BACKENDS {
        let crowd = Crowd::start(gateway.address, name)?;
        sleep(Duration::from_secs(1)).await;
        let load = Load::new(gateway.target(&format!("/{name}"))?, RATE, FOR);
        let load = load.header(HeaderName::from_static("x-api-key"), HeaderValue::from_static("victim"));
        let victim = generate(load).await;
        let opened = opened(&gateway, name).await?;
        findings.push(Finding::new(
            format!("{name}: no request of another tenant fails beside slow uploads of the free tier"),
            format!("{}; meanwhile {}", victim.endings(), crowd.done()),
            victim.other_than(200) == 0,
        ));
        findings.push(Finding::new(
            format!("{name}: the breaker stays closed"),
            format!("opened {opened} times"),
            opened == 0.0 && crowd.done.uploads.load(Relaxed) > 0,
        ));
        findings.push(healed(&gateway, &fleet.backend(name), name).await?);
        crowd.end();
    }
    Ok(findings)
}

async fn opened(gateway: &Gateway, backend: &str) -> Result<f64> {
    let opened = "gateway_breaker_transitions_total";
    let page = gateway.admin_page("/metrics").await?;
    let of_backend = format!("backend=\"{backend}\"");
    let is_opening =
        |line: &&str| line.starts_with(opened) && line.contains(&of_backend) && line.contains("to=\"open\"");
    let values = page.lines().filter(is_opening);
    let numbers = values.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    Ok(numbers.fold(0.0, |sum, number| sum + number))
}

/// Makes the backend fail until its breaker opens, then heals it. Measures the time until calls succeed again, beside
/// the uploads.
async fn healed(gateway: &Gateway, backend: &Handle, name: &str) -> Result<Finding> {
    let mut longest = Duration::ZERO;
    for _ in 0..ROUNDS {
        let before = opened(gateway, name).await?;
        backend.behave(Behaviour::status(503)).await;
        let until = Instant::now() + Duration::from_secs(20);
        while opened(gateway, name).await? == before && Instant::now() < until {
            ask(gateway, name).await?;
        }
        backend.behave(Behaviour::late(Latency::fixed(50))).await;
        let healed = Instant::now();
        let until = healed + Duration::from_secs(20);
        let mut good = 0;
        // Three successes close the breaker; the fourth is a normal call.
        while good < 4 && Instant::now() < until {
            match ask(gateway, name).await? {
                200 => good += 1,
                _ => sleep(Duration::from_millis(20)).await,
            }
        }
        longest = longest.max(healed.elapsed());
    }
    let most = OPEN_FOR + Duration::from_secs(1);
    Ok(Finding::new(
        format!(
            "{name}: a backend that is well again is found out within {most:?}, {ROUNDS} times, beside slow uploads"
        ),
        format!("at the latest after {} ms", longest.as_millis()),
        longest <= most,
    ))
}

async fn ask(gateway: &Gateway, name: &str) -> Result<u16> {
    let request = gateway.get(&format!("/{name}"), "victim")?;
    let answer = Client::new(gateway.address).ask(request, Duration::from_secs(5)).await;
    Ok(answer.map_or(0, |answer| answer.status().as_u16()))
}

/// Uploads, on their own thread.
struct Crowd {
    /// Dropped to end the thread.
    stay: oneshot::Sender<()>,
    thread: JoinHandle<()>,
    done: Arc<Done>,
}

#[derive(Default)]
struct Done {
    uploads: AtomicU64,
    answered: AtomicU64,
    limited: AtomicU64,
}

/// Kinds of slow uploads.
#[derive(Clone, Copy)]
enum Slow {
    /// The last byte comes at the last moment, or too late.
    LastByte,
    /// The body begins, and nothing follows.
    Idle,
    /// Small chunks follow each other at intervals.
    Chunks,
    /// Many bytes come at once, more than any gateway buffers, then nothing.
    Large,
}

const WAYS: [Slow; 4] = [Slow::LastByte, Slow::Idle, Slow::Chunks, Slow::Large];

impl Crowd {
    fn start(address: SocketAddr, path: &'static str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stay, leave) = oneshot::channel::<()>();
        let done = Arc::new(Done::default());
        let counted = Arc::clone(&done);
        let thread = thread::spawn(move || {
            runtime.block_on(async {
                let mut all = JoinSet::new();
                for number in 0..UPLOADS {
                    let done = Arc::clone(&counted);
                    all.spawn(async move {
                        loop {
                            // An error is expected, because the gateway may close the connection.
                            let _ = upload(address, path, WAYS[number % WAYS.len()], &done).await;
                            sleep(Duration::from_millis(100)).await;
                        }
                    });
                }
                // Ends when the sender is dropped; no value is ever sent.
                let _ = leave.await;
            });
        });
        Ok(Self { stay, thread, done })
    }

    fn done(&self) -> String {
        let Done {
            uploads,
            answered,
            limited,
        } = &*self.done;
        format!(
            "{} slow uploads, {} of them answered 200, and {} refused by the tier",
            uploads.load(Relaxed),
            answered.load(Relaxed),
            limited.load(Relaxed)
        )
    }

    fn end(self) {
        drop(self.stay);
        self.thread.join().expect("the crowd does not panic");
    }
}

async fn upload(address: SocketAddr, path: &str, slow: Slow, done: &Done) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let framing = match slow {
        Slow::LastByte | Slow::Idle => "content-length: 10",
        Slow::Chunks => "transfer-encoding: chunked",
        Slow::Large => "content-length: 1000000",
    };
    let head = format!("POST /{path} HTTP/1.1\r\nhost: a\r\nx-api-key: slow\r\nconnection: close\r\n{framing}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let (mut reader, mut writer) = stream.into_split();
    // Sends until the answer has come.
    let sending = async {
        match slow {
            Slow::LastByte => {
                writer.write_all(b"123456789").await?;
                sleep(LAST_BYTE).await;
                writer.write_all(b"0").await?;
            }
            Slow::Idle => writer.write_all(b"123").await?,
            Slow::Chunks => loop {
                writer.write_all(b"3\r\nabc\r\n").await?;
                sleep(Duration::from_millis(100)).await;
            },
            Slow::Large => writer.write_all(&[b'x'; 100_000]).await?,
        }
        std::future::pending::<std::io::Result<()>>().await
    };
    let mut answer = Vec::new();
    tokio::select! {
        sent = sending => sent?,
        read = reader.read_to_end(&mut answer) => { read?; }
    }
    let status = answer.get(9..12).unwrap_or_default();
    if status == b"429" {
        done.limited.fetch_add(1, Relaxed);
        sleep(Duration::from_millis(500)).await;
    } else {
        done.uploads.fetch_add(1, Relaxed);
        done.answered.fetch_add(u64::from(status == b"200"), Relaxed);
    }
    Ok(())
}

//! Sends half a minute of hostile traffic beside normal callers: thousands of connections that never finish a head,
//! heads without end, and HTTP/2 streams that are reset as soon as they are opened.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fixtures::fleet::{Fleet, Keep, Spec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Finding;
use super::gateway::Gateway;
use crate::Result;
use crate::generate::{Load, generate};
use crate::report::{Report, millis};

const CONFIG: &str = r#"
callers: { anonymous: { by: client_address, tier: unbounded } }
tiers:
  unbounded: { rate: 100000/s, burst: 100000 }
backends:
  well: { endpoints: [{ url: "http://@well@" }] }
routes:
  well: { match: { path: "/{*rest}" }, access: { any_of: [anonymous] }, backend: well }
"#;

const SLOW: usize = 5_000;
const ENDLESS: usize = 16;
const RESETTING: usize = 16;
const RATE: f64 = 200.0;
const ALONE: Duration = Duration::from_secs(5);
const FOR: Duration = Duration::from_secs(30);
const WHATEVER_IDLE: Duration = Duration::from_millis(50);
/// Memory that the allocator may keep afterwards.
const LEFT: f64 = 48.0 * MIB;
/// Memory growth during the attack: 16 KiB for each connection, and the memory of requests.
const BESIDE: f64 = 160.0 * MIB;
/// Connections to the backend that are kept for later requests.
const POOLED: f64 = 8.0;
const MIB: f64 = 1024.0 * 1024.0;

pub(super) async fn run(binary: &Path) -> Result<Vec<Finding>> {
    let fleet = Fleet::start([Spec::new("well").keep(Keep::NOTHING)]).await?;
    let config = CONFIG.replace("@well@", &fleet.address("well").to_string());
    let gateway = Gateway::start(binary, &config, "keys: []").await?;
    let alone = measure(&gateway, ALONE).await?;
    let before = Holdings::of(&gateway).await?;

    let crowd = Crowd::start(gateway.address)?;
    sleep(Duration::from_secs(3)).await;
    let beside = measure(&gateway, FOR).await?;
    let during = Holdings::of(&gateway).await?;
    let done = crowd.end();
    let after = settled(&gateway, before.descriptors).await?;

    let (idle, busy) = (alone.quantile(0.99), beside.quantile(0.99));
    let mib = |bytes: f64| bytes / MIB;
    Ok(vec![
        Finding::new(
            format!(
                "no legitimate request fails beside {SLOW} slow heads, {ENDLESS} endless ones, {RESETTING} that reset"
            ),
            format!("{}; meanwhile {done}", beside.endings()),
            beside.other_than(200) == 0 && alone.other_than(200) == 0,
        ),
        Finding::new(
            "their p99 <= 3 x p99 alone, or 50 ms",
            format!("{} beside, {} alone", millis(busy), millis(idle)),
            busy <= (3 * idle).max(WHATEVER_IDLE),
        ),
        Finding::new(
            format!(
                "memory: below {:.0} MiB more beside them, below {:.0} MiB more afterwards",
                mib(BESIDE),
                mib(LEFT)
            ),
            format!(
                "{:.1} MiB before, {:.1} beside, {:.1} after",
                mib(before.memory),
                mib(during.memory),
                mib(after.memory)
            ),
            during.memory - before.memory < BESIDE && after.memory - before.memory < LEFT,
        ),
        Finding::new(
            "file descriptors as before, but for connections to the backend that are kept",
            format!(
                "{} before, {} beside, {} after",
                before.descriptors, during.descriptors, after.descriptors
            ),
            after.descriptors <= before.descriptors + POOLED && during.descriptors > SLOW as f64 / 2.0,
        ),
    ])
}

async fn measure(gateway: &Gateway, duration: Duration) -> Result<Report> {
    Ok(generate(Load::new(gateway.target("/status/200")?, RATE, duration)).await)
}

#[derive(Clone, Copy)]
struct Holdings {
    memory: f64,
    descriptors: f64,
}

impl Holdings {
    async fn of(gateway: &Gateway) -> Result<Self> {
        let read = async |name: &str| -> Result<f64> { Ok(gateway.metric(name, "").await?.unwrap_or_default()) };
        Ok(Self {
            memory: read("process_resident_memory_bytes").await?,
            descriptors: read("process_open_fds").await?,
        })
    }
}

/// Returns the resources held once the attacker's connections are closed, or after ten seconds.
async fn settled(gateway: &Gateway, descriptors: f64) -> Result<Holdings> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let now = Holdings::of(gateway).await?;
        if now.descriptors <= descriptors + POOLED || Instant::now() > until {
            // The allocator gives freed pages back after half a second.
            sleep(Duration::from_secs(2)).await;
            return Holdings::of(gateway).await;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Attackers, on their own thread.
struct Crowd {
    /// Dropped to end the thread.
    stay: oneshot::Sender<()>,
    thread: JoinHandle<()>,
    done: Arc<Done>,
}

#[derive(Default)]
struct Done {
    connections: AtomicU64,
    resets: AtomicU64,
    bytes: AtomicU64,
}

impl Crowd {
    fn start(address: SocketAddr) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stay, leave) = oneshot::channel::<()>();
        let done = Arc::new(Done::default());
        let counted = Arc::clone(&done);
        let thread = thread::spawn(move || {
            runtime.block_on(async {
                let mut all = JoinSet::new();
                for number in 0..SLOW {
                    all.spawn(again(address, Arc::clone(&counted), move |stream, _| {
                        dawdle(stream, number)
                    }));
                }
                for _ in 0..ENDLESS {
                    all.spawn(again(address, Arc::clone(&counted), flood));
                }
                for _ in 0..RESETTING {
                    all.spawn(again(address, Arc::clone(&counted), reset));
                }
                // Ends when the sender is dropped; no value is ever sent.
                let _ = leave.await;
            });
        });
        Ok(Self { stay, thread, done })
    }

    /// Ends the attack; returns a summary of it.
    fn end(self) -> String {
        drop(self.stay);
        self.thread.join().expect("the crowd does not panic");
        format!(
            "{} connections, {} streams reset, {:.0} MB of fields",
            self.done.connections.load(Relaxed),
            self.done.resets.load(Relaxed),
            self.done.bytes.load(Relaxed) as f64 / 1e6
        )
    }
}

/// Connects, attacks until the gateway closes the connection, and connects again.
async fn again<F>(address: SocketAddr, done: Arc<Done>, harm: impl Fn(TcpStream, Arc<Done>) -> F)
where
    F: Future<Output = std::io::Result<()>>,
{
    loop {
        if let Ok(stream) = TcpStream::connect(address).await {
            done.connections.fetch_add(1, Relaxed);
            // An error is expected, because the gateway closes the connection.
            let _ = harm(stream, Arc::clone(&done)).await;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Sends a head, one byte at a time with long pauses.
async fn dawdle(mut stream: TcpStream, number: usize) -> std::io::Result<()> {
    sleep(Duration::from_millis(number as u64 % 1_000)).await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nx: ").await?;
    let mut answer = [0; 512];
    loop {
        stream.write_all(b"y").await?;
        match timeout(Duration::from_secs(1), stream.read(&mut answer)).await {
            Err(_) => {}
            Ok(Ok(count)) if count > 0 => {}
            Ok(_) => return Ok(()),
        }
    }
}

/// Sends a head that never ends.
async fn flood(mut stream: TcpStream, done: Arc<Done>) -> std::io::Result<()> {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n").await?;
    let lines = b"x-flood: 0123456789012345678901234567890123456789\r\n".repeat(64);
    loop {
        stream.write_all(&lines).await?;
        done.bytes.fetch_add(lines.len() as u64, Relaxed);
    }
}

/// Opens HTTP/2 streams and resets them at once (CVE-2023-44487).
async fn reset(mut stream: TcpStream, done: Arc<Done>) -> std::io::Result<()> {
    /// GET, http, /, and `a` as the authority (RFC 7541 appendix A).
    const FIELDS: [u8; 6] = [0x82, 0x86, 0x84, 0x41, 0x01, b'a'];
    const END_HEADERS_AND_STREAM: u8 = 0x5;
    let frame = |kind: u8, flags: u8, id: u32, payload: &[u8]| {
        let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
        [&length[1..], &[kind, flags], &id.to_be_bytes(), payload].concat()
    };
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
    stream.write_all(&frame(4, 0, 0, &[])).await?;
    let mut answer = [0; 4096];
    for batch in 0_u32.. {
        let mut frames = Vec::new();
        for number in 0..50 {
            let id = (batch * 50 + number) * 2 + 1;
            frames.extend(frame(1, END_HEADERS_AND_STREAM, id, &FIELDS));
            frames.extend(frame(3, 0, id, &8_u32.to_be_bytes()));
        }
        stream.write_all(&frames).await?;
        done.resets.fetch_add(50, Relaxed);
        match timeout(Duration::from_millis(5), stream.read(&mut answer)).await {
            Ok(Ok(0)) | Ok(Err(_)) => return Ok(()),
            _ => {}
        }
    }
    Ok(())
}

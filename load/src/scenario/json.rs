//! Sends documents of ten megabytes from twenty callers of as many tenants, in the shapes that cost a JSON reader most.
//! They go to a route that reads the whole document and to a route with a smaller limit. Normal callers run at the same
//! time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Fleet, Keep, Spec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::Finding;
use super::gateway::Gateway;
use crate::Result;
use crate::generate::{Load, generate};
use crate::report::{Report, millis};

const CONFIG: &str = r#"
callers: { api_keys: { file: keys.yaml }, anonymous: { by: client_address, tier: unbounded } }
tiers:
  unbounded: { rate: 100000/s, burst: 100000 }
default_tier: unbounded
backends:
  well: { endpoints: [{ url: "http://@well@" }], bulkhead: { limit: 1000 } }
routes:
  well: { match: { path: "/well/{*rest}" }, access: { any_of: [anonymous] }, backend: well, rewrite: "/{path.rest}" }
  long:
    match: { path: /long }
    body_limit: 10MiB
    aggregate: { parts: { one: { backend: well, path: /echo, query: { a: "{body.a}", b: "{body.0.a}" }, missing: skip } } }
  short:
    match: { path: /short }
    aggregate: { parts: { one: { backend: well, path: /echo, query: { a: "{body.a}" }, missing: skip } } }
"#;

const CALLERS: usize = 20;
const LENGTH: usize = 10_000_000;
/// Pause of a caller between an answer and its next document, so that reading is measured and not the copying of bytes
/// that are not read.
const PAUSE: Duration = Duration::from_millis(100);
const RATE: f64 = 200.0;
const ALONE: Duration = Duration::from_secs(5);
const FOR: Duration = Duration::from_secs(15);
const WHATEVER_IDLE: Duration = Duration::from_millis(50);
const BESIDE: f64 = 160.0 * MIB;
/// Memory that the allocator may keep. The next constant is the time after which the rest must be free.
const LEFT: f64 = 32.0 * MIB;
const SOON: Duration = Duration::from_secs(10);
const MIB: f64 = 1024.0 * 1024.0;

pub(super) async fn run(binary: &Path) -> Result<Vec<Finding>> {
    let fleet = Fleet::start([Spec::new("well").keep(Keep::NOTHING)]).await?;
    let config = CONFIG.replace("@well@", &fleet.address("well").to_string());
    let names: Vec<String> = (0..CALLERS).map(|number| format!("caller-{number}")).collect();
    let keys: Vec<_> = names.iter().map(|name| KeyLine::new(name, name, name)).collect();
    let gateway = Gateway::start(binary, &config, &key_file(&keys)).await?;
    let alone = measure(&gateway, ALONE).await?;
    let before = memory(&gateway).await?;

    let crowd = Crowd::start(gateway.address, names)?;
    let (beside, most) = tokio::join!(measure(&gateway, FOR), greatest(&gateway, FOR));
    let (beside, most) = (beside?, most?);
    let done = crowd.end();
    let (after, took) = settled(&gateway, before + LEFT).await?;

    let (idle, busy) = (alone.quantile(0.99), beside.quantile(0.99));
    let mib = |bytes: f64| bytes / MIB;
    Ok(vec![
        Finding::new(
            format!("no legitimate request fails beside {CALLERS} callers with documents of 10 MB, each answered"),
            format!("{}; meanwhile {}", beside.endings(), done.told()),
            beside.other_than(200) == 0 && alone.other_than(200) == 0 && done.is_as_expected(),
        ),
        Finding::new(
            "their p99 <= 3 x p99 alone, or 50 ms",
            format!("{} beside, {} alone", millis(busy), millis(idle)),
            busy <= (3 * idle).max(WHATEVER_IDLE),
        ),
        Finding::new(
            format!("memory: below {:.0} MiB more beside them", mib(BESIDE)),
            format!("{:.1} MiB before, {:.1} at most beside", mib(before), mib(most)),
            most - before < BESIDE,
        ),
        Finding::new(
            format!("memory: back to {:.0} MiB more within {} s", mib(LEFT), SOON.as_secs()),
            format!("{:.1} MiB after {:.1} s", mib(after), took.as_secs_f64()),
            after - before <= LEFT,
        ),
    ])
}

async fn measure(gateway: &Gateway, duration: Duration) -> Result<Report> {
    Ok(generate(Load::new(gateway.target("/well/status/200")?, RATE, duration)).await)
}

async fn memory(gateway: &Gateway) -> Result<f64> {
    let resident = gateway.metric("process_resident_memory_bytes", "").await?;
    Ok(resident.unwrap_or_default())
}

/// Returns the highest memory during this time.
async fn greatest(gateway: &Gateway, duration: Duration) -> Result<f64> {
    let until = Instant::now() + duration;
    let mut most = 0.0_f64;
    while Instant::now() < until {
        most = most.max(memory(gateway).await?);
        sleep(Duration::from_millis(50)).await;
    }
    Ok(most)
}

/// Returns memory and time once memory is down to `wanted`, or after a limit.
async fn settled(gateway: &Gateway, wanted: f64) -> Result<(f64, Duration)> {
    let begun = Instant::now();
    loop {
        let now = memory(gateway).await?;
        if now <= wanted || begun.elapsed() > SOON {
            return Ok((now, begun.elapsed()));
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Returns documents that are small to write and expensive to read.
fn shapes() -> Vec<Bytes> {
    let repeated = |open: &str, piece: &str, shut: &str| {
        let count = (LENGTH - open.len() - shut.len()) / piece.len();
        let text = format!("{open}{}{shut}", piece.repeat(count));
        Bytes::from(text)
    };
    let members = |escape: &str| {
        let mut text = String::with_capacity(LENGTH + 64);
        text.push('{');
        for number in 0.. {
            let member = format!("\"{escape}{number:x}\":0,");
            if text.len() + member.len() > LENGTH - 16 {
                break;
            }
            text.push_str(&member);
        }
        text.push_str("\"a\":\"x\"}");
        Bytes::from(text)
    };
    let deep = |depth: usize| format!("{}{},", "[".repeat(depth), "]".repeat(depth));
    vec![
        repeated("[", "0,", "0]"),
        repeated("[", "[],", "0]"),
        repeated("[", "{},", "0]"),
        repeated("[", "{\"\":0},", "0]"),
        repeated("{\"a\":\"", "\\u0000", "\"}"),
        repeated("{\"a\":\"", "x", "\"}"),
        repeated("[{\"a\":\"y\"},\"", "x", "\"]"),
        repeated("[", &deep(127), "0]"),
        repeated("[", "{\"$serde_json::private::RawValue\":\"[]\"},", "0]"),
        repeated("", "[", ""),
        members("n"),
        members("\\u006e"),
    ]
}

/// Callers with large documents, on their own thread.
struct Crowd {
    /// Dropped to end the thread.
    stay: oneshot::Sender<()>,
    thread: JoinHandle<()>,
    done: Arc<Done>,
}

#[derive(Default)]
struct Done {
    bytes: AtomicU64,
    unanswered: AtomicU64,
    /// Number of answers by status.
    answers: Mutex<BTreeMap<u16, u64>>,
}

impl Done {
    fn answered(&self, status: u16) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        *answers.entry(status).or_default() += 1;
    }

    fn told(&self) -> String {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let told: Vec<_> = answers
            .iter()
            .map(|(status, count)| format!("{count} x {status}"))
            .collect();
        format!(
            "{} of {:.0} MB, {} cut off",
            told.join(", "),
            self.bytes.load(Relaxed) as f64 / 1e6,
            self.unanswered.load(Relaxed)
        )
    }

    /// Returns whether some documents were read, and all others refused with the expected status.
    fn is_as_expected(&self) -> bool {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |status: &u16| matches!(status, 200 | 400 | 413 | 503);
        answers.contains_key(&200) && answers.contains_key(&413) && answers.keys().all(known)
    }
}

impl Crowd {
    fn start(address: SocketAddr, names: Vec<String>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stay, leave) = oneshot::channel::<()>();
        let done = Arc::new(Done::default());
        let counted = Arc::clone(&done);
        let thread = thread::spawn(move || {
            let shapes = Arc::new(shapes());
            runtime.block_on(async {
                let mut all = JoinSet::new();
                for (number, name) in names.into_iter().enumerate() {
                    all.spawn(again(address, name, number, Arc::clone(&shapes), Arc::clone(&counted)));
                }
                // Ends when the sender is dropped; no value is ever sent.
                let _ = leave.await;
            });
        });
        Ok(Self { stay, thread, done })
    }

    /// Ends the callers; returns what they did.
    fn end(self) -> Arc<Done> {
        drop(self.stay);
        self.thread.join().expect("the crowd does not panic");
        self.done
    }
}

/// Sends one document after the other.
async fn again(address: SocketAddr, name: String, number: usize, shapes: Arc<Vec<Bytes>>, done: Arc<Done>) {
    for turn in number.. {
        let path = if turn % 8 == 7 { "/short" } else { "/long" };
        let body = &shapes[turn % shapes.len()];
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\nx-api-key: {name}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        match timeout(Duration::from_secs(30), send(address, head.as_bytes(), body, &done)).await {
            Ok(Ok(status)) => done.answered(status),
            _ => drop(done.unanswered.fetch_add(1, Relaxed)),
        }
        sleep(PAUSE).await;
    }
}

/// Returns the status of the answer, which may come before all bytes were sent.
async fn send(address: SocketAddr, head: &[u8], body: &[u8], done: &Done) -> std::io::Result<u16> {
    let (mut answers, mut requests) = TcpStream::connect(address).await?.into_split();
    let sent = async {
        requests.write_all(head).await?;
        for piece in body.chunks(64 << 10) {
            requests.write_all(piece).await?;
            done.bytes.fetch_add(piece.len() as u64, Relaxed);
        }
        // Sends nothing more; the answer ends this future.
        std::future::pending::<std::io::Result<()>>().await
    };
    let read = async {
        let mut answer = Vec::new();
        while answer.len() < 12 {
            if answers.read_buf(&mut answer).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        let status = answer
            .get(9..12)
            .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        status.ok_or_else(|| std::io::ErrorKind::InvalidData.into())
    };
    let mut read = std::pin::pin!(read);
    tokio::select! {
        biased;
        status = &mut read => status,
        // After an early refusal the connection may be closed while bytes are still being sent; the answer can still be
        // read.
        Err(_) = sent => read.await,
    }
}

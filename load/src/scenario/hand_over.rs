//! Replaces the gateway by another process ten times, under requests at full speed over kept and over fresh connections,
//! slow uploads, WebSockets and an HTTP/2 connection. Nothing may be refused, reset or fail.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Behaviour, Fleet, Keep, Spec};
use futures_util::{SinkExt, StreamExt};
use http::{Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::{accept_async, client_async};

use super::Finding;
use super::gateway::Gateway;
use crate::Result;
use crate::client::{Client, ending};

const CONFIG: &str = r#"
time_limits: { request: 120s, drain: 120s }
callers: { api_keys: { file: keys.yaml } }
tiers:
  unbounded: { rate: 1000000/s, burst: 1000000 }
  once: { rate: 1/h, burst: 1 }
backends:
  fast: { endpoints: [{ url: "http://@fast@" }], time_limit: 100s, retry: off, bulkhead: { limit: 1000, queue: 1000, wait: 5s } }
  sick: { endpoints: [{ url: "http://@sick@" }], retry: off, breaker: { min_calls: 5, failure_ratio: 0.5, open_for: 1h } }
  talk: { endpoints: [{ url: "http://@talk@" }] }
routes:
  fast: { match: { path: "/fast" }, access: { any_of: [api_key] }, backend: fast }
  upload: { match: { path: "/upload", methods: [POST] }, access: { any_of: [api_key] }, backend: fast }
  sick: { match: { path: "/sick" }, access: { any_of: [api_key] }, backend: sick }
  talk: { match: { path: "/talk" }, access: { any_of: [api_key] }, backend: talk, upgrade: websocket }
"#;

const HAND_OVERS: usize = 10;
/// Time between two hand-overs.
const EVERY: Duration = Duration::from_millis(1_500);
const KEPT: usize = 32;
const FRESH: usize = 8;
const UPLOADS: usize = 100;
const SOCKETS: usize = 20;
/// Length of an upload, of which a byte is sent at a time.
const UPLOAD: usize = 40;
const BYTE_EVERY: Duration = Duration::from_millis(100);
const LIMIT: Duration = Duration::from_secs(20);

/// Number of requests by how they ended.
#[derive(Clone, Default)]
struct Endings(Arc<Mutex<BTreeMap<String, u64>>>);

impl Endings {
    fn note(&self, ending: impl Into<String>) {
        *self.all().entry(ending.into()).or_default() += 1;
    }

    fn all(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finding(&self, asked: &str) -> Finding {
        let all = self.all();
        let measured: Vec<_> = all
            .iter()
            .map(|(ending, count)| format!("{count} x {ending}"))
            .collect();
        Finding::new(asked, measured.join(", "), all.len() == 1 && all.contains_key("200"))
    }
}

pub(super) async fn run(binary: &Path) -> Result<Vec<Finding>> {
    let fleet = Fleet::start([Spec::new("fast").keep(Keep::NOTHING), Spec::new("sick")]).await?;
    fleet.backend("sick").behave(Behaviour::status(500)).await;
    let config = CONFIG
        .replace("@fast@", &fleet.address("fast").to_string())
        .replace("@sick@", &fleet.address("sick").to_string())
        .replace("@talk@", &echoes().await?.to_string());
    let lines =
        [("busy", "unbounded"), ("drained", "once")].map(|(name, tier)| KeyLine::new(name, name, name).tier(tier));
    let mut gateway = Gateway::start_with_options(
        binary,
        &config,
        &[("keys.yaml", &key_file(&lines))],
        &["--take-over", "run.sock"],
    )
    .await?;
    let address = gateway.address;

    let before = probes(&gateway).await?;
    let end = Arc::new(AtomicBool::new(false));
    let [kept, fresh, uploads, sockets, streams] = [(); 5].map(|()| Endings::default());
    let mut callers = JoinSet::new();
    for number in 0..KEPT + FRESH {
        let is_kept = number < KEPT;
        let endings = if is_kept { kept.clone() } else { fresh.clone() };
        callers.spawn(full_speed(address, is_kept, endings, Arc::clone(&end)));
    }
    for _ in 0..UPLOADS {
        callers.spawn(upload(address, uploads.clone(), Arc::clone(&end)));
    }
    for number in 0..SOCKETS {
        // Half of them stay on the first process, and half are opened again and again.
        callers.spawn(talk(address, number % 2 == 0, sockets.clone(), Arc::clone(&end)));
    }
    callers.spawn(over_http2(address, streams.clone(), Arc::clone(&end)));

    let (mut past, mut longest) = (Vec::new(), Duration::ZERO);
    for _ in 0..HAND_OVERS {
        sleep(EVERY).await;
        let began = Instant::now();
        past.push(gateway.hand_over(binary).await?);
        longest = longest.max(began.elapsed());
    }
    sleep(EVERY).await;
    end.store(true, Relaxed);
    while let Some(caller) = callers.join_next().await {
        caller?;
    }
    let after = probes(&gateway).await?;
    let mut clean = 0;
    for process in past {
        clean += usize::from(process.ended(Duration::from_secs(30)).await?.success());
    }
    let most = longest.as_millis();
    Ok(vec![
        kept.finding(&format!(
            "{KEPT} kept-alive connections at full speed over {HAND_OVERS} hand-overs: none fails"
        )),
        fresh.finding(&format!(
            "{FRESH} callers at full speed, a connection for each request: none is refused or reset"
        )),
        uploads.finding(&format!("{UPLOADS} uploads of a byte every {BYTE_EVERY:?}: none fails")),
        sockets.finding(&format!(
            "{SOCKETS} WebSockets, half of them open from the beginning to the end: none is cut"
        )),
        streams.finding("an HTTP/2 caller that follows GOAWAY: none fails"),
        Finding::new(
            "a drained bucket stays drained, an open breaker open",
            format!("{before:?} before, {after:?} after"),
            before == after && after == ["429", "503"],
        ),
        Finding::new(
            "each old process ends by itself without a cut request",
            format!("{clean} of {HAND_OVERS}; a hand-over took {most} ms at most, with the start of the process"),
            clean == HAND_OVERS,
        ),
    ])
}

/// Uses up the bucket and opens the breaker; returns what answers to them now.
async fn probes(gateway: &Gateway) -> Result<[String; 2]> {
    let mut last = [String::new(), String::new()];
    for _ in 0..10 {
        for (last, (path, key)) in last.iter_mut().zip([("/fast", "drained"), ("/sick", "busy")]) {
            let mut client = Client::new(gateway.address);
            let ended = client.ask(gateway.get(path, key)?, Duration::from_secs(5)).await;
            *last = ending(&ended).map_or_else(|fault| fault.to_string(), |status| status.as_u16().to_string());
        }
    }
    Ok(last)
}

/// Sends one request after the other until the end.
async fn full_speed(address: SocketAddr, is_kept: bool, endings: Endings, end: Arc<AtomicBool>) {
    let mut client = Client::new(address);
    while !end.load(Relaxed) {
        let request = Request::get("/fast").header("host", "a").header("x-api-key", "busy");
        let request = request.body(Default::default()).expect("a valid request");
        let ended = client.ask(request, LIMIT).await;
        endings.note(ending(&ended).map_or_else(|fault| fault.to_string(), |status| status.as_u16().to_string()));
        if !is_kept {
            client = Client::new(address);
        }
    }
}

/// Uploads slowly, again and again.
async fn upload(address: SocketAddr, endings: Endings, end: Arc<AtomicBool>) {
    while !end.load(Relaxed) {
        let ended = timeout(Duration::from_secs(60), upload_once(address)).await;
        endings.note(match ended {
            Ok(Ok(status)) => status,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "timed_out".to_owned(),
        });
    }
}

async fn upload_once(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let head = format!(
        "POST /upload HTTP/1.1\r\nhost: a\r\nx-api-key: busy\r\nconnection: close\r\ncontent-length: {UPLOAD}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    for _ in 0..UPLOAD {
        sleep(BYTE_EVERY).await;
        stream.write_all(b"x").await?;
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(answer.get(9..12).unwrap_or(b"nothing")).into_owned())
}

/// Serves WebSockets that send back what they get.
async fn echoes() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(mut socket) = accept_async(stream).await else {
                    return;
                };
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_text() && socket.send(message).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    Ok(address)
}

/// Sends messages over a WebSocket and waits for each to come back, until the end. Notes each message as a request.
async fn talk(address: SocketAddr, is_long: bool, endings: Endings, end: Arc<AtomicBool>) {
    while !end.load(Relaxed) {
        if let Err(error) = talk_once(address, is_long, &endings, &end).await {
            endings.note(error);
        }
    }
}

async fn talk_once(
    address: SocketAddr,
    is_long: bool,
    endings: &Endings,
    end: &AtomicBool,
) -> std::result::Result<(), String> {
    let wrong = |error: &dyn std::fmt::Display| error.to_string();
    let stream = TcpStream::connect(address).await.map_err(|error| wrong(&error))?;
    let mut request = format!("ws://{address}/talk")
        .into_client_request()
        .map_err(|error| wrong(&error))?;
    request
        .headers_mut()
        .insert("x-api-key", http::HeaderValue::from_static("busy"));
    let (mut socket, _) = client_async(request, stream).await.map_err(|error| wrong(&error))?;
    for number in 0.. {
        if end.load(Relaxed) || !is_long && number == 20 {
            break;
        }
        let text = number.to_string();
        socket
            .send(Message::text(text.clone()))
            .await
            .map_err(|error| wrong(&error))?;
        let back = timeout(LIMIT, socket.next()).await;
        match back {
            Ok(Some(Ok(message))) if message.to_text().is_ok_and(|back| back == text) => endings.note("200"),
            other => return Err(format!("{other:?}")),
        }
        sleep(Duration::from_millis(50)).await;
    }
    socket.close(None).await.map_err(|error| wrong(&error))
}

/// Sends one request after the other over an HTTP/2 connection. Opens another one when the gateway says that it ends this
/// one, and sends again what it says that it has not processed.
async fn over_http2(address: SocketAddr, endings: Endings, end: Arc<AtomicBool>) {
    while !end.load(Relaxed) {
        match over_one_connection(address, &endings, &end).await {
            Ok(()) => {}
            Err(error) if error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR) => {}
            Err(error) => endings.note(error.to_string()),
        }
    }
}

async fn over_one_connection(
    address: SocketAddr,
    endings: &Endings,
    end: &AtomicBool,
) -> std::result::Result<(), h2::Error> {
    let stream = TcpStream::connect(address).await.map_err(h2_error)?;
    let (mut sender, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    while !end.load(Relaxed) {
        sender = sender.ready().await?;
        let request = Request::get(format!("http://{address}/fast")).header("x-api-key", "busy");
        let (answer, _) = sender.send_request(request.body(()).expect("a valid request"), true)?;
        let mut answer = answer.await?;
        while let Some(piece) = answer.body_mut().data().await {
            let piece: Bytes = piece?;
            answer.body_mut().flow_control().release_capacity(piece.len())?;
        }
        let status: StatusCode = answer.status();
        endings.note(status.as_u16().to_string());
    }
    Ok(())
}

/// A refused connection ends the scenario's promise like a reset stream.
fn h2_error(_: std::io::Error) -> h2::Error {
    h2::Reason::CONNECT_ERROR.into()
}

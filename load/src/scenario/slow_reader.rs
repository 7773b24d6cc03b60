//! Checks callers that request much and read nothing, or a little now and then, on HTTP/1.1 and HTTP/2: the slots that
//! they hold come back when the time of their requests is over.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use fixtures::fleet::{Fleet, Keep, Spec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Finding;
use super::gateway::Gateway;
use crate::Result;
use crate::client::{Client, ending};
use crate::report::millis;

/// Config with ten slots and no queue. `time_limits.write` and the minimum rates would end no reader during the
/// scenario.
const CONFIG: &str = r#"
callers: { anonymous: { by: client_address, tier: unbounded } }
tiers:
  unbounded: { rate: 100000/s, burst: 100000 }
time_limits: { write: 10m }
minimum_rates: off
backends:
  big:
    endpoints: [{ url: "http://@big@" }]
    bulkhead: { limit: 10, queue: 0, tenant_share: 1 }
    breaker: off
routes:
  big: { match: { path: "/{*rest}" }, access: { any_of: [anonymous] }, backend: big, time_limit: 3s }
"#;

const CALLERS: usize = 10;
const BUDGET: Duration = Duration::from_secs(3);
const BEYOND: Duration = Duration::from_secs(1);
/// Answer that is larger than all buffers on the way.
const PATH: &str = "/bytes/60000000";
const GIVE_UP: Duration = Duration::from_secs(30);

#[derive(Clone, Copy)]
enum Reader {
    /// Reads nothing, over HTTP/1.1.
    Idle,
    /// Reads some bytes now and then, over HTTP/1.1.
    Slow,
    /// Opens no flow-control window beyond the initial one, over HTTP/2.
    IdleStream,
}

pub(super) async fn run(binary: &Path) -> Result<Vec<Finding>> {
    let fleet = Fleet::start([Spec::new("big").keep(Keep::NOTHING)]).await?;
    let config = CONFIG.replace("@big@", &fleet.address("big").to_string());
    let gateway = Gateway::start(binary, &config, "keys: []").await?;
    Ok(vec![
        comes_back(&gateway, "read nothing", Reader::Idle).await?,
        comes_back(&gateway, "read a little now and then", Reader::Slow).await?,
        comes_back(&gateway, "open no window (HTTP/2)", Reader::IdleStream).await?,
    ])
}

async fn comes_back(gateway: &Gateway, who: &str, reader: Reader) -> Result<Finding> {
    let begun = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let address = gateway.address;
        callers.spawn(async move { read(address, reader).await });
    }
    while in_use(gateway).await? < CALLERS as f64 {
        if begun.elapsed() > BUDGET {
            return Err(format!("callers who {who} did not take all slots").into());
        }
        sleep(Duration::from_millis(5)).await;
    }
    let meanwhile = ask(gateway).await?;
    while in_use(gateway).await? > 0.0 && begun.elapsed() < GIVE_UP {
        sleep(Duration::from_millis(10)).await;
    }
    let took = begun.elapsed();
    let after = ask(gateway).await?;
    // The callers have stayed until now, whether the gateway closed their connections or not.
    callers.shutdown().await;
    Ok(Finding::new(
        format!("{CALLERS} callers who {who}: all slots of a call of {BUDGET:?} are back within 1 s of its end"),
        format!(
            "taken, a call meanwhile: {meanwhile}; back after {}, a call then: {after}",
            millis(took)
        ),
        meanwhile == "503" && took >= BUDGET && took <= BUDGET + BEYOND && after == "200",
    ))
}

async fn in_use(gateway: &Gateway) -> Result<f64> {
    let slots = gateway.metric("gateway_bulkhead_in_use", "backend=\"big\"").await?;
    Ok(slots.unwrap_or_default())
}

/// Returns the status of a small call.
async fn ask(gateway: &Gateway) -> Result<String> {
    let request = gateway.get("/bytes/10", "nobody")?;
    let answer = Client::new(gateway.address).ask(request, Duration::from_secs(5)).await;
    Ok(ending(&answer).map_or_else(|fault| fault.to_string(), |status| status.as_str().to_owned()))
}

async fn read(address: SocketAddr, reader: Reader) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    match reader {
        Reader::Idle | Reader::Slow => {
            let head = format!("GET {PATH} HTTP/1.1\r\nhost: a\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
        }
        Reader::IdleStream => stream.write_all(&stream_of_http2()).await?,
    }
    let mut piece = [0; 4096];
    while let Reader::Slow = reader {
        if stream.read(&mut piece).await? == 0 {
            return Ok(());
        }
        sleep(Duration::from_millis(50)).await;
    }
    // The connection stays open, and nothing is read from it.
    std::future::pending().await
}

/// Returns the preface, settings that change nothing, and a GET of [`PATH`] (RFC 9113 sections 3.4 and 6.2).
fn stream_of_http2() -> Vec<u8> {
    const END_HEADERS_AND_STREAM: u8 = 0x5;
    let frame = |kind: u8, flags: u8, id: u32, payload: &[u8]| {
        let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
        [&length[1..], &[kind, flags], &id.to_be_bytes(), payload].concat()
    };
    let length = u8::try_from(PATH.len()).expect("a short path");
    // GET, http, a path as a literal, `a` as the authority (RFC 7541 appendix A).
    let fields = [&[0x82, 0x86, 0x04, length], PATH.as_bytes(), &[0x41, 0x01, b'a']].concat();
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(4, 0, 0, &[]),
        frame(1, END_HEADERS_AND_STREAM, 1, &fields),
    ]
    .concat()
}

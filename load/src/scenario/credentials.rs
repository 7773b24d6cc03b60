//! Sends a hundred thousand unknown credentials over two hundred connections: half are API keys, half are forged tokens
//! that each cost a signature check. They come first from twenty thousand addresses, then again from forty. At the same
//! time other callers use a known token, or their own token for the first time.

use std::path::Path;
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Fleet, Keep, Spec};
use fixtures::keys;
use fixtures::tokens::{Algorithm, kid, mint, seconds_from_now};
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use serde_json::json;

use super::Finding;
use super::gateway::Gateway;
use crate::Result;
use crate::generate::{Load, generate};
use crate::report::{Report, millis};

const CONFIG: &str = r#"
client_address: { trusted_proxies: [127.0.0.0/8] }
callers:
  api_keys: { file: keys.yaml }
  jwt:
    main: { issuer: "https://id.test", audience: [edge], algorithms: [ES256], keys: { file: "@jwks@" }, tenant: /tenant }
tiers:
  unbounded: { rate: 100000/s, burst: 100000 }
default_tier: unbounded
backends:
  well: { endpoints: [{ url: "http://@well@" }], bulkhead: { limit: 1000, queue: 1000, wait: 5s } }
routes:
  well: { match: { path: "/well" }, backend: well, time_limit: 5s }
"#;

const FORWARDED: HeaderName = HeaderName::from_static("x-forwarded-for");
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Credentials of each kind, in each of the two floods.
const RANDOM: usize = 50_000;
/// Requests of each kind in a second.
const FLOOD: f64 = 2_500.0;
const KNOWN: f64 = 200.0;
const NEW: f64 = 50.0;
const FOR: Duration = Duration::from_secs(5);
/// Latency that is always accepted: it covers the share of the workers' time that checks may take, and other costs of
/// the flood.
const WHATEVER_ALONE: Duration = Duration::from_millis(50);
/// Largest growth of memory from the first flood to the second, in bytes.
const FLAT: f64 = 8.0 * 1024.0 * 1024.0;

pub(super) async fn run(binary: &Path) -> Result<Vec<Finding>> {
    let fleet = Fleet::start([Spec::new("well").keep(Keep::NOTHING)]).await?;
    let folder = tempfile::tempdir()?;
    let jwks = folder.path().join("jwks.json");
    std::fs::write(&jwks, keys::JWKS)?;
    let config = CONFIG
        .replace("@well@", &fleet.address("well").to_string())
        .replace("@jwks@", &jwks.display().to_string());
    let gateway = Gateway::start(binary, &config, &key_file(&[KeyLine::new("acme", "acme", "genuine")])).await?;
    let known = load(&gateway, KNOWN, FOR)?.header(AUTHORIZATION, bearer(&genuine("known"))?);

    let alone = generate(known.clone()).await;
    let memory = async || gateway.metric("process_resident_memory_bytes", "").await;
    let first = flood(&gateway, 1, 10_000)?;
    let first = [join(first.0)?, join(first.1)?];
    let after_first = memory().await?.unwrap_or_default();
    let second = flood(&gateway, 2, 20)?;
    let beside = generate(known).await;
    let strangers = generate(strangers(&gateway)?).await;
    let second = [join(second.0)?, join(second.1)?];
    let grown = memory().await?.unwrap_or_default() - after_first;

    let (idle, busy) = (alone.quantile(0.99), beside.quantile(0.99));
    let told = |flood: &[Report; 2]| format!("keys {}, tokens {}", flood[0].endings(), flood[1].endings());
    let admitted: u64 = first.iter().chain(&second).map(|report| report.status(200)).sum();
    let verified = gateway.metric("gateway_verifications_total", "verified").await?;
    let failed = gateway.metric("gateway_verifications_total", "failed").await?;
    let spent = gateway.metric("gateway_verification_seconds_total", "").await?;
    Ok(vec![
        Finding::new(
            format!("{RANDOM} random keys and {RANDOM} forged tokens, twice: not one is admitted"),
            format!("{}; then from fewer addresses {}", told(&first), told(&second)),
            admitted == 0 && second.iter().all(|report| report.sent() == RANDOM as u64),
        ),
        Finding::new(
            "none of the requests with a known token fails beside them",
            format!("{} (alone {})", beside.endings(), alone.endings()),
            beside.other_than(200) == 0 && alone.other_than(200) == 0,
        ),
        Finding::new(
            "their p99 beside the flood <= 3 x p99 alone, or 50 ms",
            format!("{} beside, {} alone", millis(busy), millis(idle)),
            busy <= (3 * idle).max(WHATEVER_ALONE),
        ),
        Finding::new(
            "callers who come with a genuine token for the first time get in",
            strangers.endings(),
            strangers.other_than(200) == 0,
        ),
        Finding::new(
            "memory grows by less than 8 MiB from the first flood to the second",
            format!("{:.1} MiB after the first, {:+.1} MiB", after_first / MIB, grown / MIB),
            after_first > 0.0 && grown < FLAT,
        ),
        Finding::new(
            "signature checks, and the time that workers spent on them",
            format!(
                "{} verified, {} failed, {:.2} s",
                verified.unwrap_or_default(),
                failed.unwrap_or_default(),
                spent.unwrap_or_default()
            ),
            failed.is_some_and(|failed| failed > 0.0),
        ),
    ])
}

const MIB: f64 = 1024.0 * 1024.0;

type Running = thread::JoinHandle<Result<Report>>;

/// Starts both floods, each from this many addresses. They run on their own threads, so that their cost is not part of
/// the measurement.
fn flood(gateway: &Gateway, seed: u64, addresses: u32) -> Result<(Running, Running)> {
    let mut rng = Rng::with_seed(seed);
    let keys = (0..RANDOM).map(|_| HeaderValue::from_str(&text(&mut rng, 40)));
    let keys: Vec<HeaderValue> = keys.collect::<std::result::Result<_, _>>()?;
    // The signature differs each time, so that only a check can tell that it is wrong.
    let token = genuine("eve");
    let signed = token.rsplit_once('.').map_or("", |(signed, _)| signed);
    let tokens = (0..RANDOM).map(|_| bearer(&format!("{signed}.{}A", text(&mut rng, 85))));
    let tokens: Vec<HeaderValue> = tokens.collect::<Result<_>>()?;
    let from = |second: u8| -> Result<Vec<HeaderValue>> {
        let addresses = (0..addresses).map(|n| HeaderValue::from_str(&format!("10.{second}.{}.{}", n >> 8, n & 255)));
        Ok(addresses.collect::<std::result::Result<_, _>>()?)
    };
    let run = |name: HeaderName, values: Vec<HeaderValue>, addresses: Vec<HeaderValue>| -> Result<Running> {
        let load = Load {
            rotating: vec![(name, values), (FORWARDED, addresses)],
            count: Some(RANDOM as u64),
            ..load(gateway, FLOOD, Duration::from_secs(60))?.connections(100)
        };
        Ok(thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(runtime.block_on(generate(load)))
        }))
    };
    Ok((run(API_KEY, keys, from(1)?)?, run(AUTHORIZATION, tokens, from(2)?)?))
}

fn join(running: Running) -> Result<Report> {
    running.join().expect("the load does not panic")
}

/// Returns a load of requests that each have a new token, from addresses that send nothing else.
fn strangers(gateway: &Gateway) -> Result<Load> {
    let count = (NEW * FOR.as_secs_f64()) as usize;
    let tokens = (0..count).map(|n| bearer(&genuine(&format!("new-{n}"))));
    let addresses = (0..count).map(|n| HeaderValue::from_str(&format!("10.3.{}.{}", n >> 8, n & 255)));
    Ok(Load {
        rotating: vec![
            (AUTHORIZATION, tokens.collect::<Result<_>>()?),
            (FORWARDED, addresses.collect::<std::result::Result<_, _>>()?),
        ],
        ..load(gateway, NEW, FOR)?
    })
}

fn load(gateway: &Gateway, rate: f64, duration: Duration) -> Result<Load> {
    Ok(Load::new(gateway.target("/well")?, rate, duration))
}

fn genuine(subject: &str) -> String {
    let claims = json!({
        "iss": "https://id.test", "aud": "edge", "sub": subject, "tenant": "acme",
        "exp": seconds_from_now(Duration::from_secs(3600)),
    });
    mint(Algorithm::ES256, &claims, Some(&kid(Algorithm::ES256)))
}

fn bearer(token: &str) -> Result<HeaderValue> {
    Ok(HeaderValue::from_str(&format!("Bearer {token}"))?)
}

fn text(rng: &mut Rng, length: usize) -> String {
    (0..length).map(|_| rng.alphanumeric()).collect()
}

//! Measures a route to a healthy backend, alone and while another backend hangs under 500 callers.
//!
//! The breaker of the hanging backend is off. With it the callers would be refused at once, and callers that stay are
//! the harder case.

use std::net::SocketAddr;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Behaviour, Fault, Fleet, Keep, Spec};
use http::{HeaderName, HeaderValue, Request};
use http_body_util::Full;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Finding;
use super::gateway::Gateway;
use crate::Result;
use crate::client::{Client, retry_after};
use crate::generate::{Load, generate};
use crate::report::{Report, millis};

const CONFIG: &str = r#"
callers: { api_keys: { file: keys.yaml } }
tiers:
  unbounded: { rate: 100000/s, burst: 100000 }
backends:
  hangs:
    endpoints: [{ url: "http://@hangs@" }]
    bulkhead: { limit: 20, queue: 480, wait: 5s, tenant_share: 1 }
    breaker: off
  well: { endpoints: [{ url: "http://@well@" }] }
routes:
  hangs: { match: { path: "/hangs" }, access: { any_of: [api_key] }, backend: hangs, time_limit: 2s }
  well: { match: { path: "/well" }, access: { any_of: [api_key] }, backend: well }
"#;

const CALLERS: u32 = 500;
const RATE: f64 = 200.0;
const FOR: Duration = Duration::from_secs(5);
const WHATEVER_IDLE: Duration = Duration::from_millis(50);

pub(super) async fn run(binary: &Path) -> Result<Vec<Finding>> {
    let hangs = Spec::new("hangs")
        .behaviour(Behaviour::always(Fault::Hang))
        .keep(Keep::NOTHING);
    let fleet = Fleet::start([hangs, Spec::new("well").keep(Keep::NOTHING)]).await?;
    let config = CONFIG
        .replace("@hangs@", &fleet.address("hangs").to_string())
        .replace("@well@", &fleet.address("well").to_string());
    let lines = ["crowd", "well"].map(|name| KeyLine::new(name, name, name).tier("unbounded"));
    let gateway = Gateway::start(binary, &config, &key_file(&lines)).await?;

    let alone = measure(&gateway).await?;
    let crowd = Crowd::start(gateway.address, &gateway.get("/hangs", "crowd")?)?;
    let in_slots = fleet
        .backend("hangs")
        .wait_for(|counts| counts.in_flight == 20, Duration::from_secs(5))
        .await?;
    let beside = measure(&gateway).await?;
    crowd.end();

    let (idle, busy) = (alone.quantile(0.99), beside.quantile(0.99));
    Ok(vec![
        Finding::new(
            format!("p99 beside {CALLERS} callers of a hanging backend <= 3 x p99 alone, or 50 ms"),
            format!(
                "{} beside, {} alone ({} calls hung in their slots)",
                millis(busy),
                millis(idle),
                in_slots.in_flight
            ),
            busy <= (3 * idle).max(WHATEVER_IDLE),
        ),
        Finding::new(
            "none of its requests fails",
            beside.endings(),
            beside.other_than(200) == 0,
        ),
    ])
}

/// Callers that send again as soon as they may. They run on their own thread, so that their cost is not part of the
/// measurement.
struct Crowd {
    /// Dropped to end the thread.
    stay: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Crowd {
    fn start(address: SocketAddr, request: &Request<Full<Bytes>>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stay, leave) = oneshot::channel();
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| call(Client::new(address), request.clone()))
            .collect();
        let thread = thread::spawn(move || {
            runtime.block_on(async {
                let _callers: JoinSet<()> = callers.into_iter().collect();
                // Ends when the sender is dropped; no value is ever sent.
                let _ = leave.await;
            });
        });
        Ok(Self { stay, thread })
    }

    fn end(self) {
        drop(self.stay);
        self.thread.join().expect("the callers do not panic");
    }
}

async fn call(mut client: Client, request: Request<Full<Bytes>>) {
    loop {
        // Obeys `Retry-After`, as a caller should.
        let pause = match client.ask(request.clone(), Duration::from_secs(10)).await {
            Ok(answer) => retry_after(&answer).unwrap_or_default(),
            Err(_) => Duration::from_millis(100),
        };
        sleep(pause).await;
    }
}

async fn measure(gateway: &Gateway) -> Result<Report> {
    let load = Load::new(gateway.target("/well")?, RATE, FOR);
    Ok(generate(load.header(HeaderName::from_static("x-api-key"), HeaderValue::from_static("well"))).await)
}

//! Checks that replicas stay within the stated bound whatever happens to the store that they share, that no caller gets a
//! server error for it, and that they recover by themselves.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use fixtures::faulty_proxy::FaultyProxy;
use fixtures::redis_server::{self, RedisServer};
use tests::configs::Config;
use tests::crowd::{Tally, steadily};
use tests::{Client, Gateway, Setup, eventually};
use tokio::time::sleep;

use crate::SOON;

const REPLICAS: usize = 3;
/// Tokens a second, and most at once, of the one owner that all requests are charged to.
const RATE: f64 = 60.0;
const BURST: f64 = 60.0;
/// A tenth of the burst.
const ON_LEASE: f64 = 6.0;
/// Requests a second of all callers together, twice what is admitted in the long run.
const ASKED: u32 = 120;

const PASSWORD: &str = "hunter2";

/// Time for which the store is in trouble, and for which it is well before and after.
const TROUBLE: Duration = Duration::from_secs(if cfg!(feature = "long") { 10 } else { 2 });
const WELL: Duration = Duration::from_secs(1);

/// Gateways that reach the store through a proxy.
struct Replicas {
    gateways: Vec<Gateway>,
    clients: Vec<Client>,
    proxy: FaultyProxy,
}

impl Replicas {
    /// Starts them. Each answers by itself, so that only the limit decides.
    async fn start(store: &RedisServer, more: &str) -> Self {
        let proxy = FaultyProxy::start(store.address()).expect("a port is free");
        let config = Config::default()
            .top(format!(
                "limits_store: {{ redis: {{ url: \"redis://{}\"{more} }} }}",
                proxy.address()
            ))
            .route(
                "shared",
                "{ match: { path: /shared }, access: { any_of: [anonymous] }, \
                 limits: { shared: { rate: 60/s, burst: 60, per: route } }, respond: { status: 204 } }",
            );
        let setup = Setup::new(config.to_string()).file("password", PASSWORD);
        let mut gateways = Vec::new();
        for _ in 0..REPLICAS {
            gateways.push(setup.clone().start().await);
        }
        let clients = gateways.iter().map(Gateway::client).collect();
        let replicas = Self {
            gateways,
            clients,
            proxy,
        };
        replicas.are_well().await;
        replicas
    }

    /// Waits until all replicas reach the store.
    async fn are_well(&self) {
        for gateway in &self.gateways {
            eventually(SOON, "the store can be reached", || async {
                (gateway.metric("gateway_store_up", &[]).await == 1.0).then_some(())
            })
            .await;
        }
    }

    /// Asks all of them in turn for as long as `meanwhile` takes and a while before and after. Checks that nobody gets
    /// anything but 204 and 429, and that what is admitted is within the bound. `bursts` are those that the trouble may
    /// cost beside the one that the bucket holds.
    async fn stay_within(&self, bursts: f64, meanwhile: impl Future<Output = ()>) {
        let (began, number) = (Instant::now(), AtomicUsize::new(0));
        let ask = || {
            let replica = number.fetch_add(1, Relaxed) % REPLICAS;
            self.clients[replica].get("/shared")
        };
        let trouble = async {
            sleep(WELL).await;
            meanwhile.await;
            self.are_well().await;
            sleep(WELL).await;
        };
        let (tally, ()) = steadily(ASKED, ask, trouble).await;
        let admitted = only_admitted_or_refused(&tally) as f64;
        let earned = RATE * began.elapsed().as_secs_f64();
        let most = BURST + earned + ON_LEASE + bursts * BURST;
        assert!(
            admitted <= most,
            "{admitted} of {} admitted, at most {most}",
            tally.told.len()
        );
        let least = (0.5 * earned).min(0.9 * tally.told.len() as f64);
        assert!(
            admitted >= least,
            "{admitted} of {} admitted, at least {least}",
            tally.told.len()
        );
    }
}

/// Returns the number of admitted requests.
fn only_admitted_or_refused(tally: &Tally) -> usize {
    let statuses: BTreeMap<_, _> = tally.statuses();
    let others: Vec<_> = statuses
        .iter()
        .filter(|((status, reason), _)| !(*status == 204 || *status == 429 && reason == "rate_limited"))
        .collect();
    assert!(others.is_empty(), "{others:?} of {statuses:?}");
    tally.with_status(204)
}

#[tokio::test]
async fn a_store_that_is_killed_costs_two_bursts() {
    let Some(mut store) = RedisServer::start() else { return };
    let replicas = Replicas::start(&store, "").await;
    // One for the time alone, and one for what the store has forgotten.
    replicas
        .stay_within(2.0, async {
            store.kill();
            sleep(TROUBLE).await;
            store.restart();
        })
        .await;
}

#[tokio::test]
async fn a_store_that_stops_costs_one_burst() {
    let Some(store) = RedisServer::start() else { return };
    let replicas = Replicas::start(&store, "").await;
    replicas
        .stay_within(1.0, async {
            store.pause();
            sleep(TROUBLE).await;
            store.resume();
        })
        .await;
}

#[tokio::test]
async fn a_store_that_forgets_costs_one_burst() {
    let Some(store) = RedisServer::start() else { return };
    let replicas = Replicas::start(&store, "").await;
    replicas
        .stay_within(1.0, async {
            store.command(&["FLUSHALL"]);
        })
        .await;
}

#[tokio::test]
async fn scripts_that_are_forgotten_cost_nothing() {
    let Some(store) = RedisServer::start() else { return };
    let replicas = Replicas::start(&store, "").await;
    replicas
        .stay_within(0.0, async {
            for _ in 0..20 {
                store.command(&["SCRIPT", "FLUSH"]);
                sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
}

#[tokio::test]
async fn a_primary_that_becomes_a_replica_and_returns_is_used_again() {
    let (Some(store), Some(other)) = (RedisServer::start(), RedisServer::start()) else {
        return;
    };
    let replicas = Replicas::start(&store, "").await;
    // It copies the other one, which is empty, and so forgets.
    replicas
        .stay_within(2.0, async {
            store.command(&["REPLICAOF", "127.0.0.1", &other.port().to_string()]);
            sleep(TROUBLE).await;
            store.command(&["REPLICAOF", "NO", "ONE"]);
        })
        .await;
}

#[tokio::test]
async fn a_store_without_memory_costs_one_burst() {
    let Some(store) = RedisServer::start() else { return };
    let replicas = Replicas::start(&store, "").await;
    replicas
        .stay_within(1.0, async {
            store.command(&["CONFIG", "SET", "maxmemory", "1"]);
            sleep(TROUBLE).await;
            store.command(&["CONFIG", "SET", "maxmemory", "0"]);
        })
        .await;
}

#[tokio::test]
async fn a_promoted_replica_that_missed_writes_costs_two_bursts() {
    let Some(mut primary) = RedisServer::start() else {
        return;
    };
    let options = redis_server::Options {
        replica_of: Some(primary.port()),
        ..redis_server::Options::default()
    };
    let Some(replica) = RedisServer::start_with(options) else {
        return;
    };
    eventually(SOON, "the replica has copied", || async {
        replica
            .command(&["INFO", "replication"])
            .contains("master_link_status:up")
            .then_some(())
    })
    .await;
    let replicas = Replicas::start(&primary, "").await;
    replicas
        .stay_within(2.0, async {
            replica.pause();
            sleep(WELL).await;
            primary.kill();
            replica.resume();
            replica.command(&["REPLICAOF", "NO", "ONE"]);
            replicas.proxy.move_to(replica.address());
        })
        .await;
}

#[tokio::test]
async fn a_store_that_is_slow_costs_one_burst() {
    let Some(store) = RedisServer::start() else { return };
    let replicas = Replicas::start(&store, "").await;
    replicas
        .stay_within(1.0, async {
            replicas.proxy.delay(Duration::from_millis(100));
            sleep(TROUBLE).await;
            replicas.proxy.heal();
        })
        .await;
}

#[tokio::test]
async fn connections_that_are_reset_cost_one_burst() {
    let Some(store) = RedisServer::start() else { return };
    let replicas = Replicas::start(&store, "").await;
    replicas
        .stay_within(1.0, async {
            replicas.proxy.reset(0.05);
            sleep(TROUBLE).await;
            replicas.proxy.heal();
        })
        .await;
}

#[tokio::test]
async fn a_store_that_vanishes_costs_one_burst() {
    let Some(store) = RedisServer::start() else { return };
    let replicas = Replicas::start(&store, "").await;
    replicas
        .stay_within(1.0, async {
            replicas.proxy.silence();
            sleep(TROUBLE).await;
            replicas.proxy.heal();
        })
        .await;
}

#[tokio::test]
async fn a_password_that_is_changed_is_read_again() {
    let options = redis_server::Options {
        password: Some(PASSWORD.to_owned()),
        ..redis_server::Options::default()
    };
    let Some(mut store) = RedisServer::start_with(options) else {
        return;
    };
    let replicas = Replicas::start(&store, ", password_file: password").await;
    replicas
        .stay_within(1.0, async {
            store.command(&["CONFIG", "SET", "requirepass", "correct-horse"]);
            store.set_own_password("correct-horse");
            store.command(&["CLIENT", "KILL", "TYPE", "normal"]);
            sleep(TROUBLE).await;
            for gateway in &replicas.gateways {
                fs::write(gateway.path("password"), "correct-horse").expect("a file of ours");
            }
        })
        .await;
}

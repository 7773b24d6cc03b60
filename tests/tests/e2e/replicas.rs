//! Checks limits that several processes share through a real Redis: no more is admitted than one process would and what
//! is on lease, and whatever happens to the store or a process, requests are answered and limits hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::redis_server::RedisServer;
use tests::configs::Config;
use tests::{Client, Gateway, Setup, Signal, cli, eventually};

use crate::{SOON, one_backend};

const TOP: &str = r#"
listeners: { public: { address: "127.0.0.1:0" } }
admin: { address: "127.0.0.1:0" }
workers: 1
callers: { api_keys: { file: keys.yaml } }
"#;

/// Callers that send to each replica at the same time.
const CALLERS: usize = 2;

/// Config with this tier as the default one, and a route that answers by itself.
fn config(redis: &RedisServer, tier: &str) -> Config {
    Config::with(TOP)
        .top(format!(
            "limits_store: {{ redis: {{ url: \"{}\" }}, call_limit: 100ms }}\ntiers: {{ plan: {tier} }}\ndefault_tier: plan",
            redis.url()
        ))
        .route("r", "{ match: { path: /r }, respond: { status: 204 } }")
}

fn setup(config: impl std::fmt::Display, tenants: usize) -> Setup {
    let names: Vec<_> = (0..tenants).map(|number| format!("tenant-{number}")).collect();
    let lines: Vec<_> = names.iter().map(|name| KeyLine::new(name, name, name)).collect();
    Setup::new(config.to_string()).file("keys.yaml", key_file(&lines))
}

async fn three(setup: &Setup) -> [Gateway; 3] {
    let start = || setup.clone().start();
    let (one, two, three) = tokio::join!(start(), start(), start());
    [one, two, three]
}

/// Answers of all kinds so far.
#[derive(Debug, Default)]
struct Tally {
    admitted: AtomicU64,
    refused: AtomicU64,
    /// Statuses other than 204 and 429, and broken connections.
    other: AtomicU64,
}

impl Tally {
    fn counts(&self) -> (u64, u64, u64) {
        (
            self.admitted.load(Relaxed),
            self.refused.load(Relaxed),
            self.other.load(Relaxed),
        )
    }
}

/// Callers of one tenant that send to all replicas as fast as they can, until this is dropped or stopped.
struct Flood {
    tally: Arc<Tally>,
    is_over: Arc<AtomicBool>,
    callers: Vec<tokio::task::JoinHandle<()>>,
    began: Instant,
}

impl Flood {
    fn of(replicas: &[&Gateway], tenant: &str) -> Self {
        let (tally, is_over) = (Arc::<Tally>::default(), Arc::<AtomicBool>::default());
        let began = Instant::now();
        let mut callers = Vec::new();
        for replica in replicas {
            for _ in 0..CALLERS {
                let client = replica.another_client();
                let (tally, is_over, tenant) = (Arc::clone(&tally), Arc::clone(&is_over), tenant.to_owned());
                callers.push(tokio::spawn(async move {
                    while !is_over.load(Relaxed) {
                        ask(&client, &tenant, &tally).await;
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                }));
            }
        }
        Self {
            tally,
            is_over,
            callers,
            began,
        }
    }

    /// Stops, and returns what was counted and the time from the first request to the last answer.
    async fn stop(mut self) -> (Arc<Tally>, Duration) {
        self.is_over.store(true, Relaxed);
        for caller in std::mem::take(&mut self.callers) {
            caller.await.expect("it ends");
        }
        (Arc::clone(&self.tally), self.began.elapsed())
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
    }
}

async fn ask(client: &Client, tenant: &str, tally: &Tally) {
    let count = match client
        .get("/r")
        .key(tenant)
        .try_send()
        .await
        .map(|answer| answer.status)
    {
        Ok(204) => &tally.admitted,
        Ok(429) => &tally.refused,
        Ok(_) | Err(_) => &tally.other,
    };
    count.fetch_add(1, Relaxed);
}

/// Returns the tokens on lease that `gateway check` prints for the limit over three replicas.
fn printed_bound(setup: &Setup, limit: &str) -> u64 {
    let told = cli(&["check", "--replicas", "3", "-c", "gateway.yaml"], setup);
    let line = told
        .stdout
        .lines()
        .find(|line| line.trim().starts_with(&format!("{limit} ")));
    let line = line.unwrap_or_else(|| panic!("{limit} is shown: {}", told.stdout));
    let on_lease = line.split_whitespace().nth(3).expect("the fourth column");
    on_lease
        .parse()
        .unwrap_or_else(|_| panic!("a number of tokens: {line}"))
}

async fn is_up(replica: &Gateway) -> bool {
    let status = replica.admin_json("/api/v1/status").await;
    status["limits_store"]["up"] == true
}

async fn all_up(replicas: &[&Gateway]) {
    for replica in replicas {
        eventually(SOON, "the store is up again", || async {
            is_up(replica).await.then_some(())
        })
        .await;
    }
}

fn all(replicas: &[Gateway; 3]) -> [&Gateway; 3] {
    replicas.each_ref()
}

#[tokio::test]
async fn three_replicas_admit_what_one_would_and_the_printed_bound() {
    let Some(redis) = RedisServer::start() else { return };
    for (tier, rate, burst) in [
        ("{ rate: 20/s, burst: 40, in_flight: off }", 20, 40),
        ("{ rate: 60/s, burst: 120 }", 60, 120),
    ] {
        redis.command(&["FLUSHALL"]);
        let setup = setup(config(&redis, tier), 1);
        let bound = printed_bound(&setup, "tiers.plan");
        let replicas = three(&setup).await;
        let flood = Flood::of(&all(&replicas), "tenant-0");
        tokio::time::sleep(Duration::from_secs(4)).await;
        let (tally, took) = flood.stop().await;
        let (admitted, refused, other) = tally.counts();
        assert_eq!(other, 0, "{tier}");
        assert!(refused > admitted, "it was a flood: {admitted} and {refused}");
        let most = burst as f64 + f64::from(rate) * took.as_secs_f64() + bound as f64;
        assert!(admitted as f64 <= most, "{tier}: {admitted} of at most {most}");
        let least = (f64::from(burst) + f64::from(rate) * 4.0) * 0.98;
        assert!(admitted as f64 >= least, "{tier}: {admitted} of at least {least}");
    }
}

#[tokio::test]
async fn a_quota_over_three_replicas_is_used_up_exactly() {
    let Some(redis) = RedisServer::start() else { return };
    let tier = "{ rate: 100000/s, burst: 100000, quotas: { monthly: { limit: 300, every: month } } }";
    let replicas = three(&setup(config(&redis, tier), 1)).await;
    let flood = Flood::of(&all(&replicas), "tenant-0");
    let tally = Arc::clone(&flood.tally);
    eventually(SOON, "the quota is used up", || {
        let used = tally.admitted.load(Relaxed) == 300;
        async move { used.then_some(()) }
    })
    .await;
    // Nothing that was on lease comes back later.
    let refused = tally.refused.load(Relaxed);
    eventually(SOON, "many more are refused", || {
        let more = tally.refused.load(Relaxed) > refused + 1_000;
        async move { more.then_some(()) }
    })
    .await;
    let (tally, _) = flood.stop().await;
    assert_eq!((tally.counts().0, tally.counts().2), (300, 0));
    let refused = replicas[0].get("/r").key("tenant-0").send().await;
    refused.refusal(429, "quota_exhausted");
}

#[tokio::test]
async fn many_tenants_below_their_rate_are_never_refused() {
    let Some(redis) = RedisServer::start() else { return };
    let replicas = three(&setup(config(&redis, "{ rate: 10/s, burst: 20 }"), 200)).await;
    let tally = Arc::<Tally>::default();
    let mut callers = Vec::new();
    for number in 0..200 {
        let clients = all(&replicas).map(Gateway::another_client);
        let tally = Arc::clone(&tally);
        callers.push(tokio::spawn(async move {
            for round in 0..5 {
                ask(&clients[(number + round) % 3], &format!("tenant-{number}"), &tally).await;
            }
        }));
    }
    for caller in callers {
        caller.await.expect("it ends");
    }
    assert_eq!(tally.counts(), (1_000, 0, 0));
}

#[tokio::test]
async fn a_cap_on_requests_in_flight_outlives_a_replica_that_was_killed() {
    let Some(redis) = RedisServer::start() else { return };
    let (_fleet, backend) = one_backend("slow").await;
    let config = config(&redis, "{ rate: 1000/s, burst: 1000, in_flight: 4 }")
        .backend("slow", backend.address(), "")
        .route("slow", "{ match: { path: /slow }, backend: slow }");
    let [killed, other, _] = three(&setup(config, 1)).await;
    backend.close_gate();
    let client = killed.another_client();
    let under_way: Vec<_> = (0..4)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.get("/slow").key("tenant-0").try_send().await })
        })
        .collect();
    eventually(SOON, "the cap is reached", || async {
        (backend.in_flight() == 4).then_some(())
    })
    .await;
    let refused = other.get("/r").key("tenant-0").send().await;
    refused.refusal(429, "too_many_in_flight");
    killed.signal(Signal::Kill);
    eventually(SOON, "its slots are free", || async {
        (other.get("/r").key("tenant-0").send().await.status == 204).then_some(())
    })
    .await;
    under_way.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn whatever_happens_to_the_store_requests_are_answered_and_limits_hold() {
    let Some(mut redis) = RedisServer::start() else { return };
    let (rate, burst) = (30.0, 60.0);
    let setup = setup(config(&redis, "{ rate: 30/s, burst: 60 }"), 1);
    let bound = printed_bound(&setup, "tiers.plan") as f64;
    let replicas = three(&setup).await;
    type Change = fn(&mut RedisServer);
    let troubles: [(&str, Change, Change); 5] = [
        ("killed", RedisServer::kill, RedisServer::restart),
        ("paused", |redis| redis.pause(), |redis| redis.resume()),
        (
            "flushed",
            |redis| _ = redis.command(&["FLUSHALL"]),
            |redis| _ = redis.command(&["SCRIPT", "FLUSH"]),
        ),
        (
            "a replica",
            |redis| _ = redis.command(&["REPLICAOF", "127.0.0.1", "1"]),
            |redis| _ = redis.command(&["REPLICAOF", "NO", "ONE"]),
        ),
        (
            "full",
            |redis| _ = redis.command(&["CONFIG", "SET", "maxmemory", "1"]),
            |redis| _ = redis.command(&["CONFIG", "SET", "maxmemory", "0"]),
        ),
    ];
    for (name, begin, cure) in troubles {
        let flood = Flood::of(&all(&replicas), "tenant-0");
        tokio::time::sleep(Duration::from_secs(1)).await;
        begin(&mut redis);
        tokio::time::sleep(Duration::from_secs(2)).await;
        cure(&mut redis);
        all_up(&all(&replicas)).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (tally, took) = flood.stop().await;
        let (admitted, refused, other) = tally.counts();
        assert_eq!(other, 0, "{name}");
        assert!(refused > 0 && admitted > 0, "{name}: {admitted} and {refused}");
        // Once more the limit for the time without the store, and a burst for a store that has forgotten everything.
        let most = 2.0 * (burst + rate * took.as_secs_f64()) + burst + bound;
        assert!(admitted as f64 <= most, "{name}: {admitted} of at most {most}");
    }
}

#[tokio::test]
async fn closed_refuses_and_says_so() {
    let Some(mut redis) = RedisServer::start() else { return };
    let config = config(&redis, "{ rate: 1000/s, burst: 1000 }").to_string();
    let config = config.replace("call_limit: 100ms", "call_limit: 100ms, when_down: closed");
    let gateway = setup(config, 1).start().await;
    gateway.get("/r").key("tenant-0").send().await.expect(204);
    redis.kill();
    let refused = eventually(SOON, "it is refused", || async {
        let answer = gateway.get("/r").key("tenant-0").send().await;
        (answer.status != 204).then_some(answer)
    });
    let refused = refused.await;
    refused.refusal(503, "limits_unavailable");
    assert_eq!(refused.retry_after(), 1);
    redis.restart();
    eventually(SOON, "it is admitted again", || async {
        (gateway.get("/r").key("tenant-0").send().await.status == 204).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_is_on_lease_is_given_back_at_the_end() {
    let Some(redis) = RedisServer::start() else { return };
    // Nothing is earned while the test runs.
    let setup = setup(config(&redis, "{ rate: 1/h, burst: 100, in_flight: off }"), 1);
    for expected in [99, 98] {
        let mut gateway = setup.clone().start().await;
        let answer = gateway.get("/r").key("tenant-0").send().await.expect(204);
        assert_eq!(
            answer.header("ratelimit").map(|told| told.split(';').nth(1)),
            Some(Some(&*format!("r={expected}")))
        );
        gateway.signal(Signal::Term);
        assert_eq!(gateway.wait_exit().await, Some(0));
    }
}

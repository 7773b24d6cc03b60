//! Records of idempotency keys in the store: decided as in memory, bounded, and released by their own request alone.

use std::sync::Arc;
use std::time::Duration;

use fixtures::redis_server::RedisServer;
use gateway::idempotency::{Begun, Claim, Ending, Fingerprint, Records, Release, StateWord, StoredAnswer, Subject};
use gateway::message::FieldMap;
use gateway::store::{Password, Store};
use http::StatusCode;
use tokio::runtime::Handle;

use super::{CALL_LIMIT, connect, settings, up};

fn claim(tenant: &str, key: u64, print: u8, token: u64, lease: Duration) -> Arc<Claim> {
    let subject = Arc::new(Subject {
        route: "checkout".into(),
        tenant: tenant.into(),
        caller: "api_key:acme-1".into(),
        key: key.to_string().into(),
    });
    Arc::new(Claim {
        id: subject.id(),
        subject,
        fingerprint: Fingerprint([print; 32]),
        token,
        lease,
        keep_for: Duration::from_secs(3_600),
    })
}

fn answer(length: usize) -> StoredAnswer {
    let body = vec![b'a'; length];
    StoredAnswer::of(StatusCode::CREATED, &FieldMap::new(), &body, usize::MAX).expect("it fits")
}

/// Returns the verdict without times.
fn told(begun: Begun) -> Begun {
    match begun {
        Begun::Unknown { .. } => Begun::Unknown {
            kept_for: Duration::ZERO,
        },
        Begun::Full { .. } => Begun::Full {
            retry_after: Duration::ZERO,
        },
        other => other,
    }
}

async fn records(server: &RedisServer, most: u64, forgets: bool) -> Arc<Records> {
    let store = connect(&server.url());
    up(&store).await;
    let records = Arc::new(Records::default());
    records.set(most, forgets);
    records.use_store(store);
    records
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_decides_as_the_memory_does() {
    let Some(server) = RedisServer::start() else { return };
    let records = records(&server, 64 << 20, false).await;
    let mut random = fastrand::Rng::with_seed(20);
    let mut claims: Vec<Arc<Claim>> = Vec::new();
    for step in 0..2_000_u64 {
        // A lease of nothing is over at once, as that of a replica that was killed.
        let lease = if random.u8(..4) == 0 {
            Duration::ZERO
        } else {
            Duration::from_secs(600)
        };
        let one = claims.get(random.usize(..claims.len().max(1))).cloned();
        match (random.u8(..10), one) {
            (0..=4, _) | (_, None) => {
                let claim = claim("acme", random.u64(..12), random.u8(..2), step, lease);
                let in_memory = records.begin(&claim, false).await.expect("it is memory");
                let in_store = records.begin(&claim, true).await.expect("it is up");
                assert_eq!(told(in_store), told(in_memory), "step {step}: {claim:?}");
                claims.push(claim);
            }
            (5..=7, Some(claim)) => {
                let ending = match random.u8(..3) {
                    0 => Ending::Unknown,
                    1 => Ending::NotKept { status: 204 },
                    _ => Ending::Answered(answer(random.usize(..50))),
                };
                records.finish(&claim, ending.clone(), false).await;
                records.finish(&claim, ending, true).await;
            }
            (8, Some(claim)) => {
                records.release(&claim, false).await;
                records.release(&claim, true).await;
            }
            (_, Some(claim)) => {
                let in_memory = records.free("acme", &claim.id, false).await;
                assert_eq!(records.free("acme", &claim.id, true).await, in_memory, "step {step}");
            }
        }
        let some = claims[random.usize(..claims.len())].clone();
        let state = async |in_store| {
            let found = records.find(&some.subject, in_store).await.expect("it is up");
            found.map(|view| view.state)
        };
        assert_eq!(state(true).await, state(false).await, "step {step}");
    }
    let open = async |in_store| {
        let listed = records.open(100, in_store).await.expect("it is up");
        let mut listed: Vec<_> = listed.into_iter().map(|view| (view.id, view.state)).collect();
        listed.sort();
        listed
    };
    assert_eq!(open(true).await, open(false).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_has_half_of_the_room_and_what_is_unknown_stays() {
    let Some(server) = RedisServer::start() else { return };
    let most = 128 << 10;
    for forgets in [false, true] {
        server.command(&["FLUSHALL"]);
        let records = records(&server, most, forgets).await;
        let lease = Duration::from_secs(600);
        let unknown = claim("acme", 1_000, 1, 1, lease);
        assert_eq!(records.begin(&unknown, true).await, Ok(Begun::First));
        records.finish(&unknown, Ending::Unknown, true).await;
        let mut firsts = 0;
        for key in 0..300 {
            let claim = claim("acme", key, 1, key, lease);
            match records.begin(&claim, true).await.expect("it is up") {
                Begun::First => {
                    firsts += 1;
                    records.finish(&claim, Ending::Answered(answer(500)), true).await;
                }
                Begun::Full { retry_after } => assert!(retry_after > Duration::from_secs(3_000)),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(firsts == 300, forgets, "{firsts}");
        assert!((40..=300).contains(&firsts), "{firsts}");
        let again = Claim {
            token: 2,
            ..Claim::clone(&unknown)
        };
        let begun = records.begin(&again, true).await.expect("it is up");
        assert!(matches!(begun, Begun::Unknown { .. }), "{begun:?}");
        let other = claim("other", 1, 1, 1, lease);
        assert_eq!(
            records.begin(&other, true).await,
            Ok(Begun::First),
            "another tenant has room"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_store_was_not_told_is_told_later() {
    let Some(mut server) = RedisServer::start() else { return };
    let records = records(&server, 64 << 20, false).await;
    let first = claim("acme", 1, 1, 1, Duration::from_secs(600));
    assert_eq!(records.begin(&first, true).await, Ok(Begun::First));
    server.kill();
    records.finish(&first, Ending::Answered(answer(3)), true).await;
    let second = claim("acme", 1, 1, 2, Duration::from_secs(600));
    while records.begin(&second, true).await.is_ok() {
        tokio::time::sleep(CALL_LIMIT).await;
    }
    // This server forgets everything at a restart, so the record is made anew of what is told.
    server.restart();
    let begun = loop {
        match records.find(&first.subject, true).await {
            Ok(Some(view)) => break view.state,
            _ => tokio::time::sleep(CALL_LIMIT).await,
        }
    };
    assert_eq!(begun, StateWord::Answered);
    assert_eq!(records.begin(&second, true).await, Ok(Begun::Answered(answer(3))));
    assert_eq!(
        records.free("acme", &first.id, true).await,
        Ok(Release::Released(StateWord::Answered))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rights_that_the_docs_name_are_enough() {
    let Some(server) = RedisServer::start() else { return };
    let rights = "on >secret ~gateway:* +get +set +ping +mget +incr +evalsha +script|load +time +info +pexpire +hget +hset \
                  +hdel +hgetall +zadd +zrem +zcard +zrangebyscore +hmget +hincrby +del +pttl +zrange +zremrangebyscore";
    let words: Vec<_> = ["ACL", "SETUSER", "gateway"]
        .into_iter()
        .chain(rights.split_whitespace())
        .collect();
    server.command(&words);
    let mut settings = settings(&server.url());
    settings.username = Some("gateway".into());
    settings.password = Some(Password::Text("secret".into()));
    let store = Store::start(settings, &Handle::current());
    up(&store).await;
    let records = Arc::new(Records::default());
    records.set(20_000, true);
    records.use_store(store);
    for key in 0..20 {
        let claim = claim("acme", key, 1, key, Duration::from_secs(600));
        assert_eq!(records.begin(&claim, true).await, Ok(Begun::First));
        assert_eq!(records.open(9, true).await.map(|open| open.len()), Ok(1));
        records.finish(&claim, Ending::Answered(answer(500)), true).await;
        let found = records.find(&claim.subject, true).await.expect("it may");
        assert_eq!(found.map(|view| view.state), Some(StateWord::Answered));
    }
    let last = claim("acme", 20, 1, 20, Duration::from_secs(600));
    assert_eq!(records.begin(&last, true).await, Ok(Begun::First));
    records.release(&last, true).await;
    assert_eq!(records.free("acme", &last.id, true).await, Ok(Release::NoSuchKey));
}

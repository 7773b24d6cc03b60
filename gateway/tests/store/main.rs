//! The connection to the shared store, against a real server to which all kinds of trouble happen.
//!
//! Every call ends in time with the trouble that it met, and the store is up again soon after the cure, without a
//! restart of anything on the gateway's side.

#![expect(clippy::disallowed_methods, reason = "the store runs in real time")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use fixtures::faulty_proxy::FaultyProxy;
use fixtures::redis_server::{Options, RedisServer};
use gateway::store::{
    Answer, Ask, CentralTerms, Command, Health, Password, Pem, Store, StoreAddress, StoreKey, StoreSettings, Trouble,
};
use policies::lease::{Reply, Request, SlotRequest, UsedReply};
use policies::{CalendarQuota, Every, Quota, WindowQuota};
use tokio::runtime::Handle;
use tokio::time::timeout;

mod cluster;
mod cures;
mod idempotency;
mod spread;
mod tls;

/// Call limit of these tests: several times the default, because test machines are busy.
const CALL_LIMIT: Duration = Duration::from_millis(100);
/// Time after which a call has ended although the machine is busy.
const ENDED: Duration = Duration::from_secs(1);
/// Longest time from a cure until the store is up. The promise is 2 s on a machine that is not busy.
const CURED: Duration = Duration::from_secs(6);

fn settings(url: &str) -> StoreSettings {
    StoreSettings {
        address: StoreAddress::read(url).unwrap(),
        prefix: "gateway:".into(),
        username: None,
        password: None,
        tls: None,
        pem: Pem::default(),
        call_limit: CALL_LIMIT,
        lease_time: Duration::from_secs(2),
        heartbeat: Duration::from_secs(1),
    }
}

fn connect(url: &str) -> Arc<Store> {
    Store::start(settings(url), &Handle::current())
}

/// Starts a store behind a proxy.
fn behind_proxy(server: &RedisServer) -> (FaultyProxy, Arc<Store>) {
    let proxy = FaultyProxy::start(server.address()).unwrap();
    let store = connect(&format!("redis://{}", proxy.address()));
    (proxy, store)
}

/// Waits until the store is up, and returns how long that took.
async fn up(store: &Store) -> Duration {
    let began = Instant::now();
    let mut watch = store.watch();
    let is_up = watch.wait_for(|state| matches!(state.health, Health::Up { .. }));
    match timeout(CURED, is_up).await {
        Ok(state) => drop(state.unwrap()),
        Err(_) => panic!("not up: {:?}, {:?}", store.state(), store.last_failure()),
    }
    began.elapsed()
}

/// Waits until the store is down, while calls go on, and returns why.
async fn down(store: &Store, key: &str) -> Trouble {
    let began = Instant::now();
    while began.elapsed() < CURED {
        if let Health::Down { trouble, .. } = store.state().health {
            return trouble;
        }
        take(store, key, 1).await.ok();
    }
    panic!("still up")
}

/// Returns how often the server was sent a command, or a script has called it.
fn calls(server: &RedisServer, command: &str) -> u64 {
    let stats = server.command(&["INFO", "commandstats"]);
    let start = format!("cmdstat_{command}:calls=");
    let line = stats.lines().find_map(|line| line.strip_prefix(&start));
    let count = line.and_then(|rest| rest.split(',').next()?.parse().ok());
    count.unwrap_or(0)
}

fn bucket() -> CentralTerms {
    CentralTerms::Bucket(Quota::new(1, Duration::from_secs(100), 20).unwrap())
}

fn request(replica: u64, sequence: u64, wanted: u64) -> Request {
    Request {
        replica,
        sequence,
        held: 0,
        returned: 0,
        charged: 0,
        needed: 0,
        waiting: wanted,
        wanted,
        most: wanted,
    }
}

fn command(key: &str, terms: CentralTerms, request: Request) -> Command {
    Command {
        key: StoreKey::new("t:acme", key),
        terms,
        ask: Ask::Tokens(request),
    }
}

/// Executes one command, and checks that it ends in time.
async fn execute(store: &Store, command: Command) -> Result<Answer, Trouble> {
    let began = Instant::now();
    let answers = store.execute(vec![command]).await;
    assert!(began.elapsed() < CALL_LIMIT + ENDED, "took {:?}", began.elapsed());
    assert_eq!(answers.len(), 1);
    answers.into_iter().next().unwrap()
}

/// Takes tokens of a bucket of 20 by a new replica.
async fn take(store: &Store, key: &str, wanted: u64) -> Result<Reply, Trouble> {
    let request = request(fastrand::u64(..), 1, wanted);
    match execute(store, command(key, bucket(), request)).await? {
        Answer::Tokens(Some(reply)) => Ok(reply),
        answer => panic!("{answer:?}"),
    }
}

#[tokio::test]
async fn each_kind_of_limit_is_counted() {
    let Some(server) = RedisServer::start() else { return };
    let store = connect(&server.url());
    up(&store).await;
    let window = CentralTerms::Window(WindowQuota::new(20, Duration::from_secs(60)).unwrap());
    let calendar = CentralTerms::Calendar(CalendarQuota::new(20, Every::Month).unwrap());
    for terms in [bucket(), window, calendar] {
        let mut left = Vec::new();
        for replica in 1..=3 {
            let answer = execute(&store, command("each", terms, request(replica, 1, 8))).await;
            let Ok(Answer::Tokens(Some(reply))) = answer else {
                panic!("{answer:?}")
            };
            left.push((reply.granted, reply.left, reply.replicas, reply.known));
        }
        // A replica that asks for its part of a calendar quota gets no more than that.
        assert_eq!(
            left,
            [(8, 12, 1, false), (8, 4, 2, false), (4, 0, 3, false)],
            "{terms:?}"
        );
    }
    let slots = |replica, sequence, wanted| {
        let ask = Ask::Slots(SlotRequest {
            replica,
            sequence,
            wanted,
        });
        Command {
            key: StoreKey::new("t:acme", "open"),
            terms: CentralTerms::Slots(10),
            ask,
        }
    };
    for (replica, sequence, wanted, expected) in [
        (1, 1, 7, Some(7)),
        (2, 1, 7, Some(3)),
        (1, 2, 2, Some(2)),
        (1, 2, 2, None),
    ] {
        let answer = execute(&store, slots(replica, sequence, wanted)).await;
        let Ok(Answer::Slots(reply)) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(reply.map(|reply| reply.granted), expected);
    }
    // Every key but the name of the memory ends by itself.
    for key in server.command(&["KEYS", "*"]).lines() {
        let ends = server.command(&["PTTL", key]) != "-1";
        assert_eq!(ends, key != "gateway:epoch", "{key}");
    }
}

#[tokio::test]
async fn a_request_is_executed_once() {
    let Some(server) = RedisServer::start() else { return };
    let store = connect(&server.url());
    up(&store).await;
    let mut asked = request(7, 5, 6);
    let first = execute(&store, command("once", bucket(), asked)).await;
    assert_eq!(execute(&store, command("once", bucket(), asked)).await, first);
    asked.sequence = 4;
    assert_eq!(
        execute(&store, command("once", bucket(), asked)).await,
        Ok(Answer::Tokens(None))
    );
    assert_eq!(take(&store, "once", 0).await.map(|reply| reply.left), Ok(14));
}

#[tokio::test]
async fn many_commands_are_one_call() {
    let Some(server) = RedisServer::start() else { return };
    let store = connect(&server.url());
    up(&store).await;
    let commands: Vec<_> = (0..Store::MOST + 2)
        .map(|number| command(&number.to_string(), bucket(), request(1, 1, 3)))
        .collect();
    // A busy machine may need longer than the call limit for so many.
    let mut answers = store.execute(commands.clone()).await;
    for _ in 0..20 {
        if answers[0].is_ok() {
            break;
        }
        up(&store).await;
        answers = store.execute(commands.clone()).await;
    }
    let refused = answers.split_off(Store::MOST);
    assert_eq!(refused, [Err(Trouble::TooMany); 2]);
    assert!(
        answers
            .iter()
            .all(|answer| matches!(answer, Ok(Answer::Tokens(Some(reply))) if reply.granted == 3))
    );
    assert!(store.execute(Vec::new()).await.is_empty());
}

#[tokio::test]
async fn counts_of_one_owner_are_one_call() {
    let Some(server) = RedisServer::start() else { return };
    let store = connect(&server.url());
    up(&store).await;
    let calendar = CentralTerms::Calendar(CalendarQuota::new(20, Every::Month).unwrap());
    let slots = Command {
        key: StoreKey::new("t:acme", "open"),
        terms: CentralTerms::Slots(10),
        ask: Ask::Slots(SlotRequest {
            replica: 1,
            sequence: 1,
            wanted: 7,
        }),
    };
    let others = Command {
        key: StoreKey::new("t:globex", "tier"),
        ..command("tier", bucket(), request(1, 1, 5))
    };
    let broken = command("broken", bucket(), request(1, 1, 5));
    server.command(&["SET", "gateway:b:{t:acme}:broken", "nonsense"]);
    let commands = vec![
        command("tier", bucket(), request(1, 1, 3)),
        others,
        broken,
        slots,
        command("monthly", calendar, request(1, 1, 4)),
    ];
    let before = calls(&server, "evalsha");
    let answers = store.execute(commands).await;
    let granted = |answer: &Result<Answer, Trouble>| match answer {
        Ok(Answer::Tokens(Some(reply))) => Ok(reply.granted),
        Ok(Answer::Slots(Some(reply))) => Ok(reply.granted.into()),
        Err(trouble) => Err(*trouble),
        answer => panic!("{answer:?}"),
    };
    let granted: Vec<_> = answers.iter().map(granted).collect();
    assert_eq!(granted, [Ok(3), Ok(5), Err(Trouble::Unexpected), Ok(7), Ok(4)]);
    // One for each owner. A replica that tells of itself makes another one, but this one has nothing to tell.
    assert_eq!(calls(&server, "evalsha") - before, 2);
}

#[tokio::test]
async fn what_is_used_of_a_quota_can_be_set() {
    let Some(server) = RedisServer::start() else { return };
    let store = connect(&server.url());
    up(&store).await;
    let calendar = CentralTerms::Calendar(CalendarQuota::new(20, Every::Month).unwrap());
    let leased = command("monthly", calendar, request(1, 1, 4));
    let set = |used| Command {
        ask: Ask::SetUsed(used),
        ..leased.clone()
    };
    execute(&store, leased.clone()).await.unwrap();
    for (used, was) in [(9, 0), (30, 9), (0, 30)] {
        let left = 20u64.saturating_sub(used + 4);
        let reply = UsedReply { was, on_lease: 4, left };
        assert_eq!(execute(&store, set(used)).await, Ok(Answer::Used(reply)));
    }
    let of_bucket = Command {
        ask: Ask::SetUsed(0),
        ..command("tier", bucket(), request(1, 1, 4))
    };
    assert_eq!(execute(&store, of_bucket).await, Err(Trouble::Inexact));
}

#[tokio::test]
async fn terms_that_are_not_exact_are_refused() {
    let Some(server) = RedisServer::start() else { return };
    let store = connect(&server.url());
    up(&store).await;
    let slow = CentralTerms::Bucket(Quota::new(1, Duration::from_secs(86_400), 30).unwrap());
    let commands = vec![
        command("a", slow, request(1, 1, 3)),
        command("b", bucket(), request(1, 1, 3)),
        command("c", CentralTerms::Slots(3), request(1, 1, 3)),
    ];
    let answers = store.execute(commands).await;
    assert_eq!((answers[0], answers[2]), (Err(Trouble::Inexact), Err(Trouble::Inexact)));
    assert!(matches!(answers[1], Ok(Answer::Tokens(Some(Reply { granted: 3, .. })))));
    assert!(store.state().is_up());
}

#[tokio::test]
async fn a_store_that_may_evict_is_warned_of() {
    let with = |policy: &str| Options {
        maxmemory: Some((100_000_000, policy.to_owned())),
        ..Options::default()
    };
    for (policy, may_evict) in [("noeviction", false), ("volatile-lru", true), ("allkeys-lfu", true)] {
        let Some(server) = RedisServer::start_with(with(policy)) else {
            return;
        };
        let store = connect(&server.url());
        up(&store).await;
        let state = store.state();
        assert_eq!(state.eviction.map(|eviction| eviction.word()), Some(policy));
        assert_eq!(state.may_evict(), may_evict);
    }
}

#[tokio::test]
async fn nothing_is_sent_after_the_store_is_dropped() {
    let Some(server) = RedisServer::start() else { return };
    let store = connect(&server.url());
    up(&store).await;
    drop(store);
    let began = Instant::now();
    loop {
        let clients = server.command(&["CLIENT", "LIST"]);
        // The one that asks is left.
        if clients.lines().filter(|line| !line.is_empty()).count() == 1 {
            return;
        }
        assert!(began.elapsed() < CURED, "{clients}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn the_password_is_read_anew() {
    let options = Options {
        password: Some("first".to_owned()),
        ..Options::default()
    };
    let Some(mut server) = RedisServer::start_with(options) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    std::fs::write(&path, "first\n").unwrap();
    let mut settings = settings(&server.url());
    settings.password = Some(Password::File(path.clone()));
    let store = Store::start(settings, &Handle::current());
    up(&store).await;
    take(&store, "a", 1).await.unwrap();

    server.command(&["CONFIG", "SET", "requirepass", "second"]);
    server.set_own_password("second");
    server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    let mut watch = store.watch();
    let denied = watch.wait_for(|state| {
        matches!(
            state.health,
            Health::Down {
                trouble: Trouble::Denied,
                ..
            }
        )
    });
    timeout(CURED, denied)
        .await
        .expect("the old password is refused")
        .unwrap();
    assert_eq!(take(&store, "a", 1).await, Err(Trouble::Denied));
    std::fs::write(&path, "second").unwrap();
    up(&store).await;
    assert_eq!(take(&store, "a", 1).await.map(|reply| reply.left), Ok(18));
}

#[tokio::test]
async fn a_user_without_rights_is_denied() {
    let Some(server) = RedisServer::start() else { return };
    server.command(&[
        "ACL",
        "SETUSER",
        "gateway",
        "on",
        ">secret",
        "~gateway:*",
        "+get",
        "+set",
        "+ping",
    ]);
    let mut settings = settings(&server.url());
    settings.username = Some("gateway".into());
    settings.password = Some(Password::Text("secret".into()));
    let store = Store::start(settings, &Handle::current());
    let mut watch = store.watch();
    let denied = watch.wait_for(|state| {
        matches!(
            state.health,
            Health::Down {
                trouble: Trouble::Denied,
                ..
            }
        )
    });
    timeout(CURED, denied).await.expect("a right is missing").unwrap();
    // The rights that the docs name.
    let rights = "+mget +incr +evalsha +script|load +time +info +pexpire +hget +hset +hdel +hgetall +zadd +zrem +zcard \
                  +zrangebyscore";
    let words: Vec<_> = ["ACL", "SETUSER", "gateway"]
        .into_iter()
        .chain(rights.split_whitespace())
        .collect();
    server.command(&words);
    up(&store).await;
    take(&store, "a", 1).await.unwrap();
}

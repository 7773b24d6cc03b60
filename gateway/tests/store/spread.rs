//! Notices that reach every replica.

use super::*;

/// Longest time until a notice is known on another replica. The promise is one second on a machine that is not busy.
const SPREAD: Duration = Duration::from_secs(5);

/// Waits until a replica knows this value of a notice; an empty value also stands for no notice.
async fn knows(store: &Store, name: &str, value: &str) -> Duration {
    let began = Instant::now();
    let mut changes = store.watch_notices();
    let known = async {
        loop {
            changes.borrow_and_update();
            let notices = store.notices();
            let found = notices.iter().find(|notice| *notice.name == *name);
            if found.map_or("", |notice| &*notice.value) == value {
                return;
            }
            changes.changed().await.unwrap();
        }
    };
    match timeout(SPREAD, known).await {
        Ok(()) => began.elapsed(),
        Err(_) => panic!("{name} is not {value}: {:?}, {:?}", store.notices(), store.state()),
    }
}

#[tokio::test]
async fn a_notice_reaches_every_replica() {
    let Some(server) = RedisServer::start() else { return };
    let stores = [connect(&server.url()), connect(&server.url()), connect(&server.url())];
    for store in &stores {
        up(store).await;
    }
    assert!(stores[0].announce("breaker:users", "open", None));
    for store in &stores {
        knows(store, "breaker:users", "open").await;
    }
    assert!(stores[2].announce("breaker:users", "closed", None));
    for store in &stores {
        knows(store, "breaker:users", "closed").await;
    }
    // One that comes later learns all of it.
    knows(&connect(&server.url()), "breaker:users", "closed").await;
}

#[tokio::test]
async fn a_replica_that_was_away_catches_up() {
    let Some(server) = RedisServer::start() else { return };
    let (proxy, away) = behind_proxy(&server);
    let here = connect(&server.url());
    up(&away).await;
    up(&here).await;
    proxy.silence();
    down(&away, "a").await;
    // More than are read at once. What is announced without the store is told when it is back.
    for number in 0..450 {
        assert!(here.announce(&format!("key:{number}"), "revoked", None));
    }
    assert!(away.announce("tenant:acme", "revoked", None));
    knows(&here, "key:449", "revoked").await;
    proxy.heal();
    up(&away).await;
    knows(&away, "key:449", "revoked").await;
    knows(&here, "tenant:acme", "revoked").await;
    assert_eq!((here.notices().len(), away.notices().len()), (451, 451));
}

#[tokio::test]
async fn a_store_that_forgot_is_told_again() {
    let Some(server) = RedisServer::start() else { return };
    let (one, other) = (connect(&server.url()), connect(&server.url()));
    up(&one).await;
    up(&other).await;
    for number in 0..150 {
        one.announce(&format!("key:{number}"), "revoked", None);
    }
    knows(&other, "key:149", "revoked").await;
    server.command(&["FLUSHALL"]);
    for number in [0, 149] {
        knows(&connect(&server.url()), &format!("key:{number}"), "revoked").await;
    }
    // The later one holds also after that.
    other.announce("key:7", "restored", None);
    knows(&one, "key:7", "restored").await;
    server.command(&["FLUSHALL"]);
    let late = connect(&server.url());
    knows(&late, "key:7", "restored").await;
}

#[tokio::test]
async fn a_store_that_went_back_is_told_again() {
    let Some(server) = RedisServer::start() else { return };
    let (one, other) = (connect(&server.url()), connect(&server.url()));
    up(&one).await;
    up(&other).await;
    one.announce("a", "1", None);
    one.announce("b", "1", None);
    knows(&other, "b", "1").await;
    knows(&one, "b", "1").await;
    // As a replica that was promoted without the last write.
    server.command(&["SET", "gateway:{spread}:version", "1"]);
    server.command(&["ZREM", "gateway:{spread}:order", "b"]);
    server.command(&["HDEL", "gateway:{spread}:notices", "b"]);
    let late = connect(&server.url());
    knows(&late, "b", "1").await;
    other.announce("c", "1", None);
    knows(&one, "c", "1").await;
    knows(&late, "c", "1").await;
}

#[tokio::test]
async fn a_notice_ends() {
    let Some(server) = RedisServer::start() else { return };
    let store = connect(&server.url());
    up(&store).await;
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    store.announce("past", "1", Some(now - 1));
    store.announce("future", "1", Some(now + 1_000));
    knows(&store, "future", "1").await;
    knows(&store, "past", "").await;
    // The next announcement drops what has ended.
    store.announce("another", "1", None);
    knows(&store, "another", "1").await;
    assert_eq!(
        server.command(&["HKEYS", "gateway:{spread}:notices"]),
        "future\nanother"
    );
}

#[tokio::test]
async fn too_long_notices_are_refused() {
    let Some(server) = RedisServer::start() else { return };
    let store = connect(&server.url());
    assert!(!store.announce("long", &"x".repeat(5_000), None));
    assert!(store.announce("short", "x", None));
    knows(&store, "short", "x").await;
}

#[tokio::test]
async fn replicas_know_each_other() {
    let Some(server) = RedisServer::start() else { return };
    let (one, other) = (connect(&server.url()), connect(&server.url()));
    one.set_presence("first of two", true);
    other.set_presence("second", true);
    up(&one).await;
    up(&other).await;
    let listed = async |count: usize| {
        let began = Instant::now();
        loop {
            let mut replicas = one.replicas().await.unwrap_or_default();
            replicas.sort_by(|a, b| a.text.cmp(&b.text));
            if replicas.len() == count {
                return replicas;
            }
            assert!(began.elapsed() < SPREAD, "{replicas:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let replicas = listed(2).await;
    let told: Vec<_> = replicas.iter().map(|replica| (replica.name, &*replica.text)).collect();
    assert_eq!(told, [(one.replica(), "first of two"), (other.replica(), "second")]);
    other.leave().await;
    assert_eq!(listed(1).await[0].name, one.replica());
}

/// An idle replica costs the store next to nothing: commands within scripts are counted too.
#[tokio::test]
async fn an_idle_replica_asks_little() {
    let Some(server) = RedisServer::start() else { return };
    let store = connect(&server.url());
    store.set_presence("idle", true);
    up(&store).await;
    let commands = || {
        let stats = server.command(&["INFO", "stats"]);
        let line = stats
            .lines()
            .find_map(|line| line.strip_prefix("total_commands_processed:"));
        line.unwrap().parse::<f64>().unwrap()
    };
    // Past the beginning.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (before, began) = (commands(), Instant::now());
    tokio::time::sleep(Duration::from_secs(4)).await;
    let each_second = (commands() - before) / began.elapsed().as_secs_f64();
    assert!(each_second < 5.0, "{each_second} commands a second");
    assert!(store.state().is_up());
}

#[tokio::test]
async fn a_busy_replica_learns_by_its_other_calls_whether_there_are_notices() {
    /// Shorter than the time between two questions of an idle replica.
    const OFTEN: Duration = Duration::from_millis(300);
    let Some(server) = RedisServer::start() else { return };
    let busy = connect(&server.url());
    up(&busy).await;
    // Its first look, and each time for which it was not busy.
    let (mut may_ask, before) = (1, calls(&server, "mget"));
    let mut last = Instant::now();
    for _ in 0..100 {
        take(&busy, "a", 0).await.ok();
        may_ask += u64::from(last.elapsed() > OFTEN);
        last = Instant::now();
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    let asked = calls(&server, "mget") - before;
    assert!(asked <= may_ask, "asked {asked} times");

    let other = connect(&server.url());
    assert!(other.announce("breaker:users", "open", None));
    let began = Instant::now();
    while busy.notices().is_empty() {
        assert!(began.elapsed() < CURED, "not heard");
        take(&busy, "a", 0).await.ok();
    }
}

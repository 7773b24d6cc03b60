//! Kinds of trouble and their cures.

use std::net::TcpListener;
use std::thread;

use super::*;

#[tokio::test]
async fn a_server_that_is_killed_and_started_again() {
    let Some(mut server) = RedisServer::start() else { return };
    let store = connect(&server.url());
    up(&store).await;
    take(&store, "a", 20).await.unwrap();
    let epoch = store.state().epoch;
    server.kill();
    let trouble = down(&store, "a").await;
    assert!(matches!(trouble, Trouble::Closed | Trouble::Unreached), "{trouble}");
    let mut watch = store.watch();
    let unreached = watch.wait_for(|state| {
        matches!(
            state.health,
            Health::Down {
                trouble: Trouble::Unreached,
                ..
            }
        )
    });
    timeout(CURED, unreached).await.expect("nothing listens there").unwrap();
    assert_eq!(take(&store, "a", 1).await, Err(Trouble::Unreached));
    server.restart();
    up(&store).await;
    assert_ne!(store.state().epoch, epoch, "its memory is another one");
    assert_eq!(take(&store, "a", 20).await.map(|reply| reply.granted), Ok(20));
}

#[tokio::test]
async fn a_server_that_stops_answering() {
    let Some(server) = RedisServer::start() else { return };
    let store = connect(&server.url());
    up(&store).await;
    take(&store, "a", 20).await.unwrap();
    server.pause();
    assert_eq!(down(&store, "a").await, Trouble::Timeout);
    // Without a connection it is not waited for.
    let began = Instant::now();
    for _ in 0..1_000 {
        take(&store, "a", 1).await.unwrap_err();
    }
    assert!(began.elapsed() < CALL_LIMIT * 500);
    server.resume();
    up(&store).await;
    assert_eq!(take(&store, "a", 1).await.map(|reply| reply.granted), Ok(0));
}

#[tokio::test]
async fn a_server_that_stops_answering_is_noticed_without_calls() {
    let Some(server) = RedisServer::start() else { return };
    let store = connect(&server.url());
    up(&store).await;
    server.pause();
    let mut watch = store.watch();
    let is_down = watch.wait_for(|state| !state.is_up());
    timeout(CURED, is_down)
        .await
        .expect("an idle store is looked at")
        .unwrap();
    server.resume();
    up(&store).await;
}

#[tokio::test]
async fn a_server_that_is_flushed() {
    let Some(server) = RedisServer::start() else { return };
    let store = connect(&server.url());
    up(&store).await;
    let before = execute(&store, command("a", bucket(), request(1, 1, 20))).await;
    let epoch = store.state().epoch;
    server.command(&["FLUSHALL"]);
    let after = execute(&store, command("a", bucket(), request(1, 2, 20))).await;
    let (Ok(Answer::Tokens(Some(before))), Ok(Answer::Tokens(Some(after)))) = (before, after) else {
        panic!("{before:?}, {after:?}")
    };
    assert_eq!((before.granted, after.granted, after.known), (20, 20, false));
    assert_ne!(before.epoch, after.epoch);
    assert_eq!((epoch, store.state().epoch), (Some(before.epoch), Some(after.epoch)));
    assert!(store.state().is_up());
}

#[tokio::test]
async fn a_server_that_forgets_its_scripts() {
    let Some(server) = RedisServer::start() else { return };
    let store = connect(&server.url());
    up(&store).await;
    for left in (15..20).rev() {
        server.command(&["SCRIPT", "FLUSH"]);
        assert_eq!(take(&store, "a", 1).await.map(|reply| reply.left), Ok(left));
    }
    assert!(store.state().is_up());
}

#[tokio::test]
async fn a_primary_that_became_a_replica() {
    let Some(server) = RedisServer::start() else { return };
    let (_proxy, store) = behind_proxy(&server);
    up(&store).await;
    take(&store, "a", 5).await.unwrap();
    // Of a primary that does not answer.
    let nowhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = nowhere.local_addr().unwrap().port().to_string();
    server.command(&["REPLICAOF", "127.0.0.1", &port]);
    assert_eq!(down(&store, "a").await, Trouble::ReadOnly);
    server.command(&["REPLICAOF", "NO", "ONE"]);
    up(&store).await;
    assert_eq!(take(&store, "a", 1).await.map(|reply| reply.left), Ok(14));

    server.command(&["CONFIG", "SET", "replica-serve-stale-data", "no"]);
    server.command(&["REPLICAOF", "127.0.0.1", &port]);
    assert_eq!(down(&store, "a").await, Trouble::MasterDown);
    server.command(&["REPLICAOF", "NO", "ONE"]);
    up(&store).await;
    assert_eq!(take(&store, "a", 1).await.map(|reply| reply.left), Ok(13));
}

#[tokio::test]
async fn a_server_without_memory() {
    let Some(server) = RedisServer::start() else { return };
    let store = connect(&server.url());
    up(&store).await;
    take(&store, "a", 5).await.unwrap();
    server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(take(&store, "a", 1).await, Err(Trouble::OutOfMemory));
    assert_eq!(down(&store, "a").await, Trouble::OutOfMemory);
    server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    up(&store).await;
    assert_eq!(take(&store, "a", 1).await.map(|reply| reply.left), Ok(14));
}

#[tokio::test]
async fn a_server_that_refuses_writes() {
    let Some(server) = RedisServer::start() else { return };
    let store = connect(&server.url());
    up(&store).await;
    server.command(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    assert_eq!(take(&store, "a", 1).await, Err(Trouble::Misconfigured));
    server.command(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    up(&store).await;
    take(&store, "a", 1).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_busy_with_a_script() {
    let options = Options {
        more: ["--busy-reply-threshold", "10"].map(str::to_owned).to_vec(),
        ..Options::default()
    };
    let Some(server) = RedisServer::start_with(options) else {
        return;
    };
    let server = Arc::new(server);
    let store = connect(&server.url());
    up(&store).await;
    let other = Arc::clone(&server);
    let busy = thread::spawn(move || other.try_command(&["EVAL", "while true do end", "0"]));
    let trouble = down(&store, "a").await;
    assert!(matches!(trouble, Trouble::Busy | Trouble::Timeout), "{trouble}");
    server.command(&["SCRIPT", "KILL"]);
    busy.join().unwrap().unwrap_err();
    up(&store).await;
    take(&store, "a", 1).await.unwrap();
}

#[tokio::test]
async fn a_replica_that_was_promoted_without_the_last_writes() {
    let Some(mut primary) = RedisServer::start() else {
        return;
    };
    let replication = FaultyProxy::start(primary.address()).unwrap();
    let options = Options {
        replica_of: Some(replication.address().port()),
        ..Options::default()
    };
    let Some(replica) = RedisServer::start_with(options) else {
        return;
    };
    let (proxy, store) = behind_proxy(&primary);
    up(&store).await;
    take(&store, "a", 5).await.unwrap();
    let began = Instant::now();
    while !replica
        .try_command(&["KEYS", "*:a"])
        .is_ok_and(|keys| keys.contains("acme"))
    {
        assert!(began.elapsed() < Duration::from_secs(30), "not replicated");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    replication.silence();
    assert_eq!(take(&store, "a", 15).await.map(|reply| reply.granted), Ok(15));
    primary.kill();
    proxy.move_to(replica.address());
    let trouble = down(&store, "a").await;
    assert_ne!(trouble, Trouble::Connecting);
    replica.command(&["REPLICAOF", "NO", "ONE"]);
    up(&store).await;
    // What the replica had missed is granted again, and no more.
    assert_eq!(take(&store, "a", 20).await.map(|reply| reply.granted), Ok(15));
}

#[tokio::test]
async fn a_network_that_is_slow() {
    let Some(server) = RedisServer::start() else { return };
    let (proxy, store) = behind_proxy(&server);
    up(&store).await;
    proxy.delay(CALL_LIMIT);
    assert_eq!(down(&store, "a").await, Trouble::Timeout);
    proxy.heal();
    up(&store).await;
    take(&store, "b", 1).await.unwrap();
}

#[tokio::test]
async fn a_network_that_falls_silent() {
    let Some(server) = RedisServer::start() else { return };
    let (proxy, store) = behind_proxy(&server);
    up(&store).await;
    proxy.silence();
    assert_eq!(down(&store, "a").await, Trouble::Timeout);
    proxy.heal();
    up(&store).await;
    take(&store, "a", 1).await.unwrap();
}

#[tokio::test]
async fn a_network_that_cuts_answers() {
    let Some(server) = RedisServer::start() else { return };
    let (proxy, store) = behind_proxy(&server);
    up(&store).await;
    proxy.cut_answers();
    assert_eq!(take(&store, "a", 1).await, Err(Trouble::Closed));
    proxy.heal();
    up(&store).await;
    // The first one was executed.
    assert_eq!(take(&store, "a", 1).await.map(|reply| reply.left), Ok(18));
}

#[tokio::test]
async fn a_network_that_resets_connections() {
    let Some(server) = RedisServer::start() else { return };
    let (proxy, store) = behind_proxy(&server);
    up(&store).await;
    proxy.reset(0.05);
    let (mut answered, mut failed) = (0, 0);
    for number in 0..400 {
        match take(&store, &number.to_string(), 1).await {
            Ok(_) => answered += 1,
            Err(Trouble::Closed | Trouble::Unreached | Trouble::Timeout) => {
                failed += 1;
                // As a replica that has others to ask for.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(trouble) => panic!("{trouble}"),
        }
    }
    assert!(answered > 0 && failed > 0, "{answered} answered, {failed} failed");
    proxy.heal();
    up(&store).await;
    take(&store, "x", 1).await.unwrap();
}

#[tokio::test]
async fn a_primary_that_the_sentinels_replace() {
    let Some(mut primary) = RedisServer::start() else {
        return;
    };
    let of_primary = |port| Options {
        replica_of: Some(port),
        ..Options::default()
    };
    let Some(replica) = RedisServer::start_with(of_primary(primary.port())) else {
        return;
    };
    let watching = Options {
        sentinel_of: Some(primary.port()),
        ..Options::default()
    };
    let Some(sentinel) = RedisServer::start_with(watching) else {
        return;
    };
    // The first one does not answer.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!(
        "redis-sentinel://{},{}/main",
        nobody.local_addr().unwrap(),
        sentinel.address()
    );
    let store = connect(&url);
    up(&store).await;
    take(&store, "a", 5).await.unwrap();
    let began = Instant::now();
    let replicated = || {
        replica
            .try_command(&["KEYS", "*:a"])
            .is_ok_and(|keys| keys.contains("acme"))
    };
    let watched = || {
        sentinel
            .command(&["SENTINEL", "REPLICAS", "main"])
            .contains(&replica.port().to_string())
    };
    while !(replicated() && watched()) {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "the sentinel knows no replica"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    primary.kill();
    down(&store, "a").await;
    let mut watch = store.watch();
    let is_up = watch.wait_for(|state| state.is_up());
    timeout(Duration::from_secs(60), is_up)
        .await
        .expect("the sentinel replaces it")
        .unwrap();
    let left = take(&store, "a", 1).await.map(|reply| reply.left);
    assert_eq!(left, Ok(14));
}

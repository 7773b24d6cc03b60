//! A cluster of three nodes: counts lie on the node of their owner, and follow slots that move.

use fixtures::redis_cluster::RedisCluster;

use super::*;

/// Takes five tokens of a bucket of 20 by a replica. It repeats its request until it is answered, which is executed once.
async fn take_five(store: &Store, replica: u64) -> Reply {
    let command = Command {
        key: StoreKey::new("t:acme", "tier"),
        terms: bucket(),
        ask: Ask::Tokens(request(replica, 1, 5)),
    };
    let began = Instant::now();
    loop {
        match execute(store, command.clone()).await {
            Ok(Answer::Tokens(Some(reply))) => return reply,
            answer => assert!(began.elapsed() < CURED, "{answer:?}"),
        }
    }
}

/// Returns the slot of the tenant's counts.
fn slot(cluster: &RedisCluster) -> String {
    cluster.nodes[0].command(&["CLUSTER", "KEYSLOT", "{t:acme}"])
}

#[tokio::test]
async fn owners_are_spread_over_the_nodes() {
    let Some(cluster) = RedisCluster::start() else { return };
    let store = connect(&cluster.url());
    up(&store).await;
    let tenants: Vec<_> = (0..40).map(|number| format!("t:{number}")).collect();
    let take_all = async |sequence: u64| {
        let commands = tenants.iter().map(|tenant| Command {
            key: StoreKey::new(tenant, "tier"),
            terms: bucket(),
            ask: Ask::Tokens(request(1, sequence, 3)),
        });
        let began = Instant::now();
        loop {
            let answers = store.execute(commands.clone().collect()).await;
            let left = answers.into_iter().map(|answer| match answer {
                Ok(Answer::Tokens(Some(reply))) => Some(reply.left),
                _ => None,
            });
            if let Some(left) = left.collect::<Option<Vec<_>>>() {
                return left;
            }
            assert!(began.elapsed() < CURED, "{:?}", store.last_failure());
        }
    };
    assert_eq!(take_all(1).await, [17; 40]);
    for node in &cluster.nodes {
        // A count and the name of its memory.
        let keys: u32 = node.command(&["DBSIZE"]).parse().unwrap();
        assert!(keys >= 2, "{keys}");
        node.command(&["SCRIPT", "FLUSH"]);
    }
    assert_eq!(take_all(2).await, [14; 40]);
    up(&store).await;
    assert_eq!(
        store.state().eviction.map(|eviction| eviction.word()),
        Some("noeviction")
    );
}

#[tokio::test]
async fn a_count_follows_its_slot() {
    let Some(cluster) = RedisCluster::start() else { return };
    let store = connect(&cluster.url());
    up(&store).await;
    assert_eq!(take_five(&store, 1).await.left, 15);
    let slot = slot(&cluster);
    let to = (cluster.owner(&slot) + 1) % 3;
    cluster.move_slot(&slot, to);
    assert_eq!(cluster.owner(&slot), to);
    // The client learns of the move by the first answer, which takes a round trip more.
    assert_eq!(take_five(&store, 2).await.left, 10);
}

#[tokio::test]
async fn replicas_hear_of_each_other() {
    let Some(cluster) = RedisCluster::start() else { return };
    let (one, other) = (connect(&cluster.url()), connect(&cluster.url()));
    up(&one).await;
    up(&other).await;
    one.set_presence("first", true);
    let mut notices = other.watch_notices();
    assert!(one.announce("breaker:users", "open", None));
    let heard = notices.wait_for(|_| other.notices().iter().any(|notice| *notice.value == *"open"));
    drop(timeout(CURED, heard).await.expect("it is heard").unwrap());
    let began = Instant::now();
    loop {
        let listed = other.replicas().await.unwrap_or_default();
        if listed.len() == 1 && *listed[0].text == *"first" {
            return;
        }
        assert!(began.elapsed() < CURED, "{listed:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_cluster_without_one_of_its_nodes_is_down_until_that_is_back() {
    let Some(mut cluster) = RedisCluster::start() else {
        return;
    };
    let store = connect(&cluster.url());
    up(&store).await;
    assert_eq!(take_five(&store, 1).await.left, 15);
    let owner = cluster.owner(&slot(&cluster));
    cluster.nodes[owner].kill();
    let began = Instant::now();
    while store.state().is_up() {
        assert!(began.elapsed() < CURED, "still up");
        take(&store, "tier", 1).await.ok();
    }
    cluster.nodes[owner].restart();
    cluster.wait();
    up(&store).await;
    // The node has forgotten its counts.
    let reply = take_five(&store, 1).await;
    assert_eq!((reply.left, reply.known), (15, false));
}

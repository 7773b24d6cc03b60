//! Tests the pool alone. Its connections are pipes in memory, whose far end states how many exchanges it allows.

use std::sync::Arc;
use std::time::Duration;

use policies::Moment;
use tokio::sync::oneshot::error::TryRecvError;

use super::driver;
use super::link::Link;
use super::pool::{DialGuard, ExchangeSlot, Served, Shared, Taken};
use crate::call::failure::Failure;
use crate::call::fault::Fault;
use crate::call::pool::PoolSettings;
use crate::clock;

const SETTINGS: PoolSettings = PoolSettings {
    idle_limit: 2,
    idle_for: Duration::from_secs(30),
    max_age: Duration::from_secs(600),
    streams: 3,
    ping: Duration::from_secs(30),
    answer_fields: 100,
    forwards_interim: false,
};

/// Far end of a link's pipe. Its connection closes when the task is aborted.
type Far = tokio::task::JoinHandle<()>;

async fn link(streams: u32) -> (Link, Far) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let far = tokio::spawn(async move {
        let mut builder = h2::server::Builder::new();
        let mut far = builder
            .max_concurrent_streams(streams)
            .handshake::<_, bytes::Bytes>(far)
            .await
            .expect("it speaks HTTP/2");
        while let Some(Ok(_)) = far.accept().await {}
    });
    let link = driver::open(near, Arc::default(), &SETTINGS).await;
    (link.expect("it opens"), far)
}

fn take(pool: &Arc<Shared>) -> Taken {
    pool.take(&SETTINGS, clock::now())
}

#[track_caller]
fn now(taken: Taken) -> ExchangeSlot {
    match taken {
        Taken::Now(slot) => slot,
        Taken::Later(..) => panic!("there is room"),
    }
}

#[track_caller]
fn later(taken: Taken) -> (tokio::sync::oneshot::Receiver<Served>, Option<DialGuard>) {
    match taken {
        Taken::Now(_) => panic!("there is no room"),
        Taken::Later(served, duty) => (served, duty),
    }
}

/// Returns a pool with `links` connections, opened one after the other.
async fn pool(links: u32, streams: u32) -> (Arc<Shared>, Vec<Far>) {
    let pool = Arc::<Shared>::default();
    let (mut slots, mut fars) = (Vec::new(), Vec::new());
    for _ in 0..links {
        let (served, duty) = later(take(&pool));
        let (link, far) = link(streams).await;
        assert!(
            duty.expect("the first to wait opens")
                .done(link, clock::now())
                .is_empty()
        );
        slots.push(served.await.expect("served").expect("open"));
        fars.push(far);
        while let Some(slot) = room(&pool) {
            slots.push(slot);
        }
    }
    (pool, fars)
}

/// Takes a slot if one is free at once; never leaves an exchange waiting.
fn room(pool: &Arc<Shared>) -> Option<ExchangeSlot> {
    let (busy, idle, carried) = pool.count();
    let most = (busy + idle) * SETTINGS.streams as usize;
    (carried < most).then(|| now(take(pool)))
}

#[tokio::test]
async fn a_connection_carries_what_both_sides_allow() {
    for (peer, allowed) in [(2, 2), (3, 3), (100, 3)] {
        let pool = Arc::<Shared>::default();
        let (served, duty) = later(take(&pool));
        let (link, _far) = link(peer).await;
        assert!(duty.expect("a duty").done(link, clock::now()).is_empty());
        let mut slots = vec![served.await.expect("served").expect("open")];
        for _ in 1..allowed {
            slots.push(now(take(&pool)));
        }
        let (_, duty) = later(take(&pool));
        assert!(duty.is_some(), "none is being opened");
        assert_eq!(pool.count(), (1, 0, allowed));
        drop(slots.pop());
        assert_eq!(pool.count(), (1, 0, allowed - 1));
    }
}

#[tokio::test]
async fn a_crowd_opens_as_few_connections_as_will_do() {
    let pool = Arc::<Shared>::default();
    let (mut waiting, mut duties) = (Vec::new(), Vec::new());
    for _ in 0..7 {
        let (served, duty) = later(take(&pool));
        waiting.push(served);
        duties.extend(duty);
    }
    assert_eq!(duties.len(), 3, "seven at three a connection");
    // The first connection carries two exchanges, so the others are expected to carry two as well.
    let (first, _far) = link(2).await;
    let more = duties.remove(0).done(first, clock::now());
    assert_eq!(more.len(), 1, "five are left, four of them were to be had");
    duties.extend(more);
    let mut served = Vec::new();
    let mut fars = Vec::new();
    for duty in duties {
        let (link, far) = link(2).await;
        fars.push(far);
        assert!(duty.done(link, clock::now()).is_empty());
    }
    for waiting in waiting {
        served.push(waiting.await.expect("served").expect("open"));
    }
    assert_eq!(pool.count(), (4, 0, 7));
    drop(served);
    assert_eq!(pool.count(), (0, 2, 0), "no more idle ones are kept than may be");
}

#[tokio::test]
async fn a_slot_that_comes_free_goes_to_who_waits_and_not_to_who_left() {
    let (pool, _fars) = pool(1, 3).await;
    let mut slots: Vec<_> = (0..3).map(|_| now(take(&pool))).collect();
    let (gone, duty) = later(take(&pool));
    let (mut waits, none) = later(take(&pool));
    assert!(duty.is_some() && none.is_none(), "one connection is opened for both");
    drop(gone);
    assert!(matches!(waits.try_recv(), Err(TryRecvError::Empty)));
    drop(slots.pop());
    let slot = waits.try_recv().expect("the first slot").expect("a slot");
    assert_eq!(pool.count(), (1, 0, 3));
    drop((slot, slots));
    assert_eq!(pool.count(), (0, 1, 0));
}

#[tokio::test]
async fn all_who_wait_are_told_of_a_failure() {
    let pool = Arc::<Shared>::default();
    let (first, duty) = later(take(&pool));
    let (second, _) = later(take(&pool));
    let failure = Failure::new(Fault::Unreached, "refused");
    duty.expect("a duty").failed(&failure);
    for told in [first, second] {
        let told = told.await.expect("told").err().expect("a failure");
        assert_eq!((told.fault, told.detail.as_str()), (Fault::Unreached, "refused"));
    }
    // A connection that closes at once counts as failed.
    let (closed, duty) = later(take(&pool));
    let (link, far) = link(3).await;
    far.abort();
    while link.is_open() {
        tokio::task::yield_now().await;
    }
    assert!(duty.expect("a duty").done(link, clock::now()).is_empty());
    assert!(closed.await.expect("told").is_err());
    // The holder of a duty may drop it.
    let (third, duty) = later(take(&pool));
    drop(duty.expect("nobody else opens one"));
    assert!(third.await.expect("told").is_err());
}

#[tokio::test]
async fn the_newest_connection_with_room_is_taken() {
    let (pool, _fars) = pool(2, 3).await;
    assert_eq!(pool.count(), (0, 2, 0));
    let slots: Vec<_> = (0..3).map(|_| now(take(&pool))).collect();
    assert_eq!(pool.count(), (1, 1, 3), "gathered on one");
    let fourth = now(take(&pool));
    assert!(fourth.link().born() <= slots[0].link().born());
    assert_eq!(pool.count(), (2, 0, 4));
}

#[tokio::test]
async fn what_is_old_idle_or_closed_takes_nothing() {
    let (pool, fars) = pool(2, 3).await;
    let held = now(take(&pool));
    let later_on = |seconds| clock::now() + Duration::from_secs(seconds);
    pool.sweep(&SETTINGS, later_on(31));
    assert_eq!(
        pool.count(),
        (1, 0, 1),
        "the idle one is closed, the other carries something"
    );
    assert!(
        matches!(pool.take(&SETTINGS, later_on(601)), Taken::Later(..)),
        "it is too old"
    );
    assert_eq!(pool.count(), (1, 0, 1), "and goes on with what it carries");
    for far in fars {
        far.abort();
        let _ = far.await;
    }
    while held.link().is_open() {
        tokio::task::yield_now().await;
    }
    assert!(matches!(take(&pool), Taken::Later(..)), "it is closed");
    drop(held);
    assert_eq!(pool.count(), (0, 0, 0));
    // Time that goes backwards makes no connection old.
    let early = pool.take(&SETTINGS, Moment::ZERO);
    assert!(matches!(early, Taken::Later(..)));
}

#[tokio::test]
async fn a_peer_that_does_not_answer_is_left_alone() {
    let (pool, _fars) = pool(1, 3).await;
    let slot = now(take(&pool));
    for _ in 0..2 {
        slot.link().note_silence();
    }
    slot.link().note_answer();
    for _ in 0..2 {
        slot.link().note_silence();
    }
    drop(now(take(&pool)));
    slot.link().note_silence();
    assert!(matches!(take(&pool), Taken::Later(..)));
}

#[tokio::test]
async fn who_speaks_something_else_is_no_connection() {
    let (near, mut far) = tokio::io::duplex(1024);
    tokio::io::AsyncWriteExt::write_all(&mut far, b"HTTP/1.1 400 Bad Request\r\n\r\n")
        .await
        .expect("there is room");
    let refused = driver::open(near, Arc::default(), &SETTINGS).await;
    let why = refused.err().expect("no HTTP/2").to_string();
    assert!(why.starts_with("does not speak HTTP/2: "), "{why}");
    let (near, far) = tokio::io::duplex(1024);
    drop(far);
    assert!(driver::open(near, Arc::default(), &SETTINGS).await.is_err());
}

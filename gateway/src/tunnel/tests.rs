//! Two ends made of memory, on a clock that stands still while there is something to do.

use tokio::io::{DuplexStream, duplex};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;

const IDLE: Duration = Duration::from_secs(60);

/// The far ends of a tunnel, and the word that we are about to go.
struct Scene {
    caller: DuplexStream,
    backend: DuplexStream,
    leave: Option<oneshot::Sender<()>>,
    tunnel: JoinHandle<(End, u64, u64)>,
}

fn open(room: usize) -> Scene {
    let ((caller, mut near), (mut far, backend)) = (duplex(room), duplex(room));
    let (leave, leaving) = oneshot::channel::<()>();
    let tunnel = tokio::spawn(async move {
        let (mut from_caller, mut to_caller) = (0, 0);
        let mut carried = Carried {
            from_caller: &mut from_caller,
            to_caller: &mut to_caller,
        };
        let leaving = async {
            if leaving.await.is_err() {
                std::future::pending().await
            }
        };
        let end = join(&mut near, &mut far, IDLE, &mut carried, leaving).await;
        (end, from_caller, to_caller)
    });
    Scene {
        caller,
        backend,
        leave: Some(leave),
        tunnel,
    }
}

impl Scene {
    fn leave(&mut self) {
        let said = self.leave.take().map(|leave| leave.send(()));
        assert_eq!(said, Some(Ok(())));
    }
}

async fn take(stream: &mut DuplexStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).await.expect("so many bytes come");
    bytes
}

async fn rest(stream: &mut DuplexStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.expect("memory does not fail");
    bytes
}

/// A masked close frame that says 1001.
fn is_going_away_to_a_server(frame: &[u8]) -> bool {
    matches!(frame, [0x88, 0x82, a, b, _, _, x, y] if [x ^ a, y ^ b] == [0x03, 0xe9])
}

#[tokio::test(start_paused = true)]
async fn bytes_go_both_ways_until_one_side_closes() {
    let mut scene = open(64);
    scene.caller.write_all(b"\x81\x85maskhello").await.expect("room");
    assert_eq!(take(&mut scene.backend, 11).await, b"\x81\x85maskhello");
    let large = vec![7; 100_000];
    let (mut caller, mut backend) = (scene.caller, scene.backend);
    let sending = async {
        backend.write_all(&large).await.expect("it is taken");
        backend.shutdown().await.expect("memory does not fail");
        rest(&mut backend).await
    };
    let receiving = async {
        let received = rest(&mut caller).await;
        caller.write_all(b"bye").await.expect("room");
        drop(caller);
        received
    };
    let (late, received) = futures_util::future::join(sending, receiving).await;
    assert_eq!(received, large);
    assert_eq!(late, b"bye", "what comes after the other side's end is passed on");
    let (end, from_caller, to_caller) = scene.tunnel.await.expect("no panic");
    assert!(matches!(end, End::Closed), "{end:?}");
    assert_eq!((from_caller, to_caller), (14, 100_000));
    drop(scene.leave);
}

#[tokio::test(start_paused = true)]
async fn we_leave_between_two_frames_and_say_so() {
    let mut scene = open(1024);
    scene.backend.write_all(b"\x82\x04ab").await.expect("room");
    assert_eq!(take(&mut scene.caller, 4).await, b"\x82\x04ab");
    scene.caller.write_all(b"\x82\x80mas").await.expect("room");
    assert_eq!(take(&mut scene.backend, 5).await, b"\x82\x80mas");
    scene.leave();
    // Time passes only when everyone waits, so this lets the tunnel hear of it.
    tokio::time::sleep(Duration::from_millis(1)).await;
    // The rest of both frames, and one more each that is not ours to begin.
    scene.backend.write_all(b"cd\x82\x01x").await.expect("room");
    scene.caller.write_all(b"k\x82\x80mask").await.expect("room");
    assert_eq!(take(&mut scene.caller, 6).await, b"cd\x88\x02\x03\xe9");
    let at_backend = take(&mut scene.backend, 9).await;
    assert_eq!(at_backend[0], b'k');
    assert!(is_going_away_to_a_server(&at_backend[1..]), "{at_backend:x?}");
    scene.caller.write_all(b"\x88\x80mask").await.expect("room");
    scene.backend.write_all(b"\x88\x00").await.expect("room");
    assert_eq!(rest(&mut scene.caller).await, b"");
    assert_eq!(rest(&mut scene.backend).await, b"");
    let (end, ..) = scene.tunnel.await.expect("no panic");
    assert!(matches!(end, End::Leaving), "{end:?}");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_answer_our_leave_is_left_behind() {
    let begun = tokio::time::Instant::now();
    let mut scene = open(1024);
    scene.backend.write_all(b"\x82\x04ab").await.expect("room");
    assert_eq!(take(&mut scene.caller, 4).await, b"\x82\x04ab");
    scene.leave();
    let (end, ..) = scene.tunnel.await.expect("no panic");
    assert!(matches!(end, End::Leaving), "{end:?}");
    assert_eq!(begun.elapsed().as_secs(), LEAVE.as_secs());
    assert_eq!(rest(&mut scene.caller).await, b"", "nothing of ours within a frame");
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_tunnel_and_bytes_prolong_it() {
    let begun = tokio::time::Instant::now();
    let mut scene = open(1024);
    for _ in 0..3 {
        tokio::time::sleep(IDLE * 9 / 10).await;
        scene.caller.write_all(b"\x89\x80mask").await.expect("room");
        assert_eq!(take(&mut scene.backend, 6).await, b"\x89\x80mask");
    }
    assert_eq!(take(&mut scene.caller, 4).await, b"\x88\x02\x03\xe9");
    let idle = begun.elapsed();
    assert!(idle >= IDLE * 37 / 10 && idle < IDLE * 38 / 10, "{idle:?}");
    let (end, ..) = scene.tunnel.await.expect("no panic");
    assert!(matches!(end, End::Idle), "{end:?}");
    drop(scene.leave);
}

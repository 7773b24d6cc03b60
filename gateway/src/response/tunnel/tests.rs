//! Tests tunnels between two pipes in memory, on a paused clock.

use tokio::io::{DuplexStream, duplex};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::response::tunnel::*;

const IDLE: Duration = Duration::from_secs(60);

/// Far ends of a tunnel, and the shutdown signal.
struct Scene {
    caller: DuplexStream,
    backend: DuplexStream,
    leave: Option<oneshot::Sender<()>>,
    tunnel: JoinHandle<(End, u64, u64)>,
}

fn open(room: usize) -> Scene {
    open_for(room, None)
}

/// Opens a tunnel with this maximum duration.
fn open_for(room: usize, life: Option<Duration>) -> Scene {
    let ((caller, mut near), (mut far, backend)) = (duplex(room), duplex(room));
    let (leave, leaving) = oneshot::channel::<()>();
    let tunnel = tokio::spawn(async move {
        let (mut from_caller, mut to_caller) = (0, 0);
        let mut carried = ByteCounts {
            from_caller: &mut from_caller,
            to_caller: &mut to_caller,
        };
        let leaving = async {
            if leaving.await.is_err() {
                std::future::pending().await
            }
        };
        let limits = Limits {
            idle: IDLE,
            over: life.map_or(Moment::MAX, |life| clock::now() + life),
        };
        let end = join(&mut near, &mut far, limits, &mut carried, leaving).await;
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

/// Whether this is a masked close frame with status 1001.
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

/// Backend that has said something, and takes nothing more.
struct Fallen<'a>(&'a [u8]);

impl AsyncRead for Fallen<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.0.is_empty() {
            true => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            false => Pin::new(&mut self.0).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Fallen<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut std::task::Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut std::task::Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut std::task::Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_backend_said_before_it_failed_arrives() {
    const SAID: &[u8] = b"\x88\x02\x03\xea";
    let (mut caller, mut near) = duplex(64);
    caller.write_all(b"\x81\x80mask").await.expect("room");
    let (mut from_caller, mut to_caller) = (0, 0);
    let mut carried = ByteCounts {
        from_caller: &mut from_caller,
        to_caller: &mut to_caller,
    };
    let limits = Limits {
        idle: IDLE,
        over: Moment::MAX,
    };
    let end = join(
        &mut near,
        &mut Fallen(SAID),
        limits,
        &mut carried,
        std::future::pending(),
    )
    .await;
    assert!(matches!(end, End::Broken(_)), "{end:?}");
    assert_eq!(take(&mut caller, SAID.len()).await, SAID);
    assert_eq!(to_caller, SAID.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn we_leave_between_two_frames_and_say_so() {
    let mut scene = open(1024);
    scene.backend.write_all(b"\x82\x04ab").await.expect("room");
    assert_eq!(take(&mut scene.caller, 4).await, b"\x82\x04ab");
    scene.caller.write_all(b"\x82\x80mas").await.expect("room");
    assert_eq!(take(&mut scene.backend, 5).await, b"\x82\x80mas");
    scene.leave();
    // Paused time advances only when all tasks wait, so the tunnel sees the signal first.
    tokio::time::sleep(Duration::from_millis(1)).await;
    // The rest of both frames, and the start of one more each, after which the gateway must not write.
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

#[derive(Debug, Clone, Copy, PartialEq)]
enum From {
    Caller,
    Backend,
}

/// Whether a tunnel lives longer because one side sends `bytes` shortly before its idle time is over.
async fn prolongs(from: From, bytes: &[u8]) -> bool {
    let begun = tokio::time::Instant::now();
    let Scene {
        mut caller,
        mut backend,
        leave,
        tunnel,
    } = open(64 * 1024);
    tokio::time::sleep(IDLE * 9 / 10).await;
    let side = match from {
        From::Caller => &mut caller,
        From::Backend => &mut backend,
    };
    side.write_all(bytes).await.expect("room");
    let (end, ..) = tunnel.await.expect("no panic");
    assert!(matches!(end, End::Idle), "{end:?}");
    drop(leave);
    // The time for closing comes on top.
    let lived = begun.elapsed();
    assert!(lived >= IDLE && lived < IDLE * 2, "{lived:?}");
    lived > IDLE * 3 / 2
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_tunnel_and_only_what_says_something_breaks_it() {
    let large: Vec<u8> = [&b"\x82\xff\0\0\0\0\x01\0\0\0mask"[..], &[0; 16 * 1024]].concat();
    let (whole, part) = (&b"\x81\x82maskab"[..], &b"\x81\x82maska"[..]);
    let cases: [(From, &[u8], bool); 13] = [
        (From::Caller, whole, true),
        (From::Caller, b"\x80\x80mask", true),
        (From::Caller, part, false),
        (From::Caller, b"\x81", false),
        (From::Caller, b"\x89\x80mask", false),
        (From::Caller, b"\x8a\x80mask", false),
        (From::Caller, &large[..1024], false),
        (From::Caller, &large, true),
        (From::Backend, b"\x81\x02ab", true),
        (From::Backend, b"\x81\x02a", true),
        (From::Backend, b"\x81\x02", true),
        (From::Backend, b"\x89\x00", true),
        // Any backend's library echoes a caller's pings.
        (From::Backend, b"\x8a\x00", false),
    ];
    for (from, bytes, expected) in cases {
        let shown = &bytes[..bytes.len().min(20)];
        assert_eq!(prolongs(from, bytes).await, expected, "{from:?} {shown:x?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_has_a_longest_life_however_much_is_said() {
    let begun = tokio::time::Instant::now();
    let mut scene = open_for(1024, Some(IDLE * 3));
    for _ in 0..5 {
        tokio::time::sleep(IDLE / 2).await;
        scene.backend.write_all(b"\x81\x01a").await.expect("room");
        assert_eq!(take(&mut scene.caller, 3).await, b"\x81\x01a");
    }
    assert_eq!(take(&mut scene.caller, 4).await, b"\x88\x02\x03\xe9");
    assert_eq!(begun.elapsed().as_secs(), (IDLE * 3).as_secs());
    assert!(is_going_away_to_a_server(&take(&mut scene.backend, 8).await));
    let (end, ..) = scene.tunnel.await.expect("no panic");
    assert!(matches!(end, End::Over), "{end:?}");
    drop(scene.leave);
}

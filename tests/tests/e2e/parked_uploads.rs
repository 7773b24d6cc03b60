//! Checks that HTTP/2 request bodies that are not read yet take little memory, however many callers send them.

use std::net::SocketAddr;

use bytes::Bytes;
use fixtures::fleet::{Fleet, Handle};
use futures_util::future::join_all;
use http::Method;
use tests::configs::{Config, UNGUARDED};
use tests::frames::{self, DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame};
use tests::http2_caller::{Http2, Stream};
use tests::{Ask, Gateway, eventually};

use crate::{SOON, backends};

const PARKED: &str = "gateway_parked_upload_bytes";
const COUNTED: &str = "gateway_parked_upload_reserved_bytes";
const REFUSED: &str = "gateway_parked_upload_refused_total";
const PAUSES: &str = "gateway_parked_upload_pauses_total";
/// Number of bytes that a stream may send before it is read.
const UNREAD: usize = 64 << 10;

/// A backend whose only slot is taken, so that uploads wait for it, and one that answers.
struct Crowded {
    busy: Handle,
    gateway: Gateway,
    _holder: Http2,
    _held: Stream,
    _fleet: Fleet,
}

impl Crowded {
    async fn start(top: &str) -> Self {
        let (fleet, [busy, well]) = backends(["busy", "well"]).await;
        let queue = "retry: off, breaker: off, bulkhead: { limit: 1, queue: 2000, wait: 1m }";
        let config = Config::default()
            .top("time_limits: { request: 90s }")
            .top(top)
            .open("busy", busy.address(), queue)
            .open("well", well.address(), UNGUARDED);
        let gateway = Gateway::start(config.to_string()).await;
        busy.close_gate();
        let holder = Http2::connect(gateway.address()).await;
        let held = holder.send(holder.request(Method::GET, "/busy/echo"), true).await;
        let waits = busy.wait_for(|counts| counts.at_gate == 1, SOON);
        waits.await.expect("the slot is taken");
        Self {
            busy,
            gateway,
            _holder: holder,
            _held: held.expect("the gateway takes requests"),
            _fleet: fleet,
        }
    }

    async fn parked(&self) -> f64 {
        self.gateway.metric(PARKED, &[]).await
    }

    async fn becomes(&self, parked: usize) {
        self.gateway.metric_becomes(PARKED, &[], parked as f64).await;
    }
}

/// Sends as much of `size` bytes as it may.
async fn upload(caller: &Http2, path: &str, size: usize) -> Stream {
    let request = caller.request(Method::POST, path);
    let mut stream = caller.send(request, false).await.expect("the gateway takes requests");
    let body = Bytes::from(vec![b'x'; size]);
    stream.upload.send_data(body, true).expect("the stream is open");
    stream
}

async fn uploads(address: SocketAddr, count: usize, size: usize) -> (Http2, Vec<Stream>) {
    let caller = Http2::connect(address).await;
    let mut streams = Vec::new();
    for _ in 0..count {
        streams.push(upload(&caller, "/busy/echo", size).await);
    }
    (caller, streams)
}

#[tokio::test]
async fn an_upload_that_waits_holds_a_small_window_and_is_counted() {
    const COUNT: usize = 90;
    let crowded = Crowded::start("").await;
    assert_eq!(crowded.parked().await, 0.0);
    let (caller, mut streams) = uploads(crowded.gateway.address(), COUNT, 256 << 10).await;
    crowded.becomes(COUNT * UNREAD).await;
    // A caller that gives up frees the bytes that it held.
    for stream in streams.drain(..10) {
        stream.cancel();
    }
    crowded.becomes((COUNT - 10) * UNREAD).await;
    let _short = upload(&caller, "/busy/echo", 1000).await;
    crowded.becomes((COUNT - 10) * UNREAD + 1000).await;
    crowded.busy.open_gate();
    for stream in streams {
        assert_eq!(stream.whole().await.expect("an answer").status, 200);
    }
    crowded.becomes(0).await;
}

#[tokio::test]
async fn what_waits_to_be_read_stays_within_the_budget_and_the_rest_is_refused() {
    const BUDGET: usize = 8 << 20;
    const CONNECTIONS: usize = 8;
    const EACH: usize = 50;
    /// What the frames take that the uploads have come in, a handful for each.
    const BEYOND: f64 = (CONNECTIONS * EACH * 8 * 256) as f64;
    let parked = |uploads| (uploads * UNREAD) as f64;
    let crowded = Crowded::start("request_limits: { parked_total: 8MiB }").await;
    let gateway = &crowded.gateway;
    let mut crowd = Vec::new();
    for _ in 0..CONNECTIONS {
        crowd.push(uploads(gateway.address(), EACH, 256 << 10).await);
    }
    let most = (BUDGET / UNREAD) as f64;
    let refused = eventually(SOON, "what there is no room for is refused", || async {
        let refused = gateway.metric(REFUSED, &[]).await;
        let waiting = gateway.metric("gateway_bulkhead_waiting", &[("backend", "busy")]).await;
        (refused + waiting == (CONNECTIONS * EACH) as f64 && waiting <= most).then_some(refused)
    })
    .await;
    let taken = (CONNECTIONS * EACH) - refused as usize;
    // Connections that are as greedy as each other leave half of it to others.
    assert!(taken * UNREAD >= BUDGET / 4, "{taken}");
    crowded.becomes(taken * UNREAD).await;
    let reserved = gateway.metric(COUNTED, &[]).await;
    assert!(
        (parked(taken)..=parked(taken) + BEYOND).contains(&reserved),
        "{reserved}"
    );

    // Who is read does not notice, on whichever protocol.
    let other = Http2::connect(gateway.address()).await;
    let answer = upload(&other, "/well/mirror", 4 << 20).await.whole().await;
    let answer = answer.expect("an answer");
    assert_eq!((answer.status, answer.body.len()), (200, 4 << 20));
    let ask: Ask = gateway.post("/well/mirror").body(vec![b'x'; 1 << 20]);
    ask.send().await.expect(200);

    crowded.busy.open_gate();
    let (callers, streams): (Vec<_>, Vec<_>) = crowd.into_iter().unzip();
    let answers = join_all(streams.into_iter().flatten().map(Stream::whole)).await;
    let mut answered = 0;
    for answer in answers {
        let answer = answer.expect("an answer");
        if answer.status == 200 {
            answered += 1;
        } else {
            assert_eq!(answer.status, 503);
            assert_eq!(answer.header("x-gateway-reason"), "overloaded");
        }
    }
    assert_eq!(
        answered, taken,
        "no upload that was taken is held up by those that wait"
    );
    crowded.becomes(0).await;
    assert_eq!(gateway.metric(COUNTED, &[]).await, 0.0);
    drop(callers);
}

#[tokio::test]
async fn a_connection_whose_upload_is_not_taken_is_not_read_further_until_it_is() {
    const CONNECTIONS: usize = 4;
    const SIZE: usize = 8 << 20;
    let (_fleet, [stalled, well]) = backends(["stalled", "well"]).await;
    let config = Config::default()
        .top("request_limits: { parked_total: 1MiB }")
        .open("stalled", stalled.address(), UNGUARDED)
        .open("well", well.address(), UNGUARDED);
    let gateway = Gateway::start(config.to_string()).await;
    stalled.close_gate();
    let mut crowd = Vec::new();
    for _ in 0..=CONNECTIONS {
        let caller = Http2::connect(gateway.address()).await;
        let stream = upload(&caller, "/stalled/mirror", SIZE).await;
        crowd.push((caller, stream));
    }
    // Each may hold an eighth of what all of them leave.
    let parked = eventually(SOON, "nothing more fits into the sockets of the backend", || async {
        let parked = gateway.metric(PARKED, &[]).await;
        (parked >= 300e3).then_some(parked)
    })
    .await;
    assert!(parked <= (1 << 20) as f64, "{parked}");
    assert!(gateway.metric(PAUSES, &[]).await > CONNECTIONS as f64);
    let other = Http2::connect(gateway.address()).await;
    let answer = upload(&other, "/well/mirror", 4 << 20).await.whole().await;
    assert_eq!(answer.expect("an answer").body.len(), 4 << 20);

    // The gateway sees that a caller leaves, whatever the caller has sent.
    let connections = gateway.metric("gateway_connections", &[]).await;
    drop(crowd.pop());
    eventually(SOON, "its connection is closed", || async {
        (gateway.metric("gateway_connections", &[]).await < connections).then_some(())
    })
    .await;
    stalled.open_gate();
    let (_callers, streams): (Vec<_>, Vec<_>) = crowd.into_iter().unzip();
    for answer in join_all(streams.into_iter().map(Stream::whole)).await {
        let answer = answer.expect("an answer");
        assert_eq!((answer.status, answer.body.len()), (200, SIZE));
    }
    gateway.metric_becomes(PARKED, &[], 0.0).await;
}

fn head(path: &str) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "a"),
    ];
    frames::fields(&fields)
}

/// Many heads and bodies in one piece, some of which the library refuses by itself.
#[tokio::test]
async fn every_byte_counts_for_the_stream_that_it_came_on() {
    let crowded = Crowded::start("").await;
    let mut connection = crowded.gateway.connect().await;
    let mut bytes = frames::begin();
    let open = |stream, block: &[u8]| frame(HEADERS, END_HEADERS, stream, block);
    let no_path = frames::fields(&[(":method", "POST"), (":scheme", "http")]);
    let data = |stream, size| frame(DATA, 0, stream, &vec![b'x'; size]);
    bytes.extend(open(1, &head("/busy/echo")));
    bytes.extend(open(3, &no_path));
    bytes.extend(open(5, &head("/busy/echo")));
    bytes.extend(data(1, 10_000));
    bytes.extend(data(5, 300));
    bytes.extend(open(7, &no_path));
    bytes.extend(open(9, &head("/nowhere")));
    bytes.extend(open(11, &head("/busy/echo")));
    bytes.extend(data(11, 7));
    bytes.extend(data(1, 1));
    connection.send(bytes).await;
    crowded.becomes(10_308).await;
    let cancel = |stream| frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
    connection.send(cancel(1)).await;
    crowded.becomes(307).await;
    connection.send([data(11, 20), cancel(5)].concat()).await;
    crowded.becomes(27).await;
    // What a frame takes counts as well, if it is more than what was granted.
    let reserved = crowded.gateway.metric(COUNTED, &[]).await;
    assert_eq!(reserved, UNREAD as f64);
    for _ in 0..10 {
        connection.send(data(11, 1).repeat(1000)).await;
    }
    crowded.becomes(10_027).await;
    let reserved = crowded.gateway.metric(COUNTED, &[]).await;
    assert_eq!(reserved, 10_027.0 + 256.0 * 10_002.0);
    drop(connection);
    crowded.becomes(0).await;
}

#[tokio::test]
async fn an_upload_that_is_read_is_given_a_wider_window() {
    const PIECE: usize = 16 << 10;
    let crowded = Crowded::start("").await;
    let mut connection = crowded.gateway.connect().await;
    let open = frame(HEADERS, END_HEADERS, 1, &head("/well/mirror"));
    connection
        .send([frames::begin(), frame(SETTINGS, 1, 0, &[]), open].concat())
        .await;
    let mut bytes = Vec::new();
    let (mut announced, mut sent, mut widest) = (None, 0, 0);
    let (mut window, mut seen) = (0, 0);
    while widest < 2 * UNREAD {
        let whole = frames::read(&bytes);
        for (kind, flags, stream, payload) in &whole[seen..] {
            let number = |at: usize| {
                let bytes = payload[at..at + 4].try_into().expect("four bytes");
                u32::from_be_bytes(bytes) as usize
            };
            match (*kind, *stream) {
                (SETTINGS, 0) if flags & 1 == 0 => {
                    let place = payload.chunks(6).position(|setting| setting[..2] == [0, 4]);
                    announced = Some(number(6 * place.expect("a window is announced") + 2));
                    window += announced.unwrap_or_default();
                }
                (WINDOW_UPDATE, 1) => window += number(0),
                (RST_STREAM, 1) => panic!("ended after {sent}"),
                _ => {}
            }
        }
        seen = whole.len();
        widest = widest.max(window - sent);
        if announced.is_some() && window - sent >= PIECE && sent < (1 << 20) {
            connection.send(frame(DATA, 0, 1, &[b'x'; PIECE])).await;
            sent += PIECE;
        } else {
            bytes.extend(connection.piece().await.expect("the connection goes on"));
        }
    }
    assert_eq!(announced, Some(UNREAD));
    assert!(sent >= UNREAD / 2, "{sent}");
}

#[tokio::test]
async fn an_upload_that_begins_in_one_read_with_another_request_counts_too() {
    let crowded = Crowded::start("").await;
    let head = |method, path| {
        let head = [
            (":method", method),
            (":scheme", "http"),
            (":path", path),
            (":authority", "a"),
        ];
        frames::fields(&head)
    };
    let mut caller = crowded.gateway.connect().await;
    let heads = [
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &head("GET", "/busy/echo")),
        frame(HEADERS, END_HEADERS, 3, &head("POST", "/busy/echo")),
    ];
    caller.send([frames::begin(), heads.concat()].concat()).await;
    caller.send(frame(DATA, 0, 3, &[b'x'; 10_000])).await;
    crowded.becomes(10_000).await;
    caller.send(frame(RST_STREAM, 0, 3, &[0; 4])).await;
    crowded.becomes(0).await;
}

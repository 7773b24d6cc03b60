//! Checks that HTTP/2 callers that send many frames without requests are disconnected, and that other callers are not
//! affected.

use h2::Reason;
use tests::configs::{Config, UNGUARDED};
use tests::frames::{
    self, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame,
};
use tests::http2_caller::Http2;
use tests::{Gateway, Raw};

use crate::one_backend;

const FLOODS: &str = "gateway_connections_flooding_total";

fn head(method: &str, path: &str) -> Vec<u8> {
    let fields = [
        (":method", method),
        (":scheme", "http"),
        (":path", path),
        (":authority", "a"),
    ];
    frames::fields(&fields)
}

fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &head("GET", "/api/bytes/10"))
}

/// Sends ten thousand times, and returns when the gateway has ended the connection.
async fn flood(gateway: &Gateway, begin: &[u8], again: impl Fn(u32) -> Vec<u8>) {
    let mut connection: Raw = gateway.connect().await;
    connection.send([frames::begin(), begin.to_vec()].concat()).await;
    for round in 0..100 {
        let burst: Vec<u8> = (0..100).flat_map(|index| again(100 * round + index)).collect();
        connection.send(burst).await;
    }
    // Bytes that were sent after the end may reset the connection. It is closed either way.
    connection.rest().await;
}

#[tokio::test]
async fn what_asks_for_nothing_is_bounded_and_told_apart() {
    let (_fleet, api) = one_backend("api").await;
    let config = Config::default().open("api", api.address(), UNGUARDED);
    let gateway = Gateway::start(config.to_string()).await;
    let neighbour = Http2::connect(gateway.address()).await;
    neighbour.get("/api/echo").await.expect("an answer");

    let open = frame(HEADERS, END_HEADERS, 1, &head("POST", "/api/mirror"));
    flood(&gateway, &[], |_| frame(PING, 0, 0, &[0; 8])).await;
    flood(&gateway, &[], |_| frame(SETTINGS, 0, 0, &[])).await;
    flood(&gateway, &open, |_| frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])).await;
    flood(&gateway, &[], |_| frame(0x2a, 0, 0, &[])).await;
    for frame in ["ping", "settings", "window_update", "other"] {
        gateway.metric_becomes(FLOODS, &[("frame", frame)], 1.0).await;
    }
    // Empty pieces of a body, and a head without an end, are the library's to refuse.
    flood(&gateway, &open, |_| frame(DATA, 0, 1, &[])).await;
    let endless = frame(HEADERS, 0, 1, &head("GET", "/"));
    let more = |index| frame(CONTINUATION, 0, 1, &frames::fields(&[(format!("x-{index}"), "y")]));
    flood(&gateway, &endless, more).await;

    assert_eq!(neighbour.get("/api/echo").await.expect("an answer").status, 200);
    gateway.metric_becomes("gateway_connections", &[], 1.0).await;
}

#[tokio::test]
async fn requests_that_are_cancelled_at_once_are_bounded() {
    let (_fleet, api) = one_backend("api").await;
    let config = Config::default().open("api", api.address(), UNGUARDED);
    let gateway = Gateway::start(config.to_string()).await;
    let reset = |stream| frame(RST_STREAM, 0, stream, &u32::from(Reason::CANCEL).to_be_bytes());
    flood(&gateway, &[], |index| {
        [get(2 * index + 1), reset(2 * index + 1)].concat()
    })
    .await;
    gateway.metric_becomes("gateway_connections", &[], 0.0).await;
    gateway
        .metric_becomes("gateway_bulkhead_in_use", &[("backend", "api")], 0.0)
        .await;
    let asked = api.counts().requests;
    assert!(asked <= 300, "{asked} of 10000 reached the backend");
}

#[tokio::test]
async fn who_asks_for_much_and_reads_it_is_no_flood() {
    let (_fleet, api) = one_backend("api").await;
    let config = Config::default().open("api", api.address(), UNGUARDED);
    let gateway = Gateway::start(config.to_string()).await;
    let caller = Http2::connect(gateway.address()).await;
    for _ in 0..3000 {
        assert_eq!(caller.get("/api/bytes/10").await.expect("an answer").status, 200);
    }
    let answer = caller.get("/api/bytes/20000000").await.expect("an answer");
    assert_eq!(answer.body.len(), 20_000_000);
}

/// What clients of gRPC do to learn how much is on its way (grpc-go's BDP estimator): two frames for every answer.
#[tokio::test]
async fn who_measures_its_bandwidth_at_every_answer_is_no_flood() {
    const AT_ONCE: u32 = 50;
    let (_fleet, api) = one_backend("api").await;
    let config = Config::default().open("api", api.address(), UNGUARDED);
    let gateway = Gateway::start(config.to_string()).await;
    let mut connection: Raw = gateway.connect().await;
    connection.send(frames::begin()).await;
    let mut asked = 0;
    for round in 0..80 {
        let burst: Vec<u8> = (0..AT_ONCE)
            .flat_map(|index| {
                let measures = [frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 10]), frame(PING, 0, 0, &[0; 8])];
                [get(2 * (AT_ONCE * round + index) + 1), measures.concat()].concat()
            })
            .collect();
        connection.send(burst).await;
        asked += AT_ONCE;
        let mut ended = 0;
        let mut bytes = Vec::new();
        while ended < AT_ONCE {
            let piece = connection.piece().await;
            bytes.extend(piece.unwrap_or_else(|| panic!("sent away after {asked} requests")));
            let whole = frames::read(&bytes);
            let ends = |(kind, flags, ..): &&(u8, u8, u32, Vec<u8>)| {
                matches!(*kind, DATA | HEADERS) && flags & END_STREAM != 0
            };
            ended += u32::try_from(whole.iter().filter(ends).count()).expect("few");
            let read: usize = whole.iter().map(|(.., payload)| 9 + payload.len()).sum();
            bytes.drain(..read);
        }
    }
}

//! Checks that a backend that sends endless unrequested frames loses its connection, and that no other caller waits for
//! a worker meanwhile.

use tests::abrupt::{Abrupt, Act, Then};
use tests::configs::{Config, UNGUARDED};
use tests::frames::{DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, SETTINGS, WINDOW_UPDATE, fields, frame};
use tests::{Gateway, eventually};

use crate::SOON;

/// More than may come at once.
const FLOOD: usize = 60_000;

async fn start(backend: &Abrupt, protocol: &str) -> Gateway {
    let config = Config::default().open("api", backend.address(), &format!("protocol: {protocol}, {UNGUARDED}"));
    Gateway::start(config.to_string()).await
}

fn floods_told(gateway: &Gateway) -> usize {
    gateway
        .log()
        .matches("too many frames that nobody has asked for")
        .count()
}

fn head(id: u32, status: &str, flags: u8) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, id, &fields(&[(":status", status)]))
}

#[tokio::test]
async fn frames_that_nobody_has_asked_for_end_the_connection() {
    type Frame = fn(u32) -> Vec<u8>;
    let floods: [(&str, Frame); 8] = [
        ("pings", |_| frame(PING, 0, 0, &[0; 8])),
        ("window updates", |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("window updates of the stream", |id| {
            frame(WINDOW_UPDATE, 0, id, &[0, 0, 0, 1])
        }),
        ("settings", |_| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255])),
        ("priorities", |id| frame(2, 0, id, &[0; 5])),
        ("frames of no known kind", |_| frame(0x2a, 0, 0, &[])),
        ("farewells", |_| frame(GOAWAY, 0, 0, &[0x7f, 255, 255, 255, 0, 0, 0, 0])),
        ("interim answers", |id| head(id, "103", 0)),
    ];
    for (name, flood) in floods {
        let backend = Abrupt::http2(move |id| Act {
            writes: flood(id).repeat(FLOOD),
            then: Then::Stays,
        })
        .await;
        let gateway = start(&backend, "h2c").await;
        let answer = gateway.get("/api/x").send().await;
        assert_eq!(
            (answer.status, answer.reason()),
            (502, Some("backend_invalid")),
            "{name}"
        );
        eventually(SOON, name, async || (floods_told(&gateway) == 1).then_some(())).await;
        assert_eq!(backend.connections(), 1, "{name}");
    }
}

/// Also on a connection that carries nothing any more; the next request has another.
#[tokio::test]
async fn an_idle_connection_is_no_place_for_a_flood() {
    let backend = Abrupt::http2(|id| Act {
        writes: [head(id, "204", END_STREAM), frame(PING, 0, 0, &[0; 8]).repeat(FLOOD)].concat(),
        then: Then::Stays,
    })
    .await;
    let gateway = start(&backend, "h2c").await;
    for connection in 1..=2 {
        gateway.get("/api/x").send().await.expect(204);
        eventually(SOON, "the flood ends", async || {
            (floods_told(&gateway) == connection).then_some(())
        })
        .await;
        assert_eq!(backend.connections(), connection);
    }
}

#[tokio::test]
async fn interim_answers_are_few() {
    let interim = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
    let whole = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    for (count, status) in [(100, 200), (101, 502), (100_000, 502)] {
        let backend = Abrupt::http1(Act {
            writes: (interim.repeat(count) + whole).into_bytes(),
            then: Then::Stays,
        })
        .await;
        let gateway = start(&backend, "http1").await;
        let answer = gateway.get("/api/x").send().await.expect(status);
        assert_eq!(answer.reason(), (status == 502).then_some("backend_invalid"), "{count}");
    }
}

#[tokio::test]
async fn a_status_is_one_whatever_the_protocol() {
    for (status, expected) in [("599", 599), ("600", 502), ("999", 502)] {
        let backend = Abrupt::http2(move |id| Act {
            writes: [head(id, status, 0), frame(DATA, END_STREAM, id, b"ok")].concat(),
            then: Then::Stays,
        })
        .await;
        start(&backend, "h2c").await.get("/api/x").send().await.expect(expected);
        let backend = Abrupt::http1(Act {
            writes: format!("HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\nok").into_bytes(),
            then: Then::Stays,
        })
        .await;
        start(&backend, "http1")
            .await
            .get("/api/x")
            .send()
            .await
            .expect(expected);
    }
}

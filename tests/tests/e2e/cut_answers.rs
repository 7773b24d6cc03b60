//! Checks that an answer of a backend over HTTP/2 is complete at END_STREAM and nowhere else (RFC 9113 section 8.1).
//!
//! A reset with NO_ERROR asks the client not to send the rest of the request. After END_STREAM the answer stays
//! complete; before END_STREAM the answer is cut, whatever the error code says.

use bytes::Bytes;
use fixtures::fleet::{Behaviour, Fault};
use tests::abrupt::{Abrupt, Act, Then};
use tests::configs::{Config, UNGUARDED};
use tests::frames::{DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, fields, frame};
use tests::{Gateway, eventually, http2_caller};

use crate::{SOON, one_backend};

fn head(id: u32, status: &str, more: &[(&str, &str)], flags: u8) -> Vec<u8> {
    let all = [&[(":status", status)], more].concat();
    frame(HEADERS, END_HEADERS | flags, id, &fields(&all))
}

/// Asked not to send any more.
fn enough(id: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, id, &0_u32.to_be_bytes())
}

async fn start(answer: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static) -> (Abrupt, Gateway) {
    let backend = Abrupt::http2(move |id| Act {
        writes: answer(id),
        then: Then::Stays,
    })
    .await;
    let config = Config::default().open("api", backend.address(), &format!("protocol: h2c, {UNGUARDED}"));
    let gateway = Gateway::start(config.to_string()).await;
    (backend, gateway)
}

/// Result for a caller over HTTP/2: the status, the body, a trailer.
type Whole = Result<(u16, Vec<u8>, Option<String>), h2::Error>;

/// What callers get: one over HTTP/1.1 and one over HTTP/2 who have sent half of their request, and one over HTTP/2 who
/// has sent all of it.
struct Got {
    http1: String,
    http2: Whole,
    asked: Whole,
}

async fn ask(gateway: &Gateway, kind: &str) -> Got {
    let http1 = gateway
        .raw(format!(
            "POST /api/x HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te, close\r\ncontent-type: {kind}\r\n\
             content-length: 10\r\n\r\nhalf"
        ))
        .await;
    Got {
        http1,
        http2: ask_over_http2(gateway, kind, false).await,
        asked: ask_over_http2(gateway, kind, true).await,
    }
}

async fn ask_over_http2(gateway: &Gateway, kind: &str, ends: bool) -> Whole {
    let caller = http2_caller::Http2::connect(gateway.address()).await;
    let mut request = caller.request(http::Method::POST, "/api/x");
    let headers = request.headers_mut();
    headers.insert("te", "trailers".parse().expect("a value"));
    headers.insert("content-type", kind.parse().expect("a value"));
    let mut stream = caller.send(request, false).await.expect("it is taken");
    // Fails only if the gateway was faster.
    let _ = stream.upload.send_data(Bytes::from_static(b"half"), ends);
    let whole = stream.whole().await?;
    let trailers = whole.trailers.unwrap_or_default();
    let trailer = trailers.get("x-sum").or(trailers.get("grpc-status"));
    let trailer = trailer.map(|value| value.to_str().expect("text").to_owned());
    Ok((whole.status, whole.body, trailer))
}

#[tokio::test]
async fn an_answer_without_its_end_is_cut_for_every_caller() {
    type Frames = fn(u32) -> Vec<u8>;
    let cases: [(&str, Frames); 4] = [
        ("data", |id| {
            [head(id, "200", &[], 0), frame(DATA, 0, id, b"so far"), enough(id)].concat()
        }),
        ("no data", |id| [head(id, "200", &[], 0), enough(id)].concat()),
        ("an error without its end", |id| {
            [head(id, "413", &[], 0), frame(DATA, 0, id, b"too l"), enough(id)].concat()
        }),
        ("less than its length", |id| {
            [
                head(id, "200", &[("content-length", "9")], 0),
                frame(DATA, 0, id, b"so far"),
                enough(id),
            ]
            .concat()
        }),
    ];
    for (what, frames) in cases {
        let (_backend, gateway) = start(frames).await;
        let got = ask(&gateway, "text/plain").await;
        // Where nothing was written yet, there is nothing.
        assert!(!got.http1.ends_with("0\r\n\r\n"), "{what}: {}", got.http1);
        assert!(got.http2.is_err(), "{what}: {:?}", got.http2);
        assert!(got.asked.is_err(), "{what}: {:?}", got.asked);
        eventually(SOON, "the log says so three times", || async {
            (gateway.stdout().matches("backend broke off").count() == 3).then_some(())
        })
        .await;
        let aborted = gateway
            .metric("gateway_aborted_responses_total", &[("route", "api")])
            .await;
        assert_eq!(aborted, 3.0, "{what}");
    }
}

#[tokio::test]
async fn a_grpc_stream_without_its_end_has_no_good_status() {
    let (_backend, gateway) = start(|id| {
        let kind = [("content-type", "application/grpc")];
        [
            head(id, "200", &kind, 0),
            frame(DATA, 0, id, b"\0\0\0\0\x01x"),
            enough(id),
        ]
        .concat()
    })
    .await;
    for ends in [false, true] {
        let (status, _, trailer) = ask_over_http2(&gateway, "application/grpc", ends)
            .await
            .expect("trailers");
        assert_eq!((status, trailer.as_deref()), (200, Some("14")), "UNAVAILABLE");
    }
}

#[tokio::test]
async fn an_answer_with_its_end_is_whole_whatever_follows() {
    let (_backend, gateway) = start(|id| [head(id, "413", &[], END_STREAM), enough(id)].concat()).await;
    let got = ask(&gateway, "text/plain").await;
    assert!(
        got.http1.starts_with("HTTP/1.1 413") && got.http1.ends_with("\r\n\r\n"),
        "{}",
        got.http1
    );
    for got in [got.http2, got.asked] {
        assert_eq!(got.expect("it is whole"), (413, Vec::new(), None));
    }

    let (_backend, gateway) = start(|id| {
        [
            head(id, "413", &[], 0),
            frame(DATA, END_STREAM, id, b"too long"),
            enough(id),
        ]
        .concat()
    })
    .await;
    let got = ask(&gateway, "text/plain").await;
    assert!(got.http1.ends_with("8\r\ntoo long\r\n0\r\n\r\n"), "{}", got.http1);
    for got in [got.http2, got.asked] {
        assert_eq!(got.expect("it is whole"), (413, b"too long".to_vec(), None));
    }

    let (_backend, gateway) = start(|id| {
        [
            head(id, "200", &[("trailer", "x-sum")], 0),
            frame(DATA, 0, id, b"body"),
            frame(HEADERS, END_HEADERS | END_STREAM, id, &fields(&[("x-sum", "7")])),
            enough(id),
        ]
        .concat()
    })
    .await;
    let got = ask(&gateway, "text/plain").await;
    assert!(got.http1.ends_with("0\r\nx-sum: 7\r\n\r\n"), "{}", got.http1);
    for got in [got.http2, got.asked] {
        assert_eq!(got.expect("it is whole"), (200, b"body".to_vec(), Some("7".to_owned())));
    }
}

/// A caller of HTTP/1.0 has no other sign of an end than that of the connection.
#[tokio::test]
async fn a_cut_answer_is_reset_where_its_end_is_that_of_the_connection() {
    let (_fleet, api) = one_backend("api").await;
    let config = Config::default().open("api", api.address(), UNGUARDED);
    let gateway = Gateway::start(config.to_string()).await;
    let faults = [
        Some(Fault::CutOff { chunked: true }),
        None,
        Some(Fault::Raw(b"HTTP/1.1 200 OK\r\n\r\nuntil the end".to_vec())),
    ];
    for (fault, is_cut) in faults.into_iter().zip([true, false, false]) {
        match fault.clone() {
            Some(fault) => api.behave(Behaviour::always(fault)).await,
            None => api.heal().await,
        }
        let mut caller = gateway.connect().await;
        caller.send("GET /api/echo HTTP/1.0\r\nhost: a\r\n\r\n").await;
        let whole = caller.whole().await;
        assert_eq!(whole.is_err(), is_cut, "{fault:?}: {whole:?}");
    }
}

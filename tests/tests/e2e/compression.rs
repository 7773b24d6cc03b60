//! Checks that answers are compressed for callers that accept it, and that nothing else about them is lost: streams come
//! piece by piece, cut answers stay cut, and what must not be changed is not.

use std::io::Read;
use std::net::SocketAddr;

use fixtures::fleet::{Behaviour, Fault, Fleet};
use futures_util::future::{join, join_all};
use http::{HeaderMap, Method};
use tests::configs::{Config, UNGUARDED};
use tests::http2_caller::{Http2, Stream};
use tests::{Answer, Failure, Gateway, Setup, cli, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::{SOON, one_backend};

const CODINGS: [&str; 3] = ["gzip", "br", "zstd"];

/// A document that is worth compressing.
fn document(length: usize) -> String {
    let items = (0..).flat_map(|number| format!("{{\"id\":{number},\"name\":\"item\"}},").into_bytes());
    let text: Vec<u8> = items.take(length.saturating_sub(5)).collect();
    format!("[\"{}\"]", String::from_utf8(text).expect("ASCII").replace('"', "'")) + " "
}

fn says(fields: &str, body: &str) -> Behaviour {
    let length = body.len();
    Behaviour::raw(format!(
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n{fields}\r\n{body}"
    ))
}

async fn start(top: &str) -> (Fleet, fixtures::fleet::Handle, Gateway) {
    let (fleet, api) = one_backend("api").await;
    let config = Config::default()
        .top(top)
        .open("api", api.address(), UNGUARDED)
        .open_route("plain", "api", "compression: off");
    (fleet, api, Gateway::start(config.to_string()).await)
}

/// Decodes what there is, and returns whether the coding came to its end.
fn decoded(coding: &str, encoded: &[u8]) -> (Vec<u8>, bool) {
    let mut decoder: Box<dyn Read> = match coding {
        "gzip" => Box::new(flate2::read::GzDecoder::new(encoded)),
        "br" => Box::new(brotli::Decompressor::new(encoded, 4096)),
        "zstd" => Box::new(zstd::stream::read::Decoder::with_buffer(encoded).expect("it begins")),
        other => panic!("{other} is no coding"),
    };
    let (mut plain, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match decoder.read(&mut buffer) {
            Ok(0) => return (plain, true),
            Ok(count) => plain.extend_from_slice(&buffer[..count]),
            Err(_) => return (plain, false),
        }
    }
}

#[track_caller]
fn check_compressed(headers: &HeaderMap, body: &[u8], coding: &str, expected: &str) {
    let field = |name: &str| headers.get(name).map(|value| value.to_str().expect("text"));
    assert_eq!(field("content-encoding"), Some(coding), "{headers:#?}");
    assert!(
        headers.get_all("vary").iter().any(|vary| vary == "Accept-Encoding"),
        "{headers:#?}"
    );
    assert_eq!((field("content-length"), field("accept-ranges")), (None, None));
    assert!(
        body.len() < expected.len() / 2,
        "{coding}: {} of {}",
        body.len(),
        expected.len()
    );
    assert!(
        decoded(coding, body) == (expected.as_bytes().to_vec(), true),
        "{coding}"
    );
}

#[track_caller]
fn check_plain(answer: &Answer, expected: &str) {
    assert_eq!(answer.header("content-encoding"), None, "{answer:#?}");
    assert!(answer.text() == expected, "{answer:#?}");
}

#[tokio::test]
async fn an_answer_comes_in_the_coding_that_the_caller_wants_most() {
    let (_fleet, api, gateway) = start("compression: {}").await;
    let body = document(10_000);
    let fields = "content-type: application/json\r\netag: \"7a\"\r\naccept-ranges: bytes\r\nvary: origin\r\n";
    api.behave(says(fields, &body)).await;
    let get = |path: &str, accepts: &str| gateway.get(path).header("accept-encoding", accepts).send();
    for (accepts, coding) in [
        ("gzip", "gzip"),
        ("br", "br"),
        ("zstd", "zstd"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("zstd;q=0.5, br;q=0.9, gzip;q=0.1", "br"),
        ("gzip, identity;q=0", "gzip"),
        ("*;q=0.1", "zstd"),
    ] {
        let answer = get("/api/x", accepts).await.expect(200);
        check_compressed(&answer.headers, &answer.body, coding, &body);
        assert_eq!(answer.header("etag"), Some("W/\"7a\""));
        let caller = Http2::connect(gateway.address()).await;
        let mut request = caller.request(Method::GET, "/api/x");
        request
            .headers_mut()
            .insert("accept-encoding", accepts.parse().expect("a value"));
        let whole = caller
            .send(request, true)
            .await
            .expect("it is taken")
            .whole()
            .await
            .expect("an answer");
        check_compressed(&whole.headers, &whole.body, coding, &body);
    }
    for accepts in ["identity", "gzip;q=0.5, identity", "gzip;q=0", "deflate", "*;q=0"] {
        let answer = get("/api/x", accepts).await.expect(200);
        check_plain(&answer, &body);
        let vary: Vec<_> = answer.headers.get_all("vary").iter().collect();
        assert_eq!(vary, ["origin", "Accept-Encoding"]);
        assert_eq!(
            (answer.header("etag"), answer.header("content-length")),
            (Some("\"7a\""), Some("10000"))
        );
    }
    let answer = gateway.get("/api/x").send().await.expect(200);
    check_plain(&answer, &body);
    let answer = get("/plain/x", "gzip").await.expect(200);
    check_plain(&answer, &body);
    assert_eq!(answer.header("vary"), Some("origin"));

    // HTTP/1.0 has no other sign of an end than that of the connection.
    let mut caller = gateway.connect().await;
    caller
        .send("GET /api/x HTTP/1.0\r\nhost: a\r\naccept-encoding: gzip\r\n\r\n")
        .await;
    let whole = caller.whole().await.expect("a whole answer");
    assert!(whole.ends_with(&body) && !whole.contains("content-encoding"), "{whole}");
}

#[tokio::test]
async fn what_must_not_be_changed_is_passed_on_as_it_is() {
    let (_fleet, api, gateway) = start("compression: {}").await;
    let body = document(5_000);
    for fields in [
        "content-type: image/png\r\n",
        "content-type: application/json\r\ncontent-encoding: br\r\n",
        "content-type: application/json\r\ncache-control: no-transform\r\n",
        "content-type: application/json\r\ncontent-range: bytes 0-4999/9000\r\n",
        "content-type: application/json\r\nrepr-digest: sha-256=:YQ==:\r\n",
        "content-type: application/grpc+json\r\n",
        "",
    ] {
        let fields = format!("{fields}etag: \"1\"\r\n");
        api.behave(says(&fields, &body)).await;
        let answer = gateway
            .get("/api/x")
            .header("accept-encoding", "gzip")
            .send()
            .await
            .expect(200);
        assert!(answer.text() == body, "{fields}");
        assert_eq!(
            (answer.header("etag"), answer.header("vary")),
            (Some("\"1\""), None),
            "{fields}"
        );
        assert_eq!(answer.header("content-length"), Some("5000"));
        let coding = fields.contains("encoding").then_some("br");
        assert_eq!(answer.header("content-encoding"), coding);
    }
    // One that is too short to gain anything.
    api.behave(says("content-type: text/plain\r\n", &body[..1023])).await;
    let answer = gateway
        .get("/api/x")
        .header("accept-encoding", "gzip")
        .send()
        .await
        .expect(200);
    check_plain(&answer, &body[..1023]);
    // What callers send passes as it is, and backends are asked what the caller asks.
    api.heal().await;
    let answer = gateway
        .get("/plain/echo")
        .header("accept-encoding", "br;q=0.7, gzip")
        .send()
        .await
        .expect(200);
    assert_eq!(answer.echoed("accept-encoding").as_deref(), Some("br;q=0.7, gzip"));
}

#[tokio::test]
async fn answers_to_head_and_unchanged_ones_agree_with_those_to_get() {
    let (_fleet, api, gateway) = start("compression: {}").await;
    let fields = "content-type: text/html\r\netag: \"1\"\r\n";
    api.behave(Behaviour::raw(format!(
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5000\r\n{fields}\r\n"
    )))
    .await;
    let client = gateway.client();
    let head = client
        .ask(Method::HEAD, "/api/x")
        .header("accept-encoding", "gzip")
        .send()
        .await
        .expect(200);
    assert_eq!(
        ["content-encoding", "etag", "content-length", "vary"].map(|name| head.header(name)),
        [Some("gzip"), Some("W/\"1\""), None, Some("Accept-Encoding")]
    );
    api.behave(Behaviour::raw(
        "HTTP/1.1 304 Not Modified\r\nconnection: close\r\netag: \"1\"\r\n\r\n",
    ))
    .await;
    for (held, told) in [("W/\"1\"", "W/\"1\""), ("\"1\"", "\"1\"")] {
        let request = gateway.get("/api/x").header("accept-encoding", "gzip");
        let answer = request.header("if-none-match", held).send().await.expect(304);
        assert_eq!(answer.header("etag"), Some(told));
        assert_eq!(answer.header("content-encoding"), None);
    }
}

#[tokio::test]
async fn answers_of_the_gateway_itself_are_compressed_too() {
    let (_fleet, api) = one_backend("api").await;
    let text = document(3000);
    let config = Config::default()
        .top("compression: { minimum: 100B, codings: [gzip] }")
        .backend("api", api.address(), UNGUARDED)
        .route(
            "all",
            "{ match: { path: /all }, access: { any_of: [anonymous] }, \
             aggregate: { parts: { one: { backend: api, path: /a }, two: { backend: api, path: /b } } } }",
        )
        .route(
            "fixed",
            &format!(
                "{{ match: {{ path: /fixed }}, access: {{ any_of: [anonymous] }}, \
                 respond: {{ headers: {{ content-type: text/plain }}, body: \"{text}\" }} }}",
                text = text.replace('"', "\\\"")
            ),
        );
    let gateway = Gateway::start(config.to_string()).await;
    let get = |path: &str| gateway.get(path).header("accept-encoding", "gzip");
    let answer = get("/fixed").send().await.expect(200);
    check_compressed(&answer.headers, &answer.body, "gzip", &text);

    // The tag of a merged document is known again in the form in which the caller has it.
    api.behave(says("content-type: application/json\r\n", &document(4000)))
        .await;
    let plain = gateway.get("/all").send().await.expect(200);
    let answer = get("/all").send().await.expect(200);
    check_compressed(&answer.headers, &answer.body, "gzip", &plain.text());
    let tag = answer.header("etag").expect("a tag").to_owned();
    assert_eq!(tag, format!("W/{}", plain.header("etag").expect("a tag")));
    let unchanged = get("/all").header("if-none-match", &tag).send().await.expect(304);
    assert_eq!(unchanged.header("etag"), Some(&*tag));
    // Parts are asked for what can be merged, whatever the caller accepts.
    for request in api.requests() {
        assert_eq!(request.header("accept-encoding"), Some("identity"));
    }

    let answer = get("/nowhere").send().await.expect(404);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    let (problem, is_whole) = decoded("gzip", &answer.body);
    let problem: serde_json::Value = serde_json::from_slice(&problem).expect("JSON");
    assert!(is_whole && problem["reason"] == "no_route", "{problem}");
}

/// A backend for one request, whose answer is what comes from the sender. It ends the connection when the sender is
/// dropped.
async fn scripted() -> (SocketAddr, mpsc::Sender<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let (sender, mut pieces) = mpsc::channel::<Vec<u8>>(1);
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        while let Some(piece) = pieces.recv().await {
            stream.write_all(&piece).await?;
        }
        Ok::<(), std::io::Error>(())
    });
    (address, sender)
}

fn chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}

#[tokio::test]
async fn each_piece_can_be_decoded_before_the_next_one_comes() {
    for coding in CODINGS {
        let (address, backend) = scripted().await;
        let config = Config::default().top("compression: {}").open("api", address, UNGUARDED);
        let gateway = Gateway::start(config.to_string()).await;
        let request = gateway.get("/api/x").header("accept-encoding", coding).open();
        let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n";
        backend.send(head.to_vec()).await.expect("it is asked");
        let mut stream = request.await.expect("a head");
        assert_eq!(stream.headers["content-encoding"], coding);
        let (mut sent, mut received) = (String::new(), Vec::new());
        for number in 0..5 {
            let line = format!("{{\"number\":{number}}}\n").repeat(1 + 1000 * (number % 2));
            backend.send(chunk(&line)).await.expect("it goes on");
            sent.push_str(&line);
            while decoded(coding, &received).0.len() < sent.len() {
                received.extend(stream.piece().await.expect("no break").expect("no end"));
            }
            assert!(
                decoded(coding, &received) == (sent.clone().into_bytes(), false),
                "{coding} {number}"
            );
        }
        backend.send(b"0\r\n\r\n".to_vec()).await.expect("it goes on");
        while let Some(piece) = stream.piece().await.expect("no break") {
            received.extend(piece);
        }
        assert!(decoded(coding, &received) == (sent.into_bytes(), true), "{coding}");
    }
}

#[tokio::test]
async fn events_are_passed_on_one_by_one_as_they_are() {
    let (_fleet, _api, gateway) = start("compression: { types: [text/*, application/*] }").await;
    let request = gateway.get("/api/sse?events=5&every_ms=50");
    let mut stream = request
        .header("accept-encoding", "gzip, identity;q=0")
        .open()
        .await
        .expect("a head");
    assert_eq!(stream.headers.get("content-encoding"), None);
    let mut count = 0;
    while let Some(piece) = stream.piece().await.expect("no break") {
        let text = String::from_utf8_lossy(&piece);
        assert_eq!(text.matches("id: ").count(), 1, "one at a time: {text:?}");
        count += 1;
    }
    assert_eq!(count, 5);
}

#[tokio::test]
async fn an_answer_that_breaks_off_does_not_look_whole() {
    for coding in CODINGS {
        for over_http2 in [false, true] {
            let (address, backend) = scripted().await;
            let config = Config::default().top("compression: {}").open("api", address, UNGUARDED);
            let gateway = Gateway::start(config.to_string()).await;
            let body = document(20_000);
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 40000\r\n\r\n";
            backend
                .send(format!("{head}{body}").into_bytes())
                .await
                .expect("it waits");
            drop(backend);
            let mut received = Vec::new();
            if over_http2 {
                let caller = Http2::connect(gateway.address()).await;
                let mut request = caller.request(Method::GET, "/api/x");
                request
                    .headers_mut()
                    .insert("accept-encoding", coding.parse().expect("a value"));
                let stream = caller.send(request, true).await.expect("it is taken");
                let mut body = stream.response.await.expect("a head").into_body();
                let failed = loop {
                    match body.data().await {
                        Some(Ok(data)) => {
                            let _ = body.flow_control().release_capacity(data.len());
                            received.extend_from_slice(&data);
                        }
                        Some(Err(error)) => break error,
                        None => panic!("{coding}: it ended in order"),
                    }
                };
                assert!(failed.is_reset(), "{failed}");
            } else {
                let request = gateway.get("/api/x").header("accept-encoding", coding);
                let mut stream = request.open().await.expect("a head");
                let failed = loop {
                    match stream.piece().await {
                        Ok(Some(data)) => received.extend_from_slice(&data),
                        Ok(None) => panic!("{coding}: it ended in order"),
                        Err(failed) => break failed,
                    }
                };
                assert!(matches!(failed, Failure::Aborted { status: 200, .. }), "{failed}");
            }
            let (plain, is_whole) = decoded(coding, &received);
            assert!(
                !is_whole && body.as_bytes().starts_with(&plain),
                "{coding} {over_http2}"
            );
            gateway
                .metric_becomes("gateway_aborted_responses_total", &[("route", "api")], 1.0)
                .await;
        }
    }
}

#[tokio::test]
async fn large_answers_pass_whole_and_beside_each_other() {
    let (_fleet, api, gateway) = start("workers: 1\ncompression: { levels: { br: 6, gzip: 9, zstd: 6 } }").await;
    let body = document(1_000_000);
    api.behave(says("content-type: application/json\r\n", &body)).await;
    let caller = Http2::connect(gateway.address()).await;
    let mut streams = Vec::new();
    for coding in CODINGS {
        let mut request = caller.request(Method::GET, "/api/x");
        request
            .headers_mut()
            .insert("accept-encoding", coding.parse().expect("a value"));
        streams.push((coding, caller.send(request, true).await.expect("it is taken")));
    }
    let one = gateway.get("/api/x").header("accept-encoding", "gzip").send();
    // What one stream does not read would hold up the others.
    let (codings, streams): (Vec<_>, Vec<_>) = streams.into_iter().unzip();
    let wholes = join_all(streams.into_iter().map(Stream::whole));
    let (wholes, answer) = join(wholes, one).await;
    for (coding, whole) in codings.into_iter().zip(wholes) {
        let whole = whole.expect("an answer");
        check_compressed(&whole.headers, &whole.body, coding, &body);
    }
    let answer = answer.expect(200);
    check_compressed(&answer.headers, &answer.body, "gzip", &body);
    gateway
        .metric_becomes("gateway_compression_memory_bytes", &[], 0.0)
        .await;
}

#[tokio::test]
async fn metrics_and_the_log_tell_what_compression_saves() {
    let (_fleet, api, gateway) = start("compression: {}").await;
    let body = document(8_000);
    api.behave(says("content-type: application/json\r\n", &body)).await;
    let mut sent = 0;
    for _ in 0..3 {
        let answer = gateway
            .get("/api/x")
            .header("accept-encoding", "br")
            .send()
            .await
            .expect(200);
        sent += answer.body.len();
    }
    gateway
        .get("/plain/x")
        .header("accept-encoding", "br")
        .send()
        .await
        .expect(200);
    let br = [("coding", "br")];
    gateway
        .metric_becomes("gateway_compressed_responses_total", &br, 3.0)
        .await;
    assert_eq!(
        gateway.metric("gateway_compression_input_bytes_total", &br).await,
        24_000.0
    );
    assert_eq!(
        gateway.metric("gateway_compression_output_bytes_total", &br).await,
        sent as f64
    );
    assert_eq!(
        gateway
            .metric("gateway_compressed_responses_total", &[("coding", "gzip")])
            .await,
        0.0
    );
    let lines = eventually(SOON, "four lines in the log", || async {
        let lines: Vec<serde_json::Value> = gateway
            .stdout()
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        (lines.len() == 4).then_some(lines)
    })
    .await;
    let told = |line: &serde_json::Value| (line["coding"].clone(), line["bytes_plain"].clone());
    assert_eq!(
        lines
            .iter()
            .filter(|line| told(line) == ("br".into(), 8000.into()))
            .count(),
        3,
        "{lines:#?}"
    );
    let plain = lines.iter().find(|line| line["route"] == "plain").expect("a line");
    assert_eq!((plain.get("coding"), &plain["bytes_out"]), (None, &8000.into()));
}

#[tokio::test]
async fn a_broken_head_or_an_early_cut_is_still_a_refusal() {
    let (_fleet, api, gateway) = start("compression: { minimum: 0B }").await;
    api.behave(Behaviour::always(Fault::CutOff { chunked: true })).await;
    let answer = gateway
        .get("/api/echo")
        .header("accept-encoding", "gzip")
        .try_send()
        .await;
    assert!(matches!(answer, Err(Failure::Aborted { .. })), "{answer:?}");
    api.behave(Behaviour::refusing()).await;
    let answer = gateway
        .get("/api/echo")
        .header("accept-encoding", "gzip")
        .send()
        .await
        .expect(502);
    let (problem, is_whole) = decoded("gzip", &answer.body);
    assert!(
        is_whole && String::from_utf8_lossy(&problem).contains("\"reason\""),
        "{answer:#?}"
    );
}

#[test]
fn operators_see_what_is_compressed() {
    let config = Config::default()
        .top("compression: { codings: [br, gzip], types: [application/json, \"text/*\"] }")
        .open("api", "127.0.0.1:1".parse().expect("an address"), UNGUARDED)
        .open_route("plain", "api", "compression: off")
        .to_string();
    let checked = cli(&["check", "-c", "gateway.yaml"], &Setup::new(&config));
    assert_eq!(checked.code, Some(0), "{checked:#?}");
    let shown = "Which answers are compressed for callers that accept it\n\n  api: br, gzip, from 1KiB on; application/json, text/*\n  plain: nothing\n";
    assert!(checked.stdout.contains(shown), "{}", checked.stdout);
    let explain = |path: &str, accepts: &str| {
        let field = format!("accept-encoding: {accepts}");
        let explained = cli(
            &["explain", "-c", "gateway.yaml", "GET", path, "-H", &field],
            &Setup::new(&config),
        );
        assert_eq!(explained.code, Some(0), "{explained:#?}");
        let line = explained
            .stdout
            .lines()
            .find(|line| line.contains("compression"))
            .map(str::to_owned);
        line.unwrap_or_default()
    };
    let line = explain("/api/x", "gzip, br;q=0.1");
    assert!(
        line.contains("gzip, if the answer has a type of application/json or text/* and 1KiB or more"),
        "{line}"
    );
    let line = explain("/api/x", "zstd");
    assert!(line.contains("none: the caller asks for none of br or gzip"), "{line}");
    assert_eq!(explain("/plain/x", "gzip"), "");
}

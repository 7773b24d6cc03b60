//! Checks gRPC through the gateway, to a backend that speaks it, from a third-party client.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use futures_util::{Stream, stream};
use h2::Reason;
use http::uri::PathAndQuery;
use tests::configs::{Config, UNGUARDED};
use tests::http2::{Ended, Http2, Manner};
use tests::{Gateway, Signal, eventually, within};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::SOON;

/// Messages as they are.
#[derive(Debug, Default, Clone, Copy)]
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

fn config(backend: &Http2, guards: &str, route: &str) -> String {
    let route = format!(
        "{{ match: {{ path: \"/grpc.Test/{{method}}\" }}, access: {{ any_of: [anonymous] }}, backend: calls{route} }}"
    );
    Config::default()
        .backend("calls", backend.address(), &format!("protocol: h2c, {guards}"))
        .route("calls", &route)
        .to_string()
}

async fn start(guards: &str, route: &str) -> (Http2, Gateway, Caller) {
    let backend = Http2::start(Manner::default()).await;
    let gateway = Gateway::start(config(&backend, guards, route)).await;
    let caller = Caller::to(&gateway).await;
    (backend, gateway, caller)
}

#[derive(Clone)]
struct Caller(Grpc<Channel>);

impl Caller {
    async fn to(gateway: &Gateway) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{}", gateway.address())).expect("a URI");
        Self(Grpc::new(endpoint.connect().await.expect("the gateway listens")))
    }

    async fn unary(&mut self, method: &str, message: &'static [u8]) -> Result<Response<Bytes>, Status> {
        self.ask(method, Request::new(message.into())).await
    }

    /// What may be done twice.
    async fn repeatable(&mut self, method: &str) -> Result<Response<Bytes>, Status> {
        let mut request = Request::new(Bytes::from_static(b"once"));
        let key = "8e03".parse().expect("a value");
        request.metadata_mut().insert("idempotency-key", key);
        self.ask(method, request).await
    }

    async fn ask(&mut self, method: &str, request: Request<Bytes>) -> Result<Response<Bytes>, Status> {
        self.ready().await;
        let called = self.0.unary(request, path(method), Plain);
        within(SOON, "an answer", called).await
    }

    async fn streaming(
        &mut self,
        method: &str,
        messages: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<Streaming<Bytes>, Status> {
        self.asking(method, Request::new(messages)).await
    }

    async fn asking(
        &mut self,
        method: &str,
        request: Request<impl Stream<Item = Bytes> + Send + 'static>,
    ) -> Result<Streaming<Bytes>, Status> {
        self.ready().await;
        let called = self.0.streaming(request, path(method), Plain);
        within(SOON, "an answer begins", called).await.map(Response::into_inner)
    }

    async fn ready(&mut self) {
        self.0.ready().await.expect("the connection is open");
    }
}

fn path(method: &str) -> PathAndQuery {
    format!("/grpc.Test/{method}").parse().expect("a path")
}

fn once(message: &'static [u8]) -> impl Stream<Item = Bytes> + Send + 'static {
    stream::iter([Bytes::from_static(message)])
}

async fn next(messages: &mut Streaming<Bytes>) -> Result<Option<Bytes>, Status> {
    within(SOON, "a message", messages.message()).await
}

#[tokio::test]
async fn all_kinds_of_calls_pass() {
    let (backend, _gateway, mut caller) = start(UNGUARDED, "").await;
    assert_eq!(
        caller.unary("Unary", b"hello").await.expect("an answer").get_ref(),
        "hello"
    );

    let mut repeated = caller.streaming("Repeat", once(b"again")).await.expect("it begins");
    for _ in 0..5 {
        assert_eq!(next(&mut repeated).await.expect("a message").expect("five"), "again");
    }
    assert!(next(&mut repeated).await.expect("a status of 0").is_none());

    let many = stream::iter((0..1000).map(|number: u32| Bytes::from(number.to_string())));
    let mut counted = caller.streaming("Count", many).await.expect("it begins");
    assert_eq!(next(&mut counted).await.expect("a message").expect("one"), "1000");

    let (say, said) = mpsc::channel::<Bytes>(1);
    let words = stream::unfold(said, |mut said| async { said.recv().await.map(|word| (word, said)) });
    let mut heard = caller.streaming("Talk", words).await.expect("it begins");
    for word in ["one", "two", "three"] {
        say.send(word.into()).await.expect("it is being sent");
        assert_eq!(next(&mut heard).await.expect("a message").expect("its echo"), word);
    }
    drop(say);
    assert!(next(&mut heard).await.expect("a status of 0").is_none());

    let big = Bytes::from(vec![b'x'; 3 << 20]);
    let mut heard = caller
        .streaming("Talk", stream::iter([big.clone()]))
        .await
        .expect("it begins");
    assert!(next(&mut heard).await.expect("a message").expect("its echo") == big);
    for came in backend.came() {
        assert_eq!(came.headers["te"], "trailers");
        assert_eq!(came.headers["content-type"], "application/grpc");
        assert!(!came.headers.contains_key("grpc-timeout"), "nobody asked for one");
    }
}

#[tokio::test]
async fn a_status_of_the_backend_is_the_callers() {
    let (backend, _gateway, mut caller) =
        start("retry: { attempts: 3, with_idempotency_key: true }, breaker: off", "").await;
    let status = caller.repeatable("Status5").await.expect_err("not found");
    assert_eq!(status.code(), Code::NotFound);
    assert!(!status.metadata().contains_key("x-gateway-reason"));
    assert_eq!(backend.came().len(), 1);
}

#[tokio::test]
async fn a_refusal_is_a_status() {
    let reason = |status: &Status| {
        let reason = status.metadata().get("x-gateway-reason");
        reason.map(|reason| reason.to_str().expect("a word").to_owned())
    };
    let limited = ", limits: { few: { rate: 1/h, burst: 1, per: route } }, time_limit: 400ms";
    let (backend, _gateway, mut caller) = start(UNGUARDED, limited).await;
    let status = caller.unary("hang", b"?").await.expect_err("nobody answers");
    assert_eq!(
        (status.code(), reason(&status).as_deref()),
        (Code::DeadlineExceeded, Some("out_of_time"))
    );
    assert_eq!(backend.until_ended(0).await, Ended::Reset(Reason::CANCEL));
    let status = caller.unary("Unary", b"?").await.expect_err("one an hour");
    assert_eq!(
        (status.code(), reason(&status).as_deref()),
        (Code::ResourceExhausted, Some("rate_limited"))
    );
    assert!(status.metadata().contains_key("grpc-retry-pushback-ms"));

    let (backend, _gateway, mut caller) = start(UNGUARDED, "").await;
    drop(backend);
    let status = caller.unary("Unary", b"?").await.expect_err("nobody is there");
    assert_eq!(
        (status.code(), reason(&status).as_deref()),
        (Code::Unavailable, Some("backend_unreached"))
    );
}

#[tokio::test]
async fn a_stream_outlives_the_limit_of_its_call_but_not_of_its_caller() {
    let (backend, _gateway, mut caller) = start(&format!("{UNGUARDED}, time_limit: 300ms"), "").await;
    let mut ticks = caller.streaming("Endless", once(b"go")).await.expect("it begins");
    // At 20 ms each, twice the limit.
    for _ in 0..30 {
        assert_eq!(next(&mut ticks).await.expect("a message").expect("endless"), "tick");
    }
    drop(ticks);
    assert_eq!(backend.until_ended(0).await, Ended::Reset(Reason::CANCEL));

    let mut request = Request::new(once(b"go"));
    let wish = "600".parse().expect("a value");
    request.metadata_mut().insert("x-request-timeout-ms", wish);
    let mut ticks = caller.asking("Endless", request).await.expect("it begins");
    let status = loop {
        match next(&mut ticks).await {
            Ok(tick) => assert_eq!(tick.expect("endless"), "tick"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(backend.until_ended(1).await, Ended::Reset(Reason::CANCEL));

    let mut request = Request::new(once(b"once"));
    request.set_timeout(Duration::from_secs(5));
    let mut answer = caller.asking("Unary", request).await.expect("it begins");
    next(&mut answer).await.expect("a message");
    let told = backend.came()[2].headers["grpc-timeout"]
        .to_str()
        .expect("text")
        .to_owned();
    let milliseconds: u64 = told.trim_end_matches('m').parse().expect("milliseconds");
    assert!(milliseconds <= 300, "{told}: no more than there is");
}

#[tokio::test]
async fn who_has_nothing_to_say_for_a_while_is_not_slow() {
    let backend = Http2::start(Manner::default()).await;
    let slow = "minimum_rates: { grace: 300ms, body: 1KiB }\n";
    let gateway = Gateway::start(format!("{slow}{}", config(&backend, UNGUARDED, ""))).await;
    let mut caller = Caller::to(&gateway).await;
    let (say, said) = mpsc::channel(1);
    let said = stream::unfold(said, |mut said| async { Some((said.recv().await?, said)) });
    let mut messages = caller.streaming("Talk", said).await.expect("a head");
    for message in [&b"one"[..], b"two"] {
        say.send(Bytes::from_static(message)).await.expect("it is taken");
        assert_eq!(next(&mut messages).await.expect("an echo").expect("an echo"), message);
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

#[tokio::test]
async fn a_backend_that_listens_to_a_caller_who_speaks_is_not_silent() {
    let backend = Http2::start(Manner::default()).await;
    let silence = "time_limits: { idle_stream: 500ms }\n";
    let gateway = Gateway::start(format!("{silence}{}", config(&backend, UNGUARDED, ""))).await;
    let mut caller = Caller::to(&gateway).await;
    let (say, said) = mpsc::channel(1);
    let said = stream::unfold(said, |mut said| async { Some((said.recv().await?, said)) });
    let mut answer = caller.streaming("Listen", said).await.expect("a head");
    for _ in 0..20 {
        say.send(Bytes::from_static(b"more")).await.expect("it is taken");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Now neither side sends anything.
    let status = within(SOON, "the end", next(&mut answer))
        .await
        .expect_err("it is silent");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
}

#[tokio::test]
async fn a_stream_that_its_caller_spoils_is_no_failure_of_the_backend() {
    let guards = "retry: off, breaker: { window: 60s, min_calls: 3, failure_ratio: 0.4, open_for: 1h }";
    let (_backend, gateway, mut caller) = start(guards, ", body_limit: 1KiB").await;
    for _ in 0..6 {
        let (say, said) = mpsc::channel(1);
        let said = stream::unfold(said, |mut said| async { Some((said.recv().await?, said)) });
        let mut messages = caller.streaming("Talk", said).await.expect("a head");
        say.send(Bytes::from_static(b"short")).await.expect("it is taken");
        assert_eq!(next(&mut messages).await.expect("an echo").expect("an echo"), "short");
        say.send(Bytes::from_static(&[b'x'; 2000])).await.expect("it is taken");
        let status = next(&mut messages).await.expect_err("it is too long");
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    }
    let state = gateway.metric("gateway_breaker_state", &[("backend", "calls")]).await;
    assert_eq!(state, 0.0, "closed");
    caller.unary("Unary", b"hello").await.expect("an answer");
}

#[tokio::test]
async fn unavailable_is_tried_again_in_the_head_and_never_in_trailers() {
    let guards = "retry: { attempts: 2, backoff: 1ms..5ms, with_idempotency_key: true }, \
                  breaker: { min_calls: 4, failure_ratio: 0.9, window: 60s }";
    let (backend, gateway, mut caller) = start(guards, "").await;
    let status = caller.repeatable("Status14").await.expect_err("out of service");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(
        !status.metadata().contains_key("x-gateway-reason"),
        "the backend's own word"
    );
    assert_eq!(backend.came().len(), 2);
    let failed = [("backend", "calls"), ("outcome", "failed_status")];
    assert_eq!(gateway.metric("gateway_backend_attempts_total", &failed).await, 2.0);

    // Each is a success that fails late: with the two from above, all four have failed.
    for count in 3..=4 {
        let mut messages = caller.streaming("Late", once(b"go")).await.expect("it begins");
        assert_eq!(next(&mut messages).await.expect("a message").expect("one"), "so far");
        let status = next(&mut messages).await.expect_err("it ends badly");
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(backend.came().len(), count);
    }
    let status = caller.unary("Unary", b"?").await.expect_err("left alone");
    assert_eq!(status.metadata().get("x-gateway-reason").expect("ours"), "breaker_open");
}

#[tokio::test]
async fn a_call_that_is_under_way_survives_a_drain() {
    let (_backend, mut gateway, mut caller) = start(UNGUARDED, "").await;
    let (say, said) = mpsc::channel::<Bytes>(1);
    let words = stream::unfold(said, |mut said| async { said.recv().await.map(|word| (word, said)) });
    let mut heard = caller.streaming("Talk", words).await.expect("it begins");
    gateway.signal(Signal::Term);
    eventually(SOON, "no new connection is taken", || async {
        TcpStream::connect(gateway.address()).await.err()
    })
    .await;
    for word in ["still", "here"] {
        say.send(word.into()).await.expect("it is being sent");
        assert_eq!(next(&mut heard).await.expect("a message").expect("its echo"), word);
    }
    drop(say);
    assert!(next(&mut heard).await.expect("a status of 0").is_none());
    assert_eq!(gateway.wait_exit().await, Some(0));
}

#[tokio::test]
async fn a_stream_without_an_end_is_told_before_a_drain_would_cut_it() {
    let backend = Http2::start(Manner::default()).await;
    let drain = "time_limits: { drain: 1s }\n";
    let mut gateway = Gateway::start(format!("{drain}{}", config(&backend, UNGUARDED, ""))).await;
    let mut caller = Caller::to(&gateway).await;
    let mut ticks = caller.streaming("Endless", once(b"go")).await.expect("it begins");
    next(&mut ticks).await.expect("a message").expect("endless");
    gateway.signal(Signal::Term);
    let status = loop {
        match next(&mut ticks).await {
            Ok(tick) => assert_eq!(tick.expect("endless"), "tick"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    drop((ticks, caller));
    assert_eq!(gateway.wait_exit().await, Some(0));
}

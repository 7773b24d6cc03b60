//! Checks callers that a service outside the gateway answers for: it is asked once for each question, its answers are
//! never mixed up, and without an answer nobody gets in.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fixtures::fleet::{Fleet, Handle};
use http::{HeaderValue, Method};
use serde_json::{Value, json};
use tests::configs::Config;
use tests::crowd::at_once;
use tests::http2_caller::Http2;
use tests::{Ask, Client, Gateway, Setup, cli, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::{SOON, one_backend};

/// Time for what takes moments on a machine that does nothing else.
const LONG: Duration = Duration::from_secs(60);
const TOKEN: &str = "correct-horse-battery-staple";

/// What the service does with a question.
#[derive(Clone, Copy, Debug)]
enum Mode {
    /// Knows `Bearer good-NAME` as the caller NAME of the tenant NAME, and nobody else. Holds further header lines.
    Knows(&'static str),
    /// Like `Knows`, once it is let go.
    Held,
    Silent,
    /// Answers everything with these bytes.
    Raw(&'static str),
    /// Answers with a body of a megabyte.
    Huge,
}

struct Shared {
    mode: Mutex<Mode>,
    /// Heads of all questions.
    heads: Mutex<Vec<String>>,
    held: watch::Sender<bool>,
}

/// An authorisation service on a port of its own.
struct Service {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

impl Service {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            mode: Mutex::new(Mode::Knows("")),
            heads: Mutex::default(),
            held: watch::channel(true).0,
        });
        let task = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Self { address, shared, task }
    }

    fn becomes(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
    }

    fn let_go(&self) {
        self.shared.held.send_replace(false);
    }

    fn questions(&self) -> usize {
        self.shared.heads.lock().unwrap().len()
    }

    fn last_head(&self) -> String {
        self.shared.heads.lock().unwrap().last().cloned().expect("it was asked")
    }

    /// Ends the service with all its connections. Its port refuses connections from then on.
    async fn kill(self) -> SocketAddr {
        self.task.abort();
        let _ = self.task.await;
        self.address
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with the task, so that no connection outlives the service.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(answer_all(stream, Arc::clone(&shared)));
    }
}

async fn answer_all(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut read = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = read.windows(4).position(|part| part == b"\r\n\r\n") {
                break end + 4;
            }
            if !matches!(stream.read_buf(&mut read).await, Ok(1..)) {
                return;
            }
        };
        let head = String::from_utf8_lossy(&read[..end]).to_lowercase();
        read.drain(..end);
        shared.heads.lock().unwrap().push(head.clone());
        let mode = *shared.mode.lock().unwrap();
        let answer = match mode {
            Mode::Knows(lines) => knows(&head, lines),
            Mode::Held => {
                let mut held = shared.held.subscribe();
                let _ = held.wait_for(|held| !held).await;
                knows(&head, "")
            }
            Mode::Silent => std::future::pending().await,
            Mode::Raw(bytes) => bytes.to_owned(),
            Mode::Huge => whole("200 OK", "", &"x".repeat(1 << 20)),
        };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn whole(status: &str, lines: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\n{lines}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn knows(head: &str, lines: &str) -> String {
    let name = head
        .lines()
        .find_map(|line| line.strip_prefix("authorization: bearer good-"));
    match name {
        Some(name) => {
            let body = json!({ "tenant": name, "subject": name, "tier": "open", "scopes": ["read"] });
            whole("200 OK", lines, &body.to_string())
        }
        None if head.contains("authorization: bearer known-") => whole("403 Forbidden", lines, ""),
        None => {
            let lines = format!("{lines}www-authenticate: Bearer realm=\"id\", error=\"invalid_token\"\r\n");
            whole("401 Unauthorized", &lines, "")
        }
    }
}

fn config(api: &Handle, service: SocketAddr, more: &str) -> Config {
    let comma = if more.is_empty() { "" } else { ", " };
    // A debug build on a busy machine can be late.
    let time = if more.contains("time_limit") {
        ""
    } else {
        ", time_limit: 30s"
    };
    let top = format!(
        r#"
listeners: {{ public: {{ address: "127.0.0.1:0" }} }}
admin: {{ address: "127.0.0.1:0", token_file: admin.token }}
tiers: {{ open: {{ rate: 1000000/s, burst: 1000000 }} }}
default_tier: open
overload: off
callers:
  anonymous: {{ by: client_address }}
  failures: off
  external: {{ url: "http://{service}/verify?v=1"{time}{comma}{more} }}
"#
    );
    Config::with(top)
        .backend("api", api.address(), "bulkhead: { limit: 10000 }, breaker: off")
        .mapped("in", "api", "access: { any_of: [external], scopes: [read] }")
        .mapped("free", "api", "access: { any_of: [anonymous] }")
        .mapped("either", "api", "access: { any_of: [external, anonymous] }")
        .mapped(
            "kept",
            "api",
            "access: { any_of: [external] }, forward_credential: true",
        )
}

async fn serving(config: &Config) -> Gateway {
    Setup::new(config.to_string()).file("admin.token", TOKEN).start().await
}

async fn start(more: &str) -> (Fleet, Service, Gateway) {
    let (fleet, api) = one_backend("api").await;
    let service = Service::start().await;
    let gateway = serving(&config(&api, service.address, more)).await;
    (fleet, service, gateway)
}

fn good(gateway: &Gateway, name: &str) -> Ask {
    gateway.get("/in/echo").bearer(&format!("good-{name}"))
}

async fn lookups(gateway: &Gateway, result: &str) -> f64 {
    gateway
        .metric("gateway_external_lookups_total", &[("result", result)])
        .await
}

async fn outcomes(gateway: &Gateway, outcome: &str) -> f64 {
    gateway
        .metric("gateway_external_questions_total", &[("outcome", outcome)])
        .await
}

#[tokio::test]
async fn an_answer_names_tenant_tier_and_caller_and_the_credential_is_not_passed_on() {
    let (_fleet, service, gateway) = start("").await;
    for _ in 0..3 {
        let answer = good(&gateway, "ada")
            .header("x-tenant-id", "forged")
            .header("cookie", "a=b")
            .send()
            .await
            .expect(200);
        let told = ["x-tenant-id", "x-tenant-tier", "x-caller-id"].map(|name| answer.echoed(name));
        assert_eq!(told, ["ada", "open", "ada"].map(|value| Some(value.to_owned())));
        assert_eq!(answer.echoed("authorization"), None);
        assert_eq!(
            answer.echoed("cookie").as_deref(),
            Some("a=b"),
            "it is no field of the question"
        );
    }
    assert_eq!(service.questions(), 1);
    let head = service.last_head();
    assert!(head.starts_with("get /verify?v=1 http/1.1\r\n"), "{head}");
    for absent in ["cookie", "x-tenant-id", "forged", "x-forwarded", "content-length"] {
        assert!(!head.contains(absent), "{absent} in {head}");
    }
    let kept = gateway.get("/kept/echo").bearer("good-ada").send().await.expect(200);
    assert_eq!(kept.echoed("authorization").as_deref(), Some("Bearer good-ada"));
    let admitted = [("kind", "external"), ("outcome", "admitted")];
    assert_eq!(gateway.metric("gateway_callers_total", &admitted).await, 4.0);
    let status = gateway.admin_json("/api/v1/status").await;
    assert_eq!(status["external"]["callers"], 1, "{status:#}");
    assert_eq!(status["external"]["breaker"], "closed", "{status:#}");
}

#[tokio::test]
async fn without_a_credential_nothing_is_asked() {
    let (_fleet, service, gateway) = start("").await;
    let refused = gateway.get("/in/echo").send().await;
    refused.refusal(401, "credentials_missing");
    assert_eq!(refused.header("www-authenticate"), Some("External realm=\"gateway\""));
    gateway.get("/either/echo").send().await.expect(200);
    gateway.get("/free/echo").bearer("good-ada").send().await.expect(200);
    let twice = gateway.get("/in/echo").bearer("good-ada").bearer("good-eve");
    twice.send().await.refusal(401, "credentials_invalid");
    assert_eq!(service.questions(), 0);
    // Where anonymous callers are admitted too, a credential that is sent must be good.
    gateway
        .get("/either/echo")
        .bearer("bad")
        .send()
        .await
        .refusal(401, "credentials_invalid");
}

#[tokio::test]
async fn two_hundred_requests_with_one_credential_ask_once() {
    let (_fleet, service, gateway) = start("time_limit: 60s").await;
    service.becomes(Mode::Held);
    let crowd = at_once(200, |_| gateway.another_client().get("/in/echo").bearer("good-ada"));
    let release = async {
        eventually(LONG, "all others wait for the one question", || async {
            (lookups(&gateway, "joined").await == 199.0).then_some(())
        })
        .await;
        service.let_go();
    };
    let (crowd, ()) = tokio::join!(crowd, release);
    crowd.all(200);
    assert_eq!(service.questions(), 1);
    assert_eq!(lookups(&gateway, "asked").await, 1.0);
}

#[tokio::test]
async fn callers_are_never_mixed_up() {
    for more in ["", "cache: off"] {
        let (_fleet, _service, gateway) = start(more).await;
        let name = |number: usize| format!("caller-{}", number % 10);
        let crowd = at_once(200, |number| {
            gateway
                .another_client()
                .get("/in/echo")
                .bearer(&format!("good-{}", name(number)))
                .header("x-expected", &name(number))
        })
        .await;
        crowd.all(200);
        for answer in crowd.answers() {
            assert_eq!(answer.echoed("x-tenant-id"), answer.echoed("x-expected"), "{more}");
        }
    }
}

#[tokio::test]
async fn refusals_are_stored_apart_and_displace_nobody() {
    let (_fleet, service, gateway) = start("cache: { entries: 100, refused: 1h, ttl: 1h }").await;
    good(&gateway, "ada").send().await.expect(200);
    for _ in 0..3 {
        let refused = gateway.get("/in/echo").bearer("bad").send().await;
        refused.refusal(401, "credentials_invalid");
        let challenge = "Bearer realm=\"id\", error=\"invalid_token\"";
        assert_eq!(refused.header("www-authenticate"), Some(challenge));
    }
    gateway
        .get("/in/echo")
        .bearer("known-eve")
        .send()
        .await
        .refusal(403, "not_allowed");
    assert_eq!(service.questions(), 3, "ada, bad and eve were asked about once each");
    for guess in 0..300 {
        gateway
            .get("/in/echo")
            .bearer(&format!("guess-{guess}"))
            .send()
            .await
            .refusal(401, "credentials_invalid");
    }
    let asked = service.questions();
    good(&gateway, "ada").send().await.expect(200);
    assert_eq!(service.questions(), asked, "the guesses have not displaced the caller");
    let entries = |kind: &'static str| {
        let gateway = &gateway;
        async move { gateway.metric("gateway_external_entries", &[("kind", kind)]).await }
    };
    assert_eq!(entries("callers").await, 1.0);
    assert!(entries("refusals").await <= 100.0);
}

#[tokio::test]
async fn an_address_that_guesses_causes_no_more_questions() {
    let (fleet, service, gateway) = start("").await;
    let limited = config(&fleet.backend("api"), service.address, "")
        .to_string()
        .replace("failures: off", "failures: { rate: 1/h, burst: 5 }");
    gateway.reload(limited).await;
    good(&gateway, "ada").send().await.expect(200);
    for guess in 0..20 {
        let answer = gateway.get("/in/echo").bearer(&format!("guess-{guess}")).send().await;
        let expected = if guess < 5 { 401 } else { 429 };
        assert_eq!(answer.status, expected, "{guess}: {answer:?}");
    }
    assert_eq!(service.questions(), 6);
    // What is known is not affected.
    good(&gateway, "ada").send().await.expect(200);
}

#[tokio::test]
async fn a_hung_service_costs_its_time_limit_and_opens_its_breaker_which_heals() {
    let more = "time_limit: 200ms, breaker: { min_calls: 2, open_for: 1s }, retry: off, cache: off";
    let (_fleet, service, gateway) = start(more).await;
    service.becomes(Mode::Silent);
    let refused = good(&gateway, "ada").send().await;
    let problem = refused.refusal(503, "identity_unavailable");
    assert_eq!(problem["type"], "urn:problem-type:gateway:identity_unavailable");
    assert!(outcomes(&gateway, "timed_out").await >= 1.0);
    let mut number = 0;
    eventually(LONG, "the breaker opens", || {
        number += 1;
        let ask = good(&gateway, &format!("other-{number}"));
        let gateway = &gateway;
        async move {
            ask.send().await.refusal(503, "identity_unavailable");
            gateway.get("/free/echo").send().await.expect(200);
            (outcomes(gateway, "breaker_open").await > 0.0).then_some(())
        }
    })
    .await;
    service.becomes(Mode::Knows(""));
    eventually(LONG, "the service is asked again by itself", || async {
        let answer = good(&gateway, "ada").send().await;
        assert!([200, 503].contains(&answer.status), "{answer:?}");
        (answer.status == 200).then_some(())
    })
    .await;
    let checks = gateway.stdout();
    assert!(
        checks.contains("external_timed_out") && checks.contains("external_breaker_open"),
        "{checks}"
    );
}

#[tokio::test]
async fn a_service_that_is_gone_lets_nobody_in() {
    let (_fleet, service, gateway) = start("cache: { ttl: 1h }").await;
    good(&gateway, "ada").send().await.expect(200);
    service.kill().await;
    for name in ["eve", "bob", "eve"] {
        good(&gateway, name).send().await.refusal(503, "identity_unavailable");
        let either = gateway.get("/either/echo").bearer(&format!("good-{name}"));
        either.send().await.refusal(503, "identity_unavailable");
    }
    // What was known before holds for its time.
    good(&gateway, "ada").send().await.expect(200);
    let status = gateway.admin_json("/api/v1/status").await;
    assert!(status["external"]["last_failure"]["outcome"].is_string(), "{status:#}");
}

#[tokio::test]
async fn answers_that_are_wrong_in_any_way_let_nobody_in() {
    let (_fleet, service, gateway) = start("cache: { ttl: 1h }, breaker: off, retry: off").await;
    let no_tier =
        "HTTP/1.1 200 OK\r\ncontent-length: 46\r\n\r\n{\"tenant\":\"a\",\"subject\":\"b\",\"tier\":\"platinum\"}";
    let bad = [
        (
            Mode::Raw("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>"),
            "invalid",
        ),
        (Mode::Raw("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"), "invalid"),
        (Mode::Raw("HTTP/1.1 204 No Content\r\n\r\n"), "status"),
        (Mode::Raw(no_tier), "invalid"),
        (Mode::Huge, "invalid"),
        (Mode::Raw("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n"), "status"),
        (Mode::Raw("SSH-2.0-OpenSSH\r\n\r\n"), "broken"),
    ];
    for (number, (mode, outcome)) in bad.into_iter().enumerate() {
        service.becomes(mode);
        let before = outcomes(&gateway, outcome).await;
        let refused = good(&gateway, &format!("number-{number}")).send().await;
        refused.refusal(503, "identity_unavailable");
        assert_eq!(outcomes(&gateway, outcome).await, before + 1.0, "{mode:?}");
    }
    assert!(
        gateway.log().contains("there is no tier `platinum`"),
        "{}",
        gateway.log()
    );
    // Nothing of it was stored.
    service.becomes(Mode::Knows(""));
    good(&gateway, "number-0").send().await.expect(200);
}

#[tokio::test]
async fn a_redirect_is_neither_followed_nor_passed_on() {
    let (_fleet, service, gateway) = start("").await;
    service.becomes(Mode::Raw(
        "HTTP/1.1 302 Found\r\nlocation: /login\r\nset-cookie: a=b\r\ncontent-length: 0\r\n\r\n",
    ));
    let refused = good(&gateway, "ada").send().await;
    refused.refusal(503, "identity_unavailable");
    assert_eq!((refused.header("location"), refused.header("set-cookie")), (None, None));
    assert_eq!(service.questions(), 1);
}

#[tokio::test]
async fn cache_control_of_the_service_is_heeded() {
    let (_fleet, service, gateway) = start("cache: { ttl: 1h, refused: 1h }").await;
    let check = async |lines: &'static str, credential: &str, status: u16, expected: usize| {
        service.becomes(Mode::Knows(lines));
        let before = service.questions();
        for _ in 0..3 {
            let answer = gateway.get("/in/echo").bearer(credential).send().await;
            assert_eq!(answer.status, status, "{answer:?}");
        }
        assert_eq!(service.questions() - before, expected, "{lines} {credential}");
    };
    check("cache-control: no-store\r\n", "good-a", 200, 3).await;
    check("cache-control: max-age=0\r\n", "good-b", 200, 3).await;
    check("cache-control: no-cache\r\n", "bad-c", 401, 3).await;
    check("cache-control: private, max-age=3600\r\n", "good-d", 200, 1).await;
    check("", "good-e", 200, 1).await;
    check("", "bad-f", 401, 1).await;
}

#[tokio::test]
async fn an_old_answer_is_used_while_the_service_fails_only_where_it_is_written() {
    let (_fleet, service, gateway) = start("cache: { ttl: 1s, stale_if_error: 1h }").await;
    good(&gateway, "ada").send().await.expect(200);
    service.kill().await;
    eventually(LONG, "the answer gets old", || async {
        good(&gateway, "ada").send().await.expect(200);
        (lookups(&gateway, "stale").await > 0.0).then_some(())
    })
    .await;
    good(&gateway, "eve").send().await.refusal(503, "identity_unavailable");
}

#[tokio::test]
async fn a_reload_keeps_the_answers_unless_the_questions_change() {
    let (fleet, service, gateway) = start("cache: { ttl: 1h }").await;
    let api = fleet.backend("api");
    good(&gateway, "ada").send().await.expect(200);
    let other_time = config(&api, service.address, "cache: { ttl: 2h }, time_limit: 3s");
    gateway.reload(other_time.to_string()).await;
    good(&gateway, "ada").send().await.expect(200);
    assert_eq!(service.questions(), 1);
    let other_fields = config(
        &api,
        service.address,
        "cache: { ttl: 1h }, fields: [authorization, x-org]",
    );
    gateway.reload(other_fields.to_string()).await;
    good(&gateway, "ada").send().await.expect(200);
    assert_eq!(service.questions(), 2);
    // Another value of any field is another question.
    good(&gateway, "ada").header("x-org", "a").send().await.expect(200);
    good(&gateway, "ada").header("x-org", "b").send().await.expect(200);
    assert_eq!(service.questions(), 4);
}

#[tokio::test]
async fn answers_can_be_forgotten_and_callers_revoked() {
    let (_fleet, service, gateway) = start("cache: { ttl: 1h }").await;
    let admin = Client::to(gateway.admin_address());
    good(&gateway, "ada").send().await.expect(200);
    admin.post("/api/v1/external/purge").send().await.expect(401);
    let purged = admin
        .post("/api/v1/external/purge")
        .bearer(TOKEN)
        .send()
        .await
        .expect(200);
    assert_eq!(purged.json(), json!({ "purged": 1 }));
    good(&gateway, "ada").send().await.expect(200);
    assert_eq!(service.questions(), 2);
    let revoke = admin.post("/api/v1/revocations").bearer(TOKEN);
    let revoked = revoke.body(json!({ "subject": "ada" }).to_string()).send().await;
    assert!([200, 201].contains(&revoked.status), "{revoked:?}");
    good(&gateway, "ada").send().await.refusal(401, "credentials_invalid");
    good(&gateway, "eve").send().await.expect(200);
}

#[tokio::test]
async fn the_request_can_be_told_of_and_is_then_part_of_the_question() {
    let (_fleet, service, gateway) = start("request: [method, host, path, client_address]").await;
    let forged = good(&gateway, "ada")
        .header("x-forwarded-uri", "/forged")
        .header("host", "shop.test");
    forged.send().await.expect(200);
    let head = service.last_head();
    for line in [
        "x-forwarded-method: get\r\n",
        "x-forwarded-host: shop.test\r\n",
        "x-forwarded-uri: /in/echo\r\n",
        "x-forwarded-for: 127.0.0.1\r\n",
    ] {
        assert!(head.contains(line), "{line} in {head}");
    }
    assert!(!head.contains("forged"), "{head}");
    let other_method = gateway
        .client()
        .ask(Method::PUT, "/in/echo")
        .header("host", "shop.test");
    other_method.bearer("good-ada").send().await.expect(200);
    assert_eq!(service.questions(), 2);
    let other_path = gateway.get("/in/status/200").header("host", "shop.test");
    other_path.bearer("good-ada").send().await;
    assert_eq!(service.questions(), 3);
}

#[tokio::test]
async fn callers_over_http2_are_asked_about_alike() {
    let (_fleet, service, gateway) = start("").await;
    let caller = Http2::connect(gateway.address()).await;
    for (credential, status) in [("Bearer good-ada", 200), ("Bearer good-ada", 200), ("Bearer bad", 401)] {
        let mut request = caller.request(Method::GET, "/in/echo");
        let value = HeaderValue::from_static(credential);
        request.headers_mut().insert("authorization", value);
        let answer = caller
            .send(request, true)
            .await
            .expect("a stream is free")
            .whole()
            .await
            .expect("an answer");
        assert_eq!(answer.status, status, "{credential}");
    }
    assert_eq!(service.questions(), 2);
}

#[tokio::test]
async fn explain_tells_that_the_service_would_be_asked() {
    let (_fleet, service, gateway) = start("cache: { ttl: 1h }").await;
    let explain = async || -> Value {
        let ask = Client::to(gateway.admin_address())
            .post("/api/v1/explain")
            .bearer(TOKEN);
        let question = json!({ "url": "/in/echo", "headers": ["authorization: Bearer good-ada"] });
        ask.body(question.to_string()).send().await.expect(200).json()
    };
    let unknown = explain().await;
    assert!(
        unknown.to_string().contains("the external service would be asked"),
        "{unknown:#}"
    );
    assert_eq!(service.questions(), 0);
    good(&gateway, "ada").send().await.expect(200);
    let known = explain().await;
    assert!(known.to_string().contains("by the external service"), "{known:#}");
    assert_eq!(service.questions(), 1);
}

#[tokio::test]
async fn a_caller_that_leaves_ends_the_question_for_nobody_else() {
    let (_fleet, service, gateway) = start("time_limit: 60s").await;
    service.becomes(Mode::Held);
    let asked = Arc::new(AtomicUsize::new(0));
    let leaving = tokio::spawn({
        let (ask, asked) = (good(&gateway, "ada"), Arc::clone(&asked));
        async move {
            let _ = ask.send().await;
            asked.fetch_add(1, Relaxed);
        }
    });
    eventually(SOON, "the service is asked", || async {
        (service.questions() == 1).then_some(())
    })
    .await;
    let staying = tokio::spawn(gateway.another_client().get("/in/echo").bearer("good-ada").send());
    gateway
        .metric_becomes("gateway_external_lookups_total", &[("result", "joined")], 1.0)
        .await;
    leaving.abort();
    let _ = leaving.await;
    // One that allows itself little time fails alone.
    let hasty = good(&gateway, "ada").header("x-request-timeout-ms", "50").send().await;
    hasty.refusal(504, "out_of_time");
    service.let_go();
    staying.await.expect("it does not panic").expect(200);
    assert_eq!((service.questions(), asked.load(Relaxed)), (1, 0));
}

#[tokio::test]
async fn check_names_mistakes() {
    let setup = Setup::new(
        r#"
listeners: { public: { address: "127.0.0.1:0" } }
callers: { external: { url: "ftp://id.test/verify", fields: [host], cache: { ttl: 0s } } }
routes: { a: { match: { path: /a }, access: { any_of: [externl] }, respond: { status: 204 } } }
"#,
    );
    let checked = cli(&["check", "-c", "gateway.yaml"], &setup);
    assert_eq!(checked.code, Some(78), "{checked:?}");
    for told in [
        "is neither `http` nor `https`",
        "cannot have `host`",
        "callers.external.cache.ttl",
        "did you mean `external`?",
    ] {
        assert!(checked.stderr.contains(told), "{told} in {}", checked.stderr);
    }
}

#[tokio::test]
async fn one_cookie_of_many_is_the_credential() {
    let (_fleet, service, gateway) = start("fields: [authorization, cookie.sid]").await;
    let ask = |cookies: &str| good(&gateway, "ada").header("cookie", cookies);
    let answer = ask("seen=1; sid=x; theme=dark").send().await.expect(200);
    assert_eq!(answer.echoed("cookie").as_deref(), Some("seen=1; theme=dark"));
    let head = service.last_head();
    assert!(head.contains("cookie: sid=x\r\n") && !head.contains("seen"), "{head}");
    let answer = ask("sid=x; seen=2").send().await.expect(200);
    assert_eq!(answer.echoed("cookie").as_deref(), Some("seen=2"));
    assert_eq!(service.questions(), 1);
    ask("sid=y").send().await.expect(200);
    assert_eq!(service.questions(), 2);
    ask("sid=x; sid=y").send().await.refusal(401, "credentials_invalid");
    assert_eq!(service.questions(), 2);
}

//! Checks that another process takes over without a failed request or a forgotten count, and that the old one serves on
//! whatever fails before.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use fixtures::fleet::Behaviour;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tests::configs::{Config, UNGUARDED};
use tests::crowd::steadily;
use tests::http2_caller::Http2;
use tests::{Client, Raw, Setup, Signal, cli, eventually, within};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::{accept_async, client_async};

use crate::{SOON, one_backend};

const SOCKET: &str = "run.sock";
const DONE: Option<i32> = Some(0);

/// Tier of three tokens that come back too late for a test.
const THREE: &str = "
listeners: { public: { address: \"127.0.0.1:0\" } }
admin: { address: \"127.0.0.1:0\" }
tiers: { three: { rate: 1/h, burst: 3 } }
callers: { anonymous: { by: client_address, tier: three } }
";

fn setup(config: &Config) -> Setup {
    Setup::new(config.to_string()).option("--take-over").option(SOCKET)
}

/// Tier with a quota, counted in a file.
const QUOTA: &str = "
listeners: { public: { address: \"127.0.0.1:0\" } }
admin: { address: \"127.0.0.1:0\" }
state_file: counts
tiers: { four: { rate: 1000000/s, burst: 1000000, quotas: { monthly: { limit: 4, every: month } } } }
callers: { anonymous: { by: client_address, tier: four } }
";

/// A route that is answered without a backend.
fn answered(config: Config) -> Config {
    config.route(
        "fixed",
        "{ match: { path: /fixed }, access: { any_of: [anonymous] }, respond: { status: 200, body: \"fixed\" } }",
    )
}

async fn status(client: &Client) -> u16 {
    client.get("/fixed").send().await.status
}

#[tokio::test]
async fn the_first_process_begins_and_the_next_takes_its_place() {
    let setup = setup(&answered(Config::default()));
    let mut gateway = setup.clone().start().await;
    let (address, admin) = (gateway.address(), gateway.admin_address());
    assert!(gateway.path(SOCKET).exists());
    for _ in 0..3 {
        let mut past = gateway.replace(&setup).await;
        assert_eq!(past.wait_exit().await, DONE);
        assert_eq!((gateway.address(), gateway.admin_address()), (address, admin));
        assert_eq!(
            gateway.served_by(),
            Some(gateway.pid()),
            "the old process leaves the ready file"
        );
        assert_eq!(status(&gateway.another_client()).await, 200);
        assert_eq!(gateway.admin("/readyz").send().await.status, 200);
    }
    gateway.signal(Signal::Term);
    assert_eq!(gateway.wait_exit().await, DONE);
    assert!(!gateway.path(SOCKET).exists());
}

#[tokio::test]
async fn a_socket_of_a_killed_process_is_nobodys() {
    let setup = setup(&answered(Config::default()));
    let mut gateway = setup.clone().start().await;
    gateway.signal(Signal::Kill);
    assert_eq!(gateway.wait_exit().await, None);
    assert!(gateway.path(SOCKET).exists());
    gateway.replace(&setup).await;
    let ready = std::fs::read_to_string(gateway.path("ready.json")).expect("it serves");
    let ready: Value = serde_json::from_str(&ready).expect("JSON");
    let address = ready["listeners"]["public"].as_str().expect("it is served");
    assert_eq!(status(&Client::to(address.parse().expect("an address"))).await, 200);
    assert!(UnixStream::connect(gateway.path(SOCKET)).is_ok());
}

/// Sends requests one after the other over HTTP/2 until the end, and counts them. Connects again where the gateway
/// says that it has not processed a request because it ends the connection.
async fn over_http2(address: SocketAddr, count: &AtomicUsize, end: &AtomicBool) {
    let mut caller = Http2::connect(address).await;
    while !end.load(Relaxed) {
        match caller.get("/api/echo").await {
            Ok(whole) => {
                assert_eq!(whole.status, 200, "{whole:?}");
                count.fetch_add(1, Relaxed);
            }
            Err(error) if error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR) => {
                caller = Http2::connect(address).await;
            }
            Err(error) => panic!("after {count:?} requests: {error:?}"),
        }
    }
}

/// Sends requests one after the other over kept-alive connections until the end, and counts them.
async fn over_http1(client: Client, count: &AtomicUsize, end: &AtomicBool) {
    while !end.load(Relaxed) {
        client.get("/api/echo").send().await.expect(200);
        count.fetch_add(1, Relaxed);
    }
}

/// Serves WebSockets that send back what they get.
async fn echoes() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(mut socket) = accept_async(stream).await else {
                    return;
                };
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_text() && socket.send(message).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_traffic_nothing_fails() {
    let (_fleet, api) = one_backend("api").await;
    let sockets = echoes().await;
    let config = |workers: usize| {
        Config::default()
            .top(format!("workers: {workers}\ntime_limits: {{ drain: 60s }}"))
            .open("api", api.address(), UNGUARDED)
            .backend("sockets", sockets, UNGUARDED)
            .open_route("sockets", "sockets", "upgrade: websocket")
    };
    let mut gateway = setup(&config(2)).start().await;
    let address = gateway.address();
    let stream = TcpStream::connect(address).await.expect("it listens");
    let request = format!("ws://{address}/sockets/a").into_client_request();
    let (mut talk, _) = client_async(request.expect("a request"), stream)
        .await
        .expect("it is opened");
    let (end, mut past) = (AtomicBool::new(false), Vec::new());
    let counts: [AtomicUsize; 3] = Default::default();
    let [fresh, kept, over_two] = &counts;
    let replacing = async {
        // Fewer workers than sockets, and more.
        for workers in [1, 3, 1, 2] {
            gateway.rewrite_config(config(workers).to_string());
            past.push(gateway.replace(&setup(&config(workers))).await);
            talk.send(Message::text("still there?")).await.expect("it is open");
            let told = within(SOON, "the first process passes it on", talk.next()).await;
            assert!(matches!(told, Some(Ok(message)) if message.is_text()));
            let before = counts.each_ref().map(|count| count.load(Relaxed));
            eventually(SOON, "all go on", || async {
                let mut counts = counts.iter().zip(before);
                counts
                    .all(|(count, before)| count.load(Relaxed) > before + 5)
                    .then_some(())
            })
            .await;
        }
        end.store(true, Relaxed);
    };
    // A connection for each request, beside connections that are kept.
    let ask = || {
        fresh.fetch_add(1, Relaxed);
        Client::to(address).get("/api/echo")
    };
    let ((tally, ()), (), ()) = tokio::join!(
        steadily(200, ask, replacing),
        over_http1(Client::to(address), kept, &end),
        over_http2(address, over_two, &end)
    );
    assert!(tally.failures().is_empty(), "{:?}", tally.failures());
    tally.all(200);
    talk.close(None).await.expect("it is open");
    for mut past in past {
        assert_eq!(past.wait_exit().await, DONE);
    }
}

#[tokio::test]
async fn a_drained_bucket_stays_drained() {
    let setup = setup(&answered(Config::with(THREE)));
    let mut gateway = setup.clone().start().await;
    for expected in [200, 200, 200, 429] {
        assert_eq!(status(&gateway.client()).await, expected);
    }
    for _ in 0..2 {
        let mut past = gateway.replace(&setup).await;
        assert_eq!(status(&gateway.another_client()).await, 429);
        past.wait_exit().await;
        assert_eq!(status(&gateway.another_client()).await, 429);
    }
}

/// Sends a request that no limit counts; returns the head of the answer in lower case.
async fn free(connection: &mut Raw) -> String {
    connection.send("GET /free HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let head = connection.head().await.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200"), "{head}");
    connection.take("free".len()).await;
    head
}

#[tokio::test]
async fn a_request_of_an_old_connection_counts_in_the_new_process() {
    for kind in ["rate: 1/h, burst: 2", "rate: 2/h, kind: sliding_window"] {
        let config = Config::default().route(
            "fixed",
            &format!(
                "{{ match: {{ path: /fixed }}, access: {{ any_of: [anonymous] }}, \
                 limits: {{ two: {{ {kind}, per: client_address }} }}, respond: {{ status: 200, body: \"fixed\" }} }}"
            ),
        );
        let config = config.route(
            "free",
            "{ match: { path: /free }, access: { any_of: [anonymous] }, respond: { status: 200, body: free } }",
        );
        let setup = setup(&config);
        let mut gateway = setup.clone().start().await;
        let mut old = gateway.connect().await;
        old.send("GET /fixed HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(old.head().await.starts_with("HTTP/1.1 200"));
        old.take("fixed".len()).await;
        // The head is complete only after the hand-over, and is charged then.
        old.send("GET /fixed HTTP/1.1\r\n").await;
        let mut other = gateway.connect().await;
        free(&mut other).await;
        let mut past = gateway.replace(&setup).await;
        // Another connection tells when the old process drains.
        while !free(&mut other).await.contains("connection: close") {}
        old.send("host: a\r\n\r\n").await;
        let head = old.head().await.to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 200"), "{kind}: {head}");
        assert!(head.contains("connection: close"), "by the old process: {kind}: {head}");
        assert_eq!(past.wait_exit().await, DONE);
        eventually(SOON, "the new process has heard all", || async {
            gateway.log().contains("the process before has ended").then_some(())
        })
        .await;
        assert_eq!(status(&gateway.another_client()).await, 429, "{kind}");
    }
}

#[tokio::test]
async fn the_state_file_has_one_owner_and_its_counts_go_on() {
    let config = answered(Config::with(QUOTA));
    let setup = setup(&config);
    let mut gateway = setup.clone().start().await;
    assert_eq!(status(&gateway.client()).await, 200);
    assert_eq!(status(&gateway.client()).await, 200);
    let mut past = gateway.replace(&setup).await;
    assert_eq!(past.wait_exit().await, DONE);
    assert_eq!(status(&gateway.another_client()).await, 200);
    // The lock went over too: nobody else can count in the file.
    let mut other = gateway.beside(&Setup::new(config.to_string()));
    assert_eq!(other.wait_exit().await, Some(1));
    gateway.signal(Signal::Term);
    assert_eq!(gateway.wait_exit().await, DONE);
    gateway.replace(&setup).await;
    let address = gateway.address();
    assert_eq!(status(&Client::to(address)).await, 200);
    assert_eq!(status(&Client::to(address)).await, 429);
}

#[tokio::test]
async fn an_open_breaker_stays_open() {
    let (_fleet, api) = one_backend("api").await;
    let guards = "retry: off, breaker: { window: 60s, min_calls: 3, failure_ratio: 0.6, open_for: 1h, probes: 1 }";
    let setup = setup(&Config::default().open("api", api.address(), guards));
    let mut gateway = setup.clone().start().await;
    api.next([(); 3].map(|()| Behaviour::status(500)));
    for _ in 0..3 {
        gateway.get("/api/echo").send().await.expect(500);
    }
    gateway.get("/api/echo").send().await.refusal(503, "breaker_open");
    gateway.replace(&setup).await;
    let refused = gateway.another_client().get("/api/echo").send().await;
    refused.refusal(503, "breaker_open");
    assert!(refused.retry_after() > 3500, "{refused:#?}");
    assert_eq!(api.counts().requests, 3);
}

#[tokio::test]
async fn a_bad_config_never_takes_over() {
    let good = answered(Config::with(THREE));
    let setup = setup(&good);
    let mut gateway = setup.clone().start().await;
    assert_eq!(status(&gateway.client()).await, 200);
    gateway.rewrite_config(good.to_string().replace("burst: 3", "brust: 3"));
    let mut bad = gateway.beside(&setup);
    assert_eq!(bad.wait_exit().await, Some(78));
    assert!(gateway.log().contains("has no key `brust`"), "{}", gateway.log());
    eventually(SOON, "the old process says why it serves on", || async {
        gateway.log().contains("its config has mistakes").then_some(())
    })
    .await;
    gateway.rewrite_config(
        good.to_string()
            .replace("127.0.0.1:0\" } }\nadmin", "192.0.2.1:1\" } }\nadmin"),
    );
    let mut bad = gateway.beside(&setup);
    assert_eq!(bad.wait_exit().await, Some(1), "an address that is not of this machine");
    assert_eq!(gateway.served_by(), Some(gateway.pid()));
    assert_eq!(status(&gateway.client()).await, 200);
    gateway.rewrite_config(good.to_string());
    gateway.replace(&setup).await;
    let another = gateway.another_client();
    assert_eq!((status(&another).await, status(&another).await), (200, 429));
}

#[tokio::test]
async fn listeners_come_and_go() {
    let two = "
listeners: { public: { address: \"127.0.0.1:0\" }, other: { address: \"127.0.0.1:0\" } }
admin: { address: \"127.0.0.1:0\" }
tiers: { open: { rate: 1000000/s, burst: 1000000 } }
callers: { anonymous: { by: client_address, tier: open } }
";
    let (one, two) = (answered(Config::default()), answered(Config::with(two)));
    let mut gateway = setup(&two).start().await;
    let (public, gone) = (gateway.address(), gateway.address_of("other"));
    gateway.rewrite_config(one.to_string());
    gateway.replace(&setup(&one)).await.wait_exit().await;
    assert!(TcpStream::connect(gone).await.is_err());
    assert_eq!(status(&Client::to(public)).await, 200);
    gateway.rewrite_config(two.to_string());
    gateway.replace(&setup(&two)).await;
    assert_eq!(gateway.address(), public);
    assert_eq!(status(&Client::to(gateway.address_of("other"))).await, 200);
}

/// The other side of the hand-over socket, written by hand.
struct Stranger(UnixStream);

impl Stranger {
    fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).expect("the gateway answers");
        stream.set_read_timeout(Some(SOON)).expect("a socket takes options");
        Self(stream)
    }

    fn send(&mut self, kind: &str, body: &Value) {
        let body = body.to_string();
        let length = u32::try_from(1 + kind.len() + body.len()).expect("it is short");
        let mut frame = length.to_be_bytes().to_vec();
        frame.push(u8::try_from(kind.len()).expect("it is short"));
        frame.extend([kind.as_bytes(), body.as_bytes()].concat());
        self.0.write_all(&frame).expect("it is open");
    }

    fn receive(&mut self) -> (String, Value) {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).expect("a message");
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut frame).expect("a whole message");
        let (kind, body) = frame[1..].split_at(usize::from(frame[0]));
        let body = serde_json::from_slice(body).expect("JSON");
        (String::from_utf8(kind.to_vec()).expect("a word"), body)
    }

    /// Reads messages until one of this kind.
    fn until(&mut self, kind: &str) -> Value {
        loop {
            let (found, body) = self.receive();
            if found == kind {
                return body;
            }
            assert_ne!(found, "refused", "{body}");
        }
    }

    fn hello(&mut self) {
        self.send("hello", &json!({ "protocols": [1], "version": "0.0.0", "pid": 1 }));
        self.until("welcome");
    }

    /// Asks for the sockets; returns what was announced. The descriptors are not taken.
    fn prepare(&mut self) -> Value {
        self.send("prepared", &json!({}));
        let sockets = self.until("sockets");
        // A byte for each piece of descriptors, of which there are few here.
        self.0.read_exact(&mut [0]).expect("descriptors");
        sockets
    }
}

#[tokio::test]
async fn a_process_that_dies_at_any_step_leaves_the_old_one_serving() {
    let setup = setup(&answered(Config::with(THREE)));
    let mut gateway = setup.clone().start().await;
    assert_eq!(status(&gateway.client()).await, 200);
    let path = gateway.path(SOCKET);
    for step in 0..4 {
        let mut dying = Stranger::connect(&path);
        if step > 0 {
            dying.hello();
        }
        if step > 1 {
            let sockets = dying.prepare();
            assert_eq!(sockets["listeners"][0]["name"], "public", "{sockets}");
        }
        if step > 2 {
            dying.send("ready", &json!({ "listeners": [true] }));
            dying.until("end");
        }
        drop(dying);
        let answered = format!("after step {step}");
        let fresh = gateway.another_client();
        let answer = fresh.get("/fixed").send().await;
        assert!(answer.header("ratelimit").is_some(), "{answered}");
        assert_eq!(gateway.admin("/readyz").send().await.status, 200, "{answered}");
    }
    // One token was taken, and four times one that was there or not.
    assert_eq!(status(&gateway.client()).await, 429);
    gateway.replace(&setup).await;
    assert_eq!(status(&gateway.another_client()).await, 429);
}

#[tokio::test]
async fn what_is_no_message_changes_nothing() {
    let setup = setup(&answered(Config::default()));
    let mut gateway = setup.clone().start().await;
    let path = gateway.path(SOCKET);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).expect("it is there").permissions());
    assert_eq!(mode & 0o777, 0o600);
    for garbage in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0xff; 100],
        vec![0; 100],
        b"\0\0\0\x05\x09hell".to_vec(),
        b"\0\0\0\x08\x05hello{]".to_vec(),
    ] {
        let mut stranger = Stranger::connect(&path);
        stranger.0.write_all(&garbage).expect("it is open");
        let (kind, body) = stranger.receive();
        assert_eq!(kind, "refused", "{garbage:?}: {body}");
        let mut rest = Vec::new();
        let _ = stranger.0.read_to_end(&mut rest);
        assert!(rest.is_empty(), "{garbage:?}");
    }
    let mut newer = Stranger::connect(&path);
    newer.send(
        "hello",
        &json!({ "protocols": [2, 3], "version": "9.0.0", "pid": 1, "unheard": "of" }),
    );
    let (kind, body) = newer.receive();
    assert!(
        kind == "refused" && body["why"].as_str().is_some_and(|why| why.contains("[2, 3]")),
        "{body}"
    );
    let mut hasty = Stranger::connect(&path);
    hasty.hello();
    hasty.send("serving", &json!({}));
    assert_eq!(hasty.receive().0, "refused");
    assert_eq!(status(&gateway.client()).await, 200);
    gateway.replace(&setup).await;
    assert_eq!(status(&gateway.another_client()).await, 200);
}

#[tokio::test]
async fn a_kill_of_the_old_process_leaves_the_new_one_serving() {
    let setup = setup(&answered(Config::default()));
    let mut gateway = setup.clone().start().await;
    let mut held = gateway.connect().await;
    held.send("GET /fixed HTTP/1.1\r\n").await;
    let mut past = gateway.replace(&setup).await;
    assert!(past.is_running(), "a request is on its way");
    past.signal(Signal::Kill);
    assert_eq!(past.wait_exit().await, None);
    assert_eq!(status(&gateway.another_client()).await, 200);
    gateway.replace(&setup).await.wait_exit().await;
    assert_eq!(status(&gateway.another_client()).await, 200);
}

#[tokio::test]
async fn a_signal_starts_the_binary_that_takes_over() {
    let setup = setup(&answered(Config::default()));
    let mut gateway = setup.clone().start().await;
    let old = gateway.pid();
    gateway.signal(Signal::Usr2);
    let new = eventually(SOON, "another process serves", || async {
        gateway.served_by().filter(|pid| *pid != old)
    })
    .await;
    assert_eq!(gateway.wait_exit().await, DONE);
    let served = status(&gateway.another_client()).await;
    Signal::Term.send(new);
    assert_eq!(served, 200);
    eventually(SOON, "the new process ends", || async {
        (!gateway.path(SOCKET).exists()).then_some(())
    })
    .await;
}

/// Messages to a service manager.
struct Manager(UnixDatagram);

impl Manager {
    fn listen(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).expect("the folder takes files");
        socket.set_read_timeout(Some(SOON)).expect("a socket takes options");
        Self(socket)
    }

    /// Returns the next message but those to the watchdog.
    fn next(&self) -> String {
        loop {
            let mut bytes = [0; 4096];
            let length = self.0.recv(&mut bytes).expect("a message");
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            if text != "WATCHDOG=1\n" {
                return text;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_manager_hears_of_everything() {
    let folder = tempfile::tempdir().expect("there is room");
    let path = folder.path().join("notify");
    let manager = Manager::listen(&path);
    let setup = setup(&answered(Config::default()))
        .variable("NOTIFY_SOCKET", path.to_str().expect("it is UTF-8"))
        .variable("WATCHDOG_USEC", "200000");
    let mut gateway = setup.clone().start().await;
    assert!(manager.next().starts_with("READY=1\n"));
    let mut bytes = [0; 4096];
    let length = manager
        .0
        .recv(&mut bytes)
        .expect("the watchdog is told again and again");
    assert_eq!(&bytes[..length], b"WATCHDOG=1\n");
    gateway.signal(Signal::Hup);
    let reloading = manager.next();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert!(manager.next().starts_with("READY=1\nSTATUS=serving\n"));
    let mut past = gateway.replace(&setup).await;
    let taken = manager.next();
    assert!(
        taken.starts_with(&format!("MAINPID={}\nREADY=1\n", gateway.pid())),
        "{taken}"
    );
    assert_eq!(past.wait_exit().await, DONE);
    gateway.signal(Signal::Term);
    let stopping = manager.next();
    assert!(
        stopping.starts_with("STOPPING=1\n"),
        "the old process says nothing: {stopping}"
    );
    assert_eq!(gateway.wait_exit().await, DONE);
}

#[tokio::test]
async fn a_socket_of_the_service_manager_is_served_and_passed_on() {
    let passed = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = passed.local_addr().expect("it is bound");
    let config = answered(Config::default().top("workers: 2"));
    let activated = setup(&config).socket("public", passed);
    let mut gateway = activated.start().await;
    assert_eq!(gateway.address(), address);
    assert_eq!(status(&gateway.client()).await, 200);
    gateway.replace(&setup(&config)).await;
    assert_eq!(gateway.address(), address);
    assert_eq!(status(&gateway.another_client()).await, 200);
}

#[tokio::test]
async fn a_socket_that_no_listener_wants_is_a_mistake() {
    let passed = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let setup = Setup::new(answered(Config::default()).to_string()).socket("nobody", passed);
    let refused = cli(&["run", "-c", "gateway.yaml"], &setup);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("(nobody)"), "{}", refused.stderr);
}

//! Checks that a caller's certificate, and the connection that was made with it, count only while an authority of the
//! current config vouches for the certificate.

use std::io::ErrorKind;
use std::net::SocketAddr;

use fixtures::fleet::{Fleet, Handle};
use h2::client::Builder;
use tests::configs::{Config, UNGUARDED};
use tests::http2_caller::Http2;
use tests::tls::{Authority, Issued, Tls};
use tests::{Client, Gateway, Setup, eventually, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;

use crate::{SOON, one_backend};

const TOP: &str = r#"
listeners:
  public: { address: "127.0.0.1:0" }
  mesh: { address: "127.0.0.1:0", tls: { certificates: [{ cert_file: edge.pem, key_file: edge.key }], client_ca_file: ca.pem, client: optional } }
admin: { address: "127.0.0.1:0" }
tiers: { open: { rate: 1000000/s, burst: 1000000 } }
default_tier: open
callers:
  anonymous: { by: client_address }
  mtls: { identities: [{ dns: "*.acme.test", tenant: acme }] }
"#;

struct Scene {
    _fleet: Fleet,
    api: Handle,
    gateway: Gateway,
    public: Authority,
    /// Vouches for callers until it is taken out.
    old: Authority,
    /// Stays.
    new: Authority,
    config: String,
}

impl Scene {
    async fn start() -> Self {
        let (fleet, api) = one_backend("api").await;
        let (public, old, new) = (
            Authority::new("public"),
            Authority::new("callers"),
            Authority::new("others"),
        );
        let edge = public.issue(&["edge.test"]);
        let mtls = "access: { any_of: [mtls] }";
        let config = Config::with(TOP)
            .backend("api", api.address(), UNGUARDED)
            .backend("chat", chat().await, "")
            .mapped("cert", "api", mtls)
            .mapped("open", "api", "access: { any_of: [anonymous] }")
            .mapped("ws", "chat", &format!("{mtls}, upgrade: websocket"))
            .to_string();
        let gateway = Setup::new(&config)
            .file("edge.pem", &edge.cert_pem)
            .file("edge.key", &edge.key_pem)
            .file("ca.pem", old.pem() + &new.pem())
            .start()
            .await;
        Self {
            _fleet: fleet,
            api,
            gateway,
            public,
            old,
            new,
            config,
        }
    }

    fn tls(&self, own: &Issued) -> Tls {
        Tls::showing(&self.public, "edge.test", own)
    }

    async fn stream(&self, by: &Authority) -> TlsStream<TcpStream> {
        let tls = self.tls(&by.issue(&["a.acme.test"]));
        let connected = tls.connect(self.gateway.address_of("mesh")).await;
        connected.expect("hands are shaken")
    }

    fn client(&self, by: &Authority) -> Client {
        let tls = self.tls(&by.issue(&["a.acme.test"]));
        Client::over_tls(self.gateway.address_of("mesh"), tls)
    }

    async fn trust(&self, authorities: &str) {
        std::fs::write(self.gateway.path("ca.pem"), authorities).expect("the folder takes files");
        self.gateway.reload(&self.config).await;
    }

    async fn handshakes(&self) -> f64 {
        let labels = [("outcome", "full")];
        self.gateway.metric("gateway_tls_handshakes_total", &labels).await
    }
}

/// A backend that agrees to every WebSocket, and then says nothing.
async fn chat() -> SocketAddr {
    use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = vec![0; 4096];
                let length = stream.read(&mut head).await.unwrap_or_default();
                let head = String::from_utf8_lossy(&head[..length]).into_owned();
                let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: "));
                let proof = derive_accept_key(key.unwrap_or_default().as_bytes());
                let answer = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                     sec-websocket-accept: {proof}\r\n\r\n"
                );
                let _ = stream.write_all(answer.as_bytes()).await;
                while stream.read(&mut [0; 64]).await.is_ok_and(|count| count > 0) {}
            });
        }
    });
    address
}

async fn ask(stream: &mut TlsStream<TcpStream>, target: &str, more: &str) -> String {
    let request = format!("GET {target} HTTP/1.1\r\nhost: edge.test\r\n{more}\r\n");
    stream.write_all(request.as_bytes()).await.expect("it is taken");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within(SOON, "a head", stream.read_u8()).await.expect("no end"));
    }
    String::from_utf8(head).expect("it is text")
}

/// All that still comes, up to a proper end.
async fn rest(stream: &mut TlsStream<TcpStream>) -> Vec<u8> {
    let mut rest = Vec::new();
    let read = within(SOON, "the end of the connection", stream.read_to_end(&mut rest)).await;
    read.expect("it says that this is the end");
    rest
}

const WEBSOCKET: &str = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[tokio::test]
async fn connections_end_with_the_authority_that_vouched_for_them() {
    let scene = Scene::start().await;
    let mut idle = scene.stream(&scene.old).await;
    let answer = ask(&mut idle, "/cert/status/204", "").await;
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    let mut unused = scene.stream(&scene.old).await;
    let mut socket = scene.stream(&scene.old).await;
    let answer = ask(&mut socket, "/ws/room", WEBSOCKET).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    let mut events = scene
        .client(&scene.old)
        .get("/cert/sse?events=1000000&every_ms=20")
        .open()
        .await
        .expect("a head");
    assert!(events.piece().await.expect("a piece").is_some());
    let tls = scene.tls(&scene.old.issue(&["a.acme.test"])).offering(&["h2"]);
    let stream = tls
        .connect(scene.gateway.address_of("mesh"))
        .await
        .expect("hands are shaken");
    let http2 = Http2::over(stream, "edge.test".to_owned(), &Builder::new()).await;
    assert_eq!(http2.get("/cert/echo").await.expect("an answer").status, 200);
    scene.api.close_gate();
    let (client, other) = (scene.client(&scene.old), scene.client(&scene.new));
    let under_way = tokio::spawn(client.get("/cert/echo").send());
    let others = tokio::spawn(other.get("/cert/echo").send());
    scene
        .api
        .wait_for(|counts| counts.at_gate == 2, SOON)
        .await
        .expect("they are asked");

    scene.trust(&scene.new.pem()).await;
    assert_eq!(rest(&mut idle).await, b"");
    assert_eq!(rest(&mut unused).await, b"");
    // A close frame with 1001, going away.
    let mut frame = [0; 4];
    let read = within(SOON, "a close frame", socket.read_exact(&mut frame)).await;
    read.expect("a word before the end");
    assert_eq!(frame, [0x88, 0x02, 0x03, 0xe9]);
    drop(socket);
    while within(SOON, "the stream ends", events.piece())
        .await
        .expect("and properly")
        .is_some()
    {}
    let ended = within(SOON, "a farewell", http2.ended()).await;
    // The caller's own GOAWAY may find the connection closed: it was told by then.
    let is_late = |error: &h2::Error| error.get_io().is_some_and(|io| io.kind() == ErrorKind::BrokenPipe);
    assert!(
        ended.as_ref().err().is_none_or(is_late),
        "GOAWAY, not a break: {ended:?}"
    );
    // A request under way ends normally, and no other follows it on the connection.
    scene.api.open_gate();
    let answer = under_way.await.expect("no panic").expect(200);
    assert_eq!(answer.header("connection"), Some("close"));
    let answer = others.await.expect("no panic").expect(200);
    assert_eq!(answer.header("connection"), None);
    scene.gateway.metric_becomes("gateway_connections", &[], 1.0).await;

    // Nobody gets in with it again, and whom the other vouches for has not been asked anew.
    let refused = scene.client(&scene.old).get("/open/echo").try_send().await;
    assert!(refused.is_err(), "{refused:?}");
    let before = scene.handshakes().await;
    other.get("/cert/echo").send().await.expect(200);
    assert_eq!(scene.handshakes().await, before);
    eventually(SOON, "the log says why", || async {
        scene
            .gateway
            .log()
            .contains("no authority of the new config vouches")
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_request_on_such_a_connection_is_refused() {
    let scene = Scene::start().await;
    // Another authority of the same name is another authority.
    let namesake = Authority::new("callers");
    let mut client = scene.stream(&scene.old).await;
    // A head that is on its way holds the connection.
    client
        .write_all(b"GET /cert/echo HTTP/1.1\r\n")
        .await
        .expect("it is taken");
    client.flush().await.expect("it goes out");
    scene.trust(&(namesake.pem() + &scene.new.pem())).await;
    client.write_all(b"host: edge.test\r\n\r\n").await.expect("it is taken");
    let answer = String::from_utf8(rest(&mut client).await).expect("text");
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert!(
        answer.contains("credentials_invalid") && answer.contains("connection: close"),
        "{answer}"
    );
    eventually(SOON, "the log names the check", || async {
        scene.gateway.stdout().contains("certificate_untrusted").then_some(())
    })
    .await;
}

#[tokio::test]
async fn where_nobody_is_asked_any_more_nobody_is_vouched_for() {
    let scene = Scene::start().await;
    let mut idle = scene.stream(&scene.new).await;
    ask(&mut idle, "/cert/status/204", "").await;
    let off = scene
        .config
        .replace("client_ca_file: ca.pem, client: optional", "client: off");
    let off = off.replace("mtls: { identities: [{ dns: \"*.acme.test\", tenant: acme }] }", "");
    let off = off.replace("any_of: [mtls]", "any_of: [anonymous]");
    scene.gateway.reload(&off).await;
    assert_eq!(rest(&mut idle).await, b"");
}

#[tokio::test]
async fn a_reload_that_leaves_the_authorities_alone_ends_nothing() {
    let scene = Scene::start().await;
    let (one, other) = (scene.client(&scene.old), scene.client(&scene.new));
    let both = async || {
        one.get("/cert/echo").send().await.expect(200);
        other.get("/cert/echo").send().await.expect(200);
    };
    both().await;
    let before = scene.handshakes().await;
    let (old, new) = (scene.old.pem(), scene.new.pem());
    let third = Authority::new("third").pem();
    for authorities in [
        old.clone() + &new,
        new.clone() + &old,
        third.clone() + &old + &new,
        new + &old,
    ] {
        scene.trust(&authorities).await;
        both().await;
    }
    assert_eq!(scene.handshakes().await, before);
}

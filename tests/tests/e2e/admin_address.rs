//! Checks the admin address: health probes are answered whatever else is connected, and only permitted callers read or
//! change anything.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use http::Method;
use tests::configs::Config;
use tests::{Client, Gateway, Raw, Setup, cli, eventually};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::SOON;

const TOKEN: &str = "correct-horse-battery-staple";

fn config(admin: &str) -> Config {
    Config::with(format!(
        "listeners: {{ public: {{ address: \"127.0.0.1:0\" }} }}\nadmin: {admin}\n\
         callers: {{ anonymous: {{ by: client_address }} }}\n"
    ))
    .route(
        "fixed",
        "{ match: { path: /fixed }, access: { any_of: [anonymous] }, respond: { status: 204 } }",
    )
}

async fn start(admin: &str) -> Gateway {
    Setup::new(config(admin).to_string())
        .file("admin.token", TOKEN)
        .file("read.token", "battery-staple-correct-horse")
        .start()
        .await
}

/// As many connections as that, each of which has sent so much.
async fn hold(gateway: &Gateway, count: usize, sent: &str) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for _ in 0..count {
        let mut stream = TcpStream::connect(gateway.admin_address()).await.expect("it is taken");
        // A connection that is closed meanwhile does not receive everything.
        let _ = stream.write_all(sent.as_bytes()).await;
        held.push(stream);
    }
    held
}

async fn alive(gateway: &Gateway, what: &str) {
    for path in ["/livez", "/readyz"] {
        let asked = Client::to(gateway.admin_address()).get(path).send();
        let answer = tokio::time::timeout(SOON, asked).await;
        answer
            .unwrap_or_else(|_| panic!("{path} is silent: {what}"))
            .expect(200);
    }
}

#[tokio::test]
async fn probes_are_answered_whatever_else_is_connected() {
    let gateway = start("{ address: \"127.0.0.1:0\", token_file: admin.token }").await;
    let host = "host: localhost\r\n";
    let authorised = format!("{host}authorization: Bearer {TOKEN}\r\n");
    let cases = [
        ("idle", String::new()),
        ("a head that does not end", format!("GET /metrics HTTP/1.1\r\n{host}")),
        (
            "a body that does not come",
            format!("POST /api/v1/revocations HTTP/1.1\r\n{authorised}content-length: 100\r\n\r\n{{"),
        ),
        (
            "answers that are not read",
            format!("GET /metrics HTTP/1.1\r\n{host}\r\n").repeat(100),
        ),
        (
            "event streams that are not read",
            format!("GET /api/v1/events HTTP/1.1\r\n{host}\r\n"),
        ),
        (
            "probes that are not read",
            format!("GET /livez HTTP/1.1\r\n{host}\r\n").repeat(100),
        ),
    ];
    for (what, sent) in &cases {
        let _held = hold(&gateway, 300, sent).await;
        alive(&gateway, what).await;
    }
    let mut all = Vec::new();
    for (_, sent) in &cases {
        all.push(hold(&gateway, 100, sent).await);
    }
    alive(&gateway, "all of it at once").await;
    drop(all);
    // The slots are given back: every request is answered again.
    eventually(SOON, "the page of metrics", || async {
        let asked = Client::to(gateway.admin_address()).get("/metrics").send();
        let answer = tokio::time::timeout(Duration::from_secs(2), asked).await;
        answer.ok().filter(|answer| answer.status == 200).map(drop)
    })
    .await;
}

#[tokio::test]
async fn who_connects_in_peace_is_not_sent_away_for_others() {
    let gateway = start("{ address: \"127.0.0.1:0\" }").await;
    // From another address of this machine.
    let mut scraper = Raw::connect_from([127, 0, 0, 2].into(), gateway.admin_address()).await;
    let mut scrape = async || {
        scraper.send("GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        let head = scraper.head().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(scraper.take(6).await, b"ready\n");
    };
    scrape().await;
    let _crowd = hold(&gateway, 700, "GET / HTTP/1.1\r\n").await;
    scrape().await;
}

#[tokio::test]
async fn probes_can_have_an_address_of_their_own() {
    let gateway = start("{ address: \"127.0.0.1:0\", health_address: \"127.0.0.1:0\" }").await;
    let probes = Client::to(gateway.health_address());
    probes.get("/livez").send().await.expect(200);
    probes.get("/readyz").send().await.expect(200);
    assert_eq!(probes.get("/metrics").send().await.status, 404);
    assert_eq!(probes.ask(Method::POST, "/api/v1/drain").send().await.status, 404);
}

#[tokio::test]
async fn readers_need_the_token_that_the_config_asks_for() {
    let gateway = start("{ address: \"127.0.0.1:0\", token_file: admin.token, read_token_file: read.token }").await;
    let admin = Client::to(gateway.admin_address());
    for path in ["/", "/metrics", "/api/v1/status", "/api/v1/keys"] {
        assert_eq!(admin.get(path).send().await.status, 401, "{path}");
        admin
            .get(path)
            .bearer("battery-staple-correct-horse")
            .send()
            .await
            .expect(200);
        admin.get(path).bearer(TOKEN).send().await.expect(200);
    }
    admin.get("/livez").send().await.expect(200);
    let reload = |token: &str| admin.ask(Method::POST, "/api/v1/reload").bearer(token).send();
    assert_eq!(reload("battery-staple-correct-horse").await.status, 401);
    reload(TOKEN).await.expect(200);
}

/// What `check` doubts about a config whose tokens and key files have these modes.
fn doubts(admin: &str, modes: &[(&str, u32)]) -> String {
    let folder = tempfile::tempdir().expect("there is room");
    let path = folder.path().join("gateway.yaml");
    fs::write(&path, config(admin).to_string()).expect("a folder of ours");
    for (name, token) in [("admin.token", TOKEN), ("read.token", "battery-staple-correct-horse")] {
        fs::write(folder.path().join(name), token).expect("a folder of ours");
        fs::set_permissions(folder.path().join(name), Permissions::from_mode(0o600)).expect("a file of ours");
    }
    for (name, mode) in modes {
        fs::set_permissions(folder.path().join(name), Permissions::from_mode(*mode)).expect("it is ours");
    }
    let told = cli(
        &["check", "-q", "-c", path.to_str().expect("a plain path")],
        &Setup::default(),
    );
    assert_eq!(told.code, Some(0), "{told:?}");
    told.stderr
}

#[test]
fn what_is_open_to_others_is_told() {
    let local = "{ address: \"127.0.0.1:9900\", token_file: admin.token, read_token_file: read.token }";
    let unread = "{ address: \"127.0.0.1:9900\", token_file: admin.token }";
    assert_eq!(doubts(local, &[]), "");
    assert_eq!(doubts(unread, &[]), "");
    assert_eq!(doubts(unread, &[("admin.token", 0o400)]), "");
    let open = "{ address: \"0.0.0.0:9900\", token_file: admin.token }";
    let guarded = "{ address: \"[::]:9900\", token_file: admin.token, read_token_file: read.token }";
    for (admin, modes, says) in [
        (local, &[("admin.token", 0o602)][..], "everyone can write it"),
        (local, &[("admin.token", 0o620)], "its group can write it"),
        (local, &[("admin.token", 0o640)], "its group can read it"),
        (local, &[("read.token", 0o644)], "everyone can read it"),
        (local, &[("", 0o777)], "everyone can replace it"),
        (
            local,
            &[("gateway.yaml", 0o666)],
            "gateway.yaml is open to others: everyone can write it",
        ),
        (open, &[], "can be reached from other machines"),
        (open, &[], "to whoever asks"),
        (guarded, &[], "can be reached from other machines"),
    ] {
        let told = doubts(admin, modes);
        assert!(told.contains(says), "{admin} {modes:?}: {told}");
    }
    assert!(!doubts(guarded, &[]).contains("to whoever asks"));
}

#[test]
fn tokens_that_cannot_be_used_are_mistakes() {
    for (admin, says) in [
        ("{ token_file: absent.token }", "No such file"),
        ("{ read_token_file: short.token }", "fewer than 16 characters"),
        (
            "{ token_file: admin.token, read_token_file: admin.token }",
            "both tokens are the same",
        ),
        (
            "{ address: \"127.0.0.1:9\", health_address: \"127.0.0.1:9\" }",
            "is `admin.address`",
        ),
    ] {
        let setup = Setup::new(config(admin).to_string())
            .file("admin.token", TOKEN)
            .file("short.token", "fifteen-letters");
        let told = cli(&["check", "-c", "gateway.yaml"], &setup);
        assert_eq!(told.code, Some(78), "{admin}: {told:?}");
        assert!(told.stderr.contains(says), "{admin}: {}", told.stderr);
    }
}

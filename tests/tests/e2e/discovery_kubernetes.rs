//! Checks that endpoints follow the EndpointSlices of a service, as an API server gives them.

use std::fs;

use fixtures::fleet::{Behaviour, Handle};
use fixtures::kubernetes::{ApiServer, Gone, Slice};
use serde_json::Value;
use tests::configs::Config;
use tests::tls::{Authority, Front};
use tests::{Gateway, Setup, eventually};

use crate::{SOON, backends};

const TOKEN: &str = "an-opaque-token";

/// API server in TLS that requires a token, and a gateway with a backend `users` that follows it.
struct Scene {
    server: ApiServer,
    _front: Front,
    gateway: Gateway,
}

impl Scene {
    async fn start(server: ApiServer) -> Self {
        server.require(TOKEN);
        let authority = Authority::new("cluster");
        let front = Front::start(&authority.issue(&["localhost"]), None, server.address()).await;
        let source = format!(
            "{{ kubernetes: {{ namespace: default, service: users, port: http, \
             api: \"https://localhost:{}\", token_file: token, ca_file: ca.pem }} }}",
            front.address().port()
        );
        let config = Config::default()
            .backend_from(
                "users",
                &source,
                "retry: off, breaker: off, ejection: off, balance: { by: turn }",
            )
            .open_route("users", "users", "");
        let gateway = Setup::new(config.to_string())
            .file("ca.pem", authority.pem())
            .file("token", TOKEN)
            .start()
            .await;
        Self {
            server,
            _front: front,
            gateway,
        }
    }

    /// Waits until calls are answered by these backends.
    async fn answered_by(&self, expected: &[&str]) {
        eventually(SOON, &format!("{expected:?} answer"), || async {
            (answering(&self.gateway).await == expected).then_some(())
        })
        .await;
    }

    async fn watched(&self) {
        eventually(SOON, "a watch is under way", || async {
            (self.server.watches() == 1).then_some(())
        })
        .await;
    }

    /// Waits until the admin API says that the last look failed for this reason.
    async fn fails(&self, why: &str) {
        eventually(SOON, why, || async {
            shown(&self.gateway).await.contains(why).then_some(())
        })
        .await;
    }
}

/// Slice with one ready endpoint, because each backend of the fleet has its own port.
fn slice(handle: &Handle) -> Slice {
    empty(handle).ready("127.0.0.1")
}

fn empty(handle: &Handle) -> Slice {
    Slice::new(&format!("users-{}", handle.name()), "users").port("http", handle.address().port())
}

/// Returns the names of the backends that answer 20 calls.
async fn answering(gateway: &Gateway) -> Vec<String> {
    let mut names = Vec::new();
    for _ in 0..20 {
        let answer = gateway.get("/users/echo").send().await;
        let name = answer
            .header("x-backend")
            .map_or_else(|| answer.status.to_string(), str::to_owned);
        names.push(name);
    }
    names.sort();
    names.dedup();
    names
}

async fn shown(gateway: &Gateway) -> String {
    let shown: Value = gateway.admin_json("/api/v1/backends").await;
    shown["backends"][0].to_string()
}

#[tokio::test]
async fn calls_go_to_the_endpoints_as_the_slices_change() {
    let (_fleet, [a, b]) = backends(["a", "b"]).await;
    let server = ApiServer::start().await.expect("a port is free");
    server.put(slice(&a));
    let scene = Scene::start(server).await;
    scene.answered_by(&["a"]).await;
    scene.watched().await;
    scene.server.put(slice(&b));
    scene.answered_by(&["a", "b"]).await;

    // An endpoint that ends gets calls only while no ready one is there.
    scene.server.put(empty(&a).ending("127.0.0.1"));
    scene.answered_by(&["b"]).await;
    scene.server.delete("users-b");
    scene.answered_by(&["a"]).await;

    scene.server.cut();
    scene.server.put(slice(&b));
    scene.answered_by(&["b"]).await;
    scene.watched().await;
    for gone in [Gone::Status, Gone::Event] {
        scene.server.forget(gone);
        scene.server.put(slice(&a));
        scene.answered_by(&["a", "b"]).await;
        scene.watched().await;
        scene.server.put(empty(&a).unready("127.0.0.1"));
        scene.answered_by(&["b"]).await;
    }
}

#[tokio::test]
async fn while_the_api_server_refuses_the_last_endpoints_stay() {
    let (_fleet, [a, b]) = backends(["a", "b"]).await;
    let server = ApiServer::start().await.expect("a port is free");
    server.put(slice(&a));
    let scene = Scene::start(server).await;
    scene.answered_by(&["a"]).await;
    scene.watched().await;
    scene.server.require("another-token");
    scene.server.cut();
    scene
        .fails("the API server answers 401: the token is not accepted")
        .await;
    assert_eq!(answering(&scene.gateway).await, ["a"]);
    scene.server.put(slice(&b));
    fs::write(scene.gateway.path("token"), "another-token\n").expect("the folder takes files");
    scene.answered_by(&["a", "b"]).await;
    scene.watched().await;

    // No endpoint left is no reason to have none.
    scene.server.put(empty(&b).unready("127.0.0.1"));
    scene.answered_by(&["a"]).await;
    scene.server.put(empty(&a).unready("127.0.0.1"));
    scene.fails("none of the 2 endpoints of this service is ready").await;
    assert_eq!(answering(&scene.gateway).await, ["a"]);

    for written in [scene.gateway.log(), scene.gateway.stdout(), shown(&scene.gateway).await] {
        assert!(
            !written.contains(TOKEN) && !written.contains("another-token"),
            "{written}"
        );
    }
}

#[tokio::test]
async fn an_api_server_with_another_certificate_is_not_trusted() {
    let (_fleet, [a]) = backends(["a"]).await;
    a.behave(Behaviour::default()).await;
    let server = ApiServer::start().await.expect("a port is free");
    server.put(slice(&a));
    let (own, other) = (Authority::new("cluster"), Authority::new("another"));
    let front = Front::start(&other.issue(&["localhost"]), None, server.address()).await;
    let source = format!(
        "{{ kubernetes: {{ namespace: default, service: users, port: http, \
         api: \"https://localhost:{}\", token_file: token, ca_file: ca.pem }} }}",
        front.address().port()
    );
    let config = Config::default()
        .backend_from("users", &source, "")
        .open_route("users", "users", "");
    let gateway = Setup::new(config.to_string())
        .file("ca.pem", own.pem())
        .file("token", TOKEN)
        .start()
        .await;
    let why = "the API server is not reached: invalid peer certificate";
    eventually(SOON, why, || async {
        shown(&gateway).await.contains(why).then_some(())
    })
    .await;
    gateway.get("/users/echo").send().await.refusal(503, "no_endpoint");
    assert!(server.requests().is_empty(), "nothing was sent, and no token");
}

//! Checks that endpoints follow the SRV records of a service, as a name server gives them.

use std::net::SocketAddr;

use fixtures::fleet::{Behaviour, Fleet, Handle};
use fixtures::name_server::{Data, Failure, Kind, NameServer, SERVFAIL};
use serde_json::Value;
use tests::configs::Config;
use tests::{Gateway, eventually};

use crate::{SOON, backends};

const NAME: &str = "_http._tcp.users.test";

/// A target of priority 0 and weight 1, whose host is `NAME.test`.
fn target(handle: &Handle) -> Data {
    Data::srv(1, handle.address().port(), &format!("{}.test", handle.name()))
}

/// Sets the address of a backend's host.
fn name(server: &NameServer, handle: &Handle, ttl: u32) {
    let SocketAddr::V4(address) = handle.address() else {
        panic!("the fleet is on IPv4");
    };
    server.set(&format!("{}.test", handle.name()), ttl, [Data::A(*address.ip())]);
}

/// A gateway with a backend `users` whose endpoints are the targets of [`NAME`].
async fn start(server: &NameServer, guards: &str) -> Gateway {
    let config = Config::default()
        .backend_from(
            "users",
            &format!("{{ srv: {NAME}, name_server: \"{}\" }}", server.address()),
            guards,
        )
        .open_route("users", "users", "");
    Gateway::start(config.to_string()).await
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

/// Waits until calls are answered by these backends.
async fn answered_by(gateway: &Gateway, expected: &[&str]) {
    eventually(SOON, &format!("{expected:?} answer"), || async {
        (answering(gateway).await == expected).then_some(())
    })
    .await;
}

async fn shown(gateway: &Gateway) -> Value {
    gateway.admin_json("/api/v1/backends").await["backends"][0].clone()
}

#[tokio::test]
async fn calls_go_to_the_targets_as_the_records_change() {
    let (_fleet, [a, b, spare]): (Fleet, _) = backends(["a", "b", "spare"]).await;
    let server = NameServer::start().await.expect("a port is free");
    for handle in [&a, &b, &spare] {
        name(&server, handle, 1);
    }
    let later = Data::Srv {
        priority: 10,
        weight: 1,
        port: spare.address().port(),
        target: "spare.test".to_owned(),
    };
    server.set(NAME, 1, [target(&a), target(&b), later.clone()]);
    let gateway = start(
        &server,
        "retry: off, breaker: off, ejection: off, balance: { by: turn }",
    )
    .await;
    answered_by(&gateway, &["a", "b"]).await;
    let host = format!("users.test:{}", a.address().port());
    assert_eq!(a.take_requests()[0].header("host"), Some(&*host));

    server.set(NAME, 1, [target(&b), later.clone()]);
    answered_by(&gateway, &["b"]).await;

    // Neither a failure nor an empty answer takes endpoints away.
    server.fail(NAME, Kind::Srv, Failure::Code(SERVFAIL));
    source_fails(&gateway, "the name server answered: Server Failure").await;
    assert_eq!(answering(&gateway).await, ["b"]);
    server.heal();
    server.set(NAME, 1, []);
    source_fails(&gateway, "the name has no such record").await;
    assert_eq!(answering(&gateway).await, ["b"]);

    // The spare one is used only if no target of the first priority has an address.
    server.remove("b.test");
    server.set(NAME, 1, [target(&b), later]);
    answered_by(&gateway, &["spare"]).await;
}

#[tokio::test]
async fn a_failed_connection_brings_the_next_look_forward() {
    let (_fleet, [a, b]) = backends(["a", "b"]).await;
    let server = NameServer::start().await.expect("a port is free");
    for handle in [&a, &b] {
        name(&server, handle, 60);
    }
    server.set(NAME, 60, [target(&a)]);
    let gateway = start(&server, "retry: off, breaker: off, ejection: off").await;
    answered_by(&gateway, &["a"]).await;
    server.set(NAME, 60, [target(&b)]);
    a.behave(Behaviour::refusing()).await;
    // The answers hold for a minute; only a failed connection leads to a look within the limit.
    answered_by(&gateway, &["b"]).await;
}

/// Waits until the admin API says that the last look failed for this reason.
async fn source_fails(gateway: &Gateway, why: &str) {
    eventually(SOON, why, || async {
        shown(gateway).await.to_string().contains(why).then_some(())
    })
    .await;
}

//! Checks health checks: an endpoint that fails them gets no calls until it is well again, and what is known of it is
//! shown.

use fixtures::fleet::{Behaviour, Counts, Fleet, Handle, Recorded};
use serde_json::{Value, json};
use tests::abrupt::{Abrupt, Act, Then};
use tests::configs::{Config, EDGE};
use tests::http2::{Http2, Manner};
use tests::tls::Authority;
use tests::{Client, Gateway, Setup, eventually};

use crate::{SOON, backends};

const CHECK: &str = "every: 100ms, fall: 2, rise: 2";

/// A backend `pair` of two endpoints without other guards. `health` is its health check.
async fn start(health: &str) -> (Fleet, [Handle; 2], Gateway) {
    let (fleet, [a, b]) = backends(["a", "b"]).await;
    let guards = format!("retry: off, breaker: off, ejection: off, {health}");
    let config = Config::default()
        .backend_of("pair", [a.address(), b.address()], &guards)
        .open_route("pair", "pair", "");
    (fleet, [a, b], Gateway::start(config.to_string()).await)
}

/// Returns the endpoint with this address, once it has this state.
async fn endpoint_in(gateway: &Gateway, handle: &Handle, state: &str) -> Value {
    let url = format!("http://{}", handle.address());
    eventually(SOON, &format!("{url} is {state}"), || async {
        let shown = gateway.admin_json("/api/v1/backends").await;
        let endpoints = shown["backends"][0]["endpoints"].as_array()?.clone();
        let found = endpoints.into_iter().find(|endpoint| endpoint["url"] == *url)?;
        (found["state"] == state).then_some(found)
    })
    .await
}

/// Asks twenty times, and returns how many answers were good.
async fn good_answers(gateway: &Gateway) -> usize {
    let mut good = 0;
    for _ in 0..20 {
        good += usize::from(gateway.get("/pair/echo").send().await.status == 200);
    }
    good
}

#[tokio::test]
async fn an_endpoint_that_fails_its_checks_gets_no_calls_until_it_is_well() {
    let (_fleet, [a, b], gateway) = start(&format!("health: {{ path: \"/echo?probe\", {CHECK} }}")).await;
    a.behave(Behaviour::status(503)).await;
    let down = endpoint_in(&gateway, &a, "down").await;
    assert_eq!(down["probe_error"], "status 503", "{down:#}");
    assert!(down["down_for_ms"].is_u64(), "{down:#}");
    assert_eq!(good_answers(&gateway).await, 20);
    let pair = [("backend", "pair")];
    assert_eq!(gateway.metric("gateway_endpoints_down", &pair).await, 1.0);
    assert_eq!(gateway.metric("gateway_backend_degraded", &pair).await, 0.0);

    a.heal().await;
    let up = endpoint_in(&gateway, &a, "up").await;
    assert_eq!((&up["probe_error"], &up["down_for_ms"]), (&Value::Null, &Value::Null));
    let is_call = |request: &Recorded| !request.target.contains("probe");
    a.take_requests();
    eventually(SOON, "it gets calls again", || async {
        gateway.get("/pair/echo").send().await.expect(200);
        a.take_requests().iter().any(is_call).then_some(())
    })
    .await;
    for outcome in ["passed", "failed"] {
        let labels = [("backend", "pair"), ("outcome", outcome)];
        assert!(
            gateway.metric("gateway_health_checks_total", &labels).await >= 2.0,
            "{outcome}"
        );
    }
    // A probe is sent as a call is.
    let probe = eventually(SOON, "a probe", || async {
        b.take_requests()
            .into_iter()
            .find(|request| request.target.contains("probe"))
    })
    .await;
    assert_eq!(probe.header("host"), Some(&*b.address().to_string()));
    assert_eq!(probe.header("user-agent"), Some("gateway-health-check"));
}

#[tokio::test]
async fn while_none_is_up_all_are_tried_or_none() {
    for (when, status) in [("try_all", 200), ("refuse", 503)] {
        let health = format!("health: {{ path: /status/500, {CHECK} }}, when_none_is_up: {when}");
        let (_fleet, [a, b], gateway) = start(&health).await;
        for handle in [&a, &b] {
            let down = endpoint_in(&gateway, handle, "down").await;
            assert_eq!(down["probe_error"], "status 500");
        }
        let answer = gateway.get("/pair/echo").send().await;
        assert_eq!(answer.status, status, "{when}: {answer:#?}");
        if status == 503 {
            answer.refusal(503, "no_endpoint");
            let shown = gateway.admin_json("/api/v1/rejections").await;
            let decided = &shown["rejections"][0]["decided_by"]["setting"];
            assert_eq!(*decided, "backends.pair.when_none_is_up", "{shown:#}");
        }
        assert_eq!(
            gateway.metric("gateway_backend_degraded", &[("backend", "pair")]).await,
            1.0
        );
        let shown = gateway.admin_json("/api/v1/status").await;
        assert_eq!(shown["degraded_backends"][0], "pair", "{shown:#}");
    }
}

#[tokio::test]
async fn a_connection_is_enough_if_that_is_asked_for() {
    let (_fleet, [a, _b], gateway) = start(&format!("health: {{ tcp: true, {CHECK} }}")).await;
    a.behave(Behaviour::refusing()).await;
    let down = endpoint_in(&gateway, &a, "down").await;
    assert!(
        down["probe_error"]
            .as_str()
            .is_some_and(|error| error.contains("refused")),
        "{down:#}"
    );
    assert_eq!(good_answers(&gateway).await, 20);
    a.heal().await;
    endpoint_in(&gateway, &a, "up").await;
}

/// hyper, among others, would take these answers.
#[tokio::test]
async fn an_endpoint_whose_answers_no_call_can_use_is_down() {
    for (answer, told) in [
        ("HTTP/1.1 200 OK\ncontent-length: 0\r\n\r\n", "a line ends in LF alone"),
        (
            "HTTP/1.1 200 OK\r\nx-folded: a\r\n b\r\ncontent-length: 0\r\n\r\n",
            "a field line begins with white space (obsolete folding)",
        ),
    ] {
        let writes = answer.as_bytes().to_vec();
        let backend = Abrupt::http1(Act {
            writes,
            then: Then::Leaves,
        })
        .await;
        let guards = format!("retry: off, breaker: off, health: {{ path: /, {CHECK} }}");
        let config = Config::default().backend("odd", backend.address(), &guards);
        let gateway = Gateway::start(config.open_route("odd", "odd", "").to_string()).await;
        let error = eventually(SOON, "the endpoint is down", || async {
            let shown = gateway.admin_json("/api/v1/backends").await;
            let endpoint = shown["backends"][0]["endpoints"][0].clone();
            (endpoint["state"] == "down").then(|| endpoint["probe_error"].clone())
        })
        .await;
        assert_eq!(error, told);
    }
}

#[tokio::test]
async fn probes_need_no_slot() {
    let health = format!("bulkhead: {{ limit: 1, queue: 0 }}, health: {{ path: /echo, {CHECK} }}");
    let (_fleet, [a, b], gateway) = start(&health).await;
    let asked = tokio::spawn(gateway.get("/pair/delay/60000").send());
    gateway
        .metric_becomes("gateway_bulkhead_in_use", &[("backend", "pair")], 1.0)
        .await;
    gateway.get("/pair/echo").send().await.refusal(503, "bulkhead_full");
    for handle in [&a, &b] {
        let before = handle.counts().requests;
        let is_probed = |counts: &Counts| counts.requests > before + 3;
        handle.wait_for(is_probed, SOON).await.expect("it is probed");
        endpoint_in(&gateway, handle, "up").await;
    }
    asked.abort();
}

#[tokio::test]
async fn a_probe_ends_in_time() {
    let (_fleet, [a, b], gateway) = start(&format!("health: {{ path: /echo, time_limit: 150ms, {CHECK} }}")).await;
    a.close_gate();
    let down = endpoint_in(&gateway, &a, "down").await;
    assert_eq!(down["probe_error"], "no answer within 150ms", "{down:#}");
    endpoint_in(&gateway, &b, "up").await;
    a.open_gate();
    endpoint_in(&gateway, &a, "up").await;
}

#[tokio::test]
async fn without_a_check_nothing_is_probed_any_more() {
    let (_fleet, [a, b], gateway) = start(&format!("health: {{ path: /status/500, {CHECK} }}")).await;
    endpoint_in(&gateway, &a, "down").await;
    let config = Config::default()
        .backend_of(
            "pair",
            [a.address(), b.address()],
            "retry: off, breaker: off, ejection: off",
        )
        .open_route("pair", "pair", "");
    gateway.reload(config.to_string()).await;
    let up = endpoint_in(&gateway, &a, "up").await;
    assert_eq!(up["probe_error"], Value::Null, "{up:#}");
}

#[tokio::test]
async fn a_drained_endpoint_gets_no_new_calls_until_the_drain_is_taken_back() {
    const TOKEN: &str = "correct-horse-battery-staple";
    let (_fleet, [a, b]) = backends(["a", "b"]).await;
    let config = |more: &str| {
        let top = EDGE.replace("admin: {", "admin: { token_file: admin.token,");
        Config::with(top)
            .backend_of(
                "pair",
                [a.address(), b.address()],
                &format!("retry: off, breaker: off{more}"),
            )
            .open_route("pair", "pair", "")
            .to_string()
    };
    let gateway = Setup::new(config("")).file("admin.token", TOKEN).start().await;
    let put = async |address: &str, state: &str| {
        let body = json!({ "address": address, "state": state }).to_string();
        let admin = Client::to(gateway.admin_address());
        let ask = admin.post("/api/v1/backends/pair/endpoints");
        ask.bearer(TOKEN).body(body).send().await
    };
    let address = a.address().to_string();
    // A call that is under way ends as it would.
    a.close_gate();
    b.close_gate();
    let calls = [0, 1].map(|_| tokio::spawn(gateway.get("/pair/echo").send()));
    a.wait_for(|counts| counts.at_gate == 1, SOON)
        .await
        .expect("it is asked");
    let shown = put(&address, "drained").await.expect(200).json();
    assert_eq!(shown["endpoints"][0]["state"], "drained", "{shown:#}");
    a.open_gate();
    b.open_gate();
    for call in calls {
        call.await.expect("no panic").expect(200);
    }
    a.take_requests();
    assert_eq!(good_answers(&gateway).await, 20);
    gateway.reload(config(", health: { tcp: true, every: 100ms }")).await;
    assert_eq!(good_answers(&gateway).await, 20);
    assert_eq!(
        (a.requests().len(), &endpoint_in(&gateway, &a, "drained").await["state"]),
        (0, &"drained".into())
    );
    // Without any other, calls are refused.
    put(&b.address().to_string(), "drained").await.expect(200);
    gateway.get("/pair/echo").send().await.refusal(503, "no_endpoint");
    put(&address, "auto").await.expect(200);
    assert_eq!(good_answers(&gateway).await, 20);
    assert_eq!(a.requests().len(), 20);
    put("127.0.0.1:1", "drained").await.expect(404);
    put("nowhere", "drained").await.expect(400);
    put(&address, "gone").await.expect(400);
}

#[tokio::test]
async fn a_grpc_server_is_asked_for_its_service() {
    let authority = Authority::new("private");
    let plain = Http2::start(Manner::default()).await;
    let secure = Http2::start(Manner {
        shows: Some(authority.issue(&["localhost"])),
        ..Manner::default()
    })
    .await;
    let url = |backend: &Http2, scheme: &str| format!("{scheme}://localhost:{}", backend.address().port());
    let (h2c, h2) = (url(&plain, "http"), url(&secure, "https"));
    let config = [
        ("well", &h2c, "protocol: h2c", "grpc: well"),
        ("ill", &h2c, "protocol: h2c", "grpc: ill"),
        ("nobody", &h2c, "protocol: h2c", "grpc: nobody"),
        ("secure", &h2, "protocol: h2, tls: { ca_file: ca.pem }", "grpc: well"),
        ("plain", &h2c, "protocol: h2c", "path: /early"),
        ("stranger", &h2, "protocol: h2", "tcp: true"),
    ]
    .into_iter()
    .fold(String::new(), |config, (name, url, protocol, asks)| {
        config
            + &format!("  {name}: {{ endpoints: [{{ url: \"{url}\" }}], {protocol}, health: {{ {asks}, {CHECK} }} }}\n")
    });
    let config = format!(
        "{EDGE}backends:\n{config}routes:\n  r: {{ match: {{ path: / }}, access: {{ any_of: [anonymous] }}, backend: well }}\n"
    );
    let gateway = Setup::new(config).file("ca.pem", authority.pem()).start().await;
    let endpoint = async |name: &str, state: &str| {
        eventually(SOON, &format!("{name} is {state}"), || async {
            let shown = gateway.admin_json("/api/v1/backends").await;
            let backend = shown["backends"]
                .as_array()?
                .iter()
                .find(|backend| backend["name"] == name)?;
            let endpoint = backend["endpoints"][0].clone();
            (endpoint["state"] == state).then_some(endpoint)
        })
        .await
    };
    for (name, error) in [
        ("ill", "the service is NOT_SERVING"),
        ("nobody", "gRPC status 5"),
        ("plain", "status 413"),
    ] {
        assert_eq!(endpoint(name, "down").await["probe_error"], error, "{name}");
    }
    // Its certificate is not trusted, so the handshake fails.
    let stranger = endpoint("stranger", "down").await;
    assert!(
        stranger["probe_error"]
            .as_str()
            .is_some_and(|error| error.contains("TLS")),
        "{stranger:#}"
    );
    for name in ["well", "secure"] {
        let labels = [("backend", name), ("outcome", "passed")];
        eventually(SOON, "its probes pass", || async {
            (gateway.metric("gateway_health_checks_total", &labels).await >= 3.0).then_some(())
        })
        .await;
        assert_eq!(endpoint(name, "up").await["probe_error"], Value::Null, "{name}");
    }
}

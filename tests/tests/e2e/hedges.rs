//! Checks that a slow endpoint is answered for by another one, within the retry budget.

use fixtures::fleet::Behaviour;
use serde_json::Value;
use tests::Gateway;
use tests::configs::Config;

use crate::{SOON, backends};

#[tokio::test]
async fn a_slow_endpoint_is_answered_for_by_another_within_the_budget() {
    let (_fleet, endpoints) = backends(["slow", "one", "other"]).await;
    for endpoint in &endpoints {
        let answer =
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
        endpoint.behave(Behaviour::raw(answer)).await;
    }
    // It takes requests, and answers none.
    endpoints[0].close_gate();
    let addresses = endpoints.each_ref().map(|endpoint| endpoint.address());
    let config = Config::default()
        .top("access_log: { file: access.log }")
        .backend_of(
            "api",
            addresses,
            "retry: { share: 0.2, floor: 1/h }, balance: { by: turn }",
        )
        .route(
            "page",
            "{ match: { path: /page }, access: { any_of: [anonymous] }, \
             aggregate: { parts: { one: { backend: api, path: /one, hedge: { after: 50ms } } } } }",
        );
    let gateway = Gateway::start(config.to_string()).await;
    const REQUESTS: usize = 30;
    for _ in 0..REQUESTS {
        gateway.get("/page").send().await.expect(200);
    }
    let asked: usize = endpoints.iter().map(|endpoint| endpoint.take_requests().len()).sum();
    let count = async |event| {
        let labels = [("backend", "api"), ("event", event)];
        gateway.metric("gateway_hedges_total", &labels).await as usize
    };
    let (sent, won) = (count("sent").await, count("won").await);
    assert!(won > 0 && won <= sent, "{sent} sent, {won} won");
    assert!(sent <= 20 + REQUESTS / 5, "{sent}");
    assert_eq!(asked, REQUESTS + sent);
    let calls = gateway.metric(
        "gateway_backend_calls_total",
        &[("backend", "api"), ("outcome", "answered")],
    );
    assert_eq!(calls.await, REQUESTS as f64, "a hedge is no call of its own");
    assert_eq!(
        gateway
            .metric("gateway_endpoint_ejections_total", &[("backend", "api")])
            .await,
        0.0
    );
    // The log has both attempts.
    tests::eventually(SOON, "a hedged request is in the access log", || async {
        let log = std::fs::read_to_string(gateway.path("access.log")).unwrap_or_default();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut hedged = lines.filter(|line| line["attempts"] == 2);
        hedged.find_map(|line| {
            let both = line["attempt_details"].as_array()?;
            let lost = both.first()?;
            let is_told = (&lost["outcome"], &lost["reason"]) == (&"cancelled".into(), &"lost_to_hedge".into())
                && both.last()?["outcome"] == "answered";
            is_told.then_some(())
        })
    })
    .await;
}

use axum::http::{Method, StatusCode};

use crate::admin::bench::{Bench, TOKEN, problem};
use crate::server::Phase;

#[tokio::test]
async fn health_follows_the_phase() {
    let bench = Bench::start().await;
    let check = async |path: &str, status: u16, says: &str| {
        let response = bench.ask(Method::GET, path).await;
        assert_eq!(response.status().as_u16(), status, "{path}");
        let text = response.text().await.unwrap();
        assert!(text.contains(says), "{path}: {text}");
    };
    check("/livez", 200, "live").await;
    check("/readyz", 200, "ready").await;
    bench.lifecycle.advance(Phase::Noticed);
    check("/readyz", 503, "stopping soon").await;
    bench.lifecycle.advance(Phase::Draining);
    check("/readyz", 503, "no new connections").await;
    check("/livez", 200, "live").await;
}

#[tokio::test]
async fn the_health_address_answers_probes_and_nothing_else() {
    let bench = Bench::start().await;
    let get = async |path: &str| {
        let request = bench.client.get(format!("http://{}{path}", bench.health_address));
        // A load balancer may use any host name.
        request.header("host", "gateway.example").send().await.unwrap()
    };
    assert_eq!(get("/livez").await.status(), StatusCode::OK);
    assert_eq!(get("/readyz").await.status(), StatusCode::OK);
    bench.lifecycle.advance(Phase::Draining);
    assert_eq!(get("/livez").await.status(), StatusCode::OK);
    assert_eq!(get("/readyz").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    for path in ["/", "/metrics", "/api/v1/status", "/api/v1/keys", "/livez/"] {
        problem(get(path).await, 404, "not_found").await;
    }
    let changed = bench
        .client
        .post(format!("http://{}/api/v1/drain", bench.health_address));
    problem(changed.bearer_auth(TOKEN).send().await.unwrap(), 404, "not_found").await;
}

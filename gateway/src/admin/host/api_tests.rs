use axum::http::StatusCode;

use crate::admin::bench::{Bench, problem};

#[tokio::test]
async fn a_rebound_name_is_refused_everywhere() {
    let bench = Bench::start().await;
    for path in [
        "/",
        "/livez",
        "/metrics",
        "/api/v1/status",
        "/api/v1/reload",
        "/nothing",
    ] {
        let request = bench
            .client
            .get(format!("http://{}{path}", bench.address))
            .header("host", "evil.example");
        problem(request.send().await.unwrap(), 421, "host_refused").await;
    }
    let request = bench
        .client
        .get(format!("http://{}/livez", bench.address))
        .header("host", "localhost:9900");
    assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
}

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::admin::bench::{Bench, problem};
use crate::server::Phase;

#[tokio::test]
async fn a_bad_config_changes_nothing_and_shows() {
    let bench = Bench::start().await;
    std::fs::write(bench.folder.path().join("gateway.yaml"), "listners: {}\n").unwrap();
    let told = problem(bench.change("/api/v1/reload", "").await, 422, "config_invalid").await;
    assert!(told["detail"].as_str().unwrap().contains("listners"), "{told}");
    let status = bench.get("/api/v1/status").await;
    let last = &status["config"]["last_reload"];
    assert_eq!(
        (&status["config"]["generation"], &last["successful"]),
        (&json!(1), &json!(false))
    );
    assert!(last["error"].as_str().unwrap().contains("listners"));
}

#[tokio::test]
async fn a_breaker_can_be_forced_and_freed() {
    let bench = Bench::start().await;
    let path = "/api/v1/backends/users/breaker";
    for (wanted, state) in [
        (r#"{"state":"open"}"#, "forced_open"),
        (r#"{"state":"closed"}"#, "forced_closed"),
        (r#"{"state":"auto"}"#, "closed"),
    ] {
        let shown: Value = bench.change(path, wanted).await.json().await.unwrap();
        assert_eq!(
            (&shown["backend"], &shown["breaker"]["state"]),
            (&json!("users"), &json!(state))
        );
    }
    for body in ["", "open", r#"{"state":"ajar"}"#, r#"{"state":"open","for":"1s"}"#] {
        problem(bench.change(path, body).await, 400, "bad_value").await;
    }
    let force = r#"{"state":"open"}"#;
    problem(
        bench.change("/api/v1/backends/nobody/breaker", force).await,
        404,
        "no_such_backend",
    )
    .await;
    problem(
        bench.change("/api/v1/backends/orders/breaker", force).await,
        409,
        "breaker_off",
    )
    .await;
}

#[tokio::test]
async fn a_drain_begins_as_a_signal_would_begin_it() {
    let bench = Bench::start().await;
    let response = bench.change("/api/v1/drain", "").await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    assert_eq!(response.json::<Value>().await.unwrap(), json!({ "phase": "noticed" }));
    assert_eq!(bench.lifecycle.phase(), Phase::Noticed);
}

use serde_json::json;

use crate::admin::bench::Bench;

#[tokio::test]
async fn status_says_what_runs() {
    let bench = Bench::start().await;
    let status = bench.get("/api/v1/status").await;
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&status["phase"], &status["ready"]), (&json!("serving"), &json!(true)));
    assert_eq!(
        status["listeners"],
        json!([{ "name": "public", "address": "127.0.0.1:8080", "certificates": [] }])
    );
    assert_eq!(
        status["admin"],
        json!({
            "address": bench.address.to_string(),
            "health": bench.health_address.to_string(),
            "changes": true,
            "read_token": false,
        })
    );
    assert_eq!(status["config"]["generation"], 1);
    assert_eq!(status["config"]["last_reload"]["successful"], true);
    assert!(status["config"]["path"].as_str().unwrap().ends_with("gateway.yaml"));
    assert_eq!(status["issuers"][0]["name"], "internal");
    assert_eq!(status["issuers"][0]["keys"][0]["algorithm"], "HS256");
}

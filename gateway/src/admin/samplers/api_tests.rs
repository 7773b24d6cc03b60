use serde_json::{Value, json};

use crate::admin::bench::{Bench, CONFIG};

#[tokio::test]
async fn gauges_are_true_after_a_reload() {
    let bench = Bench::start().await;
    let page = bench.page().await;
    for line in [
        "gateway_bulkhead_limit{backend=\"users\"} 2\n",
        "gateway_bulkhead_in_use{backend=\"users\"} 0\n",
        "gateway_bulkhead_waiting{backend=\"users\"} 0\n",
        "gateway_breaker_state{backend=\"users\"} 0\n",
        "gateway_endpoints_ejected{backend=\"users\"} 0\n",
        "gateway_endpoint_ejections_total{backend=\"users\"} 0\n",
        "gateway_retry_budget_balance{backend=\"users\"} 20\n",
        "gateway_backend_connections{backend=\"users\",state=\"idle\"} 0\n",
        "gateway_limit_owners{limit=\"free\"} 0\n",
        "gateway_limit_overflow_total{limit=\"free\"} 0\n",
        "gateway_requests_in_flight 0\n",
        "gateway_connections 0\n",
        "gateway_connections_total 0\n",
        "gateway_malformed_connections_total 0\n",
        "gateway_config_generation 1\n",
    ] {
        assert!(page.contains(line), "{line} is missing in\n{page}");
    }
    let renamed = CONFIG
        .replace("  orders:\n", "  bills:\n")
        .replace("backend: orders", "backend: bills");
    let changed = renamed.replace("limit: 2, queue: 1", "limit: 7, queue: 1");
    std::fs::write(bench.folder.path().join("gateway.yaml"), changed).unwrap();
    let reloaded = bench.change("/api/v1/reload", "").await;
    assert_eq!(reloaded.json::<Value>().await.unwrap(), json!({ "generation": 2 }));
    let page = bench.page().await;
    assert!(page.contains("gateway_bulkhead_limit{backend=\"users\"} 7\n"), "{page}");
    assert!(page.contains("gateway_bulkhead_limit{backend=\"bills\"}") && !page.contains("limit{backend=\"orders\"}"));
    assert!(page.contains("gateway_config_generation 2\n"));
}

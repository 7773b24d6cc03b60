use serde_json::{Value, json};

use crate::admin::bench::{Bench, line_of};
use crate::rejection::Reason;

#[tokio::test]
async fn tenants_show_what_they_have_left() {
    let bench = Bench::start().await;
    bench.refuse("one", Reason::RateLimited);
    bench.refuse("two", Reason::BreakerOpen);
    let listed = bench.get("/api/v1/tenants").await;
    let [acme, globex] = listed["tenants"].as_array().unwrap().as_slice() else {
        panic!("two tenants: {listed}")
    };
    assert_eq!(
        (&acme["name"], &globex["name"]),
        (&json!("acme"), &json!("globex")),
        "the busier one first"
    );
    assert_eq!(
        (&acme["tiers"], &globex["tiers"]),
        (&json!(["free"]), &json!(["premium"]))
    );
    assert_eq!(
        acme["requests"],
        json!({ "total": 2, "limited": 1, "rejected": 1, "by_reason": { "rate_limited": 1, "breaker_open": 1 },
                "by_limit": { "search": 1 } })
    );
    assert_eq!((&acme["api_keys"], &globex["api_keys"]), (&json!(1), &json!(0)));
    assert!(acme["at"]["file"].as_str().unwrap().ends_with("keys.yaml"), "{acme}");
    assert_eq!(globex["at"]["line"], line_of("globex:"));
    let [free, at_once, search, ..] = acme["limits"].as_array().unwrap().as_slice() else {
        panic!("three limits: {acme}")
    };
    assert_eq!(at_once["most"], 20);
    assert_eq!(
        (&free["name"], &free["most"], &free["per_second"], &free["at"]),
        (&json!("free"), &json!(20), &json!(10.0), &Value::Null)
    );
    assert!(free["balance"].as_u64().unwrap() < 20, "two were taken: {free}");
    assert_eq!(
        (&search["route"], &search["balance"], &search["at"]["line"]),
        (&json!("users"), &json!(10), &line_of("search:"))
    );
    let own = &globex["limits"][0];
    assert_eq!((&own["most"], &own["at"]["line"]), (&json!(500), &line_of("globex:")));
}

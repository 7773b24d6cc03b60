use policies::Moment;
use policies::bulkhead::{Entrant, Entry};
use serde_json::{Value, json};

use crate::admin::bench::{Bench, line_of};
use crate::clock;

#[tokio::test]
async fn backends_show_their_guards() {
    let bench = Bench::start().await;
    let plan = bench.live.load();
    let entrant = Entrant {
        tenant: 1,
        tier: 1,
        weight: 1,
        deadline: Moment::MAX,
    };
    let entry = plan.backends[0]
        .guards
        .bulkhead
        .enter(clock::now(), entrant, || unreachable!("it is empty"));
    let Entry::Admitted(_slot) = entry else {
        panic!("there are two slots")
    };
    let listed = bench.get("/api/v1/backends").await;
    let (users, orders) = (&listed["backends"][0], &listed["backends"][1]);
    let bulkhead = &users["bulkhead"];
    assert_eq!(
        (
            &bulkhead["in_use"],
            &bulkhead["limit"],
            &bulkhead["tenant_cap"],
            &bulkhead["waiting"],
            &bulkhead["queue"],
            &bulkhead["wait_ms"]
        ),
        (&json!(1), &json!(2), &json!(1), &json!(0), &json!(1), &json!(5000))
    );
    assert_eq!(
        bulkhead["outcomes"],
        json!({ "admitted": 1, "full": 0, "timeout": 0, "left": 0 })
    );
    assert_eq!(bulkhead["at"]["line"], line_of("bulkhead:"));
    assert_eq!(users["breaker"]["state"], "closed");
    assert_eq!(
        (&users["breaker"]["settings"]["min_calls"], &orders["breaker"]),
        (&json!(4), &Value::Null)
    );
    assert_eq!(users["breaker_at"]["line"], line_of("min_calls"));
    assert_eq!(users["breaker"]["settings"]["open_for_max_ms"], 300_000);
    assert_eq!(
        users["ejection"],
        json!({ "consecutive": 5, "eject_for_ms": 30_000, "growth": 2.0, "eject_for_max_ms": 300_000, "share": 0.5 })
    );
    assert_eq!(users["retry"]["budget"]["balance"], 20);
    assert_eq!(users["retry"]["stopped"]["exhausted"], 0);
    assert_eq!(
        users["endpoints"],
        json!([{ "url": "http://127.0.0.1:9", "address": "127.0.0.1:9", "weight": 1, "readiness": "ready", "state": "up", "down_for_ms": null, "probe_error": null, "in_flight": 0, "latency_ms": null, "warm": 1.0, "returns_in_ms": null, "connections": { "active": 0, "idle": 0, "exchanges": 0 } }])
    );
    assert_eq!(users["calls"]["answered"], 0);
}

use serde_json::json;

use crate::admin::bench::{Bench, line_of};
use crate::rejection::Reason;

#[tokio::test]
async fn refusals_are_grouped_by_reason_tenant_and_line() {
    let bench = Bench::start().await;
    for number in 0..30 {
        bench.refuse_by(
            &number.to_string(),
            Reason::RateLimited,
            Some("routes.users.limits.search"),
        );
    }
    bench.refuse_by("slow", Reason::OutOfTime, Some("routes.users.time_limit"));
    bench.refuse("open", Reason::BreakerOpen);
    let shown = bench.get("/api/v1/rejections/groups").await;
    assert_eq!((&shown["total"], &shown["others"]), (&json!(3), &json!(0)));
    let limited = &shown["groups"][0];
    assert_eq!(
        (
            &limited["reason"],
            &limited["status"],
            &limited["tenant"],
            &limited["count"]
        ),
        (&json!("rate_limited"), &json!(429), &json!("acme"), &json!(30)),
        "all are counted, also those that the list of single refusals leaves out"
    );
    assert_eq!(limited["decided_by"]["at"]["line"], line_of("search:"));
    let link = limited["explain"].as_str().expect("a link");
    assert_eq!(bench.get(link).await["path"], "/users/1");
    let found = bench.get("/api/v1/rejections/groups?q=TIME_LIMIT").await;
    assert_eq!(
        (&found["total"], &found["groups"][0]["reason"]),
        (&json!(1), &json!("out_of_time"))
    );
    let rest = bench.get("/api/v1/rejections/groups?limit=1&offset=1").await;
    assert_eq!((&rest["total"], &rest["next_offset"]), (&json!(3), &json!(2)));
}

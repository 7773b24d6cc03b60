use axum::http::Method;
use serde_json::json;

use crate::admin::bench::{Bench, problem};
use crate::rejection::Reason;

/// The clock of this test is real, so it only sees the point that is not over yet; the points themselves are checked
/// beside the code.
#[tokio::test]
async fn the_history_is_read_from_a_point_on() {
    let bench = Bench::start().await;
    bench.refuse("one", Reason::BreakerOpen);
    let shown = bench.get("/api/v1/history").await;
    assert_eq!(
        (&shown["every_seconds"], &shown["most_points"], &shown["newest"]),
        (&json!(10), &json!(360), &json!(0))
    );
    assert_eq!(
        shown["all"],
        json!({ "points": 0, "requests": [], "failed": [], "refused": [], "incomplete": [] })
    );
    assert_eq!(
        bench.get("/api/v1/history?after=77").await["newest"],
        0,
        "of an earlier process"
    );
    for query in ["after=x", "after=-1", "before=1", "after=1&after=2"] {
        let response = bench.ask(Method::GET, &format!("/api/v1/history?{query}")).await;
        problem(response, 400, "bad_value").await;
    }
}

use axum::http::Method;
use serde_json::{Value, json};

use crate::admin::bench::{Bench, problem};

#[tokio::test]
async fn a_quota_can_be_set() {
    let bench = Bench::start().await;
    let set = async |path: &str, body: &'static str| bench.change(&format!("/api/v1/tenants/{path}"), body).await;
    let left = async |tenant: &str, quota: &str| {
        let listed = bench.get("/api/v1/tenants").await;
        let tenants = listed["tenants"].as_array().unwrap();
        let limits = tenants.iter().find(|entry| entry["name"] == tenant).unwrap()["limits"].clone();
        let limits = limits.as_array().unwrap().iter();
        limits.clone().find(|limit| limit["name"] == quota).unwrap()["balance"].clone()
    };
    for (tenant, path, name, most) in [
        ("globex", "quotas/monthly", "monthly", 2000),
        ("acme", "quotas/daily?route=users", "daily", 50),
    ] {
        let path = &format!("{tenant}/{path}");
        for (body, was, used, balance) in [
            (r#"{"used": 40}"#, 0, 40, most - 40),
            (r#"{"used": 5}"#, 40, 5, most - 5),
            (r#"{"used": 5000}"#, 5, 5000, 0),
            (r#"{"used": 0}"#, 5000, 0, most),
        ] {
            let answer: Value = set(path, body).await.json().await.unwrap();
            let shown = ["was_used", "used", "balance", "most"].map(|name| &answer[name]);
            assert_eq!(
                shown.map(|value| value.as_u64().unwrap()),
                [was, used, balance, most],
                "{answer}"
            );
            assert!((1..=31 * 86_400).contains(&answer["resets_in_seconds"].as_u64().unwrap()));
            assert_eq!(left(tenant, name).await, json!(balance), "{path} {body}");
        }
    }
    set("acme/quotas/daily?route=users", r#"{"used": 7}"#).await;
    assert_eq!(left("globex", "daily").await, json!(50), "another tenant's");

    for (path, body, status, reason) in [
        ("nobody/quotas/monthly", r#"{"used": 1}"#, 404, "no_such_tenant"),
        ("anonymous/quotas/monthly", r#"{"used": 1}"#, 404, "no_such_tenant"),
        ("acme/quotas/monthly", r#"{"used": 1}"#, 404, "no_such_quota"),
        ("globex/quotas/yearly", r#"{"used": 1}"#, 404, "no_such_quota"),
        ("acme/quotas/free", r#"{"used": 1}"#, 404, "no_such_quota"),
        ("acme/quotas/daily", r#"{"used": 1}"#, 404, "no_such_quota"),
        ("acme/quotas/daily?route=page", r#"{"used": 1}"#, 404, "no_such_quota"),
        ("acme/quotas/search?route=users", r#"{"used": 1}"#, 404, "no_such_quota"),
        ("globex/quotas/monthly", r#"{"used": -1}"#, 400, "bad_value"),
        ("globex/quotas/monthly", r#"{"used": 137438953472}"#, 400, "bad_value"),
        ("globex/quotas/monthly", r#"{"used": 1, "used": 2}"#, 400, "bad_value"),
        ("globex/quotas/monthly", r#"{"used": 1, "left": 2}"#, 400, "bad_value"),
        ("globex/quotas/monthly", "", 400, "bad_value"),
        ("globex/quotas/monthly?rout=users", r#"{"used": 1}"#, 400, "bad_value"),
        (
            "acme/quotas/daily?route=users&route=page",
            r#"{"used": 1}"#,
            400,
            "bad_value",
        ),
    ] {
        problem(set(path, body).await, status, reason).await;
    }
    assert_eq!(
        (left("acme", "daily").await, left("globex", "monthly").await),
        (json!(43), json!(2000)),
        "nothing was changed by mistake"
    );
    let unsigned = bench.ask(Method::POST, "/api/v1/tenants/acme/quotas/monthly").await;
    problem(unsigned, 401, "token_missing").await;
}

use axum::http::{Method, StatusCode};
use serde_json::Value;

use crate::admin::bench::{Bench, CONFIG, TOKEN, problem};
use crate::admin::{InheritedAdmin, bind};
use crate::config::{Admin, At};
use crate::server::Phase;

#[tokio::test]
async fn a_change_needs_the_token() {
    let bench = Bench::start().await;
    for path in [
        "/api/v1/reload",
        "/api/v1/drain",
        "/api/v1/backends/users/breaker",
        "/api/v1/backends/users/endpoints",
    ] {
        problem(bench.ask(Method::POST, path).await, 401, "token_missing").await;
        for wrong in [
            "Bearer wrong",
            "Bearer",
            "Bearer ",
            "Basic correct-horse-battery",
            TOKEN,
        ] {
            let request = bench.client.post(format!("http://{}{path}", bench.address));
            let response = request.header("authorization", wrong).send().await.unwrap();
            assert!(response.headers().contains_key("www-authenticate"));
            problem(response, 401, "token_invalid").await;
        }
    }
    assert_eq!(
        (bench.lifecycle.phase(), bench.live.load().generation),
        (Phase::Serving, 1)
    );
}

#[tokio::test]
async fn without_a_token_nothing_can_be_changed() {
    let bench = Bench::start_with(None).await;
    for path in [
        "/api/v1/reload",
        "/api/v1/drain",
        "/api/v1/backends/users/breaker",
        "/api/v1/backends/users/endpoints",
    ] {
        let told = problem(bench.change(path, "").await, 403, "changes_disabled").await;
        assert!(told["detail"].as_str().unwrap().contains("admin.token_file"), "{told}");
    }
    assert_eq!(bench.get("/api/v1/status").await["admin"]["changes"], false);
}

#[tokio::test]
async fn with_a_token_for_reading_nothing_but_probes_is_answered_without_one() {
    const READ: &str = "battery-horse-correct";
    let bench = Bench::start_with_tokens(CONFIG, Some(TOKEN), Some(READ)).await;
    let basic = |password: &str| {
        use base64::Engine as _;
        format!(
            "Basic {}",
            base64::engine::general_purpose::STANDARD.encode(format!("ada:{password}"))
        )
    };
    let get = async |path: &str, authorization: Option<&str>| {
        let mut request = bench.client.get(format!("http://{}{path}", bench.address));
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        request.send().await.unwrap()
    };
    for path in [
        "/",
        "/dashboard/main.js",
        "/metrics",
        "/api/v1/status",
        "/api/v1/keys",
        "/api/v1/events",
        "/nowhere",
    ] {
        let response = get(path, None).await;
        let schemes: Vec<_> = response.headers().get_all("www-authenticate").iter().collect();
        assert_eq!(schemes.len(), 2, "{path}");
        problem(response, 401, "read_token_missing").await;
        for wrong in [
            "Bearer wrong-horse-battery",
            "Bearer",
            "Digest x",
            "Basic x",
            &basic("x"),
            READ,
        ] {
            problem(get(path, Some(wrong)).await, 401, "read_token_invalid").await;
        }
        let right = [
            format!("Bearer {READ}"),
            format!("bearer  {TOKEN}"),
            basic(READ),
            basic(TOKEN),
        ];
        for authorization in right {
            let status = get(path, Some(&authorization)).await.status();
            let expected = if path == "/nowhere" {
                StatusCode::NOT_FOUND
            } else {
                StatusCode::OK
            };
            assert_eq!(status, expected, "{path} with {authorization}");
        }
    }
    for path in ["/livez", "/readyz"] {
        assert_eq!(get(path, None).await.status(), StatusCode::OK, "{path}");
        assert_eq!(get(path, Some("Bearer wrong")).await.status(), StatusCode::OK, "{path}");
    }
    // A token for reading allows no change, and nothing that a browser sends by itself does.
    for (authorization, status, reason) in [
        (format!("Bearer {READ}"), 401, "token_invalid"),
        (basic(READ), 401, "token_invalid"),
        (basic(TOKEN), 401, "token_invalid"),
        ("Bearer wrong".to_owned(), 401, "read_token_invalid"),
    ] {
        let request = bench.client.post(format!("http://{}/api/v1/reload", bench.address));
        let response = request.header("authorization", &authorization).send().await.unwrap();
        problem(response, status, reason).await;
    }
    assert_eq!(bench.change("/api/v1/reload", "").await.status(), StatusCode::OK);
    assert_eq!(
        get("/api/v1/status", Some(&basic(READ)))
            .await
            .json::<Value>()
            .await
            .unwrap()["admin"]["read_token"],
        true
    );
}

#[tokio::test]
async fn a_short_token_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.token");
    std::fs::write(&path, " 123456789012345 \n").unwrap();
    let written = Admin {
        address: At::unwritten(([127, 0, 0, 1], 0).into()),
        token_file: Some(At::unwritten(path)),
        read_token_file: None,
        tokens_file: None,
        health_address: None,
    };
    let error = bind(&written, InheritedAdmin::default()).err().unwrap().to_string();
    assert!(
        error.contains("fewer than 16 characters") && !error.contains("12345"),
        "{error}"
    );
}

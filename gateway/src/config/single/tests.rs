//! Tests that a suggestion for a single value is valid in its place.

use std::path::Path;

use crate::config::section_examples::SECTION_EXAMPLES;
use crate::config::{Invalid, parse};

fn read(text: &str) -> Result<(), Box<Invalid>> {
    parse("gateway.yaml", text, Path::new("."), &|_| None).map(|_| ())
}

/// Returns the values that a hint suggests, if any.
fn suggested(hint: Option<&str>) -> Option<&str> {
    hint?.strip_prefix("did you mean `")?.strip_suffix("`?")
}

#[test]
fn every_map_is_filled_in_with_whatever_stands_in_its_place() {
    let values = [
        "true",
        "on",
        "yes",
        "5",
        "2000",
        "10s",
        "10/s",
        "64KiB",
        "0.5",
        "users",
        "/users/*",
        "keys.yaml",
        "GET",
        ":9900",
        "10.0.0.5:8080",
        "\"http://10.0.0.5:8080\"",
        "\"{part.user.id}\"",
        "anonymous",
        "\"*\"",
        "\"a: b\"",
        "[a, b]",
        "[\"http://a\", \"http://b\"]",
        "[10.0.0.0/8]",
    ];
    // No single value can stand for the whole config.
    for place in &SECTION_EXAMPLES[1..] {
        for value in values {
            let config = place.whole(value);
            let Err(invalid) = read(&config) else {
                panic!("{value} is taken in {}", place.config)
            };
            let hints: Vec<_> = invalid
                .mistakes
                .iter()
                .filter_map(|mistake| mistake.hint.as_deref())
                .collect();
            if hints.iter().any(|hint| hint.contains("leave it out")) {
                continue;
            }
            let map = hints
                .iter()
                .find_map(|hint| suggested(Some(hint)))
                .unwrap_or_else(|| panic!("nothing is suggested for {value} in {}: {invalid}", place.config));
            // In a list, a map counts as a list of one.
            let filled = place.whole(map).replace("[[", "[").replace("]]", "]");
            if let Err(still) = read(&filled) {
                panic!("{map} for {value} in {}: {still}", place.config);
            }
        }
    }
}

/// Checks the suggestion for a value in place of `@`.
#[track_caller]
fn check(config: &str, value: &str, expected: &str) {
    let head = "{ listeners: { p: { address: 0.0.0.0:80 } }, ";
    let route = "routes: { r: { match: { path: / }, respond: {} } }, ";
    let config = match config.contains("routes:") {
        true => format!("{head}{config} }}"),
        false => format!("{head}{route}{config} }}"),
    };
    let written = config.replace('@', value);
    let invalid = read(&written).expect_err(value);
    let hint = invalid.mistakes.iter().find_map(|mistake| mistake.hint.as_deref());
    assert_eq!(suggested(hint), Some(expected), "{invalid}");
    if let Err(still) = read(&config.replace('@', expected)) {
        panic!("{expected}: {still}");
    }
}

#[test]
fn the_map_holds_what_was_written() {
    const BACKEND: &str = r#"backends: { b: { endpoints: [{ url: "http://h" }], KEY: @ } }"#;
    let backend = |key: &str| BACKEND.replace("KEY", key);
    let endpoints = "backends: { b: { endpoints: @ } }";
    check(endpoints, r#"["http://a:1"]"#, r#"[{ url: "http://a:1" }]"#);
    check(endpoints, r#""http://a:1""#, r#"[{ url: "http://a:1" }]"#);
    check(endpoints, "a:1", r#"[{ url: "http://a:1" }]"#);
    check(
        endpoints,
        r#"["http://a:1", "http://b:2"]"#,
        r#"[{ url: "http://a:1" }, { url: "http://b:2" }]"#,
    );
    check(
        "backends: { b: @ }",
        r#""http://a:1""#,
        r#"{ endpoints: [{ url: "http://a:1" }] }"#,
    );
    check(&backend("retry"), "3", "{ attempts: 3 }");
    check(&backend("retry"), "article", "{ preset: article }");
    check(&backend("breaker"), "5", "{ consecutive: 5 }");
    check(&backend("breaker"), "0.5", "{ failure_ratio: 0.5 }");
    check(&backend("bulkhead"), "20", "{ limit: 20 }");
    check(&backend("connections"), "30s", "{ idle: 30s }");
    check("cors: @", "true", r#"{ origins: ["https://app.example.com"] }"#);
    check("compression: @", "gzip", "{ codings: [gzip] }");
    check("compression: @", "[br, zstd]", "{ codings: [br, zstd] }");
    check("compression: @", "text/html", "{ types: [text/html] }");
    check("compression: @", "true", "{ codings: [zstd, gzip, br] }");
    check("cors: @", r#""*""#, r#"{ origins: ["*"] }"#);
    check(
        "cors: @",
        "[\"https://a.example\"]",
        r#"{ origins: ["https://a.example"] }"#,
    );
    check("admin: @", "9901", r#"{ address: "127.0.0.1:9901" }"#);
    check("admin: @", "\":9901\"", r#"{ address: "127.0.0.1:9901" }"#);
    check("time_limits: @", "20s", "{ request: 20s }");
    check("callers: { api_keys: @ }", "keys.yaml", "{ file: keys.yaml }");
    check("callers: { anonymous: @ }", "true", "{ by: client_address }");
    check("callers: { anonymous: @ }", "free", "{ tier: free }");
    check("tiers: { gold: @ }", "50/s", "{ rate: 50/s, burst: 20 }");
    check("tenants: { acme: @ }", "premium", "{ tier: premium }");
    let route = |key: &str| {
        format!(
            "{}, routes: {{ r: {{ match: {{ path: / }}, {key}: @, backend: b }} }}",
            backend("preserve_host").replace('@', "true")
        )
    };
    check(&route("access"), "anonymous", "{ any_of: [anonymous] }");
    check(&route("access"), "[api_key, jwt]", "{ any_of: [api_key, jwt] }");
    check(&route("access"), "public", "{ any_of: [anonymous] }");
    check(&route("limits"), "5/s", "{ main: { rate: 5/s, burst: 20 } }");
    check(&route("fallback"), "10m", "[{ stale: 10m }]");
    check(&route("fallback"), "b", "[{ backend: b }]");
    let set = route("KEY").replace("KEY: @", "headers: { response: { set: @ } }");
    check(&set, "\"x-edge: eu-1\"", "{ x-edge: eu-1 }");
    check(&set, "[\"x-a: a\", x-b=b]", "{ x-a: a, x-b: b }");
    check(
        "routes: { r: @ }",
        "/users",
        "{ match: { path: [/users] }, backend: NAME }",
    );
    check(
        "routes: { r: { match: @, respond: {} } }",
        "/users",
        "{ path: [/users] }",
    );
    check(
        "routes: { r: { match: { path: / }, respond: @ } }",
        "204",
        "{ status: 204 }",
    );
    check(
        "routes: { r: { match: { path: / }, respond: @ } }",
        "hello",
        "{ body: hello }",
    );
    check(
        "path_policy: @",
        "decode",
        "{ dot_segments: decode, encoded_slash: decode }",
    );
    check("watch: @", "[true]", "true");
}

#[test]
fn a_list_of_named_maps_is_a_map() {
    let text = "listeners: { p: { address: 0.0.0.0:80 } }\nroutes:\n  - name: users\n    match: { path: / }\n";
    let invalid = read(text).expect_err("routes go by their names");
    let hint = invalid.mistakes.iter().find_map(|mistake| mistake.hint.as_deref());
    assert_eq!(suggested(hint), Some("{ users: { ... } }"), "{invalid}");
}

use std::collections::BTreeSet;

use axum::http::Method;

use super::*;
use crate::admin::bench::Bench;

/// Returns the paths that the router serves, as they stand in its source.
fn routed() -> BTreeSet<String> {
    let source = include_str!("../mod.rs");
    let router = source.split("fn router(admin").nth(1).expect("the router is there");
    let quoted = router.split(".route(").skip(1).map(|rest| rest.trim_start());
    let named = quoted.map(|rest| match rest.strip_prefix('"') {
        Some(rest) => rest.split('"').next().expect("a quote ends").to_owned(),
        None if rest.starts_with("events::PATH") => crate::admin::events::PATH.to_owned(),
        None if rest.starts_with("LINK") => crate::pipeline::explain::LINK.to_owned(),
        None if rest.starts_with("diff::LINK") => crate::admin::diff::LINK.to_owned(),
        None => panic!("{rest}"),
    });
    named.collect()
}

#[test]
fn every_route_stands_in_the_document_and_the_other_way_round() {
    let described: BTreeSet<_> = OPERATIONS.iter().map(|operation| operation.0.to_owned()).collect();
    assert_eq!(described, routed());
}

#[tokio::test]
async fn every_operation_is_served_and_no_other() {
    let bench = Bench::start().await;
    for path in routed() {
        // A stream does not end, and the methods of the others say as much.
        let asked = path.replace(['{', '}'], "");
        for method in ["get", "post", "put", "patch", "delete"] {
            let is_described = OPERATIONS
                .iter()
                .any(|operation| (operation.0, operation.1) == (&*path, method));
            let status = bench
                .ask(Method::from_bytes(method.to_uppercase().as_bytes()).unwrap(), &asked)
                .await
                .status()
                .as_u16();
            assert_eq!(status != 405, is_described, "{method} {path}: {status}");
        }
    }
}

#[tokio::test]
async fn the_document_is_whole() {
    let bench = Bench::start().await;
    let document = bench.get("/api/v1/openapi.json").await;
    assert_eq!(document, super::document());
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let text = document.to_string();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name}");
    }
    for (name, _) in schemas {
        assert!(
            text.contains(&format!("#/components/schemas/{name}\"")),
            "{name} is used"
        );
    }
}

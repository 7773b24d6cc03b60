//! Checks that configs are made of what other gateways and descriptions say, that these are good, and that differences
//! between a config and a description are told.

use std::fs;
use std::path::PathBuf;

use fixtures::api_keys::{KeyLine, key_file};
use serde_json::json;
use tests::configs::Config;
use tests::{Setup, cli};

use crate::backends;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../fixtures/import")
        .join(name)
}

/// Compares what is made of a file with the text beside it. `UPDATE_EXPECTED=1` takes over what is made now.
fn made(kind: &str, of: &str, expected: &str) -> String {
    let file = fixture(of);
    let made = cli(&["import", kind, &file.display().to_string()], &Setup::default());
    assert_eq!(made.code, Some(0), "{made:?}");
    let expected = fixture(expected);
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(&expected, &made.stdout).expect("the fixture can be written");
    }
    assert_eq!(made.stdout, fs::read_to_string(expected).expect("it is there"), "{of}");
    made.stdout
}

fn with_files(config: &str) -> Setup {
    let keys = [KeyLine::new("acme-1", "acme", "key-acme").tier("free")];
    Setup::new(config).file("keys.yaml", key_file(&keys))
}

#[test]
fn a_krakend_configuration_becomes_a_good_config() {
    let config = made("krakend", "krakend.json", "krakend.yaml");
    let checked = cli(&["check"], &with_files(&config));
    assert_eq!(checked.code, Some(0), "{checked:?}");
}

#[tokio::test]
async fn what_is_made_of_a_krakend_configuration_answers_as_it_says() {
    let (_fleet, [users, orders]) = backends(["users", "orders"]).await;
    let at = |origin: &str| format!("http://{origin}");
    let (users, orders) = (at(&users.address().to_string()), at(&orders.address().to_string()));
    let document = json!({
        "version": 3, "port": 0, "host": [users], "endpoints": [
            { "endpoint": "/plain/{name}", "backend": [{ "url_pattern": "/echo/{name}" }] },
            { "endpoint": "/all/{name}", "input_query_strings": ["*"], "backend": [{ "url_pattern": "/echo/{name}" }] },
            { "endpoint": "/merged/{name}", "backend": [
                { "url_pattern": "/echo/{name}", "allow": ["path"], "mapping": { "path": "first" } },
                { "url_pattern": "/echo/other", "host": [orders], "allow": ["path", "method"], "group": "second" } ] },
            { "endpoint": "/chain/{name}", "extra_config": { "proxy": { "sequential": true } }, "backend": [
                { "url_pattern": "/echo/{name}", "allow": ["method"], "mapping": { "method": "how" }, "group": "one" },
                { "url_pattern": "/echo/{resp0_one.how}", "host": [orders], "allow": ["path"], "group": "two" } ] },
            { "endpoint": "/shut", "extra_config": { "validation/cel": [{ "check_expr": "true" }] },
              "backend": [{ "url_pattern": "/echo" }] } ] });
    let made = cli(
        &["import", "krakend", "krakend.json"],
        &Setup::default().file("krakend.json", document.to_string()),
    );
    assert_eq!(made.code, Some(0), "{made:?}");
    let own_admin = format!("{}\nadmin: {{ address: \"127.0.0.1:0\" }}\n", made.stdout);
    let gateway = Setup::new(own_admin).start().await;
    let json = async |target: &str| gateway.get(target).send().await.json();
    let plain = json("/plain/ada?x=1").await;
    assert_eq!(
        (&plain["path"], plain["query"].as_str().unwrap_or_default()),
        (&json!("/echo/ada"), ""),
        "{plain}"
    );
    let all = json("/all/ada?x=1").await;
    assert_eq!(all["query"], "x=1", "{all}");
    let merged = json("/merged/ada").await;
    assert_eq!(
        merged,
        json!({ "first": "/echo/ada", "second": { "path": "/echo/other", "method": "GET" } })
    );
    let chain = json("/chain/ada").await;
    assert_eq!(
        chain,
        json!({ "one": { "how": "GET" }, "two": { "path": "/echo/GET" } })
    );
    assert_eq!(
        gateway.get("/shut").send().await.status,
        403,
        "a guard without a counterpart closes the route"
    );
}

#[test]
fn a_description_becomes_a_good_config_that_has_its_operations() {
    let config = made("openapi", "openapi.yaml", "openapi.config.yaml");
    let setup = with_files(&config).file("api.yaml", fs::read(fixture("openapi.yaml")).expect("it is there"));
    let checked = cli(&["check", "-q", "--against", "api.yaml"], &setup);
    // Client certificates need TLS, which a description does not tell.
    assert!(
        checked.code == Some(0) || checked.stderr.contains("client_ca_file"),
        "{checked:?}"
    );
}

#[test]
fn routes_and_operations_without_each_other_are_listed() {
    let top = "listeners: { public: { address: \"127.0.0.1:0\" } }\ncallers: { anonymous: { by: client_address } }\n";
    let route = |matches: &str| {
        format!("{{ match: {matches}, access: {{ any_of: [anonymous] }}, respond: {{ status: 204 }} }}")
    };
    let config = Config::with(top)
        .route("user", &route("{ path: \"/v1/users/{id}\", methods: [GET, PUT] }"))
        .route("me", &route("{ path: /v1/users/me, methods: [GET] }"))
        .route("files", &route("{ prefix: /v1/files }"))
        .route(
            "versioned",
            &route("{ path: /v1/versioned, headers: { x-version: \"2\" } }"),
        );
    let api = r#"
openapi: "3.0.3"
info: { title: t, version: "1" }
servers: [{ url: /v1 }]
paths:
  /users/{id}: { get: { operationId: user }, delete: { operationId: dropUser } }
  /users/me: { put: { operationId: putMe } }
  /files/{name}: { get: {}, post: {} }
  /versioned: { get: {} }
"#;
    let setup = Setup::new(config.to_string()).file("api.yaml", api);
    let checked = cli(&["check", "-q", "--against", "api.yaml"], &setup);
    assert_eq!(checked.code, Some(1), "{checked:?}");
    let expected = "gateway.yaml: good: 4 routes, 0 backends

api.yaml: 6 operations, 2 without a route, 2 routes with more than the operations

Operations without a route

  DELETE  /v1/users/{id}  dropUser
  PUT     /v1/users/me  putMe

Routes without an operation

  user  PUT /v1/users/{id}
  me  GET /v1/users/me
";
    assert_eq!(checked.stdout, expected);
    let wrong = cli(&["check", "-q", "--against", "gateway.yaml"], &setup);
    assert!(
        wrong.code == Some(1) && wrong.stderr.contains("this is no OpenAPI description"),
        "{wrong:?}"
    );
}

#[test]
fn a_template_says_what_to_do() {
    let setup = Setup::default().file("krakend.json", "{ \"endpoints\": [ {{ template \"x\" }} ] }");
    let made = cli(&["import", "krakend", "krakend.json"], &setup);
    assert_eq!(made.code, Some(1));
    assert!(made.stderr.contains("render it first"), "{}", made.stderr);
}

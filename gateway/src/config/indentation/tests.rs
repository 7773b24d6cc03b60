//! Tests the hints for keys in the wrong column.

use std::path::Path;

use crate::config::parse;

/// Checks the hints for a config with wrong indentation.
#[track_caller]
fn check(config: &str, expected: &[&str]) {
    let invalid = parse("gateway.yaml", config, Path::new("."), &|_| None).expect_err(config);
    let hints: Vec<_> = invalid
        .mistakes
        .sorted()
        .into_iter()
        .filter_map(|mistake| mistake.hint.as_deref())
        .collect();
    for hint in expected {
        assert!(hints.contains(hint), "{hint}\n{invalid}");
    }
}

#[test]
fn keys_too_far_to_the_left() {
    check(
        "listeners:\n  public:\n  address: 0.0.0.0:80\nroutes:\n  r: { match: { path: / }, respond: {} }\n",
        &[
            "nothing stands under it: indent what belongs to it",
            "`public` above it has nothing under it: indent `address` if it belongs there",
        ],
    );
    check(
        "listeners:\n  p: { address: 0.0.0.0:80 }\nroutes:\nr:\n  match: { path: / }\n  respond: {}\n",
        &["`routes` above it has nothing under it: indent `r` if it belongs there"],
    );
    check(
        "listeners:\n  p: { address: 0.0.0.0:80 }\nroutes:\nfirst:\n  match: { path: / }\nsecond:\n  match: { path: /b }\n",
        &[
            "`routes` above it has nothing under it: indent `first` if it belongs there",
            "`routes` above it has nothing under it: indent `second` if it belongs there",
        ],
    );
    check(
        "listeners:\n  p: { address: 0.0.0.0:80 }\nroutes:\n  r:\n    match:\n    path: /\n    methods: [GET]\n    respond: {}\n",
        &[
            "`match` above it has nothing under it: indent `path` if it belongs there",
            "`match` above it has nothing under it: indent `methods` if it belongs there",
        ],
    );
    check(
        "listeners:\n  p: { address: 0.0.0.0:80 }\nroutes:\n  r: { match: { path: / }, backend: b }\nbackends:\n  b:\n  endpoints: [{ url: \"http://h\" }]\n",
        &["`b` above it has nothing under it: indent `endpoints` if it belongs there"],
    );
}

#[test]
fn keys_too_far_to_the_right() {
    check(
        "listeners:\n  p:\n    address: 0.0.0.0:80\n  routes:\n    r: { match: { path: / }, respond: {} }\n",
        &["`routes` stands within `listeners`: indent it less"],
    );
    check(
        "listeners: { p: { address: 0.0.0.0:80 } }\nroutes:\n  r:\n    match:\n      path: /\n      respond: {}\n",
        &["`respond` is a key of `routes.r`: indent it less"],
    );
    check(
        "listeners: { p: { address: 0.0.0.0:80 } }\nbackends:\n  b:\n    bulkhead:\n      limit: 1\n      endpoints: [{ url: \"http://h\" }]\nroutes:\n  r: { match: { path: / }, backend: b }\n",
        &[
            "`endpoints` stands within `bulkhead`: indent it less",
            "`endpoints` is a key of `backends.b`: indent it less",
        ],
    );
    check(
        "listeners: { p: { address: 0.0.0.0:80 } }\nadmin:\n  address: 127.0.0.1:1\n  access_log: off\nroutes:\n  r: { match: { path: / }, respond: {} }\n",
        &["`access_log` is a key of the config: indent it less"],
    );
}

#[test]
fn keys_of_another_section() {
    check(
        "listeners: { p: { address: 0.0.0.0:80 } }\nbackends: { b: { endpoints: [{ url: \"http://h\" }], min_calls: 5, queue: 3 } }\nroutes:\n  r: { match: { path: / }, backend: b, allow: [10.0.0.0/8] }\n",
        &[
            "`min_calls` is a key of `backends.b.breaker`",
            "`queue` is a key of `backends.b.bulkhead`",
        ],
    );
    check(
        "listeners: { p: { address: 0.0.0.0:80 } }\nbackends: { b: { endpoints: [{ url: \"http://h\" }], breaker: { tenant_share: 0.5 } } }\nroutes: { r: { match: { path: / }, backend: b } }\n",
        &["`tenant_share` is a key of `backends.b.bulkhead`"],
    );
}

#[test]
fn lines_that_yaml_cannot_make_sense_of() {
    let head = "listeners: { p: { address: 0.0.0.0:80 } }\nroutes:\n  users:\n    match: { path: / }\n";
    check(
        &format!("{head}   respond: {{}}\n"),
        &[
            "it is indented by 3 spaces, what is above it by 2 spaces or 4 spaces: the indentation says what belongs together",
        ],
    );
    check(
        &format!("{head}     respond: {{}}\n"),
        &["it is indented by 5 spaces, what is above it by 4 spaces: the indentation says what belongs together"],
    );
    check(
        &format!("{head}    respond: {{}}\n orders:\n    match: {{ path: /o }}\n"),
        &[
            "it is indented by 1 space, what is above it by 0 spaces or 2 spaces: the indentation says what belongs together",
        ],
    );
    check(
        "backends:\n  b:\n    endpoints:\n    - url: http://a\n      weight: 1\n     - url: http://b\n",
        &[
            "it is indented by 5 spaces, what is above it by 4 spaces or 6 spaces: the indentation says what belongs together",
        ],
    );
    check(
        "backends:\n  b:\n    endpoints:\n      - url: http://a\n      bulkhead: { limit: 1 }\n",
        &[
            "it is in line with the list above it: indent it by 4 spaces if it does not belong there, or begin it with `- `",
        ],
    );
    check(
        "routes:\n\tusers: {}\n",
        &["indent with spaces: YAML does not take tabs"],
    );
}

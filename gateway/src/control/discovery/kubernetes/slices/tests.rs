use fixtures::kubernetes as written;
use serde_json::{Value, json};

use super::*;

fn slice(written: &Value) -> Slice {
    let mut written = written.clone();
    written["metadata"]["resourceVersion"] = "1".into();
    Slice::of(json::typed(written.to_string().as_bytes(), MAX_LINE).unwrap()).unwrap()
}

fn named(port: &str) -> SlicePort {
    SlicePort::Name(port.into())
}

fn merged<'s>(port: SlicePort, written: impl IntoIterator<Item = &'s written::Slice>) -> Slices {
    let mut slices = Slices::new(port);
    written
        .into_iter()
        .for_each(|written| slices.put(slice(written.value())));
    slices
}

/// Returns the members, with a `*` behind those that only serve.
fn members(slices: &Slices) -> Vec<String> {
    let text = |(address, readiness): &(SocketAddr, Readiness)| match readiness {
        Readiness::Ready => address.to_string(),
        Readiness::Serving => format!("{address}*"),
    };
    slices.members().iter().map(text).collect()
}

#[test]
fn conditions_say_whether_an_endpoint_gets_calls() {
    use Readiness::{Ready, Serving};
    let check = |conditions: Value, expected: Option<Readiness>| {
        let found: Conditions = serde_json::from_value(conditions.clone()).unwrap();
        assert_eq!(found.readiness(), expected, "{conditions}");
    };
    check(json!({}), Some(Ready));
    check(
        json!({ "ready": null, "serving": null, "terminating": null }),
        Some(Ready),
    );
    check(json!({ "ready": true }), Some(Ready));
    check(
        json!({ "ready": true, "serving": true, "terminating": false }),
        Some(Ready),
    );
    // A service that publishes endpoints that are not ready says this.
    check(
        json!({ "ready": true, "serving": false, "terminating": true }),
        Some(Ready),
    );
    check(
        json!({ "ready": false, "serving": true, "terminating": true }),
        Some(Serving),
    );
    check(json!({ "ready": false, "serving": false, "terminating": true }), None);
    check(json!({ "ready": false, "serving": true, "terminating": false }), None);
    check(json!({ "ready": false, "terminating": true }), None);
    check(json!({ "ready": false }), None);
}

#[test]
fn a_port_is_found_by_its_name_or_number() {
    let check = |ports: Value, port: SlicePort, expected| {
        let ports: Option<Vec<WrittenPort>> = serde_json::from_value(ports.clone()).unwrap();
        assert_eq!(within(&port, ports.as_deref()), expected, "{ports:?} {port:?}");
    };
    let two = || json!([{ "name": "web", "port": 8080 }, { "name": "admin", "port": 9000, "protocol": "TCP" }]);
    check(two(), named("web"), Some(8080));
    check(two(), named("admin"), Some(9000));
    check(two(), named("http"), None);
    check(two(), SlicePort::Number(9000), Some(9000));
    check(two(), SlicePort::Number(80), None);
    check(json!([{ "port": 8080 }]), named(""), Some(8080));
    check(
        json!([{ "name": "web", "port": 8080, "protocol": "UDP" }]),
        named("web"),
        None,
    );
    check(
        json!([{ "name": "web", "port": 8080, "protocol": "UDP" }]),
        SlicePort::Number(8080),
        None,
    );
    check(json!([{ "name": "web" }]), named("web"), None);
    check(json!([{ "name": "web", "port": 0 }]), named("web"), None);
    // No port is restricted.
    check(json!([]), SlicePort::Number(8080), Some(8080));
    check(json!(null), SlicePort::Number(8080), Some(8080));
    check(json!(null), named("web"), None);
}

#[test]
fn slices_are_merged_and_an_endpoint_in_two_counts_once() {
    let new = |name| written::Slice::new(name, "users").port("http", 80);
    let slices = merged(
        named("http"),
        &[
            new("a").ready("10.0.0.2").ending("10.0.0.3").unready("10.0.0.4"),
            new("b").ready("10.0.0.3").ready("10.0.0.2").ending("10.0.0.1"),
            new("c").family("IPv6").ready("fd00::1").ready("10.0.0.9"),
            new("d").family("FQDN").ready("users.example.com"),
            written::Slice::new("e", "users").port("other", 81).ready("10.0.0.8"),
        ],
    );
    let expected = ["10.0.0.2:80", "10.0.0.3:80", "[fd00::1]:80", "10.0.0.1:80*"];
    assert_eq!(members(&slices), expected);
}

#[test]
fn a_changed_slice_replaces_the_earlier_one() {
    let new = || written::Slice::new("a", "users").port("http", 80);
    let mut slices = merged(named("http"), &[new().ready("10.0.0.1"), new().ready("10.0.0.2")]);
    assert_eq!(members(&slices), ["10.0.0.2:80"]);
    slices.remove("b");
    assert_eq!(members(&slices), ["10.0.0.2:80"]);
    slices.remove("a");
    assert!(slices.members().is_empty());
}

#[test]
fn only_the_first_address_counts_and_only_if_it_can_be_reached() {
    let check = |family: &str, addresses: Value, expected: &[&str]| {
        let mut written = written::Slice::new("a", "users")
            .port("http", 80)
            .family(family)
            .value()
            .clone();
        written["endpoints"] = json!([{ "addresses": addresses }]);
        let mut slices = Slices::new(named("http"));
        slices.put(slice(&written));
        assert_eq!(members(&slices), expected, "{written}");
    };
    check("IPv4", json!(["10.0.0.1", "10.0.0.2"]), &["10.0.0.1:80"]);
    check("IPv4", json!(["fd00::1"]), &[]);
    check("IPv6", json!(["10.0.0.1"]), &[]);
    check("IPv6", json!(["fd00::1"]), &["[fd00::1]:80"]);
    check("IPv4", json!(["0.0.0.0"]), &[]);
    check("IPv4", json!(["224.0.0.1"]), &[]);
    check("IPv4", json!(["users"]), &[]);
    check("IPv4", json!([]), &[]);
    check("IPv4", json!(null), &[]);
    check("IPv9", json!(["10.0.0.1"]), &[]);
}

#[test]
fn it_is_said_why_there_are_no_members() {
    let new = |name| written::Slice::new(name, "users");
    let check = |slices: &[written::Slice], expected: &str| {
        let slices = merged(named("http"), slices);
        assert!(slices.members().is_empty());
        assert_eq!(slices.why_none(), expected);
    };
    check(&[], "there is no EndpointSlice of this service");
    check(&[new("a").port("http", 80)], "this service has no endpoints");
    let unready = new("a").port("http", 80).unready("10.0.0.1").unready("10.0.0.2");
    check(&[unready], "none of the 2 endpoints of this service is ready");
    check(
        &[new("a").port("web", 80).port("", 81).ready("10.0.0.1")],
        "no endpoint has the port `http`; there are `web` (80), 81",
    );
    check(
        &[new("a").family("FQDN").ready("users.example.com")],
        "the endpoints of this service have names, not addresses",
    );
}

#[test]
fn endpoints_and_slices_are_bounded() {
    let mut large = written::Slice::new("large", "users").port("http", 80);
    for number in 0..MOST_IN_SLICE + 7 {
        large = large.ready(&format!("10.0.{}.{}", number / 250, number % 250));
    }
    let mut slices = merged(named("http"), &[large]);
    assert_eq!((slices.members().len(), slices.left_out()), (MOST_IN_SLICE, 7));
    for number in 0..MOST_SLICES + 5 {
        slices.put(slice(written::Slice::new(&format!("s{number}"), "users").value()));
    }
    assert_eq!((slices.by_name.len(), slices.left_out()), (MOST_SLICES, 8));
}

#[test]
fn events_are_read() {
    let read = |event: &str| Event::read(&Bytes::copy_from_slice(event.as_bytes()));
    let object = r#"{"metadata":{"name":"a","resourceVersion":"7"},"addressType":"IPv4","endpoints":null}"#;
    let put = |kind: &str| read(&format!(r#"{{"type":"{kind}","object":{object}}}"#));
    for kind in ["ADDED", "MODIFIED"] {
        assert!(matches!(put(kind), Ok(Event::Put(slice)) if slice.name == "a" && slice.version == "7"));
    }
    assert!(matches!(put("DELETED"), Ok(Event::Deleted { name, version }) if name == "a" && version == "7"));
    assert!(matches!(put("BOOKMARK"), Ok(Event::Bookmark { version }) if version == "7"));
    assert!(matches!(put("SYNC"), Ok(Event::Unknown)));
    let error = read(r#"{"object":{"kind":"Status","code":410,"message":"old"},"type":"ERROR"}"#);
    assert!(matches!(error, Ok(Event::Error { code: 410, message }) if message == "old"));
    let check = |event: &str, expected: &str| {
        let found = read(event).unwrap_err();
        assert!(found.contains(expected), "{event}: {found}");
    };
    check("", "JSON");
    check("{\"type\":\"ADDED\"", "JSON");
    check("[]", "an event has no `type`");
    check(r#"{"type":"ADDED"}"#, "an event has no `object`");
    check(r#"{"type":"ADDED","object":7}"#, "invalid type");
    check(
        r#"{"type":"ADDED","object":{"metadata":{},"addressType":"IPv4"}}"#,
        "it has no `name`",
    );
    check(
        r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":""}}}"#,
        "it has no `resourceVersion`",
    );
    check(r#"{"type":"ADDED","type":"ADDED","object":{}}"#, "");
    let long = "x".repeat(MAX_TEXT + 1);
    check(
        &format!(r#"{{"type":"BOOKMARK","object":{{"metadata":{{"resourceVersion":"{long}"}}}}}}"#),
        "its `resourceVersion` is too long",
    );
}

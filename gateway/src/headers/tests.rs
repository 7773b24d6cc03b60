use std::time::Duration;

use http::HeaderValue;
use proptest::prelude::*;

use crate::headers::*;

pub(crate) fn map(lines: &[(&str, &str)]) -> FieldMap {
    let mut headers = FieldMap::new();
    for (name, value) in lines {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
    }
    headers
}

pub(crate) fn lines(headers: &FieldMap, name: &str) -> Vec<String> {
    headers
        .get_all(name)
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .collect()
}

fn via() -> Via {
    Via::new("edge-1").expect("a token")
}

pub(crate) fn why<T: std::fmt::Debug>(result: Result<T, Rejection>) -> &'static str {
    match result {
        Err(Rejection::MalformedRequest { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

/// Returns the names that are left of a request in alphabetical order, without the `via` that is added.
fn cleaned(given: &[(&str, &str)], trusted_peer: bool) -> Vec<String> {
    let mut headers = map(given);
    clean_request(
        &mut headers,
        Version::HTTP_11,
        trusted_peer,
        MethodOverride::Strip,
        &via(),
    )
    .expect("well formed");
    headers.remove(VIA);
    names(&headers)
}

fn names(headers: &FieldMap) -> Vec<String> {
    let mut names: Vec<_> = headers.keys().map(ToString::to_string).collect();
    names.sort_unstable();
    names
}

#[test]
fn hop_by_hop_and_identity_fields_go() {
    let given = [
        ("host", "a"),
        ("accept", "*/*"),
        ("connection", "keep-alive, X-Custom, x-custom2"),
        ("x-custom", "1"),
        ("x-custom2", "1"),
        ("x-custom2", "2"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "close"),
        ("te", "trailers"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("proxy-authorization", "Basic x"),
        ("expect", "100-Continue"),
        ("x-tenant", "evil"),
        ("x-tenant-id", "evil"),
        ("x_tenant_id", "evil"),
        ("x-user-id", "root"),
        ("x-gateway-reason", "no"),
        ("x-caller-id", "root"),
        ("proxy", "http://evil"),
        ("trailer", "x-sum"),
        ("authorization", "Bearer x"),
        ("x-forwarded-for", "6.6.6.6"),
        ("forwarded", "for=6.6.6.6"),
        ("x-real-ip", "6.6.6.6"),
        ("x-original-url", "/admin"),
        ("x_forwarded_for", "6.6.6.6"),
        ("content_length", "40"),
    ];
    assert_eq!(cleaned(&given, false), ["accept", "authorization", "host", "trailer"]);
    let proxied = [
        "forwarded",
        "host",
        "trailer",
        "x-forwarded-for",
        "x-original-url",
        "x-real-ip",
    ];
    assert_eq!(
        cleaned(&given, true),
        [&["accept", "authorization"][..], &proxied[..]].concat()
    );
}

#[test]
fn connection_cannot_name_away_what_matters() {
    let named =
        "Host, content-length, AUTHORIZATION, content-type, x-forwarded-for, x-request-id, close, via, x-b,, \t";
    let given = [
        ("connection", named),
        ("host", "a"),
        ("content-length", "3"),
        ("authorization", "x"),
        ("content-type", "a/b"),
        ("x-forwarded-for", "1.2.3.4"),
        ("x-request-id", "7"),
        ("x-b", "1"),
        ("x-c", "1"),
        ("connection", "a b, \u{e9}"),
    ];
    let expected = [
        "authorization",
        "content-length",
        "content-type",
        "host",
        "x-c",
        "x-forwarded-for",
        "x-request-id",
    ];
    assert_eq!(cleaned(&given, true), expected);
}

#[test]
fn via_is_added_and_a_loop_is_refused() {
    let mut headers = map(&[("via", "1.0 fred, 1.1 edge-2")]);
    clean_request(&mut headers, Version::HTTP_2, false, MethodOverride::Strip, &via()).expect("no loop");
    assert_eq!(lines(&headers, "via"), ["1.0 fred, 1.1 edge-2", "2.0 edge-1"]);
    assert!(
        why(clean_request(
            &mut headers,
            Version::HTTP_11,
            true,
            MethodOverride::Strip,
            &via()
        ))
        .contains("loop")
    );
    for looped in ["1.1 edge-1", "1.1 a, HTTP/1.1\tEDGE-1 (us)"] {
        assert!(
            why(clean_request(
                &mut map(&[("via", looped)]),
                Version::HTTP_11,
                true,
                MethodOverride::Strip,
                &via()
            ))
            .contains("loop")
        );
    }
    assert!(Via::new("a b").is_none() && Via::new("").is_none());
    assert_ne!(Via::unique().pseudonym(), Via::unique().pseudonym());
}

#[test]
fn expectations_are_met_or_refused() {
    let check = |version, value| {
        clean_request(
            &mut map(&[("expect", value)]),
            version,
            false,
            MethodOverride::Strip,
            &via(),
        )
    };
    assert!(check(Version::HTTP_11, "100-continue").is_ok());
    assert!(check(Version::HTTP_10, "the-unexpected").is_ok());
    assert!(why(check(Version::HTTP_11, "the-unexpected")).contains("expectation"));
}

#[test]
fn answers_are_cleaned_too() {
    let mut headers = map(&[
        ("connection", "close, x-internal"),
        ("x-internal", "1"),
        ("keep-alive", "timeout=1"),
        ("x-gateway-reason", "lie"),
        ("transfer-encoding", "chunked"),
        ("etag", "a"),
        ("set-cookie", "a"),
        ("set-cookie", "b"),
        ("via", "1.1 backend"),
    ]);
    clean_response(&mut headers, Version::HTTP_11, &via()).expect("well formed");
    assert_eq!(names(&headers), ["etag", "set-cookie", "set-cookie", "via", "via"]);
    assert_eq!(lines(&headers, "set-cookie"), ["a", "b"]);
    assert_eq!(lines(&headers, "via"), ["1.1 backend", "1.1 edge-1"]);
    let coded = clean_response(
        &mut map(&[("transfer-encoding", "gzip, chunked")]),
        Version::HTTP_11,
        &via(),
    );
    assert_eq!(coded, Err(UnsupportedCoding));
}

#[test]
fn wishes_are_read_before_their_fields_go() {
    let given = [
        ("x-attempt", "2"),
        ("te", "gzip;q=1, Trailers"),
        ("x-request-timeout-ms", "5"),
    ];
    let hints = |trusted| {
        clean_request(
            &mut map(&given),
            Version::HTTP_11,
            trusted,
            MethodOverride::Strip,
            &via(),
        )
        .expect("well formed")
    };
    let deadline = Some(Duration::from_millis(5));
    assert_eq!(
        hints(true),
        RequestHints {
            deadline,
            is_retry: true,
            trailers: true,
            expects: false,
        }
    );
    assert_eq!(
        hints(false),
        RequestHints {
            deadline,
            is_retry: false,
            trailers: true,
            expects: false,
        }
    );
}

proptest! {
    #![proptest_config(cases::counted())]

    #[test]
    fn nothing_doomed_is_left(
        fields in prop::collection::vec((
            prop_oneof![
                "(connection|keep-alive|te|upgrade|proxy-connection|transfer-encoding|x-forwarded-for|forwarded)",
                "(x[-_.~]tenant[-_.!]id|x[-_|]user|x[-_^]gateway[-_][a-z]{1,3}|x[-_]caller[-_*]id|x-a|x-b|host|content-length)",
                "[a-z_-]{1,12}",
            ],
            "[ -~]{0,20}|(x-a|X-B|host|close|te|content-length)(, ?(x-b|keep-alive|authorization)){0,2}",
        ), 0..16),
        trusted in any::<bool>(),
    ) {
        let given: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let before = map(&given);
        let mut after = before.clone();
        if clean_request(&mut after, Version::HTTP_10, trusted, MethodOverride::Strip, &via()).is_ok() {
            for name in after.keys() {
                let name = name.as_str().replace(|sign: char| !sign.is_ascii_alphanumeric(), "-");
                let hop = ["connection", "keep-alive", "te", "upgrade", "proxy-connection", "transfer-encoding"];
                prop_assert!(!hop.contains(&name.as_str()) && !name.starts_with("x-gateway-"), "{}", name);
                prop_assert!(!["x-tenant-id", "x-user", "x-caller-id"].contains(&name.as_str()), "{}", name);
                prop_assert!(trusted || !["x-forwarded-for", "forwarded"].contains(&name.as_str()), "{}", name);
                prop_assert!(["x-a", "x-b"].iter().all(|named| name != *named || !lists(&before, &CONNECTION, named)));
            }
            for kept in ["host", "content-length"] {
                prop_assert_eq!(lines(&before, kept), lines(&after, kept));
            }
        }
    }
}

#[test]
fn another_method_is_never_asked_for() {
    for name in [
        "x-http-method-override",
        "X-HTTP-Method",
        "x-method-override",
        "x_http_method_override",
    ] {
        let clean = |policy| {
            let mut headers = map(&[(&name.to_lowercase(), "DELETE"), ("x-other", "1")]);
            let result = clean_request(&mut headers, Version::HTTP_11, true, policy, &via());
            (result, headers)
        };
        let (refused, _) = clean(MethodOverride::Reject(SettingId::URI));
        let setting = refused.as_ref().err().and_then(Rejection::setting);
        assert_eq!(setting, Some(SettingId::URI));
        assert!(why(refused).contains("another method"), "{name}");
        let (stripped, headers) = clean(MethodOverride::Strip);
        assert!(stripped.is_ok());
        assert_eq!(headers.len(), 2, "{headers:?}");
        assert!(headers.contains_key("x-other") && headers.contains_key("via"));
    }
}

#[test]
fn trailers_say_nothing_that_fields_may_not() {
    let check = |given: &[(&str, &str)], left: &[&str]| {
        let mut trailers = map(given);
        clean_trailers(&mut trailers);
        let names: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, left, "{given:?}");
    };
    check(&[("digest", "x"), ("grpc-status", "0")], &["digest", "grpc-status"]);
    check(
        &[
            ("x-tenant-id", "a"),
            ("x-gateway-reason", "b"),
            ("x-forwarded-for", "c"),
        ],
        &[],
    );
    check(
        &[("authorization", "Bearer x"), ("cookie", "a=b"), ("x-t", "d")],
        &["x-t"],
    );
    for early in [
        "content-type",
        "content-encoding",
        "range",
        "if-match",
        "cache-control",
        "max-forwards",
    ] {
        check(&[(early, "x")], &[]);
    }
    for framing in [
        "content-length",
        "transfer-encoding",
        "host",
        "trailer",
        "te",
        "connection",
    ] {
        check(&[(framing, "x")], &[]);
    }
    for ours in [
        "via",
        "x-request-id",
        "x_request_id",
        "traceparent",
        "tracestate",
        "grpc-timeout",
    ] {
        check(&[(ours, "x")], &[]);
    }
}

#[test]
fn cookies_are_one_field() {
    let joined = |version, given: &[(&str, &str)]| {
        let mut headers = map(given);
        join_cookies(version, &mut headers);
        lines(&headers, "cookie")
    };
    let crumbs = [("cookie", "a=b"), ("cookie", "c=d"), ("x", "y"), ("cookie", "e=f")];
    assert_eq!(joined(Version::HTTP_2, &crumbs), ["a=b; c=d; e=f"]);
    assert_eq!(joined(Version::HTTP_2, &crumbs[..1]), ["a=b"]);
    assert_eq!(joined(Version::HTTP_11, &crumbs).len(), 3);
}

use std::sync::Arc;

use http::HeaderValue;
use proptest::prelude::*;
use serde_json::{Value, json};
use smallvec::smallvec;

use super::*;
use crate::json::Paths;

/// Renders `template` with one value in every source: `value` is the claim `v`, the route is `/users/{id}/{*rest}`.
fn render(template: &str, place: Syntax, value: Value) -> Result<String, Missing> {
    let names: [Box<str>; 2] = ["id".into(), "rest".into()];
    let raw = "/a%20b%2Fc/x/y%3F/";
    let captures = Captures::new(raw, &names, smallvec![1..10, 11..18]);
    let claims = json!({ "v": value, "deep": { "list": [1, { "x": "two" }] }, "n": 1.50, "yes": true });
    let claims = Document::of(&claims);
    let template = Template::parse(template, place).expect("the template is well formed");
    let wanted = template.uses().filter_map(|used| match used {
        Placeholder::Part { steps, .. } => Some(&**steps),
        _ => None,
    });
    let part = Document::of(&json!({ "account": 12_345_678_901_234_567_890_u64, "none": null }));
    let part = Selection::of(&part, &Arc::new(Paths::new(wanted)));
    let mut headers = FieldMap::new();
    headers.insert("x-plain", HeaderValue::from_static("a/b c"));
    let sources = Sources {
        captures: &captures,
        query: &Query::new(Some("q=1%262&q=no&s=a+b")),
        headers: &headers,
        claims: Some(&claims),
        parts: &|name| (name == "user").then_some(&part),
        body: None,
        item: None,
        defaults: &[],
    };
    let mut out = String::from(">");
    let result = template.render(&sources, &mut out);
    result
        .map(|()| out[1..].to_owned())
        .inspect_err(|_| assert_eq!(out, ">", "a failed rendering leaves nothing"))
}

#[test]
fn a_value_is_spelt_for_its_place() {
    let check = |template, place, expected: &str| {
        assert_eq!(
            render(template, place, json!("v")).as_deref(),
            Ok(expected),
            "{template}"
        );
    };
    check("/plain", Syntax::Path, "/plain");
    check("/v1/{path.id}", Syntax::Path, "/v1/a%20b%2Fc");
    check("/v1/{path.rest}", Syntax::Path, "/v1/x/y%3F/");
    check(
        "/v1?id={path.id}&r={path.rest}",
        Syntax::Path,
        "/v1?id=a%20b%2Fc&r=x%2Fy%3F%2F",
    );
    check("/{header.x-plain}", Syntax::Path, "/a%2Fb%20c");
    check("/o?q={query.q}&s={query.s}", Syntax::Path, "/o?q=1%262&s=a%20b");
    check("user={path.id}", Syntax::Query, "user=a%20b%2Fc");
    check("/{claim.deep.list.0}/{claim.deep.list.1.x}", Syntax::Path, "/1/two");
    check("/{claim.n}/{claim.yes}", Syntax::Path, "/1.5/true");
    check("/{part.user.account}", Syntax::Path, "/12345678901234567890");
    check("id {path.id}, {{literal}}", Syntax::Header, "id a b/c, {literal}");
    check(
        r#"{{"id": "{path.id}", "n": {part.user.account}}}"#,
        Syntax::Json,
        r#"{"id": "a b/c", "n": 12345678901234567890}"#,
    );
    check(r#"[{path.id}, {claim.yes}]"#, Syntax::Json, r#"["a b/c", true]"#);
    check(r#"["\"{claim.v}", {claim.v}]"#, Syntax::Json, r#"["\"v", "v"]"#);
}

#[test]
fn a_value_never_leaves_its_hole() {
    let check = |template, place, value: &str, expected: Option<&str>| {
        assert_eq!(
            render(template, place, json!(value)).ok().as_deref(),
            expected,
            "{value:?} in {template}"
        );
    };
    check(
        "/a/{claim.v}/b",
        Syntax::Path,
        "x/y?z#%2e",
        Some("/a/x%2Fy%3Fz%23%252e/b"),
    );
    for unfit in [
        "", ".", "..", "..;x", ".;", "x/../y", "../x", "..\\x", "a\0b", "a\r\nb", "a\u{85}b",
    ] {
        check("/a/{claim.v}/b", Syntax::Path, unfit, None);
    }
    check("/a/{claim.v}{claim.v}", Syntax::Path, ".", None);
    // Dots in the template next to a slash in the value.
    for (template, value) in [
        ("/a/b{claim.v}.", "x/"),
        ("/a/b{claim.v}..;x", "x\\"),
        ("/a/b{claim.v}../c?x=1", "/"),
        ("/a/..{claim.v}b", "/x/"),
        ("/a/.{claim.v}b", "\\"),
        ("/a/b{claim.v}.{claim.v}", "/"),
    ] {
        check(template, Syntax::Path, value, None);
    }
    check("/a/v{claim.v}.json", Syntax::Path, "1/x", Some("/a/v1%2Fx.json"));
    check("/a/v{claim.v}..json", Syntax::Path, "1/", Some("/a/v1%2F..json"));
    check("/a/{claim.v}?x=..", Syntax::Path, "x/", Some("/a/x%2F?x=.."));
    check(
        "/a?x={claim.v}&y=1",
        Syntax::Path,
        "1&admin=true#",
        Some("/a?x=1%26admin%3Dtrue%23&y=1"),
    );
    check("/a?x={claim.v}", Syntax::Path, "..", Some("/a?x=.."));
    check("/a?x={claim.v}", Syntax::Path, "", Some("/a?x="));
    check("{claim.v}", Syntax::Header, "a\r\nx-admin: 1", None);
    check("{claim.v}", Syntax::Header, "a\0", None);
    check("{claim.v}", Syntax::Header, "é, \"x\"", Some("%C3%A9, \"x\""));
    check(
        "{claim.v}",
        Syntax::Header,
        "us\u{e9}r-\u{2603}",
        Some("us%C3%A9r-%E2%98%83"),
    );
    check("<{claim.v}>", Syntax::Header, " 50% ", Some("<%2050%25%20>"));
    check("{claim.v}", Syntax::Header, "a\u{85}", None);
    check(
        r#"{{"v": "{claim.v}"}}"#,
        Syntax::Json,
        "\", \"admin\": true, \"",
        Some(r#"{"v": "\", \"admin\": true, \""}"#),
    );
    check(
        r#"{{"v": {claim.v}}}"#,
        Syntax::Json,
        "\\\n\u{7f}",
        Some("{\"v\": \"\\\\\\n\u{7f}\"}"),
    );
}

#[test]
fn what_is_too_long_for_its_place_is_not_spelt_out() {
    let long = json!("x".repeat(64 << 10));
    for (template, place) in [
        ("/{claim.v}", Syntax::Path),
        ("/?a={claim.v}", Syntax::Path),
        ("{claim.v}", Syntax::Header),
    ] {
        let missing = render(template, place, long.clone()).expect_err(template);
        assert_eq!(missing.why, TOO_LONG);
    }
    assert_eq!(
        render("[\"{claim.v}\",{claim.v}]", Syntax::Json, long).map(|text| text.len()),
        Ok((2 << 16) + 7)
    );
}

#[test]
fn text_that_is_no_text_stays_where_json_can_say_it() {
    let claims = Document::check(&r#"{"v":"a\ud800\n"}"#.into(), 100).expect("valid JSON");
    let sources = |template: &str, place| {
        let sources = Sources {
            captures: &Captures::none(),
            query: &Query::new(None),
            headers: &FieldMap::new(),
            claims: Some(&claims),
            parts: &|_| None,
            body: None,
            item: None,
            defaults: &[],
        };
        let mut out = String::new();
        let rendered = Template::parse(template, place)
            .expect(template)
            .render(&sources, &mut out);
        rendered.map(|()| out).map_err(|missing| missing.why)
    };
    assert_eq!(
        sources("[{claim.v},\"{claim.v}\"]", Syntax::Json).as_deref(),
        Ok(r#"["a\ud800\n","a\ud800\n"]"#)
    );
    assert_eq!(sources("/{claim.v}", Syntax::Path), Err(NOT_TEXT));
    assert_eq!(sources("{claim.v}", Syntax::Header), Err(NOT_TEXT));
}

#[test]
fn a_capture_that_ends_in_a_slash_ends_the_path() {
    assert_eq!(
        render("/v1/{path.rest}?x=1", Syntax::Path, Value::Null).as_deref(),
        Ok("/v1/x/y%3F/?x=1")
    );
    let missing = render("/v1/{path.rest}/more", Syntax::Path, Value::Null).expect_err("an empty segment");
    assert_eq!(missing.placeholder, "path.rest");
}

#[test]
fn what_is_not_there_is_named() {
    for placeholder in [
        "path.nobody",
        "query.r",
        "header.x-other",
        "claim.w",
        "claim.v",
        "claim.deep",
        "claim.deep.list",
        "claim.deep.list.7",
        "claim.n.x",
        "part.user",
        "part.user.none",
        "part.user.other",
        "part.orders.x",
    ] {
        let missing = render(&format!("/a/{{{placeholder}}}"), Syntax::Path, Value::Null).expect_err(placeholder);
        assert_eq!(missing.placeholder, placeholder);
    }
}

#[test]
fn mistakes_are_found_when_reading() {
    let check = |text: &str, place, at, why| {
        assert_eq!(
            Template::parse(text, place).expect_err(text),
            TemplateError { at, why },
            "{text}"
        );
    };
    check("users", Syntax::Path, 0, Why::NotAbsolute);
    check("{path.id}", Syntax::Path, 0, Why::NotAbsolute);
    check("/a/{path.id", Syntax::Path, 3, Why::Unclosed);
    check("/a/path.id}", Syntax::Path, 10, Why::Unopened);
    for unknown in [
        "",
        "path",
        "path.",
        "cookie.x",
        "header.a b",
        "claim.a..b",
        "part..x",
        "{path.id",
    ] {
        let text = format!("-{{{unknown}}}");
        assert!(Template::parse(&text, Syntax::Header).is_err(), "{text}");
    }
    check("/a/{cookie.x}", Syntax::Path, 3, Why::Unknown("cookie.x".to_owned()));
    check("/a b", Syntax::Path, 2, Why::Unencoded);
    check("/a#b", Syntax::Path, 2, Why::Unencoded);
    check("/a%zz", Syntax::Path, 2, Why::Unencoded);
    check("/%4{path.id}", Syntax::Path, 1, Why::Unencoded);
    check("/{{a}}", Syntax::Path, 1, Why::Unencoded);
    check("/a/../b", Syntax::Path, 0, Why::DotSegment);
    check("/a/%2E./b", Syntax::Path, 0, Why::DotSegment);
    check("/a/.{path.id}", Syntax::Path, 0, Why::DotSegment);
    check("/a//b", Syntax::Path, 0, Why::EmptySegment);
    check("a\nb", Syntax::Header, 1, Why::NotALine);
    assert!(Template::parse("/a/b/?x=../..", Syntax::Path).is_ok());
}

#[test]
fn every_placeholder_is_listed() {
    let template = Template::parse("/{path.id}?x={part.user.a.0}&y={claim.sub}", Syntax::Path).expect("well formed");
    let names: Vec<_> = template.uses().map(ToString::to_string).collect();
    assert_eq!(names, ["path.id", "part.user.a.0", "claim.sub"]);
}

proptest! {
    #![proptest_config(cases::counted())]

    #[test]
    fn a_rendered_path_has_the_shape_of_its_template(value in any::<String>()) {
        if let Ok(path) = render("/a/{claim.v}/b?c={claim.v}", Syntax::Path, json!(value)) {
            prop_assert_eq!(path.matches('/').count(), 3);
            prop_assert_eq!(path.matches('?').count(), 1);
            prop_assert!(!path.contains(['#', '&', ';', '\\']) && path.bytes().all(|byte| byte.is_ascii_graphic()));
            prop_assert!(http::uri::PathAndQuery::try_from(path).is_ok());
        }
    }

    #[test]
    fn json_stays_what_it_was(value in any::<String>()) {
        let text = render(r#"{{"a": "{claim.v}", "b": {claim.v}}}"#, Syntax::Json, json!(value)).expect("text fits");
        let read: Value = serde_json::from_str(&text).expect("valid JSON");
        prop_assert_eq!(read, json!({ "a": value, "b": value }));
    }

    #[test]
    fn reading_never_panics(text in any::<String>()) {
        for place in [Syntax::Path, Syntax::Query, Syntax::Header, Syntax::Json] {
            let _ = Template::parse(&text, place);
        }
    }
}

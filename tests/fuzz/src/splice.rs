//! Checks that a value stays in its place of a template: no value adds a segment, a parameter, a header line or
//! structure.

use std::sync::Arc;

use gateway::json::{Document, Paths, Selection};
use gateway::message::FieldMap;
use gateway::routing::path::NormalPath;
use gateway::template::{Captures, Placeholder, Query, Sources, Syntax, Template, percent};
use http::HeaderValue;
use serde_json::{Map, Value, json};

/// Checks a flag byte, a line that is the template, and a value.
pub fn check(data: &[u8]) {
    let Some((flags, rest)) = crate::split_flags(data) else {
        return;
    };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let Some((template, value)) = text.split_once('\n') else {
        return;
    };
    let place = [Syntax::Path, Syntax::Query, Syntax::Header][usize::from(flags) % 3];
    let Ok(template) = Template::parse(template, place) else {
        return;
    };
    let (Some(harmless), Some(spliced)) = (render(&template, "x"), render(&template, value)) else {
        return;
    };
    match place {
        Syntax::Path => {
            let (path, query) = spliced.split_once('?').unwrap_or((&spliced, ""));
            let (expected_path, expected_query) = harmless.split_once('?').unwrap_or((&harmless, ""));
            assert_eq!(spliced.contains('?'), harmless.contains('?'), "{spliced}");
            if NormalPath::parse(expected_path).is_ok() {
                // A slash or a backslash within a value stays encoded, so it stays within one segment. If a server
                // decoded it, the path must still not lead upwards.
                let undone = path.replace("%2F", "/").replace("%5C", "/");
                let steps = undone.split('/').map(|step| percent::decode(step).unwrap_or_default());
                assert!(
                    steps.into_iter().all(|step| !percent::is_dot_segment(step.as_bytes())),
                    "{path} leads upwards"
                );
            }
            assert_same(path, expected_path, '/');
            assert_same_query(query, expected_query);
        }
        Syntax::Query => assert_same_query(&spliced, &harmless),
        _ => {
            HeaderValue::from_str(&spliced)
                .or_else(|_| HeaderValue::from_bytes(spliced.as_bytes()))
                .expect("a value made a header impossible");
        }
    }
}

fn assert_same_query(query: &str, expected: &str) {
    for separator in ['&', ';', '#', '=', ' '] {
        assert_same(query, expected, separator);
    }
}

fn assert_same(text: &str, expected: &str, separator: char) {
    assert_eq!(
        text.matches(separator).count(),
        expected.matches(separator).count(),
        "{separator:?} in {text:?}, as against {expected:?}"
    );
}

/// Renders the template; every placeholder gets the same value.
fn render(template: &Template, value: &str) -> Option<String> {
    let names = ["a", "b", "id"];
    let query = names.map(|name| format!("{name}={}", encoded(value))).join("&");
    let mut headers = FieldMap::new();
    if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
        headers.insert("a", value);
    }
    let claims = names.map(|name| (name.to_owned(), Value::from(value)));
    let claims = Document::of(&Map::from_iter(claims));
    let wanted = template.uses().filter_map(|used| match used {
        Placeholder::Part { steps, .. } | Placeholder::Body(steps) | Placeholder::Item(steps) => Some(&**steps),
        _ => None,
    });
    let answer = Document::of(&json!({ "a": value, "b": [value, { "id": value }], "id": value }));
    let answer = Selection::of(&answer, &Arc::new(Paths::new(wanted)));
    let captures = Captures::none();
    let sources = Sources {
        captures: &captures,
        query: &Query::new(Some(&query)),
        headers: &headers,
        claims: Some(&claims),
        parts: &|_| Some(&answer),
        body: Some(&answer),
        item: Some(&answer),
        defaults: &[],
    };
    let mut out = String::new();
    template.render(&sources, &mut out).ok().map(|()| out)
}

fn encoded(value: &str) -> String {
    let mut out = String::new();
    percent::encode(value, &mut out);
    out
}

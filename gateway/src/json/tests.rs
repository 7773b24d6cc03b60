//! Checks the reader with tables and against `serde_json`: the verdicts are equal, except where this reader is
//! stricter, and the values are equal.

use std::sync::Arc;

use bytes::Bytes;
use policies::Moment;
use proptest::prelude::*;

use super::compare::compare;
use super::*;

fn checked(text: &str) -> Result<Document, Refusal> {
    Document::check(&Bytes::copy_from_slice(text.as_bytes()), usize::MAX)
}

fn document(text: &str) -> Document {
    checked(text).unwrap_or_else(|refusal| panic!("{text}: {refusal}"))
}

#[test]
fn one_value_and_nothing_else() {
    let check = |text: &str, expected: Result<&str, Refusal>| {
        let found = checked(text).map(|document| document.value().to_string());
        assert_eq!(found.as_deref(), expected.as_deref(), "{text}");
    };
    for text in [
        "{}",
        "[]",
        "null",
        "true",
        "false",
        "0",
        "-0",
        "1E400",
        "1.0",
        "12345678901234567890",
        "1e-5",
        "0.10E+5",
        "\"\"",
        "\"\u{e9}\u{1F600}\\ud83d\\ude00\"",
        "[[],{},[{\"a\":[]}]]",
        "{\"a\": [1 ,\t2\n]\r, \"b\":{}}",
        "\"\\ud800\"",
        "{\"\":1,\"a\":{\"\":2}}",
    ] {
        check(text, Ok(text));
        check(&format!(" \r\n\t{text} "), Ok(text));
    }
    for text in [
        "",
        " ",
        "{",
        "[",
        "]",
        "}",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{,}",
        "{a:1}",
        "{1:1}",
        "{\"a\":1 \"b\":2}",
        "[}",
        "{]",
        "[1}",
        "{\"a\":1]",
        "{} {}",
        "1 2",
        "01",
        "-",
        "-a",
        "1.",
        ".5",
        "1e",
        "1e+",
        "+1",
        "0x10",
        "1.e5",
        "--1",
        "nul",
        "nulll",
        "True",
        "NaN",
        "Infinity",
        "'a'",
        "\"",
        "\"\\\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"a\nb\"",
        "\u{feff}{}",
        "//",
        "{}//",
        "\u{a0}1",
        "{\"\\ud800\":1}",
        "{\"a\":\"\\ud8\"}",
        "\0",
        "1\0",
    ] {
        check(text, Err(Refusal::NotJson));
    }
    for bytes in [
        &b"\"\xff\""[..],
        b"\xff",
        b"\"\xed\xa0\x80\"",
        b"{\"\xc3\":1}",
        b"1 \x80",
    ] {
        let found = Document::check(&Bytes::from_static(bytes), usize::MAX);
        assert_eq!(found, Err(Refusal::NotJson), "{bytes:?}");
    }
}

#[test]
fn depth_is_counted_and_costs_no_stack() {
    let nested = |open: &str, shut: &str, depth: usize| open.repeat(depth) + "1" + &shut.repeat(depth);
    for (open, shut) in [("[", "]"), ("{\"a\":", "}"), ("[ ", " ]")] {
        assert!(checked(&nested(open, shut, 128)).is_ok());
        for depth in [129, 1_000_000] {
            assert_eq!(checked(&nested(open, shut, depth)), Err(Refusal::TooDeep));
        }
    }
    assert_eq!(checked(&"[".repeat(1_000_000)), Err(Refusal::TooDeep));
    // Many elements, each with the deepest allowed nesting.
    let wide = format!("[{}1]", format!("{},", nested("[", "]", 127)).repeat(1_000));
    assert!(checked(&wide).is_ok());
    let mixed = format!("{}{}{}", "[{\"a\":".repeat(64), "{}", "}]".repeat(64));
    assert_eq!(checked(&mixed), Err(Refusal::TooDeep));
}

#[test]
fn a_name_is_what_it_reads_and_not_how_it_is_written() {
    for (text, name, expected) in [
        (r#"{"\\n": 0, "\n": 1}"#, r"\\n", None),
        (r#"{"\\n": 0, "\n": 1}"#, r"\n", Some("0")),
        (r#"{"\n": 1, "\\n": 0}"#, r"\n", Some("0")),
        (r#"{"\\n": 0, "\n": 1}"#, "\n", Some("1")),
        (r#"{"\u0061": 2}"#, "a", Some("2")),
        (r#"{"\u0061": 2}"#, r"\u0061", None),
        (r#"{"\/": 3}"#, "/", Some("3")),
        (r#"{"\/": 3}"#, r"\/", None),
        (r#"{"\"": 4}"#, "\"", Some("4")),
        (r#"{"\"": 4}"#, r#"\""#, None),
    ] {
        let document = Document::check(&Bytes::from_static(text.as_bytes()), usize::MAX).unwrap();
        let found = document.value().get(name).map(|value| value.raw().to_vec());
        assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{name:?} in {text}");
    }
}

#[test]
fn no_name_stands_twice_in_an_object() {
    let check = |text: &str, distinct: bool| {
        let expected = if distinct { Ok(()) } else { Err(Refusal::DuplicateName) };
        assert_eq!(checked(text).map(drop), expected, "{text}");
    };
    check(r#"{"a":1,"b":[{"a":2},{"a":3}],"c":{"a":{"a":1}}}"#, true);
    check(r#"{"a":1,"a":1}"#, false);
    check(r#"{"a":1,"\u0061":2}"#, false);
    check(r#"{"\u0061":1,"\u0061":2}"#, false);
    check(r#"{"\u0061":1,"a":2}"#, false);
    check(r#"{"\u0041":1,"a":2}"#, true);
    check(r#"{"a/":1,"a\/":2}"#, false);
    check(r#"{"\ud83d\ude00":1,"😀":2}"#, false);
    check(r#"{"":1,"":2}"#, false);
    check(r#"[[{"x":{"a":1,"b":2,"a":3}}]]"#, false);
    check(r#"{"a":{"b":1},"b":{"a":1},"c":{"b":{"\u0062":1},"a":1}}"#, true);
    check(r#"{"x":{"a":1,"\u0061b":2},"a":1,"ab":2,"b":{"ab":1}}"#, true);
    // Objects with many names take another code path. The duplicate may be at any position.
    for count in [15, 16, 17, 18, 100] {
        let names: Vec<String> = (0..count)
            .map(|number| format!("\"n{number:03}\":[{{\"n000\":0}}]"))
            .collect();
        check(&format!("{{{}}}", names.join(",")), true);
        for twice in [0, 1, 14, 15, 16, 17, count - 1] {
            for name in [format!("n{twice:03}"), format!("\\u006e{twice:03}")] {
                for place in [0, count / 2, count] {
                    let mut all = names.clone();
                    all.insert(place, format!("\"{name}\":null"));
                    check(&format!("{{{}}}", all.join(",")), twice >= count);
                }
            }
        }
    }
}

#[test]
fn values_and_bytes_are_bounded() {
    let zeros = |count: usize| Bytes::from(format!("[{}0]", "0,".repeat(count - 1)));
    // The array itself counts as a value.
    assert!(Document::check(&zeros(9_999), 100_000).is_ok());
    assert_eq!(Document::check(&zeros(10_000), 30_000), Err(Refusal::TooLarge));
    assert!(Document::check(&zeros(65_535), 262_144).is_ok());
    assert_eq!(Document::check(&zeros(65_536), 262_144), Err(Refusal::TooLarge));
    assert!(Document::check(&zeros(10), 22).is_ok());
    assert_eq!(Document::check(&zeros(10), 20), Err(Refusal::TooLarge));
}

#[test]
fn values_are_found_as_they_were_written() {
    let document = document(
        r#" { "a" : [ 1.0 , {"b":"x\u0041\n"} , [ ] ] , "\u0063" : -0 , "d,}":true, "~/":null, "1":{"1":[1]}, "u":"\ud800" } "#,
    );
    let value = document.value();
    let check = |steps: &[&str], expected: Option<&str>| {
        let found = value.descend(steps.iter().copied());
        assert_eq!(found.map(|value| value.to_string()).as_deref(), expected, "{steps:?}");
    };
    check(&["a", "0"], Some("1.0"));
    check(&["a", "1", "b"], Some(r#""x\u0041\n""#));
    check(&["a", "2"], Some("[ ]"));
    check(&["a", "3"], None);
    check(&["a", "01"], None);
    check(&["a", "+1"], None);
    check(&["a", "b"], None);
    check(&["c"], Some("-0"));
    check(&["d,}"], Some("true"));
    check(&["1", "1", "0"], Some("1"));
    check(&["c", "0"], None);
    check(&[], Some(&value.to_string()));
    let pointers = [
        ("/a/1/b", true),
        ("/~0~1", true),
        ("/1/1/0", true),
        ("/a/01", false),
        ("a", false),
        ("", true),
    ];
    for (pointer, found) in pointers {
        assert_eq!(value.pointer(pointer).is_some(), found, "{pointer}");
    }
    let get = |name| value.get(name).expect(name);
    assert_eq!(
        get("a").elements().map(Value::kind).collect::<Vec<_>>(),
        [Kind::Number, Kind::Object, Kind::Array]
    );
    assert_eq!(
        get("a")
            .elements()
            .nth(1)
            .and_then(|object| object.get("b")?.text())
            .as_deref(),
        Some("xA\n")
    );
    assert_eq!(
        (get("c").f64(), get("c").number(), get("c").text()),
        (Some(-0.0), Some("-0"), None)
    );
    assert_eq!(
        (get("d,}").bool(), get("~/").is_null(), get("u").text()),
        (Some(true), true, None)
    );
    assert_eq!((get("c").members().count(), get("c").elements().count()), (0, 0));
    let names: Vec<_> = value.members().map(|(name, _)| name.text().into_owned()).collect();
    assert_eq!(names, ["a", "c", "d,}", "~/", "1", "u"]);
}

fn path(dotted: &str) -> Box<[Box<str>]> {
    dotted
        .split('.')
        .filter(|step| !step.is_empty())
        .map(Box::from)
        .collect()
}

#[test]
fn what_is_wanted_is_kept_and_the_rest_is_let_go() {
    let wanted = ["a", "a.1.x", "a.1", "b.\u{e9}", "b.none", "c.0.0", "d.x.y"].map(path);
    let paths = std::sync::Arc::new(Paths::new(wanted.iter().map(AsRef::as_ref)));
    for padding in [0, 10_000] {
        let padding = "x".repeat(padding);
        let text = format!(
            r#"{{"p":"{padding}","a":[0,{{"x":1.50}},2],"q":["{padding}",{{"a":1}}],"b":{{"\u00e9":"y","n":1}},"c":[[7]],"d":{{"x":3}}}}"#
        );
        let document = document(&text);
        let selection = Selection::of(&document, &paths);
        let check = |steps: &str, expected: Option<&str>| {
            let found = selection.get(&path(steps)).map(|value| value.to_string());
            assert_eq!(found.as_deref(), expected, "{steps}");
        };
        check("a", Some(r#"[0,{"x":1.50},2]"#));
        check("a.1", Some(r#"{"x":1.50}"#));
        check("a.1.x", Some("1.50"));
        check("b.\u{e9}", Some(r#""y""#));
        check("b.none", None);
        check("c.0.0", Some("7"));
        check("d.x.y", None);
        check("p", None);
        check("", None);
        let shared = selection.share(selection.get(&path("a.1")).expect("it is there"));
        assert_eq!(shared.value().to_string(), r#"{"x":1.50}"#);
        assert!(selection.size() < 4 << 10, "{}", selection.size());
    }
    let all = std::sync::Arc::new(Paths::new([path(""), path("a")].iter().map(AsRef::as_ref)));
    let text = format!(r#"{{"a":1,"b":"{}"}}"#, "x".repeat(10_000));
    let selection = Selection::of(&document(&text), &all);
    assert_eq!(selection.get(&[]).map(|value| value.to_string()), Some(text));
    assert_eq!(
        selection.get(&path("a")).map(|value| value.to_string()).as_deref(),
        Some("1")
    );
    let nothing = Selection::of(&document("{}"), &std::sync::Arc::default());
    assert!(nothing.get(&[]).is_none());
}

#[test]
fn a_known_form_is_read_or_what_is_wrong_with_it_said() {
    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Form {
        name: String,
    }
    assert_eq!(typed(br#" {"name":"x"} "#, 100), Ok(Form { name: "x".into() }));
    for (text, why) in [
        (r#"{"name":"x","name":"y"}"#, "a name twice"),
        (r#"{"name":"x","n\u0061me":"y"}"#, "a name twice"),
        (r#"{"name":7}"#, "invalid type"),
        (r#"{"other":"x"}"#, "unknown field"),
        ("{", "not JSON"),
    ] {
        let error = typed::<Form>(text.as_bytes(), 100).unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
    }
}

#[test]
fn a_request_finds_only_the_room_that_its_tier_has() {
    let workspace = std::sync::Arc::new(Workspace::new(1));
    let hold = |tenant, room| workspace.reserve(1_000, tenant, (Moment::MAX, None)).up_to(room);
    let (one, two) = (hold(1, 750), hold(2, 750));
    assert_eq!(one.grow(500, 10), Ok(()));
    assert_eq!(two.grow(251, 10), Err(WorkspaceError::Overloaded));
    assert_eq!(two.grow(250, 10), Ok(()));
    assert_eq!(two.has_room(1, 10), Err(WorkspaceError::Overloaded));
    let dear = hold(3, 1_000);
    assert_eq!(dear.grow(250, 10), Ok(()), "what cheap tiers leave");
    assert_eq!(dear.grow(1, 10), Err(WorkspaceError::Overloaded));
}

#[test]
fn a_share_of_the_budget_is_a_tenants_and_another_that_of_long_texts() {
    let workspace = std::sync::Arc::new(Workspace::new(1));
    let limit = 1_000_000;
    let hold = |tenant| workspace.reserve(limit, tenant, (Moment::MAX, None));
    let (one, two, three) = (hold(1), hold(2), hold(3));
    assert_eq!(one.grow(500_000, 10), Ok(()));
    assert_eq!(one.grow(1, 10), Err(WorkspaceError::Overloaded), "half is a tenant's");
    assert_eq!(
        hold(1).grow(1, 10),
        Err(WorkspaceError::Overloaded),
        "of all its requests"
    );
    assert_eq!(hold(1).has_room(1, 10), Err(WorkspaceError::Overloaded));
    assert_eq!(two.has_room(250_000, LONG + 1), Ok(()));
    assert_eq!(two.has_room(250_001, LONG + 1), Err(WorkspaceError::Overloaded));
    assert_eq!(two.grow(250_000, LONG + 1), Ok(()));
    assert_eq!(
        two.grow(1, LONG + 1),
        Err(WorkspaceError::Overloaded),
        "three quarters are for long texts"
    );
    assert_eq!(two.grow(1, LONG), Ok(()));
    assert_eq!(three.grow(250_000, 10), Err(WorkspaceError::Overloaded));
    assert_eq!(three.grow(249_999, 10), Ok(()));
    assert_eq!((workspace.reserved(), workspace.refused()), (limit, 6));
    one.shrink(100_000);
    one.shrink_to(300_000);
    one.shrink_to(400_000);
    assert_eq!(workspace.reserved(), limit - 200_000);
    drop((one, two));
    assert_eq!(workspace.reserved(), 249_999);
    assert_eq!(hold(1).grow(500_000, 10), Ok(()), "it was given back at once");
    drop(three);
    assert_eq!(workspace.reserved(), 0);
}

#[test]
fn a_long_text_is_read_on_another_thread_within_the_time_of_its_request() {
    let workspace = std::sync::Arc::new(Workspace::new(1));
    let thread = || std::thread::current().name().map(str::to_owned);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let reservation = workspace.reserve(1_000, 0, (Moment::MAX, None));
        assert_eq!(reservation.read(LONG, thread).await, Ok(thread()));
        assert_eq!(reservation.read(LONG + 1, thread).await, Ok(Some("json-0".to_owned())));
        // The only thread is busy until after the deadline.
        let (release, held) = std::sync::mpsc::channel::<()>();
        let busy = reservation.read(LONG + 1, move || held.recv().is_ok());
        let late = workspace.reserve(1_000, 0, (Moment::ZERO, None));
        let both = futures_util::future::join(busy, async {
            assert_eq!(late.read(LONG, || 7).await, Ok(7));
            assert_eq!(late.read(LONG + 1, || 7).await, Err(WorkspaceError::OutOfTime(None)));
            release.send(()).expect("it waits");
        });
        assert_eq!(both.await.0, Ok(true));
    });
}

#[test]
fn what_a_long_answer_takes_is_held_until_its_last_byte() {
    let workspace = std::sync::Arc::new(Workspace::new(1));
    let held = |length: usize| {
        let reservation = workspace.reserve(1 << 20, 0, (Moment::MAX, None));
        reservation.grow(400_000, LONG).expect("there is room");
        reservation.keep_for(vec![b' '; length].into())
    };
    drop(held(LONG));
    assert_eq!(workspace.reserved(), 0);
    let long = held(LONG + 1);
    let piece = long.slice(10..20);
    drop(long);
    assert_eq!(workspace.reserved(), LONG as u64 + 1);
    drop(piece);
    assert_eq!(workspace.reserved(), 0);
}

#[test]
fn what_is_gathered_is_reserved_and_bounded() {
    let workspace = std::sync::Arc::new(Workspace::new(1));
    let gathered = |pieces: &[&'static str], limit: usize, budget: u64| {
        let reservation = workspace.reserve(budget, 0, (Moment::MAX, None));
        let frames = pieces
            .iter()
            .map(|piece| Ok::<_, &str>(http_body::Frame::data(Bytes::from_static(piece.as_bytes()))));
        let frames: Vec<_> = frames.collect();
        let body = http_body_util::StreamBody::new(futures_util::stream::iter(frames));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let result = runtime.block_on(gather(body, limit, &reservation));
        (result, workspace.reserved())
    };
    for pieces in [&[][..], &["abc"], &["a", "bc"], &["", "a", "", "b", "c"]] {
        let (whole, reserved) = gathered(pieces, 3, 1_000);
        let whole = whole.expect("it fits");
        assert_eq!((whole.len(), reserved), (pieces.concat().len(), 2 * whole.len() as u64));
        assert_eq!(whole.into_text(), pieces.concat());
    }
    // Long and short pieces keep their order.
    let (long, short) = ("x".repeat(20_000).leak() as &str, "y".repeat(10_000).leak() as &str);
    for pieces in [
        &[
            long, "a", long, "b", "c", short, short, short, short, short, short, short, long,
        ][..],
        &["a", short, short, short, short, short, short, short, short, "b"],
        &["a", long],
        &[long, "a"],
    ] {
        let whole = gathered(pieces, 1 << 20, 1 << 30).0.expect("it fits");
        assert_eq!(whole.len(), pieces.concat().len());
        assert!(whole.into_text() == pieces.concat().as_bytes());
    }
    assert!(matches!(gathered(&["abcd"], 3, 1_000).0, Err(GatherError::TooLong)));
    assert!(matches!(gathered(&["ab", "cd"], 3, 1_000).0, Err(GatherError::TooLong)));
    assert!(matches!(gathered(&["ab", "c"], 3, 11).0, Err(GatherError::Overloaded)));
    assert_eq!(workspace.reserved(), 0);
}

/// Text that is JSON or close to it.
fn nearly() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        prop::sample::select(vec![
            "null",
            "true",
            "false",
            "0",
            "-0",
            "1.0",
            "1e5",
            "1E400",
            "-1.5e-3",
            "12345678901234567890",
            "01",
            "1.",
            "\"\"",
            "\"a\"",
            "\"\\u0061\"",
            "\"\\ud83d\\ude00\"",
            "\"\\ud800\"",
            "\"\\\"\"",
            "\"\u{e9}\"",
            "nul",
            "",
        ])
        .prop_map(str::to_owned),
        "\"[ -~]{0,12}\"",
        "-?[0-9]{1,3}(\\.[0-9]{1,2})?([eE][+-]?[0-9]{1,2})?",
    ];
    let name = prop::sample::select(vec![
        "a",
        "b",
        "c",
        "",
        "\\u0061",
        "\\u0062",
        "$serde_json::private::RawValue",
        "$serde_json::private::Number",
        "\\ud800",
    ]);
    let space = prop::sample::select(vec!["", "", "", " ", "\n\t"]);
    scalar.prop_recursive(6, 64, 8, move |inner| {
        let (name, space) = (name.clone(), space.clone());
        prop_oneof![
            (prop::collection::vec(inner.clone(), 0..6), space.clone())
                .prop_map(|(all, space)| format!("[{space}{}{space}]", all.join(&format!("{space},")))),
            (prop::collection::vec((name, inner), 0..6), space).prop_map(|(all, space)| {
                let members: Vec<_> = all
                    .iter()
                    .map(|(name, value)| format!("\"{name}\"{space}:{space}{value}"))
                    .collect();
                format!("{{{space}{}{space}}}", members.join(","))
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..cases::counted() })]

    #[test]
    fn verdict_and_values_are_those_of_serde_json(text in nearly()) {
        compare(text.as_bytes());
    }

    #[test]
    fn so_they_are_for_what_is_broken(text in nearly(), at in any::<prop::sample::Index>(), with in prop::collection::vec(any::<u8>(), 0..3), cut in 0..3_usize) {
        let mut bytes = text.into_bytes();
        let at = at.index(bytes.len() + 1);
        let end = (at + cut).min(bytes.len());
        bytes.splice(at..end, with);
        compare(&bytes);
    }

    #[test]
    fn so_they_are_for_any_bytes(bytes in prop::collection::vec(prop::sample::select(br#"[]{},:"\u01eE.-+ntrfaldse 	\xc3\xa9"#.to_vec()), 0..24)) {
        compare(&bytes);
    }

    /// A selection by paths finds the same values as following the steps one by one.
    #[test]
    fn a_selection_finds_what_is_there(text in nearly(), wanted in prop::collection::vec(prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "", "0", "1"]), 0..4), 1..5)) {
        if let Ok(document) = checked(&text) {
            let wanted: Vec<Box<[Box<str>]>> = wanted.iter().map(|steps| steps.iter().map(|step| Box::from(*step)).collect()).collect();
            let paths = std::sync::Arc::new(Paths::new(wanted.iter().map(AsRef::as_ref)));
            let selection = Selection::of(&document, &paths);
            for steps in &wanted {
                let found = selection.get(steps).map(|value| value.to_string());
                let there = document.value().descend(steps.iter().map(AsRef::as_ref));
                prop_assert_eq!(found, there.map(|value| value.to_string()));
            }
        }
    }
}

#[test]
fn a_null_on_the_way_is_told_from_nothing() {
    let check = |text: &str, path: &str, expected: bool| {
        let document = document(text);
        let split = |path: &str| -> Box<[Box<str>]> {
            path.split('.').filter(|step| !step.is_empty()).map(Box::from).collect()
        };
        let (long, other) = ("x".repeat(10_000), split("z"));
        let steps = split(path);
        // Together with a second path, and with a text long enough that the rest is not kept.
        let padded = match text.strip_prefix('{') {
            Some(rest) if rest != "}" => self::document(&format!("{{\"pad\":\"{long}\",\"z\":1,{rest}")),
            _ => document.clone(),
        };
        for document in [document, padded] {
            let paths = Arc::new(Paths::new([&*steps, &*other]));
            let found = Selection::of(&document, &paths);
            assert_eq!(found.leads_to_null(&steps), expected, "{text} at {path}");
            let direct = document.value().descend(steps.iter().map(AsRef::as_ref));
            assert_eq!(
                found.get(&steps).map(|value| value.to_string()),
                direct.map(|value| value.to_string())
            );
            assert_eq!(found.leads_to_null(&other), text == "null", "{text}");
        }
    };
    check("null", "", true);
    check(r#"{"a":null}"#, "a", true);
    check(r#"{"a":null}"#, "a.b.c", true);
    check(r#"{"a":{"b":null}}"#, "a.b.c", true);
    check(r#"{"a":[null]}"#, "a.0", true);
    check(r#"{"a":[null]}"#, "a.0.b", true);
    check(r#"{"a":[null]}"#, "a.1", false);
    check(r#"{"a":{}}"#, "a.b", false);
    check(r#"{"a":{"b":[null]}}"#, "a.b", false);
    check(r#"{"b":null}"#, "a", false);
    check(r#"{"a":"null"}"#, "a.b", false);
    check("{}", "", false);
    check("[]", "a", false);
}

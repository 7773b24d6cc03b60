use std::time::Duration;

use http::Method;

use super::*;
use crate::config::policy_tests::script::Lasts;

fn read(text: &str) -> Result<PolicyTests, Mistakes> {
    let mut sources = Sources::default();
    let source = sources.add("test.yaml", text)?;
    super::super::read(source, &sources, Path::new("/folder"), &|_| None).map(|(tests, _)| tests)
}

#[test]
fn requests_are_one_line() {
    let check = |text: &str, expected: (u32, Method, &str, Option<u64>, u64, Option<&str>)| {
        let requests = Requests::parse(text).expect(text);
        let found = (
            requests.count,
            requests.method,
            &*requests.target.to_string(),
            requests.at.map(|at| at.as_millis() as u64),
            requests.over.as_millis() as u64,
            requests.caller.as_deref(),
        );
        assert_eq!(found, expected, "{text}");
    };
    check("GET /", (1, Method::GET, "/", None, 0, None));
    check(
        "25 GET /users/7 at 0s as free",
        (25, Method::GET, "/users/7", Some(0), 0, Some("free")),
    );
    check(
        "1_000 POST http://a.example/x?y=1 over 1m30s at 20ms",
        (1000, Method::POST, "http://a.example/x?y=1", Some(20), 90_000, None),
    );
    for wrong in [
        "",
        "25",
        "GET",
        "25 /users",
        "get /users",
        "GET users",
        "GET ftp://a/",
        "0 GET /",
        "100001 GET /",
        "GET / at",
        "GET / at 7",
        "GET / at 1s at 2s",
        "GET / from here",
        "GET / until 7s",
        "TRACE /",
    ] {
        assert!(Requests::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_script_is_a_line_or_a_map_for_each_phase() {
    let text = "
backends:
  one: 500
  many: [500 for 10s, refuse for 3 calls, { answer: 201, after: 5ms, calls: 2, body: { a: [1] } }, hang]
tests: { t: [{ send: GET / }] }
";
    let tests = read(text).expect("a good file");
    let lasts = |name: &str| -> Vec<_> {
        let phases = tests.backends.get(name).expect("it is written").phases.iter();
        phases.map(|phase| (phase.answer.show(), phase.lasts)).collect()
    };
    assert_eq!(lasts("one"), [("500".to_owned(), Lasts::Always)]);
    let expected = [
        ("500", Lasts::For(Duration::from_secs(10))),
        ("refuse", Lasts::Calls(3)),
        ("201", Lasts::Calls(2)),
        ("hang", Lasts::Always),
    ];
    assert_eq!(
        lasts("many"),
        expected.map(|(answer, lasts)| (answer.to_owned(), lasts))
    );
    for wrong in [
        "600",
        "100",
        "refused",
        "500 for 10",
        "500 for 0 calls",
        "500 after",
        "500 until 3s",
        "{ answer: 500, for: 1s, calls: 1 }",
    ] {
        let text = format!("{{ backends: {{ b: [{wrong}] }}, tests: {{ t: [{{ send: GET / }}] }} }}");
        assert!(read(&text).is_err(), "{wrong}");
    }
}

#[test]
fn the_config_stands_beside_the_file() {
    let config = |text: &str| read(text).expect(text).config.value;
    let tests = "tests: { t: [{ send: GET / }] }";
    assert_eq!(config(tests), Path::new("/folder/gateway.yaml"));
    assert_eq!(
        config(&format!("config: ../a.yaml\n{tests}")),
        Path::new("/folder/../a.yaml")
    );
}

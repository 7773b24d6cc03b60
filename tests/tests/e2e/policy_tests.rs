//! Checks `gateway test`: what policy tests of a config say, and what they notice.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use serde_json::Value;
use tests::{Cli, Setup, cli};

const INVALID: Option<i32> = Some(78);

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}

fn read(path: &str) -> String {
    fs::read_to_string(fixtures().join(path)).expect("the fixture is there")
}

/// Runs `gateway test` beside a config with its tests.
fn test(config: &str, tests: &str, options: &[&str]) -> Cli {
    let setup = Setup::new(config).file("test.yaml", tests);
    cli(&[&["test", "test.yaml"], options].concat(), &setup)
}

/// Runs the tests of `tiers.yaml` with this config in its place.
fn test_tiers(config: &str, tests: [&str; 2], options: &[&str]) -> Cli {
    let setup = Setup::new(config)
        .file("keys.yaml", read("configs/keys.yaml"))
        .file("tiers.yaml", tests[0])
        .file("guards.yaml", tests[1]);
    let command = ["test", "tiers.yaml", "guards.yaml", "-c", "gateway.yaml"];
    cli(&[&command, options].concat(), &setup)
}

fn tests_of_tiers() -> [String; 2] {
    ["policy_tests/tiers.yaml", "policy_tests/tiers-guards.yaml"].map(read)
}

fn report(told: &Cli) -> Value {
    serde_json::from_str(&told.stdout).unwrap_or_else(|error| panic!("{error}: {told:?}"))
}

#[test]
fn thirty_lines_test_the_tiers_and_all_of_the_config_is_covered() {
    let [tiers, guards] = tests_of_tiers();
    assert!(tiers.lines().count() <= 30);
    let config = read("configs/tiers.yaml");
    let options = ["--format", "json", "--fail-under", "100"];
    let told = test_tiers(&config, [&tiers, &guards], &options);
    assert_eq!(told.code, Some(0), "{told:?}");
    let report = report(&told);
    assert_eq!(report["coverage"][0]["percent"], 100.0, "{report:#}");
    let virtual_ms = report["tests"].as_array().expect("a list").iter();
    let virtual_ms: u64 = virtual_ms.filter_map(|test| test["virtual_ms"].as_u64()).sum();
    assert!(
        virtual_ms > 3_600_000,
        "more than an hour of virtual time: {virtual_ms}"
    );
}

const AGGREGATE: &str = r#"
listeners: { public: { address: "127.0.0.1:0" } }
callers: { anonymous: { by: client_address, tier: enterprise } }
backends: { api: { endpoints: [{ url: "http://10.0.0.1" }], retry: off, breaker: off } }
routes:
  home:
    match: { path: /home }
    access: { any_of: [anonymous] }
    aggregate:
      partial: allow
      parts: { user: { backend: api, path: /users/7 }, orders: { backend: api, path: /orders?user=7 } }
  orders: { match: { path: /orders, methods: [POST] }, access: { any_of: [anonymous] }, backend: api }
"#;

#[test]
fn parts_that_share_a_backend_can_fail_apart() {
    let tests = r#"
tests:
  orders fails for 10s, and the user is there:
    - at: 0s
      backends:
        api: { POST /orders: 409, /orders*: 500 for 10s, "/users/*": { answer: 200, body: { id: 7 } } }
    - send: GET /home at 1s
      expect: { status: 200, complete: false, sent_to: { api: 2 }, body: { user: { id: 7 } } }
    - send: POST /orders at 1s
      headers: { idempotency-key: "1" }
      body: { item: 3 }
      expect: { status: 409, allowed: 1 }
    - { send: GET /home at 11s, expect: { complete: true, body: { user: { id: 7 }, orders: {} } } }
  a script of all takes the place of one by path:
    - { at: 0s, backends: { api: { /*: 500 } } }
    - { send: GET /home at 0s, expect: { status: 502 } }
    - { at: 1s, backends: { api: 200 } }
    - { send: GET /home at 1s, expect: { status: 200, complete: true } }
"#;
    let told = test(AGGREGATE, tests, &[]);
    assert_eq!(told.code, Some(0), "{told:?}");
    let wrong = "tests: { a: [{ at: 0s, backends: { api: { /orders: refuse, orders: 500 } } }] }";
    let told = test(AGGREGATE, wrong, &[]);
    assert_eq!(told.code, INVALID, "{told:?}");
    let said = format!("{}{}", told.stdout, told.stderr);
    for words in [
        "`refuse` is about connections, which have no path",
        "is not a path such as `/orders/*`",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

/// Numbers of a config as ranges of bytes, without those in comments and in names, and without the address to listen on,
/// which decides nothing.
fn numbers(config: &str) -> Vec<(usize, usize)> {
    let mut numbers = Vec::new();
    let mut line_start = 0;
    for line in config.split_inclusive('\n') {
        let code = line.split('#').next().unwrap_or_default();
        let bytes = code.as_bytes();
        let mut at = 0;
        while at < bytes.len() && !code.contains("address:") {
            let is_number = bytes[at].is_ascii_digit() && (at == 0 || !bytes[at - 1].is_ascii_alphabetic());
            let end = at + bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            if is_number {
                numbers.push((line_start + at, line_start + end));
            }
            at = end.max(at + 1);
        }
        line_start += line.len();
    }
    numbers
}

#[test]
fn whatever_number_of_the_tiers_changes_a_test_fails() {
    let [tiers, guards] = tests_of_tiers();
    let config = read("configs/tiers.yaml");
    let numbers = numbers(&config);
    assert!(numbers.len() > 30, "{numbers:?}");
    let survives = |&(start, end): &(usize, usize)| {
        let number: u64 = config[start..end].parse().expect("digits");
        let changed = |number: u64| format!("{}{number}{}", &config[..start], &config[end..]);
        // With the next number two endpoints would be one.
        let clashes = config.contains(&format!("10.0.0.{}:", number + 1)) && config[..start].ends_with("10.0.0.");
        let mutant = changed(if clashes { number + 2 } else { number + 1 });
        let code = test_tiers(&mutant, [&tiers, &guards], &[]).code;
        let line = config[..start].matches('\n').count() + 1;
        (code != Some(1)).then(|| format!("line {line}: {number} -> {} ends with {code:?}", number + 1))
    };
    let halves = numbers.split_at(numbers.len() / 2);
    let survivors: Vec<_> = thread::scope(|scope| {
        let halves =
            [halves.0, halves.1].map(|half| scope.spawn(|| half.iter().filter_map(survives).collect::<Vec<_>>()));
        halves
            .into_iter()
            .flat_map(|half| half.join().expect("it ends"))
            .collect()
    });
    assert!(survivors.is_empty(), "{survivors:#?}");
}

#[test]
fn without_a_test_less_is_covered_and_its_line_is_named() {
    let [tiers, guards] = tests_of_tiers();
    let config = read("configs/tiers.yaml");
    let line = |text: &str| {
        config
            .lines()
            .position(|line| line.contains(text))
            .expect("it is there")
            + 1
    };
    let begin = tiers.find("  partner - ").expect("the test is there");
    let end = tiers.find("  trial - ").expect("the next test is there");
    let without = format!("{}{}", &tiers[..begin], &tiers[end..]);
    let told = test_tiers(&config, [&without, &guards], &["--fail-under", "100"]);
    assert_eq!(told.code, Some(1), "{told:?}");
    let place = line("partner: {");
    let expected = format!("gateway.yaml:{place}: in no test the limit `tiers.partner` refuses");
    assert!(told.stdout.contains(&expected), "{}", told.stdout);
    assert!(told.stdout.contains("less than 100 % is covered"), "{}", told.stdout);
    let told = test_tiers(&config, [&without, &guards], &["--fail-under", "50"]);
    assert_eq!(told.code, Some(0), "{told:?}");
}

const CONFIG: &str = r#"
listeners: { public: { address: "127.0.0.1:0" } }
callers: { anonymous: { by: client_address, tier: enterprise } }
backends:
  orders:
    endpoints: [{ url: "http://orders.invalid" }]
    time_limit: 2s
    breaker: { window: 10s, min_calls: 5, failure_ratio: 0.5, open_for: 30s, probes: 1 }
    retry: { attempts: 3, backoff: 100ms, jitter: 0 }
  users:
    endpoints: [{ url: "https://users.invalid" }]
    protocol: h2
    breaker: off
    retry: off
routes:
  orders: { match: { path: "/orders/{id}" }, access: { any_of: [anonymous] }, backend: orders }
  home:
    match: { path: /home }
    access: { any_of: [anonymous] }
    aggregate:
      partial: allow
      parts:
        user: { backend: users, path: /user, required: true }
        last: { backend: orders, path: /last, time_limit: 500ms, fallback: { value: { none: true } } }
"#;

const TESTS: &str = r#"
config: gateway.yaml
tests:
  a call is tried three times:
    - { at: 0s, backends: { orders: [503 for 2 calls, { answer: 201, headers: { x-of: script }, body: { id: 7 } }] } }
    - send: GET /orders/7
      expect: { status: 201, attempts: 3, took: 200ms, sent_to: orders, headers: { x-of: script, x-none: absent }, body: { id: 7 } }
  the breaker opens for 30s:
    - { at: 0s, backends: { orders: 500 for 10s } }
    - { send: 5 POST /orders/7 at 0s over 5s, expect: { status: 500, allowed: 5 } }
    - { send: 10 POST /orders/7 at 6s, expect: { breaker_open: 10, headers: { retry-after: "28" } } }
    - { send: POST /orders/7 at 33s, expect: { reason: breaker_open, sent_to: nothing } }
    - { send: POST /orders/7 at 35s, expect: { status: 200 } }
  a silent backend costs 2s:
    - { at: 0s, backends: { orders: hang } }
    - { send: POST /orders/7, expect: { reason: backend_timeout, took: 2s, within: 2s, by: backends.orders.time_limit } }
  a part that fails has its fallback:
    - { at: 0s, backends: { users: [{ body: { name: Ada } }], orders: [503 after 10ms] } }
    - send: GET /home
      expect: { status: 200, body: { user: { name: Ada }, last: { none: true } }, sent_to: { users: 1, orders: 3 } }
    - { at: 1s, backends: { users: refuse } }
    - { send: GET /home, expect: { status: 502, complete: false } }
"#;

#[test]
fn calls_retries_breakers_time_limits_and_aggregates_are_the_real_ones() {
    let told = test(CONFIG, TESTS, &[]);
    assert_eq!(told.code, Some(0), "{}{}", told.stdout, told.stderr);
    assert!(told.stdout.contains("\n4 tests, 0 failed;"), "{}", told.stdout);
}

#[test]
fn a_failure_is_told_where_it_is_expected_in_each_form() {
    let wrong = TESTS.replace("breaker_open: 10", "breaker_open: 9");
    let line = wrong
        .lines()
        .position(|line| line.contains("breaker_open: 9"))
        .expect("it is there")
        + 1;
    let breaker = CONFIG
        .lines()
        .position(|line| line.contains("breaker: { window"))
        .expect("it is there")
        + 1;
    let message = format!(
        "breaker_open: expected 9, got 10; 10 breaker_open by backends.orders.breaker (gateway.yaml:{breaker})"
    );
    let told = test(CONFIG, &wrong, &[]);
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(
        told.stdout.contains("  FAIL  the breaker opens for 30s\n"),
        "{}",
        told.stdout
    );
    assert!(
        told.stdout.contains(&format!("test.yaml:{line}: {message}\n")),
        "{}",
        told.stdout
    );

    let told = test(CONFIG, &wrong, &["--format", "github"]);
    let expected = format!("::error file=test.yaml,line={line},title=the breaker opens for 30s::{message}\n");
    assert!(told.stdout.contains(&expected), "{}", told.stdout);

    let told = test(CONFIG, &wrong, &["--format", "json"]);
    let report = report(&told);
    assert_eq!(report["ok"], false);
    assert_eq!(report["tests"][1]["failures"][0]["message"], message);
    assert_eq!(report["tests"][1]["failures"][0]["at"]["line"], line);

    let told = test(CONFIG, &wrong, &["--junit", "/dev/stderr", "--name", "breaker"]);
    assert!(
        told.stderr
            .starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites"),
        "{told:?}"
    );
    assert!(told.stderr.contains("tests=\"1\" failures=\"1\""), "{told:?}");
    assert!(
        told.stderr.contains(&format!("<failure message=\"{message}\">")),
        "{told:?}"
    );
}

#[test]
fn the_same_run_gives_the_same_report() {
    let wrong = TESTS.replace("took: 200ms", "took: 1ms");
    let told = || {
        let mut report = report(&test(CONFIG, &wrong, &["--format", "json"]));
        for test in report["tests"].as_array_mut().expect("a list") {
            test["real_ms"].take();
        }
        report
    };
    assert_eq!(told(), told());
}

/// `UPDATE_EXPECTED=1` takes over what is told now.
#[test]
fn all_mistakes_of_a_test_file_are_told_at_once() {
    for name in ["mistakes", "unknown-names"] {
        let path = format!("policy_tests/invalid/{name}.yaml");
        let told = test(CONFIG, &read(&path), &[]);
        assert_eq!(told.code, INVALID, "{told:?}");
        let expected = fixtures().join(&path).with_extension("txt");
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            fs::write(&expected, &told.stderr).expect("the fixtures can be written");
        }
        assert_eq!(told.stderr, fs::read_to_string(&expected).unwrap_or_default(), "{name}");
    }
}

#[test]
fn a_config_with_a_mistake_is_told_as_by_check() {
    let told = test(&CONFIG.replace("breaker: off", "braeker: off"), TESTS, &[]);
    assert_eq!(told.code, INVALID, "{told:?}");
    assert!(told.stderr.contains("did you mean `breaker`?"), "{}", told.stderr);
    assert!(told.stdout.is_empty(), "{}", told.stdout);
}

//! Checks `gateway diff`: what it says, and that it is silent exactly where nothing is decided differently.

use std::thread;

use tests::{Cli, Setup, cli};

use crate::live_commands::run;

const OLD: &str = r#"
listeners: { public: { address: "127.0.0.1:8080" } }
callers:
  api_keys: { file: keys.yaml }
  anonymous: { by: client_address, tier: basic }
tiers:
  gold: { rate: 50/s, burst: 100 }
  basic: { rate: 5/s, burst: 10 }
tenants:
  acme: { tier: gold }
backends:
  users:
    endpoints: [{ url: "http://127.0.0.1:9001" }]
    time_limit: 2s
    breaker: { min_calls: 4, failure_ratio: 0.5, open_for: 30s, probes: 1 }
    retry: { attempts: 3, backoff: 100ms, jitter: 0 }
  orders:
    endpoints: [{ url: "http://127.0.0.1:9002" }]
    retry: off
routes:
  search:
    match: { path: /search, methods: [GET] }
    access: { any_of: [api_key], tiers: [gold] }
    cost: 2
    limits: { burst: { rate: 60/min, burst: 20, per: tenant } }
    backend: users
  users:
    match: { path: "/users/{id}" }
    access: { any_of: [anonymous] }
    backend: users
  home:
    match: { path: /home }
    access: { any_of: [anonymous] }
    aggregate:
      partial: allow
      parts:
        user: { backend: users, path: /user, required: true }
        last: { backend: orders, path: /last, time_limit: 500ms }
"#;

const KEYS: &str = r#"
keys:
  - { id: acme-1, tenant: acme, digest: "sha256:385ec044fbb260818dd8f202383d4fabfa9eab8f7e269ba3d60bc92dfd8ddd2e" }
"#;

/// Requests that see every number and word of `OLD` which decides on a request.
const WITNESSES: &str = r#"
config: gateway.yaml
callers: { acme: { key: example-acme-1 }, other: { tenant: other, tier: gold }, basic: { tenant: shop, tier: basic } }
tests:
  limits:
    - send: 11 GET /search at 0s as acme
      expect: { allowed: 10, rate_limited: 1, by: routes.search.limits.burst, sent_to: { "http://127.0.0.1:9001": 10 } }
    - { send: GET /search at 0s as other, expect: { allowed: 1 } }
    - { send: 2 GET /search at 1999ms as acme, expect: { rate_limited: 2 } }
    - { send: 2 GET /search at 2s as acme, expect: { allowed: 1, limit: burst } }
    - { send: GET /search at 2s as basic, expect: { reason: not_allowed, by: routes.search.access } }
    - { send: POST /search at 2s as acme, expect: { status: 405 } }
    - { send: 11 GET /users/7 at 0s, expect: { allowed: 10, rate_limited: 1, by: tiers.basic, route: users } }
    - { send: 2 GET /users/7 at 200ms, expect: { allowed: 1, limit: basic } }
    - { send: 6 GET /users/7 at 1200ms, expect: { allowed: 5 } }
  gold earns 50 in a second:
    - { send: 9 GET /search at 0s as acme, expect: { allowed: 9 } }
    - send: GET /search at 355ms as acme
      expect: { headers: { ratelimit: '"burst";r=0;t=2, "gold";r=97;t=2', ratelimit-policy: '"burst";q=20;w=20, "gold";q=100;w=2' } }
  retries:
    - { at: 0s, backends: { users: 503 } }
    - { send: GET /users/7, expect: { attempts: 3, took: 200ms, status: 503 } }
  time:
    - { at: 0s, backends: { users: hang } }
    - { send: POST /users/7, expect: { took: 2s, by: backends.users.time_limit } }
  home:
    - { at: 0s, backends: { orders: hang } }
    - { send: GET /home, expect: { status: 200, took: 500ms, complete: false, sent_to: { "http://127.0.0.1:9002": 1 } } }
    - { at: 1s, backends: { users: 404, orders: 200 } }
    - { send: GET /home, expect: { status: 404 } }
  half of 4 calls open the breaker for 30s, and one probe closes it:
    - { send: 2 POST /users/7 at 0s, expect: { status: 200 } }
    - { at: 1s, backends: { users: 500 } }
    - { send: 2 POST /users/7 at 1s, expect: { status: 500 } }
    - { send: POST /users/7 at 2s, expect: { reason: breaker_open, by: backends.users.breaker } }
    - { send: POST /users/7 at 30999ms, expect: { reason: breaker_open } }
    - { at: 31s, backends: { users: 200 for 1 calls } }
    - { send: POST /users/7 at 31s, expect: { status: 200 } }
    - { at: 32s, backends: { users: 500 for 1 calls } }
    - { send: POST /users/7 at 32s, expect: { status: 500 } }
    - { send: POST /users/7 at 33s, expect: { status: 200 } }
  one of 5 calls does not:
    - { at: 0s, backends: { users: 500 for 1 calls } }
    - { send: 5 POST /users/7 at 0s }
    - { send: POST /users/7 at 1s, expect: { status: 200 } }
"#;

fn setup(old: &str, new: &str) -> Setup {
    Setup::new(new).file("old.yaml", old).file("keys.yaml", KEYS)
}

fn diff(old: &str, new: &str) -> Cli {
    cli(&["diff", "old.yaml", "gateway.yaml"], &setup(old, new))
}

/// Returns `OLD` with this change.
fn changed(from: &str, to: &str) -> String {
    assert!(OLD.contains(from), "{from}");
    OLD.replacen(from, to, 1)
}

#[test]
fn what_changes_is_said_by_its_meaning_with_both_lines() {
    let line = |config: &str, text: &str| config.lines().position(|line| line.contains(text)).expect(text) + 1;
    let check = |new: &str, expected: &[&str]| {
        let told = diff(OLD, new);
        assert_eq!(told.code, Some(1), "{told:?}");
        for expected in expected {
            assert!(told.stdout.contains(expected), "no {expected:?} in\n{}", told.stdout);
        }
    };
    let new = changed("acme: { tier: gold }", "acme: { tier: gold, rate: 20/s }");
    let (before, after) = (line(OLD, "gold: {"), line(&new, "acme: {"));
    check(
        &new,
        &[
            "tenant acme on ",
            "GET /search: limit gold: 50/s, burst 100 for each tenant; takes 2 -> gold: 20/s, burst 100 for each tenant; takes 2",
            &format!("(old.yaml:{before}, gateway.yaml:{after})"),
            "tenants.acme.rate: (absent) -> 20/s",
        ],
    );
    check(
        &changed("path: /search, methods", "path: /find, methods"),
        &[
            "GET /search: route search, as /search -> no route takes the request",
            "routes.search.match.paths[0]: /search -> /find",
        ],
    );
    check(
        &changed("time_limit: 2s", "time_limit: 3s"),
        &["worst case of route users: ", "backends.users.time_limit: 2s -> 3s"],
    );
    check(
        &changed("failure_ratio: 0.5", "failure_ratio: 0.6"),
        &["backends.users.breaker.failure_ratio: 0.5 -> 0.6"],
    );
    check(
        &changed("any_of: [api_key], tiers: [gold]", "any_of: [api_key]"),
        &["routes.search.access.tiers"],
    );
    let gone = OLD.split("  home:\n").next().expect("the routes before");
    check(
        gone,
        &[
            "route home is gone",
            "GET /home: outcome ",
            "no_route",
            "routes.home: ... -> (absent)",
        ],
    );
}

#[test]
fn neither_order_nor_spelling_nor_operation_is_a_difference() {
    let keys_first = {
        let (top, rest) = OLD.split_once("tiers:\n").expect("there are tiers");
        let (tiers, rest) = rest.split_once("tenants:\n").expect("there are tenants");
        format!("{top}tenants:\n{}tiers:\n{tiers}", rest)
    };
    let moved = keys_first.replace("backends:\n", "\nbackends:\n");
    let neutral = [
        format!("# a comment\n{OLD}"),
        moved,
        changed("rate: 60/min", "rate: 1/s"),
        changed("time_limit: 2s", "time_limit: 2000ms"),
        changed("basic: { rate: 5/s, burst: 10 }", "basic: { burst: 10, rate: 5/s }"),
        changed("path: /search,", "path: [\"/search\"],"),
        changed("orders, path: /last", "orders, path: /last, required: false"),
        changed("8080", "9090"),
        format!("{OLD}\naccess_log: off\nworkers: 2\n"),
    ];
    for new in neutral {
        let told = diff(OLD, &new);
        assert_eq!(told.code, Some(0), "{}{}", told.stdout, told.stderr);
        assert!(
            told.stdout.starts_with("both decide alike on every request\n"),
            "{}",
            told.stdout
        );
    }
}

#[test]
fn a_mistake_in_either_is_told() {
    for [old, new] in [[OLD, "routes: {}"], ["routes: {}", OLD]] {
        let told = diff(old, new);
        assert_eq!(told.code, Some(78), "{told:?}");
        assert!(told.stderr.contains("error["), "{}", told.stderr);
    }
}

/// Changes of a config, of which none but some of the numbers and words can decide on a request.
fn mutants() -> Vec<String> {
    let mut mutants = Vec::new();
    let mut start = 0;
    for (number, line) in OLD.split_inclusive('\n').enumerate() {
        let end = start + line.len();
        let (before, after) = (&OLD[..start], &OLD[end..]);
        // Comments, blank lines and spaces.
        mutants.push(format!("{before}# line {number}: rate: 1/s\n{line}{after}"));
        mutants.push(format!("{before}{}  # 7/s\n{after}", line.trim_end()));
        if line.contains(": {") {
            mutants.push(format!("{before}{}{after}", line.replacen(": {", ":  {", 1)));
        }
        // Numbers, but for the address to listen on.
        let bytes = line.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let length = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            let is_number = length > 0 && (at == 0 || !bytes[at - 1].is_ascii_alphanumeric());
            let is_octet = line.contains("127.0.0.1") && length < 4;
            if is_number && !is_octet {
                let value: u64 = line[at..at + length].parse().expect("digits");
                for other in [value + 1, value + 2, value + 3, value + 7, value * 2, value * 10] {
                    mutants.push(format!("{before}{}{other}{}{after}", &line[..at], &line[at + length..]));
                }
            }
            at += length.max(1);
        }
        start = end;
    }
    for (from, to) in [
        ("gold }", "basic }"),
        ("gold }", "premium }"),
        ("required: true", "required: false"),
        ("partial: allow", "partial: deny"),
        ("methods: [GET]", "methods: [GET, POST]"),
        ("path: /search", "path: /find"),
        ("tiers: [gold]", "tiers: [gold, basic]"),
        ("60/min", "1/s"),
        ("60/min", "3600/h"),
        ("500ms", "500000us"),
        ("30s", "30000ms"),
        ("100ms", "100000us"),
        ("retry: off", "retry: { attempts: 1 }"),
        ("jitter: 0", "jitter: 0.0"),
        ("per: tenant", "per: global"),
        ("burst: 20, per: tenant", "per: tenant, burst: 20"),
        ("cost: 2", "cost: 1"),
        ("cost: 2", "cost: 2\n    stream: false"),
    ] {
        mutants.push(changed(from, to));
    }
    mutants
}

#[test]
fn nothing_is_said_exactly_where_no_request_is_decided_differently() {
    let witness = |config: &str| {
        cli(
            &["test", "witnesses.yaml"],
            &setup(OLD, config).file("witnesses.yaml", WITNESSES),
        )
    };
    let told = witness(OLD);
    assert_eq!(told.code, Some(0), "{}{}", told.stdout, told.stderr);
    let mutants = mutants();
    let check = |mutant: &String| {
        let (said, seen) = (diff(OLD, mutant), witness(mutant));
        // A mutant that is no config is not compared.
        if said.code == Some(78) {
            return (seen.code != Some(78)).then(|| format!("{mutant}\n{said:?}"));
        }
        (said.code != seen.code).then(|| format!("{}\n{}\n{:?}", said.stdout, seen.stdout, seen.code))
    };
    let (compared, wrong) = thread::scope(|scope| {
        let halves = mutants.chunks(mutants.len().div_ceil(2));
        let halves: Vec<_> = halves
            .map(|half| scope.spawn(move || half.iter().map(check).collect::<Vec<_>>()))
            .collect();
        let all: Vec<_> = halves
            .into_iter()
            .flat_map(|half| half.join().expect("it ends"))
            .collect();
        (all.len(), all.into_iter().flatten().collect::<Vec<_>>())
    });
    assert!(compared >= 200, "{compared} mutants");
    assert!(
        wrong.is_empty(),
        "{} of {compared}: {}",
        wrong.len(),
        wrong.join("\n----\n")
    );
}

const TOKEN: &str = "correct-horse-battery-staple";

#[tokio::test]
async fn a_running_gateway_compares_its_config_with_another() {
    let secret = |letter: &str| {
        let issuer = format!(
            "  jwt:\n    main: {{ issuer: \"https://id.example\", audience: [edge], algorithms: [HS256], tenant: /tenant, keys: {{ secret: {} }} }}\n",
            letter.repeat(32)
        );
        let edge = "listeners: { public: { address: \"127.0.0.1:0\" } }\nadmin: { address: \"127.0.0.1:0\", token_file: admin.token }\noverload: off";
        let listeners = OLD
            .lines()
            .find(|line| line.starts_with("listeners:"))
            .expect("it is there");
        OLD.replace(listeners, edge)
            .replace("callers:\n", &format!("callers:\n{issuer}"))
    };
    let setup = Setup::new(secret("a"))
        .file("keys.yaml", KEYS)
        .file("admin.token", TOKEN);
    let gateway = setup.start().await;
    let diff =
        async |more: &[&str], token: Option<&str>| run(&gateway, &[&["diff", "--running"], more].concat(), token).await;

    let (code, out, err) = diff(&[], Some("admin.token")).await;
    assert_eq!(
        (code, &*out),
        (Some(0), "both decide alike on every request\n"),
        "{err}"
    );
    gateway.rewrite_config(secret("b").replace("rate: 50/s", "rate: 20/s"));
    let (code, out, err) = diff(&[], Some("admin.token")).await;
    assert_eq!(code, Some(1), "{err}");
    assert!(out.contains("tiers.gold.rate: 50/s -> 20/s"), "{out}");
    assert!(out.contains("callers.jwt.main.keys.secret: "), "{out}");
    assert!(!out.contains("aaaa") && !out.contains("bbbb"), "{out}");
    // Another file, which is sent there.
    let other = gateway.path("gateway.yaml");
    let (code, sent, err) = diff(&[other.to_str().expect("a plain path")], Some("admin.token")).await;
    assert_eq!((code, sent), (Some(1), out), "{err}");
    gateway.rewrite_config("routes: {}");
    let (code, _, err) = diff(&[], Some("admin.token")).await;
    assert_eq!(code, Some(78), "{err}");
    assert!(err.contains("needs the key `listeners`"), "{err}");
    let (code, _, err) = diff(&[], None).await;
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("wants a token"), "{err}");
}

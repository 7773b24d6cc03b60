//! Tests the loader with the example configs, and with text that is no config.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::setting::Location;

fn fixtures(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(folder)
}

/// Returns the configs of a folder with their names, sorted.
fn configs(folder: &str) -> Vec<(String, PathBuf)> {
    let mut found: Vec<_> = fs::read_dir(fixtures(folder))
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be listed").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .map(|path| {
            (
                path.file_name().expect("it has a name").to_string_lossy().into_owned(),
                path,
            )
        })
        .collect();
    found.sort();
    found
}

fn env(name: &str) -> Option<String> {
    match name {
        "GATEWAY_JWT_SECRET" => Some("an example secret of more than 32 bytes".to_owned()),
        "TOO_SHORT" => Some("hunter2".to_owned()),
        "NOT_A_DURATION" => Some("hunter2".to_owned()),
        _ => None,
    }
}

#[track_caller]
fn good(text: &str) -> Config {
    let loaded =
        parse("gateway.yaml", text, Path::new("/etc/gateway"), &env).unwrap_or_else(|invalid| panic!("{invalid}"));
    loaded.config
}

const HEAD: &str = "listeners: { public: { address: 0.0.0.0:8080 } }\n";
const ROUTE: &str = "routes: { hello: { match: { path: / }, respond: { body: hello } } }\n";

#[test]
fn every_example_loads_without_warnings() {
    let examples = configs("configs");
    assert!(examples.len() >= 8, "only {} examples", examples.len());
    for (name, path) in examples {
        let text = fs::read_to_string(&path).expect("it can be read");
        if name == "revoked.yaml" || name == "endpoints.yaml" {
            continue;
        }
        if name == "keys.yaml" {
            let mut sources = Sources::default();
            let keys = keys::parse(&name, &text, &mut sources, &env);
            assert!(keys.is_ok(), "{name}: {}", sources.render(&keys.unwrap_err(), false));
            continue;
        }
        if name == "users.yaml" {
            let mut sources = Sources::default();
            let (_, warnings) = users::load(&path, &mut sources)
                .unwrap_or_else(|mistakes| panic!("{name}: {}", sources.render(&mistakes, false)));
            assert!(warnings.is_empty(), "{name}");
            continue;
        }
        let loaded =
            parse(&name, &text, &fixtures("configs"), &env).unwrap_or_else(|invalid| panic!("{name}: {invalid}"));
        assert!(
            loaded.warnings.is_empty(),
            "{name}: {}",
            loaded.sources.render_warnings(&loaded.warnings, false)
        );
    }
}

#[test]
fn a_secret_from_a_variable_shows_up_nowhere() {
    let text = fs::read_to_string(fixtures("invalid/unset-variable.yaml")).expect("it can be read");
    let invalid = parse("x", &text, Path::new("."), &env).expect_err("it is invalid");
    assert!(!invalid.render(true).contains("hunter2"));
    let secret = "callers: { jwt: { a: { audience: a, algorithms: HS256, tenant: /t, keys: {\n  secret: ${GATEWAY_JWT_SECRET}}}}}\n";
    // A plain word within `{ }` cannot contain braces, so a variable must stand on its own line.
    assert!(parse("x", &format!("{HEAD}{ROUTE}{secret}"), Path::new("."), &env).is_err());
}

#[test]
fn a_misplaced_secret_is_not_shown() {
    let mut sources = Sources::default();
    let text = "keys:\n  - { id: a, tenant: acme, digest: live_4711_the_key_itself }\n";
    let mistakes = keys::parse("keys.yaml", text, &mut sources, &env).expect_err("that is no digest");
    let page = sources.render(&mistakes, false);
    assert!(
        page.contains("keys.yaml:2:36") && page.contains("only its digest") && !page.contains("4711"),
        "{page}"
    );
}

#[test]
fn key_files() {
    let read = |entry: &str| {
        let mut sources = Sources::default();
        let text = format!(
            "keys:\n  - {{ id: a, tenant: acme, digest: \"sha256:{}\" }}\n  - {entry}\n",
            "0".repeat(64)
        );
        keys::parse("keys.yaml", &text, &mut sources, &env).map_err(|mistakes| sources.render(&mistakes, false))
    };
    let digest = format!("digest: \"sha256:{}\"", "aB".repeat(32));
    let day = read(&format!(
        "{{ id: b, tenant: acme, {digest}, not_before: 2000-02-29, expires: 2038-01-19T03:14:08Z }}"
    ));
    let key = day.expect("it is fine").keys.remove(1);
    assert_eq!(key.digest.0, [0xab; 32]);
    assert_eq!(
        (key.not_before.map(|at| at.0), key.expires.map(|at| at.0)),
        (Some(951_782_400), Some(1 << 31))
    );
    let check = |entry: &str, expected: &str| {
        let page = read(entry).expect_err(entry);
        assert!(page.contains(expected), "{page}");
    };
    check(
        &format!("{{ id: a, tenant: acme, {digest} }}"),
        "two keys are called `a`",
    );
    check(
        &format!("{{ id: b, tenant: acme, digest: \"sha256:{}\" }}", "0".repeat(64)),
        "has the digest of another key",
    );
    check(
        &format!("{{ id: b, tenant: \"a\\nb\", {digest} }}"),
        "no control characters",
    );
    check(
        &format!("{{ id: b, tenant: acme, {digest}, expires: 2027-02-29 }}"),
        "is not an instant in UTC",
    );
    check(
        &format!("{{ id: b, tenant: acme, {digest}, expires: 2027-01-01T00:00:00+01:00 }}"),
        "is not an instant in UTC",
    );
    check(
        &format!("{{ id: b, tenant: acme, {digest}, not_before: 2027-01-01, expires: 2026-01-01 }}"),
        "expires before",
    );
    check(
        &format!("{{ id: b, tenant: acme, {digest}, scope: x }}"),
        "did you mean `scopes`?",
    );
}

/// The config style of the benchmarks.
#[test]
fn compact_configs() {
    let config = good(
        r#"
workers: 1
listeners:
  main: { address: "127.0.0.1:8080" }
time_limits: { request: 30s, reserve: 100ms, connect: 5s }
access_log: off
tiers:
  bench: { rate: 1000000/s, burst: 1000000 }
  drained: { rate: 1/h, burst: 1 }
backends:
  b:
    endpoints: [{ url: "http://127.0.0.1:9000" }]
    time_limit: 25s
    attempt_limit: 25s
    bulkhead: { limit: 10000, queue: 1000, wait: 1s }
    breaker: { window: 60s, min_calls: 10, failure_ratio: 0.6, open_for: 30s, probes: 3 }
    retry: { attempts: 2 }
default_tier: drained
callers:
  failures: off
  jwt:
    bench:
      issuer: "https://issuer.test"
      audience: [gw]
      algorithms: [HS256]
      keys: { file: "/tmp/jwks.json" }
      tenant: /tenant
      leeway: 30s
  anonymous: { by: client_address, tier: bench }
routes:
  all: { match: { path: ["/", "/{*rest}"] }, access: { any_of: [jwt] }, backend: b, time_limit: 29s }
"#,
    );
    let route = config.routes.get("all").expect("it is written");
    assert_eq!(route.matches.paths.len(), 2);
    assert!(matches!(&route.target, Target::Backend { name, rewrite: None } if **name == "b"));
    assert_eq!(config.tiers.names().last(), Some("drained"));
}

#[test]
fn left_out_is_default() {
    let config = good(&format!(
        "{HEAD}{ROUTE}backends: {{ b: {{ endpoints: [{{ url: \"http://h\" }}] }} }}\n"
    ));
    assert_eq!(*config.workers, Workers::Auto);
    assert_eq!(
        config.admin.as_ref().map(|admin| admin.address.to_string()).as_deref(),
        Some("127.0.0.1:9900")
    );
    assert_eq!(*config.time_limits.request, Duration::from_secs(30));
    assert!(!config.time_limits.request.is_written());
    assert_eq!(config.access_log, AccessLog::Stdout);
    assert_eq!(
        config.tiers.names().collect::<Vec<_>>(),
        ["free", "basic", "premium", "enterprise"]
    );
    let enterprise = config.tiers.get("enterprise").expect("it is built in");
    assert_eq!(
        (enterprise.rate.to_string().as_str(), *enterprise.weight),
        ("1000/s, burst 2000", 8)
    );
    let backend = config.backends.get("b").expect("it is written");
    assert_eq!(*backend.attempt_limit, Duration::from_secs(10));
    assert_eq!((backend.bulkhead.most(), *backend.bulkhead.queue), (100, 100));
    let breaker = backend.breaker.as_ref().expect("it is on");
    assert_eq!(
        (breaker.min_calls.get(), breaker.failure_ratio.get(), *breaker.probes),
        (10, 0.6, 3)
    );
    assert_eq!(*backend.retry.attempts, 2);
    assert_eq!(backend.retry.on.len(), 6);
    assert_eq!(
        config.callers.failures.as_ref().map(|failures| failures.burst.get()),
        Some(50)
    );
}

#[test]
fn off_and_presets() {
    let config = good(&format!(
        "{HEAD}{ROUTE}admin: off\naccess_log: off\ncallers: {{ failures: off }}\nbackends:\n  a: {{ endpoints: {{ url: \"http://h:1\" }}, breaker: off, retry: off, time_limit: 4s }}\n  b: {{ endpoints: {{ url: \"http://h:1\" }}, retry: {{ preset: article, jitter: 0.2 }} }}\n"
    ));
    assert_eq!(
        (config.admin, config.access_log, config.callers.failures),
        (None, AccessLog::Off, None)
    );
    let a = config.backends.get("a").expect("it is written");
    assert_eq!(
        (&a.breaker, *a.retry.attempts, *a.attempt_limit),
        (&None, 1, Duration::from_secs(4))
    );
    let retry = &config.backends.get("b").expect("it is written").retry;
    let article = Backoff {
        first: Duration::from_millis(100),
        cap: Duration::from_secs(30),
    };
    assert_eq!(
        (*retry.attempts, *retry.backoff, *retry.factor, *retry.jitter),
        (5, article, 2.0, Jitter::Share(Ratio::new(0.2).expect("a share")))
    );
}

#[test]
fn adaptive_brings_its_own_defaults_and_growth_a_cap() {
    let config = good(&format!(
        "{HEAD}{ROUTE}backends:\n  a: {{ endpoints: {{ url: \"http://h:1\" }}, breaker: {{ adaptive: {{ threshold: 2s }} }}, ejection: off }}\n  b: {{ endpoints: {{ url: \"http://h:1\" }}, breaker: {{ open_for: 3s, growth: 2 }}, retry: {{ preset: default, jitter: full }} }}\n"
    ));
    let seconds = Duration::from_secs;
    let backend = |name| config.backends.get(name).expect("it is written");
    let (a, b) = (backend("a"), backend("b"));
    let breaker = a.breaker.as_ref().expect("it is on");
    assert_eq!(
        (
            *breaker.window,
            *breaker.open_for,
            *breaker.probes,
            breaker.min_calls.get()
        ),
        (seconds(10), seconds(30), 5, 10)
    );
    let adaptive = breaker.adaptive.as_ref().expect("it is written");
    assert_eq!((*adaptive.latency_window, *adaptive.threshold), (100, seconds(2)));
    let breaker = b.breaker.as_ref().expect("it is on");
    assert_eq!(
        (*breaker.growth, *breaker.open_for_max, *breaker.window),
        (2.0, seconds(30), seconds(60))
    );
    let ejection = b.ejection.as_ref().expect("it is on");
    assert_eq!(
        (ejection.consecutive.get(), *ejection.eject_for, *ejection.eject_for_max),
        (5, seconds(30), seconds(300))
    );
    assert_eq!(
        (&a.ejection, *b.retry.jitter, *b.retry.attempts),
        (&None, Jitter::Full, 2)
    );
}

#[test]
fn files_are_found_from_the_configs_folder() {
    let config = good(&format!(
        "{HEAD}{ROUTE}callers: {{ api_keys: {{ file: keys.yaml }} }}\nadmin: {{ token_file: /run/token }}\n"
    ));
    assert_eq!(
        config.callers.api_keys.expect("it is written").file.value,
        Path::new("/etc/gateway/keys.yaml")
    );
    assert_eq!(
        config
            .admin
            .and_then(|admin| admin.token_file)
            .expect("it is written")
            .value,
        Path::new("/run/token")
    );
}

#[test]
fn anchors_and_merge_keys_save_writing() {
    let config = good(&format!(
        "{HEAD}{ROUTE}backends:\n  a: &a {{ endpoints: [{{ url: \"http://a\" }}], time_limit: 4s, preserve_host: true }}\n  b:\n    <<: *a\n    time_limit: 6s\n"
    ));
    let b = config.backends.get("b").expect("it is written");
    assert_eq!((*b.time_limit, *b.preserve_host), (Duration::from_secs(6), true));
}

#[test]
fn a_span_leads_back_to_the_line() {
    let text = format!("{HEAD}# gr\u{fc}\u{df}e\ntenants: {{ \"\u{e4}\\a\": {{}}, acme: {{ tier: gold }} }}\n{ROUTE}");
    let invalid =
        parse("gateway.yaml", &text, Path::new("."), &env).expect_err("a tenant's name has no control characters");
    let at = invalid
        .mistakes
        .iter()
        .next()
        .and_then(|mistake| mistake.at)
        .expect("it has a place");
    assert_eq!(
        invalid.sources.locate(at),
        Location {
            file: "gateway.yaml".into(),
            line: 3,
            column: 12
        }
    );
}

#[test]
fn a_file_that_is_not_there_is_a_mistake() {
    let invalid = load(Path::new("/nowhere/gateway.yaml")).expect_err("it is not there");
    assert!(
        invalid
            .to_string()
            .contains("error[unreadable]: cannot read /nowhere/gateway.yaml"),
        "{invalid}"
    );
}

#[test]
fn a_config_that_is_not_there_has_only_configs_of_near_names_suggested() {
    let folder = tempfile::tempdir().expect("there is room");
    for name in ["gatway.yaml", "gatewy.txt", "compose.yaml", "notes.yml"] {
        fs::write(folder.path().join(name), "").expect("it can be written");
    }
    let hint = |name: &str| {
        let invalid = load(&folder.path().join(name)).expect_err("it is not there");
        let hints: Vec<_> = invalid
            .mistakes
            .iter()
            .filter_map(|mistake| mistake.hint.clone())
            .collect();
        hints.concat()
    };
    assert_eq!(
        hint("gateway.yaml"),
        "did you mean `gatway.yaml`? `gateway init` writes a config to begin with"
    );
    for name in ["edge.yaml", "gatewy.tx", "node.yml"] {
        assert_eq!(hint(name), "`gateway init` writes a config to begin with", "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..cases::counted() })]

    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        let _ = parse("x", &text, Path::new("."), &env).map_err(|invalid| invalid.render(false));
    }

    /// Damaged copies of a real config reach more code than random text does.
    #[test]
    fn no_damage_makes_it_panic(at in any::<prop::sample::Index>(), len in 0usize..40, put in "[\\PC\n\t\u{0}\u{feff}]{0,6}") {
        let mut text = include_str!("../../../fixtures/configs/everything.yaml").to_owned();
        let boundary = |mut index: usize| { while !text.is_char_boundary(index) { index -= 1 } index };
        let start = boundary(at.index(text.len()));
        let end = boundary((start + len).min(text.len()));
        text.replace_range(start..end, &put);
        let _ = parse("x", &text, Path::new("."), &env).map_err(|invalid| invalid.render(false));
    }
}

/// Reads a section that can be switched off with this value. Returns `None` if it is off, or the hint.
fn switched(value: &str) -> Result<Option<()>, String> {
    let text =
        format!("{HEAD}{ROUTE}backends: {{ b: {{ endpoints: [{{ url: \"http://h\" }}], breaker: {value} }} }}\n");
    match parse("gateway.yaml", &text, Path::new("."), &env) {
        Ok(loaded) => Ok(loaded
            .config
            .backends
            .get("b")
            .expect("it is written")
            .breaker
            .as_ref()
            .map(|_| ())),
        Err(invalid) => Err(invalid
            .mistakes
            .iter()
            .find_map(|mistake| mistake.hint.clone())
            .unwrap_or_default()),
    }
}

#[test]
fn off_has_many_spellings_and_on_is_told_to_be_left_out() {
    for off in ["off", "Off", "OFF", "\"off\"", "'off'", "false", "False", "FALSE"] {
        assert_eq!(switched(off), Ok(None), "{off}");
    }
    for no in ["no", "No", "none", "disabled", "never", "\"false\"", "\"no\"", "n"] {
        assert_eq!(switched(no).expect_err(no), "did you mean `off`?", "{no}");
    }
    for yes in ["on", "true", "yes", "enabled", "\"on\""] {
        assert!(switched(yes).expect_err(yes).contains("leave it out"), "{yes}");
    }
    for nothing in ["", "{}"] {
        assert_eq!(switched(nothing), Ok(Some(())), "{nothing}");
    }
}

/// Every key that accepts `off` accepts each of its spellings, and suggests `off` for other words.
#[test]
fn off_is_spelt_alike_everywhere() {
    let backend = r#"backends: { b: { endpoints: [{ url: "http://h" }], @ } }"#;
    let route = r#"backends: { b: { endpoints: [{ url: "http://h" }] } }
routes: { r: { match: { path: / }, backend: b, @ } }"#;
    let places = [
        ("@", "admin"),
        ("@", "minimum_rates"),
        ("@", "security_headers"),
        ("@", "access_log"),
        ("callers: { @ }", "failures"),
        ("callers: { @ }", "verifications"),
        ("connection_limits: { @ }", "per_address"),
        ("connection_limits: { @ }", "requests"),
        (backend, "breaker"),
        (backend, "ejection"),
        (backend, "retry"),
        (route, "cors"),
        (route, "compression"),
        (route, "upgrade"),
        (route, "security_headers"),
    ];
    let read = |place: &str, key: &str, value: &str| {
        let section = place.replace('@', &format!("{key}: {value}"));
        let rest = if place.contains("routes:") { "" } else { ROUTE };
        parse(
            "gateway.yaml",
            &format!("{HEAD}{rest}{section}\n"),
            Path::new("."),
            &env,
        )
    };
    for (place, key) in places {
        let off = read(place, key, "off")
            .unwrap_or_else(|invalid| panic!("{invalid}"))
            .config;
        for spelling in ["\"off\"", "'off'", "false", "False", "OFF"] {
            let config = read(place, key, spelling)
                .unwrap_or_else(|invalid| panic!("{invalid}"))
                .config;
            assert_eq!(config, off, "{key}: {spelling}");
        }
        for no in ["no", "none", "disabled"] {
            let invalid = read(place, key, no).expect_err(no);
            let hints: Vec<_> = invalid
                .mistakes
                .iter()
                .filter_map(|mistake| mistake.hint.as_deref())
                .collect();
            assert_eq!(hints, ["did you mean `off`?"], "{key}: {no}\n{invalid}");
        }
        for yes in ["on", "true", "yes"] {
            let invalid = read(place, key, yes).expect_err(yes);
            assert!(
                invalid.mistakes.iter().all(|mistake| mistake.hint.is_some()),
                "{key}: {yes}\n{invalid}"
            );
        }
    }
    // A section that is off by default does not accept `off`.
    for (place, key) in [
        ("@", "cors"),
        ("@", "compression"),
        ("callers: { @ }", "anonymous"),
        ("callers: { @ }", "api_keys"),
        ("listeners: { a: { address: \"0.0.0.0:1\", @ } }", "tls"),
        (route, "limits"),
    ] {
        let text = place.replace('@', &format!("{key}: off"));
        let rest = if place.contains("routes:") { "" } else { ROUTE };
        let head = if place.contains("listeners:") { "" } else { HEAD };
        let invalid = parse("gateway.yaml", &format!("{head}{rest}{text}\n"), Path::new("."), &env).expect_err(key);
        let hints: Vec<_> = invalid
            .mistakes
            .iter()
            .filter_map(|mistake| mistake.hint.as_deref())
            .collect();
        assert_eq!(hints, ["it is off unless it is written: leave it out"], "{invalid}");
    }
}

//! Checks that all mistakes of a config are reported at once, before any socket is opened.

use std::net::TcpListener;
use std::path::Path;

use tests::configs::Config;
use tests::{Setup, cli};

/// EX_CONFIG of sysexits.h.
const INVALID: Option<i32> = Some(78);

const MISTAKEN: &str = r#"
listeners: { public: { address: "127.0.0.1:0" } }
listners: {}
tiers: { gold: { rate: 5/s, brust: 1000 } }
callers: { anonymous: {} }
backends:
  users: { endpoints: [{ url: "http://127.0.0.1:9" }], time_limit: 2s, attempt_limit: 3s }
routes:
  a: { match: { path: /a }, access: { any_of: [anonymous] }, backend: user }
  b: { match: { path: /b }, access: { any_of: [anonymous] }, time_limit: 60s, backend: users }
  c: { match: { path: /c }, access: { any_of: [anonymous] }, backend: users, respond: { status: 200 } }
"#;

fn good() -> Config {
    Config::default()
        .open_route("users", "users", "")
        .backend("users", ([127, 0, 0, 1], 9).into(), "")
}

#[test]
fn a_good_config_is_called_good() {
    let told = cli(&["check", "-c", "gateway.yaml"], &Setup::new(good().to_string()));
    assert_eq!(told.code, Some(0), "{told:?}");
    let told = cli(&["check"], &Setup::new(good().to_string()));
    assert_eq!(told.code, Some(0), "gateway.yaml is the default: {told:?}");
    let told = cli(&["check", "gateway.yaml", "-q"], &Setup::new(good().to_string()));
    assert_eq!(told.code, Some(0), "the option need not be named: {told:?}");
    let told = cli(&["check", "other.yaml"], &Setup::new(good().to_string()));
    assert_eq!(told.code, INVALID, "{told:?}");
    assert!(told.stderr.contains("cannot read other.yaml"), "{told:?}");
}

/// What every other product would have taken is told in our words, and the config still runs.
#[test]
fn patterns_of_other_products_and_an_open_admin_address_are_doubted() {
    let config = good().to_string().replace("/users", "/users/:id");
    let told = cli(&["check", "gateway.yaml"], &Setup::new(config));
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(
        told.stderr.contains("did you mean `\"/users/{id}/{*rest}\"`?"),
        "{told:?}"
    );
    let told = cli(
        &["check", "gateway.yaml"],
        &Setup::new(format!(
            "{}admin: {{ address: 0.0.0.0:9900 }}\n",
            good().to_string().replace("admin:", "#")
        )),
    );
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(
        told.stderr
            .contains("`admin.address` can be reached from other machines"),
        "{told:?}"
    );
}

/// `UPDATE_EXPECTED=1` takes over what is told now.
#[test]
fn a_good_config_is_told_what_it_comes_to() {
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/configs");
    for name in ["article-timeouts", "aggregate", "create-order"] {
        let path = configs.join(format!("{name}.yaml"));
        let told = cli(
            &["check", "-c", path.to_str().expect("a plain path")],
            &Setup::default(),
        );
        assert_eq!(told.code, Some(0), "{told:?}");
        let said = told.stdout.replace(&format!("{}/", configs.display()), "");
        let expected = path.with_extension("txt");
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            std::fs::write(&expected, &said).expect("the fixtures can be written");
        }
        assert_eq!(said, std::fs::read_to_string(&expected).unwrap_or_default(), "{name}");
        let longest = said.lines().map(|line| line.chars().count()).max();
        assert!(longest <= Some(100), "{name} does not fit a terminal");
    }
}

#[test]
fn check_can_be_quiet() {
    for quiet in ["-q", "--quiet"] {
        let told = cli(&["check", quiet], &Setup::new(good().to_string()));
        assert_eq!(told.stdout, "gateway.yaml: good: 1 route, 1 backend\n");
    }
}

#[test]
fn the_sum_of_what_a_tenant_may_do_in_several_tiers_is_told() {
    let keys = r#"keys:
  - { id: old, tenant: acme, tier: free, digest: "sha256:385ec044fbb260818dd8f202383d4fabfa9eab8f7e269ba3d60bc92dfd8ddd2e" }
  - { id: new, tenant: acme, tier: basic, digest: "sha256:485ec044fbb260818dd8f202383d4fabfa9eab8f7e269ba3d60bc92dfd8ddd2e" }
"#;
    let config = good()
        .to_string()
        .replace("callers: {", "callers: { api_keys: { file: keys.yaml },");
    let told = cli(&["check"], &Setup::new(config).file("keys.yaml", keys));
    assert!(
        told.stdout.contains("\n  acme: basic 50/s + free 10/s = 60/s\n"),
        "{told:?}"
    );
}

#[test]
fn all_mistakes_are_told_at_once_with_their_place_and_a_hint() {
    for command in ["check", "run"] {
        let told = cli(&[command, "-c", "gateway.yaml"], &Setup::new(MISTAKEN));
        assert_eq!(told.code, INVALID, "{told:?}");
        for expected in [
            "gateway.yaml:3:1",
            "did you mean `listeners`?",
            "gateway.yaml:4:29",
            "did you mean `burst`?",
            "listners: {}",
            "error[conflict]",
        ] {
            assert!(
                told.stderr.contains(expected),
                "{command}: no {expected:?} in\n{}",
                told.stderr
            );
        }
    }
}

#[test]
fn what_is_written_well_may_still_mean_nothing() {
    let meaningless = [
        (
            "routes:",
            "routes:\n  lost: { match: { path: /x }, backend: user }",
            "did you mean `users`?",
        ),
        ("rewrite: \"/{path.rest}\"", "rewrite: \"/{path.rset}\"", "rset"),
        ("time_limit: 1s", "time_limit: 60s", "time_limit"),
        ("attempt_limit: 1s", "attempt_limit: 11s", "attempt_limit"),
        ("any_of: [anonymous]", "any_of: [anonymous, jwt]", "jwt"),
        ("tier: open", "tier: opne", "did you mean `open`?"),
    ];
    let right = Config::default()
        .backend("users", ([127, 0, 0, 1], 9).into(), "attempt_limit: 1s")
        .open_route("users", "users", "time_limit: 1s")
        .to_string();
    for (right_words, wrong_words, expected) in meaningless {
        let wrong = right.replacen(right_words, wrong_words, 1);
        assert_ne!(wrong, right);
        let told = cli(&["check"], &Setup::new(wrong));
        assert_eq!(told.code, INVALID, "{wrong_words}: {told:?}");
        assert!(
            told.stderr.contains(expected),
            "{wrong_words}: no {expected:?} in\n{}",
            told.stderr
        );
    }
}

#[test]
fn keys_twice_and_keys_not_built_yet_are_mistakes() {
    for wrong in [
        "admin: { address: \"127.0.0.1:0\" }",
        "workers: 2\nworkers: 3",
        "stores: {}",
        "tiers: { free: {}, free: {} }",
    ] {
        let told = cli(&["check"], &Setup::new(good().top(wrong).to_string()));
        assert_eq!(told.code, INVALID, "{wrong}: {told:?}");
        assert!(told.stderr.contains("gateway.yaml:"), "{wrong}: {told:?}");
    }
}

#[test]
fn a_mistake_is_found_before_a_socket_is_opened() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let busy = format!(
        "listeners: {{ public: {{ address: \"{}\" }} }}",
        taken.local_addr().expect("bound")
    );
    let mistaken = Config::with(busy)
        .top("nonsense: 1")
        .route("r", "{ match: { path: /r }, respond: { status: 200 } }");
    let told = cli(&["run", "-c", "gateway.yaml"], &Setup::new(mistaken.to_string()));
    assert_eq!(told.code, INVALID, "{told:?}");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("bound").to_string();
    for (free, busy) in [
        ("public: { address: \"127.0.0.1:0\" }", "public"),
        ("admin: { address: \"127.0.0.1:0\" }", "admin"),
    ] {
        let config = good().to_string().replace(free, &free.replace("127.0.0.1:0", &address));
        assert!(config.contains(&address), "{busy}");
        let told = cli(&["run", "-c", "gateway.yaml"], &Setup::new(config));
        assert_eq!(told.code, Some(1), "{told:?}");
        let log = told.stderr + &told.stdout;
        assert!(
            log.contains(busy) && log.contains(&address),
            "who has which port? {log}"
        );
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let told = cli(&["run", "-c", "nowhere.yaml"], &Setup::default());
    assert_eq!(told.code, INVALID, "{told:?}");
    assert!(told.stderr.contains("nowhere.yaml"), "{told:?}");
    let keys = good()
        .top("")
        .to_string()
        .replace("callers: {", "callers: { api_keys: { file: nowhere-keys.yaml },");
    let told = cli(&["check"], &Setup::new(keys));
    assert_eq!(told.code, INVALID, "{told:?}");
    assert!(told.stderr.contains("nowhere-keys.yaml"), "{told:?}");
}

#[test]
fn wrong_usage_has_its_own_exit_code() {
    for arguments in [&["walk"][..], &["run", "--no-such-option"], &[]] {
        let told = cli(arguments, &Setup::default());
        assert_eq!(told.code, Some(2), "{arguments:?}: {told:?}");
    }
}

#[test]
fn a_config_to_begin_with_is_good_and_replaces_none() {
    let setup = Setup::new(String::new());
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("edge.yaml").display().to_string();
    let written = cli(&["init", &file], &setup);
    assert_eq!(written.code, Some(0), "{}", written.stderr);
    assert!(written.stdout.contains("gateway check "), "{}", written.stdout);
    let checked = cli(&["check", "-q", &file], &setup);
    assert_eq!(
        (checked.code, checked.stderr.as_str()),
        (Some(0), ""),
        "{}",
        checked.stdout
    );
    let again = cli(&["init", &file], &setup);
    assert_eq!(again.code, Some(1));
    assert!(
        again.stderr.contains("exists already and stays as it is"),
        "{}",
        again.stderr
    );
}

#[test]
fn the_manual_and_the_completions_name_every_command() {
    let setup = Setup::new(String::new());
    for arguments in [
        &["man"][..],
        &["completions", "bash"],
        &["completions", "zsh"],
        &["completions", "fish"],
    ] {
        let told = cli(arguments, &setup);
        assert_eq!(told.code, Some(0), "{}", told.stderr);
        for command in [
            "run",
            "check",
            "init",
            "explain",
            "doctor",
            "status",
            "reload",
            "healthcheck",
            "key",
            "token",
            "schema",
        ] {
            assert!(told.stdout.contains(command), "{arguments:?} leaves out {command}");
        }
    }
}

/// Checks the config that the Kubernetes manifest holds as a text.
#[test]
fn the_config_of_the_manifest_is_good() {
    let manifest = include_str!("../../../gateway/deploy/kubernetes/gateway.yaml");
    let (_, config) = manifest.split_once("  gateway.yaml: |\n").expect("a ConfigMap");
    let (config, _) = config.split_once("---\n").expect("more than one object");
    let config: String = config
        .lines()
        .map(|line| format!("{}\n", line.get(4..).unwrap_or_default()))
        .collect();
    let keys = include_str!("../../../fixtures/configs/keys.yaml");
    let setup = Setup::new(config.replace("/etc/gateway/keys/", "")).file("keys.yaml", keys);
    let checked = cli(&["check", "-q", "gateway.yaml"], &setup);
    assert_eq!(checked.code, Some(0), "{}{}", checked.stdout, checked.stderr);
}

#[test]
fn the_config_of_the_compose_file_is_good() {
    let keys = include_str!("../../../gateway/deploy/compose/keys.yaml");
    let setup = Setup::new(include_str!("../../../gateway/deploy/compose/gateway.yaml")).file("keys.yaml", keys);
    let checked = cli(&["check", "gateway.yaml"], &setup);
    assert_eq!(checked.code, Some(0), "{}{}", checked.stdout, checked.stderr);
    assert!(checked.stdout.contains("on lease"), "{}", checked.stdout);
}

/// Returns the block of text under a key of a YAML file, without its indentation.
fn block(yaml: &str, key: &str) -> String {
    let (_, rest) = yaml.split_once(&format!("\n{key}: |\n")).expect("the key is there");
    let lines = rest
        .lines()
        .take_while(|line| line.is_empty() || line.starts_with("  "));
    lines
        .map(|line| format!("{}\n", line.get(2..).unwrap_or_default()))
        .collect()
}

/// Returns the first number after a text.
fn number_after(text: &str, start: &str) -> u64 {
    let (_, rest) = text.split_once(start).unwrap_or_else(|| panic!("there is no {start}"));
    let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("no number after {start}"))
}

/// Checks the default values of the chart: the config is good, and the ports and times are those of the config.
#[test]
fn the_values_of_the_chart_agree_with_their_config() {
    let values = include_str!("../../../gateway/deploy/helm/gateway/values.yaml");
    let config = block(values, "config");
    let keys = include_str!("../../../fixtures/configs/keys.yaml");
    let setup = Setup::new(config.replace("/etc/gateway/keys/", "")).file("keys.yaml", keys);
    let checked = cli(&["check", "-q", "gateway.yaml"], &setup);
    assert_eq!(checked.code, Some(0), "{}{}", checked.stdout, checked.stderr);
    for (in_config, in_values) in [
        ("public: { address: 0.0.0.0:", "name: http, port:"),
        ("\n  address: 0.0.0.0:", "\nadminPort:"),
        ("health_address: 0.0.0.0:", "\nprobesPort:"),
    ] {
        assert_eq!(
            number_after(&config, in_config),
            number_after(values, in_values),
            "{in_values}"
        );
    }
    let drains = number_after(&config, "drain_notice:") + number_after(&config, ", drain:");
    let grace = number_after(values, "\nterminationGracePeriodSeconds:");
    assert!(grace >= drains + 20, "{grace} s for {drains} s");
    let chart = include_str!("../../../gateway/deploy/helm/gateway/Chart.yaml");
    assert!(
        chart.contains(concat!("\nappVersion: ", env!("CARGO_PKG_VERSION"), "\n")),
        "the version of the chart"
    );
    let mounted = values.contains("- { name: gateway-keys, mountPath: /etc/gateway/keys }");
    assert!(mounted && config.contains("/etc/gateway/keys/keys.yaml"));
    // The deployment starts it with a command line that there is.
    let deployment = include_str!("../../../gateway/deploy/helm/gateway/templates/deployment.yaml");
    let help = cli(&["run", "--help"], &Setup::new(""));
    let (_, arguments) = deployment.split_once("            - run\n").expect("it runs");
    let (arguments, _) = arguments.split_once("{{- with .Values.env }}").expect("the end");
    for argument in arguments.lines().filter_map(|line| line.trim().strip_prefix("- --")) {
        let name = argument.split('=').next().expect("a name");
        assert!(help.stdout.contains(&format!("--{name}")), "{name}");
    }
    assert!(
        arguments.contains("--config=/etc/gateway/gateway.yaml") && deployment.contains("path: /readyz, port: probes")
    );
}

/// Renders the chart, where there is a `helm`.
#[test]
fn the_chart_renders() {
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../gateway/deploy/helm/gateway");
    let helm = |arguments: &[&str]| {
        let told = std::process::Command::new("helm").args(arguments).output().ok()?;
        let (out, err) = (
            String::from_utf8_lossy(&told.stdout).into_owned(),
            String::from_utf8_lossy(&told.stderr).into_owned(),
        );
        assert!(told.status.success(), "{arguments:?}: {out}{err}");
        Some(out)
    };
    if helm(&["lint", "--strict", "--kube-version", "1.31.0", chart]).is_none() {
        let told = "SKIPPED the_chart_renders: there is no helm in PATH\n";
        let _ = std::io::Write::write_all(&mut std::io::stderr(), told.as_bytes());
        return;
    }
    let rendered = helm(&["template", "edge", chart, "--kube-version", "1.31.0"]).expect("it was there");
    assert!(
        rendered.contains("checksum/config:") && !rendered.contains("--watch"),
        "{rendered}"
    );
    assert!(!rendered.contains("kind: ServiceMonitor") && rendered.contains("kind: HorizontalPodAutoscaler"));
    let set = [
        "--set",
        "restartOnChange=false,serviceMonitor.enabled=true,autoscaling.enabled=false,discovery.namespaces={shop}",
    ];
    let other =
        helm(&[&["template", "edge", chart, "--kube-version", "1.31.0"][..], &set].concat()).expect("it was there");
    assert!(
        !other.contains("checksum/config:") && other.contains("- --watch"),
        "{other}"
    );
    assert!(
        other.contains("kind: ServiceMonitor") && other.contains("replicas: 3") && other.contains("endpointslices")
    );
}

/// Checks what Compose gives to Prometheus and Grafana: files that there are, at the places where they are looked for.
#[test]
fn the_compose_file_mounts_files_that_there_are() {
    let folder = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../gateway/deploy/compose"));
    let compose = include_str!("../../../gateway/deploy/compose/compose.yaml");
    let mounts = compose.lines().filter_map(|line| {
        let (from, rest) = line
            .trim()
            .trim_start_matches("volumes: [\"")
            .trim_start_matches("- ")
            .split_once(":/")?;
        from.starts_with('.')
            .then(|| (from, format!("/{}", rest.split(":ro").next().unwrap_or_default())))
    });
    let mounts: Vec<_> = mounts.collect();
    assert_eq!(mounts.len(), 8, "{mounts:?}");
    for (from, _) in &mounts {
        assert!(folder.join(from).is_file(), "there is no {from}");
    }
    let has = |to: &str| mounts.iter().any(|(_, mounted)| mounted == to);
    let prometheus = include_str!("../../../gateway/deploy/compose/prometheus.yaml");
    assert!(prometheus.contains("/etc/prometheus/alerts.yaml") && has("/etc/prometheus/alerts.yaml"));
    let config = include_str!("../../../gateway/deploy/compose/gateway.yaml");
    assert_eq!(
        number_after(prometheus, "port:"),
        number_after(config, "\n  address: 0.0.0.0:"),
        "the admin address"
    );
    let provider = include_str!("../../../gateway/deploy/compose/grafana/dashboards.yaml");
    assert!(provider.contains("path: /var/lib/grafana/dashboards") && has("/var/lib/grafana/dashboards/gateway.json"));
    let source = include_str!("../../../gateway/deploy/compose/grafana/datasource.yaml");
    assert!(source.contains("http://prometheus:9090") && compose.contains("\n  prometheus:\n"));
    let balancer = include_str!("../../../gateway/deploy/compose/haproxy.cfg");
    assert_eq!(
        number_after(balancer, "check port "),
        number_after(config, "health_address: 0.0.0.0:")
    );
}

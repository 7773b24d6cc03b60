//! Checks the commands that ask a running gateway at its admin address.

use std::fs;

use serde_json::Value;
use tests::configs::Config;
use tests::{Gateway, Setup, Signal, cli};

const TOKEN: &str = "correct-horse-battery-staple";
const READ_TOKEN: &str = "battery-staple-correct-horse";

const TOP: &str = "
listeners: { public: { address: \"127.0.0.1:0\" } }
admin: { address: \"127.0.0.1:0\", token_file: admin.token, read_token_file: read.token }
callers: { anonymous: { by: client_address } }
";

fn config() -> Config {
    Config::with(TOP)
        .backend("orders", "127.0.0.1:9".parse().expect("an address"), "")
        .route(
            "fixed",
            "{ match: { path: /fixed }, access: { any_of: [anonymous] }, respond: { status: 204 } }",
        )
}

async fn start() -> Gateway {
    Setup::new(config().to_string())
        .file("admin.token", TOKEN)
        .file("read.token", READ_TOKEN)
        .start()
        .await
}

/// Runs a command against the gateway with a token; returns exit code, standard output and standard error.
pub(crate) async fn run(gateway: &Gateway, command: &[&str], token: Option<&str>) -> (Option<i32>, String, String) {
    let admin = gateway.admin_address().to_string();
    let mut arguments: Vec<String> = command.iter().map(ToString::to_string).collect();
    arguments.extend(["--admin".to_owned(), admin]);
    if let Some(token) = token {
        arguments.extend(["--token-file".to_owned(), gateway.path(token).display().to_string()]);
    }
    let asked = tokio::task::spawn_blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        cli(&arguments, &Setup::new(String::new()))
    });
    let told = asked.await.expect("it does not panic");
    (told.code, told.stdout, told.stderr)
}

#[tokio::test]
async fn healthcheck_says_whether_requests_are_taken() {
    let mut gateway = start().await;
    for (command, said) in [
        (&["healthcheck"][..], "ready\n"),
        (&["healthcheck", "--live"], "live\n"),
    ] {
        let (code, out, err) = run(&gateway, command, None).await;
        assert_eq!((code, out.as_str(), err.as_str()), (Some(0), said, ""));
    }
    gateway.signal(Signal::Kill);
    gateway.wait_exit().await;
    let (code, _, err) = run(&gateway, &["healthcheck"], None).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("no gateway answers at http://127.0.0.1:"), "{err}");
}

#[tokio::test]
async fn status_shows_what_is_in_trouble_first() {
    let gateway = start().await;
    let (code, out, err) = run(&gateway, &["status"], Some("read.token")).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(
        out.starts_with(concat!("gateway ", env!("CARGO_PKG_VERSION"), ", serving, ready, up ")),
        "{out}"
    );
    assert!(out.contains("gateway.yaml, generation 1\n"), "{out}");
    assert!(
        out.contains("  orders  breaker closed, 1 of 1 endpoints up, 0 of 100 slots\n"),
        "{out}"
    );
    let (code, out, _) = run(&gateway, &["status", "--json"], Some("read.token")).await;
    assert_eq!(code, Some(0));
    let told: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(told["backends"][0]["name"], "orders");
    assert_eq!(told["status"]["phase"], "serving");
    let (code, _, err) = run(&gateway, &["status"], None).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("name the file that holds it: --token-file FILE"), "{err}");
}

#[tokio::test]
async fn reload_puts_the_config_in_force_or_reports_every_mistake() {
    let gateway = start().await;
    let (code, out, err) = run(&gateway, &["reload"], Some("admin.token")).await;
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (Some(0), "the config is in force, generation 2\n", "")
    );
    let (code, out, err) = run(&gateway, &["reload", "--canary", "1s"], Some("admin.token")).await;
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (Some(0), "the config is in force, generation 3\nit stays\n", "")
    );
    gateway.rewrite_config(config().to_string().replace("status: 204", "stauts: 204"));
    let (code, _, err) = run(&gateway, &["reload"], Some("admin.token")).await;
    assert_eq!(code, Some(78));
    assert!(err.contains("has no key `stauts`"), "{err}");
    let (code, out, _) = run(&gateway, &["status"], Some("admin.token")).await;
    assert_eq!(code, Some(0));
    assert!(
        out.contains("generation 3\n") && out.contains("the last reload failed at "),
        "{out}"
    );
    let (code, _, err) = run(&gateway, &["reload"], Some("read.token")).await;
    assert_eq!(code, Some(1), "{err}");
    fs::write(gateway.path("wrong.token"), "correct-horse-battery-stapler").expect("the folder is there");
    let (code, _, _) = run(&gateway, &["reload"], Some("wrong.token")).await;
    assert_eq!(code, Some(1));
}

#[tokio::test]
async fn top_prints_one_frame_where_there_is_no_terminal() {
    let mut gateway = start().await;
    for arguments in [&["top"][..], &["top", "--once"]] {
        let (code, out, err) = run(&gateway, arguments, Some("read.token")).await;
        assert_eq!((code, err.as_str()), (Some(0), ""));
        assert!(
            out.starts_with(concat!("gateway ", env!("CARGO_PKG_VERSION"), "  serving, ready  up ")),
            "{out}"
        );
        for part in ["\nbackend ", "\norders ", "\nroute ", "\nfixed ", "0/100", "closed"] {
            assert!(out.contains(part), "{part}: {out}");
        }
        assert!(!out.contains('\u{1b}'), "no terminal, no sequences: {out:?}");
    }
    gateway.signal(Signal::Kill);
    gateway.wait_exit().await;
    let (code, _, err) = run(&gateway, &["top"], None).await;
    assert_eq!(code, Some(1));
    assert!(
        err.starts_with("gateway top: no gateway answers at http://127.0.0.1:"),
        "{err}"
    );
}

#[tokio::test]
async fn the_start_says_what_was_read() {
    let gateway = start().await;
    let log = gateway.log();
    let line = log
        .lines()
        .find(|line| line.contains(concat!(" gateway ", env!("CARGO_PKG_VERSION"))));
    let line = line.unwrap_or_else(|| panic!("no banner: {log}"));
    for fact in [
        "config=",
        "routes=1",
        "backends=1",
        "endpoints=1",
        "api_keys=0",
        "tiers=4",
        "warnings=",
    ] {
        assert!(line.contains(fact), "{fact}: {line}");
    }
    assert!(log.contains("serving listener=\"public\" address=127.0.0.1:"), "{log}");
}

#[test]
fn a_mistyped_command_is_told_the_right_one_and_help_says_the_exit_codes() {
    let told = cli(&["relaod"], &Setup::new(""));
    assert_eq!(told.code, Some(2));
    assert!(told.stderr.contains("'reload'"), "{}", told.stderr);
    let told = cli(&["run", "--help"], &Setup::new(""));
    assert!(
        told.stdout.contains("\n   3  stopped, but requests were cut"),
        "{}",
        told.stdout
    );
}

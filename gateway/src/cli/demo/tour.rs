//! The commands of the tour: the one list that the banner prints and `--tour` checks.
//!
//! Each command works whenever it is pasted: it produces what its label promises, and undoes what would spoil the next
//! one.

use super::CONTROL_VARIABLE;
use super::running::Running;

/// A shell command, and the output that it must produce.
pub(super) struct Step {
    pub(super) label: &'static str,
    pub(super) command: String,
    pub(super) sees: Vec<Expectation>,
}

/// A condition on the output of a command. Text is compared without regard to case.
pub(super) enum Expectation {
    Text(&'static str),
    /// Duration that `curl` reports, in seconds: at least the first number, and less than the second.
    Seconds(f64, f64),
}

use Expectation::{Seconds, Text};

/// Returns the commands for this demo. `program` is the shell word that runs this binary.
pub(super) fn steps(demo: &Running, program: &str) -> Vec<Step> {
    let Running {
        public,
        admin,
        folder,
        pid,
        ..
    } = demo;
    let config = quoted(&folder.join("gateway.yaml").display().to_string());
    let tokens = quoted(&folder.join("demo.env").display().to_string());
    // HEAD requests, which curl sends one after the other over one connection; the answers are counted.
    let heads = |key: &str, path: &str, fields: &str| {
        format!("curl -sI -H 'x-api-key: {key}' '{public}{path}' | grep -iE '^(HTTP|{fields})' | sort | uniq -c")
    };
    let checkout = format!(
        "curl -i -H 'x-api-key: demo-premium' -H 'idempotency-key: 8e03' \
         -d '{{\"user_id\":7,\"sku\":\"lamp\",\"amount\":12.50}}' {public}/checkout; echo"
    );
    let step = |label, command, sees| Step { label, command, sees };
    let mut steps = vec![
        step(
            "No key: 401, and what is missing",
            format!("curl -i {public}/users/7; echo"),
            vec![Text("401 Unauthorized"), Text("credentials_missing"), Text("x-api-key")],
        ),
        step(
            "A free key: 200, and what is left of its limit",
            format!("curl -i -H 'x-api-key: demo-free' {public}/users/7; echo"),
            vec![
                Text("200 OK"),
                Text("ratelimit-policy: \"free\";q=20"),
                Text("ratelimit: \"free\";r="),
            ],
        ),
        step(
            "A POST on a route that costs five of the 20 tokens",
            format!("curl -i -H 'x-api-key: demo-free' -d '{{\"sku\":\"lamp\"}}' {public}/orders; echo"),
            vec![Text("201 Created"), Text("ratelimit: \"free\";r=1")],
        ),
        step(
            "60 requests, three times its burst: 429, and when to return",
            heads("demo-free", "/users/[1-60]", "retry-after"),
            vec![Text("200 OK"), Text("429 Too Many Requests"), Text("retry-after: 1")],
        ),
        step(
            "A route's own limit refuses where the tier would not",
            heads(
                "demo-enterprise",
                "/search/lamp?page=[1-8]",
                "ratelimit-policy|retry-after",
            ),
            vec![Text("429 Too Many Requests"), Text("ratelimit-policy: \"search\"")],
        ),
        step(
            "One document from three backends",
            format!("curl -i -H 'x-api-key: demo-premium' {public}/dashboard/7; echo"),
            vec![
                Text("200 OK"),
                Text("x-gateway-complete: true"),
                Text("\"user\":{"),
                Text("\"orders\":{"),
                Text("\"credit\":{"),
            ],
        ),
        step(
            "A cart of 20, the product in each item; one is gone, and it says which",
            format!("curl -i -H 'x-api-key: demo-premium' {public}/carts/7; echo"),
            vec![
                Text("200 OK"),
                Text("x-gateway-complete: false"),
                Text("\"sku\":\"lamp-red\",\"product\":{\"name\":\"Desk lamp\",\"colour\":\"red\",\"cents\":5450}}"),
                Text("\"sku\":\"notebook-green\",\"product\":null}"),
                Text(
                    "\"failed\":1,\"of\":20,\"elements\":[{\"index\":8,\"reason\":\"backend_status\",\"status\":410}]",
                ),
            ],
        ),
        step(
            "Only the fields that this caller wants",
            format!("curl -i -H 'x-api-key: demo-premium' '{public}/carts/7?fields=items.product.name'; echo"),
            vec![
                Text("200 OK"),
                Text("{\"items\":[{\"product\":{\"name\":\"Kettle\"}},{\"product\":{\"name\":\"Desk lamp\"}}"),
            ],
        ),
        step(
            "Break one of them: still 200, marked incomplete",
            format!("{program} demo break orders; curl -i -H 'x-api-key: demo-premium' {public}/dashboard/7; echo"),
            vec![Text("200 OK"), Text("x-gateway-complete: false"), Text("\"_errors\"")],
        ),
        step(
            "Its own route: the breaker opens, 503 at once, Retry-After",
            heads("demo-premium", "/orders/[1-8]", "x-gateway-reason|retry-after"),
            vec![
                Text("503 Service Unavailable"),
                Text("x-gateway-reason: breaker_open"),
                Text("retry-after: "),
            ],
        ),
        step(
            "That breaker, at the admin address",
            format!("curl -s {admin}/metrics | grep 'gateway_breaker_.*orders'"),
            vec![Text("{backend=\"orders\",to=\"open\"} 1")],
        ),
        step(
            "Heal it: after 3 s calls pass again, the breaker closes",
            format!(
                "{program} demo heal orders; sleep 3; {}",
                heads("demo-premium", "/dashboard/[1-3]", "x-gateway-complete")
            ),
            vec![Text("3 HTTP/1.1 200 OK"), Text("3 x-gateway-complete: true")],
        ),
        step(
            "An order in one call: user and stock together, then one charge",
            checkout,
            vec![
                Text("201 Created"),
                Text("x-gateway-complete: true"),
                Text("\"state\":\"captured\",\"idempotency_key\":\"8e03:payment\""),
            ],
        ),
        step(
            "One answer in six fails here; retries hide it",
            heads("demo-enterprise", "/recommendations/[1-20]", "x-gateway-reason"),
            vec![Text("20 HTTP/1.1 200 OK")],
        ),
        step(
            "A slow backend: 504 after the 800 ms that a call may take",
            format!(
                "{program} demo slow payments; curl -i -w '\\n%{{time_total}} s\\n' -H 'x-api-key: demo-premium' \
                 {public}/credit/acc-7; {program} demo heal payments"
            ),
            vec![Text("504 Gateway Timeout"), Text("backend_timeout"), Seconds(0.7, 1.3)],
        ),
        step(
            "A caller in a hurry: 504 after its 150 ms",
            format!(
                "curl -i -w '\\n%{{time_total}} s\\n' -H 'x-request-timeout-ms: 150' -H 'x-api-key: demo-premium' \
                 {public}/credit/acc-7"
            ),
            vec![Text("504 Gateway Timeout"), Text("out_of_time"), Seconds(0.1, 0.5)],
        ),
        step(
            "A valid key, too low a tier: 403",
            format!("curl -i -H 'x-api-key: demo-basic' {public}/credit/acc-7; echo"),
            vec![Text("403 Forbidden"), Text("not_allowed")],
        ),
        step(
            "A signed token instead of a key; its claim says premium",
            format!(". {tokens}; curl -i -H \"authorization: Bearer $JWT_PREMIUM\" {public}/users/7; echo"),
            vec![Text("200 OK"), Text("ratelimit-policy: \"premium\"")],
        ),
        step(
            "An expired token: 401, which says so",
            format!(". {tokens}; curl -i -H \"authorization: Bearer $JWT_EXPIRED\" {public}/users/7; echo"),
            vec![Text("401 Unauthorized"), Text("credentials_expired")],
        ),
        step(
            "Another config at run time: it changes what / says",
            format!("sed -i.bak s/morning/evening/ {config}; kill -HUP {pid}; sleep 1; curl -i {public}/; echo"),
            vec![Text("200 OK"), Text("Good evening")],
        ),
    ];
    let last = steps.pop();
    steps.extend(steps_of_tenants(demo));
    steps.extend(last);
    steps
}

/// Returns the commands that make a tenant, change it, show what it has used, and stop it.
fn steps_of_tenants(demo: &Running) -> Vec<Step> {
    let Running {
        public, admin, folder, ..
    } = demo;
    let file = |name: &str| quoted(&folder.join(name).display().to_string());
    let (token, key, tenants, before) = (
        file("admin.token"),
        file("initech.key"),
        file("tenants.yaml"),
        file("tenants.before"),
    );
    let change = |method: &str, body: &str, path: &str| {
        let body = if body.is_empty() {
            String::new()
        } else {
            format!("-d '{body}' ")
        };
        format!(
            "curl -s -H \"authorization: Bearer $(cat {token})\" -X {method} {body}{admin}/api/v1/tenants/initech{path}"
        )
    };
    let ask = format!("curl -i -H \"x-api-key: $(cat {key})\" {public}/users/7; echo");
    let step = |label, command, sees| Step { label, command, sees };
    vec![
        step(
            "A tenant and its key are made by curl; the key works at once",
            format!(
                "cp {tenants} {before}; {}; echo; {} | sed 's/.*\"secret\":\"\\([^\"]*\\).*/\\1/' > {key}; {ask}",
                change("PUT", "{\"tier\":\"free\"}", ""),
                change("POST", "", "/keys"),
            ),
            vec![
                Text("+  initech: { tier: free }"),
                Text("200 OK"),
                Text("ratelimit-policy: \"free\""),
            ],
        ),
        step(
            "Another plan: the next request has it; and what it has used",
            format!(
                "{}; echo; {ask}; curl -s '{admin}/api/v1/usage?tenant=initech&by=day'; echo",
                change("PATCH", "{\"tier\":\"premium\"}", "")
            ),
            vec![
                Text("200 OK"),
                Text("ratelimit-policy: \"premium\""),
                Text("\"tenant\":\"initech\",\"route\":\"users\""),
            ],
        ),
        step(
            "Stop it: 403 at once; its file has one line more",
            format!(
                "{}; echo; {ask}; diff {before} {tenants}",
                change("PATCH", "{\"disabled\":true}", "")
            ),
            vec![
                Text("403 Forbidden"),
                Text("tenant_disabled"),
                Text(">   initech: { tier: premium, disabled: true }"),
            ],
        ),
    ]
}

/// Returns the shell words that run this binary against this demo.
pub(super) fn program(demo: &Running) -> String {
    let path = std::env::current_exe().unwrap_or_else(|_| "gateway".into());
    let here = std::env::current_dir().ok();
    let path = match here.as_deref().and_then(|here| path.strip_prefix(here).ok()) {
        // The shell would search a bare name in the PATH.
        Some(name) if name.components().count() == 1 => format!("./{}", name.display()),
        Some(inside) => inside.display().to_string(),
        None => path.display().to_string(),
    };
    if demo.alone {
        quoted(&path)
    } else {
        format!("{CONTROL_VARIABLE}={} {}", demo.control, quoted(&path))
    }
}

/// Quotes a text as one word of a POSIX shell.
fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+,:=@".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::HashSet;
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;

    pub(in crate::cli::demo) fn some_demo() -> Running {
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Running {
            pid: 4711,
            public: at(8080),
            admin: at(9900),
            control: at(9),
            folder: "/tmp/gateway-demo-0".into(),
            alone: true,
        }
    }

    #[test]
    fn every_step_has_a_label_of_its_own_and_something_to_see() {
        let steps = steps(&some_demo(), "gateway");
        let labels: HashSet<&str> = steps.iter().map(|step| step.label).collect();
        assert_eq!(labels.len(), steps.len());
        for step in &steps {
            assert!(!step.sees.is_empty(), "{}", step.label);
            assert!(!step.command.contains('\n'), "pasted as one line: {}", step.command);
        }
    }

    #[test]
    fn what_is_broken_or_slowed_is_healed_again() {
        let all: String = steps(&some_demo(), "gateway")
            .iter()
            .map(|step| format!("{}\n", step.command))
            .collect();
        for (harm, backend) in [("break", "orders"), ("slow", "payments")] {
            let harmed = all.find(&format!("demo {harm} {backend}")).expect("the tour does harm");
            assert!(all[harmed..].contains(&format!("demo heal {backend}")), "{backend}");
        }
    }

    #[test]
    fn the_documents_have_the_commands_for_tenants() {
        let demo = some_demo();
        let page = include_str!("../../../docs/tenants.md");
        for step in steps_of_tenants(&demo) {
            let command = step.command.replace("/tmp/gateway-demo-0/", "");
            assert!(page.contains(&command), "docs/tenants.md lacks\n{command}");
        }
    }

    #[test]
    fn words_are_quoted_when_a_shell_would_split_them() {
        for (word, expected) in [
            ("target/demo/gateway", "target/demo/gateway"),
            ("/my files/gateway", "'/my files/gateway'"),
            ("it's", "'it'\\''s'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }

    #[test]
    fn beside_another_demo_the_line_says_which() {
        let mut demo = some_demo();
        assert!(!program(&demo).contains('='));
        demo.alone = false;
        assert!(program(&demo).starts_with("GATEWAY_DEMO_CONTROL=127.0.0.1:9 "));
    }
}

//! Checks `gateway tenant` and `gateway key` with a running gateway.

use tests::{cli, cli_reading};

use crate::tenants::{TENANTS, digest, setup, status, text};

#[tokio::test]
async fn a_shell_does_the_same() {
    let gateway = setup().start().await;
    let address = gateway.admin_address().to_string();
    let run = |arguments: &[&str]| {
        let more = ["--admin", &address, "--token-file", "admin.token"];
        cli(&[arguments, &more].concat(), &setup())
    };
    let ok = |arguments: &[&str]| {
        let done = run(arguments);
        assert_eq!(done.code, Some(0), "{arguments:?}: {done:?}");
        done.stdout
    };
    assert_eq!(
        ok(&[
            "tenant",
            "set",
            "initech",
            "--tier",
            "basic",
            "--quota",
            "monthly=100/month",
            "--label",
            "owner=bob"
        ]),
        "+  initech: { tier: basic, quotas: { monthly: { limit: 100, every: month } }, labels: { owner: bob } }\n"
    );
    let secret = ok(&["key", "new", "--live", "--tenant", "initech", "--id", "initech-1"]);
    assert_eq!(status(&gateway, secret.trim()).await, 204);
    assert!(
        ok(&["tenant", "list"]).contains("initech  basic"),
        "{}",
        ok(&["tenant", "list"])
    );
    assert!(ok(&["key", "list", "--tenant", "initech"]).contains("initech-1"));
    ok(&["tenant", "disable", "initech"]);
    assert_eq!(status(&gateway, secret.trim()).await, 403);
    ok(&["tenant", "enable", "initech"]);
    ok(&["tenant", "set", "initech", "--unset", "quotas,labels"]);
    assert!(text(&gateway, "tenants.yaml").contains("  initech: { tier: basic }\n"));
    ok(&["key", "set", "initech-1", "--label", "main"]);
    ok(&["key", "disable", "initech-1"]);
    assert_eq!(status(&gateway, secret.trim()).await, 401);
    ok(&["key", "enable", "initech-1"]);
    ok(&["key", "delete", "initech-1"]);
    ok(&["tenant", "delete", "initech"]);
    let refused = run(&["tenant", "set", "initech", "--tier", "gold"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("there is no tier `gold`"), "{refused:?}");
    assert_eq!(text(&gateway, "tenants.yaml"), TENANTS);
    let hashed = cli_reading("a-token-of-many-letters\n", &["key", "hash"], &setup());
    assert_eq!(
        hashed.stdout.trim(),
        format!("sha256:{}", digest("a-token-of-many-letters"))
    );
}

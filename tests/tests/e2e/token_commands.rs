//! Checks the commands for tokens: one reads what the other makes, and neither prints a secret.

use fixtures::keys;
use tests::{Cli, Setup, cli, cli_reading};

const CONFIG: &str = r#"
listeners: { public: { address: "127.0.0.1:0" } }
callers:
  jwt:
    main: { issuer: "https://id.test", audience: [edge], keys: { file: jwks.json }, algorithms: [ES256], tenant: /tenant }
    away: { issuer: "https://away.test", audience: [edge], keys: { url: "http://127.0.0.1:1/jwks.json" }, algorithms: [ES256], tenant: /tenant }
  revocations: { file: revoked.yaml }
routes: { hello: { match: { path: / }, respond: { body: hello } } }
"#;

fn setup() -> Setup {
    Setup::new(CONFIG)
        .file("jwks.json", keys::JWKS)
        .file("key.pem", keys::ES256_PRIVATE_PEM)
        .file("revoked.yaml", "revocations: [{ subject: eve }]")
}

fn mint(more: &[&str]) -> String {
    let usual = [
        "token",
        "mint",
        "--key=key.pem",
        "--alg=ES256",
        r#"--claims={"iss":"https://id.test","aud":"edge","sub":"ada","tenant":"acme"}"#,
    ];
    let names_a_key = more.iter().any(|argument| argument.starts_with("--kid"));
    let kid: &[&str] = if names_a_key { &[] } else { &["--kid=throwaway-es256"] };
    let made = cli(&[&usual, kid, more].concat(), &setup());
    assert_eq!((made.code, &*made.stderr), (Some(0), ""), "{made:?}");
    made.stdout
}

/// Returns what is printed about a token. Its signature is never printed.
fn inspect(token: &str, more: &[&str]) -> Cli {
    let told = cli_reading(token, &[&["token", "inspect"], more].concat(), &setup());
    if let Some((_, signature)) = token.trim().rsplit_once('.') {
        assert!(
            !told.stdout.contains(signature) && !told.stderr.contains(signature),
            "{told:?}"
        );
    }
    told
}

#[test]
fn a_good_token_passes_every_check() {
    for scheme in ["", "Bearer "] {
        let told = inspect(&format!("{scheme}{}", mint(&[])), &[]);
        assert_eq!(told.code, Some(0), "{told:?}");
        for words in [
            "callers.jwt.main",
            "ada of tenant acme",
            "\"sub\": \"ada\"",
            ", in ",
            "\nvalid\n",
        ] {
            assert!(told.stdout.contains(words), "{words}: {}", told.stdout);
        }
        assert!(!told.stdout.contains("FAILED"), "{}", told.stdout);
    }
}

#[test]
fn a_bad_token_is_told_what_failed_first_and_what_else() {
    let check = |more: &[&str], words: &[&str]| {
        let told = inspect(&mint(more), &[]);
        assert_eq!(told.code, Some(1), "{told:?}");
        for word in words {
            assert!(told.stdout.contains(word), "{word}: {}", told.stdout);
        }
    };
    check(
        &["--claim=exp=1000000000"],
        &["FAILED expired", "credentials_expired", "days ago"],
    );
    check(
        &["--claim=aud=other"],
        &[
            "FAILED aud",
            "(ok: exp",
            "not checked: required_claims, caller, tenant",
            "not valid: aud",
        ],
    );
    check(
        &["--kid=other", "--claim=tenant=true"],
        &["FAILED kid_unknown", "FAILED tenant", "not valid: kid_unknown"],
    );
    check(
        &["--claim=iss=https://evil.test"],
        &["FAILED iss", "none of the config", "not valid: iss"],
    );
    check(
        &["--claim=sub=eve"],
        &["FAILED revoked_subject", "not valid: revoked_subject"],
    );
    let told = inspect("nonsense", &[]);
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(told.stdout.contains("FAILED token_malformed"), "{told:?}");
}

#[test]
fn keys_that_are_elsewhere_are_asked_for_unless_told_not_to() {
    let token = mint(&["--claim=iss=https://away.test"]);
    for (more, words) in [
        (&[][..], "none from http://127.0.0.1:1/jwks.json"),
        (&["--offline"], "is not asked"),
    ] {
        let told = inspect(&token, more);
        assert_eq!(told.code, Some(1), "{told:?}");
        assert!(
            told.stdout.contains(words)
                && told.stdout.contains("FAILED keys_unavailable")
                && told.stdout.contains("a caller is told keys_unavailable"),
            "{told:?}"
        );
    }
}

#[test]
fn a_bad_config_is_a_bad_config() {
    let told = cli_reading("a.b.c", &["token", "inspect"], &Setup::new("listners: {}"));
    assert_eq!((told.code, &*told.stdout), (Some(78), ""), "{told:?}");
}

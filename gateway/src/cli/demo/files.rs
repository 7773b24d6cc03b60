//! Writes the files of the demo's folder: its config, the digests of its keys, its issuer's keys, and tokens.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use fixtures::tokens::{self, Algorithm};
use fixtures::{api_keys, keys};
use serde_json::{Value, json};

use super::folder::Folder;
use crate::auth::api_key::format;

/// Config of the demo, with placeholders for the addresses that are chosen at the start.
const SHOP: &str = include_str!("shop.yaml");
/// File of tenants of the demo.
const TENANTS: &str = "\
# The tenants of the shop whose terms differ from those of their tier. The admin API changes this file, and so may you.
tenants:
  # Sells on its own site too.
  globex: { tier: basic, labels: { owner: ada } }
";
const PUBLIC: &str = "127.0.0.1:8080";
const ADMIN: &str = "127.0.0.1:9900";
/// End of a placeholder: `http://users.demo` stands for the address of the backend `users`.
const BACKEND_SUFFIX: &str = ".demo\"";

/// Lifetime of the valid tokens; longer than a demo runs.
const VALID_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

/// Ports that a demo listens on; port 0 means any free port.
pub(super) struct Ports {
    pub(super) public: u16,
    pub(super) admin: u16,
}

/// Writes all files. Returns the path of the config.
///
/// # Errors
/// Fails if the folder cannot be written to.
pub(super) fn write<'a>(
    folder: &Folder,
    ports: &Ports,
    backends: impl IntoIterator<Item = (&'a str, SocketAddr)>,
) -> io::Result<PathBuf> {
    folder.write("keys.yaml", &api_keys::demo_key_file())?;
    folder.write("tenants.yaml", TENANTS)?;
    folder.write("revoked.yaml", "revocations: []\n")?;
    let token = format::random_text(40).map_err(|_| io::Error::other("the system has no randomness"))?;
    folder.write("admin.token", &format!("{token}\n"))?;
    folder.write("jwks.json", keys::JWKS)?;
    folder.write("demo.env", &tokens_to_source())?;
    folder.write("gateway.yaml", &config(ports, backends))
}

fn config<'a>(ports: &Ports, backends: impl IntoIterator<Item = (&'a str, SocketAddr)>) -> String {
    let mut text = SHOP
        .replace(PUBLIC, &format!("127.0.0.1:{}", ports.public))
        .replace(ADMIN, &format!("127.0.0.1:{}", ports.admin));
    for (name, address) in backends {
        text = text.replace(
            &format!("http://{name}{BACKEND_SUFFIX}"),
            &format!("http://{address}\""),
        );
    }
    text
}

/// Returns shell lines such as `export JWT_PREMIUM=...`, one for each kind of token.
fn tokens_to_source() -> String {
    let valid = |plan: &str| {
        json!({
            "iss": "https://id.demo", "aud": "demo", "sub": "ada", "tenant": format!("{plan}-co"), "plan": plan,
            "exp": tokens::seconds_from_now(VALID_FOR),
        })
    };
    let with = |claim: &str, value: Value| {
        let mut claims = valid("premium");
        claims[claim] = value;
        claims
    };
    let an_hour_ago = tokens::seconds_from_now(Duration::ZERO).saturating_sub(3600);
    let mut without_tenant = valid("premium");
    without_tenant.as_object_mut().map(|claims| claims.remove("tenant"));
    let mut text = String::from("# Tokens for `gateway demo`, signed with a throw-away key that is public.\n");
    for (name, what, claims) in [
        ("JWT_FREE", "valid", valid("free")),
        ("JWT_PREMIUM", "valid", valid("premium")),
        ("JWT_EXPIRED", "expired an hour ago", with("exp", an_hour_ago.into())),
        (
            "JWT_WRONG_AUDIENCE",
            "meant for somebody else",
            with("aud", "elsewhere".into()),
        ),
        (
            "JWT_WRONG_ISSUER",
            "from somebody else",
            with("iss", "https://id.elsewhere".into()),
        ),
        ("JWT_WITHOUT_TENANT", "says not who pays", without_tenant),
    ] {
        let token = tokens::mint(Algorithm::ES256, &claims, Some(&tokens::kid(Algorithm::ES256)));
        text += &format!("export {name}={token}  # {what}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::Arc;

    use super::*;
    use crate::control::reload;
    use crate::observe::{Observer, Target};
    use crate::plan::State;

    #[test]
    fn the_config_compiles_without_a_warning_and_names_no_stand_in() {
        let folder = Folder::create().expect("a temporary folder can be written to");
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
        let names = ["users", "orders", "inventory", "recommendations", "payments"];
        let path = write(&folder, &Ports { public: 1, admin: 2 }, names.map(|name| (name, at))).expect("written");
        let text = std::fs::read_to_string(&path).expect("readable");
        assert!(
            !text.contains(BACKEND_SUFFIX) && !text.contains(PUBLIC) && !text.contains(ADMIN),
            "{text}"
        );
        let state = State::new(Observer::start(&Target::Off).expect("nothing to open"));
        match reload::read(&path, &state, 1) {
            Ok((compiled, loaded)) => {
                assert!(
                    compiled.warnings.is_empty(),
                    "{}",
                    loaded.sources.render_warnings(&compiled.warnings, false)
                );
                let all: Vec<Arc<str>> = compiled.plan.backends.iter().map(|b| Arc::clone(&b.name)).collect();
                assert_eq!(all.len(), names.len(), "{all:?}");
            }
            Err(invalid) => panic!("{}", invalid.render(false)),
        }
    }

    #[test]
    fn tokens_can_be_sourced() {
        let text = tokens_to_source();
        for line in text.lines().skip(1) {
            let value = line
                .strip_prefix("export JWT_")
                .and_then(|line| line.split_once('='))
                .expect("an assignment")
                .1;
            let token = value.split_once("  #").expect("an explanation").0;
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            assert!(token.bytes().all(plain) && token.split('.').count() == 3, "{line}");
        }
    }
}

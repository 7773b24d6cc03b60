//! Checks that the gateway neither follows nor truncates existing files in places where it writes, and that its files
//! are private.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use fixtures::api_keys::{KeyLine, key_file};
use tempfile::TempDir;
use tests::{Setup, cli, eventually};

use crate::SOON;

const PRECIOUS: &str = "precious";

fn counting(state_file: &Path) -> Setup {
    let config = format!(
        r#"
listeners: {{ public: {{ address: "127.0.0.1:0" }} }}
admin: {{ address: "127.0.0.1:0" }}
access_log: {{ file: access.log }}
state_file: {}
callers: {{ api_keys: {{ file: keys.yaml }} }}
tiers: {{ metered: {{ rate: 1000/s, burst: 1000, quotas: {{ monthly: {{ limit: 100, every: month }} }} }} }}
default_tier: metered
routes: {{ fixed: {{ match: {{ path: /fixed }}, respond: {{ status: 204 }} }} }}
"#,
        state_file.display()
    );
    Setup::new(config).file("keys.yaml", key_file(&[KeyLine::new("k", "acme", "key")]))
}

/// A folder with something that must not be touched.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("there is room");
    fs::write(folder.path().join("victim"), PRECIOUS).expect("a folder of ours");
    folder
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("it is there").mode() & 0o777
}

#[tokio::test]
async fn what_is_written_is_for_its_owner_alone_and_goes_through_no_link() {
    let folder = folder();
    let victim = folder.path().join("victim");
    let state = folder.path().join("gateway.state");
    fs::write(folder.path().join("gateway.state.lock"), PRECIOUS).expect("a folder of ours");
    for guessed in ["gateway.state.new", "gateway.state.partial", "gateway.state.tmp"] {
        symlink(&victim, folder.path().join(guessed)).expect("a folder of ours");
    }
    let gateway = counting(&state).start().await;
    gateway.get("/fixed").key("key").send().await.expect(204);
    eventually(SOON, "the count is written", || async {
        fs::read_to_string(&state).ok().filter(|text| text.contains("acme"))
    })
    .await;
    for path in [
        state.as_path(),
        &gateway.path("ready.json"),
        &gateway.path("access.log"),
    ] {
        assert_eq!(mode(path), 0o600, "{}", path.display());
    }
    assert_eq!(fs::read_to_string(&victim).expect("it is there"), PRECIOUS);
    let lock = fs::read_to_string(folder.path().join("gateway.state.lock"));
    assert_eq!(lock.expect("it is there"), PRECIOUS, "a lock is nobody's to write");
}

#[test]
fn a_link_in_place_of_a_file_ends_the_start_and_leaves_what_it_leads_to() {
    for (link, says) in [
        ("gateway.state", "symbolic link"),
        ("gateway.state.lock", "symbolic link"),
    ] {
        for target in ["victim", "absent"] {
            let folder = folder();
            symlink(folder.path().join(target), folder.path().join(link)).expect("a folder of ours");
            let setup = counting(&folder.path().join("gateway.state"));
            let run = cli(&["run", "-c", "gateway.yaml"], &setup);
            assert_eq!(run.code, Some(1), "{link} to {target}: {}", run.stderr);
            assert!(run.stderr.contains(says), "{link} to {target}: {}", run.stderr);
            let victim = fs::read_to_string(folder.path().join("victim"));
            assert_eq!(victim.expect("it is there"), PRECIOUS, "{link} to {target}");
            assert!(!folder.path().join("absent").exists(), "{link} to {target}");
        }
    }
}

#[test]
fn an_access_log_is_not_appended_to_what_a_link_leads_to() {
    let folder = folder();
    symlink(folder.path().join("victim"), folder.path().join("access.log")).expect("a folder of ours");
    let config = format!(
        "listeners: {{ public: {{ address: \"127.0.0.1:0\" }} }}\naccess_log: {{ file: {} }}\nadmin: off\n\
         callers: {{ anonymous: {{ by: client_address }} }}\n\
         routes: {{ fixed: {{ match: {{ path: / }}, access: {{ any_of: [anonymous] }}, respond: {{ status: 204 }} }} }}\n",
        folder.path().join("access.log").display()
    );
    let run = cli(&["run", "-c", "gateway.yaml"], &Setup::new(config));
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stderr.contains("is a symbolic link"), "{}", run.stderr);
    let victim = fs::read_to_string(folder.path().join("victim"));
    assert_eq!(victim.expect("it is there"), PRECIOUS);
}

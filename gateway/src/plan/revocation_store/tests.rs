use std::io::{Seek as _, Write as _};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use policies::WallTime;

use crate::auth::revocations::{RevokedKind, Terms};
use crate::plan::revocation_store::*;

fn key(id: &str) -> Revoked {
    Revoked::new(RevokedKind::Key, id, None).unwrap()
}

fn list(ids: &[&str]) -> List {
    ids.iter().map(|id| (key(id), Terms::default())).collect()
}

struct Bench {
    _folder: tempfile::TempDir,
    path: PathBuf,
    store: RevocationStore,
}

fn bench(content: &str) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("revoked.yaml");
    std::fs::write(&path, content).unwrap();
    let store = RevocationStore::default();
    store.keep_in(Some(&found(&path, &store)));
    Bench {
        _folder: folder,
        path,
        store,
    }
}

/// Reads the file in the way a plan does.
fn found(path: &Path, store: &RevocationStore) -> RevocationFile {
    let changes = Some(store.changes());
    let mut sources = Sources::default();
    let list = load(path, &mut sources).unwrap();
    RevocationFile {
        path: path.to_owned(),
        version: sources.reader().stamp(path),
        list,
        changes,
    }
}

impl Bench {
    #[track_caller]
    fn check(&self, ids: &[&str]) {
        let list = self.store.in_force.list();
        let found: Vec<_> = list.keys().map(|revoked| &**revoked.name()).collect();
        assert_eq!(found, ids);
    }

    fn edit(&self, content: &str) {
        files::replace(&self.path, content.as_bytes(), files::Mode::Kept).unwrap();
    }

    fn after_restart(&self) -> RevocationStore {
        let store = RevocationStore::default();
        store.keep_in(Some(&found(&self.path, &store)));
        store
    }
}

#[test]
fn what_is_written_is_what_is_read() {
    let path = tempfile::tempdir().unwrap().keep().join("revoked.yaml");
    let strange = ["k1", "true", "007", "\"", "${HOME}", "$${HOME}", "a:b", "#", "null"];
    let mut all = list(&strange);
    for issuer in [None, Some("main")] {
        for kind in [RevokedKind::Token, RevokedKind::Subject] {
            let revoked = Revoked::new(kind, "{x:y,z}", issuer).unwrap();
            let terms = Terms {
                until: Some(4_000_000_000),
                reason: Some("a \"leak\"\n# of ${HOME}".into()),
            };
            all.insert(revoked, terms);
        }
    }
    all.insert(
        Revoked::new(RevokedKind::Tenant, "acme", None).unwrap(),
        Terms::default(),
    );
    for list in [List::new(), all] {
        std::fs::write(&path, form::text(&list)).unwrap();
        let mut sources = Sources::default();
        let read = load(&path, &mut sources).unwrap_or_else(|m| panic!("{}", sources.render(&m, false)));
        assert_eq!(read, list);
    }
}

#[test]
fn changes_hold_at_once_and_over_a_restart() {
    let bench = bench("revocations: [{ key: a }]");
    bench.store.revoke(list(&["b"])).unwrap();
    bench.check(&["a", "b"]);
    assert_eq!(bench.after_restart().in_force.list(), bench.store.in_force.list());
    bench.store.restore(&key("a")).unwrap();
    bench.check(&["b"]);
    assert_eq!(bench.after_restart().in_force.list(), bench.store.in_force.list());
    assert!(matches!(
        bench.store.restore(&key("a")),
        Err(RevocationStoreError::Absent)
    ));
    assert_eq!(bench.store.status().unwritten, 0);
}

#[test]
fn an_edited_file_is_read_once_it_stays_as_it_is() {
    let bench = bench("revocations: []");
    bench.edit("revocations: [{ key: a }]");
    bench.store.follow(Moment::ZERO);
    bench.check(&[]);
    bench.store.follow(Moment::ZERO);
    bench.check(&["a"]);
    bench.edit("revocations: []");
    bench.store.follow(Moment::ZERO);
    bench.store.follow(Moment::ZERO);
    bench.check(&[]);
}

#[tokio::test(start_paused = true)]
async fn a_plan_that_read_the_file_before_it_was_written_takes_nothing_out() {
    let bench = bench("revocations: [{ key: a }]");
    let before = found(&bench.path, &bench.store);
    bench.store.revoke(list(&["b"])).unwrap();
    bench.store.keep_in(Some(&before));
    bench.check(&["a", "b"]);
    bench.edit("revocations: [{ key: c }]");
    bench.store.keep_in(Some(&found(&bench.path, &bench.store)));
    bench.check(&["b", "c"]);
    bench.store.follow(clock::now());
    tokio::time::advance(Duration::from_secs(60)).await;
    bench.edit("revocations: [{ key: c }]");
    bench.store.keep_in(Some(&found(&bench.path, &bench.store)));
    bench.check(&["c"]);
    let other = bench.path.with_extension("other");
    std::fs::write(&other, "revocations: [{ key: d }]").unwrap();
    bench.store.keep_in(Some(&found(&other, &bench.store)));
    bench.check(&["d"]);
    bench.store.keep_in(None);
    bench.check(&["d"]);
}

#[test]
fn a_file_that_never_rests_is_read_all_the_same() {
    let bench = bench("revocations: []");
    for round in 0..7 {
        bench.edit(&format!("revocations: [{{ key: a{round} }}]"));
        bench.store.follow(Moment::from_nanos(round * 200_000_000));
    }
    bench.check(&["a5"]);
}

#[test]
fn a_file_system_that_does_not_answer_holds_up_no_entry_and_nobody_who_asks() {
    let mut bench = bench("revocations: []");
    bench.store.patience = Duration::from_millis(1);
    let turn = bench.store.turn.take(Duration::ZERO).expect("nobody has it");
    bench.store.forget_ended(Now::read());
    assert_eq!(bench.store.status().unwritten, 0);
    bench.store.follow(Moment::ZERO);
    let added = bench.store.revoke(list(&["b"]));
    assert!(matches!(added, Err(RevocationStoreError::NotWritten(_))), "{added:?}");
    bench.check(&["b"]);
    assert_eq!(bench.store.status().unwritten, 1);
    drop(turn);
    bench.store.revoke(list(&["c"])).unwrap();
    assert_eq!(bench.after_restart().in_force.list(), bench.store.in_force.list());
}

#[test]
fn whoever_changes_the_list_loses_nothing_that_was_just_edited() {
    let bench = bench("revocations: []");
    bench.edit("revocations: [{ key: a }]");
    bench.store.revoke(list(&["b"])).unwrap();
    bench.check(&["a", "b"]);
}

#[test]
fn a_bad_file_changes_nothing_and_what_is_added_meanwhile_is_not_lost() {
    let bench = bench("revocations: [{ key: a }]");
    for bad in [
        "revocations: [{ key: a",
        "revocations: [{ keys: a }]",
        "revocations: [{ key: \"a\\tb\" }]",
        "",
    ] {
        bench.edit(bad);
        bench.store.follow(Moment::ZERO);
        bench.store.follow(Moment::ZERO);
        bench.check(&["a"]);
        assert!(bench.store.status().error.is_some(), "{bad}");
    }
    std::fs::remove_file(&bench.path).unwrap();
    bench.store.follow(Moment::ZERO);
    bench.store.follow(Moment::ZERO);
    bench.check(&["a"]);
    let added = bench.store.revoke(list(&["b"]));
    assert!(matches!(added, Err(RevocationStoreError::NotWritten(_))), "{added:?}");
    bench.check(&["a", "b"]);
    let taken = bench.store.restore(&key("a"));
    assert!(matches!(taken, Err(RevocationStoreError::NotWritten(_))), "{taken:?}");
    bench.check(&["a", "b"]);
    bench.edit("revocations: [{ key: c }]");
    bench.store.follow(Moment::ZERO);
    bench.store.follow(Moment::ZERO);
    bench.check(&["b", "c"]);
    assert_eq!(bench.store.status().unwritten, 1);
    bench.store.follow(clock::now());
    assert_eq!(bench.store.status().unwritten, 0, "it is written by itself");
    assert_eq!(bench.after_restart().in_force.list(), bench.store.in_force.list());
    bench.store.revoke(list(&["d"])).unwrap();
    assert_eq!(bench.after_restart().in_force.list(), bench.store.in_force.list());
}

#[test]
fn a_clock_that_is_ahead_for_a_while_erases_nothing() {
    let file = "revocations: [{ key: a, until: 2000-01-01 }, { key: b, until: 2199-01-01 }, { key: c }]";
    let bench = bench(file);
    bench.check(&["a", "b", "c"]);
    let at = |hours: u64, wall: u64| Now {
        moment: Moment::ZERO + Duration::from_secs(hours * 3600),
        wall: WallTime::since_epoch(Duration::from_secs(wall)),
    };
    let (in_2026, in_2200) = (1_795_521_600, 7_258_118_400);
    bench.store.forget_ended(at(0, in_2026));
    bench.store.forget_ended(at(0, in_2200));
    bench.check(&["a", "b", "c"]);
    bench.store.forget_ended(at(30, in_2200));
    bench.check(&["b", "c"]);
    bench.store.revoke(list(&["d"])).unwrap();
    let written = std::fs::read_to_string(&bench.path).unwrap();
    assert!(written.contains("key: b, until: 2199-01-01"), "{written}");
    assert_eq!(bench.after_restart().in_force.list(), bench.store.in_force.list());
}

#[test]
fn without_a_file_the_list_lives_in_memory_and_is_bounded() {
    let store = RevocationStore::default();
    let ids: Vec<_> = (0..MOST).map(|number| number.to_string()).collect();
    store
        .revoke(ids.iter().map(|id| (key(id), Terms::default())).collect())
        .unwrap();
    assert!(matches!(
        store.revoke(list(&["one-more"])),
        Err(RevocationStoreError::TooMany)
    ));
    assert_eq!(store.in_force.list().len(), MOST);
    store.restore(&key("7")).unwrap();
    store.revoke(list(&["one-more"])).unwrap();
}

#[test]
fn a_list_that_would_be_too_long_to_be_read_again_is_not_taken() {
    let bench = bench("revocations: [{ key: a }]");
    let reason: Arc<str> = "\u{1}".repeat(1024).into();
    let long = |from: usize, count: usize| -> List {
        let terms = Terms {
            until: None,
            reason: Some(Arc::clone(&reason)),
        };
        (from..from + count)
            .map(|number| (key(&format!("k{number:05}")), terms.clone()))
            .collect()
    };
    bench.store.revoke(long(0, 1_500)).unwrap();
    let refused = bench.store.revoke(long(1_500, 200));
    assert!(matches!(refused, Err(RevocationStoreError::TooLong)), "{refused:?}");
    assert_eq!(bench.store.in_force.list().len(), 1_501);
    bench.store.revoke(list(&["b"])).unwrap();
    assert_eq!(bench.after_restart().in_force.list().len(), 1_502);
}

#[test]
fn what_could_not_be_written_is_written_when_it_can_be() {
    let mut bench = bench("revocations: [{ key: a }]");
    bench.store.patience = Duration::from_millis(1);
    let folder = std::fs::File::open(bench._folder.path()).unwrap();
    folder.lock().unwrap();
    let added = bench.store.revoke(list(&["b"]));
    assert!(matches!(added, Err(RevocationStoreError::NotWritten(_))), "{added:?}");
    bench.check(&["a", "b"]);
    let status = bench.store.status();
    assert_eq!((status.unwritten, status.error.is_some()), (1, false));
    assert!(status.write_error.is_some_and(|failure| failure.error.contains("lock")));
    // The write is not retried at once, nor at every check.
    bench.store.follow(clock::now());
    bench.store.follow(clock::now() + Duration::from_secs(2));
    folder.unlock().unwrap();
    bench.store.follow(clock::now() + Duration::from_secs(1));
    assert_eq!(bench.store.status().unwritten, 1);
    bench.store.follow(clock::now() + Duration::from_secs(4));
    let status = bench.store.status();
    assert_eq!((status.unwritten, status.write_error.is_some()), (0, false));
    assert_eq!(bench.after_restart().in_force.list(), bench.store.in_force.list());
    // At a shutdown it is retried at once.
    folder.lock().unwrap();
    let _ = bench.store.revoke(list(&["c"]));
    folder.unlock().unwrap();
    bench.store.write_out();
    assert_eq!(bench.after_restart().in_force.list(), bench.store.in_force.list());
    bench.check(&["a", "b", "c"]);
}

#[test]
fn a_stale_version_of_an_editor_takes_nothing_out_that_was_just_added() {
    let bench = bench("revocations: [{ key: a }]");
    bench.store.revoke(list(&["b"])).unwrap();
    bench.edit("revocations: [{ key: a }, { key: c }]");
    for _ in 0..3 {
        bench.store.follow(clock::now());
    }
    bench.check(&["a", "b", "c"]);
    assert_eq!(bench.after_restart().in_force.list(), bench.store.in_force.list());
    bench.store.restore(&key("b")).unwrap();
    bench.edit("revocations: [{ key: a }]");
    for _ in 0..3 {
        bench.store.follow(clock::now());
    }
    bench.check(&["a"]);
}

#[test]
fn what_is_written_into_a_version_that_was_replaced_is_taken_over() {
    let bench = bench("revocations: [{ key: a }]");
    let mut editor = std::fs::OpenOptions::new().write(true).open(&bench.path).unwrap();
    bench.store.revoke(list(&["b"])).unwrap();
    let late = "revocations: [{ key: a }, { key: c }]";
    editor.write_all(&late.as_bytes()[..late.len() - 1]).unwrap();
    bench.store.follow(clock::now());
    editor.write_all(b"]").unwrap();
    for _ in 0..2 {
        bench.store.follow(clock::now());
    }
    bench.check(&["a", "b", "c"]);
    assert_eq!(bench.after_restart().in_force.list(), bench.store.in_force.list());
    // Late writes are only accepted for a limited time.
    bench.store.follow(clock::now() + LATE);
    editor.set_len(0).unwrap();
    editor.rewind().unwrap();
    editor.write_all(b"revocations: [{ key: d }]").unwrap();
    for _ in 0..3 {
        bench.store.follow(clock::now());
    }
    bench.check(&["a", "b", "c"]);
}

#[test]
fn a_file_that_is_just_being_written_is_not_taken_for_the_whole() {
    let bench = bench("revocations:\n  - { key: a }\n  - { key: b }\n");
    let entries = ["a", "b", "c", "d"].map(|id| format!("  - {{ key: {id} }}\n"));
    let mut editor = std::fs::OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(&bench.path)
        .unwrap();
    editor.write_all(b"revocations:\n").unwrap();
    bench.store.follow(clock::now());
    bench.check(&["a", "b"]);
    thread::scope(|scope| {
        scope.spawn(|| {
            for entry in &entries {
                editor.write_all(entry.as_bytes()).unwrap();
                thread::sleep(LOOK / 8);
            }
        });
        // If the editor is slow, the entry is written later.
        let _ = bench.store.revoke(list(&["e"]));
    });
    for _ in 0..4 {
        bench.store.follow(clock::now() + Duration::from_secs(2));
    }
    bench.check(&["a", "b", "c", "d", "e"]);
    assert_eq!(bench.after_restart().in_force.list(), bench.store.in_force.list());
}

/// Two gateways and an independent editor change one file at the same time.
#[test]
fn racing_writers_lose_nothing() {
    const EACH: usize = 12;
    for in_place in [false, true] {
        let bench = bench("revocations: []");
        let other = bench.after_restart();
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let stores = [("a", &bench.store), ("b", &other)];
            let writers = stores.map(|(name, store)| {
                scope.spawn(move || {
                    for number in 0..EACH {
                        // The other gateway may be the one that writes the entry.
                        let _ = store.revoke(list(&[&format!("{name}{number}")]));
                    }
                })
            });
            let editor = scope.spawn(|| {
                for number in 0..EACH {
                    edit(&bench.path, &format!("e{number}"), in_place);
                    thread::sleep(LOOK / 3);
                }
            });
            for (_, store) in stores {
                scope.spawn(|| {
                    while !is_over.load(Relaxed) {
                        store.follow(clock::now());
                        thread::sleep(LOOK / 2);
                    }
                });
            }
            for writer in writers {
                writer.join().unwrap();
            }
            editor.join().unwrap();
            let wanted = 3 * EACH;
            let has_all = || {
                let lists = stores.map(|(_, store)| store.in_force.list().len());
                lists == [wanted; 2] && stores.iter().all(|(_, store)| store.status().unwritten == 0)
            };
            let tries = (0..2400).find(|_| {
                thread::sleep(LOOK / 4);
                has_all()
            });
            is_over.store(true, Relaxed);
            let all = ["a", "b", "e"]
                .into_iter()
                .flat_map(|who| (0..EACH).map(move |number| format!("{who}{number}")));
            let missing = |store: &RevocationStore| -> Vec<_> {
                let list = store.in_force.list();
                all.clone().filter(|id| !list.contains_key(&key(id))).collect()
            };
            let missing = stores.map(|(_, store)| missing(store));
            assert!(tries.is_some(), "{missing:?}, in place: {in_place}");
        });
        assert_eq!(bench.after_restart().in_force.list(), bench.store.in_force.list());
    }
}

/// Edits the file as a text editor does: reads all of it, adds a line, and writes all of it.
fn edit(path: &Path, id: &str, in_place: bool) {
    let text = std::fs::read_to_string(path).unwrap();
    let text = text.replace("revocations: []", "revocations:") + &format!("  - {{ key: {id} }}\n");
    let text = text.replace("revocations:  -", "revocations:\n  -");
    if in_place {
        std::fs::write(path, text).unwrap();
    } else {
        let fresh = path.with_extension(id);
        std::fs::write(&fresh, text).unwrap();
        std::fs::rename(fresh, path).unwrap();
    }
}

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
    register: RevocationStore,
}

fn bench(content: &str) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("revoked.yaml");
    std::fs::write(&path, content).unwrap();
    let register = RevocationStore::default();
    register.keep_in(Some(&found(&path, &register)));
    Bench {
        _folder: folder,
        path,
        register,
    }
}

/// Reads the file in the way a plan does.
fn found(path: &Path, register: &RevocationStore) -> RevocationFile {
    let changes = Some(register.changes());
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
        let list = self.register.in_force.list();
        let found: Vec<_> = list.keys().map(|revoked| &**revoked.name()).collect();
        assert_eq!(found, ids);
    }

    fn edit(&self, content: &str) {
        files::replace(&self.path, content.as_bytes(), files::Mode::Kept).unwrap();
    }

    fn after_restart(&self) -> RevocationStore {
        let register = RevocationStore::default();
        register.keep_in(Some(&found(&self.path, &register)));
        register
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
    bench.register.revoke(list(&["b"])).unwrap();
    bench.check(&["a", "b"]);
    assert_eq!(bench.after_restart().in_force.list(), bench.register.in_force.list());
    bench.register.restore(&key("a")).unwrap();
    bench.check(&["b"]);
    assert_eq!(bench.after_restart().in_force.list(), bench.register.in_force.list());
    assert!(matches!(
        bench.register.restore(&key("a")),
        Err(RevocationStoreError::Absent)
    ));
    assert_eq!(bench.register.status().unwritten, 0);
}

#[test]
fn an_edited_file_is_read_once_it_stays_as_it_is() {
    let bench = bench("revocations: []");
    bench.edit("revocations: [{ key: a }]");
    bench.register.follow(Moment::ZERO);
    bench.check(&[]);
    bench.register.follow(Moment::ZERO);
    bench.check(&["a"]);
    bench.edit("revocations: []");
    bench.register.follow(Moment::ZERO);
    bench.register.follow(Moment::ZERO);
    bench.check(&[]);
}

#[tokio::test(start_paused = true)]
async fn a_plan_that_read_the_file_before_it_was_written_takes_nothing_out() {
    let bench = bench("revocations: [{ key: a }]");
    let before = found(&bench.path, &bench.register);
    bench.register.revoke(list(&["b"])).unwrap();
    bench.register.keep_in(Some(&before));
    bench.check(&["a", "b"]);
    bench.edit("revocations: [{ key: c }]");
    bench.register.keep_in(Some(&found(&bench.path, &bench.register)));
    bench.check(&["b", "c"]);
    bench.register.follow(clock::now());
    tokio::time::advance(Duration::from_secs(60)).await;
    bench.edit("revocations: [{ key: c }]");
    bench.register.keep_in(Some(&found(&bench.path, &bench.register)));
    bench.check(&["c"]);
    let other = bench.path.with_extension("other");
    std::fs::write(&other, "revocations: [{ key: d }]").unwrap();
    bench.register.keep_in(Some(&found(&other, &bench.register)));
    bench.check(&["d"]);
    bench.register.keep_in(None);
    bench.check(&["d"]);
}

#[test]
fn a_file_that_never_rests_is_read_all_the_same() {
    let bench = bench("revocations: []");
    for round in 0..7 {
        bench.edit(&format!("revocations: [{{ key: a{round} }}]"));
        bench.register.follow(Moment::from_nanos(round * 200_000_000));
    }
    bench.check(&["a5"]);
}

#[test]
fn a_file_system_that_does_not_answer_holds_up_no_entry_and_nobody_who_asks() {
    let mut bench = bench("revocations: []");
    bench.register.patience = Duration::from_millis(1);
    let turn = bench.register.turn.take(Duration::ZERO).expect("nobody has it");
    bench.register.forget_ended(Now::read());
    assert_eq!(bench.register.status().unwritten, 0);
    bench.register.follow(Moment::ZERO);
    let added = bench.register.revoke(list(&["b"]));
    assert!(matches!(added, Err(RevocationStoreError::NotWritten(_))), "{added:?}");
    bench.check(&["b"]);
    assert_eq!(bench.register.status().unwritten, 1);
    drop(turn);
    bench.register.revoke(list(&["c"])).unwrap();
    assert_eq!(bench.after_restart().in_force.list(), bench.register.in_force.list());
}

#[test]
fn whoever_changes_the_list_loses_nothing_that_was_just_edited() {
    let bench = bench("revocations: []");
    bench.edit("revocations: [{ key: a }]");
    bench.register.revoke(list(&["b"])).unwrap();
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
        bench.register.follow(Moment::ZERO);
        bench.register.follow(Moment::ZERO);
        bench.check(&["a"]);
        assert!(bench.register.status().error.is_some(), "{bad}");
    }
    std::fs::remove_file(&bench.path).unwrap();
    bench.register.follow(Moment::ZERO);
    bench.register.follow(Moment::ZERO);
    bench.check(&["a"]);
    let added = bench.register.revoke(list(&["b"]));
    assert!(matches!(added, Err(RevocationStoreError::NotWritten(_))), "{added:?}");
    bench.check(&["a", "b"]);
    let taken = bench.register.restore(&key("a"));
    assert!(matches!(taken, Err(RevocationStoreError::NotWritten(_))), "{taken:?}");
    bench.check(&["a", "b"]);
    bench.edit("revocations: [{ key: c }]");
    bench.register.follow(Moment::ZERO);
    bench.register.follow(Moment::ZERO);
    bench.check(&["b", "c"]);
    assert_eq!(bench.register.status().unwritten, 1);
    bench.register.follow(clock::now());
    assert_eq!(bench.register.status().unwritten, 0, "it is written by itself");
    assert_eq!(bench.after_restart().in_force.list(), bench.register.in_force.list());
    bench.register.revoke(list(&["d"])).unwrap();
    assert_eq!(bench.after_restart().in_force.list(), bench.register.in_force.list());
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
    bench.register.forget_ended(at(0, in_2026));
    bench.register.forget_ended(at(0, in_2200));
    bench.check(&["a", "b", "c"]);
    bench.register.forget_ended(at(30, in_2200));
    bench.check(&["b", "c"]);
    bench.register.revoke(list(&["d"])).unwrap();
    let written = std::fs::read_to_string(&bench.path).unwrap();
    assert!(written.contains("key: b, until: 2199-01-01"), "{written}");
    assert_eq!(bench.after_restart().in_force.list(), bench.register.in_force.list());
}

#[test]
fn without_a_file_the_list_lives_in_memory_and_is_bounded() {
    let register = RevocationStore::default();
    let ids: Vec<_> = (0..MOST).map(|number| number.to_string()).collect();
    register
        .revoke(ids.iter().map(|id| (key(id), Terms::default())).collect())
        .unwrap();
    assert!(matches!(
        register.revoke(list(&["one-more"])),
        Err(RevocationStoreError::TooMany)
    ));
    assert_eq!(register.in_force.list().len(), MOST);
    register.restore(&key("7")).unwrap();
    register.revoke(list(&["one-more"])).unwrap();
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
    bench.register.revoke(long(0, 1_500)).unwrap();
    let refused = bench.register.revoke(long(1_500, 200));
    assert!(matches!(refused, Err(RevocationStoreError::TooLong)), "{refused:?}");
    assert_eq!(bench.register.in_force.list().len(), 1_501);
    bench.register.revoke(list(&["b"])).unwrap();
    assert_eq!(bench.after_restart().in_force.list().len(), 1_502);
}

#[test]
fn what_could_not_be_written_is_written_when_it_can_be() {
    let mut bench = bench("revocations: [{ key: a }]");
    bench.register.patience = Duration::from_millis(1);
    let folder = std::fs::File::open(bench._folder.path()).unwrap();
    folder.lock().unwrap();
    let added = bench.register.revoke(list(&["b"]));
    assert!(matches!(added, Err(RevocationStoreError::NotWritten(_))), "{added:?}");
    bench.check(&["a", "b"]);
    let status = bench.register.status();
    assert_eq!((status.unwritten, status.error.is_some()), (1, false));
    assert!(status.write_error.is_some_and(|failure| failure.error.contains("lock")));
    // The write is not retried at once, nor at every check.
    bench.register.follow(clock::now());
    bench.register.follow(clock::now() + Duration::from_secs(2));
    folder.unlock().unwrap();
    bench.register.follow(clock::now() + Duration::from_secs(1));
    assert_eq!(bench.register.status().unwritten, 1);
    bench.register.follow(clock::now() + Duration::from_secs(4));
    let status = bench.register.status();
    assert_eq!((status.unwritten, status.write_error.is_some()), (0, false));
    assert_eq!(bench.after_restart().in_force.list(), bench.register.in_force.list());
    // At a shutdown it is retried at once.
    folder.lock().unwrap();
    let _ = bench.register.revoke(list(&["c"]));
    folder.unlock().unwrap();
    bench.register.write_out();
    assert_eq!(bench.after_restart().in_force.list(), bench.register.in_force.list());
    bench.check(&["a", "b", "c"]);
}

#[test]
fn a_stale_version_of_an_editor_takes_nothing_out_that_was_just_added() {
    let bench = bench("revocations: [{ key: a }]");
    bench.register.revoke(list(&["b"])).unwrap();
    bench.edit("revocations: [{ key: a }, { key: c }]");
    for _ in 0..3 {
        bench.register.follow(clock::now());
    }
    bench.check(&["a", "b", "c"]);
    assert_eq!(bench.after_restart().in_force.list(), bench.register.in_force.list());
    bench.register.restore(&key("b")).unwrap();
    bench.edit("revocations: [{ key: a }]");
    for _ in 0..3 {
        bench.register.follow(clock::now());
    }
    bench.check(&["a"]);
}

#[test]
fn what_is_written_into_a_version_that_was_replaced_is_taken_over() {
    let bench = bench("revocations: [{ key: a }]");
    let mut editor = std::fs::OpenOptions::new().write(true).open(&bench.path).unwrap();
    bench.register.revoke(list(&["b"])).unwrap();
    let late = "revocations: [{ key: a }, { key: c }]";
    editor.write_all(&late.as_bytes()[..late.len() - 1]).unwrap();
    bench.register.follow(clock::now());
    editor.write_all(b"]").unwrap();
    for _ in 0..2 {
        bench.register.follow(clock::now());
    }
    bench.check(&["a", "b", "c"]);
    assert_eq!(bench.after_restart().in_force.list(), bench.register.in_force.list());
    // Late writes are only accepted for a limited time.
    bench.register.follow(clock::now() + LATE);
    editor.set_len(0).unwrap();
    editor.rewind().unwrap();
    editor.write_all(b"revocations: [{ key: d }]").unwrap();
    for _ in 0..3 {
        bench.register.follow(clock::now());
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
    bench.register.follow(clock::now());
    bench.check(&["a", "b"]);
    thread::scope(|scope| {
        scope.spawn(|| {
            for entry in &entries {
                editor.write_all(entry.as_bytes()).unwrap();
                thread::sleep(LOOK / 8);
            }
        });
        // If the editor is slow, the entry is written later.
        let _ = bench.register.revoke(list(&["e"]));
    });
    for _ in 0..4 {
        bench.register.follow(clock::now() + Duration::from_secs(2));
    }
    bench.check(&["a", "b", "c", "d", "e"]);
    assert_eq!(bench.after_restart().in_force.list(), bench.register.in_force.list());
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
            let registers = [("a", &bench.register), ("b", &other)];
            let writers = registers.map(|(name, register)| {
                scope.spawn(move || {
                    for number in 0..EACH {
                        // The other gateway may be the one that writes the entry.
                        let _ = register.revoke(list(&[&format!("{name}{number}")]));
                    }
                })
            });
            let editor = scope.spawn(|| {
                for number in 0..EACH {
                    edit(&bench.path, &format!("e{number}"), in_place);
                    thread::sleep(LOOK / 3);
                }
            });
            for (_, register) in registers {
                scope.spawn(|| {
                    while !is_over.load(Relaxed) {
                        register.follow(clock::now());
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
                let lists = registers.map(|(_, register)| register.in_force.list().len());
                lists == [wanted; 2] && registers.iter().all(|(_, register)| register.status().unwritten == 0)
            };
            let tries = (0..2400).find(|_| {
                thread::sleep(LOOK / 4);
                has_all()
            });
            is_over.store(true, Relaxed);
            let all = ["a", "b", "e"]
                .into_iter()
                .flat_map(|who| (0..EACH).map(move |number| format!("{who}{number}")));
            let missing = |register: &RevocationStore| -> Vec<_> {
                let list = register.in_force.list();
                all.clone().filter(|id| !list.contains_key(&key(id))).collect()
            };
            let missing = registers.map(|(_, register)| missing(register));
            assert!(tries.is_some(), "{missing:?}, in place: {in_place}");
        });
        assert_eq!(bench.after_restart().in_force.list(), bench.register.in_force.list());
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

//! Replays every input that a fuzzer once found, and a few to begin with, against its target.

use std::fs;
use std::path::Path;

#[test]
fn what_was_found_once_stays_fixed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    for (name, check) in fuzz::TARGETS {
        let mut cases: Vec<_> = fs::read_dir(folder.join(name))
            .unwrap_or_else(|error| panic!("cases/{name}: {error}"))
            .map(|entry| entry.expect("a folder that can be read").path())
            .collect();
        cases.sort();
        assert!(!cases.is_empty(), "cases/{name} has none");
        for case in cases {
            let input = fs::read(&case).expect("a case that can be read");
            // The panic says what broke; this line says by which input.
            eprintln!("{}", case.display());
            check(&input);
        }
    }
}

//! Holds files under `gateway/docs` to what the code says.

use std::path::Path;

/// Compares a generated file with what is there, or writes it if `WRITE_DOCS` is set.
pub(crate) fn hold(file: &str, made: &str) {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let path = docs.join(file);
    if std::env::var_os("WRITE_DOCS").is_some() {
        std::fs::create_dir_all(&docs)
            .and_then(|()| std::fs::write(&path, made))
            .expect("docs can be written");
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == made,
        "{file} is not what the code says: run `make docs` and commit it"
    );
}

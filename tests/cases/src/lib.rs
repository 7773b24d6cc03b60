//! Counts the cases that a run of the tests checks, so that "thousands of schedules" is a number.
//!
//! libtest hides what a passing test prints. So each test with more than one case appends a line to the file named by
//! the variable `CASES`, and `make` adds the lines up after the tests. Without the variable nothing is written.
//!
//! Invariant: only cases that ran to their end are counted. A case that a property rejects by assumption is not
//! counted.

use proptest::test_runner::{Config, ResultCache, ResultCacheKey, TestCaseResult};
use std::fs::OpenOptions;
use std::io::Write;

/// Returns the configuration for `#![proptest_config(cases::counted())]`: the defaults, with each property counted.
pub fn counted() -> Config {
    Config {
        result_cache: || Box::new(Counter { passed: 0 }),
        ..Config::default()
    }
}

/// Reports that a test has checked this many cases. `kind` names them, for example `properties`.
pub fn report(kind: &str, name: &str, cases: u64) {
    let Some(file) = std::env::var_os("CASES") else { return };
    let line = format!("{kind}\t{name}\t{cases}\n");
    // One short write to a file opened for appending, so that lines of other processes stay whole.
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(&file)
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .unwrap_or_else(|error| panic!("cannot write {}: {error}", file.display()));
}

/// Counts every case of one property, in the form of a result cache that remembers nothing.
struct Counter {
    passed: u64,
}

impl ResultCache for Counter {
    fn key(&self, _: &ResultCacheKey) -> u64 {
        0
    }

    fn put(&mut self, _: u64, result: &TestCaseResult) {
        self.passed += u64::from(result.is_ok());
    }

    fn get(&self, _: u64) -> Option<&TestCaseResult> {
        None
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        // libtest names the thread after the test, unless the tests run on one thread.
        let thread = std::thread::current();
        report("properties", thread.name().unwrap_or("?"), self.passed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;
    use std::path::{Path, PathBuf};

    #[test]
    fn counts_what_passed_and_not_what_was_assumed_away() {
        let mut counter = Counter { passed: 0 };
        for result in [
            Ok(()),
            Err(TestCaseError::reject("")),
            Ok(()),
            Err(TestCaseError::fail("")),
        ] {
            counter.put(0, &result);
        }
        assert_eq!(counter.passed, 2);
    }

    #[test]
    fn a_counted_property_runs_every_case() {
        let runs = std::cell::Cell::new(0);
        let mut runner = TestRunner::new(Config { cases: 30, ..counted() });
        runner
            .run(&Just(1), |_| {
                runs.set(runs.get() + 1);
                Ok(())
            })
            .unwrap();
        assert_eq!(runs.get(), 30);
    }

    /// Returns all Rust files below the folder.
    fn sources(folder: &Path) -> Vec<PathBuf> {
        let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
        entries
            .flat_map(|path| match path.extension() {
                _ if path.is_dir() => sources(&path),
                Some(extension) if extension == "rs" => vec![path],
                _ => vec![],
            })
            .collect()
    }

    #[test]
    fn every_property_is_counted() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut properties = 0;
        for folder in ["policies", "gateway", "fixtures", "load", "tests/src", "tests/tests"] {
            for path in sources(&root.join(folder)) {
                let source = std::fs::read_to_string(&path).unwrap();
                for block in source.split("proptest! {\n").skip(1) {
                    properties += 1;
                    let first = block.lines().next().unwrap();
                    assert!(first.contains("cases::counted()"), "{}: {first}", path.display());
                }
            }
        }
        assert!(properties > 20, "found only {properties}");
    }
}

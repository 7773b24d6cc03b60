//! `gateway test`: runs policy tests of configs on virtual time.

mod github;
mod junit;
mod plain;

use std::io::{IsTerminal, Write, stderr, stdout};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{FAILED, INVALID_CONFIG, OK};
use crate::setting::Location;
use crate::simulation::coverage::{Item, Reached};
use crate::simulation::policy_test::{self, FileReport, by_config};

#[derive(clap::Args)]
pub(super) struct Options {
    /// Files of tests, in YAML.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Config to test, in place of the one that the files name.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Run only tests whose names contain this text.
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// Fail if less of a config is covered than this, in percent.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    fail_under: Option<u8>,
    /// Also write a JUnit report to this file.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Form of the report: for people, as annotations of GitHub Actions, or JSON.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    #[default]
    Plain,
    Github,
    Json,
}

/// Results of all files.
struct Report {
    files: Vec<FileReport>,
    coverage: Vec<Coverage>,
    /// Least coverage that is wanted, in percent.
    fail_under: Option<u8>,
}

/// Coverage of one config by the tests: which routes, limits, tiers and reasons they reached.
struct Coverage {
    config: PathBuf,
    items: Vec<Item>,
    reached: Reached,
}

impl Coverage {
    fn of((config, items, reached): (&Path, &[Item], Reached)) -> Self {
        let (config, items) = (config.to_owned(), items.to_owned());
        Self { config, items, reached }
    }

    fn missing(&self) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(|item| !self.reached.has(item))
    }

    fn counts(&self) -> (usize, usize) {
        (self.items.len() - self.missing().count(), self.items.len())
    }

    /// Returns the covered share in percent; 100 if there is nothing to cover.
    fn percent(&self) -> f64 {
        match self.counts() {
            (_, 0) => 100.0,
            (reached, all) => 100.0 * reached as f64 / all as f64,
        }
    }
}

impl Report {
    fn failures(&self) -> usize {
        let tests = self.files.iter().flat_map(|file| &file.tests);
        tests.filter(|test| !test.failures.is_empty()).count()
    }

    fn tests(&self) -> usize {
        self.files.iter().map(|file| file.tests.len()).sum()
    }

    /// Returns the configs of which too little is covered.
    fn uncovered(&self) -> impl Iterator<Item = &Coverage> {
        let least = f64::from(self.fail_under.unwrap_or(0));
        self.coverage.iter().filter(move |coverage| coverage.percent() < least)
    }

    fn has_failed(&self) -> bool {
        self.failures() > 0 || self.uncovered().next().is_some()
    }
}

/// Runs the tests and prints the report. Returns the exit code.
pub(super) fn test(options: &Options) -> u8 {
    let mut files = Vec::new();
    let mut is_invalid = false;
    for file in &options.files {
        match policy_test::run(file, options.config.as_deref(), options.name.as_deref()) {
            Ok(report) => files.push(report),
            Err(invalid) => {
                is_invalid = true;
                let _ = stderr().write_all(invalid.render(stderr().is_terminal()).as_bytes());
            }
        }
    }
    if is_invalid {
        return INVALID_CONFIG;
    }
    let report = Report {
        coverage: by_config(&files).into_iter().map(Coverage::of).collect(),
        files,
        fail_under: options.fail_under,
    };
    let text = match options.format {
        Format::Plain => plain::page(&report),
        Format::Github => format!("{}{}", plain::page(&report), github::annotations(&report)),
        Format::Json => format!("{:#}\n", as_json(&report)),
    };
    // Writing fails if the reader has closed the output.
    let _ = stdout().write_all(text.as_bytes());
    if let Some(path) = &options.junit
        && let Err(error) = std::fs::write(path, junit::document(&report))
    {
        let _ = writeln!(stderr(), "gateway test: {}: {error}", path.display());
        return FAILED;
    }
    if report.tests() == 0 {
        let _ = writeln!(stderr(), "gateway test: no test has this name");
        return FAILED;
    }
    if report.has_failed() { FAILED } else { OK }
}

/// Returns `FILE:LINE`.
fn place(at: &Location) -> String {
    format!("{}:{}", at.file, at.line)
}

fn as_json(report: &Report) -> serde_json::Value {
    let tests = report.files.iter().flat_map(|file| {
        file.tests.iter().map(move |test| {
            let failures = test
                .failures
                .iter()
                .map(|failure| json!({ "at": failure.at, "message": failure.message }));
            json!({
                "file": file.file,
                "name": test.name,
                "at": test.at,
                "ok": test.failures.is_empty(),
                "failures": failures.collect::<Vec<_>>(),
                "requests": test.requests,
                "virtual_ms": test.time.as_millis() as u64,
                "real_ms": test.took.as_millis() as u64,
            })
        })
    });
    let coverage = report.coverage.iter().map(|coverage| {
        let (reached, all) = coverage.counts();
        let item = |item: &Item| json!({ "kind": item.kind.as_str(), "name": item.name, "at": item.at });
        json!({
            "config": coverage.config.display().to_string(),
            "percent": (coverage.percent() * 10.0).round() / 10.0,
            "reached": reached,
            "all": all,
            "missing": coverage.missing().map(item).collect::<Vec<_>>(),
        })
    });
    json!({
        "ok": !report.has_failed(),
        "tests": tests.collect::<Vec<_>>(),
        "coverage": coverage.collect::<Vec<_>>(),
        "fail_under": report.fail_under,
    })
}

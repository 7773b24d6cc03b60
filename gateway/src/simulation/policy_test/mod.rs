//! Runs files of policy tests. Each test begins with a fresh gateway, at time zero and with nothing counted.

mod judge;
mod names;
mod steps;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::coverage::{Item, Reached, items};
use super::report::{Outcome, Sent};
use super::{Simulation, compile, on_virtual_time};
use crate::clock;
use crate::config::policy_tests::{self, LoadedTests, PolicyTests, Step};
use crate::config::{Code, Invalid, Mistake, Sources};
use crate::setting::Location;

/// What became of a file of tests.
pub struct FileReport {
    /// The file, as it was named.
    pub file: String,
    pub config: PathBuf,
    pub tests: Vec<TestReport>,
    /// What the tests could reach in the config, and what they have reached.
    pub items: Vec<Item>,
    pub reached: Reached,
}

/// What became of one test.
pub struct TestReport {
    pub name: Arc<str>,
    pub at: Location,
    pub failures: Vec<Failure>,
    /// Number of requests.
    pub requests: u64,
    /// Virtual time from the start to the end of the last request.
    pub time: Duration,
    /// Real time.
    pub took: Duration,
}

/// An expectation that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub at: Location,
    /// One sentence or two.
    pub message: String,
}

/// Runs the tests of a file whose names contain `name`. `config` replaces the one that the file names.
///
/// # Errors
/// Every mistake in the file, or in its config.
pub fn run(path: &Path, config: Option<&Path>, name: Option<&str>) -> Result<FileReport, Box<Invalid>> {
    let LoadedTests { tests, sources } = policy_tests::load(path)?;
    let config = config.unwrap_or(&tests.config.value);
    let (plan, _, _) = compile(config)?;
    let mistakes = names::check(&tests, &plan);
    if !mistakes.is_empty() {
        return Err(Box::new(Invalid { sources, mistakes }));
    }
    let mut report = FileReport {
        file: path.display().to_string(),
        config: config.to_owned(),
        tests: Vec::new(),
        items: items(&plan),
        reached: Reached::default(),
    };
    drop(plan);
    for (test, steps) in tests.tests.iter() {
        if name.is_some_and(|name| !test.contains(name)) {
            continue;
        }
        let span = test.span().or(steps.first().map(|step| step.place));
        let at = span.map(|span| sources.locate(span)).unwrap_or_else(|| Location {
            file: report.file.as_str().into(),
            line: 1,
            column: 1,
        });
        let began = clock::read().moment;
        let done = on_virtual_time(one(config, &tests, steps, &sources)).map_err(|error| no_runtime(&error))??;
        report.reached.add(done.reached);
        report.tests.push(TestReport {
            name: Arc::clone(&test.value),
            at,
            failures: done.failures,
            requests: done.requests,
            time: done.time,
            took: clock::read().moment.since(began),
        });
    }
    Ok(report)
}

fn no_runtime(error: &io::Error) -> Box<Invalid> {
    let message = format!("virtual time cannot be begun: {error}");
    Box::new(Invalid {
        sources: Sources::default(),
        mistakes: Mistake::new(Code::Unreadable, None, message).into(),
    })
}

/// Result of one test.
struct Done {
    failures: Vec<Failure>,
    requests: u64,
    time: Duration,
    reached: Reached,
}

async fn one(config: &Path, tests: &PolicyTests, steps: &[Step], sources: &Sources) -> Result<Done, Box<Invalid>> {
    let (plan, state, _) = compile(config)?;
    let simulation = Arc::new(Simulation::begin(
        plan,
        state,
        tests.starts.as_ref().map(|starts| starts.0),
    ));
    let performed = steps::perform(&simulation, tests, steps).await;
    let mut reached = Reached::default();
    let mut failures = Vec::new();
    let mut requests = 0;
    for performed in &performed.steps {
        requests += performed.answers.len() as u64;
        for answered in &performed.answers {
            reached.note(&answered.seen, &simulation.plan);
        }
        if let Some(expect) = &performed.step.expect {
            failures.extend(judge::judge(expect, performed, sources));
        }
    }
    reached.note_uncounted(&simulation.plan);
    if performed.unfinished > 0 {
        let place = steps.last().map_or(steps[0].place, |step| step.place);
        failures.push(Failure {
            at: sources.locate(place),
            message: format!(
                "{} requests had not ended an hour after the last step",
                performed.unfinished
            ),
        });
    }
    Ok(Done {
        failures,
        requests,
        time: performed.time,
        reached,
    })
}

/// Runs the requests of a file of tests without looking at what is expected, and adds up what becomes of them, by test.
///
/// # Errors
/// Every mistake in the file, or in its config.
pub fn load(path: &Path, config: Option<&Path>) -> Result<Vec<(Arc<str>, Outcome)>, Box<Invalid>> {
    let LoadedTests { tests, sources } = policy_tests::load(path)?;
    let config = config.unwrap_or(&tests.config.value);
    let (plan, _, _) = compile(config)?;
    let mistakes = names::check(&tests, &plan);
    if !mistakes.is_empty() {
        return Err(Box::new(Invalid { sources, mistakes }));
    }
    let starts = tests.starts.as_ref().map(|starts| starts.0);
    let mut outcomes = Vec::new();
    for (name, steps) in tests.tests.iter() {
        let outcome = on_virtual_time(async {
            let (plan, state, _) = compile(config)?;
            let simulation = Arc::new(Simulation::begin(plan, state, starts));
            let performed = steps::perform(&simulation, &tests, steps).await;
            let answers = performed.steps.into_iter().flat_map(|step| step.answers);
            let sent = answers.map(|answered| Sent { answered, logged: None });
            Ok::<_, Box<Invalid>>(Outcome::of(&simulation, sent.collect()))
        });
        outcomes.push((Arc::clone(&name.value), outcome.map_err(|error| no_runtime(&error))??));
    }
    Ok(outcomes)
}

/// Adds up coverage over files with the same config, in the order of their first file.
pub fn by_config(reports: &[FileReport]) -> Vec<(&Path, &[Item], Reached)> {
    let mut order: Vec<(&Path, &[Item], Reached)> = Vec::new();
    let mut places = BTreeMap::new();
    for report in reports {
        let place = *places.entry(report.config.as_path()).or_insert_with(|| {
            order.push((report.config.as_path(), &report.items[..], Reached::default()));
            order.len() - 1
        });
        order[place].2.add(report.reached.clone());
    }
    order
}

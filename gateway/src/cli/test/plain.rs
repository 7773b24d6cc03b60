//! The report for people.

use std::fmt::Write as _;
use std::time::Duration;

use super::{Report, place};
use crate::config::duration_text;

/// Returns the report as text.
pub(super) fn page(report: &Report) -> String {
    let mut page = String::new();
    let (mut virtual_time, mut real, mut requests) = (Duration::ZERO, Duration::ZERO, 0);
    for file in &report.files {
        let _ = writeln!(page, "{} ({})", file.file, file.config.display());
        for test in &file.tests {
            let word = if test.failures.is_empty() { "ok  " } else { "FAIL" };
            let _ = writeln!(page, "  {word}  {}", test.name);
            for failure in &test.failures {
                let _ = writeln!(page, "        {}: {}", place(&failure.at), failure.message);
            }
            virtual_time += test.time;
            real += test.took;
            requests += test.requests;
        }
    }
    for coverage in &report.coverage {
        let (reached, all) = coverage.counts();
        let _ = writeln!(
            page,
            "\ncoverage of {}: {reached} of {all}, {:.1} %",
            coverage.config.display(),
            coverage.percent()
        );
        for item in coverage.missing() {
            let at = item.at.as_ref().map_or_else(|| "default".to_owned(), place);
            let _ = writeln!(page, "  {at}: {}", item.missing());
        }
    }
    for coverage in report.uncovered() {
        let least = report.fail_under.unwrap_or_default();
        let _ = writeln!(page, "\n{}: less than {least} % is covered", coverage.config.display());
    }
    let _ = writeln!(
        page,
        "\n{} tests, {} failed; {requests} requests, {} of virtual time in {:.2} s",
        report.tests(),
        report.failures(),
        duration_text(Duration::from_secs(virtual_time.as_secs())),
        real.as_secs_f64()
    );
    page
}

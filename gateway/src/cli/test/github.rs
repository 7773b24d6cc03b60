//! Annotations for GitHub Actions: workflow commands that put a message beside a line of a file.

use std::fmt::Write as _;

use super::Report;
use crate::setting::Location;

/// Returns an error for each failure, and a warning for each line that no test reaches.
pub(super) fn annotations(report: &Report) -> String {
    let mut text = String::new();
    for file in &report.files {
        for test in &file.tests {
            for failure in &test.failures {
                command(&mut text, "error", Some(&failure.at), &test.name, &failure.message);
            }
        }
    }
    for coverage in &report.coverage {
        for item in coverage.missing().filter(|item| item.at.is_some()) {
            command(&mut text, "warning", item.at.as_ref(), "not covered", &item.missing());
        }
    }
    for coverage in report.uncovered() {
        let message = format!(
            "{}: {:.1} % is covered, wanted are {} %",
            coverage.config.display(),
            coverage.percent(),
            report.fail_under.unwrap_or_default()
        );
        command(&mut text, "error", None, "coverage", &message);
    }
    text
}

fn command(text: &mut String, level: &str, at: Option<&Location>, title: &str, message: &str) {
    let place = at.map(|at| format!("file={},line={},", property(&at.file), at.line));
    let (place, title) = (place.unwrap_or_default(), property(title));
    let _ = writeln!(text, "::{level} {place}title={title}::{}", data(message));
}

/// Escapes the message of a command.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// Escapes a property of a command, which ends at a comma or a colon.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_begin_another_command() {
        let at = Location {
            file: "a,b:c.yaml".into(),
            line: 7,
            column: 1,
        };
        let mut text = String::new();
        command(&mut text, "error", Some(&at), "x::y", "100 %\n::error::z");
        assert_eq!(
            text,
            "::error file=a%2Cb%3Ac.yaml,line=7,title=x%3A%3Ay::100 %25%0A::error::z\n"
        );
    }
}

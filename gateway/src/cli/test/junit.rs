//! The report as JUnit XML, which most CI systems show.

use std::fmt::Write as _;
use std::time::Duration;

use super::{Report, place};

/// Returns the document.
pub(super) fn document(report: &Report) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(
        text,
        "<testsuites name=\"gateway test\" tests=\"{}\" failures=\"{}\">",
        report.tests(),
        report.failures()
    );
    for file in &report.files {
        let failures = file.tests.iter().filter(|test| !test.failures.is_empty()).count();
        let took: Duration = file.tests.iter().map(|test| test.took).sum();
        let _ = writeln!(
            text,
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{failures}\" time=\"{:.3}\">",
            escaped(&file.file),
            file.tests.len(),
            took.as_secs_f64()
        );
        for test in &file.tests {
            let _ = write!(
                text,
                "    <testcase name=\"{}\" classname=\"{}\" file=\"{}\" line=\"{}\" time=\"{:.3}\"",
                escaped(&test.name),
                escaped(&file.file),
                escaped(&test.at.file),
                test.at.line,
                test.took.as_secs_f64()
            );
            if test.failures.is_empty() {
                text.push_str("/>\n");
                continue;
            }
            text.push_str(">\n");
            for failure in &test.failures {
                let (message, at) = (escaped(&failure.message), escaped(&place(&failure.at)));
                let _ = writeln!(text, "      <failure message=\"{message}\">{at}: {message}</failure>");
            }
            text.push_str("    </testcase>\n");
        }
        text.push_str("  </testsuite>\n");
    }
    text.push_str("</testsuites>\n");
    text
}

/// Escapes text for an attribute or for content. Characters that XML 1.0 does not have are replaced.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(' '),
            control if control.is_control() || matches!(control, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

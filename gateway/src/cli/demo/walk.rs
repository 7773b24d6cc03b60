//! Runs the tour: starts a demo, pastes every command of its banner into a shell, and checks the output.
//!
//! The demo is its own process, so the printed banner is what is checked: a step that the banner does not show fails.

use std::io::{self, BufRead, BufReader, Read, Write, stderr, stdout};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::running::Running;
use super::tour::{self, Expectation, Step};
use super::{CONTROL_VARIABLE, folder};
use crate::cli::{FAILED, OK};
use crate::clock;

/// Longest time for a demo to start, and to stop.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest time for one command.
const LINE_LIMIT: Duration = Duration::from_secs(30);

pub(super) fn walk() -> u8 {
    match tour() {
        Ok(true) => OK,
        Ok(false) => FAILED,
        Err(error) => {
            let _ = writeln!(stderr(), "gateway demo --tour: {error}");
            FAILED
        }
    }
}

/// Runs the tour. Returns whether every step showed what it should.
fn tour() -> io::Result<bool> {
    for tool in ["curl", "sed", "sort", "uniq", "grep", "diff"] {
        let found = Command::new("sh")
            .args(["-c", &format!("command -v {tool}")])
            .output()?;
        if !found.status.success() {
            return Err(io::Error::other(format!(
                "the lines of the tour need {tool}, which is not installed"
            )));
        }
    }
    let mut guest = DemoProcess::start()?;
    let demo = guest.found()?;
    let banner = guest.banner(&demo)?;
    let steps = tour::steps(&demo, &tour::program(&demo));
    let width = steps
        .iter()
        .map(|step| step.label.chars().count())
        .max()
        .unwrap_or_default();
    let mut failures = 0;
    say(&format!("{:width$}  {:9} what you saw", "see it do", ""));
    for step in &steps {
        let seen = if banner.contains(&step.command) {
            look(step, &demo)?
        } else {
            Err("the banner does not show it".to_owned())
        };
        match seen {
            Ok(seen) => say(&format!("{:width$}  {:9} {seen}", step.label, "ok")),
            Err(why) => {
                failures += 1;
                say(&format!(
                    "{:width$}  {:9} {}\n{why}",
                    step.label, "NOT SEEN", step.command
                ));
            }
        }
    }
    let ended = guest.stop()?;
    if !ended {
        say("The demo did not end with exit code 0.");
    }
    if demo.folder.exists() {
        say(&format!("The demo left {} behind.", demo.folder.display()));
        failures += 1;
    }
    say(&format!(
        "{} of {} seen",
        steps.len().saturating_sub(failures),
        steps.len()
    ));
    Ok(failures == 0 && ended)
}

fn say(line: &str) {
    let _ = writeln!(stdout(), "{line}");
}

/// Runs a step. Returns what was seen, or the output and what is missing in it.
fn look(step: &Step, demo: &Running) -> io::Result<Result<String, String>> {
    let output = paste(&step.command, &demo.control.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut seen = Vec::new();
    for sight in &step.sees {
        match spot(sight, &text) {
            Ok(what) => seen.push(what),
            Err(missing) => {
                let said = String::from_utf8_lossy(&output.stderr);
                return Ok(Err(format!("--- {missing}; it printed:\n{text}{said}\n---")));
            }
        }
    }
    Ok(Ok(seen.join(" | ")))
}

/// Returns the part of the output that meets the expectation, or how the expectation fails.
fn spot(sight: &Expectation, output: &str) -> Result<String, String> {
    match sight {
        Expectation::Text(wanted) => {
            let found = output.lines().find_map(|line| {
                let start = line.to_lowercase().find(&wanted.to_lowercase())?;
                // A short line is shown whole; of a longer line only the expected text is shown.
                let whole = line.trim();
                Some(if whole.len() <= 60 {
                    whole.to_owned()
                } else {
                    line.get(start..start + wanted.len())?.to_owned()
                })
            });
            found.ok_or_else(|| format!("nothing says {wanted:?}"))
        }
        Expectation::Seconds(least, most) => {
            let taken = output
                .lines()
                .find_map(|line| line.trim().strip_suffix(" s")?.replace(',', ".").parse::<f64>().ok());
            match taken {
                Some(taken) if (*least..*most).contains(&taken) => Ok(format!("{taken:.3} s")),
                Some(taken) => Err(format!("it took {taken} s and not {least} to {most}")),
                None => Err("it does not say how long it took".to_owned()),
            }
        }
    }
}

/// Runs a command in a shell, within the time limit. `control` selects the demo, so that the command is not ambiguous
/// if another demo starts meanwhile.
fn paste(line: &str, control: &str) -> io::Result<Output> {
    let child = Command::new("sh")
        .args(["-c", line])
        .env(CONTROL_VARIABLE, control)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let pid = child.id();
    let (done, output) = mpsc::channel();
    thread::spawn(move || done.send(child.wait_with_output()));
    output.recv_timeout(LINE_LIMIT).unwrap_or_else(|_| {
        let _ = signal("KILL", pid);
        Err(io::Error::other(format!(
            "it did not end within {} s: {line}",
            LINE_LIMIT.as_secs()
        )))
    })
}

/// The tour's own demo process, on free ports; killed on drop unless it has been stopped.
struct DemoProcess {
    child: Child,
    /// Lines that the demo prints.
    printed: mpsc::Receiver<String>,
    /// Log of the demo, available when it has ended.
    log: Option<JoinHandle<String>>,
}

impl DemoProcess {
    fn start() -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["demo", "--port", "0", "--admin-port", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let (send, printed) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            thread::spawn(move || {
                BufReader::new(stdout)
                    .lines()
                    .map_while(Result::ok)
                    .try_for_each(|line| send.send(line))
            });
        }
        // The log is read all the time, because a full pipe would stop the demo.
        let log = child.stderr.take().map(|mut stderr| {
            thread::spawn(move || {
                let mut log = String::new();
                let _ = stderr.read_to_string(&mut log);
                log
            })
        });
        Ok(Self { child, printed, log })
    }

    /// Waits until the demo announces its addresses.
    fn found(&mut self) -> io::Result<Running> {
        let until = clock::now() + PATIENCE;
        while clock::now() < until {
            if let Some(demo) = folder::running().into_iter().find(|demo| demo.pid == self.child.id()) {
                return Ok(demo);
            }
            if self.child.try_wait()?.is_some() {
                let log = self.log.take().and_then(|log| log.join().ok()).unwrap_or_default();
                return Err(io::Error::other(format!("the demo did not start:\n{log}")));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Err(io::Error::other("the demo did not start in time"))
    }

    /// Returns all that the demo prints up to its last step.
    fn banner(&self, demo: &Running) -> io::Result<String> {
        let last = tour::steps(demo, "").pop().map(|step| step.label).unwrap_or_default();
        let mut banner = String::new();
        let mut ending = false;
        loop {
            let line = self
                .printed
                .recv_timeout(PATIENCE)
                .map_err(|_| io::Error::other(format!("the banner ends early:\n{banner}")))?;
            banner += &line;
            banner.push('\n');
            if ending {
                return Ok(banner);
            }
            // The line after the label is the command.
            ending = line.ends_with(last);
        }
    }

    /// Stops the demo. Returns whether it ended without an error.
    fn stop(&mut self) -> io::Result<bool> {
        signal("TERM", self.child.id())?;
        let until = clock::now() + PATIENCE;
        while clock::now() < until {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.success());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(false)
    }
}

impl Drop for DemoProcess {
    fn drop(&mut self) {
        // It has already ended unless something went wrong.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(name: &str, pid: u32) -> io::Result<()> {
    Command::new("kill")
        .args([format!("-{name}"), pid.to_string()])
        .status()
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::{Expectation, paste, spot};

    #[test]
    fn sights_are_found_or_said_to_be_missing() {
        let output = "HTTP/1.1 504 Gateway Timeout\r\nRetry-After: 1\r\n\r\n{}\n0.152 s\n";
        for (sight, seen) in [
            (Expectation::Text("504 gateway"), Ok("HTTP/1.1 504 Gateway Timeout")),
            (Expectation::Text("retry-after: 1"), Ok("Retry-After: 1")),
            (Expectation::Text("200 OK"), Err("nothing says \"200 OK\"")),
            (Expectation::Seconds(0.1, 0.2), Ok("0.152 s")),
            (
                Expectation::Seconds(0.2, 0.3),
                Err("it took 0.152 s and not 0.2 to 0.3"),
            ),
        ] {
            assert_eq!(spot(&sight, output).as_deref().map_err(String::as_str), seen);
        }
        assert!(spot(&Expectation::Seconds(0.0, 1.0), "nothing").is_err());
    }

    #[test]
    fn a_line_is_run_by_a_shell() {
        let output = paste("printf '%s\\n' b a | sort", "127.0.0.1:9").expect("there is a shell");
        assert_eq!(output.stdout, b"a\nb\n");
    }
}

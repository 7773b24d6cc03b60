//! Counts the system calls of the gateway's worker with `strace`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tests::{Gateway, Signal};

/// Returns whether there is an `strace` that may trace its own child.
pub(crate) fn can_be_counted() -> bool {
    let traced = Command::new("strace").args(["-c", "-o", "/dev/null", "true"]).output();
    traced.is_ok_and(|output| output.status.success())
}

/// A count under way.
pub(crate) struct Trace {
    child: Child,
    summary: PathBuf,
}

impl Trace {
    /// Returns once every call of the worker counts.
    pub(crate) fn begin(gateway: &Gateway) -> Self {
        let summary = gateway.path("system_calls");
        let mut child = Command::new("strace")
            .args(["-c", "-U", "calls,name", "-o"])
            .arg(&summary)
            .args(["-p", &worker(gateway).to_string()])
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace can be started");
        let told = child.stderr.take().expect("it is piped");
        let mut lines = BufReader::new(told).lines().map_while(Result::ok);
        assert!(
            lines.any(|line| line.contains("attached")),
            "strace attaches to a thread of ours"
        );
        Self { child, summary }
    }

    /// Returns the number of calls.
    pub(crate) fn end(mut self) -> u64 {
        Signal::Int.send(self.child.id());
        self.child.wait().expect("it is our child");
        let summary = fs::read_to_string(&self.summary).expect("strace writes its counts");
        let total = summary.lines().find_map(|line| line.trim().strip_suffix("total"));
        let calls = total.and_then(|total| total.split_whitespace().next()?.parse().ok());
        calls.unwrap_or_else(|| panic!("no total in\n{summary}"))
    }
}

/// Returns the number of the thread that serves connections; the config says that there is one.
fn worker(gateway: &Gateway) -> u32 {
    let threads = fs::read_dir(format!("/proc/{}/task", gateway.pid())).expect("it runs");
    let named = threads.filter_map(|thread| {
        let folder = thread.ok()?.path();
        let name = fs::read_to_string(folder.join("comm")).ok()?;
        Some((name.trim().to_owned(), folder.file_name()?.to_str()?.parse().ok()?))
    });
    let named: Vec<(String, u32)> = named.collect();
    let workers: Vec<u32> = named
        .iter()
        .filter(|(name, _)| name.starts_with("worker"))
        .map(|(_, id)| *id)
        .collect();
    match workers[..] {
        [worker] => worker,
        _ => panic!("one of these is the worker: {named:?}"),
    }
}

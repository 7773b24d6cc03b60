//! Divides the processors between the gateway and everything else: generator, backends, and whatever they start.
//!
//! Where they share processors, a generator that sends more takes time from the gateway, and what the gateway then does
//! less is not its own doing. `taskset` of util-linux sets which processors the threads of a process run on.

use std::fs;
use std::process;

use tokio::process::Command;

use super::gateway::Gateway;
use crate::Result;

/// Processors of this machine, as the kernel writes lists of them: `0`, `0-3,6`.
pub(super) struct Processors {
    before: String,
    gateway: String,
}

impl Processors {
    /// Leaves the first processor to the gateway. Threads of this process that start later run beside it too.
    ///
    /// # Errors
    /// There is only one processor, or `taskset` is missing.
    pub(super) async fn divide() -> Result<Self> {
        let status = fs::read_to_string("/proc/self/status")?;
        let before = status
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
            .ok_or("/proc/self/status does not say which processors are allowed")?
            .trim();
        let (first, others) = split(before).ok_or("it needs a second processor, for everything but the gateway")?;
        pin(process::id(), &others).await?;
        Ok(Self {
            before: before.to_owned(),
            gateway: first.to_string(),
        })
    }

    /// Runs the gateway on its processor only.
    pub(super) async fn give(&self, gateway: &Gateway) -> Result<()> {
        pin(gateway.id()?, &self.gateway).await
    }

    /// Lets this process run anywhere again.
    pub(super) async fn join(self) -> Result<()> {
        pin(process::id(), &self.before).await
    }
}

/// Returns the first processor of a list, and the list of the others; `None` if there are none.
fn split(list: &str) -> Option<(u32, String)> {
    let (head, rest) = list.split_once(',').unwrap_or((list, ""));
    let (first, last) = head.split_once('-').unwrap_or((head, head));
    let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
    let of_head = (first < last).then(|| match first + 1 {
        next if next == last => last.to_string(),
        next => format!("{next}-{last}"),
    });
    let rest = Some(rest.to_owned()).filter(|rest| !rest.is_empty());
    let others: Vec<String> = of_head.into_iter().chain(rest).collect();
    (!others.is_empty()).then(|| (first, others.join(",")))
}

/// Sets the processors of all threads of a process.
async fn pin(id: u32, list: &str) -> Result<()> {
    let arguments = ["--all-tasks", "--cpu-list", "--pid", list, &id.to_string()];
    let output = Command::new("taskset").args(arguments).output().await;
    let output = output.map_err(|error| format!("taskset: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("taskset: {}", String::from_utf8_lossy(&output.stderr).trim()).into())
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn the_first_processor_is_split_off() {
        let check = |list, expected: Option<(u32, &str)>| {
            assert_eq!(split(list), expected.map(|(first, others)| (first, others.to_owned())));
        };
        check("0-1", Some((0, "1")));
        check("0-7", Some((0, "1-7")));
        check("2,5", Some((2, "5")));
        check("0,2-3,6", Some((0, "2-3,6")));
        check("1-3,6", Some((1, "2-3,6")));
        check("0", None);
        check("", None);
    }
}

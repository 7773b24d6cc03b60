//! Adds the resource use of the process to the metrics page, read from `/proc` at each scrape.
//!
//! Without `/proc`, these families are absent.

use std::fs;

use super::families::Family;
use super::page::Page;

pub(super) fn sample(page: &mut Page) {
    // Unit of the kernel's CPU times in user space; 100 on every current architecture of Linux.
    const TICKS_PER_SECOND: f64 = 100.0;
    if let Some(ticks) = fs::read_to_string("/proc/self/stat")
        .ok()
        .as_deref()
        .and_then(cpu_ticks)
    {
        page.put(Family::ProcessCpu, &[], ticks as f64 / TICKS_PER_SECOND);
    }
    if let Ok(status) = fs::read_to_string("/proc/self/status") {
        if let Some(kibibytes) = number_after(&status, "VmRSS:") {
            page.put(Family::ProcessResidentMemory, &[], kibibytes * 1024);
        }
        if let Some(threads) = number_after(&status, "Threads:") {
            page.put(Family::ProcessThreads, &[], threads);
        }
    }
    if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
        // One of the descriptors is that of the directory being read.
        page.put(Family::ProcessOpenFds, &[], descriptors.count().saturating_sub(1));
    }
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    if let Some(most) = number_after(&limits, "Max open files") {
        page.put(Family::ProcessMaxFds, &[], most);
    }
}

/// Returns the sum of fields 14 and 15 of proc_pid_stat(5). Field 2, the program's name, may contain spaces and
/// parentheses.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut times = after_name.split_ascii_whitespace().skip(11);
    let (user, system): (u64, u64) = (times.next()?.parse().ok()?, times.next()?.parse().ok()?);
    Some(user + system)
}

fn number_after(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_program_name() {
        let tail = "S 1 2 3 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 4 0 1000";
        assert_eq!(cpu_ticks(&format!("42 (gateway) {tail}")), Some(300));
        assert_eq!(cpu_ticks(&format!("42 (a) b (c)) {tail}")), Some(300));
        assert_eq!(cpu_ticks("42 (gateway) S 1"), None);
        assert_eq!(cpu_ticks(""), None);
    }

    #[test]
    fn a_number_is_taken_from_its_own_line() {
        let text = "VmHWM:\t  900 kB\nVmRSS:\t  512 kB\nThreads:\t4\nMax open files  1024  4096 files\n";
        assert_eq!(number_after(text, "VmRSS:"), Some(512));
        assert_eq!(number_after(text, "Max open files"), Some(1024));
        assert_eq!(number_after(text, "VmSwap:"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_running_process_uses_something() {
        let mut page = Page::new(crate::observe::Format::Prometheus);
        sample(&mut page);
        let text = page.into_text();
        for name in ["process_resident_memory_bytes", "process_open_fds", "process_threads"] {
            let line = text
                .lines()
                .find(|line| line.starts_with(name))
                .unwrap_or_else(|| panic!("{name}: {text}"));
            assert!(line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap() > 0, "{line}");
        }
    }
}

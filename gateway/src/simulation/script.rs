//! The answers of an endpoint in phases. Knows no clock: the time is an argument.

use std::sync::Arc;

use http::Method;
use policies::Moment;

use crate::config::policy_tests::{Behaviour, Lasts, PathPattern, Phase};

/// Phases, and how far they have come.
#[derive(Debug, Default)]
pub(super) struct Script {
    phases: Arc<[Phase]>,
    /// Number of the current phase.
    current: usize,
    began: Moment,
    /// Calls within the current phase.
    calls: u64,
}

/// Script of an endpoint, with those of some paths.
#[derive(Debug, Default)]
pub(super) struct Scripts {
    pub(super) all: Script,
    pub(super) by_path: Vec<(PathPattern, Script)>,
}

impl Scripts {
    /// Returns the phase of a call that comes now, and counts the call in the script of its path.
    pub(super) fn call(&mut self, method: &Method, path: &str, now: Moment) -> Option<&Phase> {
        let mut of_paths = self.by_path.iter_mut();
        let found = of_paths.find(|(pattern, _)| pattern.fits(method, path));
        found.map_or(&mut self.all, |(_, script)| script).call(now)
    }
}

impl Script {
    pub(super) const fn new(phases: Arc<[Phase]>, now: Moment) -> Self {
        Self {
            phases,
            current: 0,
            began: now,
            calls: 0,
        }
    }

    /// Returns the phase of now; `None` after the last one.
    pub(super) fn phase(&mut self, now: Moment) -> Option<&Phase> {
        while let Some(phase) = self.phases.get(self.current) {
            let is_over = match phase.lasts {
                Lasts::Always => false,
                Lasts::For(time) => now.since(self.began) >= time,
                Lasts::Calls(count) => self.calls >= count,
            };
            if !is_over {
                break;
            }
            self.began = match phase.lasts {
                Lasts::For(time) => self.began + time,
                Lasts::Always | Lasts::Calls(_) => now,
            };
            (self.current, self.calls) = (self.current + 1, 0);
        }
        self.phases.get(self.current)
    }

    /// Returns the phase of a call that comes now, and counts the call.
    pub(super) fn call(&mut self, now: Moment) -> Option<&Phase> {
        self.phase(now)?;
        self.calls += 1;
        self.phases.get(self.current)
    }

    /// Returns the times at which the endpoint begins to take no connections, as far as they are known beforehand.
    pub(super) fn closings(&self) -> Vec<Moment> {
        let mut closings = Vec::new();
        let mut begin = self.began;
        for phase in self.phases.iter() {
            if matches!(*phase.answer, Behaviour::Refuse | Behaviour::Unreachable) {
                closings.push(begin);
            }
            match phase.lasts {
                Lasts::For(time) => begin = begin + time,
                Lasts::Always | Lasts::Calls(_) => break,
            }
        }
        closings
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;

    use super::*;
    use crate::config::{At, NamedMap};

    fn phase(answer: Behaviour, lasts: Lasts) -> Phase {
        Phase {
            answer: At::unwritten(answer),
            after: Duration::ZERO,
            headers: NamedMap::default(),
            body: None,
            lasts,
        }
    }

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn phases_follow_each_other_by_time_and_by_calls() {
        let bad = Behaviour::Status(StatusCode::INTERNAL_SERVER_ERROR);
        let phases = [
            phase(bad, Lasts::For(Duration::from_secs(10))),
            phase(Behaviour::Hang, Lasts::Calls(2)),
            phase(Behaviour::Refuse, Lasts::For(Duration::from_secs(1))),
        ];
        let mut script = Script::new(Arc::from(phases), at(0));
        let mut check = |millis, expected: Option<Behaviour>| {
            let found = script.call(at(millis)).map(|phase| *phase.answer);
            assert_eq!(found, expected, "at {millis} ms");
        };
        check(0, Some(bad));
        // Time that goes backwards changes nothing.
        check(9_999, Some(bad));
        check(9_998, Some(bad));
        check(10_000, Some(Behaviour::Hang));
        check(50_000, Some(Behaviour::Hang));
        check(60_000, Some(Behaviour::Refuse));
        check(60_999, Some(Behaviour::Refuse));
        check(61_000, None);
        check(61_001, None);
    }

    #[test]
    fn the_times_of_closing_are_known_up_to_a_phase_that_counts() {
        let second = Lasts::For(Duration::from_secs(1));
        let phases = [
            phase(Behaviour::Refuse, second),
            phase(Behaviour::Hang, second),
            phase(Behaviour::Unreachable, Lasts::Calls(1)),
            phase(Behaviour::Refuse, second),
        ];
        let script = Script::new(Arc::from(phases), at(500));
        assert_eq!(script.closings(), [at(500), at(2500)]);
    }
}

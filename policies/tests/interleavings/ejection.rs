//! Checks endpoints that fail at the same time, and a reload at that time: never more than half are ejected, and each
//! change is reported once.

use super::{at, explore, race};
use policies::ejection::{Change, Standing};
use policies::{EjectionSettings, Ejector, Moment};
use std::num::NonZeroU32;

/// Backend of two endpoints; the first failure ejects.
struct Subject {
    ejector: Ejector,
    endpoints: [Standing; 2],
}

fn subject() -> std::sync::Arc<Subject> {
    let settings = EjectionSettings {
        consecutive: NonZeroU32::MIN,
        ..EjectionSettings::default()
    };
    std::sync::Arc::new(Subject {
        ejector: Ejector::new(Some(settings)),
        endpoints: Default::default(),
    })
}

impl Subject {
    fn record(&self, index: usize, began: Moment, failed: bool, now: Moment) -> Option<Change> {
        self.ejector
            .record(&self.endpoints[index], &self.endpoints, began, failed, now)
    }

    fn out(&self, now: Moment) -> usize {
        self.endpoints
            .iter()
            .filter(|endpoint| endpoint.is_ejected(now))
            .count()
    }
}

fn is_ejection(change: &Option<Change>) -> bool {
    matches!(change, Some(Change::Ejected { .. }))
}

#[test]
fn one_endpoint_is_always_in() {
    explore("ejection: both endpoints fail at once", || {
        let subject = subject();
        let changes = race(
            &subject,
            &[|s| s.record(0, at(0), true, at(1)), |s| s.record(1, at(0), true, at(1))],
        );
        assert_eq!(changes.iter().filter(|change| is_ejection(change)).count(), 1);
        assert_eq!(subject.out(at(1)), 1);
    });
}

#[test]
fn failures_at_once_eject_once() {
    explore("ejection: three failures of one endpoint", || {
        let subject = subject();
        let fail = |s: &Subject| s.record(0, at(0), true, at(1));
        let changes = race(&subject, &[fail, fail, fail]);
        assert_eq!(changes.iter().flatten().count(), 1);
        // It is the first ejection, so it has the shortest length.
        assert_eq!(
            subject.endpoints[0].left(at(1)),
            Some(EjectionSettings::default().eject_for)
        );
    });
}

#[test]
fn a_return_is_told_once() {
    explore("ejection: two successes after the time out", || {
        let subject = subject();
        assert!(is_ejection(&subject.record(0, at(0), true, at(1))));
        let succeed = |s: &Subject| s.record(0, at(40_000), false, at(40_001));
        let changes = race(&subject, &[succeed, succeed]);
        assert_eq!(changes.into_iter().flatten().collect::<Vec<_>>(), [Change::Returned]);
    });
}

#[test]
fn switched_off_it_leaves_no_one_out() {
    explore("ejection: switched off beside a failure", || {
        let subject = subject();
        race(
            &subject,
            &[
                |s| {
                    s.ejector.reconfigure(None, &s.endpoints, at(1));
                },
                |s| {
                    s.record(0, at(0), true, at(1));
                },
            ],
        );
        assert_eq!(subject.out(at(1)), 0);
    });
}

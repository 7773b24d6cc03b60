//! Tests the whole judgement as a table, and what no caller can achieve as properties.

use proptest::prelude::*;

use super::*;
use crate::rejection::Reason;
use crate::setting::{Configured, SettingId};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn at(milliseconds: u64) -> Moment {
    Moment::ZERO + ms(milliseconds)
}

/// Operator's limit for an attempt, in milliseconds. The request may take ten times as long.
const LIMIT: u64 = 1_000;

fn retry_on() -> RetryOn {
    RetryOn {
        unreached: true,
        broken: true,
        timed_out: true,
        statuses: [503].into(),
    }
}

/// Returns the times of an attempt that began at 0, had its connection at 10 and ended at `ended`, in milliseconds.
fn course(sending: Sending, ended: u64) -> AttemptTimes {
    AttemptTimes {
        began: at(0),
        sent: Some(at(10)),
        ended: at(ended),
        sending,
    }
}

const TOO_LARGE: Upload = Upload::TooLarge(Configured {
    value: 100,
    by: SettingId::CONNECT_TIME,
});

fn limits(wish: Option<u64>) -> Limits {
    let request = Deadline::at(at(LIMIT * 10).min(wish.map_or(Moment::MAX, at)));
    let attempt = request.child(at(0), ms(LIMIT));
    Limits {
        attempt,
        by_operator: Deadline::at(at(LIMIT)),
        time: if attempt < request {
            TimeLimit::Backend(SettingId::CONNECT_TIME)
        } else {
            TimeLimit::Request(None)
        },
        operator_limit: ms(LIMIT),
        endpoints: SettingId::CONNECT_TIME,
        is_stream: false,
    }
}

fn judged(end: End, course: &AttemptTimes, limits: &Limits) -> (Option<Reason>, Outcome, bool) {
    let on = retry_on();
    let again = Again {
        on: &on,
        is_repeatable: true,
    };
    let Verdict { outcome, fault, again } = judge(end, course, limits, again);
    (fault.map(|fault| limits.rejection(fault).reason()), outcome, again)
}

const fn failure(took: u64) -> Outcome {
    Outcome::Failure { took: ms(took) }
}

const SENDINGS: [Sending; 5] = [
    Sending::Complete { since: Moment::ZERO },
    Sending::Untaken { since: Moment::ZERO },
    Sending::AwaitsCaller,
    Sending::Spoilt(Upload::TooSlow),
    Sending::Spoilt(TOO_LARGE),
];

#[test]
fn what_a_backend_does_is_its_own_doing_however_far_the_request_has_come() {
    let cases = [
        (Fault::Unreached, Reason::BackendUnreached),
        (Fault::Broken, Reason::BackendBroken),
        (Fault::Invalid, Reason::BackendInvalid),
    ];
    for (fault, reason) in cases {
        for sending in SENDINGS {
            for wish in [None, Some(100)] {
                let (told, outcome, again) = judged(End::Failed(fault), &course(sending, 100), &limits(wish));
                assert_eq!((told, again), (Some(reason), true), "{sending:?}");
                assert!(matches!(outcome, Outcome::Failure { .. }), "{sending:?}: {outcome:?}");
            }
        }
    }
}

/// A caller of a stream keeps its side open, and says nothing for as long as it likes.
#[test]
fn an_open_request_does_not_explain_why_a_stream_has_no_answer() {
    let judged = |is_stream| {
        let limits = Limits {
            is_stream,
            ..limits(None)
        };
        let fault = End::Failed(Fault::TimedOut { sent: true });
        judged(fault, &course(Sending::AwaitsCaller, 1_000), &limits)
    };
    assert_eq!(judged(false).0, Some(Reason::RequestTimeout));
    let (reason, recorded, _) = judged(true);
    assert_eq!((reason, recorded), (Some(Reason::BackendTimeout), Outcome::Ignored));
}

#[test]
fn a_timeout_is_explained_by_who_was_waited_for() {
    let check = |sending, ended, wish, told, outcome| {
        let (reason, recorded, _) = judged(
            End::Failed(Fault::TimedOut { sent: true }),
            &course(sending, ended),
            &limits(wish),
        );
        assert_eq!(
            (reason, recorded),
            (Some(told), outcome),
            "{sending:?}, {ended}, {wish:?}"
        );
    };
    let since = |since| Sending::Complete { since: at(since) };
    let untaken = |since| Sending::Untaken { since: at(since) };
    // The backend had the whole request, or did not take it: for all, for most, for too little of its limit.
    check(since(10), 1_000, None, Reason::BackendTimeout, failure(1_000));
    check(since(210), 1_000, None, Reason::BackendTimeout, failure(800));
    check(since(211), 1_000, None, Reason::BackendTimeout, Outcome::Ignored);
    check(since(990), 1_000, None, Reason::BackendTimeout, Outcome::Ignored);
    check(untaken(10), 1_000, None, Reason::BackendTimeout, failure(1_000));
    check(untaken(211), 1_000, None, Reason::BackendTimeout, Outcome::Ignored);
    // The caller was waited for, or its body failed.
    check(
        Sending::AwaitsCaller,
        1_000,
        None,
        Reason::RequestTimeout,
        Outcome::Ignored,
    );
    check(
        Sending::AwaitsCaller,
        900,
        Some(900),
        Reason::RequestTimeout,
        Outcome::Ignored,
    );
    check(
        Sending::Spoilt(Upload::TooSlow),
        1_000,
        None,
        Reason::RequestTimeout,
        Outcome::Ignored,
    );
    check(
        Sending::Spoilt(TOO_LARGE),
        1_000,
        None,
        Reason::BodyTooLarge,
        Outcome::Ignored,
    );
    // A timeout by the caller's limit counts only if the backend had all of the operator's limit.
    check(since(10), 800, Some(800), Reason::OutOfTime, Outcome::Ignored);
    check(since(10), 999, Some(999), Reason::OutOfTime, Outcome::Ignored);
    check(since(10), 1_000, Some(1_000), Reason::OutOfTime, failure(1_000));
    check(since(10), 1_000, Some(2_000), Reason::BackendTimeout, failure(1_000));
    // Time that runs backwards blames no backend.
    check(since(2_000), 1_000, None, Reason::BackendTimeout, Outcome::Ignored);
    check(since(10), 0, None, Reason::BackendTimeout, Outcome::Ignored);
}

#[test]
fn a_backend_that_cannot_be_connected_to_has_nothing_to_wait_for() {
    let check = |ended, wish, told, outcome| {
        let mut course = course(Sending::AwaitsCaller, ended);
        course.sent = None;
        let (reason, recorded, _) = judged(End::Failed(Fault::TimedOut { sent: false }), &course, &limits(wish));
        assert_eq!((reason, recorded), (Some(told), outcome), "{ended}, {wish:?}");
    };
    check(1_000, None, Reason::BackendTimeout, failure(1_000));
    check(800, Some(800), Reason::OutOfTime, Outcome::Ignored);
}

#[test]
fn a_request_that_is_ended_by_its_own_body_says_nothing() {
    let check = |upload, told| {
        let ended = judged(
            End::Failed(Fault::Upload(Upload::Broken)),
            &course(Sending::Spoilt(upload), 100),
            &limits(None),
        );
        assert_eq!(ended, (Some(told), Outcome::Ignored, false), "{upload:?}");
    };
    check(TOO_LARGE, Reason::BodyTooLarge);
    check(Upload::TooSlow, Reason::RequestTimeout);
    check(Upload::Malformed("a chunk has no size"), Reason::MalformedRequest);
    check(Upload::Broken, Reason::CallerGone);
}

#[test]
fn a_body_that_cannot_be_sent_again_says_nothing_of_whom_it_was_for() {
    let mut course = course(Sending::AwaitsCaller, 100);
    for sent in [None, Some(at(10))] {
        course.sent = sent;
        let ended = judged(End::Failed(Fault::BodyGone), &course, &limits(None));
        assert_eq!(ended, (Some(Reason::BackendBroken), Outcome::Ignored, false));
    }
}

#[test]
fn the_time_of_a_backend_begins_with_the_last_byte() {
    let check = |sending, took| {
        for (status, is_failure, again) in [(200, false, false), (500, true, false), (503, true, true)] {
            let status = StatusCode::from_u16(status).expect("a status");
            let end = End::Answered { status, is_failure };
            let took = ms(took);
            let outcome = if is_failure {
                Outcome::Failure { took }
            } else {
                Outcome::Success { took }
            };
            let ended = judged(end, &course(sending, 900), &limits(None));
            assert_eq!(ended, (None, outcome, again), "{sending:?}");
        }
    };
    // The time of connecting is included.
    check(Sending::Complete { since: at(10) }, 900);
    check(Sending::Complete { since: at(850) }, 60);
    // A kept body is given to the connection as soon as there is one.
    check(Sending::Complete { since: at(5) }, 900);
    check(Sending::Untaken { since: at(600) }, 310);
    // The backend answered before it had the whole request.
    check(Sending::AwaitsCaller, 10);
    check(Sending::Complete { since: at(2_000) }, 10);
}

#[test]
fn what_may_not_be_sent_twice_is_not_tried_again() {
    let on = retry_on();
    let again = Again {
        on: &on,
        is_repeatable: false,
    };
    let sending = Sending::Complete { since: at(10) };
    let judged = |end| judge(end, &course(sending, 100), &limits(None), again).again;
    assert!(judged(End::Failed(Fault::Unreached)));
    for fault in [Fault::Broken, Fault::Invalid, Fault::TimedOut { sent: true }] {
        assert!(!judged(End::Failed(fault)), "{fault:?}");
    }
    let status = StatusCode::SERVICE_UNAVAILABLE;
    assert!(!judged(End::Answered {
        status,
        is_failure: true
    }));
}

/// Plays an attempt. The backend takes data at once and answers `x` after the last byte. The caller sends the last byte
/// `upload` after the start, and may limit the time to `wish`; all in milliseconds.
fn played(upload: u64, x: u64, wish: Option<u64>) -> (Option<Reason>, Outcome) {
    let limits = limits(wish);
    let (asked, answered) = (10 + upload, 10 + upload + x);
    let until = limits.attempt.moment().since(at(0)).as_millis() as u64;
    let ok = End::Answered {
        status: StatusCode::OK,
        is_failure: false,
    };
    let late = End::Failed(Fault::TimedOut { sent: true });
    let complete = Sending::Complete { since: at(asked) };
    let (told, outcome, _) = if answered <= until {
        judged(ok, &course(complete, answered), &limits)
    } else if asked <= until {
        judged(late, &course(complete, until), &limits)
    } else {
        judged(late, &course(Sending::AwaitsCaller, until), &limits)
    };
    (told, outcome)
}

proptest! {
    #![proptest_config(cases::counted())]

    /// A backend that answers within 4/5 of its limit is recorded with its true time, or not at all.
    #[test]
    fn no_pace_of_a_caller_changes_what_is_recorded_of_a_good_backend(
        x in 0..LIMIT * 4 / 5 - 10, upload in 0..3 * LIMIT, wish in prop::option::of(0..3 * LIMIT),
    ) {
        let took = Outcome::Success { took: ms(10 + x) };
        prop_assert_eq!(played(0, x, None), (None, took));
        let (told, outcome) = played(upload, x, wish);
        match told {
            None => prop_assert_eq!(outcome, took),
            Some(reason) => {
                prop_assert_eq!(outcome, Outcome::Ignored);
                let asked_in_time = 10 + upload <= LIMIT.min(wish.unwrap_or(u64::MAX));
                let told = if asked_in_time { reason != Reason::RequestTimeout } else { reason == Reason::RequestTimeout };
                prop_assert!(told, "{:?}", reason);
            }
        }
    }

    /// A backend that never answers is blamed in every request whose caller leaves it its time.
    #[test]
    fn a_backend_that_hangs_is_found_out(upload in 0..LIMIT / 5 - 10, wish in prop::option::of(LIMIT..3 * LIMIT)) {
        let (told, outcome) = played(upload, 10 * LIMIT, wish);
        prop_assert!(matches!(told, Some(Reason::BackendTimeout | Reason::OutOfTime)));
        let is_blamed = matches!(outcome, Outcome::Failure { .. });
        prop_assert!(is_blamed, "{:?}", outcome);
    }
}

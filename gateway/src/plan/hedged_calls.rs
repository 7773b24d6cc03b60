//! Tests calls with a hedge on a virtual clock: when the second attempt is made and where, which answer is used, and what
//! the guards count.

use std::time::Duration;

use policies::breaker::State;

use super::attempt_entries::{answer, config, entries, play, serve};
use crate::call::scripted::{Behaviour, Scripted};
use crate::clock;
use crate::observe::{Attempts, Family, HedgeEvent};
use crate::plan::Plan;
use crate::plan::compile::test_plan;
use crate::plan::time_budget::properties::on_paused_time;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Builds a plan whose route has one part with this hedge, to a backend with three endpoints.
fn hedged(hedge: &str, settings: &str) -> Plan {
    let target = format!("aggregate: {{ partial: allow, parts: {{ p: {{ backend: b, path: /p, hedge: {hedge} }} }} }}");
    // With metrics of its own.
    test_plan::plan(&config(3, settings, &target), &test_plan::state())
}

const USUAL: &str = "retry: { attempts: 2, backoff: 50ms..50ms, jitter: 0.0 }, attempt_limit: 10s, time_limit: 10s";

fn count(plan: &Plan, event: HedgeEvent) -> u64 {
    plan.backends[0].metrics.count(Family::Hedges, event)
}

/// Checks the entries of a call whose endpoints answer in this way, in the order in which they are asked, and the number
/// of hedges sent and won.
fn check(settings: &str, turns: Vec<Behaviour>, expected: &[&str], hedges: (u64, u64)) {
    on_paused_time(async {
        let plan = hedged("{ after: 50ms }", settings);
        play(&plan, 2, turns.clone()).await;
        let (began, mut attempts) = (clock::now(), Attempts::default());
        serve(&plan, &mut attempts).await;
        let entries = entries(&attempts, began);
        let (endpoints, told): (Vec<_>, Vec<_>) = entries.iter().filter_map(|entry| entry.split_once(' ')).unzip();
        assert_eq!(told, expected, "{settings} {turns:?}");
        assert!(endpoints.len() < 2 || endpoints[0] != endpoints[1], "{entries:?}");
        let counted = (count(&plan, HedgeEvent::Sent), count(&plan, HedgeEvent::Won));
        assert_eq!(counted, hedges, "{settings} {turns:?}");
        let guards = &plan.backends[0].guards;
        assert_eq!(guards.bulkhead.in_use(), 0, "every slot is given back");
        let all = plan.backends[0].endpoints.load_full();
        assert!(all.endpoints().all(|endpoint| endpoint.load.in_flight() == 0));
    });
}

#[test]
fn the_first_good_answer_is_used_and_the_other_attempt_cancelled() {
    // Quick enough.
    check(USUAL, vec![answer(49, 200)], &["answered at 0 head 49 took 49"], (0, 0));
    check(
        USUAL,
        vec![Behaviour::Hang, answer(10, 200)],
        &[
            "cancelled at 0 took 60 (lost_to_hedge)",
            "answered at 50 head 10 took 10",
        ],
        (1, 1),
    );
    // The one whose answer is used comes last, as everywhere.
    check(
        USUAL,
        vec![answer(80, 200), answer(1_000, 200)],
        &["cancelled at 50 took 30 (hedge_lost)", "answered at 0 head 80 took 80"],
        (1, 0),
    );
    // A bad answer does not win, and is not tried again while the other is under way.
    check(
        USUAL,
        vec![answer(80, 503), answer(60, 200)],
        &["failed_status at 0 head 80 took 110", "answered at 50 head 60 took 60"],
        (1, 1),
    );
    check(
        USUAL,
        vec![answer(200, 200), answer(60, 503)],
        &[
            "failed_status at 50 head 60 took 150",
            "answered at 0 head 200 took 200",
        ],
        (1, 0),
    );
    check(
        USUAL,
        vec![answer(80, 503), Behaviour::Break { after: ms(60) }],
        &["broken at 50 took 60", "failed_status at 0 head 80 took 110"],
        (1, 0),
    );
    // A first attempt that has failed is tried again, and not hedged.
    check(
        USUAL,
        vec![answer(30, 503), answer(100, 200)],
        &[
            "failed_status at 0 head 30 took 30",
            "answered at 80 backoff 50 head 100 took 100",
        ],
        (0, 0),
    );
}

#[test]
fn a_hedge_waits_for_nothing() {
    let refused = |settings: &str, event| {
        on_paused_time(async {
            let plan = hedged("{ after: 50ms }", settings);
            play(&plan, 2, vec![answer(80, 200)]).await;
            let (began, mut attempts) = (clock::now(), Attempts::default());
            serve(&plan, &mut attempts).await;
            assert_eq!(clock::now().since(began), ms(80));
            assert_eq!(
                (attempts.count(), count(&plan, event), count(&plan, HedgeEvent::Sent)),
                (1, 1, 0),
                "{settings}"
            );
        });
    };
    refused(&format!("{USUAL}, bulkhead: {{ limit: 1 }}"), HedgeEvent::NoSlot);
    let little = USUAL
        .replace("time_limit: 10s", "time_limit: 90ms")
        .replace("attempt_limit: 10s", "attempt_limit: 90ms");
    on_paused_time(async {
        let plan = hedged("{ after: 87ms }", &little);
        play(&plan, 2, vec![answer(88, 200)]).await;
        serve(&plan, &mut Attempts::default()).await;
        assert_eq!(
            (count(&plan, HedgeEvent::OutOfTime), count(&plan, HedgeEvent::Sent)),
            (1, 0)
        );
    });
}

#[test]
fn an_overloaded_backend_gets_no_more_than_the_budget_pays_for() {
    on_paused_time(async {
        let settings = USUAL.replace("attempts: 2,", "attempts: 2, share: 0.1, floor: 1/h,");
        let plan = hedged("{ after: 50ms }", &format!("{settings}, bulkhead: {{ limit: 1000 }}"));
        let scripted = Scripted::behind(&plan.backends[0], 400, || answer(1_000, 200)).await;
        const CALLS: usize = 300;
        for _ in 0..3 {
            let calls = (0..CALLS / 3).map(|_| async { serve(&plan, &mut Attempts::default()).await });
            futures_util::future::join_all(calls).await;
        }
        let asked = scripted.arrivals().len();
        let (sent, refused) = (count(&plan, HedgeEvent::Sent), count(&plan, HedgeEvent::BudgetEmpty));
        assert_eq!(asked, CALLS + sent as usize);
        assert_eq!((sent + refused) as usize, CALLS, "each was slow");
        // The balance of the start, and a tenth of all calls.
        assert!(sent as usize <= 20 + CALLS / 10, "{sent}");
        assert!(sent >= 20, "{sent}");
    });
}

#[test]
fn attempts_that_were_cancelled_are_no_failures() {
    on_paused_time(async {
        let settings =
            format!("{USUAL}, breaker: {{ min_calls: 1, failure_ratio: 0.1 }}, ejection: {{ consecutive: 1 }}");
        let plan = hedged("{ after: 50ms }", &settings);
        let mut number = 0;
        let _ = Scripted::behind(&plan.backends[0], 40, move || {
            number += 1;
            if number % 2 == 1 {
                Behaviour::Hang
            } else {
                answer(10, 200)
            }
        })
        .await;
        for _ in 0..10 {
            serve(&plan, &mut Attempts::default()).await;
        }
        let backend = &plan.backends[0];
        assert_eq!(count(&plan, HedgeEvent::Won), 10);
        assert_eq!(backend.guards.breaker.state(clock::now()), State::Closed);
        let all = backend.endpoints.load_full();
        assert!(all.standings().all(|standing| !standing.is_ejected(clock::now())));
    });
}

#[test]
fn the_95th_percentile_is_learned_first_and_followed() {
    on_paused_time(async {
        let plan = hedged("{}", USUAL);
        let mut number = 0;
        let _ = Scripted::behind(&plan.backends[0], 300, move || {
            number += 1;
            // The 51st and the 151st are slow.
            if [51, 151].contains(&number) {
                answer(3_000, 200)
            } else {
                answer(20, 200)
            }
        })
        .await;
        let took = async || {
            let began = clock::now();
            serve(&plan, &mut Attempts::default()).await;
            clock::now().since(began)
        };
        for call in 1..=150 {
            let expected = if call == 51 { ms(3_000) } else { ms(20) };
            assert_eq!(took().await, expected, "call {call}");
        }
        assert_eq!(count(&plan, HedgeEvent::Sent), 0);
        // 20 ms, rounded up to a bucket of 20.48 ms and by the timer.
        let slow = took().await;
        assert!(slow > ms(40) && slow <= ms(43), "{slow:?}");
        assert_eq!((count(&plan, HedgeEvent::Sent), count(&plan, HedgeEvent::Won)), (1, 1));
    });
}

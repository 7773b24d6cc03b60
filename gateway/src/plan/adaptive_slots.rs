//! Tests which calls the adaptive limit of a backend learns from. Whole calls run on a virtual clock, over connections in
//! memory.

use std::time::Duration;

use futures_util::future::join_all;

use super::attempt_entries::{answer, call_as, config, play};
use crate::call::Streaming;
use crate::clock;
use crate::observe::Attempts;
use crate::plan::time_budget::properties::{on_paused_time, plan};

const CALLERS: usize = 30;

/// Returns the limit after some seconds in which callers call again and again, and all get this status after 10 ms.
fn limit_after(settings: &str, status: u16, streaming: Streaming) -> u32 {
    let guards = format!("retry: off, breaker: off, bulkhead: {settings}");
    on_paused_time(async {
        let plan = plan(&config(1, &guards, "backend: b"));
        play(&plan, CALLERS, vec![answer(10, status)]).await;
        let end = clock::now() + Duration::from_secs(8);
        let caller = || async {
            while clock::now() < end {
                call_as(&plan, &mut Attempts::default(), streaming).await;
            }
        };
        join_all((0..CALLERS).map(|_| caller())).await;
        plan.backends[0].guards.bulkhead.limit()
    })
}

#[test]
fn it_learns_from_calls_that_succeed() {
    let check = |settings: &str, status, streaming, expected: &dyn Fn(u32) -> bool| {
        let limit = limit_after(settings, status, streaming);
        assert!(expected(limit), "{settings} {status}: {limit}");
    };
    let adaptive = "{ limit: adaptive, from: 4, to: 200, queue: 40 }";
    // The only endpoint counts, though it cannot be ejected.
    check(adaptive, 200, Streaming::Never, &|limit| limit > 20);
    check(adaptive, 404, Streaming::Never, &|limit| limit > 20);
    for failure in [429, 500, 503] {
        check(adaptive, failure, Streaming::Never, &|limit| limit == 20);
    }
    check(adaptive, 200, Streaming::Always, &|limit| limit == 20);
    check("{ limit: 20, queue: 40 }", 200, Streaming::Never, &|limit| limit == 20);
}

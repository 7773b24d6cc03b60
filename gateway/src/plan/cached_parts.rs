//! Tests parts with a cache on a virtual clock: how long a request waits for the answer to another one, and who asks the
//! backend when that one leaves.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{sleep, timeout};

use super::attempt_entries::{answer, config, entries, serve_as};
use crate::cache::responses::CacheCaller;
use crate::call::scripted::Scripted;
use crate::clock;
use crate::observe::Attempts;
use crate::plan::Plan;
use crate::plan::time_budget::properties::{on_paused_time, plan};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Builds a plan whose route has one part with these settings.
fn cached(part: &str) -> Plan {
    let target = format!("aggregate: {{ partial: allow, parts: {{ p: {{ backend: b, path: /p, {part} }} }} }}");
    plan(&config(
        1,
        "retry: off, breaker: off, attempt_limit: 10s, time_limit: 10s",
        &target,
    ))
}

fn caller(tenant: &str) -> Arc<CacheCaller> {
    Arc::new(CacheCaller {
        tenant: tenant.into(),
        tier: "free".into(),
        kind: "api_key",
        is_identified: true,
        issuer: "".into(),
        id: "a".into(),
        claims: Bytes::new(),
        owner: 1,
    })
}

/// Serves one request of a tenant. Returns the time that it took, and its entries.
async fn ask(plan: &Plan, tenant: &str) -> (Duration, Vec<String>) {
    let (began, mut attempts) = (clock::now(), Attempts::default());
    serve_as(plan, &mut attempts, Some(&caller(tenant))).await;
    (clock::now().since(began), entries(&attempts, began))
}

#[test]
fn requests_wait_for_one_answer_and_use_it_for_its_lifetime() {
    on_paused_time(async {
        let plan = cached("cache: { ttl: 30s }");
        let scripted = Scripted::behind(&plan.backends[0], 8, || answer(1_000, 200)).await;
        let all = (0..200).map(|_| ask(&plan, "acme"));
        for (took, entries) in futures_util::future::join_all(all).await.iter().skip(1) {
            assert_eq!(
                (*took, &**entries),
                (ms(1_000), &["- cached at 0 took 1000".to_owned()][..])
            );
        }
        assert_eq!(scripted.arrivals().len(), 1);
        assert_eq!(ask(&plan, "acme").await.0, ms(0));
        // Another tenant shares nothing.
        assert_eq!(ask(&plan, "other").await.0, ms(1_000));
        sleep(Duration::from_secs(30)).await;
        assert_eq!(ask(&plan, "acme").await.0, ms(1_000));
        assert_eq!(scripted.arrivals().len(), 3);
    });
}

#[test]
fn a_request_that_waits_keeps_its_own_time_limit() {
    on_paused_time(async {
        let plan = cached("time_limit: 100ms, cache: { ttl: 30s }");
        let scripted = Scripted::behind(&plan.backends[0], 8, || answer(1_000, 200)).await;
        let late = async |after| {
            sleep(ms(after)).await;
            ask(&plan, "acme").await
        };
        let (first, second, third) = tokio::join!(ask(&plan, "acme"), late(50), late(60));
        // The second one takes the place of the first, and the third waits on.
        assert_eq!([first.0, second.0, third.0], [ms(100), ms(100), ms(100)]);
        assert_eq!(scripted.arrivals().len(), 3, "the third has 10 ms of its own");
    });
}

#[test]
fn the_next_request_asks_if_the_one_that_it_waits_for_leaves() {
    on_paused_time(async {
        let plan = cached("cache: { ttl: 30s }");
        let scripted = Scripted::behind(&plan.backends[0], 8, || answer(100, 200)).await;
        let leaves = timeout(ms(50), ask(&plan, "acme"));
        let waits = async {
            sleep(ms(10)).await;
            ask(&plan, "acme").await.0
        };
        let (left, took) = tokio::join!(leaves, waits);
        assert!(left.is_err());
        assert_eq!((took, scripted.arrivals().len()), (ms(140), 2));
        assert_eq!(ask(&plan, "acme").await.0, ms(0));
    });
}

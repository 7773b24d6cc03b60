//! Checks calls that begin and end at once at one endpoint: none is miscounted, no peak is lost, and one worker takes the
//! floor.

use super::{at, explore, explore_orders, race};
use policies::balance::EndpointLoad;
use policies::balance::endpoint_load::{Answer, LoadSettings};
use policies::balance::latency::Latency;
use std::sync::Arc;
use std::time::Duration;

fn call(load: &EndpointLoad, took: u64) {
    let answer = Answer {
        took: Duration::from_millis(took),
        failed: false,
        retry_after: None,
    };
    load.begin(at(1_000));
    load.answer(answer, &LoadSettings::default(), at(1_000 + took));
    load.end();
}

#[test]
fn one_worker_takes_the_floor() {
    explore("balance: three workers find an endpoint due", || {
        let load = Arc::new(EndpointLoad::default());
        let take = |load: &EndpointLoad| load.take_floor(at(5_000));
        let taken = race(&load, &[take, take, take]);
        assert_eq!(taken.iter().filter(|taken| **taken).count(), 1);
    });
}

#[test]
fn no_peak_is_lost() {
    explore_orders::<Latency, _>(
        "balance: a peak beside a low latency",
        || {
            let latency = Latency::default();
            latency.record(Duration::from_millis(100), at(0));
            latency
        },
        &[
            |latency| latency.record(Duration::from_millis(400), at(1_000)),
            |latency| latency.record(Duration::from_millis(10), at(1_000)),
        ],
        |latency| assert!(latency.nanos() > 399_000_000),
    );
}

#[test]
fn each_call_is_counted_until_it_ends() {
    explore("balance: two calls and one that is given up", || {
        let load = Arc::new(EndpointLoad::default());
        race(
            &load,
            &[
                |load| call(load, 20),
                |load| {
                    load.begin(at(1_000));
                    load.abandon(Duration::from_millis(30), at(1_030));
                },
            ],
        );
        let seen = load.candidate(1, 0, &LoadSettings::default(), at(60_000));
        assert_eq!(seen.in_flight, 0);
        // Nothing is owed, so there is no silence: the latency is that of the slower call.
        assert!((29_000_000..31_000_000).contains(&seen.latency), "{}", seen.latency);
    });
}

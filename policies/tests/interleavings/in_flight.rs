//! Checks requests that enter and leave at once: `enter` never exceeds the cap, and each place comes back.

use super::explore_orders;
use policies::InFlight;

fn holding(count: u32) -> InFlight {
    let in_flight = InFlight::new();
    for _ in 0..count {
        in_flight.enter_anyway();
    }
    in_flight
}

#[test]
fn the_last_place_is_given_once() {
    explore_orders::<InFlight, _>(
        "in flight: three enter where two may",
        InFlight::new,
        &[|f| f.enter(2), |f| f.enter(2), |f| f.enter(2)],
        |f| Ok(f.count()),
    );
}

#[test]
fn a_place_that_comes_back_is_found() {
    explore_orders::<InFlight, _>(
        "in flight: one leaves a full house beside two that enter",
        || holding(2),
        &[
            |f| {
                f.leave();
                Ok(0)
            },
            |f| f.enter(2),
            |f| f.enter(2),
        ],
        |f| Ok(f.count()),
    );
}

#[test]
fn one_that_comes_in_anyway_takes_no_ones_place_twice() {
    explore_orders::<InFlight, _>(
        "in flight: one comes in anyway beside one that enters and one that leaves",
        || holding(1),
        &[
            |f| Ok(f.enter_anyway()),
            |f| f.enter(2),
            |f| {
                f.leave();
                Ok(0)
            },
        ],
        |f| Ok(f.count()),
    );
}

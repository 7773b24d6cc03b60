//! Checks work that ends on several threads at once: all of it has to be paid for, and paying starts at the right time.

use super::{at, explore_orders};
use policies::{Ratio, Share, TimeShare};
use std::time::Duration;

fn spend(done: &TimeShare, work: Duration) -> Result<(), Duration> {
    let half = Share::new(Ratio::from_millionths(500_000).unwrap(), 1).unwrap();
    done.spend(half, at(10), work);
    Ok(())
}

#[test]
fn no_piece_of_work_is_lost() {
    explore_orders::<TimeShare, _>(
        "time share: three pieces of work end at once",
        TimeShare::default,
        &[
            |done| spend(done, Duration::from_millis(1)),
            |done| spend(done, Duration::from_millis(2)),
            |done| spend(done, Duration::from_millis(4)),
        ],
        |done| Err(done.backlog(at(10))),
    );
}

#[test]
fn who_begins_beside_it_sees_it_or_not() {
    explore_orders::<TimeShare, _>(
        "time share: one begins while another's work ends",
        TimeShare::default,
        &[
            |done| spend(done, Duration::from_millis(5)),
            |done| done.begin(at(10), Duration::from_millis(4)),
        ],
        |done| Err(done.backlog(at(10))),
    );
}

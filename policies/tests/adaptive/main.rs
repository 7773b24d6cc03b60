//! Checks on a simulated backend that the limit settles where the backend is busy and little waits in it.

mod backend;

use backend::{Backend, Limit, adaptive};

fn answered(seconds: &[u32]) -> f64 {
    f64::from(seconds.iter().sum::<u32>()) / seconds.len() as f64
}

/// Runs a backend of 8 places, 20 ms each, for five minutes at this multiple of its capacity.
fn eight_places(limit: Limit, load: f64, is_exponential: bool, seed: u64) -> Backend {
    let mut backend = Backend::new(8, 20.0, limit, seed);
    backend.rate = backend.capacity() * load;
    backend.is_exponential = is_exponential;
    backend.run(300);
    backend
}

#[test]
fn it_settles_at_the_places_of_the_backend() {
    for (load, is_exponential, seed) in [
        (3.0, true, 11),
        (3.0, true, 12),
        (2.0, true, 16),
        (3.0, true, 1),
        (3.0, false, 2),
        (1.5, true, 3),
        (1.5, false, 4),
        (10.0, true, 5),
    ] {
        let adaptive = eight_places(adaptive(4, 200), load, is_exponential, seed);
        let fixed = eight_places(Limit::Fixed(12), load, is_exponential, seed);
        let settled = &adaptive.limits[20..];
        assert!(
            settled.iter().all(|limit| (8..=16).contains(limit)),
            "{load} {is_exponential}: {settled:?}"
        );
        let (mine, its) = (answered(&adaptive.answered[1..]), answered(&fixed.answered[1..]));
        assert!(mine >= 0.95 * its, "{load} {is_exponential}: {mine} of {its}");
        // No second is much worse than the others, so there is no periodic dip.
        let worst = *adaptive.answered[20..].iter().min().unwrap();
        let its_worst = *fixed.answered[20..].iter().min().unwrap();
        assert!(f64::from(worst) >= 0.95 * f64::from(its_worst), "{worst} {its_worst}");
    }
}

#[test]
fn it_grows_only_while_it_is_used() {
    let backend = eight_places(adaptive(4, 200), 0.3, true, 6);
    assert!(backend.limits.iter().all(|limit| *limit == 20), "{:?}", backend.limits);
    assert_eq!(backend.refused, 0);
}

#[test]
fn it_follows_the_backend() {
    let mut backend = Backend::new(8, 20.0, adaptive(4, 400), 7);
    let mut phase = |places: usize, mean: f64, expected: std::ops::RangeInclusive<u32>| {
        (backend.places, backend.mean) = (places, mean);
        backend.rate = 2.0 * backend.capacity();
        // A slow backend gives few results in a minute.
        backend.run(if mean > 100.0 { 150 } else { 60 });
        let (limits, rates) = (backend.limits.as_slice(), backend.answered.as_slice());
        let last = limits.len() - 15;
        assert!(
            limits[last..].iter().all(|limit| expected.contains(limit)),
            "{places} {mean}: {:?}",
            &limits[last..]
        );
        let rate = answered(&rates[last..]);
        assert!(rate > 0.93 * backend.capacity(), "{places} {mean}: {rate}");
    };
    phase(8, 20.0, 8..=16);
    phase(100, 20.0, 100..=125);
    phase(8, 20.0, 8..=16);
    // Slower by itself: fewer calls would not be faster.
    phase(8, 60.0, 8..=16);
    phase(8, 200.0, 8..=16);
    phase(8, 20.0, 8..=18);
    phase(4, 20.0, 4..=12);
    phase(200, 5.0, 200..=240);
}

/// The throughput changes by chance as much as by the limit. A wrong answer is possible, but it is rare.
#[test]
fn a_backend_of_changing_speed_rarely_misleads_it() {
    let mut misled = 0;
    for seed in 0..30 {
        let mut backend = Backend::new(8, 20.0, adaptive(4, 200), seed);
        backend.rate = 1.5 * backend.capacity();
        (backend.is_exponential, backend.sway) = (false, 0.8);
        backend.run(120);
        let last = backend.limit();
        assert!((8..=64).contains(&last), "{seed}: {last}");
        misled += u32::from(last > 20);
    }
    assert!(misled <= 5, "{misled} of 30");
}

#[test]
fn it_stays_within_its_bounds() {
    let backend = eight_places(adaptive(10, 11), 3.0, true, 8);
    assert!(backend.limits.iter().all(|limit| (10..=11).contains(limit)));
    let backend = eight_places(adaptive(3, 3), 3.0, true, 9);
    assert!(backend.limits.iter().all(|limit| *limit == 3));
}

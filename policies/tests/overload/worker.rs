//! Simulates one worker that serves requests in order of arrival, in virtual time, with one seed.

use policies::Moment;
use policies::overload::{Admission, OverloadGuard, OverloadSettings};
use std::collections::VecDeque;
use std::time::Duration;

/// Time to refuse a request, as a part of the time to serve one.
const REFUSAL: f64 = 0.02;
/// Seconds between two ticks.
const TICK: f64 = 0.02;

/// Requests by tier, the cheapest first.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) served: [u32; 4],
    pub(crate) refused: [u32; 4],
    /// Seconds spent on requests that were served.
    worked: f64,
    /// Seconds in all.
    time: f64,
}

enum Job {
    Tick(f64),
    Request(usize),
}

pub(crate) struct Worker {
    /// Requests that come, as a multiple of those that can be served.
    pub(crate) load: f64,
    pub(crate) counts: Counts,
    mix: [f64; 4],
    /// Mean seconds to serve a request.
    service: f64,
    admission: Admission,
    guard: OverloadGuard,
    waiting: VecDeque<Job>,
    now: f64,
    next_request: f64,
    /// Infinite while a tick waits.
    next_tick: f64,
    random: u64,
}

impl Worker {
    pub(crate) fn new(mix: [f64; 4], service: f64, seed: u64) -> Worker {
        let settings = OverloadSettings {
            delay: Duration::from_millis(20),
            period: Duration::from_millis(100),
        };
        Worker {
            load: 1.0,
            counts: Counts::default(),
            mix,
            service,
            admission: Admission::default(),
            guard: OverloadGuard::new(settings, Moment::ZERO),
            waiting: VecDeque::new(),
            now: 0.0,
            next_request: 0.0,
            next_tick: TICK,
            random: seed,
        }
    }

    pub(crate) fn run(&mut self, seconds: f64) {
        let begun = self.now;
        while self.now < begun + seconds {
            self.arrive();
            match self.waiting.pop_front() {
                None => self.now = self.next_request.min(self.next_tick),
                Some(Job::Tick(due)) => {
                    let (delay, now) = (self.now - due, Moment::ZERO + Duration::from_secs_f64(self.now));
                    self.guard.tick(Duration::from_secs_f64(delay), now, &self.admission);
                    self.next_tick = self.now + TICK;
                }
                Some(Job::Request(tier)) => {
                    let chance = self.next_fraction();
                    if self.admission.admits(tier, chance) {
                        let time = self.exponential(self.service);
                        self.now += time;
                        self.counts.worked += time;
                        self.counts.served[tier] += 1;
                    } else {
                        self.now += self.service * REFUSAL;
                        self.counts.refused[tier] += 1;
                    }
                }
            }
        }
        self.counts.time += self.now - begun;
    }

    /// Lets wait what has become ready by now, in order.
    fn arrive(&mut self) {
        while self.next_request.min(self.next_tick) <= self.now {
            if self.next_tick < self.next_request {
                self.waiting.push_back(Job::Tick(self.next_tick));
                self.next_tick = f64::INFINITY;
            } else {
                let mut chance = self.next_fraction();
                let tier = self.mix.iter().position(|share| {
                    chance -= share;
                    chance < 0.0
                });
                self.waiting.push_back(Job::Request(tier.unwrap_or(0)));
                self.next_request += self.exponential(self.service / self.load);
            }
        }
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.next_fraction()).ln()
    }

    fn next_fraction(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.random;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl Counts {
    /// Returns the share of each tier's requests that were served.
    pub(crate) fn served_shares(&self) -> [f64; 4] {
        let share = |tier: usize| {
            let served = f64::from(self.served[tier]);
            served / (served + f64::from(self.refused[tier])).max(1.0)
        };
        [0, 1, 2, 3].map(share)
    }

    pub(crate) fn share_of_refusals(&self, tier: usize) -> f64 {
        f64::from(self.refused[tier]) / f64::from(self.refused.iter().sum::<u32>()).max(1.0)
    }

    /// Returns the share of the time that went into requests that were served.
    pub(crate) fn busy_with_answers(&self) -> f64 {
        self.worked / self.time
    }
}

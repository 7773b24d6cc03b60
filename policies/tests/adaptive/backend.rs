//! Simulates a gateway in front of a backend with a fixed number of places, in virtual time, with one seed.

use policies::Moment;
use policies::adaptive_limit::{AdaptiveLimit, AdaptiveSettings};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::num::NonZeroU32;
use std::time::Duration;

/// Limit that the gateway keeps.
pub(crate) enum Limit {
    Fixed(u32),
    Adaptive(AdaptiveLimit),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive,
    /// The backend has worked on the call that came at this moment.
    Done(Moment),
}

pub(crate) struct Backend {
    /// Calls that the backend works on at once; the others wait there.
    pub(crate) places: usize,
    /// Mean time to work on a call, in milliseconds.
    pub(crate) mean: f64,
    /// Calls a second.
    pub(crate) rate: f64,
    pub(crate) is_exponential: bool,
    /// Most by which the backend becomes slower for a while, by chance, as a part of its time.
    pub(crate) sway: f64,
    /// Calls answered in each second so far.
    pub(crate) answered: Vec<u32>,
    pub(crate) refused: u32,
    /// Limit at the end of each second so far.
    pub(crate) limits: Vec<u32>,
    limit: Limit,
    waiting_here: VecDeque<Moment>,
    in_flight: u32,
    busy: usize,
    waiting_there: VecDeque<Moment>,
    events: BinaryHeap<Reverse<(Moment, u64, Event)>>,
    number: u64,
    now: Moment,
    random: u64,
    slower: f64,
    sways_at: Moment,
}

/// Places in the queue of the gateway.
const QUEUE: usize = 50;

pub(crate) fn adaptive(from: u32, to: u32) -> Limit {
    let number = |number| NonZeroU32::new(number).unwrap();
    let settings = AdaptiveSettings {
        from: number(from),
        to: number(to),
    };
    Limit::Adaptive(AdaptiveLimit::new(settings, Moment::ZERO))
}

impl Backend {
    pub(crate) fn new(places: usize, mean: f64, limit: Limit, seed: u64) -> Backend {
        let mut backend = Backend {
            places,
            mean,
            rate: 0.0,
            is_exponential: true,
            sway: 0.0,
            slower: 0.0,
            sways_at: Moment::ZERO,
            answered: vec![],
            refused: 0,
            limits: vec![],
            limit,
            waiting_here: VecDeque::new(),
            in_flight: 0,
            busy: 0,
            waiting_there: VecDeque::new(),
            events: BinaryHeap::new(),
            number: 0,
            now: Moment::ZERO,
            random: seed,
        };
        backend.after(0.0, Event::Arrive);
        backend
    }

    /// Returns the calls a second that it can answer.
    pub(crate) fn capacity(&self) -> f64 {
        self.places as f64 * 1_000.0 / self.mean
    }

    pub(crate) fn run(&mut self, seconds: usize) {
        for _ in 0..seconds {
            let end = self.now + Duration::from_secs(1);
            self.answered.push(0);
            while let Some(Reverse((at, _, event))) = self.events.pop() {
                if at > end {
                    self.events.push(Reverse((at, 0, event)));
                    break;
                }
                self.now = at;
                match event {
                    Event::Arrive => self.arrive(),
                    Event::Done(began) => self.done(began),
                }
            }
            self.now = end;
            self.limits.push(self.limit());
        }
    }

    pub(crate) fn limit(&self) -> u32 {
        match &self.limit {
            Limit::Fixed(limit) => *limit,
            Limit::Adaptive(limit) => limit.limit().get(),
        }
    }

    fn arrive(&mut self) {
        let pause = self.exponential(1_000.0 / self.rate);
        self.after(pause, Event::Arrive);
        if self.waiting_here.len() < QUEUE {
            self.waiting_here.push_back(self.now);
            self.start();
        } else {
            self.refused += 1;
        }
    }

    /// Sends calls to the backend, as many as the limit allows.
    fn start(&mut self) {
        while self.in_flight < self.limit() && self.waiting_here.pop_front().is_some() {
            self.in_flight += 1;
            if self.busy < self.places {
                self.work(self.now);
            } else {
                self.waiting_there.push_back(self.now);
            }
        }
    }

    fn work(&mut self, began: Moment) {
        self.busy += 1;
        if self.sway > 0.0 && self.now > self.sways_at {
            self.slower = self.sway * self.next_fraction();
            self.sways_at = self.now + Duration::from_millis(700);
        }
        let time = if self.is_exponential {
            self.exponential(self.mean)
        } else {
            self.mean * (0.9 + 0.2 * self.next_fraction())
        };
        self.after(time * (1.0 + self.slower), Event::Done(began));
    }

    fn done(&mut self, began: Moment) {
        self.busy -= 1;
        if let Limit::Adaptive(limit) = &self.limit {
            let is_used = self.in_flight >= limit.limit().get();
            limit.record(self.now.since(began), self.in_flight, is_used, self.now);
        }
        self.in_flight -= 1;
        *self.answered.last_mut().unwrap() += 1;
        // There may be fewer places than before.
        if self.busy < self.places
            && let Some(next) = self.waiting_there.pop_front()
        {
            self.work(next);
        }
        self.start();
    }

    fn after(&mut self, milliseconds: f64, event: Event) {
        self.number += 1;
        let at = self.now + Duration::from_nanos((milliseconds * 1e6) as u64);
        self.events.push(Reverse((at, self.number, event)));
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

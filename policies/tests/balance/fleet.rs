//! Simulates gateways in front of a fleet of endpoints in virtual time, with every random number from one seed.

use policies::Moment;
use policies::balance::endpoint_load::Answer;
use policies::balance::{Candidate, EndpointLoad, LoadSettings, Turns, load};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

const MILLISECOND: u64 = 1_000_000;

/// How an endpoint behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Behaviour {
    /// Calls that it works on at once; the others wait in line.
    pub(crate) servers: usize,
    /// Mean time to work on a call, in milliseconds.
    pub(crate) mean: f64,
    /// Whether the time to work on a call is spread exponentially. Otherwise it varies by a tenth.
    pub(crate) exponential: bool,
    /// Share of the calls that fail after `fails_after` milliseconds, without being worked on.
    pub(crate) fails: f64,
    pub(crate) fails_after: f64,
    /// Whether calls are accepted and never answered.
    pub(crate) is_silent: bool,
}

/// Where the calls come from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Calls {
    /// Each caller has one call at a time, and makes the next at once.
    Callers(usize),
    /// So many a second, at random instants.
    PerSecond(f64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    Turn,
    Load,
    /// The fewest calls in flight, all endpoints looked at, as in HAProxy's `leastconn`. For comparison.
    FewestInFlight,
}

/// One call that is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    pub(crate) at: Moment,
    pub(crate) endpoint: usize,
    pub(crate) took: Duration,
    pub(crate) failed: bool,
}

/// Gateway with its own view of the endpoints.
struct Gateway {
    loads: Vec<EndpointLoad>,
    turns: Turns,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive,
    /// The call of this number is answered.
    Answer(usize),
    GiveUp(usize),
}

#[derive(Clone, Copy)]
struct Call {
    gateway: usize,
    endpoint: usize,
    began: Moment,
    failed: bool,
    is_over: bool,
}

pub(crate) struct Fleet {
    pub(crate) behaviours: Vec<Behaviour>,
    pub(crate) done: Vec<Done>,
    pub(crate) settings: LoadSettings,
    /// Highest number of calls in flight at each endpoint since it was last cleared.
    pub(crate) peaks: Vec<usize>,
    policy: Policy,
    calls_from: Calls,
    gateways: Vec<Gateway>,
    busy: Vec<usize>,
    lines: Vec<VecDeque<usize>>,
    in_flight: Vec<usize>,
    calls: Vec<Call>,
    events: BinaryHeap<Reverse<(Moment, usize, Event)>>,
    number: usize,
    now: Moment,
    random: u64,
}

/// Longest that a caller waits for an answer.
const PATIENCE: Duration = Duration::from_secs(1);

impl Fleet {
    pub(crate) fn new(
        behaviours: Vec<Behaviour>,
        gateways: usize,
        policy: Policy,
        calls_from: Calls,
        seed: u64,
    ) -> Fleet {
        let count = behaviours.len();
        let gateway = |number: usize| Gateway {
            loads: (0..count).map(|_| EndpointLoad::default()).collect(),
            turns: Turns::new(&vec![1; count], number as u64 * 5),
        };
        let mut fleet = Fleet {
            behaviours,
            done: vec![],
            settings: LoadSettings::default(),
            peaks: vec![0; count],
            policy,
            calls_from,
            gateways: (0..gateways).map(gateway).collect(),
            busy: vec![0; count],
            lines: vec![VecDeque::new(); count],
            in_flight: vec![0; count],
            calls: vec![],
            events: BinaryHeap::new(),
            number: 0,
            now: Moment::from_nanos(5_000 * MILLISECOND),
            random: seed,
        };
        match calls_from {
            // They do not begin all at the same instant.
            Calls::Callers(callers) => (0..callers).for_each(|number| {
                fleet.after(Duration::from_micros(100 * number as u64), Event::Arrive);
            }),
            Calls::PerSecond(_) => fleet.after(Duration::ZERO, Event::Arrive),
        }
        fleet
    }

    /// Runs until this time has passed.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(Reverse((at, ..))) = self.events.peek().copied()
            && at <= end
        {
            let Some(Reverse((at, _, event))) = self.events.pop() else {
                break;
            };
            self.now = at;
            match event {
                Event::Arrive => self.arrive(),
                Event::Answer(call) => self.answer(call),
                Event::GiveUp(call) => self.give_up(call),
            }
        }
        self.now = end;
    }

    /// Returns the calls that ended in the last `time`.
    pub(crate) fn last(&self, time: Duration) -> impl Iterator<Item = &Done> {
        let from = self.now.saturating_sub(time);
        self.done.iter().filter(move |done| done.at > from)
    }

    fn arrive(&mut self) {
        if let Calls::PerSecond(rate) = self.calls_from {
            let pause = self.exponential(1_000.0 / rate);
            self.after(pause, Event::Arrive);
        }
        let gateway = (self.next_random() % self.gateways.len() as u64) as usize;
        let random = self.next_random();
        let endpoint = self.choose(gateway, random);
        self.gateways[gateway].loads[endpoint].begin(self.now);
        self.in_flight[endpoint] += 1;
        self.peaks[endpoint] = self.peaks[endpoint].max(self.in_flight[endpoint]);
        let behaviour = self.behaviours[endpoint];
        let failed = self.next_fraction() < behaviour.fails;
        let call = self.calls.len();
        self.calls.push(Call {
            gateway,
            endpoint,
            began: self.now,
            failed,
            is_over: false,
        });
        if failed {
            self.after(milliseconds(behaviour.fails_after), Event::Answer(call));
        } else if behaviour.is_silent {
            self.after(PATIENCE, Event::GiveUp(call));
        } else if self.busy[endpoint] < behaviour.servers {
            self.work(endpoint, call);
        } else {
            self.lines[endpoint].push_back(call);
        }
    }

    fn choose(&self, gateway: usize, random: u64) -> usize {
        let Gateway { loads, turns } = &self.gateways[gateway];
        let candidate = |index: usize| -> Candidate { loads[index].candidate(1, 0, &self.settings, self.now) };
        let choice = match self.policy {
            Policy::Turn => turns.choose(loads.len(), candidate, random),
            Policy::Load => load::choose(
                loads.len(),
                candidate,
                |index| loads[index].take_floor(self.now),
                random,
            ),
            Policy::FewestInFlight => {
                let from = random as usize % loads.len();
                (0..loads.len())
                    .map(|offset| (from + offset) % loads.len())
                    .min_by_key(|index| loads[*index].in_flight())
            }
        };
        choice.expect("all endpoints are up")
    }

    fn work(&mut self, endpoint: usize, call: usize) {
        self.busy[endpoint] += 1;
        let behaviour = self.behaviours[endpoint];
        let time = if behaviour.exponential {
            self.exponential(behaviour.mean)
        } else {
            milliseconds(behaviour.mean * (0.9 + 0.2 * self.next_fraction()))
        };
        self.after(time, Event::Answer(call));
    }

    fn answer(&mut self, number: usize) {
        let call = self.calls[number];
        if !call.failed {
            self.busy[call.endpoint] -= 1;
            if let Some(next) = self.lines[call.endpoint].pop_front() {
                self.work(call.endpoint, next);
            }
        }
        self.end(number, call.failed);
    }

    fn give_up(&mut self, number: usize) {
        if !self.calls[number].is_over {
            self.end(number, true);
        }
    }

    fn end(&mut self, number: usize, failed: bool) {
        self.calls[number].is_over = true;
        let Call {
            gateway,
            endpoint,
            began,
            ..
        } = self.calls[number];
        let took = self.now.since(began);
        let load = &self.gateways[gateway].loads[endpoint];
        load.answer(
            Answer {
                took,
                failed,
                retry_after: None,
            },
            &self.settings,
            self.now,
        );
        load.end();
        self.in_flight[endpoint] -= 1;
        self.done.push(Done {
            at: self.now,
            endpoint,
            took,
            failed,
        });
        if let Calls::Callers(_) = self.calls_from {
            self.after(Duration::ZERO, Event::Arrive);
        }
    }

    fn after(&mut self, time: Duration, event: Event) {
        self.number += 1;
        self.events.push(Reverse((self.now + time, self.number, event)));
    }

    fn exponential(&mut self, mean: f64) -> Duration {
        milliseconds(-mean * (1.0 - self.next_fraction()).ln())
    }

    fn next_fraction(&mut self) -> f64 {
        (self.next_random() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.random;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}

fn milliseconds(milliseconds: f64) -> Duration {
    Duration::from_nanos((milliseconds * MILLISECOND as f64) as u64)
}

//! Simulates a backend behind a bulkhead and the tenants that call it, as discrete events on a virtual clock.
//!
//! Each tenant draws its arrivals and the length of its calls from its own seed, so they do not depend on the other
//! tenants. After every event the simulation asserts what no caller may ever see.

use policies::bulkhead::{Entrant, Entry, Signal, Slot, Ticket, Unserved};
use policies::{Bulkhead, Moment, Ratio};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Backend {
    pub(crate) limit: u32,
    pub(crate) queue: u32,
    pub(crate) tenant_share: f64,
    /// Average length of a call.
    pub(crate) service: Duration,
    /// Average time from the signal of a waiter until it claims its slot.
    pub(crate) wakes_after: Duration,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Tenant {
    pub(crate) id: u64,
    pub(crate) tier: u32,
    pub(crate) weight: u32,
    /// Average time between two arrivals.
    pub(crate) every: Duration,
    /// Longest wait of each call.
    pub(crate) patience: Duration,
    /// Whether its callers watch their own deadline, or leave that to the bulkhead.
    pub(crate) watches_the_clock: bool,
}

/// Outcomes of the calls of one tenant.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fates {
    pub(crate) entered: u64,
    pub(crate) served: u64,
    pub(crate) full: u64,
    pub(crate) timed_out: u64,
    /// Times from the arrival to the end of each call that was served.
    pub(crate) times: Vec<Duration>,
}

impl Fates {
    pub(crate) fn mean(&self) -> f64 {
        let total: Duration = self.times.iter().sum();
        total.as_secs_f64() / self.times.len() as f64
    }

    pub(crate) fn p99(&self) -> f64 {
        let mut times = self.times.clone();
        times.sort_unstable();
        times[times.len() * 99 / 100].as_secs_f64()
    }
}

/// Runs the tenants for this time, then lets all calls end. Returns the outcomes of the calls that arrived in that
/// time.
pub(crate) fn run(backend: Backend, tenants: &[Tenant], long: Duration, seed: u64) -> Vec<Fates> {
    let mut simulation = Simulation::new(backend, tenants, Moment::ZERO + long, seed);
    for tenant in 0..tenants.len() {
        simulation.expect_arrival(tenant);
    }
    while let Some(Reverse((now, _, event))) = simulation.events.pop() {
        simulation.now = now;
        simulation.meet(event);
        simulation.check();
    }
    simulation.finish()
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn exponential(&mut self, mean: Duration) -> Duration {
        let above_zero = (self.next() >> 11) as f64 + 1.0;
        mean.mul_f64(-(above_zero / (1u64 << 53) as f64).ln())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Ends(usize),
    Wakes(usize),
    LosesPatience(usize),
    Arrives(usize),
}

struct Call {
    tenant: usize,
    came: Moment,
    takes: Duration,
    deadline: Moment,
    ticket: Option<Ticket<Bell>>,
    slot: Option<Slot<Bell>>,
}

/// Signal that notes which call was signalled.
struct Bell(usize, Arc<Mutex<Vec<usize>>>);

impl Signal for Bell {
    fn signal(self) {
        self.1.lock().unwrap().push(self.0);
    }
}

struct Simulation<'a> {
    backend: Backend,
    tenants: &'a [Tenant],
    bulkhead: Arc<Bulkhead<Bell>>,
    end: Moment,
    now: Moment,
    /// Events with a number that orders events at the same moment.
    events: BinaryHeap<Reverse<(Moment, u64, Event)>>,
    numbers: u64,
    calls: Vec<Call>,
    rung: Arc<Mutex<Vec<usize>>>,
    arrivals: Vec<Chance>,
    services: Vec<Chance>,
    wakes: Chance,
    fates: Vec<Fates>,
    running: Vec<u32>,
}

impl<'a> Simulation<'a> {
    fn new(backend: Backend, tenants: &'a [Tenant], end: Moment, seed: u64) -> Simulation<'a> {
        let bulkhead = Bulkhead::new(NonZeroU32::new(backend.limit).unwrap(), backend.queue);
        let share = Ratio::new(backend.tenant_share).unwrap();
        let chance = |kind: u64| move |tenant: &Tenant| Chance(seed ^ tenant.id << 8 ^ kind << 4);
        Simulation {
            backend,
            tenants,
            bulkhead: Arc::new(bulkhead.with_tenant_share(share)),
            end,
            now: Moment::ZERO,
            events: BinaryHeap::new(),
            numbers: 0,
            calls: vec![],
            rung: Arc::default(),
            arrivals: tenants.iter().map(chance(1)).collect(),
            services: tenants.iter().map(chance(2)).collect(),
            wakes: Chance(seed),
            fates: vec![Fates::default(); tenants.len()],
            running: vec![0; tenants.len()],
        }
    }

    fn expect(&mut self, after: Duration, event: Event) {
        self.numbers += 1;
        self.events.push(Reverse((self.now + after, self.numbers, event)));
    }

    fn expect_arrival(&mut self, tenant: usize) {
        let after = self.arrivals[tenant].exponential(self.tenants[tenant].every);
        if self.now + after <= self.end {
            self.expect(after, Event::Arrives(tenant));
        }
    }

    fn meet(&mut self, event: Event) {
        match event {
            Event::Arrives(tenant) => {
                self.enter(tenant);
                self.expect_arrival(tenant);
            }
            Event::Ends(call) => {
                let Call { tenant, came, .. } = self.calls[call];
                self.running[tenant] -= 1;
                self.fates[tenant].times.push(self.now.since(came));
                let slot = self.calls[call].slot.take().expect("who ends has run");
                slot.release(self.now);
            }
            Event::Wakes(call) | Event::LosesPatience(call) => self.claim(call),
        }
        let rung = std::mem::take(&mut *self.rung.lock().unwrap());
        for call in rung {
            let after = self.wakes.exponential(self.backend.wakes_after);
            self.expect(after, Event::Wakes(call));
        }
    }

    fn enter(&mut self, tenant: usize) {
        let Tenant {
            id,
            tier,
            weight,
            patience,
            watches_the_clock,
            ..
        } = self.tenants[tenant];
        let (call, deadline) = (self.calls.len(), self.now + patience);
        let entrant = Entrant {
            tenant: id,
            tier,
            weight,
            deadline,
        };
        let rung = Arc::clone(&self.rung);
        let entry = self.bulkhead.enter(self.now, entrant, || Bell(call, rung));
        self.fates[tenant].entered += 1;
        self.calls.push(Call {
            tenant,
            came: self.now,
            takes: self.services[tenant].exponential(self.backend.service),
            deadline,
            ticket: None,
            slot: None,
        });
        match entry {
            Entry::Admitted(slot) => self.start(call, slot),
            Entry::Full => self.fates[tenant].full += 1,
            Entry::Queued(ticket) => {
                self.calls[call].ticket = Some(ticket);
                if watches_the_clock {
                    self.expect(patience, Event::LosesPatience(call));
                }
            }
        }
    }

    /// Claims after the signal or at the deadline, whichever comes first.
    fn claim(&mut self, call: usize) {
        let Some(ticket) = self.calls[call].ticket.take() else {
            return;
        };
        let tenant = self.calls[call].tenant;
        match ticket.claim(self.now) {
            Ok(slot) => self.start(call, slot),
            Err(Unserved::Displaced) => self.fates[tenant].full += 1,
            Err(Unserved::TimedOut) => self.fates[tenant].timed_out += 1,
        }
    }

    fn start(&mut self, call: usize, slot: Slot<Bell>) {
        let Call {
            tenant,
            takes,
            deadline,
            ..
        } = self.calls[call];
        assert!(self.now <= deadline, "served after its deadline");
        self.calls[call].slot = Some(slot);
        self.fates[tenant].served += 1;
        self.running[tenant] += 1;
        self.expect(takes, Event::Ends(call));
    }

    fn check(&self) {
        let (in_use, waiting) = (self.bulkhead.in_use(), self.bulkhead.waiting());
        assert!(in_use <= self.backend.limit && waiting <= self.backend.queue);
        match self.bulkhead.tenant_cap() {
            Some(cap) => assert!(self.running.iter().all(|running| *running <= cap.get())),
            None => assert!(
                waiting == 0 || in_use == self.backend.limit,
                "a slot is idle while someone waits"
            ),
        }
        let running: u32 = self.running.iter().sum();
        assert!(running <= in_use);
        if self.backend.wakes_after.is_zero() && self.events.peek().is_none_or(|next| next.0.0 > self.now) {
            assert_eq!(running, in_use, "a slot is held by no call");
        }
    }

    fn finish(self) -> Vec<Fates> {
        assert_eq!((self.bulkhead.in_use(), self.bulkhead.waiting()), (0, 0));
        let outcomes = self.bulkhead.outcomes();
        let sum = |of: fn(&Fates) -> u64| self.fates.iter().map(of).sum::<u64>();
        assert_eq!(outcomes.admitted, sum(|fates| fates.served));
        assert_eq!(outcomes.full, sum(|fates| fates.full));
        assert_eq!(outcomes.timed_out, sum(|fates| fates.timed_out));
        assert_eq!(outcomes.left, 0);
        for fates in &self.fates {
            assert_eq!(fates.entered, fates.served + fates.full + fates.timed_out);
        }
        self.fates
    }
}

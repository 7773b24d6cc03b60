//! Explores the protocol by which replicas share the slots of a cap.

use super::scaled;
use policies::lease::{CentralSlots, HeldSlots, SlotLease, SlotReply, SlotRequest};
use policies::{Moment, WallTime};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

const HEARTBEAT: Duration = Duration::from_secs(1);
const CAP: u32 = 2;

/// How much may happen in one run.
#[derive(Clone, Copy, Hash)]
struct Chances {
    ticks: u32,
    /// Heartbeats of each replica.
    heartbeats: u8,
    /// Messages that are delivered once more than they were sent.
    copies: u8,
    /// Replicas that are killed and started again.
    crashes: u8,
}

#[derive(Clone)]
struct World {
    tick: u32,
    store: CentralSlots,
    replicas: Vec<Replica>,
    requests: Vec<SlotRequest>,
    replies: Vec<(u64, SlotReply)>,
    chances: Chances,
    names: u64,
}

#[derive(Clone, Debug)]
struct Replica {
    name: u64,
    lease: SlotLease,
    slots: HeldSlots,
    in_flight: u32,
    heartbeats: u8,
}

impl Replica {
    fn new(name: u64, heartbeats: u8) -> Replica {
        Replica {
            name,
            lease: SlotLease::new(name, HEARTBEAT),
            slots: HeldSlots::new(),
            in_flight: 0,
            heartbeats,
        }
    }
}

impl World {
    fn now(&self) -> Moment {
        Moment::ZERO + HEARTBEAT * self.tick
    }

    fn wall(&self) -> WallTime {
        WallTime::since_epoch(HEARTBEAT * (1_000 + self.tick))
    }

    /// Returns the sum of the caps of all replicas.
    fn caps(&self) -> u32 {
        self.replicas.iter().map(|replica| replica.slots.cap(self.now())).sum()
    }

    /// Returns a hash of all that differs between two states.
    fn key(&self) -> u64 {
        let (mut requests, mut replies) = (self.requests.clone(), self.replies.clone());
        requests.sort_unstable();
        replies.sort_unstable();
        let mut hasher = DefaultHasher::new();
        (self.tick, &self.store, self.chances, self.names, requests, replies).hash(&mut hasher);
        for replica in &self.replicas {
            (&replica.lease, format!("{:?}", replica.slots)).hash(&mut hasher);
            (replica.in_flight, replica.heartbeats).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Returns all states that can come next.
    fn next(&self) -> Vec<World> {
        let mut worlds = vec![];
        let mut add = |change: &dyn Fn(&mut World)| {
            let mut world = self.clone();
            change(&mut world);
            worlds.push(world);
        };
        if self.tick < self.chances.ticks {
            add(&|world| world.tick += 1);
        }
        for (index, replica) in self.replicas.iter().enumerate() {
            if replica.in_flight < replica.slots.cap(self.now()) {
                add(&|world| world.replicas[index].in_flight += 1);
            }
            if replica.in_flight > 0 {
                add(&|world| world.replicas[index].in_flight -= 1);
            }
            if replica.heartbeats > 0 {
                for spare in [0, 2] {
                    add(&|world| {
                        let now = world.now();
                        let replica = &mut world.replicas[index];
                        replica.heartbeats -= 1;
                        let request = replica.lease.request(&replica.slots, now, replica.in_flight, spare);
                        world.requests.push(request);
                    });
                }
            }
        }
        for index in 0..self.requests.len() {
            for copy in [false, true] {
                if copy && self.chances.copies == 0 {
                    continue;
                }
                add(&|world| {
                    let request = world.requests[index];
                    world.receive(copy, |world| _ = world.requests.remove(index));
                    if let Some(reply) = world.store.execute(world.wall(), &request) {
                        world.replies.push((request.replica, reply));
                    }
                });
            }
        }
        for index in 0..self.replies.len() {
            for copy in [false, true] {
                if copy && self.chances.copies == 0 {
                    continue;
                }
                add(&|world| {
                    let (name, reply) = world.replies[index];
                    world.receive(copy, |world| _ = world.replies.remove(index));
                    if let Some(replica) = world.replicas.iter_mut().find(|replica| replica.name == name) {
                        replica.lease.apply(&replica.slots, &reply);
                    }
                });
            }
        }
        if self.chances.crashes > 0 {
            add(&|world| {
                world.replicas[0] = Replica::new(world.names, world.chances.heartbeats);
                world.chances.crashes -= 1;
                world.names += 1;
            });
        }
        worlds
    }

    /// Drops the answers that no replica awaits.
    fn drop_answers(&mut self) {
        let replicas = &self.replicas;
        self.replies.retain(|(name, reply)| {
            let replica = replicas.iter().find(|replica| replica.name == *name);
            replica.is_some_and(|replica| replica.lease.clone().apply(&replica.slots.clone(), reply))
        });
    }

    fn receive(&mut self, copy: bool, remove: impl Fn(&mut World)) {
        if copy {
            self.chances.copies -= 1;
        } else {
            remove(self);
        }
    }
}

/// Checks in every state that the slots of all replicas are at most the cap; reports the number of states.
fn explore(name: &str, chances: Chances) {
    let mut open = vec![World {
        tick: 0,
        store: CentralSlots::new(CAP, HEARTBEAT),
        replicas: (0..2).map(|name| Replica::new(name, chances.heartbeats)).collect(),
        requests: vec![],
        replies: vec![],
        chances,
        names: 2,
    }];
    let mut seen = HashSet::new();
    let mut full = 0_u64;
    while let Some(world) = open.pop() {
        for mut next in world.next() {
            next.drop_answers();
            assert!(next.caps() <= CAP, "{} of {CAP}: {:?}", next.caps(), next.replicas);
            if seen.insert(next.key()) {
                full += u64::from(next.caps() == CAP);
                open.push(next);
            }
        }
    }
    assert!(full > 1_000, "the cap is reached in {full} states");
    cases::report("states", &format!("slots in flight: {name}"), seen.len() as u64);
}

#[test]
fn the_slots_of_all_replicas_are_at_most_the_cap() {
    let chances = Chances {
        ticks: scaled(2, 3),
        heartbeats: 2,
        copies: 0,
        crashes: 0,
    };
    explore("heartbeats", chances);
}

#[test]
fn the_slots_of_a_replica_that_is_killed_are_given_once() {
    let chances = Chances {
        ticks: 3,
        heartbeats: 1,
        copies: 1,
        crashes: 1,
    };
    explore("a replica is killed", chances);
}

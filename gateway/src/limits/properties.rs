//! Tests that no owner gains tokens by other owners, sweeps, reloads, restarts or refusals.

use std::time::Duration;

use policies::{CalendarQuota, Every, Moment, Quota, WallTime, WindowQuota};
use proptest::prelude::*;

use crate::limits::kinds::{Kind, Terms};
use crate::limits::owner::{Credential, Owner};
use crate::limits::store::TermsByOwner;
use crate::limits::store::local::Accounts;
use crate::limits::store::local::state_file::StateFile;
use crate::limits::*;
use crate::observe::Registry;

/// Returns the time so many milliseconds after noon of 2026-11-24.
fn at(milliseconds: u64) -> Now {
    let since = Duration::from_millis(milliseconds);
    Now {
        moment: Moment::from_nanos(1_000_000_000_000) + since,
        wall: WallTime::since_epoch(Duration::from_secs(1_795_521_600) + since),
    }
}

fn terms(kind: Kind, most: u64) -> Terms {
    match kind {
        Kind::Bucket => Terms::Bucket(Quota::new(most, Duration::from_secs(10), most).unwrap()),
        Kind::Window => Terms::Window(WindowQuota::new(most, Duration::from_secs(10)).unwrap()),
        Kind::Calendar => Terms::Calendar(CalendarQuota::new(most, Every::Minute).unwrap()),
        Kind::InFlight => Terms::InFlight(most as u32),
        other => panic!("{other:?} is counted in the store"),
    }
}

#[derive(Debug, Clone)]
enum Step {
    Take(usize, u64),
    Pass(u64),
    Sweep,
    Reload(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..OWNERS.len(), 1..4u64).prop_map(|(owner, cost)| Step::Take(owner, cost)),
        3 => (0..4_000u64).prop_map(Step::Pass),
        2 => Just(Step::Sweep),
        1 => (3..12u64).prop_map(Step::Reload),
    ];
    prop::collection::vec(step, 1..150)
}

const OWNERS: [Owner<'static>; 4] = [
    Owner::Tenant("acme"),
    Owner::Tenant("zeta"),
    Owner::Caller("acme", Credential::ApiKey, "zeta"),
    Owner::Route("acme"),
];

/// Accounts under one limit, and the terms in force.
struct World {
    accounts: Accounts,
    limits: [(Arc<str>, TermsByOwner); 1],
}

impl World {
    fn new(terms: Terms) -> Self {
        Self {
            accounts: Accounts::new(OWNERS.len()),
            limits: [("limit".into(), TermsByOwner::for_all(terms))],
        }
    }

    fn take(&self, owner: usize, cost: u64, now: Now) -> Result<Duration, Duration> {
        let [(name, terms)] = &self.limits;
        let table = self.accounts.table(name, terms);
        let account = table.account(OWNERS[owner], terms.usual, Origin::Request);
        account.take(now, cost, Duration::ZERO)
    }

    fn reload(&mut self, terms: Terms, now: Now) {
        self.limits[0].1 = TermsByOwner::for_all(terms);
        self.accounts.take_effect(&self.limits, now);
    }
}

proptest! {
    #![proptest_config(cases::counted())]

    /// Compares with a model in which each owner is alone and nothing is ever dropped.
    #[test]
    fn neither_other_owners_nor_sweeps_add_or_take_a_token(
        kind in prop_oneof![Just(Kind::Bucket), Just(Kind::Window), Just(Kind::Calendar)],
        most in 3..12u64,
        steps in steps(),
    ) {
        let mut shared = World::new(terms(kind, most));
        let mut alone: Vec<_> = OWNERS.iter().map(|_| World::new(terms(kind, most))).collect();
        let mut now = 0;
        for step in steps {
            match step {
                Step::Take(owner, cost) => {
                    prop_assert_eq!(shared.take(owner, cost, at(now)), alone[owner].take(owner, cost, at(now)));
                }
                Step::Pass(milliseconds) => now += milliseconds,
                Step::Sweep => shared.accounts.forget_idle(at(now)),
                Step::Reload(most) => {
                    for world in alone.iter_mut().chain([&mut shared]) {
                        world.reload(terms(kind, most), at(now));
                    }
                }
            }
        }
    }

    /// A reload and its undoing never leave an owner with more than it had.
    #[test]
    fn a_reload_and_its_undoing_add_nothing(
        kind in prop_oneof![Just(Kind::Bucket), Just(Kind::Window), Just(Kind::Calendar)],
        most in 3..12u64, other in 3..12u64, taken in 1..12u64,
    ) {
        let mut world = World::new(terms(kind, most));
        let _ = world.take(0, taken.min(most), at(0));
        let left = |world: &World| {
            let [(name, by_owner)] = &world.limits;
            world.accounts.table(name, by_owner).balance(OWNERS[0].key(), by_owner.usual, at(0))
        };
        let before = left(&world);
        world.reload(terms(kind, other), at(0));
        prop_assert!(left(&world) <= other);
        world.reload(terms(kind, most), at(0));
        prop_assert!(left(&world) <= before);
    }

    /// A new process goes on from what the last one has written.
    #[test]
    fn a_restart_adds_no_token(
        most in 3..12u64,
        steps in prop::collection::vec((0..OWNERS.len(), 1..4u64, 0..9_000u64, any::<bool>()), 1..30),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("counts.json");
        let (mut restarted, steady) = (World::new(terms(Kind::Calendar, most)), World::new(terms(Kind::Calendar, most)));
        let mut file = StateFile::open(&path, &restarted.accounts, &restarted.limits, at(0)).unwrap();
        let mut now = 0;
        for (owner, cost, pause, restart) in steps {
            now += pause;
            if restart {
                file.write(&restarted.accounts).unwrap();
                drop(file);
                restarted = World::new(terms(Kind::Calendar, most));
                file = StateFile::open(&path, &restarted.accounts, &restarted.limits, at(now)).unwrap();
            }
            prop_assert_eq!(restarted.take(owner, cost, at(now)), steady.take(owner, cost, at(now)));
        }
    }

    /// A told wait is a day at most, or the rest of a month for a quota, whatever the limit, the debt and the cost.
    #[test]
    fn no_wait_is_told_beyond_a_day_but_for_quotas(
        kind in 0..4usize, count in 1..50u64, period in 1..2_600_000u64, burst in 1..50u64,
        every in prop::sample::select(vec![Every::Minute, Every::Hour, Every::Day, Every::Week, Every::Month]),
        spent in 0..1_000u64, cost in prop_oneof![1..60u64, Just(u64::MAX)], began in 0..3_000_000u64, back in 0..3_000_000u64,
    ) {
        let period = Duration::from_secs(period);
        let terms = match kind {
            0 => Terms::Bucket(Quota::new(count, period, burst).unwrap()),
            1 => Terms::Window(WindowQuota::new(count, period).unwrap()),
            2 => Terms::Calendar(CalendarQuota::new(count, every).unwrap()),
            _ => Terms::InFlight(1),
        };
        let (world, registry) = (World::new(terms), Registry::default());
        let table = world.accounts.table(&world.limits[0].0, &world.limits[0].1);
        let limit = Limit {
            name: "limit".into(),
            per: Per::Tenant,
            mode: Mode::Enforce,
            cost: Some(cost),
            wait: Duration::ZERO,
            table: Arc::clone(&table),
            metrics: registry.limit("limit"),
            setting: crate::setting::SettingId::HEAD_BYTES,
            counts_units: false,
            log: Arc::default(),
        };
        let hold = Arc::new(LimitHandle::new(Arc::new(limit), OWNERS[0], terms, Origin::Written));
        hold.account.charge(at(began), spent);
        // The clock may have been set back.
        let now = at((began * 1_000).saturating_sub(back * 1_000));
        let longest = if kind == 2 { 32 * 86_400 } else { 86_400 };
        let parameter = |line: &HeaderValue| -> u64 {
            line.to_str().unwrap().rsplit(";t=").next().unwrap().parse().unwrap()
        };
        let mut told = Vec::new();
        let mut headers = FieldMap::new();
        match take(Charges::from_iter([hold.charge(1)]), now, Duration::ZERO) {
            Ok(receipt) => {
                receipt.tell(&mut headers, now);
                told.extend(headers.get("ratelimit").map(parameter));
            }
            Err(refused) => {
                let answer = crate::problem::answer(&refused, "id");
                told.push(parameter(&answer.headers()["ratelimit"]));
                told.push(answer.headers()["retry-after"].to_str().unwrap().parse().unwrap());
            }
        }
        for wait in told {
            prop_assert!((1..=longest).contains(&wait), "{wait} s of {terms:?}");
        }
    }

    #[test]
    fn a_rejected_request_changes_no_account(
        limits in prop::collection::vec((0..4usize, 3..12u64, 1..4u64), 1..5),
        steps in prop::collection::vec(0..3_000u64, 1..40),
    ) {
        let holds: Vec<_> = limits.iter().map(|&(kind, most, cost)| {
            let kind = [Kind::Bucket, Kind::Window, Kind::Calendar, Kind::InFlight][kind];
            let world = World::new(terms(kind, most));
            let table = world.accounts.table(&world.limits[0].0, &world.limits[0].1);
            let limit = Limit {
                name: "limit".into(),
                per: Per::Tenant,
                mode: Mode::Enforce,
                cost: Some(cost),
                wait: Duration::ZERO,
                table: Arc::clone(&table),
                metrics: Registry::default().limit("limit"),
                setting: crate::setting::SettingId::HEAD_BYTES,
                counts_units: false,
                log: Arc::default(),
            };
            Arc::new(LimitHandle::new(Arc::new(limit), OWNERS[0], terms(kind, most), Origin::Written))
        }).collect();
        let mut under_way = vec![];
        let mut now = 0;
        for pause in steps {
            now += pause;
            let stands = || -> Vec<_> {
                let stand = |hold: &Arc<LimitHandle>| {
                    let waits = [1, 2, 3].map(|cost| hold.account.wait_for(at(now), cost));
                    (hold.account.balance(at(now)), waits)
                };
                holds.iter().map(stand).collect()
            };
            let before = stands();
            match take(holds.iter().map(|hold| hold.charge(1)).collect(), at(now), Duration::ZERO) {
                Ok(receipt) => under_way.push(receipt),
                Err(_) => {
                    prop_assert_eq!(stands(), before);
                    under_way.pop();
                }
            }
        }
    }
}

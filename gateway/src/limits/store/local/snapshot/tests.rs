use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::limits::owner::{Credential, Owner};
use crate::limits::store::Origin;

fn at(millis: u64) -> Now {
    Now {
        moment: Moment::from_nanos((1_000_000 + millis) * 1_000_000),
        wall: WallTime::since_epoch(Duration::from_secs(1_795_521_600) + Duration::from_millis(millis)),
    }
}

fn bucket(rate: u64, burst: u64) -> TermsByOwner {
    TermsByOwner::for_all(Terms::Bucket(Quota::new(rate, Duration::from_secs(1), burst).unwrap()))
}

fn window(limit: u64) -> TermsByOwner {
    TermsByOwner::for_all(Terms::Window(WindowQuota::new(limit, Duration::from_secs(10)).unwrap()))
}

fn monthly(limit: u64) -> TermsByOwner {
    TermsByOwner::for_all(Terms::Calendar(CalendarQuota::new(limit, Every::Month).unwrap()))
}

const OWNERS: [Owner<'static>; 4] = [
    Owner::Tenant("acme"),
    Owner::Tenant("a b"),
    Owner::Caller("acme", Credential::Token("main"), "ada"),
    Owner::Others(crate::limits::owner::Others::Addresses),
];

/// Passes terms and counts as the two processes do, through their written form.
fn passed_on(old: &Accounts, now: Now) -> Accounts {
    let new = Accounts::new(10);
    let terms = old.saved_terms().into_iter();
    let written = terms.map(|terms| serde_json::to_value(terms).unwrap());
    let terms = written.map(|terms| serde_json::from_value(terms).unwrap()).collect();
    new.restore_terms(terms, now).unwrap();
    let counts = Snapshot::of(old, now);
    counts
        .counts(|counts| {
            let counts = serde_json::to_value(counts).unwrap();
            new.restore_counts(serde_json::from_value(counts).unwrap(), now)
        })
        .unwrap();
    new
}

fn account(accounts: &Accounts, limit: &str, terms: &TermsByOwner, owner: Owner<'_>) -> Account {
    let table = accounts.table(&limit.into(), terms);
    table.account(owner, terms.of(owner.key()), Origin::Request)
}

#[test]
fn every_kind_of_count_is_the_same_in_the_other_process() {
    let old = Accounts::new(10);
    let limits = [
        ("bucket", bucket(1, 20)),
        ("window", window(20)),
        ("monthly", monthly(20)),
    ];
    let named: Vec<_> = limits
        .iter()
        .map(|(name, terms)| (Arc::from(*name), terms.clone()))
        .collect();
    old.take_effect(&named, at(0));
    for (number, owner) in (1..).zip(OWNERS) {
        for (limit, terms) in &limits {
            account(&old, limit, terms, owner)
                .take(at(number), number, Duration::ZERO)
                .unwrap();
            account(&old, limit, terms, owner)
                .take(at(number + 1_000), 2, Duration::ZERO)
                .unwrap();
        }
    }
    let new = passed_on(&old, at(2_000));
    for owner in OWNERS {
        for (limit, terms) in &limits {
            for now in [2_000, 5_000, 10_500, 60_000].map(at) {
                let [before, after] = [&old, &new].map(|accounts| account(accounts, limit, terms, owner).balance(now));
                assert_eq!(before, after, "{owner} {limit}");
            }
        }
    }
    assert_eq!(old.census().len(), new.census().len());
    let taken = |accounts: &Accounts| OwnerClass::ALL.map(|room| accounts.rooms.taken(room));
    assert_eq!(taken(&old), taken(&new));
}

#[test]
fn a_window_with_more_moments_than_a_part_holds_comes_in_pieces() {
    let old = Accounts::new(10);
    let terms = window(10_000);
    old.take_effect(&[("window".into(), terms.clone())], at(0));
    for millis in 0..2_500 {
        account(&old, "window", &terms, OWNERS[0])
            .take(at(millis), 1, Duration::ZERO)
            .unwrap();
    }
    let new = passed_on(&old, at(3_000));
    for now in [3_000, 11_000, 12_400, 13_000].map(at) {
        let [before, after] = [&old, &new].map(|accounts| account(accounts, "window", &terms, OWNERS[0]).balance(now));
        assert_eq!(before, after);
    }
}

#[test]
fn other_terms_in_the_new_config_mean_what_they_mean_on_a_reload() {
    let (before, after) = (bucket(10, 100), bucket(1, 10));
    let old = Accounts::new(10);
    old.take_effect(&[("limit".into(), before.clone())], at(0));
    account(&old, "limit", &before, OWNERS[0])
        .take(at(0), 100, Duration::ZERO)
        .unwrap();
    let new = passed_on(&old, at(0));
    new.take_effect(&[("limit".into(), after.clone())], at(0));
    assert_eq!(account(&new, "limit", &after, OWNERS[0]).balance(at(0)), 0);
    assert_eq!(account(&new, "limit", &after, OWNERS[1]).balance(at(0)), 10);
    let new = passed_on(&old, at(0));
    let of_another_kind = monthly(50);
    new.take_effect(&[("limit".into(), of_another_kind.clone())], at(0));
    assert_eq!(account(&new, "limit", &of_another_kind, OWNERS[0]).balance(at(0)), 0);
}

#[test]
fn what_cannot_be_understood_is_an_error() {
    let accounts = Accounts::new(10);
    accounts.take_effect(&[("limit".into(), bucket(1, 1))], at(0));
    let check = |kind: &str, key: &str, count: Value| {
        let counts = serde_json::json!({ "limit": "limit", "kind": kind, "owners": [[{ "key": key }, count]] });
        accounts.restore_counts(serde_json::from_value(counts).unwrap(), at(0))
    };
    let key = "0".repeat(30);
    let good = serde_json::json!({ "token_bucket": 1 });
    assert!(check("token_bucket", &key, good.clone()).is_ok());
    assert!(check("leaky_cup", &key, good.clone()).is_err());
    assert!(check("quota", &key, good.clone()).is_err(), "there are no terms");
    assert!(check("token_bucket", &key, serde_json::json!({ "quota": [1, 1] })).is_err());
    for wrong in [
        "",
        "0",
        "é0000000000000000000000000000",
        &"g".repeat(30),
        &"0".repeat(32),
    ] {
        assert!(check("token_bucket", wrong, good.clone()).is_err(), "{wrong}");
    }
}

/// An action of a caller, or the copy for the other process.
#[derive(Debug, Clone)]
enum Step {
    Take(usize, u64),
    /// Gives the last charge back.
    GiveBack,
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..OWNERS.len(), 1..4u64).prop_map(|(owner, cost)| Step::Take(owner, cost)),
        1 => Just(Step::GiveBack),
        2 => (0..3_000u64).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(cases::counted())]

    /// The old process charges before and after the copy, and every charge after it is sent. In the end the new process
    /// has the balance that the old one has: no charge is lost, none is counted twice.
    #[test]
    fn no_charge_is_lost_or_counted_twice(
        before in prop::collection::vec(step(), 0..20),
        after in prop::collection::vec(step(), 0..20),
        kind in 0..3usize,
    ) {
        let terms = [bucket(2, 20), window(20), monthly(20)][kind].clone();
        let old = Accounts::new(10);
        old.take_effect(&[("limit".into(), terms.clone())], at(0));
        let table = old.table(&"limit".into(), &terms);
        let (mut now, mut last): (u64, Option<(usize, Taken)>) = (0, None);
        let mut run = |steps: &[Step], sent: &mut Vec<SavedCharge>| {
            for step in steps {
                let (owner, taken, given_back) = match *step {
                    Step::Pass(millis) => {
                        now += millis;
                        continue;
                    }
                    Step::Take(owner, tokens) => {
                        let taken = Taken { at: at(now), delay: Duration::ZERO, tokens };
                        if account(&old, "limit", &terms, OWNERS[owner]).take(at(now), tokens, Duration::ZERO).is_err() {
                            continue;
                        }
                        last = Some((owner, taken));
                        (owner, taken, None)
                    }
                    Step::GiveBack => {
                        let Some((owner, taken)) = last.take() else { continue };
                        account(&old, "limit", &terms, OWNERS[owner]).refund(at(now), taken, terms.usual);
                        (owner, taken, Some(at(now)))
                    }
                };
                sent.push(SavedCharge::new(&Entry {
                    table: Arc::clone(&table),
                    owner: OWNERS[owner].key(),
                    account: account(&old, "limit", &terms, OWNERS[owner]),
                    taken,
                    given_back,
                }));
            }
            now
        };
        let copied = run(&before, &mut Vec::new());
        let new = passed_on(&old, at(copied));
        let mut sent = Vec::new();
        let end = run(&after, &mut sent);
        for charge in sent {
            let charge = serde_json::to_value(charge).unwrap();
            new.restore_charge(serde_json::from_value(charge).unwrap()).unwrap();
        }
        for owner in OWNERS {
            for now in [end, end + 1_500, end + 9_000].map(at) {
                let [before, after] = [&old, &new].map(|accounts| account(accounts, "limit", &terms, owner).balance(now));
                prop_assert_eq!(before, after);
            }
        }
    }
}

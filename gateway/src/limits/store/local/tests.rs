use std::time::Duration;

use policies::{CalendarQuota, Every, Moment, Quota, WallTime, WindowQuota};
use proptest::prelude::*;

use crate::limits::kinds::Terms;
use crate::limits::owner::{Credential, Owner};
use crate::limits::owner_class::OwnerClass;
use crate::limits::store::Origin;
use crate::limits::store::local::*;

fn at(seconds: u64) -> Now {
    Now {
        moment: Moment::from_nanos((1_000 + seconds) * 1_000_000_000),
        wall: WallTime::since_epoch(Duration::from_secs(1_795_521_600 + seconds)),
    }
}

fn bucket(rate: u64, burst: u64) -> TermsByOwner {
    TermsByOwner::for_all(Terms::Bucket(Quota::new(rate, Duration::from_secs(1), burst).unwrap()))
}

fn every(every: Every) -> TermsByOwner {
    TermsByOwner::for_all(Terms::Calendar(CalendarQuota::new(10, every).unwrap()))
}

fn take(table: &dyn Table, owner: Owner<'_>, terms: &TermsByOwner, cost: u64) {
    let account = table.account(owner, terms.of(owner.key()), Origin::Request);
    account.take(at(0), cost, Duration::ZERO).unwrap();
}

fn left(table: &dyn Table, owner: Owner<'_>, terms: &TermsByOwner) -> u64 {
    table.balance(owner.key(), terms.of(owner.key()), at(0))
}

#[test]
fn two_owners_never_share_and_one_owner_has_one_account() {
    let terms = bucket(10, 20);
    let table = Accounts::new(10).table(&"free".into(), &terms);
    let [a, b] = [Owner::Tenant("a"), Owner::Tenant("b")];
    take(&*table, a, &terms, 3);
    take(&*table, a, &terms, 4);
    assert_eq!((left(&*table, a, &terms), left(&*table, b, &terms)), (13, 20));
}

#[test]
fn an_owner_that_no_plan_names_keeps_its_own_terms_over_plans() {
    let (plan, own) = (bucket(10, 20), bucket(10, 40).usual);
    let table = Accounts::new(10).table(&"free".into(), &plan);
    let [a, b] = [Owner::Tenant("a"), Owner::Tenant("b")];
    let key = a.key();
    take(&*table, a, &plan, 15);
    take(&*table, b, &plan, 15);
    table.set_own_terms(key, Some(own), at(0));
    assert_eq!((table.terms(key), table.terms(b.key())), (own, plan.usual));
    assert_eq!(table.all_terms().of(key), own);
    let taken = |owner: Owner<'_>| table.taken(owner.key(), at(0));
    assert_eq!(taken(b), 15);
    assert!(taken(a) >= 15, "nothing is refilled: {}", taken(a));
    let (before, next) = (taken(a), bucket(10, 10));
    table.change_terms(&next, at(0));
    assert_eq!((table.terms(key), taken(a)), (own, before), "a plan changes the others");
    assert_eq!(table.terms(b.key()), next.usual);
    // Terms of another kind would need another table.
    table.set_own_terms(key, Some(every(Every::Day).usual), at(0));
    assert_eq!(table.terms(key), own);
    table.set_own_terms(key, None, at(0));
    assert_eq!(table.terms(key), next.usual);
    assert_eq!((before, taken(a)), (30, 8), "the same share of each burst is taken");
}

/// Room for two owners of each kind, and for one network.
const NARROW: AccountLimits = AccountLimits {
    addresses: 2,
    networks: 1,
    tenants: 2,
    callers: 2,
};

fn address(text: &str) -> Owner<'static> {
    Owner::Address(text.parse().expect("an address"))
}

fn caller<'a>(tenant: &'a str, id: &'a str) -> Owner<'a> {
    Owner::Caller(tenant, Credential::Token("main"), id)
}

/// Takes 5 of 20 for each owner in turn, and returns the balance of the account that the owner got.
fn left_in_turn(table: &dyn Table, terms: &TermsByOwner, owners: &[Owner<'_>]) -> Vec<u64> {
    let take = |owner: &Owner<'_>| {
        let account = table.account(*owner, terms.usual, Origin::Request);
        account.take(at(0), 5, Duration::ZERO).unwrap();
        account.balance(at(0))
    };
    owners.iter().map(take).collect()
}

#[test]
fn addresses_without_room_are_counted_by_network_and_then_together() {
    let terms = bucket(10, 20);
    for ips in [
        [
            "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.1.1", "10.0.2.1", "10.0.0.1",
        ],
        [
            "2001:db8:0:1::",
            "2001:db8:0:2::",
            "2001:db8:0:3::",
            "2001:db8:0:4::",
            "2001:db8:1:1::",
            "2001:db8:2:1::",
            "2001:db8:0:1::",
        ],
    ] {
        let accounts = Accounts::with(NARROW);
        let table = accounts.table(&"free".into(), &terms);
        let left = left_in_turn(&*table, &terms, &ips.map(address));
        assert_eq!(left, [15, 15, 15, 10, 15, 10, 10], "{ips:?}");
        assert_eq!(
            (table.owners(), table.stood_in()),
            (3, SharedCounts { wider: 2, others: 2 })
        );
    }
}

#[test]
fn callers_without_room_are_counted_by_tenant_and_then_together() {
    let (accounts, terms) = (Accounts::with(NARROW), bucket(10, 20));
    let table = accounts.table(&"search".into(), &terms);
    let callers = [
        caller("a", "1"),
        caller("a", "2"),
        caller("a", "3"),
        caller("a", "4"),
        caller("b", "1"),
        caller("c", "1"),
        caller("d", "1"),
    ];
    assert_eq!(left_in_turn(&*table, &terms, &callers), [15, 15, 15, 10, 15, 15, 10]);
    assert_eq!(
        (table.owners(), table.stood_in()),
        (4, SharedCounts { wider: 3, others: 2 })
    );
}

#[test]
fn no_kind_of_owner_takes_the_room_of_another() {
    let terms = bucket(10, 20);
    let ids: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    let addresses = (0..200).map(|n| Owner::Address([10, 0, n, n].into()));
    let floods: [(&str, Vec<Owner<'_>>); 3] = [
        ("addresses", addresses.collect()),
        ("tenants", ids.iter().map(|id| Owner::Tenant(id)).collect()),
        ("callers", ids.iter().map(|id| caller(id, id)).collect()),
    ];
    let newcomers = [address("192.0.2.1"), Owner::Tenant("acme"), caller("acme", "ada")];
    for (at, (what, flood)) in floods.iter().enumerate() {
        let accounts = Accounts::with(NARROW);
        let table = accounts.table(&"free".into(), &terms);
        for owner in flood {
            let _ = table
                .account(*owner, terms.usual, Origin::Request)
                .take(self::at(0), 20, Duration::ZERO);
        }
        for (kind, newcomer) in newcomers.iter().enumerate() {
            let opened = table.open(*newcomer, terms.usual, Origin::Request);
            assert_eq!(opened.is_shared, kind == at, "{newcomer} after {what}");
            assert_eq!(
                opened.account.balance(self::at(0)),
                if kind == at { 0 } else { 20 },
                "{newcomer} after {what}"
            );
        }
    }
}

#[test]
fn neither_the_written_nor_the_restored_take_room() {
    let (accounts, terms) = (Accounts::with(NARROW), bucket(10, 20));
    let table = accounts.table(&"free".into(), &terms);
    let names: Vec<_> = (0..20).map(|n| n.to_string()).collect();
    for (at, name) in names.iter().enumerate() {
        let origin = if at < 13 { Origin::Restored } else { Origin::Written };
        let opened = table.open(Owner::Tenant(name), terms.usual, origin);
        // Restored owners have room for one and a half times the number of all other owners: thirteen.
        assert!(!opened.is_shared, "{name}");
        opened.account.take(self::at(0), 1, Duration::ZERO).unwrap();
    }
    assert_eq!(
        OwnerClass::ALL.map(|room| accounts.rooms.taken(room)),
        [0, 0, 0, 0, 0, 13],
        "{names:?}"
    );
    let left = left_in_turn(&*table, &terms, &["a", "b", "c", "d"].map(Owner::Tenant));
    assert_eq!(left, [15, 15, 15, 10]);
    // One restored owner too many shares an account; the code that restores is told so.
    assert!(
        table
            .open(Owner::Tenant("late"), terms.usual, Origin::Restored)
            .is_shared
    );
    // Accounts that occupy no room give none back.
    accounts.forget_idle(at(60));
    assert_eq!(OwnerClass::ALL.map(|room| accounts.rooms.taken(room)), [0; 6]);
    assert_eq!(table.owners(), 0);
}

#[test]
fn who_had_to_share_has_its_own_account_when_there_is_room() {
    let (accounts, terms) = (Accounts::with(NARROW), bucket(1, 20));
    let table = accounts.table(&"free".into(), &terms);
    let tenants = ["a", "b", "c"].map(Owner::Tenant);
    left_in_turn(&*table, &terms, &tenants);
    assert!(table.open(tenants[2], terms.usual, Origin::Request).is_shared);
    accounts.forget_idle(at(5));
    assert!(!table.open(tenants[2], terms.usual, Origin::Request).is_shared);
}

#[test]
fn what_is_available_is_what_would_be_taken_from() {
    let (accounts, terms) = (Accounts::with(NARROW), bucket(10, 20));
    let table = accounts.table(&"failures".into(), &terms);
    let ips = [
        "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.1.1", "10.0.0.4", "10.0.2.1", "10.0.0.1", "10.0.3.1",
    ];
    for ip in ips.map(address) {
        let available = table.available(ip, terms.usual, at(0));
        assert_eq!(
            table.available(ip, terms.usual, at(0)),
            available,
            "asking takes nothing"
        );
        let account = table.account(ip, terms.usual, Origin::Request);
        assert_eq!(account.balance(at(0)), available, "{ip}");
        account.take(at(0), 5, Duration::ZERO).unwrap();
    }
    let unwritten = Owner::Tenant("a");
    assert_eq!(table.available(unwritten, terms.usual, at(0)), 20);
}

#[test]
fn what_is_taken_is_never_forgotten_and_what_is_not_is() {
    let (accounts, terms) = (Accounts::new(10), bucket(1, 5));
    let table = accounts.table(&"free".into(), &terms);
    let [drained, full] = [Owner::Tenant("drained"), Owner::Tenant("full")];
    take(&*table, drained, &terms, 5);
    table.account(full, terms.usual, Origin::Request);
    accounts.forget_idle(at(0));
    assert_eq!((table.owners(), left(&*table, drained, &terms)), (1, 0));
    accounts.forget_idle(at(5));
    assert_eq!(table.owners(), 0);
}

#[test]
fn what_is_held_is_kept() {
    let (accounts, terms) = (Accounts::new(10), TermsByOwner::for_all(Terms::InFlight(3)));
    let table = accounts.table(&"in_flight".into(), &terms);
    let held = table.account(Owner::Tenant("acme"), terms.usual, Origin::Request);
    accounts.forget_idle(at(0));
    held.take(at(0), 1, Duration::ZERO).unwrap();
    drop(held);
    accounts.forget_idle(at(0));
    assert_eq!(left(&*table, Owner::Tenant("acme"), &terms), 2, "it is in flight");
}

#[test]
fn a_reload_scales_what_is_left_and_refills_nothing() {
    let accounts = Accounts::new(10);
    let name: Arc<str> = "free".into();
    let (old, new) = (bucket(10, 20), bucket(10, 200));
    let table = accounts.table(&name, &old);
    let [drained, half] = [Owner::Tenant("drained"), Owner::Tenant("half")];
    take(&*table, drained, &old, 20);
    take(&*table, half, &old, 10);
    accounts.take_effect(&[(Arc::clone(&name), new.clone())], at(0));
    assert_eq!((left(&*table, drained, &new), left(&*table, half, &new)), (0, 100));
    accounts.take_effect(&[(name, old.clone())], at(0));
    assert_eq!((left(&*table, drained, &old), left(&*table, half, &old)), (0, 10));
}

#[test]
fn a_quota_that_is_counted_by_another_period_keeps_what_was_used() {
    let accounts = Accounts::new(10);
    let name: Arc<str> = "fair_use".into();
    let (day, month) = (every(Every::Day), every(Every::Month));
    let table = accounts.table(&name, &day);
    take(&*table, Owner::Tenant("acme"), &day, 7);
    accounts.take_effect(&[(name, month.clone())], at(0));
    assert_eq!(left(&*table, Owner::Tenant("acme"), &month), 3);
}

/// Terms so slow that nothing is earned while a test runs.
fn slow(kind: Kind, most: u64) -> TermsByOwner {
    let day = Duration::from_secs(86_400);
    TermsByOwner::for_all(match kind {
        Kind::Bucket => Terms::Bucket(Quota::new(most, day * 30, most).unwrap()),
        Kind::Window => Terms::Window(WindowQuota::new(most, day * 30).unwrap()),
        Kind::Calendar => Terms::Calendar(CalendarQuota::new(most, Every::Month).unwrap()),
        Kind::InFlight => Terms::InFlight(most as u32),
        other => panic!("{other:?} is counted in the store"),
    })
}

/// A limit that changes its kind.
struct Changing {
    accounts: Accounts,
    name: Arc<str>,
    terms: TermsByOwner,
}

impl Changing {
    fn new(kind: Kind, most: u64) -> Self {
        let changing = Self {
            accounts: Accounts::new(10),
            name: "changing".into(),
            terms: slow(kind, most),
        };
        changing.into_force()
    }

    fn into_force(self) -> Self {
        let limits = [(Arc::clone(&self.name), self.terms.clone())];
        self.accounts.take_effect(&limits, Now::read());
        self
    }

    fn become_(self, kind: Kind, most: u64) -> Self {
        let terms = slow(kind, most);
        Self { terms, ..self }.into_force()
    }

    fn account(&self, tenant: &str) -> Account {
        let table = self.accounts.table(&self.name, &self.terms);
        table.account(Owner::Tenant(tenant), self.terms.usual, Origin::Request)
    }

    fn take(&self, tenant: &str, cost: u64) {
        self.account(tenant).take(Now::read(), cost, Duration::ZERO).unwrap();
    }

    fn left(&self, tenant: &str) -> u64 {
        self.account(tenant).balance(Now::read())
    }
}

const TOKENS: [Kind; 3] = [Kind::Bucket, Kind::Window, Kind::Calendar];

#[test]
fn a_limit_that_counts_something_else_goes_on_from_what_was_taken() {
    for old in TOKENS {
        for new in TOKENS.into_iter().filter(|new| *new != old) {
            let limit = Changing::new(old, 10);
            limit.take("some", 3);
            limit.take("all", 10);
            let limit = limit.become_(new, 5);
            let left = ["some", "all", "none"].map(|tenant| limit.left(tenant));
            assert_eq!(left, [2, 0, 5], "{old:?} to {new:?}");
            // Changes back and forth, also by way of a third kind, neither give tokens back nor take them twice.
            limit.take("some", 1);
            let limit = limit.become_(old, 10);
            assert_eq!(
                ["some", "all", "none"].map(|tenant| limit.left(tenant)),
                [6, 0, 10],
                "{old:?} {new:?}"
            );
            let limit = limit.become_(new, 5);
            assert_eq!(
                ["some", "all", "none"].map(|tenant| limit.left(tenant)),
                [1, 0, 5],
                "{old:?} {new:?}"
            );
        }
    }
}

#[test]
fn whoever_has_no_account_yet_is_carried_over_as_well() {
    let limit = Changing::new(Kind::Bucket, 10);
    limit.take("acme", 4);
    let limit = limit.become_(Kind::Window, 10).become_(Kind::Calendar, 10);
    assert_eq!(limit.left("acme"), 6, "nobody asked for it under the second");
}

#[test]
fn all_of_a_kind_together_are_carried_over_as_well() {
    let limit = Changing::new(Kind::Bucket, 10);
    limit.accounts.rooms.resize(AccountLimits::all(0));
    limit.take("acme", 4);
    let limit = limit.become_(Kind::Calendar, 10);
    assert_eq!(limit.left("globex"), 6);
}

#[test]
fn requests_in_flight_are_no_tokens() {
    for other in TOKENS {
        let limit = Changing::new(Kind::InFlight, 2);
        limit.take("acme", 1);
        let limit = limit.become_(other, 10);
        assert_eq!(limit.left("acme"), 10, "{other:?}");
        limit.take("acme", 10);
        let limit = limit.become_(Kind::InFlight, 2);
        assert_eq!(limit.left("acme"), 1, "{other:?}: the one that is under way");
    }
}

#[test]
fn a_limit_that_counts_something_else_has_a_table_of_its_own() {
    let accounts = Accounts::new(10);
    let name: Arc<str> = "free".into();
    let (bucket, quota) = (bucket(1, 5), every(Every::Day));
    take(&*accounts.table(&name, &bucket), Owner::Everyone, &bucket, 5);
    let table = accounts.table(&name, &quota);
    assert_eq!(left(&*table, Owner::Everyone, &quota), 10);
    assert_eq!(
        left(&*accounts.table(&name, &bucket), Owner::Everyone, &bucket),
        0,
        "the old plan still runs"
    );
    let census = accounts.census();
    assert_eq!(
        (census.len(), census[0].owners),
        (1, 1),
        "they are one limit to whoever looks"
    );
}

proptest! {
    #![proptest_config(cases::counted())]

    /// No owner gets more than the limit grants, however often the limit changes its kind.
    #[test]
    fn no_change_of_kind_adds_a_token(
        steps in prop::collection::vec((0..3usize, 3..12u64, 1..4u64), 1..8),
    ) {
        let mut limit = Changing::new(Kind::Bucket, 8);
        let (mut taken, mut most) = (0, 8);
        for (kind, terms, cost) in steps {
            if TOKENS[kind] != limit.terms.usual.kind() {
                limit = limit.become_(TOKENS[kind], terms);
                most = terms;
            }
            let left = limit.left("acme");
            prop_assert!(left <= most.saturating_sub(taken.min(most)), "{left} of {most}, {taken} taken");
            if cost <= left {
                limit.take("acme", cost);
                taken += cost;
            }
            taken = taken.min(most);
        }
    }
}

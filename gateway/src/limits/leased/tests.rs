//! Tests of several replicas with one store in memory, which follows the rule of `policies`, on a paused clock.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use policies::lease::{CentralBucket, CentralQuota, CentralSlots, CentralWindow};
use policies::{CalendarQuota, Every, Quota, Ratio, WindowQuota};
use tokio::sync::watch;

use super::renewer::{Central, Renewer, RenewerHandle};
use super::*;
use crate::clock;
use crate::limits::kinds::Terms;
use crate::limits::owner::Owner;
use crate::limits::store::local::Accounts;
use crate::limits::store::{Origin, TermsByOwner};
use crate::limits::{Charges, Limit, LimitHandle, Mode, Per, Receipt, Unfinished, begin};
use crate::observe::Registry;
use crate::rejection::{Reason, Rejection};
use crate::store::{Ask, CentralTerms};

const LEASE_TIME: Duration = Duration::from_secs(2);
const CALL_LIMIT: Duration = Duration::from_millis(20);

/// Store in memory.
struct StandIn {
    counts: Mutex<HashMap<StoreKey, AnyCount>>,
    commands: AtomicU64,
    /// Scripts that were executed: one for all commands of an owner that come together.
    calls: AtomicU64,
    round_trips: AtomicU64,
    /// Time until an answer, in milliseconds; `u64::MAX` is never.
    latency: AtomicU64,
    is_reached: AtomicBool,
    epoch: AtomicU64,
}

enum AnyCount {
    Bucket(policies::lease::Central<CentralBucket>),
    Window(policies::lease::Central<CentralWindow>),
    Quota(policies::lease::Central<CentralQuota>),
    Slots(CentralSlots),
}

impl StandIn {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            counts: Mutex::default(),
            commands: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            round_trips: AtomicU64::new(0),
            latency: AtomicU64::new(1),
            is_reached: AtomicBool::new(true),
            epoch: AtomicU64::new(1),
        })
    }

    fn apply(&self, Command { key, terms, ask }: Command) -> Answer {
        use policies::lease::Central;
        let (now, epoch) = (Now::read().wall, self.epoch.load(Relaxed));
        let mut counts = self.counts.lock().unwrap();
        let count = counts.entry(key).or_insert_with(|| match terms {
            CentralTerms::Bucket(quota) => {
                AnyCount::Bucket(Central::new(CentralBucket::full(&quota), LEASE_TIME, epoch))
            }
            CentralTerms::Window(quota) => {
                AnyCount::Window(Central::new(CentralWindow::new(&quota), LEASE_TIME, epoch))
            }
            CentralTerms::Calendar(quota) => AnyCount::Quota(Central::new(CentralQuota::new(quota), LEASE_TIME, epoch)),
            CentralTerms::Slots(cap) => AnyCount::Slots(CentralSlots::new(cap, heartbeat(LEASE_TIME))),
        });
        match (count, ask) {
            (AnyCount::Bucket(count), Ask::Tokens(request)) => Answer::Tokens(count.execute(now, &request)),
            (AnyCount::Window(count), Ask::Tokens(request)) => Answer::Tokens(count.execute(now, &request)),
            (AnyCount::Quota(count), Ask::Tokens(request)) => Answer::Tokens(count.execute(now, &request)),
            (AnyCount::Slots(count), Ask::Slots(request)) => Answer::Slots(count.execute(now, &request)),
            (AnyCount::Quota(count), Ask::SetUsed(used)) => Answer::Used(count.set_used(now, used)),
            _ => panic!("a count is asked for something else"),
        }
    }

    fn flush(&self) {
        self.counts.lock().unwrap().clear();
        self.epoch.fetch_add(1, Relaxed);
    }

    fn commands(&self) -> u64 {
        self.commands.load(Relaxed)
    }
}

impl Central for StandIn {
    async fn execute(&self, commands: Vec<Command>) -> Vec<Result<Answer, Trouble>> {
        if !self.is_reached.load(Relaxed) {
            return commands.iter().map(|_| Err(Trouble::Unreached)).collect();
        }
        self.commands.fetch_add(commands.len() as u64, Relaxed);
        let owners: HashSet<_> = commands.iter().map(|command| command.key.owner()).collect();
        self.calls.fetch_add(owners.len() as u64, Relaxed);
        self.round_trips.fetch_add(1, Relaxed);
        let latency = Duration::from_millis(self.latency.load(Relaxed));
        if latency > CALL_LIMIT {
            tokio::time::sleep(CALL_LIMIT).await;
            return commands.iter().map(|_| Err(Trouble::Timeout)).collect();
        }
        tokio::time::sleep(latency / 2).await;
        let answers: Vec<_> = commands.into_iter().map(|command| Ok(self.apply(command))).collect();
        tokio::time::sleep(latency / 2).await;
        answers
    }
}

/// One process.
struct Replica {
    accounts: Accounts,
    is_up: watch::Sender<bool>,
    renewer: RenewerHandle,
    task: tokio::task::JoinHandle<()>,
}

impl Replica {
    fn new(store: &Arc<StandIn>) -> Self {
        let accounts = Accounts::new(10_000);
        let leasing = Arc::clone(&accounts.leasing);
        let renewals = leasing.start(fastrand::u64(..), CALL_LIMIT, LEASE_TIME);
        let (is_up, seen) = watch::channel(true);
        let (renewer, handle) = Renewer::new(leasing, Arc::clone(store), renewals, seen);
        accounts.leasing.set_up(true);
        Self {
            accounts,
            is_up,
            renewer: handle,
            task: tokio::spawn(renewer.run()),
        }
    }

    fn hold(&self, name: &str, tenant: &str, terms: Terms) -> Arc<LimitHandle> {
        self.hold_in(name, tenant, terms, Mode::Enforce, Duration::ZERO)
    }

    fn hold_in(&self, name: &str, tenant: &str, terms: Terms, mode: Mode, wait: Duration) -> Arc<LimitHandle> {
        let name: Arc<str> = name.into();
        let limit = Limit {
            table: self.accounts.table(&name, &TermsByOwner::for_all(terms)),
            metrics: Registry::default().limit(&name),
            name,
            per: Per::Tenant,
            mode,
            cost: None,
            wait,
            setting: crate::setting::SettingId::HEAD_BYTES,
            counts_units: false,
            log: Arc::default(),
        };
        let owner = Owner::Tenant(tenant);
        Arc::new(LimitHandle::new(Arc::new(limit), owner, terms, Origin::Written))
    }

    fn stats(&self) -> &LeaseStats {
        &self.accounts.leasing.stats
    }
}

fn three(store: &Arc<StandIn>) -> [Replica; 3] {
    [(); 3].map(|()| Replica::new(store))
}

fn leased<T>(own: T, most: u64, share: f64) -> LeasedTerms<T> {
    LeasedTerms {
        own,
        lease: LeaseTerms::new(most, Ratio::new(share).unwrap(), LEASE_TIME).unwrap(),
        when_down: WhenDown::Bounded,
    }
}

fn bucket(rate: u64, burst: u64) -> Terms {
    let quota = Quota::new(rate, Duration::from_secs(1), burst).unwrap();
    Terms::LeasedBucket(leased(quota, burst, 0.1))
}

fn quota(limit: u64) -> Terms {
    Terms::LeasedCalendar(leased(CalendarQuota::new(limit, Every::Month).unwrap(), limit, 0.1))
}

fn slots(cap: u32) -> Terms {
    Terms::LeasedSlots(leased(cap, cap.into(), 0.1))
}

async fn take(holds: &[&Arc<LimitHandle>], cost: u64) -> Result<Receipt, Rejection> {
    let charges: Charges = holds.iter().map(|hold| hold.charge(cost)).collect();
    let now = Now::read();
    match begin(charges, now, Duration::from_secs(5)) {
        Ok(receipt) => Ok(receipt),
        Err(Unfinished::Refused(rejection)) => Err(rejection),
        Err(Unfinished::Short(taking)) => taking.finish(now.moment + Duration::from_secs(5)).await,
    }
}

async fn pass(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

/// Sends one request at a time to each replica in turn, `rate` a second for `seconds`; returns the number of those that
/// were admitted.
async fn load(holds: &[Arc<LimitHandle>], rate: u64, seconds: u64) -> u64 {
    let admitted = Arc::new(AtomicU64::new(0));
    let mut tick = tokio::time::interval(Duration::from_nanos(1_000_000_000 / rate));
    let mut requests = Vec::new();
    for number in 0..rate * seconds {
        tick.tick().await;
        let hold = Arc::clone(&holds[number as usize % holds.len()]);
        let admitted = Arc::clone(&admitted);
        requests.push(tokio::spawn(async move {
            if take(&[&hold], 1).await.is_ok() {
                admitted.fetch_add(1, Relaxed);
            }
        }));
    }
    for request in requests {
        request.await.unwrap();
    }
    admitted.load(Relaxed)
}

#[tokio::test(start_paused = true)]
async fn three_replicas_admit_what_one_would_and_the_tokens_on_lease() {
    for (rate, burst) in [(10, 20), (50, 100), (200, 400), (1_000, 2_000)] {
        let store = StandIn::new();
        let replicas = three(&store);
        let terms = bucket(rate, burst);
        let holds = replicas.each_ref().map(|replica| replica.hold("tier", "acme", terms));
        let Terms::LeasedBucket(LeasedTerms { lease, .. }) = terms else {
            unreachable!()
        };
        let bound = lease.bound(rate as f64, NonZeroU32::new(3).unwrap());
        let admitted = load(&holds, 4 * rate, 10).await;
        let exact = burst + 10 * rate;
        assert!(admitted <= exact + bound.on_lease, "{rate}: {admitted} of {exact}");
        assert!(admitted * 100 >= exact * 98, "{rate}: {admitted} of {exact}");
        let commands = store.commands();
        assert!(commands <= 3 * admitted, "{rate}: {commands} for {admitted}");
    }
}

#[tokio::test(start_paused = true)]
async fn at_a_steady_load_a_lease_costs_little_more_than_one_command() {
    for (rate, burst) in [(50, 100), (200, 400), (1_000, 2_000)] {
        let store = StandIn::new();
        let replicas = three(&store);
        let terms = bucket(rate, burst);
        let holds = replicas.each_ref().map(|replica| replica.hold("tier", "acme", terms));
        load(&holds, rate * 9 / 10, 5).await;
        let before = store.commands();
        let admitted = load(&holds, rate * 9 / 10, 10).await;
        assert_eq!(admitted, rate * 9);
        let Terms::LeasedBucket(LeasedTerms { lease, .. }) = terms else {
            unreachable!()
        };
        let lease = lease.size(NonZeroU32::new(3).unwrap());
        let commands = store.commands() - before;
        assert!(
            commands * lease * 10 <= admitted * 13,
            "{rate}: {commands} for {admitted} of {lease}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn at_half_the_rate_nobody_is_refused() {
    let store = StandIn::new();
    let replicas = three(&store);
    let mut loads = Vec::new();
    for tenant in 0..50 {
        let hold = |replica: &Replica| replica.hold("tier", &format!("tenant-{tenant}"), bucket(10, 20));
        let holds: Vec<_> = replicas.iter().map(hold).collect();
        loads.push(tokio::spawn(async move { load(&holds, 5, 10).await }));
    }
    for load in loads {
        assert_eq!(load.await.unwrap(), 50);
    }
    for replica in &replicas {
        let stats = replica.stats();
        assert_eq!(
            (stats.decided_alone.load(Relaxed), stats.refused_alone.load(Relaxed)),
            (0, 0)
        );
    }
    assert!(store.round_trips.load(Relaxed) <= 3 * 500 * 10);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_refused_requests_costs_the_store_nothing() {
    let store = StandIn::new();
    let replica = Replica::new(&store);
    let hold = [replica.hold("tier", "acme", bucket(10, 20))];
    load(&hold, 100, 1).await;
    let before = store.commands();
    let admitted = load(&hold, 10_000, 5).await;
    let added = store.commands() - before;
    assert!(
        admitted <= 51 && added <= 3 * 50,
        "{added} commands for {admitted} tokens"
    );
}

#[tokio::test(start_paused = true)]
async fn a_quota_is_used_up_exactly() {
    let store = StandIn::new();
    let replicas = three(&store);
    let holds = replicas
        .each_ref()
        .map(|replica| replica.hold("monthly", "acme", quota(1_000)));
    assert_eq!(load(&holds, 500, 10).await, 1_000);
    let refused = take(&[&holds[0]], 1).await.map(|_| ()).unwrap_err();
    assert_eq!(refused.reason(), Reason::QuotaExhausted);
}

#[tokio::test(start_paused = true)]
async fn a_window_admits_its_limit_and_the_tokens_on_lease() {
    let store = StandIn::new();
    let replicas = three(&store);
    let window = WindowQuota::new(600, Duration::from_secs(10)).unwrap();
    let terms = Terms::LeasedWindow(leased(window, 600, 0.1));
    let holds = replicas.each_ref().map(|replica| replica.hold("window", "acme", terms));
    let admitted = load(&holds, 400, 9).await;
    assert!((588..=660).contains(&admitted), "{admitted}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_replica_asks_nothing() {
    let store = StandIn::new();
    let replicas = three(&store);
    let tier = replicas
        .each_ref()
        .map(|replica| replica.hold("tier", "acme", bucket(200, 400)));
    let open = replicas
        .each_ref()
        .map(|replica| replica.hold("open", "acme", slots(400)));
    for (tier, open) in tier.iter().zip(&open) {
        drop(take(&[tier, open], 1).await.unwrap());
    }
    pass(8_000).await;
    let before = store.commands();
    pass(60_000).await;
    assert_eq!(store.commands(), before);
    // All is back, so one replica can take the whole burst.
    let charge = take(&[&tier[0]], 400).await;
    assert!(charge.is_ok());
}

#[tokio::test(start_paused = true)]
async fn without_the_store_each_replica_admits_its_part_and_pays_it_later() {
    let store = StandIn::new();
    let replicas = three(&store);
    let holds = replicas
        .each_ref()
        .map(|replica| replica.hold("tier", "acme", bucket(30, 60)));
    load(&holds, 30, 10).await;
    store.is_reached.store(false, Relaxed);
    for replica in &replicas {
        replica.is_up.send_replace(false);
    }
    pass(1).await;
    let admitted = load(&holds, 600, 10).await;
    // What is on lease, and the limit once more.
    assert!((60 + 290..=60 + 300 + 6).contains(&admitted), "{admitted}");
    let owed: u64 = holds.iter().map(|hold| owed(hold)).sum();
    assert!(owed >= 350, "{owed}");
    store.is_reached.store(true, Relaxed);
    for replica in &replicas {
        replica.is_up.send_replace(true);
    }
    pass(1_000).await;
    assert_eq!(holds.iter().map(|hold| self::owed(hold)).sum::<u64>(), 0);
    // One burst deep in debt, which takes two seconds; then the rate.
    let admitted = load(&holds, 600, 10).await;
    assert!((30 * 8..=30 * 10).contains(&admitted), "{admitted}");
}

fn owed(hold: &LimitHandle) -> u64 {
    match &hold.account {
        crate::limits::kinds::Account::LeasedBucket(count, _) => count.owed(),
        _ => 0,
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_store_delays_a_request_by_the_call_limit_at_most() {
    let store = StandIn::new();
    store.latency.store(u64::MAX, Relaxed);
    let replica = Replica::new(&store);
    let hold = replica.hold("tier", "acme", bucket(10, 20));
    let began = clock::now();
    assert!(take(&[&hold], 1).await.is_ok());
    assert!(clock::now().since(began) <= CALL_LIMIT + Duration::from_millis(2));
}

#[tokio::test(start_paused = true)]
async fn when_down_decides() {
    let store = StandIn::new();
    let replica = Replica::new(&store);
    replica.is_up.send_replace(false);
    pass(1).await;
    let with = |when_down| {
        let Terms::LeasedBucket(terms) = bucket(10, 20) else {
            unreachable!()
        };
        replica.hold(
            &format!("{when_down:?}"),
            "acme",
            Terms::LeasedBucket(LeasedTerms { when_down, ..terms }),
        )
    };
    let open = with(WhenDown::Open);
    for _ in 0..100 {
        assert!(take(&[&open], 1).await.is_ok());
    }
    let bounded = with(WhenDown::Bounded);
    for _ in 0..20 {
        assert!(take(&[&bounded], 1).await.is_ok());
    }
    let refused = take(&[&bounded], 1).await.map(|_| ()).unwrap_err();
    assert_eq!(refused.reason(), Reason::RateLimited);
    let refused = take(&[&with(WhenDown::Closed)], 1).await.map(|_| ()).unwrap_err();
    assert_eq!(refused.reason(), Reason::LimitsUnavailable);
}

#[tokio::test(start_paused = true)]
async fn a_cap_holds_over_all_replicas() {
    let store = StandIn::new();
    let replicas = three(&store);
    let holds = replicas
        .each_ref()
        .map(|replica| replica.hold("open", "acme", slots(20)));
    let mut under_way = Vec::new();
    for number in 0..60 {
        if let Ok(receipt) = take(&[&holds[number % 3]], 1).await {
            under_way.push(receipt);
        }
        pass(50).await;
    }
    assert_eq!(under_way.len(), 20);
    // They are kept over heartbeats.
    pass(10_000).await;
    let refused = take(&[&holds[0]], 1).await.map(|_| ()).unwrap_err();
    assert_eq!(refused.reason(), Reason::TooManyInFlight);
    drop(under_way);
    pass(5_000).await;
    let mut again = Vec::new();
    for _ in 0..20 {
        again.push(take(&[&holds[1]], 1).await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_comes_while_the_store_is_asked_gets_its_slot() {
    let store = StandIn::new();
    store.latency.store(10, Relaxed);
    let [replica, ..] = three(&store);
    let hold = replica.hold("open", "acme", slots(4));
    let after = |milliseconds| {
        let hold = &hold;
        async move {
            pass(milliseconds).await;
            take(&[hold], 1).await
        }
    };
    let (one, two, three, four) = tokio::join!(after(0), after(4), after(4), after(8));
    let under_way = [one, two, three, four].map(|taken| taken.unwrap());
    assert!(take(&[&hold], 1).await.is_err());
    drop(under_way);
}

#[tokio::test(start_paused = true)]
async fn slots_of_a_replica_that_was_killed_come_back() {
    let store = StandIn::new();
    let [killed, other, _] = three(&store);
    let hold = killed.hold("open", "acme", slots(4));
    let mut lost = Vec::new();
    for _ in 0..4 {
        lost.push(take(&[&hold], 1).await.unwrap());
    }
    killed.task.abort();
    let hold = other.hold("open", "acme", slots(4));
    assert!(take(&[&hold], 1).await.is_err());
    pass(u64::try_from(LEASE_TIME.as_millis()).unwrap() + 100).await;
    assert!(take(&[&hold], 1).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn slots_are_confirmed_together_with_tokens() {
    async fn calls(with_slots: bool) -> u64 {
        let store = StandIn::new();
        let replica = Replica::new(&store);
        let tier = replica.hold("tier", "acme", bucket(60, 400));
        let open = replica.hold("open", "acme", slots(40));
        let holds = if with_slots { vec![&tier, &open] } else { vec![&tier] };
        for _ in 0..1_000 {
            drop(take(&holds, 1).await.unwrap());
            pass(20).await;
        }
        // They are kept, so none was asked for again.
        let asked = if with_slots { 1 } else { 0 };
        store.calls.load(Relaxed) - asked
    }
    let (alone, together) = (calls(false).await, calls(true).await);
    assert!(together <= alone + 2, "{together} instead of {alone}");
}

#[tokio::test(start_paused = true)]
async fn slots_of_a_replica_without_requests_go_back() {
    let store = StandIn::new();
    let [idle, other, _] = three(&store);
    let (tier, open) = (
        idle.hold("tier", "acme", bucket(60, 400)),
        idle.hold("open", "acme", slots(4)),
    );
    for _ in 0..3 {
        drop(take(&[&tier, &open], 1).await.unwrap());
    }
    // Tokens are asked for all the time, and that keeps no slots.
    for _ in 0..400 {
        drop(take(&[&tier], 1).await.unwrap());
        pass(20).await;
    }
    let open = other.hold("open", "acme", slots(4));
    let holds = [&open];
    let all = tokio::join!(take(&holds, 1), take(&holds, 1), take(&holds, 1), take(&holds, 1));
    assert!(all.0.is_ok() && all.1.is_ok() && all.2.is_ok() && all.3.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_drain_gives_back_everything() {
    let store = StandIn::new();
    let [leaving, other, _] = three(&store);
    let (tier, open) = (
        leaving.hold("tier", "acme", bucket(1, 400)),
        leaving.hold("open", "acme", slots(4)),
    );
    drop(take(&[&tier, &open], 1).await.unwrap());
    tokio::time::timeout(Duration::from_millis(500), leaving.renewer.drain())
        .await
        .expect("it ends");
    let tier = other.hold("tier", "acme", bucket(1, 400));
    assert!(take(&[&tier], 399).await.is_ok());
    let open = other.hold("open", "acme", slots(4));
    let all = [
        take(&[&open], 1).await,
        take(&[&open], 1).await,
        take(&[&open], 1).await,
        take(&[&open], 1).await,
    ];
    assert!(all.iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn what_is_refunded_comes_back_also_without_a_lease() {
    let store = StandIn::new();
    let replicas = three(&store);
    // So small that each decision asks the store.
    let holds = replicas
        .each_ref()
        .map(|replica| replica.hold("tier", "acme", bucket(1, 9)));
    for _ in 0..3 {
        for hold in &holds {
            take(&[hold], 3).await.unwrap().refund(Now::read());
            pass(20).await;
        }
    }
    pass(1_000).await;
    for hold in &holds {
        assert!(take(&[hold], 3).await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_by_one_limit_consumes_nothing_of_the_others() {
    let store = StandIn::new();
    let replica = Replica::new(&store);
    let (wide, narrow) = (
        replica.hold("wide", "acme", bucket(1, 9)),
        replica.hold("narrow", "acme", bucket(1, 2)),
    );
    for _ in 0..2 {
        assert!(take(&[&wide, &narrow], 1).await.is_ok());
    }
    for _ in 0..20 {
        assert!(take(&[&wide, &narrow], 1).await.is_err());
    }
    pass(500).await;
    for _ in 0..7 {
        assert!(take(&[&wide], 1).await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_has_left_takes_nothing_along() {
    let store = StandIn::new();
    store.latency.store(10, Relaxed);
    let replica = Replica::new(&store);
    let hold = replica.hold("tier", "acme", bucket(1, 9));
    for _ in 0..20 {
        // Tokens that were granted to the one before are on lease.
        if let Ok(taken) = tokio::time::timeout(Duration::from_millis(5), take(&[&hold], 3)).await {
            taken.expect("nothing is spent").refund(Now::read());
        }
        pass(300).await;
    }
    pass(3_000).await;
    assert!(take(&[&hold], 9).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_its_tokens_where_the_limit_says_so() {
    let store = StandIn::new();
    let replica = Replica::new(&store);
    let hold = replica.hold_in(
        "tier",
        "acme",
        bucket(10, 20),
        Mode::Enforce,
        Duration::from_millis(150),
    );
    for _ in 0..20 {
        assert!(take(&[&hold], 1).await.is_ok());
    }
    let began = clock::now();
    assert!(take(&[&hold], 1).await.is_ok());
    let waited = clock::now().since(began);
    assert!((50..=150).contains(&waited.as_millis()), "{waited:?}");
    // The second of two has to wait for longer than it may.
    let holds = [&hold];
    let (one, two) = tokio::join!(take(&holds, 1), take(&holds, 2));
    assert!(one.is_ok() && two.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_shadow_limit_refuses_nothing() {
    let store = StandIn::new();
    let replica = Replica::new(&store);
    let hold = replica.hold_in("tier", "acme", bucket(10, 20), Mode::Shadow, Duration::ZERO);
    for _ in 0..100 {
        assert!(take(&[&hold], 1).await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_cost_that_is_known_later_is_charged_or_given_back() {
    let store = StandIn::new();
    let [one, other, _] = three(&store);
    let hold = one.hold("tier", "acme", bucket(1, 400));
    take(&[&hold], 30).await.unwrap().settle(Now::read(), 100);
    take(&[&hold], 30).await.unwrap().settle(Now::read(), 10);
    pass(4_000).await;
    let hold = other.hold("tier", "acme", bucket(1, 400));
    assert!(take(&[&hold], 296).await.is_err());
    assert!(take(&[&hold], 290).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_flushed_costs_one_burst() {
    let store = StandIn::new();
    let replicas = three(&store);
    let holds = replicas
        .each_ref()
        .map(|replica| replica.hold("tier", "acme", bucket(10, 100)));
    load(&holds, 100, 5).await;
    store.flush();
    let admitted = load(&holds, 100, 10).await;
    assert!((190..=100 + 100 + 20).contains(&admitted), "{admitted}");
}

#[tokio::test(start_paused = true)]
async fn the_headers_tell_what_is_known() {
    let store = StandIn::new();
    let [one, other, _] = three(&store);
    let (one, other) = (
        one.hold("tier", "acme", bucket(1, 400)),
        other.hold("tier", "acme", bucket(1, 400)),
    );
    assert_eq!(one.account.balance(Now::read()), 400);
    drop(take(&[&one], 10).await.unwrap());
    assert_eq!(one.account.balance(Now::read()), 390);
    drop(take(&[&other], 100).await.unwrap());
    // The first one has not heard of that, but the second one has.
    assert_eq!(one.account.balance(Now::read()), 390);
    let told = other.account.balance(Now::read());
    assert!((250..=290).contains(&told), "{told}");
}

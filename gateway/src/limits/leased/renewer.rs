//! Asks the store for tokens, for all accounts of the process.
//!
//! Commands of all accounts travel together: a round trip begins at most every 2 ms, and takes all that are waiting. So
//! the first decision after a pause is not delayed, and a process makes at most 500 round trips a second. Slots that are
//! soon to be confirmed go along with tokens of their owner.
//!
//! Invariant: an account has at most one command under way.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use policies::Moment;
use tokio::sync::{mpsc, oneshot, watch};

use super::{Leasing, Renewals, Renewed};
use crate::clock::{self, Now};
use crate::store::{Answer, Command, Store, StoreKey, Trouble};

/// Shortest time between the beginnings of two round trips.
const INTERVAL: Duration = Duration::from_millis(2);

/// Most round trips at once. More would help only where the store is farther away than the call limit is long.
const MOST_AT_ONCE: usize = 16;

/// Longest time by which the accounts that owe pay later than the store is back, so that not all replicas do so at once.
const SPREAD: Duration = Duration::from_millis(250);

/// A store of central counts.
pub trait Central: Send + Sync + 'static {
    /// Executes commands, and returns the answers in the same order.
    fn execute(&self, commands: Vec<Command>) -> impl Future<Output = Vec<Result<Answer, Trouble>>> + Send;
}

impl Central for Store {
    fn execute(&self, commands: Vec<Command>) -> impl Future<Output = Vec<Result<Answer, Trouble>>> + Send {
        self.execute(commands)
    }
}

/// Handle of a renewer that runs.
#[derive(Debug, Clone)]
pub struct RenewerHandle(mpsc::Sender<oneshot::Sender<()>>);

impl RenewerHandle {
    /// Gives back everything that is on lease. Ends when the store has answered, or does not.
    pub async fn drain(&self) {
        let (done, end) = oneshot::channel();
        if self.0.send(done).await.is_ok() {
            let _ = end.await;
        }
    }
}

type Accounts = Vec<Arc<dyn Renewed>>;

/// Accounts whose command is under way, with their answers.
type Done = (Accounts, Vec<Result<Answer, Trouble>>);

/// Renews the accounts of one process.
pub struct Renewer<S> {
    leasing: Arc<Leasing>,
    store: Arc<S>,
    renewals: mpsc::Receiver<Arc<dyn Renewed>>,
    drains: mpsc::Receiver<oneshot::Sender<()>>,
    is_up: watch::Receiver<bool>,
    /// Accounts that are to be tended now.
    ready: VecDeque<Arc<dyn Renewed>>,
    later: Later,
    /// Moment before which no round trip begins.
    next: Moment,
    /// Moment before which accounts that only have to be tended are left alone.
    spread: Moment,
    is_draining: Option<oneshot::Sender<()>>,
}

impl<S: Central> Renewer<S> {
    /// Returns the renewer and its handle. `is_up` tells whether the store can be reached.
    pub fn new(
        leasing: Arc<Leasing>,
        store: Arc<S>,
        Renewals(renewals): Renewals,
        is_up: watch::Receiver<bool>,
    ) -> (Self, RenewerHandle) {
        let (sender, drains) = mpsc::channel(1);
        let renewer = Self {
            leasing,
            store,
            renewals,
            drains,
            is_up,
            ready: VecDeque::new(),
            later: Later::default(),
            next: Moment::ZERO,
            spread: Moment::ZERO,
            is_draining: None,
        };
        (renewer, RenewerHandle(sender))
    }

    /// Runs until all accounts and handles are gone.
    pub async fn run(mut self) {
        let mut calls = FuturesUnordered::new();
        loop {
            self.note_state();
            self.wake();
            while let Some((accounts, commands)) = self.batch(calls.len()) {
                let store = Arc::clone(&self.store);
                calls.push(async move { (accounts, store.execute(commands).await) });
            }
            self.end_drain(calls.is_empty());
            let next = self.wakes_at(calls.len());
            tokio::select! {
                // In this order, so that answers are not delayed by a flood of requests.
                biased;
                Some(done) = calls.next() => self.apply(done),
                Some(drain) = self.drains.recv() => self.begin_drain(drain),
                changed = self.is_up.changed() => if changed.is_err() { return },
                account = self.renewals.recv() => match account {
                    Some(account) => self.take_in(account),
                    None => return,
                },
                () = sleep_until(next), if next.is_some() => {}
            }
        }
    }

    /// Takes in an account and all others that are in the queue.
    fn take_in(&mut self, account: Arc<dyn Renewed>) {
        self.ready.push_back(account);
        while let Ok(account) = self.renewals.try_recv() {
            self.ready.push_back(account);
        }
    }

    /// Follows the state of the store.
    fn note_state(&mut self) {
        let is_up = *self.is_up.borrow_and_update();
        if is_up && !self.leasing.is_up() {
            let spread = fastrand::u64(0..=SPREAD.as_nanos() as u64);
            self.spread = clock::now() + Duration::from_nanos(spread);
        }
        self.leasing.set_up(is_up);
        if !is_up {
            for account in std::mem::take(&mut self.ready) {
                account.give_up();
                self.schedule(account);
            }
        }
    }

    /// Moves the accounts whose time has come to those that are ready.
    fn wake(&mut self) {
        let now = clock::now();
        if self.leasing.is_up() && now >= self.spread {
            while let Some(account) = self.later.pop(now) {
                self.ready.push_back(account);
            }
        }
    }

    /// Returns the commands of the next round trip, with their accounts; `None` if none may begin now.
    fn batch(&mut self, under_way: usize) -> Option<(Accounts, Vec<Command>)> {
        let now = clock::now();
        if now < self.next || under_way >= MOST_AT_ONCE {
            return None;
        }
        let (mut accounts, mut commands) = (Vec::new(), Vec::new());
        while commands.len() < Store::MOST {
            let Some(account) = self.ready.pop_front() else { break };
            match account.command(now, self.is_draining.is_some()) {
                Some(command) => {
                    self.later.remove(&account);
                    let confirmed = self
                        .later
                        .take_confirmed(&command.key, |account| account.goes_along(now));
                    confirmed.into_iter().for_each(|account| self.ready.push_front(account));
                    accounts.push(account);
                    commands.push(command);
                }
                None => self.schedule(account),
            }
        }
        if commands.is_empty() {
            return None;
        }
        self.next = now + INTERVAL;
        let stats = &self.leasing.stats;
        stats.commands.fetch_add(commands.len() as u64, Relaxed);
        stats.round_trips.fetch_add(1, Relaxed);
        Some((accounts, commands))
    }

    fn apply(&mut self, (accounts, answers): Done) {
        let now = Now::read();
        for (account, answer) in accounts.into_iter().zip(answers) {
            if answer.is_err() {
                self.leasing.stats.failed.fetch_add(1, Relaxed);
            }
            account.answer(now, answer);
            self.schedule(account);
        }
    }

    /// Notes when the account is to be tended next.
    fn schedule(&mut self, account: Arc<dyn Renewed>) {
        let now = clock::now();
        match account.due(now) {
            Some(due) if due <= now && self.leasing.is_up() => self.ready.push_back(account),
            Some(due) => self.later.set(account, due),
            None => self.later.remove(&account),
        }
    }

    /// Returns the moment at which there is something to do, if nothing comes before.
    fn wakes_at(&self, under_way: usize) -> Option<Moment> {
        let ready = (!self.ready.is_empty() && under_way < MOST_AT_ONCE).then_some(self.next);
        let due = self.later.first().filter(|_| self.leasing.is_up());
        let due = due.map(|due| due.max(self.spread));
        [ready, due].into_iter().flatten().min()
    }

    fn begin_drain(&mut self, done: oneshot::Sender<()>) {
        self.is_draining = Some(done);
        let now = clock::now();
        self.spread = now;
        while let Some(account) = self.later.pop(Moment::MAX) {
            self.ready.push_back(account);
        }
    }

    /// Ends a drain once nothing is on lease, or the store cannot be reached.
    fn end_drain(&mut self, is_quiet: bool) {
        let is_done = self.ready.is_empty() && self.later.is_empty();
        if is_quiet
            && (is_done || !self.leasing.is_up())
            && let Some(done) = self.is_draining.take()
        {
            let _ = done.send(());
        }
    }
}

async fn sleep_until(moment: Option<Moment>) {
    if let Some(moment) = moment {
        clock::wait_until(moment).await;
    }
}

/// Accounts by the moment at which they are to be tended.
#[derive(Default)]
struct Later {
    by_moment: BTreeMap<(Moment, usize), Arc<dyn Renewed>>,
    moments: HashMap<usize, Moment>,
    /// Those that are confirmed from time to time, by their owner in the store.
    confirmed: HashMap<Box<str>, Vec<usize>>,
}

impl Later {
    fn id(account: &Arc<dyn Renewed>) -> usize {
        Arc::as_ptr(account).cast::<()>() as usize
    }

    fn set(&mut self, account: Arc<dyn Renewed>, moment: Moment) {
        self.remove(&account);
        let id = Self::id(&account);
        if let Some(key) = account.confirmed() {
            self.confirmed.entry(key.owner().into()).or_default().push(id);
        }
        self.moments.insert(id, moment);
        self.by_moment.insert((moment, id), account);
    }

    fn remove(&mut self, account: &Arc<dyn Renewed>) {
        self.remove_by_id(Self::id(account));
    }

    fn remove_by_id(&mut self, id: usize) -> Option<Arc<dyn Renewed>> {
        let moment = self.moments.remove(&id)?;
        let account = self.by_moment.remove(&(moment, id))?;
        self.forget_confirmed(&account);
        Some(account)
    }

    fn forget_confirmed(&mut self, account: &Arc<dyn Renewed>) {
        let Some(key) = account.confirmed() else { return };
        if let Some(ids) = self.confirmed.get_mut(key.owner()) {
            ids.retain(|id| *id != Self::id(account));
            if ids.is_empty() {
                self.confirmed.remove(key.owner());
            }
        }
    }

    /// Removes the accounts of the owner of this count that are confirmed from time to time and chosen.
    fn take_confirmed(&mut self, key: &StoreKey, choose: impl Fn(&Arc<dyn Renewed>) -> bool) -> Vec<Arc<dyn Renewed>> {
        let Some(ids) = self.confirmed.get(key.owner()) else {
            return Vec::new();
        };
        let is_chosen = |id: &usize| {
            let moment = self.moments.get(id);
            let account = moment.and_then(|moment| self.by_moment.get(&(*moment, *id)));
            account.is_some_and(&choose)
        };
        let chosen: Vec<usize> = ids.iter().copied().filter(is_chosen).collect();
        chosen.into_iter().filter_map(|id| self.remove_by_id(id)).collect()
    }

    /// Removes an account whose moment has come.
    fn pop(&mut self, now: Moment) -> Option<Arc<dyn Renewed>> {
        let first = self.by_moment.first_entry()?;
        if first.key().0 > now {
            return None;
        }
        let ((_, id), account) = first.remove_entry();
        self.moments.remove(&id);
        self.forget_confirmed(&account);
        Some(account)
    }

    fn first(&self) -> Option<Moment> {
        self.by_moment.first_key_value().map(|((moment, _), _)| *moment)
    }

    fn is_empty(&self) -> bool {
        self.by_moment.is_empty()
    }
}

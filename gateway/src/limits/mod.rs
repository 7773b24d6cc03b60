//! Charges a request to all limits that apply to it, or to none of them.
//!
//! Invariant: a rejection consumes nothing. Accounts are charged in the order of their balance, lowest first. When a
//! later account refuses, the earlier charges are given back; a concurrent request may meanwhile see too few tokens,
//! but never too many.

pub mod charge_log;
pub mod kinds;
pub mod leased;
pub mod owner;
pub mod owner_class;
mod ratelimit_headers;
mod refund;
pub mod reserved;
pub mod store;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use policies::Moment;
use smallvec::SmallVec;

use self::charge_log::{ChargeLog, Entry};
pub use self::kinds::InFlightGuard;
use self::kinds::{Account, NotTaken, Taken, Terms};
use self::leased::Verdict;
use self::owner::{Owner, OwnerKey};
pub use self::ratelimit_headers::{granted, legacy};
pub use self::refund::RefundFacts;
use self::store::{Opened, Origin, Table};
use crate::clock::{self, Now};
use crate::message::FieldMap;
use crate::observe::{Decision, Family, LimitMetrics};
use crate::rejection::{Rejection, Violation};
use crate::setting::SettingId;

/// Name of the limit on a tenant's requests in flight, the same for every tier.
pub const IN_FLIGHT: &str = "in_flight";

/// The kind of owner that a limit counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Per {
    Tenant,
    Caller,
    ClientAddress,
    Route,
    Global,
}

/// Whether a limit refuses requests or only counts those that it would refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    Enforce,
    Shadow,
}

/// A limit as the plan has it: what callers are told of it, how it charges, and the table that counts it.
#[derive(Clone)]
pub struct Limit {
    /// Name that callers see in `RateLimit` and `violated-policies`.
    pub name: Arc<str>,
    pub per: Per,
    pub mode: Mode,
    /// Tokens that a request takes; `None` means the cost that the route sets.
    pub cost: Option<u64>,
    /// Longest time that a request waits for tokens instead of being refused.
    pub wait: Duration,
    pub table: Arc<dyn Table>,
    pub metrics: Arc<LimitMetrics>,
    /// Setting that the terms come from.
    pub setting: SettingId,
    /// Whether the limit counts units that answers say, and requests of other routes do not count.
    pub counts_units: bool,
    /// Log of the charges for a process that takes over.
    pub log: Arc<ChargeLog>,
}

impl Limit {
    /// Opens an owner's account and takes tokens that have been spent already.
    pub fn charge_at_once(&self, owner: Owner<'_>, terms: Terms, now: Now, tokens: u64) {
        let Opened { account, held_by, .. } = self.table.open(owner, terms, Origin::Request);
        let log = self.log.open();
        account.charge(now, tokens);
        if let Some(mut log) = log {
            log.push(Entry {
                table: Arc::clone(&self.table),
                owner: held_by,
                account,
                taken: Taken {
                    at: now,
                    delay: Duration::ZERO,
                    tokens,
                },
                given_back: None,
            });
        }
    }
}

/// The account of one owner under one limit. A remembered credential keeps it, so it is opened once.
pub struct LimitHandle {
    pub limit: Arc<Limit>,
    pub account: Account,
    /// Whether other owners use the account too, because there was no room for one of the owner's own.
    pub is_shared: bool,
    owner: OwnerKey,
    /// Owner by which the table holds the account: another one if the account is shared.
    held_by: OwnerKey,
    /// The limit's `RateLimit-Policy`, written in advance.
    policy: HeaderValue,
}

impl LimitHandle {
    /// Opens the owner's account under the limit.
    pub fn new(limit: Arc<Limit>, owner: Owner<'_>, terms: Terms, origin: Origin) -> Self {
        let policy = granted(&limit.name, &terms);
        Self::with(limit, owner, terms, origin, policy)
    }

    /// Opens the owner's account where the `RateLimit-Policy` value exists already.
    pub fn with(limit: Arc<Limit>, owner: Owner<'_>, terms: Terms, origin: Origin, policy: HeaderValue) -> Self {
        let Opened {
            account,
            is_shared,
            held_by,
        } = limit.table.open(owner, terms, origin);
        Self {
            owner: owner.key(),
            limit,
            account,
            is_shared,
            held_by,
            policy,
        }
    }

    fn entry(&self, taken: Taken, given_back: Option<Now>) -> Entry {
        Entry {
            table: Arc::clone(&self.limit.table),
            owner: self.held_by,
            account: self.account.clone(),
            taken,
            given_back,
        }
    }

    /// Prepares a charge to this account for a request of a route that costs `cost` tokens. A cost of the limit's own
    /// takes precedence.
    pub fn charge(self: &Arc<Self>, cost: u64) -> Charge {
        Charge {
            cost: self.limit.cost.unwrap_or(cost),
            is_open: self.limit.cost.is_none(),
            delay: Duration::ZERO,
            is_taken: true,
            hold: Arc::clone(self),
        }
    }

    /// Prepares a charge that no settlement corrects, of a request whose cost other limits count.
    pub fn charge_request(self: &Arc<Self>) -> Charge {
        Charge {
            is_open: false,
            ..self.charge(1)
        }
    }
}

/// A limit handle, and what one request takes through it.
#[derive(Clone)]
pub struct Charge {
    pub hold: Arc<LimitHandle>,
    /// Cost in tokens.
    pub cost: u64,
    /// Whether the cost may be corrected.
    is_open: bool,
    /// Time by which the tokens were taken in advance; the request waits for as long.
    delay: Duration,
    /// Whether tokens were taken; a shadow limit that would have refused takes none.
    is_taken: bool,
}

impl Charge {
    /// Takes the cost, or nothing.
    ///
    /// # Errors
    /// The reason why nothing was taken.
    #[inline]
    fn take(&self, now: Now, longest: Duration) -> Result<Duration, NotTaken> {
        let log = self.limit.log.open();
        let delay = self.account.take_or_ask(now, self.cost, longest)?;
        if let Some(mut log) = log {
            let (at, tokens) = (now, self.cost);
            log.push(self.entry(Taken { at, delay, tokens }, None));
        }
        Ok(delay)
    }

    /// Returns the longest wait for tokens, if the request can wait for at most `most`.
    fn longest_wait(&self, most: Duration) -> Duration {
        match self.limit.mode {
            Mode::Enforce => self.limit.wait.min(most),
            // A shadow limit never refuses, so it must not delay either.
            Mode::Shadow => Duration::ZERO,
        }
    }

    /// Gives back `tokens` of those taken at `taken_at`, under the terms that are in force now.
    fn give_back(&self, now: Now, taken_at: Now, tokens: u64) {
        if self.is_taken {
            let in_force = self.limit.table.terms(self.owner);
            let taken = Taken {
                at: taken_at,
                delay: self.delay,
                tokens,
            };
            let log = self.limit.log.open();
            self.account.refund(now, taken, in_force);
            if let Some(mut log) = log {
                log.push(self.entry(taken, Some(now)));
            }
        }
    }

    /// Takes `tokens` more, under the terms that are in force now.
    fn take_more(&self, now: Now, tokens: u64) {
        if self.is_taken {
            let in_force = self.limit.table.terms(self.owner);
            let log = self.limit.log.open();
            self.account.under(in_force).charge(now, tokens);
            if let Some(mut log) = log {
                let (at, delay) = (now, Duration::ZERO);
                log.push(self.entry(Taken { at, delay, tokens }, None));
            }
        }
    }
}

impl Deref for Charge {
    type Target = LimitHandle;
    fn deref(&self) -> &LimitHandle {
        &self.hold
    }
}

/// All charges of one request; seldom more than four.
pub type Charges = SmallVec<[Charge; 4]>;

/// The charges of one request. They can be given back while nothing has been sent, and corrected once the cost is
/// known.
#[must_use]
pub struct Receipt {
    taken: Charges,
    taken_at: Now,
    /// Guard of the requests in flight; kept until the request is over.
    pub presence: InFlightGuard,
    /// Time that the request has to wait before it goes on, because it has been charged in advance.
    pub delay: Duration,
}

/// Takes from all of `charges`, or from none. Where a limit allows it, tokens are taken in advance, and the request
/// waits; `most` is the longest such wait. What the store has to be asked for is decided without it.
///
/// # Errors
/// A 429 with the limits that refused, and with the time after which a caller without other requests is admitted.
pub fn take(charges: Charges, now: Now, most: Duration) -> Result<Receipt, Rejection> {
    let mut taking = Taking::begin(charges, now, most);
    loop {
        match taking.run(now) {
            Ok(()) => return Ok(taking.end()),
            Err(Stopped::Refused(rejection)) => return Err(rejection),
            Err(Stopped::Short) => {
                let charge = taking.charge();
                let taken = charge.account.take_alone(now, charge.cost);
                taking.note(taken, now)?;
            }
        }
    }
}

/// Takes as [`take`] does, but returns what is taken so far where the store has to be asked.
///
/// # Errors
/// The rejection, or what is left to be [finished](Taking::finish).
pub fn begin(charges: Charges, now: Now, most: Duration) -> Result<Receipt, Unfinished> {
    let mut taking = Taking::begin(charges, now, most);
    match taking.run(now) {
        Ok(()) => Ok(taking.end()),
        Err(Stopped::Refused(rejection)) => Err(Unfinished::Refused(rejection)),
        Err(Stopped::Short) => Err(Unfinished::Short(Box::new(taking))),
    }
}

/// Charges that are not all taken.
pub enum Unfinished {
    Refused(Rejection),
    /// The store has to be asked.
    Short(Box<Taking>),
}

enum Stopped {
    Refused(Rejection),
    Short,
}

/// The charges of one request, of which some are taken. Those are given back on drop.
pub struct Taking {
    receipt: Receipt,
    /// Number of charges that are taken.
    done: usize,
    /// Longest time that the request waits for tokens.
    most: Duration,
}

impl Taking {
    fn begin(mut charges: Charges, now: Now, most: Duration) -> Self {
        put_in_order(&mut charges, now);
        let mut receipt = Receipt::none(now);
        receipt.taken = charges;
        Self { receipt, done: 0, most }
    }

    /// Takes from the charges that are left, until the store has to be asked.
    #[inline]
    fn run(&mut self, now: Now) -> Result<(), Stopped> {
        while self.done < self.receipt.taken.len() {
            let taken = self.charge().take(now, self.longest(now));
            if taken == Err(NotTaken::Short) {
                return Err(Stopped::Short);
            }
            self.note(taken, now).map_err(Stopped::Refused)?;
        }
        Ok(())
    }

    /// Returns the charge that is to be taken next.
    fn charge(&self) -> &Charge {
        &self.receipt.taken[self.done]
    }

    /// Returns the longest time that the request may wait for the tokens of the next charge.
    fn longest(&self, now: Now) -> Duration {
        let passed = now.moment.since(self.receipt.taken_at.moment);
        self.charge().longest_wait(self.most).saturating_sub(passed)
    }

    /// Notes what became of the next charge.
    fn note(&mut self, taken: Result<Duration, NotTaken>, now: Now) -> Result<(), Rejection> {
        let Self { receipt, done, .. } = self;
        let index = *done;
        let held = &mut receipt.taken[index];
        let decision = match taken {
            Ok(delay) => {
                receipt.presence.enter(&held.account);
                held.delay = delay;
                receipt.delay = receipt.delay.max(delay);
                if delay.is_zero() {
                    Decision::Admitted
                } else {
                    Decision::Delayed
                }
            }
            Err(_) if held.limit.mode == Mode::Shadow => {
                receipt.presence.enter_anyway(&held.account);
                held.is_taken = false;
                Decision::Shadow
            }
            Err(why) => {
                held.limit.metrics.add(Family::LimitDecisions, Decision::Refused);
                let by = held.limit.setting;
                self.give_back(now);
                return Err(match why {
                    NotTaken::Unavailable => Rejection::LimitsUnavailable(by),
                    NotTaken::Refused(wait) => refusal(&self.receipt.taken, index, wait, now),
                    NotTaken::Short => refusal(&self.receipt.taken, index, Duration::ZERO, now),
                });
            }
        };
        held.limit.metrics.add(Family::LimitDecisions, decision);
        *done += 1;
        Ok(())
    }

    /// Gives back what is taken.
    fn give_back(&mut self, now: Now) {
        for taken in &self.receipt.taken[..std::mem::take(&mut self.done)] {
            taken.give_back(now, self.receipt.taken_at, taken.cost);
        }
        self.receipt.presence = InFlightGuard::default();
    }

    /// Returns the receipt for all charges.
    fn end(mut self) -> Receipt {
        self.done = 0;
        let at = self.receipt.taken_at;
        std::mem::replace(&mut self.receipt, Receipt::none(at))
    }

    /// Takes the charges that are left, and asks the store where that is needed. Waits for it no longer than the call
    /// limit each time, and not beyond `deadline`; then the charge is decided without it.
    ///
    /// # Errors
    /// The rejection.
    pub async fn finish(mut self: Box<Self>, deadline: Moment) -> Result<Receipt, Rejection> {
        let mut now = Now::read();
        loop {
            match self.run(now) {
                Ok(()) => return Ok(self.end()),
                Err(Stopped::Refused(rejection)) => return Err(rejection),
                Err(Stopped::Short) => {}
            }
            let charge = self.charge();
            let wait = charge.account.wait_for(now, charge.cost);
            if !wait.is_zero() && wait <= self.longest(now) {
                clock::wait_until(now.moment + wait).await;
                now = Now::read();
                continue;
            }
            let verdict = match charge.account.ask(charge.cost) {
                Some(ticket) => {
                    let limit = deadline.min(now.moment + ticket.call_limit);
                    tokio::time::timeout_at(clock::instant(limit), ticket).await
                }
                None => Ok(Verdict::Trouble),
            };
            now = Now::read();
            let taken = match verdict {
                Ok(Verdict::Granted) => Ok(Duration::ZERO),
                // The loop waits for as long as the limit allows.
                Ok(Verdict::Refused(wait)) if !wait.is_zero() && wait <= self.longest(now) => continue,
                Ok(Verdict::Refused(wait)) => Err(NotTaken::Refused(wait)),
                Ok(Verdict::Trouble) | Err(_) => self.charge().account.take_alone(now, self.charge().cost),
            };
            self.note(taken, now)?;
        }
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        if self.done > 0 {
            self.give_back(Now::read());
        }
    }
}

/// Returns what [`take`] would return now for the same charges: the wait, or the rejection. Takes and counts nothing.
///
/// # Errors
/// The 429 of [`take`].
pub fn foresee(charges: &[Charge], now: Now, most: Duration) -> Result<Duration, Rejection> {
    let charges = charge_order(charges, now);
    let mut delay = Duration::ZERO;
    for (index, held) in charges.iter().enumerate() {
        match held.account.foresee(now, held.cost, held.longest_wait(most)) {
            Ok(own) => delay = delay.max(own),
            Err(_) if held.limit.mode == Mode::Shadow => {}
            Err(_) => return Err(refusal(&charges, index, Duration::ZERO, now)),
        }
    }
    Ok(delay)
}

/// Returns the charges in the order in which they are taken: the lowest balance first.
pub fn charge_order(charges: &[Charge], now: Now) -> Charges {
    let mut charges = Charges::from(charges);
    put_in_order(&mut charges, now);
    charges
}

fn put_in_order(charges: &mut Charges, now: Now) {
    if charges.len() > 1 {
        charges.sort_by_key(|held| held.account.balance(now));
    }
}

/// Builds the rejection for a charge that was refused, the one at `index`, for `told`. It names every limit that would
/// refuse now, and tells the longest of their waits.
fn refusal(charges: &[Charge], index: usize, told: Duration, now: Now) -> Rejection {
    let mut refused: SmallVec<[(&Charge, Duration); 4]> = charges
        .iter()
        .enumerate()
        .filter(|(_, held)| held.limit.mode == Mode::Enforce)
        .map(|(number, held)| {
            let mut wait = held.account.wait_for(now, held.cost);
            // What the store has told may be known to this request alone.
            if number == index && held.account.terms().kind().is_shared() {
                wait = wait.max(told);
            }
            (held, ratelimit_headers::bounded(&held.account, wait))
        })
        .filter(|(_, wait)| !wait.is_zero())
        .collect();
    if refused.is_empty() {
        // All waits are zero, because tokens came in after the refusal. So the limit that refused is named with no
        // wait.
        refused.push((&charges[index], Duration::ZERO));
    }
    let (longest, wait) = refused
        .iter()
        .copied()
        .max_by_key(|(_, wait)| *wait)
        .expect("one at least has refused");
    let violation = Box::new(Violation {
        limits: refused.iter().map(|(held, _)| Arc::clone(&held.limit.name)).collect(),
        by: longest.limit.setting,
        wait,
        most: longest.account.terms().most(),
        policy: ratelimit_headers::policy(refused.iter().map(|(held, _)| *held)),
        state: ratelimit_headers::exhausted(refused.iter().map(|(held, wait)| (*held, *wait))),
    });
    longest.account.terms().kind().rejection(violation)
}

/// Sets the cost of all charges that may be corrected. Nothing has been taken.
pub fn set_cost(charges: &mut [Charge], cost: u64) {
    for charge in charges.iter_mut().filter(|charge| charge.is_open) {
        charge.cost = cost;
    }
}

/// Returns the charge that no wait makes possible, because its limit never holds so much; of several the one with the
/// smallest limit.
pub fn impossible(charges: &[Charge]) -> Option<&Charge> {
    let is_over = |charge: &&Charge| {
        charge.is_open
            && charge.limit.mode == Mode::Enforce
            && charge.account.terms().kind().counts_tokens()
            && charge.cost > charge.account.terms().most()
    };
    charges
        .iter()
        .filter(is_over)
        .min_by_key(|charge| charge.account.terms().most())
}

impl Receipt {
    /// Returns a receipt without charges.
    pub fn none(now: Now) -> Self {
        Self {
            taken: Charges::new(),
            taken_at: now,
            presence: InFlightGuard::default(),
            delay: Duration::ZERO,
        }
    }

    /// Returns a receipt for the same charges, to settle them later, without a place among the requests in flight. Nothing
    /// is settled or given back here any more, but what is left can still be told.
    pub fn take_charges(&mut self) -> Self {
        let taken = self.taken.clone();
        self.taken
            .iter_mut()
            .for_each(|charge| (charge.is_open, charge.is_taken) = (false, false));
        Self {
            taken,
            ..Self::none(self.taken_at)
        }
    }

    /// Returns the time at which tokens that were taken in advance are there.
    pub fn tokens_are_there_at(&self) -> Moment {
        self.taken_at.moment + self.delay
    }

    /// Gives back the charges of a request of which nothing was sent to a backend. A limit per client address keeps its
    /// charge, because it guards against floods, whether or not their requests are served.
    pub fn refund(&self, now: Now) {
        for held in self.taken.iter().filter(|held| held.limit.per != Per::ClientAddress) {
            held.give_back(now, self.taken_at, held.cost);
        }
    }

    /// Corrects the charges once the real cost is known. Limits with a cost of their own keep their charge.
    pub fn settle(&mut self, now: Now, cost: u64) {
        for held in self.taken.iter_mut().filter(|held| held.is_open) {
            if cost > held.cost {
                held.take_more(now, cost - held.cost);
            } else {
                held.give_back(now, self.taken_at, held.cost - cost);
            }
            held.cost = cost;
        }
    }

    /// Adds `RateLimit-Policy` and `RateLimit` to an answer.
    pub fn tell(&self, headers: &mut FieldMap, now: Now) {
        ratelimit_headers::tell(&self.taken, headers, now);
    }

    /// Adds the fields that older clients read.
    pub fn tell_legacy(&self, headers: &mut FieldMap, now: Now) {
        ratelimit_headers::tell_legacy(&self.taken, headers, now);
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

//! How many? A request is charged to all its limits or to none of them.
//!
//! Accounts are taken tightest first and given back when a later one refuses, so a rejection consumes nothing; a
//! concurrent request may see them taken for that instant, never the other way round.

pub mod account;
pub mod accounts;
mod in_flight_guard;
pub mod owner;
mod ratelimit_headers;
mod refund;
pub mod reserved;
pub mod rooms;
pub mod set_aside;
pub mod state_file;
mod table;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use smallvec::SmallVec;

use self::account::{Account, Terms};
use self::accounts::{Origin, Table};
pub use self::in_flight_guard::InFlightGuard;
use self::owner::{Owner, OwnerKey};
pub use self::ratelimit_headers::granted;
pub use self::refund::Ending;
use self::table::Opened;
use crate::clock::Now;
use crate::observe::{Decision, LimitMetrics};
use crate::rejection::{Rejection, Violation};

/// What a tenant's requests in flight are counted under, whatever its tier.
pub const IN_FLIGHT: &str = "in_flight";

/// Whose account a request is charged to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Per {
    Tenant,
    Caller,
    ClientAddress,
    Route,
    Global,
}

/// Whether a limit refuses or only counts what it would have refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Enforce,
    Shadow,
}

/// A limit as meant: what callers see of it, and where it is counted.
#[derive(Clone)]
pub struct Limit {
    /// As callers see it in `RateLimit` and `violated-policies`.
    pub name: Arc<str>,
    pub per: Per,
    pub mode: Mode,
    /// Tokens a request takes; `None` takes what the route costs.
    pub cost: Option<u64>,
    /// A request that could be admitted within this waits rather than being refused.
    pub wait: Duration,
    pub table: Arc<dyn Table>,
    pub metrics: Arc<LimitMetrics>,
}

/// An owner's hold on one limit: made once for a credential that is remembered.
pub struct LimitHandle {
    pub limit: Arc<Limit>,
    pub account: Account,
    /// It is not the owner's own, for want of room.
    pub is_shared: bool,
    owner: OwnerKey,
    /// What the limit grants, as the caller is told.
    policy: HeaderValue,
}

impl LimitHandle {
    /// Opens the owner's account.
    pub fn new(limit: Arc<Limit>, owner: Owner<'_>, terms: Terms, origin: Origin) -> Self {
        let policy = granted(&limit.name, &terms);
        Self::with(limit, owner, terms, origin, policy)
    }

    /// The same, where what the limit grants has been written already.
    pub fn with(limit: Arc<Limit>, owner: Owner<'_>, terms: Terms, origin: Origin, policy: HeaderValue) -> Self {
        let Opened { account, is_shared } = limit.table.open(owner, terms, origin);
        Self {
            owner: owner.key(),
            limit,
            account,
            is_shared,
            policy,
        }
    }

    /// A charge to this account, for a request that costs `cost` where the limit does not say otherwise.
    pub fn charge(self: &Arc<Self>, cost: u64) -> Charge {
        Charge {
            cost: self.limit.cost.unwrap_or(cost),
            delay: Duration::ZERO,
            is_taken: true,
            hold: Arc::clone(self),
        }
    }
}

/// A hold, and what one request takes through it.
#[derive(Clone)]
pub struct Charge {
    pub hold: Arc<LimitHandle>,
    /// In tokens.
    pub cost: u64,
    /// For how long it had to be taken in advance.
    delay: Duration,
    /// A shadow limit that would have refused has taken nothing.
    is_taken: bool,
}

impl Charge {
    /// Gives back so many of the tokens that were taken, under whatever terms are in force by now.
    fn give_back(&self, now: Now, taken_at: Now, tokens: u64) {
        if self.is_taken {
            let in_force = self.limit.table.terms(self.owner);
            self.account.refund(now, taken_at, self.delay, tokens, in_force);
        }
    }

    /// Takes so many more, under whatever terms are in force by now.
    fn take_more(&self, now: Now, tokens: u64) {
        if self.is_taken {
            let in_force = self.limit.table.terms(self.owner);
            self.account.under(in_force).charge(now, tokens);
        }
    }
}

impl Deref for Charge {
    type Target = LimitHandle;
    fn deref(&self) -> &LimitHandle {
        &self.hold
    }
}

/// All that one request is charged to; seldom more.
pub type Charges = SmallVec<[Charge; 4]>;

/// A request's charge, which can be given back while nothing has been sent, and corrected when its cost is known.
#[must_use]
pub struct Receipt {
    taken: Charges,
    taken_at: Now,
    /// To be kept until the request is over.
    pub presence: InFlightGuard,
    /// How long the request has to wait before it goes on: it has been charged in advance.
    pub delay: Duration,
}

/// Takes from all of `charges`, or from none; in advance where a limit says so, but never so that the request would
/// wait for longer than `most`.
///
/// # Errors
/// A 429 naming the limits that refused and the wait after which an otherwise idle caller is admitted.
pub fn take(mut charges: Charges, now: Now, most: Duration) -> Result<Receipt, Rejection> {
    if charges.len() > 1 {
        charges.sort_by_key(|held| held.account.balance(now));
    }
    let mut receipt = Receipt::none(now);
    for index in 0..charges.len() {
        let held = &mut charges[index];
        let wait = match held.limit.mode {
            Mode::Enforce => held.limit.wait.min(most),
            // Only what refuses may delay.
            Mode::Shadow => Duration::ZERO,
        };
        let decision = match held.account.take(now, held.cost, wait) {
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
            Err(_) => {
                held.limit.metrics.decisions.add(Decision::Refused);
                for taken in &charges[..index] {
                    taken.give_back(now, now, taken.cost);
                }
                return Err(refusal(&charges, index, now));
            }
        };
        held.limit.metrics.decisions.add(decision);
    }
    receipt.taken = charges;
    Ok(receipt)
}

/// Names every limit that would refuse now, with the longest of their waits. The one at `index` has refused.
fn refusal(charges: &[Charge], index: usize, now: Now) -> Rejection {
    let mut refused: SmallVec<[(&Charge, Duration); 4]> = charges
        .iter()
        .filter(|held| held.limit.mode == Mode::Enforce)
        .map(|held| {
            (
                held,
                ratelimit_headers::bounded(&held.account, held.account.wait_for(now, held.cost)),
            )
        })
        .filter(|(_, wait)| !wait.is_zero())
        .collect();
    if refused.is_empty() {
        // Tokens came in since.
        refused.push((&charges[index], Duration::ZERO));
    }
    let (longest, wait) = refused
        .iter()
        .copied()
        .max_by_key(|(_, wait)| *wait)
        .expect("one at least has refused");
    let violation = Box::new(Violation {
        limits: refused.iter().map(|(held, _)| Arc::clone(&held.limit.name)).collect(),
        key: Arc::clone(&longest.limit.metrics.name),
        wait,
        policy: ratelimit_headers::policy(refused.iter().map(|(held, _)| *held)),
        state: ratelimit_headers::exhausted(refused.iter().map(|(held, wait)| (*held, *wait))),
    });
    match longest.account {
        Account::Bucket(..) | Account::Window(..) => Rejection::RateLimited(violation),
        Account::Calendar(..) => Rejection::QuotaExhausted(violation),
        Account::InFlight(..) => Rejection::TooManyInFlight(violation),
    }
}

impl Receipt {
    /// For a request that has not been charged.
    pub fn none(now: Now) -> Self {
        Self {
            taken: Charges::new(),
            taken_at: now,
            presence: InFlightGuard::default(),
            delay: Duration::ZERO,
        }
    }

    /// For a request of which nothing was sent. A limit per client address is not given back: it guards against
    /// floods, whatever becomes of them.
    pub fn refund(&self, now: Now) {
        for held in self.taken.iter().filter(|held| held.limit.per != Per::ClientAddress) {
            held.give_back(now, self.taken_at, held.cost);
        }
    }

    /// The request has cost `cost` after all: corrects what the route's cost decided, but not below nothing.
    pub fn settle(&mut self, now: Now, cost: u64) {
        let by_route = |held: &&mut Charge| held.limit.cost.is_none();
        for held in self.taken.iter_mut().filter(by_route) {
            if cost > held.cost {
                held.take_more(now, cost - held.cost);
            } else {
                held.give_back(now, self.taken_at, held.cost - cost);
            }
            held.cost = cost;
        }
    }

    /// Tells the caller what its limits are and what is left of them.
    pub fn tell(&self, headers: &mut HeaderMap, now: Now) {
        ratelimit_headers::tell(&self.taken, headers, now);
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

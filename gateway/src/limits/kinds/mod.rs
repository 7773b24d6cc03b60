//! The kinds of limits. Each kind has a file, which holds all that differs by kind.
//!
//! A kind is a [`LimitCounter`]: a type that an owner's tokens are counted in, and the terms that it is read under. The
//! table at the end of this file names them all. `Kind`, `Terms` and `Account` are enums that are made from that table,
//! so that a decision is a `match` and an atomic operation, without a call through a pointer.
//!
//! Knows nothing of tables or answers.

mod bucket;
mod calendar;
mod in_flight;
mod saved;
mod window;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use policies::{Bucket, InFlight, SlidingWindow, Wait};

pub use self::calendar::QuotaCount;
pub use self::in_flight::InFlightGuard;
pub use self::saved::SavedCount;
use crate::clock::Now;
use crate::header_fields::LONGEST_WAIT;
use crate::limits::leased::{LeasedCount, LeasedSlots, Leasing, Ticket};
use crate::limits::owner::Owner;
use crate::rejection::{Rejection, Violation};

/// Whose counter is to be made.
pub struct NewAccount<'a> {
    pub owner: Owner<'a>,
    /// Name of the limit's state.
    pub limit: &'a str,
    pub leasing: &'a Arc<Leasing>,
}

/// Reason why nothing was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTaken {
    /// The limit refuses. An owner without other requests is admitted after this time.
    Refused(Duration),
    /// The tokens on lease are too few: the store has to be asked.
    Short,
    /// The store cannot be reached, and the config refuses what it would have to decide.
    Unavailable,
}

/// What one owner has taken under one limit.
pub trait LimitCounter: Send + Sync + Sized + 'static {
    /// The amount that an owner may take.
    type Terms: Debug + Clone + Copy + PartialEq + Eq + Send + Sync;

    /// Word for the kind in the admin API.
    const WORD: &'static str;

    /// Longest wait that a caller is told.
    const LONGEST_WAIT: Duration = LONGEST_WAIT;

    /// Whether an answer tells the balance. A rejection tells it always.
    const IS_TOLD: bool = true;

    /// Whether tokens can be taken in advance.
    const WAITS: bool = false;

    /// Whether a request takes its cost, and not one place.
    const COUNTS_TOKENS: bool = true;

    /// Whether the counter can take over what was taken under a limit of another kind.
    const CARRIES_OVER: bool = true;

    /// Whether the count is in the store. Then it is in no state file, and no process hands it over.
    const IS_SHARED: bool = false;

    /// Creates a counter from which nothing is taken.
    fn new(account: &NewAccount<'_>) -> Arc<Self>;

    /// Returns the most that one request can take.
    fn most(terms: &Self::Terms) -> u64;

    /// Returns the time in which the most is earned again, for `RateLimit-Policy`; `None` if it has none.
    fn period(terms: &Self::Terms) -> Option<Duration>;

    /// Returns the number of tokens that are earned in a second, for the admin API; `None` if they are not earned
    /// evenly.
    fn per_second(_terms: &Self::Terms) -> Option<f64> {
        None
    }

    /// Returns the time until the whole limit is renewed at once, for the admin API; `None` if it never is.
    fn renewed_in(_terms: &Self::Terms, _now: Now) -> Option<Duration> {
        None
    }

    /// Returns the rejection of a request that the limit refuses.
    fn rejection(violation: Box<Violation>) -> Rejection {
        Rejection::RateLimited(violation)
    }

    /// Takes `cost` tokens, or none. Some kinds take them in advance, if the wait for them is `longest` at most.
    ///
    /// Returns the time that the request has to wait before it goes on, which is zero for most requests.
    ///
    /// # Errors
    /// The time after which an owner without other requests is admitted.
    fn take(&self, terms: &Self::Terms, now: Now, cost: u64, longest: Duration) -> Result<Duration, Duration>;

    /// Takes as [`take`](Self::take) does, but tells if the store has to be asked.
    ///
    /// # Errors
    /// The reason why nothing was taken.
    #[inline]
    fn take_or_ask(&self, terms: &Self::Terms, now: Now, cost: u64, longest: Duration) -> Result<Duration, NotTaken> {
        self.take(terms, now, cost, longest).map_err(NotTaken::Refused)
    }

    /// Takes after the store was asked and has not answered.
    ///
    /// # Errors
    /// The reason why nothing was taken, never that the store has to be asked.
    fn take_alone(&self, terms: &Self::Terms, now: Now, cost: u64) -> Result<Duration, NotTaken> {
        self.take(terms, now, cost, Duration::ZERO).map_err(NotTaken::Refused)
    }

    /// Asks the store for `cost` tokens. `None` if that is not possible.
    fn ask(&self, _terms: &Self::Terms, _cost: u64) -> Option<Ticket> {
        None
    }

    /// Takes tokens that have been spent already, even if the balance falls below zero.
    fn charge(&self, terms: &Self::Terms, now: Now, cost: u64);

    /// Gives back what was taken under `old` terms. `new` are the terms in force; a reload may have changed them since.
    fn refund(&self, old: &Self::Terms, new: &Self::Terms, now: Now, taken: Taken);

    /// Returns the number of whole tokens that can be taken now, or of further requests that may be in flight.
    fn balance(&self, terms: &Self::Terms, now: Now) -> u64;

    /// Returns the part of the limit that has been taken and still counts.
    fn taken(&self, terms: &Self::Terms, now: Now) -> u64 {
        Self::most(terms) - self.balance(terms, now)
    }

    /// Returns the time until `cost` can be taken, or zero if it can be taken now.
    fn wait_for(&self, terms: &Self::Terms, now: Now, cost: u64) -> Duration;

    /// Returns the time until a balance of `remaining` is renewed.
    fn reset_in(&self, terms: &Self::Terms, now: Now, remaining: u64) -> Duration;

    /// Whether the counter equals a new one, so that it can be dropped.
    fn is_idle(&self, terms: &Self::Terms, now: Now) -> bool;

    /// Adapts the counter to other terms. Nothing is refilled.
    fn change_terms(&self, _old: &Self::Terms, _new: &Self::Terms, _now: Now) {}

    /// Returns what is taken, for another process; `None` if the kind counts only what is under way.
    fn saved(&self) -> Option<SavedCount>;

    /// Adds what was taken in another process. Returns false if it is of another kind.
    fn restore(&self, terms: &Self::Terms, now: Now, saved: &SavedCount) -> bool;

    /// Adds a charge that another process has made.
    fn add(&self, terms: &Self::Terms, taken: Taken) {
        self.charge(terms, taken.at, taken.tokens);
    }
}

/// A charge to one account that may be given back.
#[derive(Debug, Clone, Copy)]
pub struct Taken {
    pub at: Now,
    /// Time by which the tokens were taken in advance.
    pub delay: Duration,
    pub tokens: u64,
}

/// A counter of a kind that the table below names.
pub trait IntoAccount: LimitCounter {
    /// Combines the counter with `terms`.
    ///
    /// # Panics
    /// If the terms are of another kind.
    fn into_account(self: Arc<Self>, terms: Terms) -> Account;
}

/// Builds something that depends on the counter of a kind.
pub trait ByCounter {
    type Output;
    fn build<C: IntoAccount>(self) -> Self::Output;
}

/// Returns the wait; the longest there is where no wait helps, which is a cost above the limit. The config admits none.
pub(in crate::limits) fn time(wait: Wait) -> Duration {
    wait.retry_in.unwrap_or(Duration::MAX)
}

macro_rules! kinds {
    ($($kind:ident: $counter:ty;)*) => {
        /// The kind of limit that terms and accounts belong to.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Kind { $($kind,)* }

        /// The amount that an owner may take.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Terms { $($kind(<$counter as LimitCounter>::Terms),)* }

        /// An owner's counter, with the terms that it is read under.
        #[derive(Clone)]
        pub enum Account { $($kind(Arc<$counter>, <$counter as LimitCounter>::Terms),)* }

        $(
            impl IntoAccount for $counter {
                fn into_account(self: Arc<Self>, terms: Terms) -> Account {
                    match terms {
                        Terms::$kind(terms) => Account::$kind(self, terms),
                        other => unreachable!("a table is found by its kind, and this is not {other:?}"),
                    }
                }
            }
        )*

        impl Kind {
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// Returns the kind with this word.
            pub fn of_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|kind| kind.as_str() == word)
            }

            /// Word for the kind in the admin API.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$kind => <$counter>::WORD,)* }
            }

            /// Longest wait that a caller is told.
            pub const fn longest_wait(self) -> Duration {
                match self { $(Self::$kind => <$counter>::LONGEST_WAIT,)* }
            }

            /// Whether an answer tells the balance.
            pub const fn is_told(self) -> bool {
                match self { $(Self::$kind => <$counter>::IS_TOLD,)* }
            }

            /// Whether a request takes its cost, and not one place.
            pub const fn counts_tokens(self) -> bool {
                match self { $(Self::$kind => <$counter>::COUNTS_TOKENS,)* }
            }

            /// Whether the counts are in the store.
            pub const fn is_shared(self) -> bool {
                match self { $(Self::$kind => <$counter>::IS_SHARED,)* }
            }

            /// Whether an account cannot be opened without the name of its owner.
            pub const fn needs_name(self) -> bool {
                self.is_shared() || matches!(self, Self::Calendar)
            }

            /// Whether accounts of this kind can take over what was taken under a limit of another kind.
            pub const fn carries_over(self) -> bool {
                match self { $(Self::$kind => <$counter>::CARRIES_OVER,)* }
            }

            /// Returns the rejection of a request that a limit of this kind refuses.
            pub fn rejection(self, violation: Box<Violation>) -> Rejection {
                match self { $(Self::$kind => <$counter>::rejection(violation),)* }
            }

            /// Builds what depends on the counter of this kind.
            pub fn build<B: ByCounter>(self, by_counter: B) -> B::Output {
                match self { $(Self::$kind => by_counter.build::<$counter>(),)* }
            }
        }

        impl Terms {
            pub const fn kind(&self) -> Kind {
                match self { $(Self::$kind(_) => Kind::$kind,)* }
            }

            /// Returns the most that one request can take.
            pub fn most(&self) -> u64 {
                match self { $(Self::$kind(terms) => <$counter>::most(terms),)* }
            }

            /// Returns the time in which the most is earned again; `None` if it has none.
            pub fn period(&self) -> Option<Duration> {
                match self { $(Self::$kind(terms) => <$counter>::period(terms),)* }
            }

            /// Returns the number of tokens that are earned in a second; `None` if they are not earned evenly.
            pub fn per_second(&self) -> Option<f64> {
                match self { $(Self::$kind(terms) => <$counter>::per_second(terms),)* }
            }

            /// Returns the time until the whole limit is renewed at once; `None` if it never is.
            pub fn renewed_in(&self, now: Now) -> Option<Duration> {
                match self { $(Self::$kind(terms) => <$counter>::renewed_in(terms, now),)* }
            }
        }

        impl Account {
            pub const fn terms(&self) -> Terms {
                match self { $(Self::$kind(_, terms) => Terms::$kind(*terms),)* }
            }

            /// Takes `cost` tokens, or none. A token bucket or a sliding window may take them in advance, if the wait
            /// for them is `longest` at most.
            ///
            /// Returns the time that the request has to wait before it goes on, which is zero for most requests.
            ///
            /// # Errors
            /// The time after which an owner without other requests is admitted.
            pub fn take(&self, now: Now, cost: u64, longest: Duration) -> Result<Duration, Duration> {
                match self { $(Self::$kind(counter, terms) => LimitCounter::take(&**counter, terms, now, cost, longest),)* }
            }

            /// Returns what [`take`](Self::take) would return now. Takes nothing.
            ///
            /// # Errors
            /// The time after which an owner without other requests is admitted.
            pub fn foresee(&self, now: Now, cost: u64, longest: Duration) -> Result<Duration, Duration> {
                let waits = match self { $(Self::$kind(..) => <$counter>::WAITS,)* };
                match self.wait_for(now, cost) {
                    Duration::ZERO => Ok(Duration::ZERO),
                    wait if waits && wait <= longest => Ok(wait),
                    wait => Err(wait),
                }
            }

            /// Takes as [`take`](Self::take) does, but tells if the store has to be asked.
            ///
            /// # Errors
            /// The reason why nothing was taken.
            #[inline]
            pub fn take_or_ask(&self, now: Now, cost: u64, longest: Duration) -> Result<Duration, NotTaken> {
                match self {
                    $(Self::$kind(counter, terms) => LimitCounter::take_or_ask(&**counter, terms, now, cost, longest),)*
                }
            }

            /// Takes after the store was asked and has not answered.
            ///
            /// # Errors
            /// The reason why nothing was taken, never that the store has to be asked.
            pub fn take_alone(&self, now: Now, cost: u64) -> Result<Duration, NotTaken> {
                match self { $(Self::$kind(counter, terms) => LimitCounter::take_alone(&**counter, terms, now, cost),)* }
            }

            /// Asks the store for `cost` tokens. `None` if that is not possible.
            pub fn ask(&self, cost: u64) -> Option<Ticket> {
                match self { $(Self::$kind(counter, terms) => LimitCounter::ask(&**counter, terms, cost),)* }
            }

            /// Takes tokens that have been spent already, even if the balance falls below zero. Does nothing for
            /// requests in flight.
            pub fn charge(&self, now: Now, cost: u64) {
                match self { $(Self::$kind(counter, terms) => LimitCounter::charge(&**counter, terms, now, cost),)* }
            }

            /// Returns what is taken, for another process; `None` for requests in flight.
            pub fn saved(&self) -> Option<SavedCount> {
                match self { $(Self::$kind(counter, _) => LimitCounter::saved(&**counter),)* }
            }

            /// Adds what was taken in another process. Returns false if it is of another kind.
            pub fn restore(&self, now: Now, saved: &SavedCount) -> bool {
                match self { $(Self::$kind(counter, terms) => LimitCounter::restore(&**counter, terms, now, saved),)* }
            }

            /// Adds a charge that another process has made. Does nothing for requests in flight.
            pub fn add(&self, taken: Taken) {
                match self { $(Self::$kind(counter, terms) => LimitCounter::add(&**counter, terms, taken),)* }
            }

            /// Gives back a charge. `in_force` are the terms that apply now; a reload may have changed them since. Does
            /// nothing for requests in flight: their guard gives the slot back.
            pub fn refund(&self, now: Now, taken: Taken, in_force: Terms) {
                match self {
                    $(Self::$kind(counter, old) => {
                        let new = if let Terms::$kind(new) = in_force { new } else { *old };
                        LimitCounter::refund(&**counter, old, &new, now, taken);
                    })*
                }
            }

            /// Returns the same account under other terms, or unchanged if those are of another kind.
            pub fn under(&self, terms: Terms) -> Self {
                match (self, terms) {
                    $((Self::$kind(counter, _), Terms::$kind(terms)) => Self::$kind(Arc::clone(counter), terms),)*
                    _ => self.clone(),
                }
            }

            /// Returns the part of the limit that has been taken and still counts; 0 for requests in flight.
            pub fn taken(&self, now: Now) -> u64 {
                match self { $(Self::$kind(counter, terms) => LimitCounter::taken(&**counter, terms, now),)* }
            }

            /// Returns the number of whole tokens that can be taken now, or of further requests that may be in flight.
            pub fn balance(&self, now: Now) -> u64 {
                match self { $(Self::$kind(counter, terms) => LimitCounter::balance(&**counter, terms, now),)* }
            }

            /// Returns the time until `cost` can be taken, or zero if it can be taken now.
            pub fn wait_for(&self, now: Now, cost: u64) -> Duration {
                match self { $(Self::$kind(counter, terms) => LimitCounter::wait_for(&**counter, terms, now, cost),)* }
            }

            /// Returns the time until a balance of `remaining` is renewed: until a bucket has earned as many tokens
            /// again, until the window has passed, or until the period ends.
            pub fn reset_in(&self, now: Now, remaining: u64) -> Duration {
                match self { $(Self::$kind(counter, terms) => LimitCounter::reset_in(&**counter, terms, now, remaining),)* }
            }

            /// Whether the account equals a new one, so that it can be dropped.
            pub fn is_idle(&self, now: Now) -> bool {
                match self { $(Self::$kind(counter, terms) => LimitCounter::is_idle(&**counter, terms, now),)* }
            }

            /// Puts other terms in force. A bucket keeps the share to which it is full; a calendar quota keeps what was
            /// used in its period. What a window has counted and what is in flight stay the same.
            pub fn change_terms(&self, terms: Terms, now: Now) {
                match (self, terms) {
                    $((Self::$kind(counter, old), Terms::$kind(new)) => {
                        LimitCounter::change_terms(&**counter, old, &new, now);
                    })*
                    _ => {}
                }
            }
        }
    };
}

kinds! {
    Bucket: Bucket;
    Window: SlidingWindow;
    Calendar: QuotaCount;
    InFlight: InFlight;
    LeasedBucket: LeasedCount<Bucket>;
    LeasedWindow: LeasedCount<SlidingWindow>;
    LeasedCalendar: LeasedCount<QuotaCount>;
    LeasedSlots: LeasedSlots;
}

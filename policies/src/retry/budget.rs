//! Bounds all retries to a backend by what its first attempts have earned.
//!
//! In an outage every call fails. If each call were tried three times, the backend would get three times its load while
//! it is down. A budget allows a few failures to be retried freely, and a flood of failures hardly at all, whatever the
//! limit of each call.
//!
//! Invariant: in any span of time, retries <= 20 + share x first attempts + floor x seconds.

use crate::moment::Moment;
use crate::ratio::Ratio;
use crate::sync::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::fmt;

/// Units in one retry: shares and floors are exact to a hundred-thousandth.
const RETRY: u64 = 100_000;
const MOST: u64 = RetryBudget::CAP * RETRY;
/// Layout of the word: milliseconds up to which the floor is paid (40 bits, 34 years) | balance in units.
const BALANCE_BITS: u32 = 24;
const BALANCE_MASK: u64 = (1 << BALANCE_BITS) - 1;

/// Rates at which a budget earns retries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryBudgetSettings {
    /// Retries earned for each first attempt.
    pub share: Ratio,
    /// Retries earned in each second without any first attempt; from 0 to 10,000.
    pub floor: f64,
}

pub struct RetryBudget {
    word: AtomicU64,
    /// Units for each first attempt.
    share: AtomicU32,
    /// Units for each second.
    floor: AtomicU32,
}

#[derive(Clone, Copy)]
struct Account {
    paid_until: u64,
    balance: u64,
}

impl RetryBudget {
    /// Initial and largest balance, in retries.
    pub const CAP: u64 = 20;

    pub fn new(settings: RetryBudgetSettings) -> RetryBudget {
        let budget = RetryBudget {
            word: AtomicU64::new(
                Account {
                    paid_until: 0,
                    balance: MOST,
                }
                .pack(),
            ),
            share: AtomicU32::new(0),
            floor: AtomicU32::new(0),
        };
        budget.reconfigure(settings);
        budget
    }

    /// Changes what is earned from now on; the balance stays.
    pub fn reconfigure(&self, settings: RetryBudgetSettings) {
        let floor = settings.floor.clamp(0.0, 10_000.0) * RETRY as f64;
        self.share.store(settings.share.millionths() / 10, Relaxed);
        self.floor.store(floor as u32, Relaxed);
    }

    /// Notes the first attempt of a call, which earns its share. A full budget is only read.
    pub fn first_attempt(&self, now: Moment) {
        let share = u64::from(self.share.load(Relaxed));
        self.change(now, |balance| (balance < MOST).then(|| (balance + share).min(MOST)));
    }

    /// Pays for a retry. To be called when the retry is scheduled, and only then.
    #[must_use]
    pub fn withdraw(&self, now: Moment) -> bool {
        self.change(now, |balance| balance.checked_sub(RETRY))
    }

    /// Returns the number of whole retries that could be paid for now, `0..=CAP`.
    pub fn balance(&self, now: Moment) -> u64 {
        self.settled(Account::unpack(self.word.load(Relaxed)), now).balance / RETRY
    }

    /// Replaces the balance by `next` of the balance, unless that is `None`.
    fn change(&self, now: Moment, next: impl Fn(u64) -> Option<u64>) -> bool {
        let mut word = self.word.load(Relaxed);
        loop {
            let account = self.settled(Account::unpack(word), now);
            let Some(balance) = next(account.balance) else {
                return false;
            };
            let changed = Account { balance, ..account }.pack();
            match self.word.compare_exchange_weak(word, changed, Relaxed, Relaxed) {
                Ok(_) => return true,
                Err(seen) => word = seen,
            }
        }
    }

    /// Returns the account with the floor paid up to `now`. Time too short to earn a unit stays unpaid, so that
    /// frequent calls lose nothing. Time in which the budget was full earns nothing.
    fn settled(&self, account: Account, now: Moment) -> Account {
        let millis = now.nanos() / 1_000_000;
        let floor = u64::from(self.floor.load(Relaxed));
        let elapsed = millis.saturating_sub(account.paid_until);
        let earned = elapsed.saturating_mul(floor) / 1_000;
        if account.balance + earned.min(MOST) >= MOST {
            return Account {
                paid_until: millis.max(account.paid_until),
                balance: MOST,
            };
        }
        let paid = if floor == 0 {
            elapsed
        } else {
            (earned * 1_000).div_ceil(floor)
        };
        Account {
            paid_until: account.paid_until + paid,
            balance: account.balance + earned,
        }
    }
}

impl Account {
    const fn pack(self) -> u64 {
        (self.paid_until << BALANCE_BITS) | self.balance
    }

    const fn unpack(word: u64) -> Account {
        Account {
            paid_until: word >> BALANCE_BITS,
            balance: word & BALANCE_MASK,
        }
    }
}

impl fmt::Debug for RetryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let balance = Account::unpack(self.word.load(Relaxed)).balance as f64 / RETRY as f64;
        f.debug_struct("RetryBudget").field("balance", &balance).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn at(milliseconds: u64) -> Moment {
        Moment::ZERO + Duration::from_millis(milliseconds)
    }

    fn budget(share: f64, floor: f64) -> RetryBudget {
        RetryBudget::new(RetryBudgetSettings {
            share: Ratio::new(share).unwrap(),
            floor,
        })
    }

    /// Returns a budget that is empty at `now`.
    fn spent(share: f64, floor: f64, now: u64) -> RetryBudget {
        let budget = budget(share, floor);
        assert_eq!((0..100).filter(|_| budget.withdraw(at(now))).count(), 20);
        budget
    }

    #[test]
    fn shows_its_balance_in_retries() {
        let budget = spent(0.5, 0.0, 0);
        (0..3).for_each(|_| budget.first_attempt(at(0)));
        assert_eq!(format!("{budget:?}"), "RetryBudget { balance: 1.5 }");
    }

    #[test]
    fn earns_by_first_attempts_and_by_time() {
        let check = |share, floor, first_attempts: usize, later: u64, expected| {
            let budget = spent(share, floor, 1_000);
            (0..first_attempts).for_each(|_| budget.first_attempt(at(1_000)));
            assert_eq!(
                budget.balance(at(1_000 + later)),
                expected,
                "{first_attempts} and {later} ms"
            );
        };
        check(0.2, 0.0, 0, 0, 0);
        check(0.2, 0.0, 4, 0, 0);
        check(0.2, 0.0, 5, 0, 1);
        check(0.2, 0.0, 1_000, 0, 20);
        check(0.2, 0.0, 0, 3_600_000, 0);
        check(0.0, 3.0, 1_000, 333, 0);
        check(0.0, 3.0, 1_000, 334, 1);
        check(0.0, 3.0, 0, 3_600_000, 20);
        check(0.2, 3.0, 10, 1_000, 5);
        check(0.0, 0.001, 0, 999_999, 0);
        check(0.0, 0.001, 0, 1_000_000, 1);
    }

    #[test]
    fn time_running_backwards_earns_nothing() {
        let budget = spent(0.2, 3.0, 10_000);
        assert!(!budget.withdraw(at(5_000)));
        assert!(!budget.withdraw(at(10_000)));
        assert!(budget.withdraw(at(10_334)));
    }

    #[test]
    fn looking_often_loses_nothing() {
        let budget = spent(0.0, 0.3, 0);
        let paid = (0..10_000).filter(|ms| budget.withdraw(at(*ms + 1))).count();
        assert_eq!(paid, 3);
        (0..1_000).for_each(|ms| budget.first_attempt(at(10_000 + ms)));
        assert_eq!(budget.balance(at(13_400)), 1);
    }

    #[test]
    fn settings_change_and_the_balance_stays() {
        let budget = spent(0.2, 0.0, 0);
        (0..10).for_each(|_| budget.first_attempt(at(0)));
        budget.reconfigure(RetryBudgetSettings {
            share: Ratio::ONE,
            floor: -1.0,
        });
        assert_eq!(budget.balance(at(0)), 2);
        budget.first_attempt(at(0));
        assert_eq!(budget.balance(at(0)), 3);
    }

    proptest! {
        #![proptest_config(cases::counted())]

        /// Compares with a balance in floating point, which may differ by rounding only.
        #[test]
        fn keeps_the_books(
            share in 0..=100u32, floor in 0..50u32,
            events in prop::collection::vec((0..500u64, any::<bool>()), 1..300),
        ) {
            let (share, floor) = (f64::from(share) / 100.0, f64::from(floor) / 10.0);
            let budget = budget(share, floor);
            let (mut now, mut naive) = (0, 20.0f64);
            // Retries less earnings since the start, and the lowest value of this so far.
            let (mut overdrawn, mut lowest) = (0.0f64, 0.0f64);
            for (pause, is_first) in events {
                now += pause;
                naive = (naive + floor * pause as f64 / 1e3).min(20.0);
                overdrawn -= floor * pause as f64 / 1e3;
                lowest = lowest.min(overdrawn);
                if is_first {
                    budget.first_attempt(at(now));
                    naive = (naive + share).min(20.0);
                    overdrawn -= share;
                    lowest = lowest.min(overdrawn);
                } else {
                    let doubtful = (naive - 1.0).abs() < 1e-2;
                    let paid = budget.withdraw(at(now));
                    prop_assert!(doubtful || paid == (naive >= 1.0), "{naive}");
                    naive -= f64::from(u8::from(paid));
                    overdrawn += f64::from(u8::from(paid));
                }
                // Checks the invariant for every span of time that ends now.
                prop_assert!(overdrawn - lowest <= 20.0 + 1e-3, "{overdrawn} {lowest}");
            }
        }
    }
}

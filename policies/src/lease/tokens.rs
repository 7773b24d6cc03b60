//! Holds the leased tokens of one owner, spent by one compare-and-swap.
//!
//! Invariant: a token is spent, collected or lost, and only one of them. None is spent after its lease has expired.
//! Of the callers that find a lease low, one is told to renew it. The expiry and the tokens are one word, so no
//! renewal can come between them. When to renew and what the store has refused are words of their own, because only
//! the number of calls of the store depends on them.

use crate::decision::Wait;
use crate::moment::Moment;
use crate::sync::{AtomicU64, Ordering::Relaxed};
use std::fmt;
use std::time::Duration;

/// Tokens on lease of one owner under one limit.
#[derive(Default)]
pub struct LeasedTokens {
    word: AtomicU64,
    /// Tokens at or below which the lease is to be renewed.
    low: AtomicU64,
    refusal: AtomicU64,
}

/// What is held at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Held {
    pub tokens: u64,
    /// Moment from which the tokens cannot be spent; up to 4.2 ms earlier than the lease was granted for.
    pub expires: Moment,
    /// Whether a caller has been told to renew, and no answer came since.
    pub asked: bool,
}

/// Tokens were spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// Tokens left of the lease.
    pub left: u64,
    /// Whether this caller must have the lease renewed.
    pub renew: bool,
}

/// Nothing was spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Short {
    /// The store has none, and told the time of the next.
    Refused(Wait),
    /// The store must be asked. `first` for one caller until the answer.
    Ask { first: bool },
}

impl LeasedTokens {
    pub fn new() -> LeasedTokens {
        LeasedTokens::default()
    }

    /// Spends `cost` tokens, or none.
    pub fn take(&self, now: Moment, cost: u64) -> Result<Spent, Short> {
        let mut word = self.load();
        loop {
            let left = word.usable(now).and_then(|tokens| tokens.checked_sub(cost));
            let wait = |cost| Refusal(self.refusal.load(Relaxed)).wait(now, cost);
            let Some(left) = left else {
                if let Some(wait) = wait(cost) {
                    return Err(Short::Refused(wait));
                }
                if word.asked() {
                    return Err(Short::Ask { first: false });
                }
                match self.replace(word, word.with_asked(true)) {
                    Ok(()) => return Err(Short::Ask { first: true }),
                    Err(seen) => word = seen,
                }
                continue;
            };
            let renew = !word.asked() && left <= self.low.load(Relaxed) && wait(u64::MAX).is_none();
            let spent = word.with_tokens(left).with_asked(word.asked() || renew);
            match self.replace(word, spent) {
                Ok(()) => return Ok(Spent { left, renew }),
                Err(seen) => word = seen,
            }
        }
    }

    /// Gives back `cost` tokens that were spent, up to `size` tokens in all. They are lost if the lease has expired:
    /// what is left of it may have been returned. Returns the tokens held.
    pub fn refund(&self, now: Moment, cost: u64, size: u64) -> u64 {
        let changed = self.change(|word| match word.usable(now) {
            Some(tokens) => word.with_tokens(tokens.saturating_add(cost).min(size).max(tokens)),
            None => word,
        });
        changed.usable(now).unwrap_or(0)
    }

    /// Adds tokens that the store has granted, and moves the expiry of all tokens to `expires` if that is later.
    /// Returns the tokens of the lease before if it has expired; they are no longer held.
    pub fn grant(&self, now: Moment, granted: u64, expires: Moment) -> u64 {
        let mut word = self.load();
        loop {
            let kept = word.usable(now).unwrap_or(0);
            let over = word.tokens() - kept;
            let expires = Word::of(expires, 0).expiry().max(word.expiry());
            let granted = Word(expires << Word::EXPIRY).with_tokens(kept.saturating_add(granted));
            match self.replace(word, granted) {
                Ok(()) => return over,
                Err(seen) => word = seen,
            }
        }
    }

    /// Takes out what goes back to the store: all tokens of a lease that has expired, and those above `keep` of
    /// another. Returns their number.
    pub fn collect(&self, now: Moment, keep: u64) -> u64 {
        let mut word = self.load();
        loop {
            let kept = word.usable(now).unwrap_or(0).min(keep);
            if kept == word.tokens() {
                return 0;
            }
            match self.replace(word, word.with_tokens(kept)) {
                Ok(()) => return word.tokens() - kept,
                Err(seen) => word = seen,
            }
        }
    }

    /// Sets the tokens at or below which a caller is told to renew.
    pub fn renew_at(&self, low: u64) {
        self.low.store(low, Relaxed);
    }

    /// Refuses takes of `cost` tokens or more until this moment, as far as the lease does not cover them.
    pub fn refuse(&self, until: Moment, cost: u64) {
        self.refusal.store(Refusal::new(until, cost).0, Relaxed);
    }

    /// Returns the wait for which takes of `cost` tokens are refused, as far as the lease does not cover them; `None` if
    /// the store would be asked.
    pub fn refused_for(&self, now: Moment, cost: u64) -> Option<Wait> {
        Refusal(self.refusal.load(Relaxed)).wait(now, cost)
    }

    /// Allows one more caller to be told to renew, after an attempt that had no answer.
    pub fn ask_again(&self) {
        self.change(|word| word.with_asked(false));
    }

    pub fn held(&self) -> Held {
        let word = self.load();
        Held {
            tokens: word.tokens(),
            expires: word.expires(),
            asked: word.asked(),
        }
    }

    /// Returns the number of tokens that could be spent now.
    pub fn balance(&self, now: Moment) -> u64 {
        self.load().usable(now).unwrap_or(0)
    }

    fn load(&self) -> Word {
        Word(self.word.load(Relaxed))
    }

    fn replace(&self, word: Word, by: Word) -> Result<(), Word> {
        self.word
            .compare_exchange_weak(word.0, by.0, Relaxed, Relaxed)
            .map(|_| ())
            .map_err(Word)
    }

    /// Replaces the word by `next` of the word; returns the new word.
    fn change(&self, next: impl Fn(Word) -> Word) -> Word {
        let mut word = self.load();
        loop {
            let changed = next(word);
            match self.replace(word, changed) {
                Ok(()) => return changed,
                Err(seen) => word = seen,
            }
        }
    }
}

impl Clone for LeasedTokens {
    fn clone(&self) -> LeasedTokens {
        let copy = |word: &AtomicU64| AtomicU64::new(word.load(Relaxed));
        LeasedTokens {
            word: copy(&self.word),
            low: copy(&self.low),
            refusal: copy(&self.refusal),
        }
    }
}

impl fmt::Debug for LeasedTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Held { tokens, expires, asked } = self.held();
        let refusal = Refusal(self.refusal.load(Relaxed));
        f.debug_struct("LeasedTokens")
            .field("tokens", &tokens)
            .field("expires", &expires)
            .field("asked", &asked)
            .field("low", &self.low.load(Relaxed))
            .field("refused_until", &refusal.until())
            .finish()
    }
}

/// Layout: expiry in units of 4.2 ms (38 bits, 36 years) | asked (1 bit) | tokens (25 bits)
#[derive(Clone, Copy)]
struct Word(u64);

impl Word {
    const ASKED: u32 = 25;
    const EXPIRY: u32 = 26;
    const MOST: u64 = (1 << Word::ASKED) - 1;
    /// Bits of a nanosecond count that the expiry leaves out.
    const UNIT: u32 = 22;
    const LAST: u64 = (1 << (64 - Word::EXPIRY)) - 1;

    /// Returns a lease whose expiry is rounded down.
    fn of(expires: Moment, tokens: u64) -> Word {
        let expiry = (expires.nanos() >> Word::UNIT).min(Word::LAST);
        Word(expiry << Word::EXPIRY).with_tokens(tokens)
    }

    const fn expiry(self) -> u64 {
        self.0 >> Word::EXPIRY
    }

    const fn expires(self) -> Moment {
        Moment::from_nanos(self.expiry() << Word::UNIT)
    }

    const fn tokens(self) -> u64 {
        self.0 & Word::MOST
    }

    const fn asked(self) -> bool {
        self.0 >> Word::ASKED & 1 == 1
    }

    /// Returns the tokens unless the lease has expired.
    fn usable(self, now: Moment) -> Option<u64> {
        (now < self.expires()).then(|| self.tokens())
    }

    fn with_tokens(self, tokens: u64) -> Word {
        Word(self.0 & !Word::MOST | tokens.min(Word::MOST))
    }

    const fn with_asked(self, asked: bool) -> Word {
        Word(self.0 & !(1 << Word::ASKED) | (asked as u64) << Word::ASKED)
    }
}

/// Layout: end in units of 66 microseconds (45 bits, 73 years) | least cost that is refused (19 bits)
#[derive(Clone, Copy)]
struct Refusal(u64);

impl Refusal {
    const COST: u32 = 19;
    const MOST: u64 = (1 << Refusal::COST) - 1;
    const UNIT: u32 = 16;

    /// Returns a refusal whose end is rounded up.
    fn new(until: Moment, cost: u64) -> Refusal {
        let until = until.nanos().div_ceil(1 << Refusal::UNIT);
        Refusal(until.min(u64::MAX >> Refusal::COST) << Refusal::COST | cost.min(Refusal::MOST))
    }

    const fn until(self) -> Moment {
        Moment::from_nanos((self.0 >> Refusal::COST) << Refusal::UNIT)
    }

    fn wait(self, now: Moment, cost: u64) -> Option<Wait> {
        let wait = self.until().since(now);
        (wait > Duration::ZERO && cost >= self.0 & Refusal::MOST).then(|| Wait::of(wait))
    }
}

#[cfg(test)]
mod tests;

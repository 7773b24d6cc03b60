//! Commands to the store and their answers.

use std::fmt::Write;
use std::time::Duration;

use policies::bucket::Quota;
use policies::lease;
use policies::sliding_window::WindowQuota;
use policies::{CalendarQuota, Every};

/// Largest whole number up to which a floating-point number is exact. The scripts know no other numbers.
pub(super) const MOST_EXACT: u64 = (1 << 53) - 1;

/// Terms of a central count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CentralTerms {
    Bucket(Quota),
    Window(WindowQuota),
    Calendar(CalendarQuota),
    /// Most requests in flight.
    Slots(u32),
}

impl CentralTerms {
    /// Longest time in which a bucket of the store fills, so that the script computes exactly: a quarter of 2^53 ns.
    pub const LONGEST_FILL: Duration = Duration::from_secs(26 * 86_400);

    /// Returns whether the store can count by these terms exactly. It refuses other terms.
    pub fn are_exact(&self) -> bool {
        match self {
            CentralTerms::Bucket(quota) => {
                // Rounded up for each token, as the central bucket does.
                let interval = quota.time_to_earn(1).as_nanos();
                interval * u128::from(quota.burst()) <= CentralTerms::LONGEST_FILL.as_nanos()
            }
            CentralTerms::Window(quota) => quota.window() >= CentralTerms::SHORTEST_WINDOW,
            CentralTerms::Calendar(_) | CentralTerms::Slots(_) => true,
        }
    }

    /// Shortest window of the store: a cell, which is a 64th of it, is a microsecond at least.
    pub const SHORTEST_WINDOW: Duration = Duration::from_micros(64);
}

/// Name of a central count in the store, without the prefix.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StoreKey {
    /// Text after the prefix: `{tag}:limit`.
    name: Box<str>,
}

impl StoreKey {
    /// Returns the name of the count of `limit` for one owner. All keys with the same `owner` lie on the same node of a
    /// cluster. The owner's bytes may be anything, but name the owner alone: its kind is part of them.
    pub fn new(owner: &str, limit: &str) -> StoreKey {
        let mut name = String::with_capacity(owner.len() + limit.len() + 3);
        name.push('{');
        escape(&mut name, owner);
        name.push_str("}:");
        name.push_str(limit);
        StoreKey { name: name.into() }
    }

    /// Returns the part that is the same for all counts of one owner: the hash tag, with its braces.
    pub fn owner(&self) -> &str {
        self.name.split_inclusive('}').next().unwrap_or_default()
    }

    /// Returns the whole key. The kind and what divides time are part of it, so that a count under other terms of
    /// that sort is another count.
    pub(super) fn full(&self, prefix: &str, terms: &CentralTerms) -> String {
        let mut key = String::with_capacity(prefix.len() + self.name.len() + 16);
        key.push_str(prefix);
        let _ = match terms {
            CentralTerms::Bucket(_) => write!(key, "b:"),
            CentralTerms::Window(quota) => write!(key, "w{}:", quota.window().as_nanos()),
            CentralTerms::Calendar(quota) => write!(key, "q{}:", every(quota.every())),
            CentralTerms::Slots(_) => write!(key, "s:"),
        };
        key.push_str(&self.name);
        key
    }
}

/// Word for a period, for keys and scripts.
pub(super) const fn every(every: Every) -> &'static str {
    match every {
        Every::Minute => "minute",
        Every::Hour => "hour",
        Every::Day => "day",
        Every::Week => "week",
        Every::Month => "month",
    }
}

/// Writes a text without braces, so that the hash tag of a key ends where it is to end. An empty tag would be no tag.
fn escape(key: &mut String, text: &str) {
    if text.is_empty() {
        key.push('%');
    }
    for letter in text.chars() {
        match letter {
            '{' => key.push_str("%7B"),
            '}' => key.push_str("%7D"),
            '%' => key.push_str("%25"),
            letter => key.push(letter),
        }
    }
}

/// What is asked of a central count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    Tokens(lease::Request),
    Slots(lease::SlotRequest),
    /// Sets what is used of a calendar quota, beside what is on lease.
    SetUsed(u64),
}

/// Answer of a central count. `None` if the request was older than the last one that was executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Tokens(Option<lease::Reply>),
    Slots(Option<lease::SlotReply>),
    Used(lease::UsedReply),
}

/// One step of one central count. Slots are asked for under [`CentralTerms::Slots`], tokens under all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    pub key: StoreKey,
    pub terms: CentralTerms,
    pub ask: Ask,
}

impl Command {
    /// Returns whether the store can execute it: what is asked fits the terms, and they can be counted exactly.
    pub(super) fn fits(&self) -> bool {
        let is_of_kind = match (&self.ask, &self.terms) {
            (Ask::Slots(_), CentralTerms::Slots(_)) | (Ask::SetUsed(_), CentralTerms::Calendar(_)) => true,
            (Ask::Slots(_) | Ask::SetUsed(_), _) => false,
            (Ask::Tokens(_), terms) => !matches!(terms, CentralTerms::Slots(_)),
        };
        is_of_kind && self.terms.are_exact()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_its_count_and_tag() {
        let bucket = CentralTerms::Bucket(Quota::new(10, Duration::from_secs(1), 20).unwrap());
        let window = CentralTerms::Window(WindowQuota::new(10, Duration::from_secs(1)).unwrap());
        let quota = CentralTerms::Calendar(CalendarQuota::new(10, Every::Month).unwrap());
        let check = |owner, limit, terms: &CentralTerms, expected: &str| {
            assert_eq!(StoreKey::new(owner, limit).full("gateway:", terms), expected);
        };
        check("t:acme", "tier", &bucket, "gateway:b:{t:acme}:tier");
        check("t:acme", "tier", &window, "gateway:w1000000000:{t:acme}:tier");
        check("t:acme", "monthly", &quota, "gateway:qmonth:{t:acme}:monthly");
        check("t:acme", "open", &CentralTerms::Slots(5), "gateway:s:{t:acme}:open");
        check("t:a}b{c%", "x", &bucket, "gateway:b:{t:a%7Db%7Bc%25}:x");
        check("", "x", &bucket, "gateway:b:{%}:x");
    }

    #[test]
    fn terms_that_a_script_computes_exactly() {
        let bucket = |count, days: u64, burst| {
            let per = Duration::from_secs(days * 86_400);
            CentralTerms::Bucket(Quota::new(count, per, burst).unwrap()).are_exact()
        };
        assert!(bucket(1, 26, 1));
        assert!(!bucket(1, 27, 1));
        assert!(bucket(1_000_000, 26, 1_000_000));
        assert!(!bucket(1_000_000, 26, 1_000_001));
        let window = |window| CentralTerms::Window(WindowQuota::new(1, window).unwrap()).are_exact();
        assert!(window(WindowQuota::LONGEST) && window(CentralTerms::SHORTEST_WINDOW));
        assert!(!window(Duration::from_nanos(63_999)));
    }
}

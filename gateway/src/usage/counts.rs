//! Counts of a series: numbers that only grow, and their text in the journal.

use std::fmt;

use crate::rejection::Reason;

/// Number of classes of a status: 1xx to 5xx.
pub const CLASSES: usize = 5;

/// Use of one series in one period.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that have ended.
    pub requests: u64,
    /// The same by class of status, 1xx first.
    pub by_class: [u64; CLASSES],
    /// Tokens that the requests cost.
    pub cost: u64,
    /// Bytes of request bodies.
    pub bytes_in: u64,
    /// Bytes of response bodies.
    pub bytes_out: u64,
    /// Requests that the gateway refused or failed, by reason, in the order of [`Reason::ALL`]; none is 0.
    pub(crate) refused: Vec<(Reason, u64)>,
}

impl Counts {
    /// Returns the place of a status in [`Counts::by_class`]. A request without an answer counts as 1xx, as in the
    /// metrics.
    pub const fn class(status: u16) -> usize {
        match status / 100 {
            0 | 1 => 0,
            2 => 1,
            3 => 2,
            4 => 3,
            _ => 4,
        }
    }

    pub const fn is_empty(&self) -> bool {
        self.requests == 0
    }

    /// Returns the refused requests by reason.
    pub fn refused(&self) -> &[(Reason, u64)] {
        &self.refused
    }

    /// Returns the number of requests that the gateway refused or failed. A caller that left is not counted.
    pub fn refusals(&self) -> u64 {
        let counted = self.refused.iter().filter(|(reason, _)| *reason != Reason::CallerGone);
        counted.map(|(_, count)| count).sum()
    }

    /// Adds requests that were refused for `reason`.
    pub fn add_refused(&mut self, reason: Reason, count: u64) {
        if count == 0 {
            return;
        }
        match self
            .refused
            .binary_search_by_key(&(reason as u8), |(known, _)| *known as u8)
        {
            Ok(place) => self.refused[place].1 += count,
            Err(place) => self.refused.insert(place, (reason, count)),
        }
    }

    pub fn add(&mut self, more: &Self) {
        self.requests += more.requests;
        for (own, more) in self.by_class.iter_mut().zip(more.by_class) {
            *own += more;
        }
        self.cost += more.cost;
        self.bytes_in += more.bytes_in;
        self.bytes_out += more.bytes_out;
        for (reason, count) in &more.refused {
            self.add_refused(*reason, *count);
        }
    }

    /// Returns what `self` has more than `before`, an earlier state of the same counts.
    pub fn since(&self, before: &Self) -> Self {
        let mut more = Self {
            requests: self.requests - before.requests,
            by_class: std::array::from_fn(|class| self.by_class[class] - before.by_class[class]),
            cost: self.cost - before.cost,
            bytes_in: self.bytes_in - before.bytes_in,
            bytes_out: self.bytes_out - before.bytes_out,
            refused: Vec::new(),
        };
        for (reason, count) in &self.refused {
            let known = before.refused.iter().find(|(known, _)| known == reason);
            more.add_refused(*reason, count - known.map_or(0, |(_, count)| *count));
        }
        more
    }

    /// Reads what [`fmt::Display`] wrote. Reasons that this version does not know are left out.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let mut number = || words.next()?.parse::<u64>().ok();
        let mut counts = Self {
            requests: number()?,
            ..Self::default()
        };
        for class in &mut counts.by_class {
            *class = number()?;
        }
        (counts.cost, counts.bytes_in, counts.bytes_out) = (number()?, number()?, number()?);
        for word in words {
            let (reason, count) = word.split_once('=')?;
            let count = count.parse().ok()?;
            if let Some(reason) = Reason::ALL.into_iter().find(|known| known.as_str() == reason) {
                counts.add_refused(reason, count);
            }
        }
        Some(counts)
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.requests)?;
        for number in self
            .by_class
            .iter()
            .chain([&self.cost, &self.bytes_in, &self.bytes_out])
        {
            write!(f, " {number}")?;
        }
        for (reason, count) in &self.refused {
            write!(f, " {}={count}", reason.as_str())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(requests: u64, refused: &[(Reason, u64)]) -> Counts {
        let mut counts = Counts {
            requests,
            by_class: [0, requests, 0, 0, 0],
            cost: 2 * requests,
            bytes_in: 3 * requests,
            bytes_out: 4 * requests,
            ..Counts::default()
        };
        for (reason, count) in refused {
            counts.add_refused(*reason, *count);
        }
        counts
    }

    #[test]
    fn sums_and_differences_are_exact() {
        let (less, more) = (
            counts(3, &[(Reason::RateLimited, 1)]),
            counts(
                7,
                &[(Reason::CallerGone, 4), (Reason::RateLimited, 1), (Reason::NoRoute, 2)],
            ),
        );
        let mut sum = less.clone();
        sum.add(&more);
        assert_eq!((sum.since(&less), sum.since(&more)), (more, less));
        assert_eq!((sum.requests, sum.refusals()), (10, 4));
    }

    #[test]
    fn the_text_is_read_back() {
        for counts in [
            Counts::default(),
            counts(u64::MAX / 4, &[]),
            counts(5, &[(Reason::NoRoute, 1), (Reason::BreakerOpen, 2)]),
        ] {
            assert_eq!(Counts::parse(&counts.to_string()), Some(counts));
        }
        let later = Counts::parse("1 0 0 0 1 0 0 0 0 not_invented=1").expect("a later reason is left out");
        assert_eq!((later.requests, later.refused().len()), (1, 0));
        for wrong in [
            "",
            "1",
            "1 0 0 0 1 0 0 0",
            "1 0 0 0 1 0 0 0 x",
            "1 0 0 0 1 0 0 0 0 no_route",
        ] {
            assert_eq!(Counts::parse(wrong), None, "{wrong}");
        }
    }
}

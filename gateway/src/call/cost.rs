//! Sums up the cost that backends state for a request, over all answers: of every attempt, fallback and part, whatever
//! their status.
//!
//! Invariant: no statement reduces what another one counts. Sums saturate, and an unreadable statement counts as the
//! route's own cost.

use http::HeaderName;

use crate::message::FieldMap;

/// Stated costs of all answers to one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StatedCost {
    /// Sum of the readable statements, in tokens.
    tokens: u64,
    /// Number of readable and of unreadable statements.
    readable: u64,
    unreadable: u64,
}

impl StatedCost {
    /// Removes the statement from an answer's head and adds it. It consists of whole numbers, in one field line or
    /// several, with or without commas between them.
    pub fn take_from(&mut self, headers: &mut FieldMap, name: &HeaderName) {
        if !headers.contains_key(name) {
            return;
        }
        for line in headers.get_all(name) {
            for text in line.as_bytes().split(|byte| *byte == b',') {
                match tokens(text.trim_ascii()) {
                    Some(tokens) => {
                        self.tokens = self.tokens.saturating_add(tokens);
                        self.readable += 1;
                    }
                    None => self.unreadable += 1,
                }
            }
        }
        headers.remove(name);
    }

    /// Adds the statements of another call for the same request.
    pub fn add(&mut self, other: Self) {
        self.tokens = self.tokens.saturating_add(other.tokens);
        self.readable = self.readable.saturating_add(other.readable);
        self.unreadable = self.unreadable.saturating_add(other.unreadable);
    }

    /// Returns the cost of the request in tokens, where `own` is the route's own cost; `None` if nothing was stated.
    pub const fn total(&self, own: u64) -> Option<u64> {
        if self.readable == 0 && self.unreadable == 0 {
            return None;
        }
        Some(self.tokens.saturating_add(self.unreadable.saturating_mul(own)))
    }

    /// Whether any statement was not a number.
    pub const fn is_partly_unreadable(&self) -> bool {
        self.unreadable > 0
    }
}

/// Parses decimal digits only; a number that is too large saturates.
fn tokens(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        Some(sum.saturating_mul(10).saturating_add(digit))
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const NAME: HeaderName = HeaderName::from_static("x-cost");

    /// Sums up answers, each given as its field lines.
    fn stated(answers: &[&[&str]]) -> StatedCost {
        let mut all = StatedCost::default();
        for lines in answers {
            let mut headers = FieldMap::new();
            for line in *lines {
                headers.append(NAME, HeaderValue::from_bytes(line.as_bytes()).expect("a value"));
            }
            let mut one = StatedCost::default();
            one.take_from(&mut headers, &NAME);
            assert!(headers.is_empty(), "it is for the gateway alone");
            all.add(one);
        }
        all
    }

    #[test]
    fn all_answers_count() {
        let check = |answers: &[&[&str]], expected: Option<u64>| {
            assert_eq!(stated(answers).total(10), expected, "{answers:?}");
        };
        check(&[], None);
        check(&[&[], &[]], None);
        check(&[&["300"]], Some(300));
        check(&[&["300"], &[]], Some(300));
        check(&[&["300"], &["5"]], Some(305));
        check(&[&["0"], &["300"]], Some(300));
        check(&[&["300"], &["0"]], Some(300));
        check(&[&["0"], &["0"]], Some(0));
        check(&[&["007"]], Some(7));
        check(&[&[" 7\t"]], Some(7));
        // Several statements in one answer.
        check(&[&["1", "2"]], Some(3));
        check(&[&["1, 2,3"]], Some(6));
        // Numbers that do not fit into 64 bits.
        check(&[&["18446744073709551615"]], Some(u64::MAX));
        check(&[&["18446744073709551616"]], Some(u64::MAX));
        check(&[&["99999999999999999999"]], Some(u64::MAX));
        check(&[&[&"9".repeat(4000)]], Some(u64::MAX));
        check(&[&["18446744073709551615"], &["1"]], Some(u64::MAX));
        check(&[&["18446744073709551615"], &["many"]], Some(u64::MAX));
    }

    #[test]
    fn what_cannot_be_read_costs_what_the_route_does() {
        for text in ["", "many", "-5", "+5", "1.5", "1e3", "0x10", "5 5", "\u{661}", "NaN"] {
            let alone = stated(&[&[text]]);
            assert_eq!(
                (alone.total(10), alone.is_partly_unreadable()),
                (Some(10), true),
                "{text}"
            );
            assert_eq!(stated(&[&["0"], &[text]]).total(10), Some(10), "{text} beside 0");
            assert_eq!(stated(&[&[text], &["300"]]).total(10), Some(310), "{text} beside 300");
        }
        assert_eq!(stated(&[&["5,"]]).total(10), Some(15));
        assert!(!stated(&[&["5"]]).is_partly_unreadable());
    }

    proptest! {
        #![proptest_config(cases::counted())]

        /// Compares with a sum that cannot overflow, in both orders of the answers.
        #[test]
        fn it_is_the_sum(costs in prop::collection::vec(any::<u64>(), 1..6)) {
            let sum = costs.iter().map(|cost| u128::from(*cost)).sum::<u128>().min(u128::from(u64::MAX));
            let texts: Vec<String> = costs.iter().map(u64::to_string).collect();
            let lines: Vec<[&str; 1]> = texts.iter().map(|text| [text.as_str()]).collect();
            let answers: Vec<&[&str]> = lines.iter().map(|line| line.as_slice()).collect();
            let backwards: Vec<&[&str]> = answers.iter().rev().copied().collect();
            prop_assert_eq!(stated(&answers).total(1).map(u128::from), Some(sum));
            prop_assert_eq!(stated(&backwards), stated(&answers));
        }
    }
}

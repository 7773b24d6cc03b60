//! Regular expressions in the conditions of a route.
//!
//! An expression is compiled to a deterministic automaton once, when the config is read. A match then takes one step for
//! each byte of the value and allocates nothing, whatever the value is. Automata of two expressions can be compared, so
//! two routes whose values exclude each other are told apart.

use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use regex_automata::Anchored;
use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::primitives::StateID;
use regex_automata::util::{start, syntax};
use regex_syntax::hir::{Hir, Look};

/// Maximum length of an expression in bytes.
pub const LONGEST: usize = 1024;
/// Maximum memory of one automaton, in bytes. Its construction is bounded by four times as much.
const LARGEST: usize = 256 << 10;
/// Maximum number of pairs of states that a comparison of two automata looks at.
const MOST_PAIRS: usize = 20_000;

/// A compiled expression that a whole value must match. Classes such as `\d` and `\w` are those of ASCII.
#[derive(Clone)]
pub struct Regex {
    text: Arc<str>,
    automaton: Arc<dense::DFA<Vec<u32>>>,
}

/// A reason why an expression cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegexError {
    /// The expression has more than [`LONGEST`] bytes.
    TooLong,
    /// The expression is malformed; holds the reason.
    Syntax(String),
    /// The automaton would be too large.
    TooLarge,
}

impl fmt::Display for RegexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "an expression has at most {LONGEST} bytes"),
            Self::Syntax(why) => f.write_str(why),
            Self::TooLarge => write!(
                f,
                "it needs more than {} KiB of memory: make its repetitions smaller",
                LARGEST >> 10
            ),
        }
    }
}

impl std::error::Error for RegexError {}

impl Regex {
    /// Compiles an expression in the syntax of the `regex` crate, without Unicode classes.
    ///
    /// # Errors
    /// [`RegexError`], which prints as a sentence without a full stop.
    pub fn parse(text: &str) -> Result<Self, RegexError> {
        if text.len() > LONGEST {
            return Err(RegexError::TooLong);
        }
        let config = syntax::Config::new().unicode(false).utf8(false).nest_limit(50);
        let parsed = syntax::parse_with(text, &config).map_err(|error| RegexError::Syntax(reason(&error)))?;
        // Anchors are added to the parsed form: text around it could be swallowed by a comment or a group.
        let whole = Hir::concat(vec![Hir::look(Look::Start), parsed, Hir::look(Look::End)]);
        let nfa = thompson::Compiler::new()
            .configure(thompson::Config::new().utf8(false).nfa_size_limit(Some(LARGEST)))
            .build_from_hir(&whole)
            .map_err(|_| RegexError::TooLarge)?;
        let automaton = dense::Builder::new()
            .configure(
                dense::Config::new()
                    .start_kind(StartKind::Anchored)
                    .dfa_size_limit(Some(LARGEST))
                    .determinize_size_limit(Some(4 * LARGEST)),
            )
            .build_from_nfa(&nfa)
            .map_err(|_| RegexError::TooLarge)?;
        Ok(Self {
            text: text.into(),
            automaton: Arc::new(automaton),
        })
    }

    /// Returns whether there is no value that matches.
    pub fn matches_nothing(&self) -> bool {
        Self::parse("(?s).*").is_ok_and(|all| self.excludes(&all))
    }

    /// Returns the expression as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns whether the whole value matches.
    pub fn matches(&self, value: &[u8]) -> bool {
        let mut state = self.begin();
        for byte in value {
            state = self.automaton.next_state(state, *byte);
            if self.automaton.is_dead_state(state) {
                return false;
            }
        }
        self.ends_in(state)
    }

    /// Returns true only if no value matches both expressions. Returns false as well if that takes too long to find out.
    pub(super) fn excludes(&self, other: &Self) -> bool {
        let mut seen = HashSet::new();
        let mut left = vec![(self.begin(), other.begin())];
        while let Some((one, two)) = left.pop() {
            if self.ends_in(one) && other.ends_in(two) {
                return false;
            }
            for byte in 0..=u8::MAX {
                let next = (
                    self.automaton.next_state(one, byte),
                    other.automaton.next_state(two, byte),
                );
                let is_dead = self.automaton.is_dead_state(next.0) || other.automaton.is_dead_state(next.1);
                if !is_dead && seen.insert(next) {
                    left.push(next);
                }
            }
            if seen.len() > MOST_PAIRS {
                return false;
            }
        }
        true
    }

    fn begin(&self) -> StateID {
        let start = start::Config::new().anchored(Anchored::Yes);
        self.automaton
            .start_state(&start)
            .expect("the automaton is anchored and stops at no byte")
    }

    fn ends_in(&self, state: StateID) -> bool {
        self.automaton.is_match_state(self.automaton.next_eoi_state(state))
    }
}

/// Returns the last line of the parser's message, which is the reason; the lines before it draw the expression.
fn reason(error: &regex_syntax::Error) -> String {
    let told = error.to_string();
    let last = told.lines().last().unwrap_or_default();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/", self.text)
    }
}

impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Regex {}

impl Hash for Regex {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn regex(text: &str) -> Regex {
        Regex::parse(text).expect("well formed")
    }

    #[test]
    fn the_whole_value_must_match() {
        let check = |text: &str, value: &str, expected: bool| {
            assert_eq!(regex(text).matches(value.as_bytes()), expected, "/{text}/ {value}");
        };
        check("[0-9]+", "42", true);
        check("[0-9]+", "", false);
        check("[0-9]+", "42a", false);
        check("[0-9]+", "a42", false);
        check("[0-9]+", "4\n2", false);
        check("a|ab", "ab", true);
        check("a|b", "ab", false);
        check("(?i)v[12]", "V2", true);
        check("", "", true);
        check("", "a", false);
        check("^a$", "a", true);
        check("(?m)a$", "a\nb", false);
        check("(?x) a # a comment", "a", true);
        check("caf\u{e9}", "caf\u{e9}", true);
        check("(?s).*", "a\nb", true);
        check(".*", "a\nb", false);
        check(r"\bfoo\b.*", "foo bar", true);
    }

    #[test]
    fn mistakes_are_told() {
        for (text, told) in [
            ("(", "unclosed group"),
            ("a)(b", "unopened group"),
            ("[a", "unclosed character class"),
            ("*", "repetition operator missing expression"),
            (r"\p{Greek}", "Unicode-aware Unicode class not found"),
            ("(?<=a)b", "look-around"),
        ] {
            match Regex::parse(text) {
                Err(RegexError::Syntax(why)) => assert!(!why.contains('\n') && why.len() > 5, "{text}: {why} ({told})"),
                other => panic!("{text}: {other:?}"),
            }
        }
        assert_eq!(Regex::parse(&"a".repeat(1025)), Err(RegexError::TooLong));
        for large in [
            "((a{1,1000}){1,1000}){1,1000}",
            "[ab]*a[ab]{16}",
            "(x{0,900}y{0,900}){0,50}",
        ] {
            assert_eq!(Regex::parse(large), Err(RegexError::TooLarge), "{large}");
        }
        assert!(Regex::parse(&"(".repeat(500)).is_err());
    }

    #[test]
    fn an_expression_that_no_value_matches_is_found() {
        for (text, expected) in [
            (r"a\bb", true),
            ("a^b", true),
            ("[a&&b]", true),
            ("", false),
            (".", false),
        ] {
            assert_eq!(regex(text).matches_nothing(), expected, "{text}");
        }
    }

    #[test]
    fn expressions_without_a_common_value_exclude_each_other() {
        let check = |one: &str, other: &str, expected: bool| {
            assert_eq!(regex(one).excludes(&regex(other)), expected, "/{one}/ /{other}/");
            assert_eq!(regex(other).excludes(&regex(one)), expected, "/{other}/ /{one}/");
        };
        check("[0-9]+", "[a-z]+", true);
        check("[0-9]*", "[a-z]*", false);
        check("[0-9]+", "4.", false);
        check("a.*", "b.*", true);
        check("a.*", ".*b", false);
        check("v1", "v2", true);
        check("(?i)v1", "V1", false);
        check(r"\d{3}", r"\d{4}", true);
    }

    proptest! {
        #![proptest_config(cases::counted())]

        /// A value that matches both of two expressions shows that they do not exclude each other.
        #[test]
        fn no_value_matches_two_that_exclude_each_other(
            one in "[ab|*]{1,6}",
            other in "[ab|*]{1,6}",
            values in prop::collection::vec("[ab]{0,5}", 1..20),
        ) {
            if let (Ok(one), Ok(other)) = (Regex::parse(&one), Regex::parse(&other)) {
                let both = values.iter().any(|value| one.matches(value.as_bytes()) && other.matches(value.as_bytes()));
                prop_assert!(!(both && one.excludes(&other)));
            }
        }
    }
}

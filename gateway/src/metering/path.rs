//! Places of values in the JSON of an answer.

use std::fmt;

/// Most steps of a path.
pub(super) const MOST_STEPS: usize = 12;
/// Most paths of a route.
pub(super) const MOST_PATHS: usize = 64;
/// Longest name of a step, in bytes.
pub(super) const LONGEST_NAME: usize = 64;
/// Most values that are added up.
pub const MOST_SUMMANDS: usize = 8;

/// One step from an object or array into it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Member of this name.
    Name(Box<str>),
    /// Every member or element.
    Each,
}

/// Path from the top of a document, such as `usage.total_tokens` or `choices.*.text`.
#[derive(Clone, PartialEq, Eq)]
pub struct AnswerPath(Vec<Step>);

/// What is looked for at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A whole number, the summand of this index.
    Number(usize),
    Text,
}

/// All paths of a route.
#[derive(Debug, Default)]
pub struct Paths {
    all: Vec<(AnswerPath, Wanted)>,
    summands: usize,
}

impl AnswerPath {
    /// Parses steps with dots between them; `*` is every member or element.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let steps: Vec<_> = text.split('.').collect();
        if steps.len() > MOST_STEPS {
            return Err("has more than 12 steps");
        }
        let step = |step: &&str| match *step {
            "" => Err("has an empty step"),
            "*" => Ok(Step::Each),
            name if name.len() > LONGEST_NAME => Err("has a name of more than 64 bytes"),
            name if name.contains(char::is_whitespace) => Err("has a space in it"),
            name if name.contains(['[', ']', '/', '$']) => Err("is not steps with dots between them"),
            name => Ok(Step::Name(name.into())),
        };
        steps.iter().map(step).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for AnswerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, step) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str(".")?;
            }
            match step {
                Step::Name(name) => f.write_str(name)?,
                Step::Each => f.write_str("*")?,
            }
        }
        Ok(())
    }
}

/// As it is written, for comparisons of configs.
impl fmt::Debug for AnswerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Paths {
    /// Collects paths. Each of `usage` is a value that is added up, with the paths at which it may stand. `texts` lead to
    /// what was generated. Paths beyond `MOST_PATHS` and values beyond `MOST_SUMMANDS` are left out.
    pub fn new(usage: impl IntoIterator<Item = Vec<AnswerPath>>, texts: impl IntoIterator<Item = AnswerPath>) -> Self {
        let mut all = Self::default();
        for (number, alternatives) in usage.into_iter().take(MOST_SUMMANDS).enumerate() {
            all.summands = number + 1;
            all.all
                .extend(alternatives.into_iter().map(|path| (path, Wanted::Number(number))));
        }
        all.all.extend(texts.into_iter().map(|path| (path, Wanted::Text)));
        all.all.truncate(MOST_PATHS);
        all
    }

    /// Returns the bits of all paths.
    pub(super) fn top(&self) -> u64 {
        match self.all.len() {
            MOST_PATHS => u64::MAX,
            count => (1 << count) - 1,
        }
    }

    /// Returns those of `paths` whose step number `depth`, from 0, admits `name`; `None` is an element of an array.
    pub(super) fn step(&self, paths: u64, depth: usize, name: Option<&[u8]>) -> u64 {
        let admits = |(path, _): &(AnswerPath, Wanted)| match path.0.get(depth) {
            Some(Step::Each) => true,
            Some(Step::Name(wanted)) => name.is_some_and(|name| name == wanted.as_bytes()),
            None => false,
        };
        let mut left = 0;
        let mut bits = paths;
        while bits != 0 {
            let number = bits.trailing_zeros();
            bits &= bits - 1;
            if admits(&self.all[number as usize]) {
                left |= 1 << number;
            }
        }
        left
    }

    /// Returns what is wanted of the value at `depth` to which `paths` have led.
    pub(super) fn ends(&self, paths: u64, depth: usize) -> impl Iterator<Item = Wanted> + '_ {
        let at = move |number: &usize| paths & (1 << number) != 0;
        let all = self.all.iter().enumerate();
        all.filter(move |(number, (path, _))| at(number) && path.0.len() == depth)
            .map(|(_, (_, wanted))| *wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_steps_with_dots_between_them() {
        for good in [
            "usage.total_tokens",
            "a",
            "choices.*.delta.content",
            "*.a",
            "\u{e4}.b-c",
        ] {
            assert_eq!(AnswerPath::parse(good).expect(good).to_string(), good);
        }
        let long = "n".repeat(65);
        for wrong in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "a b",
            "$.a",
            "a[0]",
            "a/b",
            "1.2.3.4.5.6.7.8.9.10.11.12.13",
            &long,
        ] {
            assert!(AnswerPath::parse(wrong).is_err(), "{wrong}");
        }
    }
}

//! What is wrong with a config: one value a mistake, so that all can be reported in one go.
//!
//! Reading and compiling push mistakes and carry on; only the end result decides whether there is a config.

use super::span::Span;

/// The stable word for a kind of mistake, for people who grep and for machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The file could not be read.
    Unreadable,
    /// Not YAML, or more of it than a config may hold.
    Syntax,
    UnknownKey,
    DuplicateKey,
    MissingKey,
    /// Keys that exclude each other, or a value that another one forbids.
    Conflict,
    WrongType,
    BadValue,
    OutOfRange,
    /// Part of the language, but this build would not act on it.
    NotBuilt,
    UnsetVariable,
    QuotedVariable,
    /// A name that nothing of that kind has.
    UnknownName,
    /// A limit longer than the one it lies within.
    OverParent,
    /// Parts that wait for each other.
    Cycle,
    /// Works, but probably not as meant; only ever a warning.
    Doubtful,
}

impl Code {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Syntax => "syntax",
            Self::UnknownKey => "unknown_key",
            Self::DuplicateKey => "duplicate_key",
            Self::MissingKey => "missing_key",
            Self::Conflict => "conflict",
            Self::WrongType => "wrong_type",
            Self::BadValue => "bad_value",
            Self::OutOfRange => "out_of_range",
            Self::NotBuilt => "not_built",
            Self::UnsetVariable => "unset_variable",
            Self::QuotedVariable => "quoted_variable",
            Self::UnknownName => "unknown_name",
            Self::OverParent => "over_parent",
            Self::Cycle => "cycle",
            Self::Doubtful => "doubtful",
        }
    }
}

/// One mistake: what, where, and what was probably meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    pub code: Code,
    /// `None` if it lies in what was *not* written.
    pub at: Option<Span>,
    /// One sentence without a full stop; names the key by its path.
    pub message: String,
    /// A few words under the caret.
    pub label: Option<String>,
    /// The probable fix.
    pub hint: Option<String>,
    /// Other places that the reader must see to understand this one, each with a few words.
    pub related: Vec<(Span, String)>,
    /// The line holds a secret: say where it is, but do not show it.
    pub secret: bool,
}

impl Mistake {
    pub fn new(code: Code, at: impl Into<Option<Span>>, message: impl Into<String>) -> Self {
        Self {
            code,
            at: at.into(),
            message: message.into(),
            label: None,
            hint: None,
            related: Vec::new(),
            secret: false,
        }
    }

    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Keeps the line out of what is shown.
    #[must_use]
    pub fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// Adds another place; a default (`None`) has none to show.
    #[must_use]
    pub fn related(mut self, at: impl Into<Option<Span>>, label: impl Into<String>) -> Self {
        self.related.extend(at.into().map(|span| (span, label.into())));
        self
    }
}

/// Every mistake found so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    pub fn push(&mut self, mistake: Mistake) {
        self.0.push(mistake);
    }

    pub fn extend(&mut self, mistakes: impl IntoIterator<Item = Mistake>) {
        self.0.extend(mistakes);
    }

    pub fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// In the order of the file, those without a place last.
    pub fn sorted(&self) -> Vec<&Mistake> {
        let mut all: Vec<_> = self.0.iter().collect();
        all.sort_by_key(|mistake| (mistake.at.is_none(), mistake.at));
        all
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Mistake> {
        self.0.iter()
    }
}

impl From<Mistake> for Mistakes {
    fn from(mistake: Mistake) -> Self {
        Self(vec![mistake])
    }
}

//! Mistakes of a config: one for each wrong value, so that all can be reported at once.
//!
//! Reading and compiling record mistakes and continue. Only at the end is it decided whether the config is valid.

use super::span::Span;

/// Stable name for a kind of mistake, for people who search and for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The file could not be read.
    Unreadable,
    /// Not valid YAML, or more of it than a config may hold.
    Syntax,
    UnknownKey,
    DuplicateKey,
    MissingKey,
    /// Keys that exclude each other, or a value that another value forbids.
    Conflict,
    WrongType,
    BadValue,
    OutOfRange,
    /// A key of the language that has no effect in this build.
    NotBuilt,
    UnsetVariable,
    QuotedVariable,
    /// A reference to a name that does not exist.
    UnknownName,
    /// A limit that is longer than the limit that contains it.
    OverParent,
    /// Parts that wait for each other in a circle.
    Cycle,
    /// Valid, but probably not intended; always a warning.
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

/// One mistake: what is wrong, where, and what was probably meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    pub code: Code,
    /// Place of the mistake; `None` if something is missing.
    pub at: Option<Span>,
    /// One sentence without a full stop that names the key by its path.
    pub message: String,
    /// A few words for the marked place.
    pub label: Option<String>,
    /// The probable fix.
    pub hint: Option<String>,
    /// Other places that explain the mistake, each with a few words.
    pub related: Vec<(Span, String)>,
    /// Whether the line holds a secret: only its place is then shown.
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

    /// Returns what is wrong in one sentence, without its place.
    pub fn sentence(&self) -> String {
        let mut text = self.message.clone();
        if let Some(label) = &self.label {
            text.push_str(&format!(": it {label}"));
        }
        if let Some(hint) = &self.hint {
            text.push_str(&format!("; {hint}"));
        }
        text
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

    /// Hides the line, because it holds a secret.
    #[must_use]
    pub fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// Adds another place. A default (`None`) has no place to show.
    #[must_use]
    pub fn related(mut self, at: impl Into<Option<Span>>, label: impl Into<String>) -> Self {
        self.related.extend(at.into().map(|span| (span, label.into())));
        self
    }
}

/// All mistakes found so far.
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

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Mistake> {
        self.0.iter_mut()
    }

    /// Returns the mistake that was found last.
    pub fn last_mut(&mut self) -> Option<&mut Mistake> {
        self.0.last_mut()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the mistakes in the order of the file; those without a place come last.
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

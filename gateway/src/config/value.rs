//! A node of a tree with the key that it belongs to, and what it can be asked.
//!
//! Knows nothing of the types that are read from it. A wrong value is reported at once and yields `None`.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::asked::Asked;
use super::forms;
use super::mistake::{Code, Mistake, Mistakes};
use super::scalar::{Scalar, Wrong, is_off};
use super::single;
use super::span::{At, Span};
use super::tree::{Key, Kind, Node};
use super::unknown::Unknown;
use super::variables::{self, Problem};

/// What a map must be whose keys are names.
pub(super) const NAMED: &str = "a map keyed by name";

/// State shared by all values of one file.
pub(super) struct Context<'a> {
    /// How a file that the config names begins; `None` for the config itself.
    pub beginning: Option<&'static str>,
    /// Folder that relative paths in the config start from.
    pub base_dir: &'a Path,
    pub env: &'a dyn Fn(&str) -> Option<String>,
    pub mistakes: RefCell<Mistakes>,
    pub warnings: RefCell<Mistakes>,
    /// Keys that no section asked for. They are reported at the end, because hints need the keys of all sections.
    pub unknown: RefCell<Vec<Unknown>>,
    /// Files that are read with the config.
    pub files: RefCell<Vec<At<PathBuf>>>,
    /// Record of the keys that are asked for, if it is wanted.
    pub asked: Option<RefCell<Asked>>,
}

impl<'a> Context<'a> {
    pub(super) fn new(base_dir: &'a Path, env: &'a dyn Fn(&str) -> Option<String>, mistakes: Mistakes) -> Self {
        Self {
            beginning: None,
            base_dir,
            env,
            mistakes: RefCell::new(mistakes),
            warnings: RefCell::default(),
            unknown: RefCell::default(),
            files: RefCell::default(),
            asked: None,
        }
    }

    /// Returns an empty context for a trial reading whose result is discarded.
    pub(super) fn scratch(&self) -> Self {
        Self {
            beginning: self.beginning,
            ..Self::new(self.base_dir, self.env, Mistakes::default())
        }
    }

    /// Returns what a section is called in messages. The path of the whole file is empty.
    pub(super) fn called(&self, path: &str) -> String {
        match (path, self.beginning) {
            ("", None) => "the config".to_owned(),
            ("", Some(_)) => "the file".to_owned(),
            (path, _) => format!("`{path}`"),
        }
    }

    /// Returns whether no mistake was found so far.
    pub(super) fn is_clean(&self) -> bool {
        self.mistakes.borrow().is_empty() && self.unknown.borrow().is_empty()
    }
}

/// A node and the key that it belongs to.
#[derive(Clone)]
pub(super) struct Value<'a> {
    pub node: &'a Node,
    /// Place of the key, or of the node if it has no key.
    pub key: Span,
    /// Path in messages, such as `backends.users.retry`; empty for the whole file.
    pub path: String,
    pub cx: &'a Context<'a>,
    /// Suggests what was meant, if the value is of the wrong kind.
    pub filled: Option<fn(&Value<'_>) -> Option<String>>,
    /// Suggestion that is already known, as a whole sentence.
    pub hint: Option<String>,
}

impl<'a> Value<'a> {
    pub(super) fn new(node: &'a Node, key: Span, path: String, cx: &'a Context<'a>) -> Self {
        Self {
            node,
            key,
            path,
            cx,
            filled: None,
            hint: None,
        }
    }

    pub(super) fn entries(&self, expected: &str) -> Option<&'a [(Key, Rc<Node>)]> {
        match &self.node.kind {
            Kind::Map(entries) => Some(entries),
            Kind::Scalar { .. } if self.node.is_null() => Some(&[]),
            _ => self.wrong_type(expected),
        }
    }

    /// Returns the items of a list; any other value counts as a list of one.
    pub(super) fn items(&self) -> Vec<Self> {
        match &self.node.kind {
            Kind::List(items) => items
                .iter()
                .enumerate()
                .map(|(index, node)| Self::new(node, node.span, format!("{}[{index}]", self.path), self.cx))
                .collect(),
            _ => vec![self.clone()],
        }
    }

    /// Returns whether the value is `off`, with or without quotes, or `false`.
    pub(super) fn is_off(&self) -> bool {
        match &self.node.kind {
            Kind::Scalar { text, plain } => is_off(text) && (*plain || text != "false"),
            Kind::List(_) | Kind::Map(_) => false,
        }
    }

    /// Returns the same value with a hint from `told` for words that mean on or off.
    pub(super) fn switchable(&self, told: fn(&str) -> Option<String>) -> Self {
        Self {
            hint: self.text().and_then(told).or_else(|| self.hint.clone()),
            ..self.clone()
        }
    }

    /// Returns the text of a single value.
    pub(super) fn text(&self) -> Option<&'a str> {
        match &self.node.kind {
            Kind::Scalar { text, .. } if !self.node.is_null() => Some(text),
            _ => None,
        }
    }

    /// Returns whether the value is exactly this word, without quotes.
    pub(super) fn is_word(&self, word: &str) -> bool {
        matches!(&self.node.kind, Kind::Scalar { text, plain: true } if text == word)
    }

    /// Returns whether the value is a single one without quotes or variables.
    pub(super) fn is_plain(&self) -> bool {
        matches!(&self.node.kind, Kind::Scalar { plain: true, .. }) && !self.mentions_variable()
    }

    pub(super) fn is_map(&self) -> bool {
        matches!(self.node.kind, Kind::Map(_))
    }

    pub(super) fn is_list(&self) -> bool {
        matches!(self.node.kind, Kind::List(_))
    }

    /// Reads a single value.
    pub(super) fn scalar<T: Scalar>(&self) -> Option<At<T>> {
        let Kind::Scalar { text, plain } = &self.node.kind else {
            let only = single::only_item(self.node).map(|only| format!("did you mean `{only}`?"));
            let only = T::NO_SINGLE
                .map(str::to_owned)
                .or(only)
                .or_else(|| single::placeholder(self.node));
            let value = Self {
                hint: self.hint.clone().or(only),
                ..self.clone()
            };
            return value.wrong_type(T::EXPECTED);
        };
        if self.node.is_null() {
            let message = format!("`{}` must be {}", self.path, T::EXPECTED);
            let mistake = Mistake::new(Code::WrongType, self.key, message).label("has no value");
            self.push(mistake.hint("write one, or leave the key out"));
            return None;
        }
        let expanded = self.expand(text, *plain)?;
        let value = match T::parse(expanded.as_deref().unwrap_or(text)) {
            Ok(_) if T::UNQUOTED && !plain => {
                Err(Wrong::new(Code::WrongType, "is text, because it is quoted").hint("remove the quotes"))
            }
            other => other,
        };
        match value {
            Ok(value) => Some(At::written(value, self.node.span)),
            Err(wrong) => {
                let message = match wrong.code {
                    Code::NotBuilt => format!("`{}` asks for what is not built yet", self.path),
                    _ => format!("`{}` must be {}", self.path, T::EXPECTED),
                };
                let mut mistake = Mistake::new(wrong.code, self.node.span, message).label(wrong.label);
                // The value of a variable may be a secret, and a hint would repeat it.
                mistake.hint = wrong.hint.filter(|_| expanded.is_none());
                if let Some(meant) = variables::meant(text).filter(|_| *plain) {
                    mistake.hint = Some(meant);
                }
                mistake.secret = T::SECRET && expanded.is_none();
                self.push(mistake);
                None
            }
        }
    }

    /// Replaces variables in the text. Returns `Some(None)` if there were none.
    pub(super) fn expand(&self, text: &str, plain: bool) -> Option<Option<String>> {
        if !plain {
            let Some(variable) = variables::find(text) else {
                return Some(text.contains("$${").then(|| variables::unescape(text)));
            };
            let message = format!("`{variable}` in quotes is not replaced by its value");
            self.push(
                Mistake::new(Code::QuotedVariable, self.node.span, message)
                    .label("would be taken literally")
                    .hint(
                        "remove the quotes, on a line of its own if it stands in `{ }`; to mean it literally, write `$${`"
                            .to_owned()
                            + &variables::unset_in(variable, self.cx.env).unwrap_or_default(),
                    ),
            );
            return None;
        }
        match variables::expand(text, self.cx.env) {
            Ok(expanded) => Some(expanded),
            Err(Problem::Unset(name)) => {
                let message = format!("the environment variable `{name}` is not set");
                let hint = format!("set it, or give it a default: `${{{name}:-...}}`");
                self.push(Mistake::new(Code::UnsetVariable, self.node.span, message).hint(hint));
                None
            }
            Err(Problem::Malformed) => {
                let mistake = Mistake::new(Code::BadValue, self.node.span, "`${` begins no variable here");
                self.push(mistake.hint("write `${NAME}`, or `$${` for a literal `${`"));
                None
            }
        }
    }

    /// Returns whether any part of the text comes from the environment.
    pub(super) fn mentions_variable(&self) -> bool {
        matches!(&self.node.kind, Kind::Scalar { text, .. } if variables::find(text).is_some())
    }

    pub(super) fn push(&self, mistake: Mistake) {
        self.cx.mistakes.borrow_mut().push(mistake);
    }

    pub(super) fn wrong_type<T>(&self, expected: &str) -> Option<T> {
        let found = match &self.node.kind {
            Kind::Scalar { .. } if self.node.is_null() => "has no value",
            Kind::Scalar { .. } => "is a single value",
            Kind::List(_) => "is a list",
            Kind::Map(_) => "is a map",
        };
        let at = match &self.node.kind {
            Kind::Scalar { .. } if !self.node.is_null() => self.node.span,
            _ => self.key,
        };
        let subject = self.cx.called(&self.path);
        let mut mistake = Mistake::new(Code::WrongType, at, format!("{subject} must be {expected}")).label(found);
        mistake.hint = self.hint.clone().or_else(|| {
            let filled = self.filled?(self)?;
            Some(format!("did you mean `{filled}`?"))
        });
        if expected == NAMED && mistake.hint.is_none() && self.path == "routes" {
            mistake.hint = forms::of_key("Config", "routes").map(str::to_owned);
        }
        if expected == NAMED && mistake.hint.is_none() {
            let key = self.path.rsplit('.').next().unwrap_or_default();
            mistake.hint = Some(format!(
                "each stands under its name, as in `{key}: {{ NAME: {{ ... }} }}`"
            ));
        }
        if self.path.is_empty() && mistake.hint.is_none() {
            mistake.hint = self.cx.beginning.map(str::to_owned);
        }
        self.push(mistake);
        None
    }
}

//! The values that a template may use at its place in the config.
//!
//! Invariant: a compiled template has no placeholder that a request cannot fill.

use std::collections::HashSet;

use crate::config::{At, Code, Mistake, Span, written};
use crate::plan::compile::compiler::Compiler;
use crate::template::{Placeholder, Syntax, Template, Why};

/// What stands outside of the parts of an aggregate.
const OF_ROUTES: &str = "here there are `{path.NAME}`, `{query.NAME}`, `{header.NAME}` and `{claim.NAME}`";

/// The values that a template may use at its place.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    /// Path parameters of the route.
    pub parameters: &'a HashSet<String>,
    /// Parts of the aggregate; empty outside of one.
    pub parts: &'a [&'a str],
    /// True if the request body is available.
    pub body: bool,
    /// Whether there is an array element (`for_each`).
    pub item: Item,
}

/// Whether a template may use an element of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item {
    Each,
    /// The template is filled once for all elements.
    BeforeEach,
    NoneInPart,
    OutsideOfParts,
}

impl<'a> Scope<'a> {
    pub(super) fn of_route(parameters: &'a HashSet<String>) -> Self {
        Self {
            parameters,
            parts: &[],
            body: false,
            item: Item::OutsideOfParts,
        }
    }

    /// Returns the scope of what is decided once for all elements.
    pub(super) fn before_each(&self) -> Self {
        let item = match self.item {
            Item::Each => Item::BeforeEach,
            other => other,
        };
        Self { item, ..*self }
    }

    /// Checks that `placeholder` can be filled, and reports it if not.
    pub(super) fn admits(&self, compiler: &mut Compiler<'_>, placeholder: &Placeholder, at: Option<Span>) -> bool {
        let (kind, name, known): (_, &str, _) = match placeholder {
            Placeholder::Path(name) => ("path parameter", name, self.parameters.contains(&**name)),
            Placeholder::Part { part, .. } => ("part", part, self.parts.contains(&&**part)),
            Placeholder::Body(_) if !self.body => {
                let why = "`{body}` can only be used in the parts of an aggregate";
                compiler.mistake(Mistake::new(Code::BadValue, at, why).hint(OF_ROUTES));
                return false;
            }
            Placeholder::Item(_) if self.item != Item::Each => {
                let (why, hint) = match self.item {
                    Item::OutsideOfParts => (
                        "`{item}` can only be used in the parts of an aggregate",
                        Some(OF_ROUTES),
                    ),
                    Item::BeforeEach => (
                        "`when` and `for_each` are decided once, before there is an `{item}`: they cannot look at it",
                        Some("look at what the whole part depends on, such as `\"{part.NAME.FIELD}\"`"),
                    ),
                    Item::NoneInPart | Item::Each => (
                        "`{item}` is an element of `for_each`, which this part does not have",
                        Some("write `for_each: { in: \"{part.NAME.FIELD}\" }`"),
                    ),
                };
                let mistake = Mistake::new(Code::BadValue, at, why);
                compiler.mistake(Mistake {
                    hint: hint.map(str::to_owned),
                    ..mistake
                });
                return false;
            }
            _ => return true,
        };
        if known {
            return true;
        }
        let mut names: Vec<_> = match placeholder {
            Placeholder::Path(_) => self.parameters.iter().map(String::as_str).collect(),
            _ => self.parts.to_vec(),
        };
        names.sort_unstable();
        let hint = if names.is_empty() {
            "there are none".to_owned()
        } else {
            format!("there are: {}", names.join(", "))
        };
        compiler.mistake(Mistake::new(Code::UnknownName, at, format!("there is no {kind} `{name}`")).hint(hint));
        false
    }
}

/// Compiles a template and checks that all of its placeholders exist.
pub(super) fn template(
    compiler: &mut Compiler<'_>,
    text: &At<String>,
    place: Syntax,
    scope: &Scope<'_>,
) -> Option<Template> {
    let template = match Template::parse(text, place) {
        Ok(template) => template,
        Err(error) => {
            let mistake = Mistake::new(Code::BadValue, text.span(), error.to_string());
            let names: Vec<&str> = scope.parameters.iter().map(String::as_str).collect();
            compiler.mistake(match error.meant(text, &names) {
                Some(meant) => mistake.hint(format!("did you mean `{}`?", written(&meant))),
                None if place == Syntax::Header && matches!(error.why, Why::Unknown(_)) => {
                    mistake.hint("for literal braces, write `{{` and `}}`")
                }
                None => mistake,
            });
            return None;
        }
    };
    let mut sound = true;
    for placeholder in template.uses() {
        sound &= scope.admits(compiler, placeholder, text.span());
    }
    sound.then_some(template)
}

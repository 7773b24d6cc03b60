//! What a route changes in the header fields of its requests and answers.

use http::HeaderName;

use super::http_values;
use crate::config::asked::Shape;
use crate::config::mistake::{Code, Mistake};
use crate::config::named::NamedMap;
use crate::config::reader::{Read, keyed};
use crate::config::scalar::{Scalar, Wrong, switched_off, unknown_word};
use crate::config::single::Single;
use crate::config::span::At;
use crate::config::value::Value;

/// Header fields that a route changes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Headers {
    /// On the way to the backend.
    pub request: HeaderRules,
    /// On the way to the caller, whoever made the answer.
    pub response: HeaderRules,
}

/// Changes of header fields, in the order in which they are made.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HeaderRules {
    /// Fields that are removed.
    pub remove: Vec<At<HeaderName>>,
    /// Old name to new name. What the new name had is lost.
    pub rename: NamedMap<At<HeaderName>>,
    /// Fields in place of what was there; values may hold placeholders. A field whose placeholder has no value is
    /// removed.
    pub set: NamedMap<At<String>>,
    /// Fields beside what was there; values may hold placeholders.
    pub add: NamedMap<At<String>>,
}

/// Fields that tell a browser to take no chances with an answer; one that the answer has already stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SecurityHeaders {
    Off,
    /// For answers that no browser is to show.
    Api,
    /// For answers that are pages.
    Page,
}

impl SecurityHeaders {
    const WORDS: [&str; 3] = ["off", "api", "page"];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Api => "api",
            Self::Page => "page",
        }
    }
}

impl Scalar for SecurityHeaders {
    const EXPECTED: &'static str = "`off`, `api` or `page`";
    const NO_SINGLE: Option<&'static str> = Some(
        "write `api` for answers that programs read, or `page` for pages that browsers show: each is a whole set of fields; \
         fields of your own go into a route's `headers: { response: { set: { x-frame-options: DENY } } }`",
    );

    fn parse(text: &str) -> Result<Self, Wrong> {
        match text {
            "api" => return Ok(Self::Api),
            "page" => return Ok(Self::Page),
            "off" => return Ok(Self::Off),
            _ if switched_off(text, &Self::WORDS).is_some() => return Ok(Self::Off),
            _ => {}
        }
        let wrong = unknown_word(text, &Self::WORDS);
        Err(match &wrong.hint {
            Some(hint) if hint.starts_with("did you mean `off`") => wrong,
            _ => wrong.hint(
                "did you mean `api` or `page`? `api` is for answers that programs read, `page` for pages in browsers",
            ),
        })
    }

    fn show(&self) -> String {
        self.as_str().to_owned()
    }
}

impl HeaderRules {
    /// Where the first of them stands.
    pub fn first(&self) -> Option<crate::config::span::Span> {
        let removed = self.remove.first().and_then(At::span);
        let renamed = self.rename.iter().next().and_then(|(name, _)| name.span());
        let set = self.set.iter().next().and_then(|(name, _)| name.span());
        removed.or(renamed).or(set).or_else(|| self.add.iter().next()?.0.span())
    }
}

impl Read for Headers {
    const SINGLE: Option<Single> = Some(Single {
        maps: &[],
        sample: "{ response: { set: { x-frame-options: DENY } } }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            Some(Self {
                request: f.section("request")?,
                response: f.section("response")?,
            })
        })?
    }
}

impl Read for HeaderRules {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ remove: [$] }"],
        sample: "{ set: { x-edge: eu-1 } }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let remove: Vec<At<HeaderName>> = f.list("remove");
            let mut rename: NamedMap<At<HeaderName>> = NamedMap::default();
            if let Some(value) = f.value_of("rename", Shape::Named(&Shape::Value("the name of a header field"))) {
                keyed(&value, &mut rename, http_values::field_name, |_, value| value.scalar());
            }
            let (set, add) = (http_values::headers(f, "set"), http_values::headers(f, "add"));
            for (name, _) in set.iter() {
                if let Some((other, _)) = add.entry(name) {
                    let message = format!("`{}` both sets and adds `{name}`", f.path);
                    f.push(Mistake::new(Code::Conflict, other.span(), message).related(name.span(), "set here"));
                }
            }
            Self {
                remove,
                rename,
                set,
                add,
            }
        })
    }
}

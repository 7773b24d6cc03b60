//! What a route changes in the header fields of its requests and answers.

use http::HeaderName;

use super::http_values;
use crate::config::asked::Shape;
use crate::config::mistake::{Code, Mistake};
use crate::config::named::NamedMap;
use crate::config::reader::{Read, keyed};
use crate::config::scalar::words;
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

words! {
    /// Fields that tell a browser to take no chances with an answer; one that the answer has already stays.
    pub enum SecurityHeaders {
        Off = "off",
        /// For answers that no browser is to show.
        Api = "api",
        /// For answers that are pages.
        Page = "page",
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

//! Parses placeholders and looks up their values.

use std::fmt;

use http::HeaderName;

use super::{ABSENT, Found, NOT_TEXT, Sources, TOO_MANY, percent};
use crate::json::Selection;

/// One `{source.name}` of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placeholder {
    /// Capture of the route's path pattern.
    Path(Box<str>),
    /// First value of a query parameter.
    Query(Box<str>),
    /// First value of a header.
    Header(HeaderName),
    /// Member of the verified claims. Each step is a member name or an array index.
    Claim(Box<[Box<str>]>),
    /// Value in another part's answer. No steps: the whole answer.
    Part { part: Box<str>, steps: Box<[Box<str>]> },
    /// Value in the request's own JSON body. No steps: the whole body.
    Body(Box<[Box<str>]>),
    /// Value in the element that a part is called for. No steps: the whole element.
    Item(Box<[Box<str>]>),
}

impl Placeholder {
    /// Parses a text that is exactly one placeholder with its braces. `None` for any other text.
    pub fn alone(text: &str) -> Option<Self> {
        let name = text.strip_prefix('{')?.strip_suffix('}')?;
        (!name.contains(['{', '}'])).then(|| Self::parse(name))?
    }

    /// Returns the value, or its default if the value is absent. `None` if neither exists.
    pub fn value<'a>(&self, sources: &Sources<'a>) -> Option<Found<'a>>
    where
        Self: 'a,
    {
        self.find(sources).or_else(|_| sources.default_for(self)).ok()
    }

    /// Returns the value, or its default if the value is absent or null. `None` if neither exists or the default is
    /// null.
    pub fn value_but_null<'a>(&self, sources: &Sources<'a>) -> Option<Found<'a>>
    where
        Self: 'a,
    {
        match self.value(sources) {
            Some(found) if found.is_null() => sources.default_for(self).ok().filter(|found| !found.is_null()),
            found => found,
        }
    }

    /// Returns whether a part's answer says that there is no value: by a null at the steps or on the way, or by an
    /// answer without content. A null sent by a caller does not count; there the value is missing.
    pub fn is_nothing(&self, sources: &Sources<'_>) -> bool {
        match self {
            Self::Part { part, steps } => (sources.parts)(part).is_none_or(|answer| answer.leads_to_null(steps)),
            _ => false,
        }
    }

    /// Parses the text between the braces. `None` if it names no known source.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "body" => return Some(Self::Body(Box::default())),
            "item" => return Some(Self::Item(Box::default())),
            _ => {}
        }
        let (source, name) = text.split_once('.')?;
        if name.is_empty() {
            return None;
        }
        match source {
            "body" => steps(name).map(Self::Body),
            "item" => steps(name).map(Self::Item),
            "path" => Some(Self::Path(name.into())),
            "query" => Some(Self::Query(name.into())),
            "header" => HeaderName::from_bytes(name.as_bytes()).ok().map(Self::Header),
            "claim" => steps(name).map(Self::Claim),
            "part" => {
                let (part, rest) = name
                    .split_once('.')
                    .map_or((name, None), |(part, rest)| (part, Some(rest)));
                let steps = rest.map_or(Some(Box::default()), steps)?;
                (!part.is_empty()).then(|| Self::Part {
                    part: part.into(),
                    steps,
                })
            }
            _ => None,
        }
    }

    pub(super) fn find<'a>(&self, sources: &Sources<'a>) -> Result<Found<'a>, &'static str>
    where
        Self: 'a,
    {
        match self {
            Self::Path(name) => {
                let raw = sources.captures.get(name).ok_or(ABSENT)?;
                percent::decode(raw).map(Found::Text).ok_or(NOT_TEXT)
            }
            Self::Query(name) => {
                let value = sources.query.first(name).map_err(|_| TOO_MANY)?;
                value.map(|value| Found::Text(value.into())).ok_or(ABSENT)
            }
            Self::Header(name) => {
                let value = sources.headers.get(name).ok_or(ABSENT)?;
                std::str::from_utf8(value.as_bytes())
                    .map(|text| Found::Text(text.into()))
                    .map_err(|_| NOT_TEXT)
            }
            Self::Claim(steps) => {
                let claims = sources.claims.ok_or(ABSENT)?.value();
                let found = claims.descend(steps.iter().map(AsRef::as_ref));
                found.map(Found::Json).ok_or(ABSENT)
            }
            Self::Part { part, steps } => selected((sources.parts)(part), steps),
            Self::Body(steps) => selected(sources.body, steps),
            Self::Item(steps) => selected(sources.item, steps),
        }
    }
}

fn selected<'a>(selection: Option<&'a Selection>, steps: &[Box<str>]) -> Result<Found<'a>, &'static str> {
    let found = selection.and_then(|selection| selection.get(steps));
    found.map(Found::Json).ok_or(ABSENT)
}

fn steps(dotted: &str) -> Option<Box<[Box<str>]>> {
    dotted
        .split('.')
        .map(|step| (!step.is_empty()).then(|| step.into()))
        .collect()
}

impl fmt::Display for Placeholder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(name) => write!(f, "path.{name}"),
            Self::Query(name) => write!(f, "query.{name}"),
            Self::Header(name) => write!(f, "header.{name}"),
            Self::Claim(steps) => write!(f, "claim.{}", steps.join(".")),
            Self::Body(steps) if steps.is_empty() => f.write_str("body"),
            Self::Body(steps) => write!(f, "body.{}", steps.join(".")),
            Self::Item(steps) if steps.is_empty() => f.write_str("item"),
            Self::Item(steps) => write!(f, "item.{}", steps.join(".")),
            Self::Part { part, steps } if steps.is_empty() => write!(f, "part.{part}"),
            Self::Part { part, steps } => write!(f, "part.{part}.{}", steps.join(".")),
        }
    }
}

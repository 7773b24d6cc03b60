//! One answer made of several: which parts there are, what each contributes, and what its absence means.

use super::part::Part;
use crate::config::named::NamedMap;
use crate::config::reader::{Read, Value};
use crate::config::scalar::words;
use crate::config::span::At;

#[derive(Debug, Clone, PartialEq)]
pub struct Aggregate {
    /// Default `deny`.
    pub partial: At<Partial>,
    /// Whether the document says in `_errors` which parts failed; default false.
    pub errors: At<bool>,
    /// In the order in which they are merged; at least one.
    pub parts: NamedMap<Part>,
}

words! {
    /// What one failed part does to the whole.
    pub enum Partial { Deny = "deny", Allow = "allow" }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Fallback {
    pub value: At<serde_json::Value>,
}

impl Read for Aggregate {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            f.not_built(&["conflict", "headers"]);
            let (partial, errors) = (f.or("partial", Partial::Deny), f.or("errors", false));
            let parts = f.required_map("parts");
            Some(Self {
                partial,
                errors,
                parts: parts?,
            })
        })?
    }
}

impl Read for Fallback {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            f.not_built(&["stale", "backend"]);
            Some(Self {
                value: f.required("value")?,
            })
        })?
    }
}

//! One answer made of several: which parts there are, what each contributes, and what its absence means.

use std::time::Duration;

use http::Method;

use super::route::{above_zero, check_path, headers};
use crate::config::named::NamedMap;
use crate::config::reader::{Read, Value, any_name, keyed};
use crate::config::scalar::words;
use crate::config::span::At;
use crate::config::units::ByteSize;

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

/// One call and its place in the document. Paths into documents are dotted, and go through arrays.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    pub backend: At<String>,
    /// Path and query, with placeholders; begins with `/`.
    pub path: At<String>,
    /// Default GET.
    pub method: At<Method>,
    /// Added to the query, values with placeholders.
    pub query: NamedMap<At<String>>,
    /// Sent with the call, values with placeholders; names in lower case.
    pub headers: NamedMap<At<String>>,
    /// Parts whose results this one's placeholders use.
    pub needs: Vec<At<String>>,
    /// Whether nothing is an answer without it; default false.
    pub required: At<bool>,
    pub time_limit: Option<At<Duration>>,
    /// A longer answer is a failed part; 1B to 64MiB, default 1MiB.
    pub body_limit: At<ByteSize>,
    /// Takes this sub-document instead of the whole.
    pub target: Option<At<String>>,
    /// Only these remain; empty keeps all.
    pub keep: Vec<At<String>>,
    pub drop: Vec<At<String>>,
    /// Old name to new name, at the top of what is left.
    pub rename: NamedMap<At<String>>,
    /// Where it goes in the document; `.` merges at the root; default the part's name.
    pub group: Option<At<String>>,
    /// What stands in for an optional part that failed.
    pub fallback: Option<Fallback>,
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

impl Read for Part {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            f.not_built(&["for_each", "collection", "conflict", "body", "missing"]);
            let (backend, path) = (f.required("backend"), f.required("path"));
            check_path(f, "path", path.as_ref());
            let time_limit = f.optional("time_limit");
            above_zero(f, "time_limit", time_limit.as_ref());
            let mut query = NamedMap::default();
            if let Some(value) = f.value("query") {
                keyed(&value, &mut query, any_name, |_, value| value.scalar());
            }
            let mut rename = NamedMap::default();
            if let Some(value) = f.value("rename") {
                keyed(&value, &mut rename, any_name, |_, value| value.scalar());
            }
            Some(Self {
                method: f.or("method", Method::GET),
                query,
                headers: headers(f, "headers"),
                needs: f.list("needs"),
                required: f.or("required", false),
                time_limit,
                body_limit: f.within("body_limit", ByteSize(1 << 20), ByteSize(1)..=ByteSize(64 << 20)),
                target: f.optional("target"),
                keep: f.list("keep"),
                drop: f.list("drop"),
                rename,
                group: f.optional("group"),
                fallback: f.optional("fallback"),
                backend: backend?,
                path: path?,
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

//! Mistakes in a set of routes; each prints as a sentence that names the route.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use http::Method;

use super::pattern::PatternError;

/// Maximum number of pairs of host and path in one route; the table has one entry for each.
pub const MOST_PLACES: usize = 10_000;

/// Maximum number of routes of one host and path that have a regular expression in a condition. A request checks them
/// one by one.
pub const MOST_REGEXES: usize = 100;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mistake {
    NoPath {
        route: Arc<str>,
    },
    Path {
        route: Arc<str>,
        text: String,
        error: PatternError,
    },
    Host {
        route: Arc<str>,
        text: String,
    },
    /// More than [`MOST_PLACES`] pairs of host and path.
    TooManyPlaces {
        route: Arc<str>,
    },
    /// More than [`MOST_REGEXES`] routes of one path with regular expressions.
    TooManyRegexes {
        route: Arc<str>,
        path: String,
    },
    /// CONNECT or TRACE.
    Method {
        route: Arc<str>,
        method: Method,
    },
    /// Two routes, or two paths of one route, take the same requests, and no rule of precedence decides between them.
    Tie {
        first: Arc<str>,
        second: Arc<str>,
        host: String,
        path: String,
    },
}

impl Mistake {
    /// Returns the route that has the mistake; the later one of two.
    pub fn route(&self) -> &str {
        match self {
            Self::NoPath { route }
            | Self::TooManyPlaces { route }
            | Self::TooManyRegexes { route, .. }
            | Self::Path { route, .. }
            | Self::Host { route, .. }
            | Self::Method { route, .. } => route,
            Self::Tie { second, .. } => second,
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPath { route } => write!(f, "route `{route}` has no path"),
            Self::TooManyPlaces { route } => {
                write!(
                    f,
                    "route `{route}`: its hosts times its paths are more than {MOST_PLACES}"
                )
            }
            Self::TooManyRegexes { route, path } => {
                write!(
                    f,
                    "route `{route}` is one of more than {MOST_REGEXES} on `{}` with a `regex` in a condition",
                    begun(path)
                )
            }
            Self::Path { route, text, error } => write!(f, "route `{route}`, path `{}`: {error}", begun(text)),
            Self::Host { route, text } => write!(
                f,
                "route `{route}`, host `{}`: write a name without port, `*.` and a name, or leave it out for any host",
                begun(text)
            ),
            Self::Method { route, method } => write!(f, "route `{route}`: {method} is always refused"),
            Self::Tie { first, second, .. } if first == second => {
                write!(f, "route `{first}` has the same host and path twice")
            }
            Self::Tie {
                first,
                second,
                host,
                path,
            } => write!(
                f,
                "routes `{first}` and `{second}` both take `{path}` on host `{host}`: give one a method or a condition that \
                 the other has not"
            ),
        }
    }
}

/// Returns at most the first 200 characters of a text.
fn begun(text: &str) -> Cow<'_, str> {
    const SHOWN: usize = 200;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => Cow::Owned(format!("{}...", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

impl std::error::Error for Mistake {}

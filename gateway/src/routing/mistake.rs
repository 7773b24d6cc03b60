//! What can be wrong with a set of routes, each in a sentence that names the route.

use std::fmt;
use std::sync::Arc;

use http::Method;

use super::pattern::PatternError;

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
    /// CONNECT and TRACE.
    Method {
        route: Arc<str>,
        method: Method,
    },
    /// Two routes (or two lines of one) take the same requests, and nothing says which is meant.
    Tie {
        first: Arc<str>,
        second: Arc<str>,
        host: String,
        path: String,
    },
}

impl Mistake {
    /// The route to look at; of two, the later one.
    pub fn route(&self) -> &str {
        match self {
            Self::NoPath { route }
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
            Self::Path { route, text, error } => write!(f, "route `{route}`, path `{text}`: {error}"),
            Self::Host { route, text } => write!(
                f,
                "route `{route}`, host `{text}`: write a name without port, `*.` and a name, or leave it out for any host"
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
                "routes `{first}` and `{second}` both take `{path}` on host `{host}`: give one a method, a header or a \
                 query that the other has not"
            ),
        }
    }
}

impl std::error::Error for Mistake {}

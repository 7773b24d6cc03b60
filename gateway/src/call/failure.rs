//! A failed attempt: its fault, with the details for the log.
//!
//! Both protocols use it. Says nothing of who is to blame, which `judge` decides.

use std::fmt::Display;
use std::time::Duration;

use super::fault::Fault;
use super::http2::Unanswered;

/// Failed attempt, with details for the log.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) fault: Fault,
    pub(crate) detail: String,
    /// Whether connecting took longer than its own limit.
    pub(crate) is_connect_limit: bool,
    /// Shared connection on which no answer came in time.
    pub(crate) unanswered: Option<Unanswered>,
}

impl Failure {
    pub(crate) fn new(fault: Fault, detail: impl ToString) -> Self {
        Self {
            fault,
            detail: detail.to_string(),
            is_connect_limit: false,
            unanswered: None,
        }
    }

    /// Creates the failure of a connection that was not made within `limit`.
    pub(crate) fn connect_limit(address: impl Display, limit: Duration) -> Self {
        Self {
            is_connect_limit: true,
            ..Self::new(
                Fault::Unreached,
                format_args!("{address}: no connection within {limit:?}"),
            )
        }
    }

    pub(crate) fn body_gone() -> Self {
        Self::new(Fault::BodyGone, "the body has gone by and cannot be sent again")
    }
}

/// Formats an error with its causes, which hyper leaves out.
pub(crate) fn describe(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

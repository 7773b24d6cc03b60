//! Why a request has no known caller.

use crate::rejection::Rejection;

/// Reason why a request has no known caller.
#[derive(Debug)]
pub struct Refusal {
    pub rejection: Rejection,
    /// Log word of the failed check; `None` if no check has failed, as when there was no time for one.
    pub check: Option<&'static str>,
    /// Whether this is a failed authentication that has still to be charged to the client's address.
    pub suspect: bool,
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        Self {
            rejection,
            check: None,
            suspect: false,
        }
    }
}

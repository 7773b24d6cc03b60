//! Why a request has no known caller, and what it may wait for before it is identified again.

use crate::auth::basic::password_check::PasswordCheck;
use crate::auth::jwt::key_wait::KeyWait;
use crate::rejection::Rejection;

/// Reason why a request has no known caller.
#[derive(Debug)]
pub struct Refusal {
    pub rejection: Rejection,
    /// Log word of the failed check.
    pub check: &'static str,
    /// Whether this is a failed authentication, which counts against the client's address.
    pub suspect: bool,
    /// Slow work to wait for. Afterwards the request may be identified again.
    pub awaits: Option<Pending>,
}

/// Slow work that is needed before the caller can be identified.
pub enum Pending {
    Password(Box<PasswordCheck>),
    Keys(Box<KeyWait>),
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Password(_) => "Password",
            Self::Keys(_) => "Keys",
        })
    }
}

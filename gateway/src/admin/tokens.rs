//! The tokens that the config names.

use crate::plan::admin_token::AdminToken;

/// Tokens that the config names.
#[derive(Default)]
pub(super) struct Tokens {
    /// `None` means that nothing can be changed.
    pub(super) change: Option<AdminToken>,
    /// `None` means that reading needs no token.
    pub(super) read: Option<AdminToken>,
}

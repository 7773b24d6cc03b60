//! API keys.

pub mod format;
pub mod keys;
pub mod places;

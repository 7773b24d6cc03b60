//! Verifies credentials and identifies the caller of each request.

pub mod access;
pub mod api_key;
pub mod authenticator;
pub mod basic;
pub mod caller;
pub mod check;
pub mod credential_removal;
pub mod credentials;
pub mod external;
pub mod jwt;
pub mod mtls;
pub mod refusal;
pub mod revocations;
pub mod verifications;

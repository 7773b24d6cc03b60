//! What stands between the socket and a route's target: what came in, from where, from whom, and how much they may.

pub mod access;
pub mod address;
pub mod api_keys;
pub mod caller;
pub mod certificate;
pub mod certificate_holders;
pub mod check;
pub mod credentials;
pub mod doorman;
pub mod headers;
mod jwk;
pub mod jwks;
pub mod jwks_fetch;
pub mod jws;
pub mod jwt;
mod known_tokens;
pub mod limits;
pub mod live_keys;
pub mod password_checks;
pub mod passwords;
pub mod tiers;
pub mod tls;
mod unique_json;
pub mod verifications;

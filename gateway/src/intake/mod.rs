//! What stands between the socket and the route's target: who asks, and how much they may.
pub mod address;
pub mod api_keys;
pub mod caller;
pub mod credentials;
pub mod headers;
pub mod jwks;
pub mod jwt;
pub mod limits;

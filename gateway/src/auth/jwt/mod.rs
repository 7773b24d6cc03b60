//! Signed tokens (JWT, RFC 7519) and the keys that verify them.

pub mod fetch_state;
pub mod inspect;
pub mod issuer;
pub mod issuer_tenants;
pub mod jwk;
pub mod jws;
pub mod key_fetch;
pub mod key_set;
pub mod key_wait;
pub mod live_keys;
pub mod token_cache;

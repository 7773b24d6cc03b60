//! Stores answers of backends, to use them again (RFC 9111) and to cover failures.
//!
//! [`store`] holds all of them within one limit of bytes. [`responses`] is the response cache: it decides how a request is
//! answered from the store, what of an answer is stored, and for whom. It knows nothing of backends.
//!
//! The last good answers that a `fallback` serves are in the same store, by keys of their own ([`Key::of`]).

pub mod cache_status;
pub mod conditional;
pub mod directives;
pub mod flights;
pub mod freshness;
#[cfg(test)]
mod public_cases;
pub mod responses;
pub mod reuse;
mod shares;
pub mod store;
#[cfg(test)]
mod tests;

pub use self::store::{
    AnswerStore, BODY_LIMIT, CachedAnswer, Key, PendingBody, StoreSize, Terms, is_repeatable, may_be_kept,
};

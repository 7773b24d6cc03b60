//! The modules of the gateway, from high level to low. A module imports only from lower levels, as `tests/floors.rs`
//! checks. `docs/internals.md` follows a request through them and says how to add things.
//!
//! From the top: [`cli`] · [`hand_over`] · [`admin`] · [`server`] · [`pipeline`], [`control`] · [`plan`] · [`tenancy`] ·
//! [`aggregate`], [`auth`], [`response`] · [`call`], [`idempotency`], [`limits`] · [`import`], [`observe`] · [`config`], [`headers`] ·
//! [`usage`], [`identity`], [`routing`], [`wire`] · [`metering`], [`problem`], [`template`] · [`client`], [`json`], [`tls`] · [`rejection`] ·
//! [`cache`], [`clock`], [`files`], [`fingerprint`], [`header_fields`], [`setting`] · the `policies` crate.

// Tests read files that they have written themselves.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod admin;
pub mod aggregate;
pub mod auth;
pub mod cache;
pub mod call;
pub mod cli;
pub mod client;
pub mod clock;
pub mod compression;
pub mod config;
pub mod control;
pub mod diff;
pub mod files;
pub mod fingerprint;
#[cfg(test)]
mod generated;
pub mod hand_over;
pub mod header_fields;
pub mod headers;
pub mod idempotency;
pub mod identity;
pub mod import;
pub mod json;
pub mod limits;
pub mod message;
pub mod metering;
pub mod observe;
pub mod overload;
pub mod pipeline;
pub mod plan;
pub mod problem;
pub mod rejection;
pub mod request_key;
pub mod response;
pub mod routing;
pub mod server;
pub mod setting;
pub mod simulation;
pub mod store;
pub mod template;
pub mod tenancy;
pub mod tls;
pub mod usage;
pub mod wire;

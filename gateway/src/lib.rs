//! The parts of the gateway, floor by floor; imports only go down.
//!
//! 5 edge: [`cli`], [`server`], [`admin`], [`control`] · 4 order: [`pipeline`], [`answer`], [`tunnel`] ·
//! 3 assembly: [`plan`] ·
//! 2 stages: [`intake`], [`routing`], [`call`], [`aggregate`] ·
//! 1 words: [`aliases`], [`config`], [`rejection`], [`problem`], [`grpc`], [`fields`], [`files`], [`flow`], [`pace`],
//! [`expiry`], [`identity`], [`json`], [`framing`], [`frames`], [`caller_body`], [`observe`], [`template`], [`coalesce`],
//! [`stale`], [`websocket`], [`windows`],
//! [`clock`] · 0: the `policies` crate.

// Tests read what they have written themselves.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod admin;
pub mod aggregate;
pub mod aliases;
pub mod answer;
pub mod call;
pub mod caller_body;
pub mod cli;
pub mod clock;
pub mod coalesce;
pub mod config;
pub mod content_encoding;
pub mod control;
pub mod expiry;
pub mod fields;
pub mod files;
pub mod flow_control;
pub mod frames;
pub mod framing;
#[cfg(test)]
mod generated;
pub mod grpc;
pub mod identity;
pub mod intake;
pub mod json;
pub mod min_rate;
pub mod observe;
pub mod parked;
pub mod pipeline;
pub mod plan;
pub mod problem;
pub mod rejection;
pub mod routing;
pub mod server;
pub mod slow_caller;
pub mod stale_cache;
pub mod template;
pub mod tunnel;
pub mod websocket;

//! Checks the promises of the gateway: one file for each promise, each test with its own gateway and fleet.

mod adaptive;
mod admin_address;
mod admin_answers;
mod aggregate;
mod aggregate_charges;
mod api_keys;
mod attempt_log;
mod backend_floods;
mod backend_tls;
mod balance;
mod bodies;
mod breaker;
mod browser;
mod bulkhead;
mod cache;
mod cached_parts;
mod callers;
mod canary;
mod certificates;
mod charges;
mod client_address;
mod client_authorities;
mod compression;
mod config;
mod config_diff;
mod connections;
mod cors;
mod create_order;
mod credential_fields;
mod cut_answers;
mod dashboard;
mod deadlines;
mod decided;
mod described;
mod discovery;
mod discovery_kubernetes;
mod discovery_srv;
mod doctor;
mod drain;
mod ejection;
mod entity_tags;
mod event_streams;
mod explain;
mod external_authorisation;
mod fallbacks;
mod for_each;
mod forgeries;
mod framing;
mod grpc;
mod hand_over;
mod handshakes;
mod health;
mod hedges;
mod hostile_json;
mod http1_backends;
mod http1_callers;
mod http2;
mod http2_backends;
mod http2_corpus;
mod http2_floods;
mod http2_interim;
mod http2_peers;
mod idempotency;
mod import;
mod issuers;
mod json_limits;
mod krakend;
mod leaving;
mod limits;
mod live_commands;
mod log_flood;
mod malformed;
mod matching;
mod mirror;
mod names;
mod operating;
mod owners;
mod parked_uploads;
mod part_answers;
mod part_requests;
mod passwords;
mod policy_tests;
mod probes;
mod proxy_protocol;
mod rates;
mod refused_parts;
mod reload;
mod replicas;
mod request_bodies;
mod retries;
mod revocations;
mod route_edge;
mod routes;
mod shaping;
mod simulation;
mod slow_readers;
mod splits;
mod spread;
mod store_trouble;
mod streams;
mod tenants;
mod tenants_replicas;
mod tenants_safety;
mod tenants_shell;
mod tiers;
mod tls;
mod token_budgets;
mod token_commands;
mod tokens;
mod tour;
mod tracing;
mod usage;
mod watched_files;
mod websockets;
mod whose_fault;
mod written_files;
mod wrong_times;

use std::time::Duration;

use fixtures::fleet::{Fleet, Handle, Spec};

/// For what follows at once on a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(10);

/// A fleet of one plain backend.
async fn one_backend(name: &str) -> (Fleet, Handle) {
    let fleet = Fleet::start([Spec::new(name)]).await.expect("a port is free");
    let backend = fleet.backend(name);
    (fleet, backend)
}

async fn backends<const N: usize>(names: [&str; N]) -> (Fleet, [Handle; N]) {
    let fleet = Fleet::start(names.map(Spec::new)).await.expect("ports are free");
    let backends = names.map(|name| fleet.backend(name));
    (fleet, backends)
}

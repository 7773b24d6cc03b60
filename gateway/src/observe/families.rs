//! Every metric the gateway has: name, type, labels and meaning, in the order of the page.
//!
//! Labels come from the plan (route, backend, limit) or from a closed set of words, never from a request, so what the
//! page can grow to is known when the plan is made. Units are base units; counters, and nothing else, end in `_total`.

/// One metric family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Requests,
    RequestDuration,
    Rejections,
    AbortedResponses,
    PartialResponses,
    Fallbacks,
    BackendCalls,
    BackendDuration,
    BackendAttempts,
    BackendRejections,
    Retries,
    RetriesStopped,
    RetryBudgetBalance,
    BulkheadInUse,
    BulkheadWaiting,
    BulkheadLimit,
    BulkheadOutcomes,
    StreamSlotsInUse,
    StreamSlotsWaiting,
    StreamSlotsLimit,
    StreamSlotsOutcomes,
    BreakerState,
    BreakerTransitions,
    EndpointsEjected,
    EndpointEjections,
    LimitDecisions,
    LimitOverflow,
    LimitWidened,
    LimitOwners,
    LimitRoomInUse,
    LimitRoom,
    Callers,
    Verifications,
    VerificationSeconds,
    UnknownTiers,
    JwksFetches,
    JwksWaiting,
    JwksKeys,
    JwksAge,
    JwksStale,
    JsonReserved,
    JsonRefused,
    ParkedBytes,
    ParkedCounted,
    ParkedRefused,
    ParkedPauses,
    RequestsInFlight,
    Connections,
    ConnectionsAccepted,
    MalformedConnections,
    RefusedConnections,
    OverdueConnections,
    Floods,
    Tunnels,
    TlsHandshakes,
    TlsHandshakeDelays,
    TlsHandshakeTime,
    CertificateExpiry,
    BackendConnections,
    BackendExchanges,
    BackendHandshakes,
    BackendCertificateExpiry,
    Revocations,
    RevocationsUnwritten,
    ClockJumps,
    ClockAhead,
    ConfigLastReloadSuccessful,
    ConfigLastReloadSuccessTimestamp,
    ConfigGeneration,
    AccessLogDropped,
    LogLinesLeftOut,
    BuildInfo,
    ProcessCpu,
    ProcessResidentMemory,
    ProcessOpenFds,
    ProcessMaxFds,
    ProcessThreads,
    ProcessStartTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// What the page and the documentation say about a family.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

/// All families, in the order of the page.
pub fn families() -> impl Iterator<Item = Facts> {
    Family::ALL.into_iter().map(Family::facts)
}

impl Kind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl Family {
    pub const ALL: [Self; 78] = [
        Self::Requests,
        Self::RequestDuration,
        Self::Rejections,
        Self::AbortedResponses,
        Self::PartialResponses,
        Self::Fallbacks,
        Self::BackendCalls,
        Self::BackendDuration,
        Self::BackendAttempts,
        Self::BackendRejections,
        Self::Retries,
        Self::RetriesStopped,
        Self::RetryBudgetBalance,
        Self::BulkheadInUse,
        Self::BulkheadWaiting,
        Self::BulkheadLimit,
        Self::BulkheadOutcomes,
        Self::StreamSlotsInUse,
        Self::StreamSlotsWaiting,
        Self::StreamSlotsLimit,
        Self::StreamSlotsOutcomes,
        Self::BreakerState,
        Self::BreakerTransitions,
        Self::EndpointsEjected,
        Self::EndpointEjections,
        Self::LimitDecisions,
        Self::LimitOverflow,
        Self::LimitWidened,
        Self::LimitOwners,
        Self::LimitRoomInUse,
        Self::LimitRoom,
        Self::Callers,
        Self::Verifications,
        Self::VerificationSeconds,
        Self::UnknownTiers,
        Self::JwksFetches,
        Self::JwksWaiting,
        Self::JwksKeys,
        Self::JwksAge,
        Self::JwksStale,
        Self::JsonReserved,
        Self::JsonRefused,
        Self::ParkedBytes,
        Self::ParkedCounted,
        Self::ParkedRefused,
        Self::ParkedPauses,
        Self::RequestsInFlight,
        Self::Connections,
        Self::ConnectionsAccepted,
        Self::MalformedConnections,
        Self::RefusedConnections,
        Self::OverdueConnections,
        Self::Floods,
        Self::Tunnels,
        Self::TlsHandshakes,
        Self::TlsHandshakeDelays,
        Self::TlsHandshakeTime,
        Self::CertificateExpiry,
        Self::BackendConnections,
        Self::BackendExchanges,
        Self::BackendHandshakes,
        Self::BackendCertificateExpiry,
        Self::Revocations,
        Self::RevocationsUnwritten,
        Self::ClockJumps,
        Self::ClockAhead,
        Self::ConfigLastReloadSuccessful,
        Self::ConfigLastReloadSuccessTimestamp,
        Self::ConfigGeneration,
        Self::AccessLogDropped,
        Self::LogLinesLeftOut,
        Self::BuildInfo,
        Self::ProcessCpu,
        Self::ProcessResidentMemory,
        Self::ProcessOpenFds,
        Self::ProcessMaxFds,
        Self::ProcessThreads,
        Self::ProcessStartTime,
    ];

    pub const fn facts(self) -> Facts {
        use Kind::{Counter, Gauge, Histogram};
        let (name, kind, labels, help): (_, _, &'static [&'static str], _) = match self {
            Self::Requests => (
                "gateway_requests_total",
                Counter,
                &["route", "code"],
                "Requests finished, by class of status; an empty route means that none matched",
            ),
            Self::RequestDuration => (
                "gateway_request_duration_seconds",
                Histogram,
                &["route"],
                "Time from a request's head to the last byte of its answer",
            ),
            Self::Rejections => (
                "gateway_rejections_total",
                Counter,
                &["route", "reason"],
                "Requests that the gateway itself refused or failed, by reason",
            ),
            Self::AbortedResponses => (
                "gateway_aborted_responses_total",
                Counter,
                &["route"],
                "Answers that broke off after their head had been sent",
            ),
            Self::PartialResponses => (
                "gateway_partial_responses_total",
                Counter,
                &["route"],
                "Aggregates answered with x-gateway-complete: false",
            ),
            Self::Fallbacks => (
                "gateway_fallbacks_total",
                Counter,
                &["route", "kind"],
                "Answers that a value, the last good answer or another backend stood in for, by route",
            ),
            Self::BackendCalls => (
                "gateway_backend_calls_total",
                Counter,
                &["backend", "outcome"],
                "Calls to a backend, all attempts together, by outcome",
            ),
            Self::BackendDuration => (
                "gateway_backend_duration_seconds",
                Histogram,
                &["backend"],
                "Time from the start of a call, queue included, to the head of its answer",
            ),
            Self::BackendAttempts => (
                "gateway_backend_attempts_total",
                Counter,
                &["backend", "outcome"],
                "Single attempts, by outcome",
            ),
            Self::BackendRejections => (
                "gateway_backend_rejections_total",
                Counter,
                &["backend", "reason"],
                "Calls that ended in a rejection, by reason; an aggregate may count several per request",
            ),
            Self::Retries => (
                "gateway_retries_total",
                Counter,
                &["backend"],
                "Attempts after the first one of a call",
            ),
            Self::RetriesStopped => (
                "gateway_retries_stopped_total",
                Counter,
                &["backend", "reason"],
                "Calls that were not tried again although their end would have allowed it, by what forbade it",
            ),
            Self::RetryBudgetBalance => (
                "gateway_retry_budget_balance",
                Gauge,
                &["backend"],
                "Retries that could be paid for now",
            ),
            Self::BulkheadInUse => ("gateway_bulkhead_in_use", Gauge, &["backend"], "Slots taken"),
            Self::BulkheadWaiting => (
                "gateway_bulkhead_waiting",
                Gauge,
                &["backend"],
                "Calls waiting for a slot",
            ),
            Self::BulkheadLimit => ("gateway_bulkhead_limit", Gauge, &["backend"], "Slots there are"),
            Self::BulkheadOutcomes => (
                "gateway_bulkhead_outcomes_total",
                Counter,
                &["backend", "outcome"],
                "Calls that asked for a slot: admitted, refused as full, waited too long, or left while waiting",
            ),
            Self::StreamSlotsInUse => (
                "gateway_bulkhead_streams_in_use",
                Gauge,
                &["backend"],
                "Slots for streams and tunnels taken",
            ),
            Self::StreamSlotsWaiting => (
                "gateway_bulkhead_streams_waiting",
                Gauge,
                &["backend"],
                "Streams and tunnels waiting for a slot",
            ),
            Self::StreamSlotsLimit => (
                "gateway_bulkhead_streams_limit",
                Gauge,
                &["backend"],
                "Slots there are for streams and tunnels",
            ),
            Self::StreamSlotsOutcomes => (
                "gateway_bulkhead_streams_outcomes_total",
                Counter,
                &["backend", "outcome"],
                "Streams and tunnels that asked for a slot: admitted, refused as full, waited too long, or left while waiting",
            ),
            Self::BreakerState => (
                "gateway_breaker_state",
                Gauge,
                &["backend"],
                "0 closed (traffic flows), 1 half-open, 2 open",
            ),
            Self::BreakerTransitions => (
                "gateway_breaker_transitions_total",
                Counter,
                &["backend", "to"],
                "State changes, by new state",
            ),
            Self::EndpointsEjected => (
                "gateway_endpoints_ejected",
                Gauge,
                &["backend"],
                "Endpoints that are left out for now because they kept failing",
            ),
            Self::EndpointEjections => (
                "gateway_endpoint_ejections_total",
                Counter,
                &["backend"],
                "Times that an endpoint was left out because it kept failing",
            ),
            Self::LimitDecisions => (
                "gateway_limit_decisions_total",
                Counter,
                &["limit", "decision"],
                "What a limit said",
            ),
            Self::LimitOverflow => (
                "gateway_limit_overflow_total",
                Counter,
                &["limit"],
                "Times that an owner was counted with all others of its kind, for want of room",
            ),
            Self::LimitWidened => (
                "gateway_limit_widened_total",
                Counter,
                &["limit"],
                "Times that an address was counted with its network, or a caller with its tenant, for want of room",
            ),
            Self::LimitOwners => (
                "gateway_limit_owners",
                Gauge,
                &["limit"],
                "Owners that a limit remembers",
            ),
            Self::LimitRoomInUse => (
                "gateway_limit_room_in_use",
                Gauge,
                &["owners"],
                "Accounts of owners that nobody wrote down, over all limits",
            ),
            Self::LimitRoom => ("gateway_limit_room", Gauge, &["owners"], "So many of them there may be"),
            Self::Callers => (
                "gateway_callers_total",
                Counter,
                &["kind", "outcome"],
                "Requests by kind of credential and what came of checking it",
            ),
            Self::Verifications => (
                "gateway_verifications_total",
                Counter,
                &["outcome"],
                "Signatures of tokens seen for the first time: verified, failed, or put off by a budget",
            ),
            Self::VerificationSeconds => (
                "gateway_verification_seconds_total",
                Counter,
                &[],
                "Time that workers have spent on signatures",
            ),
            Self::UnknownTiers => (
                "gateway_unknown_tiers_total",
                Counter,
                &[],
                "Requests whose credential named a tier that there is not; they were given the default",
            ),
            Self::JwksFetches => (
                "gateway_jwks_fetches_total",
                Counter,
                &["issuer", "outcome"],
                "Attempts to fetch an issuer's keys",
            ),
            Self::JwksWaiting => (
                "gateway_jwks_waiting_requests",
                Gauge,
                &["issuer"],
                "Requests that wait for an issuer's keys",
            ),
            Self::JwksKeys => (
                "gateway_jwks_keys",
                Gauge,
                &["issuer"],
                "Keys in use; with none, no token of the issuer can be judged",
            ),
            Self::JwksAge => (
                "gateway_jwks_age_seconds",
                Gauge,
                &["issuer"],
                "Time since a fetch last confirmed the keys in use",
            ),
            Self::JwksStale => (
                "gateway_jwks_stale",
                Gauge,
                &["issuer"],
                "1 if keys are in use although the last attempt to fetch them failed",
            ),
            Self::JsonReserved => (
                "gateway_json_reserved_bytes",
                Gauge,
                &[],
                "What is reserved of request_limits.json_total, for bodies and answers that are held as JSON",
            ),
            Self::JsonRefused => (
                "gateway_json_refused_total",
                Counter,
                &[],
                "Times that there was no room for a body or an answer that is held as JSON",
            ),
            Self::ParkedBytes => (
                "gateway_parked_upload_bytes",
                Gauge,
                &[],
                "Bytes of HTTP/2 uploads that have arrived and that nobody has read yet",
            ),
            Self::ParkedCounted => (
                "gateway_parked_upload_reserved_bytes",
                Gauge,
                &[],
                "Bytes taken of request_limits.parked_total: what has arrived with 256 for each frame, and what uploads that nobody reads yet may send",
            ),
            Self::ParkedRefused => (
                "gateway_parked_upload_refused_total",
                Counter,
                &[],
                "HTTP/2 uploads for which there was no room in request_limits.parked_total",
            ),
            Self::ParkedPauses => (
                "gateway_parked_upload_pauses_total",
                Counter,
                &[],
                "Times that a connection was not read further for the uploads that it has parked",
            ),
            Self::RequestsInFlight => (
                "gateway_requests_in_flight",
                Gauge,
                &[],
                "Requests whose head has arrived and whose answer has not yet left",
            ),
            Self::Connections => ("gateway_connections", Gauge, &[], "Open connections from callers"),
            Self::ConnectionsAccepted => (
                "gateway_connections_total",
                Counter,
                &[],
                "Connections accepted from callers",
            ),
            Self::Tunnels => ("gateway_tunnels", Gauge, &[], "Connections that have become WebSockets"),
            Self::MalformedConnections => (
                "gateway_malformed_connections_total",
                Counter,
                &[],
                "Connections ended because what came was not HTTP",
            ),
            Self::RefusedConnections => (
                "gateway_connections_refused_total",
                Counter,
                &["reason"],
                "Connections closed before anything was read from them as a request",
            ),
            Self::OverdueConnections => (
                "gateway_connections_overdue_total",
                Counter,
                &["awaited"],
                "Connections ended because they had been waited for too long, by what for",
            ),
            Self::Floods => (
                "gateway_connections_flooding_total",
                Counter,
                &["frame"],
                "HTTP/2 connections ended for too many frames that ask for nothing, by which",
            ),
            Self::TlsHandshakes => (
                "gateway_tls_handshakes_total",
                Counter,
                &["outcome"],
                "TLS handshakes of callers, by how they ended",
            ),
            Self::TlsHandshakeDelays => (
                "gateway_tls_handshakes_delayed_total",
                Counter,
                &["by"],
                "Times that a TLS handshake of a caller had to wait: its address had too many under way, or all of them had had their share of the workers' time",
            ),
            Self::TlsHandshakeTime => (
                "gateway_tls_handshake_seconds_total",
                Counter,
                &[],
                "Time that workers have spent on TLS handshakes of callers",
            ),
            Self::CertificateExpiry => (
                "gateway_tls_certificate_expiry_timestamp_seconds",
                Gauge,
                &["listener", "number"],
                "Unix time at which a certificate of a listener expires, by its place in the list",
            ),
            Self::BackendConnections => (
                "gateway_backend_connections",
                Gauge,
                &["backend", "state"],
                "Open connections to a backend",
            ),
            Self::BackendExchanges => (
                "gateway_backend_exchanges",
                Gauge,
                &["backend"],
                "Exchanges under way with a backend; on HTTP/2 a connection carries several",
            ),
            Self::BackendHandshakes => (
                "gateway_backend_tls_handshakes_total",
                Counter,
                &["backend", "outcome"],
                "TLS handshakes with a backend, by how they ended",
            ),
            Self::BackendCertificateExpiry => (
                "gateway_backend_tls_certificate_expiry_timestamp_seconds",
                Gauge,
                &["backend"],
                "Unix time at which the certificate expires that is shown to a backend",
            ),
            Self::Revocations => (
                "gateway_revocations",
                Gauge,
                &["kind"],
                "Credentials that are taken back, by what names them",
            ),
            Self::RevocationsUnwritten => (
                "gateway_revocations_unwritten",
                Gauge,
                &[],
                "Entries in force that the file of revocations does not have, since it could not be written",
            ),
            Self::ClockJumps => (
                "gateway_clock_jumps_total",
                Counter,
                &[],
                "Times that the wall clock has jumped by more than two seconds, there or back",
            ),
            Self::ClockAhead => (
                "gateway_clock_ahead_seconds",
                Gauge,
                &[],
                "By how much the wall clock is ahead of the time in use, or behind; zero unless it has jumped just now",
            ),
            Self::ConfigLastReloadSuccessful => (
                "gateway_config_last_reload_successful",
                Gauge,
                &[],
                "1 if the config last read is the one in use",
            ),
            Self::ConfigLastReloadSuccessTimestamp => (
                "gateway_config_last_reload_success_timestamp_seconds",
                Gauge,
                &[],
                "Unix time at which the config in use was loaded",
            ),
            Self::ConfigGeneration => (
                "gateway_config_generation",
                Gauge,
                &[],
                "Number of the plan in use, counted from the start",
            ),
            Self::AccessLogDropped => (
                "gateway_access_log_dropped_total",
                Counter,
                &[],
                "Requests that are missing in the access log because it could not keep up",
            ),
            Self::LogLinesLeftOut => (
                "gateway_log_lines_left_out_total",
                Counter,
                &[],
                "Lines missing in the operational log because there were too many of their kind",
            ),
            Self::BuildInfo => (
                "gateway_build_info",
                Gauge,
                &["version"],
                "Always 1; the label says what runs",
            ),
            Self::ProcessCpu => (
                "process_cpu_seconds_total",
                Counter,
                &[],
                "User and system time that the process has used",
            ),
            Self::ProcessResidentMemory => ("process_resident_memory_bytes", Gauge, &[], "Resident memory"),
            Self::ProcessOpenFds => ("process_open_fds", Gauge, &[], "Open file descriptors"),
            Self::ProcessMaxFds => ("process_max_fds", Gauge, &[], "File descriptors that may be open"),
            Self::ProcessThreads => ("process_threads", Gauge, &[], "Threads"),
            Self::ProcessStartTime => (
                "process_start_time_seconds",
                Gauge,
                &[],
                "Unix time at which the process started",
            ),
        };
        Facts {
            name,
            kind,
            labels,
            help,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// `gateway/docs/metrics.md`; after a change `make docs` writes it anew.
    #[test]
    fn the_reference_lists_every_family() {
        let mut page =
            "# Metrics reference\n\nEvery metric on `/metrics` of the admin address (Prometheus text format). \
                        Made from the code by `make docs`; do not edit it by hand. Times are in seconds and sizes in \
                        bytes.\n\n| name | type | labels | meaning |\n|---|---|---|---|\n"
                .to_owned();
        for Facts {
            name,
            kind,
            labels,
            help,
        } in families()
        {
            let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
            let row = format!("| `{name}` | {} | {} | {help} |\n", kind.as_str(), labels.join(", "));
            page.push_str(&row);
        }
        crate::generated::hold("metrics.md", &page);
    }

    #[test]
    fn names_follow_the_rules_of_the_format() {
        let mut names = HashSet::new();
        for (
            position,
            Facts {
                name,
                kind,
                labels,
                help,
            },
        ) in families().enumerate()
        {
            assert_eq!(Family::ALL[position] as usize, position, "{name} is out of order");
            assert!(names.insert(name), "{name} twice");
            assert!(name.starts_with("gateway_") || name.starts_with("process_"), "{name}");
            assert!(
                name.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase()),
                "{name}"
            );
            assert_eq!(
                name.ends_with("_total"),
                kind == Kind::Counter,
                "{name}: _total is for counters"
            );
            assert_eq!(name.ends_with("_duration_seconds"), kind == Kind::Histogram, "{name}");
            for unit in [
                "milliseconds",
                "_ms",
                "minutes",
                "kilobytes",
                "percent",
                "count",
                "_sum",
                "_bucket_",
            ] {
                assert!(
                    !name.contains(unit),
                    "{name}: base units only, and no suffix that a histogram adds"
                );
            }
            assert!(
                !help.is_empty() && !help.ends_with('.') && !help.contains(['\n', '\\']),
                "{name}: {help}"
            );
            for label in labels {
                assert!(
                    !["le", "quantile", "job", "instance"].contains(label),
                    "{name}: {label} is reserved"
                );
            }
        }
    }
}

//! Lists every metric: name, type, labels and meaning, in the order of the page.
//!
//! Label values come from the plan (route, backend, limit) or from a closed set of words, never from a request. So the
//! maximum size of the page is known when the plan is made. Units are base units. Counters end in `_total`, and only
//! counters do.

use super::labels::{
    Admission, Awaited, BackendHandshake, BreakerState, CacheResult, CallerKind, CallerOutcome, Class,
    ConnectionRefusal, ConnectionState, CostSource, Decision, ExternalLookup, ExternalOutcome, FallbackKind,
    FetchOutcome, FrameKind, Handshake, HandshakeDelay, HedgeEvent, IdempotencyResult, Label, LookupOutcome,
    MirrorComparison, MirrorOutcome, Outcome, ProbeOutcome, RetryStop, StoreOutcome, TraceOutcome, UnitEvent,
    Verification,
};
use crate::compression::Coding;
use crate::rejection::Reason;

/// One row per family: its name in the code, its kind and metric name, its labels, and its help text. A label with a
/// closed set of words names their type.
macro_rules! families {
    ($($family:ident: $kind:ident $name:literal [$($label:literal $(: $words:ty)?),*] $help:literal;)+) => {
        /// One metric family.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Family {
            $(#[doc = $help] $family,)+
        }

        impl Family {
            pub const ALL: [Self; [$(Self::$family),+].len()] = [$(Self::$family),+];

            pub const fn facts(self) -> Facts {
                match self {
                    $(Self::$family => Facts {
                        name: $name,
                        kind: Kind::$kind,
                        labels: &[$(LabelFacts { name: $label, words: words!($($words)?) }),*],
                        help: $help,
                    },)+
                }
            }
        }
    };
}

macro_rules! words {
    () => {
        None
    };
    ($words:ty) => {
        Some(<$words as Label>::WORDS)
    };
}

families! {
    Requests: Counter "gateway_requests_total" ["route", "code": Class]
        "Requests finished, by class of status; an empty route means that none matched";
    RequestDuration: Histogram "gateway_request_duration_seconds" ["route"]
        "Time from a request's head to the last byte of its answer";
    Rejections: Counter "gateway_rejections_total" ["route", "reason": Reason]
        "Requests that the gateway itself refused or failed, by reason";
    AbortedResponses: Counter "gateway_aborted_responses_total" ["route"]
        "Answers that broke off after their head had been sent";
    PartialResponses: Counter "gateway_partial_responses_total" ["route"]
        "Aggregates answered with x-gateway-complete: false";
    Fallbacks: Counter "gateway_fallbacks_total" ["route", "kind": FallbackKind]
        "Answers that a value, the last good answer or another backend stood in for, by route";
    CompressedResponses: Counter "gateway_compressed_responses_total" ["coding": Coding]
        "Answers that the gateway compressed, by coding";
    CompressedFrom: Counter "gateway_compression_input_bytes_total" ["coding": Coding]
        "Bytes of these answers before they were compressed";
    CompressedTo: Counter "gateway_compression_output_bytes_total" ["coding": Coding]
        "Bytes of these answers as they were sent";
    CompressionMemory: Gauge "gateway_compression_memory_bytes" []
        "Memory of answers that are being compressed, of compression.memory";
    Units: Counter "gateway_cost_units_total" ["route", "event": UnitEvent]
        "Units of routes whose cost is read from answers; reserved and beyond are refunded and settled together";
    CostSettlements: Counter "gateway_cost_settlements_total" ["route", "by": CostSource]
        "Requests of these routes that have ended, by what their cost goes by";
    CacheRequests: Counter "gateway_cache_requests_total" ["route", "result": CacheResult]
        "Requests of routes with a cache, by where their answer came from";
    CachePartRequests: Counter "gateway_cache_part_requests_total" ["route", "result": CacheResult]
        "Calls of parts with a cache, by where their answer came from; each element of for_each counts";
    CacheBytes: Gauge "gateway_cache_bytes" []
        "Memory of stored answers, of cache.max_bytes";
    CacheEntries: Gauge "gateway_cache_entries" []
        "Stored answers, the last good ones of fallbacks included";
    CacheEvictions: Counter "gateway_cache_evictions_total" []
        "Stored answers that were removed to make room";
    IdempotencyRequests: Counter "gateway_idempotency_requests_total" ["route", "result": IdempotencyResult]
        "Requests of routes with idempotency, but for safe methods, by what became of them";
    IdempotencyBytes: Gauge "gateway_idempotency_bytes" []
        "Memory of idempotency keys and their answers, of idempotency.max_bytes; none of them is in the shared store";
    IdempotencyKeys: Gauge "gateway_idempotency_keys" ["state"]
        "Idempotency keys in memory; one whose request was lost counts as running";
    IdempotencyForgotten: Counter "gateway_idempotency_forgotten_total" []
        "Answered idempotency keys that were forgotten before their time to make room";
    MirroredRequests: Counter "gateway_mirrored_requests_total" ["route", "outcome": MirrorOutcome]
        "Requests chosen to be copied to the mirror of their route, by what became of the copy";
    MirroredInFlight: Gauge "gateway_mirrored_requests_in_flight" ["route"]
        "Copies under way";
    MirroredBytes: Gauge "gateway_mirrored_body_bytes" []
        "Memory of request bodies that are held to be mirrored, of request_limits.mirrored_total";
    MirrorComparisons: Counter "gateway_mirror_comparisons_total" ["route", "result": MirrorComparison]
        "Answers to copies, by whether they were the same as those that callers got";
    BackendCalls: Counter "gateway_backend_calls_total" ["backend", "outcome": Outcome]
        "Calls to a backend, all attempts together, by outcome";
    BackendDuration: Histogram "gateway_backend_duration_seconds" ["backend"]
        "Time from the start of a call, queue included, to the head of its answer";
    BackendAnswerDuration: Histogram "gateway_backend_answer_duration_seconds" ["backend"]
        "Time from the start of a call, queue included, to the last byte of its answer; streams and answers that broke off are left out";
    BackendAttempts: Counter "gateway_backend_attempts_total" ["backend", "outcome": Outcome]
        "Single attempts, by outcome";
    BackendRejections: Counter "gateway_backend_rejections_total" ["backend", "reason": Reason]
        "Calls that ended in a rejection, by reason; an aggregate may count several per request";
    Retries: Counter "gateway_retries_total" ["backend"]
        "Attempts after the first one of a call";
    RetriesStopped: Counter "gateway_retries_stopped_total" ["backend", "reason": RetryStop]
        "Calls that were not tried again although their end would have allowed it, by what forbade it";
    Hedges: Counter "gateway_hedges_total" ["backend", "event": HedgeEvent]
        "Slow first attempts of calls with a hedge: second attempts sent, those whose answer was used, and why there was none";
    RetryBudgetBalance: Gauge "gateway_retry_budget_balance" ["backend"]
        "Retries that could be paid for now";
    BulkheadInUse: Gauge "gateway_bulkhead_in_use" ["backend"]
        "Slots taken";
    BulkheadWaiting: Gauge "gateway_bulkhead_waiting" ["backend"]
        "Calls waiting for a slot";
    BulkheadLimit: Gauge "gateway_bulkhead_limit" ["backend"]
        "Slots there are now";
    BulkheadOutcomes: Counter "gateway_bulkhead_outcomes_total" ["backend", "outcome": Admission]
        "Calls that asked for a slot: admitted, refused as full, waited too long, or left while waiting";
    StreamSlotsInUse: Gauge "gateway_bulkhead_streams_in_use" ["backend"]
        "Slots for streams and tunnels taken";
    StreamSlotsWaiting: Gauge "gateway_bulkhead_streams_waiting" ["backend"]
        "Streams and tunnels waiting for a slot";
    StreamSlotsLimit: Gauge "gateway_bulkhead_streams_limit" ["backend"]
        "Slots there are for streams and tunnels";
    StreamSlotsOutcomes: Counter "gateway_bulkhead_streams_outcomes_total" ["backend", "outcome": Admission]
        "Streams and tunnels that asked for a slot: admitted, refused as full, waited too long, or left while waiting";
    BreakerState: Gauge "gateway_breaker_state" ["backend"]
        "0 closed (traffic flows), 1 half-open, 2 open";
    BreakerTransitions: Counter "gateway_breaker_transitions_total" ["backend", "to": BreakerState]
        "State changes, by new state";
    EndpointsEjected: Gauge "gateway_endpoints_ejected" ["backend"]
        "Endpoints that are left out for now because they kept failing";
    EndpointEjections: Counter "gateway_endpoint_ejections_total" ["backend"]
        "Times that an endpoint was left out because it kept failing";
    EndpointsDown: Gauge "gateway_endpoints_down" ["backend"]
        "Endpoints that failed their last health checks";
    HealthChecks: Counter "gateway_health_checks_total" ["backend", "outcome": ProbeOutcome]
        "Health checks of endpoints: passed or failed";
    BackendDegraded: Gauge "gateway_backend_degraded" ["backend"]
        "1 if no endpoint is up, so that calls go to endpoints that are not, or are refused";
    BackendEndpoints: Gauge "gateway_backend_endpoints" ["backend"]
        "Endpoints of a backend, whatever their state";
    EndpointLookups: Counter "gateway_endpoint_lookups_total" ["backend", "outcome": LookupOutcome]
        "Looks at the source of a backend's endpoints: found some, or failed";
    EndpointsKept: Gauge "gateway_backend_endpoints_kept" ["backend"]
        "1 if the endpoints are those of an earlier answer, because their source fails or lists none";
    EndpointsAge: Gauge "gateway_backend_endpoints_age_seconds" ["backend"]
        "Time since the source of a backend's endpoints last listed them";
    LimitDecisions: Counter "gateway_limit_decisions_total" ["limit", "decision": Decision]
        "What a limit said";
    LimitOverflow: Counter "gateway_limit_overflow_total" ["limit"]
        "Times that an owner was counted with all others of its kind, for want of room";
    LimitWidened: Counter "gateway_limit_widened_total" ["limit"]
        "Times that an address was counted with its network, or a caller with its tenant, for want of room";
    LimitOwners: Gauge "gateway_limit_owners" ["limit"]
        "Owners that a limit remembers";
    LimitRoomInUse: Gauge "gateway_limit_room_in_use" ["owners"]
        "Accounts of owners that nobody wrote down, over all limits";
    LimitRoom: Gauge "gateway_limit_room" ["owners"]
        "So many of them there may be";
    StoreUp: Gauge "gateway_store_up" []
        "1 while the shared store can be reached";
    StoreMayEvict: Gauge "gateway_store_may_evict" []
        "1 if the shared store drops counts when its memory is full, so that their owners begin anew";
    StoreCalls: Counter "gateway_store_calls_total" ["outcome": StoreOutcome]
        "Calls of the shared store, each of one command or more, by what came of them";
    StoreDuration: Histogram "gateway_store_call_duration_seconds" []
        "Time of a call of the shared store";
    StoreTokensOnLease: Gauge "gateway_store_tokens_on_lease" []
        "Tokens that this process had on lease after the last renewal of each limit";
    StoreRenewals: Counter "gateway_store_renewals_total" []
        "Renewals of leases, each of one limit of one owner; one call carries many";
    StoreWaited: Counter "gateway_store_waiting_requests_total" []
        "Requests that waited for the shared store";
    StoreRefusedAlone: Counter "gateway_store_refused_alone_total" []
        "Requests refused without asking the shared store, because it had told when the next token comes";
    StoreDecidedAlone: Counter "gateway_store_decided_alone_total" []
        "Requests decided without the shared store, because it could not be reached or did not answer in time";
    Callers: Counter "gateway_callers_total" ["kind": CallerKind, "outcome": CallerOutcome]
        "Requests by kind of credential and what came of checking it";
    Verifications: Counter "gateway_verifications_total" ["outcome": Verification]
        "Signatures of tokens seen for the first time: verified, failed, or put off by a budget";
    VerificationSeconds: Seconds "gateway_verification_seconds_total" []
        "Time that workers have spent on signatures";
    UnknownTiers: Counter "gateway_unknown_tiers_total" []
        "Requests whose credential named a tier that there is not; they were given the default";
    ExternalLookups: Counter "gateway_external_lookups_total" ["result": ExternalLookup]
        "Requests whose caller the external service answers for, by how the answer was found";
    ExternalQuestions: Counter "gateway_external_questions_total" ["outcome": ExternalOutcome]
        "Questions to the external service, by what came of them";
    ExternalEntries: Gauge "gateway_external_entries" ["kind"]
        "Stored answers of the external service: callers, and refusals";
    JwksFetches: Counter "gateway_jwks_fetches_total" ["issuer", "outcome": FetchOutcome]
        "Attempts to fetch an issuer's keys";
    JwksWaiting: Gauge "gateway_jwks_waiting_requests" ["issuer"]
        "Requests that wait for an issuer's keys";
    JwksKeys: Gauge "gateway_jwks_keys" ["issuer"]
        "Keys in use; with none, no token of the issuer can be judged";
    JwksAge: Gauge "gateway_jwks_age_seconds" ["issuer"]
        "Time since a fetch last confirmed the keys in use";
    JwksStale: Gauge "gateway_jwks_stale" ["issuer"]
        "1 if keys are in use although the last attempt to fetch them failed";
    JsonReserved: Gauge "gateway_json_reserved_bytes" []
        "What is reserved of request_limits.json_total, for bodies and answers that are held as JSON";
    JsonRefused: Counter "gateway_json_refused_total" []
        "Times that there was no room for a body or an answer that is held as JSON";
    ParkedBytes: Gauge "gateway_parked_upload_bytes" []
        "Bytes of HTTP/2 uploads that have arrived and that nobody has read yet";
    ParkedCounted: Gauge "gateway_parked_upload_reserved_bytes" []
        "Bytes taken of request_limits.parked_total: what has arrived with 256 for each frame, and what uploads that nobody reads yet may send";
    ParkedRefused: Counter "gateway_parked_upload_refused_total" []
        "HTTP/2 uploads for which there was no room in request_limits.parked_total";
    ParkedPauses: Counter "gateway_parked_upload_pauses_total" []
        "Times that a connection was not read further for the uploads that it has parked";
    RequestsInFlight: Gauge "gateway_requests_in_flight" []
        "Requests whose head has arrived and whose answer has not yet left";
    WorkerDelay: Gauge "gateway_worker_delay_seconds" ["worker"]
        "Least time that a ready task has waited for its worker in the last period";
    WorkerRefusedShare: Gauge "gateway_worker_refused_ratio" ["worker"]
        "Share of newcomers that an overloaded worker refuses now, the cheapest tiers first";
    OverloadRefusals: Counter "gateway_overload_refusals_total" ["tier"]
        "Requests that overloaded workers have refused, by tier";
    Connections: Gauge "gateway_connections" []
        "Open connections from callers";
    ConnectionsAccepted: Counter "gateway_connections_total" []
        "Connections accepted from callers";
    MalformedConnections: Counter "gateway_malformed_connections_total" []
        "Connections ended because what came was not HTTP";
    RefusedConnections: Counter "gateway_connections_refused_total" ["reason": ConnectionRefusal]
        "Connections closed before anything was read from them as a request";
    OverdueConnections: Counter "gateway_connections_overdue_total" ["awaited": Awaited]
        "Connections ended because they had been waited for too long, by what for";
    Floods: Counter "gateway_connections_flooding_total" ["frame": FrameKind]
        "HTTP/2 connections ended for too many frames that ask for nothing, by which";
    Tunnels: Gauge "gateway_tunnels" []
        "Connections that have become WebSockets";
    TlsHandshakes: Counter "gateway_tls_handshakes_total" ["outcome": Handshake]
        "TLS handshakes of callers, by how they ended";
    TlsHandshakeDelays: Counter "gateway_tls_handshakes_delayed_total" ["by": HandshakeDelay]
        "Times that a TLS handshake of a caller had to wait: its address had too many under way, or all of them had had their share of the workers' time";
    TlsHandshakeTime: Seconds "gateway_tls_handshake_seconds_total" []
        "Time that workers have spent on TLS handshakes of callers";
    CertificateExpiry: Gauge "gateway_tls_certificate_expiry_timestamp_seconds" ["listener", "number"]
        "Unix time at which a certificate of a listener expires, by its place in the list";
    BackendConnections: Gauge "gateway_backend_connections" ["backend", "state": ConnectionState]
        "Open connections to a backend";
    BackendExchanges: Gauge "gateway_backend_exchanges" ["backend"]
        "Exchanges under way with a backend; on HTTP/2 a connection carries several";
    BackendHandshakes: Counter "gateway_backend_tls_handshakes_total" ["backend", "outcome": BackendHandshake]
        "TLS handshakes with a backend, by how they ended";
    BackendCertificateExpiry: Gauge "gateway_backend_tls_certificate_expiry_timestamp_seconds" ["backend"]
        "Unix time at which the certificate expires that is shown to a backend";
    Revocations: Gauge "gateway_revocations" ["kind"]
        "Credentials that are taken back, by what names them";
    RevocationsUnwritten: Gauge "gateway_revocations_unwritten" []
        "Entries in force that the file of revocations does not have, since it could not be written";
    ClockJumps: Counter "gateway_clock_jumps_total" []
        "Times that the wall clock has jumped by more than two seconds, there or back";
    ClockAhead: Gauge "gateway_clock_ahead_seconds" []
        "By how much the wall clock is ahead of the time in use, or behind; zero unless it has jumped just now";
    ConfigLastReloadSuccessful: Gauge "gateway_config_last_reload_successful" []
        "1 if the config last read is the one in use";
    ConfigLastReloadSuccessTimestamp: Gauge "gateway_config_last_reload_success_timestamp_seconds" []
        "Unix time at which the config in use was loaded";
    ConfigGeneration: Gauge "gateway_config_generation" []
        "Number of the plan in use, counted from the start";
    Traces: Counter "gateway_traces_total" ["outcome": TraceOutcome]
        "Traces chosen for export, by what became of them";
    TenantRequests: Counter "gateway_tenant_requests_total" ["tenant"]
        "Requests of the tenants of metrics.tenants";
    TenantRefusals: Counter "gateway_tenant_refusals_total" ["tenant", "reason": Reason]
        "Requests of these tenants that the gateway refused or failed, by reason";
    TenantLimitRefusals: Counter "gateway_tenant_limit_refusals_total" ["tenant", "limit"]
        "Requests of these tenants that a limit refused, by the strictest limit that refused; beyond 16 limits `(others)`";
    TenantLimitRemaining: Gauge "gateway_tenant_limit_remaining" ["tenant", "limit"]
        "Tokens that these tenants have left of each limit of their tier";
    EntriesFingerprint: Gauge "gateway_entries_fingerprint" ["file"]
        "Fingerprint of the entries of the file of tenants (`tenants`) or keys (`keys`), equal in replicas with equal entries";
    EntryConflicts: Gauge "gateway_entry_conflicts" []
        "Entries that a file has otherwise than the last change by the admin API, which other replicas have";
    UsageRecords: Gauge "gateway_usage_records" []
        "Series of usage by minute, hour and day that are kept, of usage.records";
    UsageWaiting: Gauge "gateway_usage_waiting" []
        "Events of usage that wait to be delivered";
    UsageDelivered: Counter "gateway_usage_delivered_total" []
        "Events of usage that the receiver has taken";
    UsageDropped: Counter "gateway_usage_dropped_total" []
        "Events of usage that were dropped because more than usage.push.waiting waited";
    AccessLogDropped: Counter "gateway_access_log_dropped_total" []
        "Requests that are missing in the access log because it could not keep up";
    LogLinesLeftOut: Counter "gateway_log_lines_left_out_total" []
        "Lines missing in the operational log because there were too many of their kind";
    BuildInfo: Gauge "gateway_build_info" ["version"]
        "Always 1; the label says what runs";
    ProcessCpu: Seconds "process_cpu_seconds_total" []
        "User and system time that the process has used";
    ProcessResidentMemory: Gauge "process_resident_memory_bytes" []
        "Resident memory";
    ProcessOpenFds: Gauge "process_open_fds" []
        "Open file descriptors";
    ProcessMaxFds: Gauge "process_max_fds" []
        "File descriptors that may be open";
    ProcessThreads: Gauge "process_threads" []
        "Threads";
    ProcessStartTime: Gauge "process_start_time_seconds" []
        "Unix time at which the process started";
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    /// A counter of seconds, which has fractions.
    Seconds,
    Gauge,
    Histogram,
}

/// Facts about a family for the page and the documentation.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [LabelFacts],
    pub help: &'static str,
}

/// One label of a family.
#[derive(Debug, Clone, Copy)]
pub struct LabelFacts {
    pub name: &'static str,
    /// All values, if they are a closed set.
    pub words: Option<&'static [&'static str]>,
}

/// The thing whose counters a family holds. It is the family's first label, unless that one has a closed set of words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Process,
    Route,
    Backend,
    Limit,
    /// Another thing, which counts by itself and is asked at each scrape.
    Other,
}

/// Place of each family's first counter among the counters of one thing of its scope.
const PLACES: [usize; Family::ALL.len()] = {
    let mut places = [0; Family::ALL.len()];
    let mut position = 0;
    while position < places.len() {
        places[position] = counters_before(position, Family::ALL[position].facts().scope());
        position += 1;
    }
    places
};

/// Returns all families, in the order of the page.
pub fn families() -> impl Iterator<Item = Facts> {
    Family::ALL.into_iter().map(Family::facts)
}

impl Family {
    /// Returns the place of its first counter among the counters of one thing of its scope.
    #[inline]
    pub(super) const fn place(self) -> usize {
        PLACES[self as usize]
    }
}

impl Facts {
    pub(super) const fn scope(&self) -> Scope {
        match self.labels {
            [LabelFacts { name, words: None }, ..] => match name.as_bytes() {
                b"route" => Scope::Route,
                b"backend" => Scope::Backend,
                b"limit" => Scope::Limit,
                _ => Scope::Other,
            },
            _ => Scope::Process,
        }
    }

    /// Returns the labels of a family of counters that have a closed set of words.
    pub(super) const fn closed_labels(&self) -> &'static [LabelFacts] {
        match (self.scope(), self.labels) {
            (Scope::Process, labels) => labels,
            (_, [_, labels @ ..]) => labels,
            (_, []) => &[],
        }
    }

    /// Returns how many counters one thing of its scope has: one for each combination of words.
    pub(super) const fn counters(&self) -> usize {
        if !matches!(self.kind, Kind::Counter) || matches!(self.scope(), Scope::Other) {
            return 0;
        }
        let (mut labels, mut counters) = (self.closed_labels(), 1);
        while let [label, rest @ ..] = labels {
            counters *= match label.words {
                Some(words) => words.len(),
                // One more name that is not closed: such a family is sampled.
                None => 0,
            };
            labels = rest;
        }
        counters
    }
}

impl Scope {
    /// Returns how many counters one thing has, all families together.
    pub(super) const fn counters(self) -> usize {
        counters_before(Family::ALL.len(), self)
    }
}

const fn counters_before(end: usize, scope: Scope) -> usize {
    let (mut position, mut counters) = (0, 0);
    while position < end {
        let facts = Family::ALL[position].facts();
        if facts.scope() as usize == scope as usize {
            counters += facts.counters();
        }
        position += 1;
    }
    counters
}

impl Kind {
    /// Returns the type of the exposition format.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter | Self::Seconds => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Compares `gateway/docs/metrics.md`; `make docs` updates it.
    #[test]
    fn the_reference_lists_every_family() {
        let mut page =
            "# Metrics reference\n\nEvery metric on `/metrics` of the admin address (Prometheus text format). \
                        Made from the code by `make docs`; do not edit it by hand. Times are in seconds and sizes in \
                        bytes.\n\nA scraper whose `Accept` asks for `application/openmetrics-text` gets OpenMetrics 1.0.0: \
                        names and labels are the same, and with [tracing](operations.md) the buckets of \
                        `gateway_request_duration_seconds` have the newest exported trace as an exemplar (`trace_id`). \
                        Prometheus keeps exemplars with `--enable-feature=exemplar-storage`.\n\n| name | type | labels | meaning |\n|---|---|---|---|\n"
                .to_owned();
        for Facts {
            name,
            kind,
            labels,
            help,
        } in families()
        {
            let labels: Vec<_> = labels.iter().map(|label| format!("`{}`", label.name)).collect();
            let row = format!("| `{name}` | {} | {} | {help} |\n", kind.as_str(), labels.join(", "));
            page.push_str(&row);
        }
        crate::generated::hold("metrics.md", &page);
    }

    /// Checks the alert rules and the Grafana dashboard: they name metrics, labels and words that exist.
    #[test]
    fn deployment_files_ask_for_what_there_is() {
        /// Labels that Prometheus adds, or the format of histograms.
        const OTHERS: [&str; 3] = ["instance", "job", "le"];
        let files = [
            include_str!("../../deploy/prometheus/alerts.yaml"),
            include_str!("../../deploy/grafana/gateway.json"),
        ];
        let mut seen = 0;
        for text in files.map(|text| text.replace("\\\"", "\"")) {
            let starts = ["gateway_", "process_"].map(|prefix| text.match_indices(prefix));
            for (start, _) in starts.into_iter().flatten() {
                let name_end = text[start..].find(|c: char| c != '_' && !c.is_ascii_lowercase());
                let (name, rest) = text[start..].split_at(name_end.expect("the file ends otherwise"));
                let histogram = ["_bucket", "_sum", "_count"]
                    .iter()
                    .find_map(|end| name.strip_suffix(end));
                let found = families().find(|facts| facts.name == name || Some(facts.name) == histogram);
                let Some(facts) = found else {
                    panic!("there is no metric {name}")
                };
                seen += 1;
                let Some((labels, _)) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) else {
                    continue;
                };
                for label in labels.split(',') {
                    let (label, value) = label.split_once(['=', '!']).expect("a matcher");
                    if OTHERS.contains(&label) {
                        continue;
                    }
                    let known = facts.labels.iter().find(|known| known.name == label);
                    let known = known.unwrap_or_else(|| panic!("{name} has no label {label}"));
                    let words = value.trim_start_matches(['=', '~']).trim_matches('"');
                    for word in words.split('|') {
                        let is_known = known.words.is_none_or(|known| known.contains(&word));
                        assert!(is_known, "{label} of {name} is never {word}");
                    }
                }
            }
        }
        assert!(seen > 40, "only {seen}");
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
                kind.as_str() == "counter",
                "{name}: _total is for counters"
            );
            assert_eq!(name.ends_with("_duration_seconds"), kind == Kind::Histogram, "{name}");
            assert_eq!(name.ends_with("_seconds_total"), kind == Kind::Seconds, "{name}");
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
                    !["le", "quantile", "job", "instance"].contains(&label.name),
                    "{name}: {} is reserved",
                    label.name
                );
            }
        }
    }

    #[test]
    fn the_counters_of_one_thing_have_places_of_their_own() {
        for scope in [Scope::Process, Scope::Route, Scope::Backend, Scope::Limit, Scope::Other] {
            let mut taken = vec![None; scope.counters()];
            for family in Family::ALL.into_iter().filter(|family| family.facts().scope() == scope) {
                let facts = family.facts();
                for taken in &mut taken[family.place()..][..facts.counters()] {
                    assert_eq!(taken.replace(facts.name), None, "{}", facts.name);
                }
            }
            assert!(!taken.contains(&None), "{scope:?}");
        }
        let facts = Family::Callers.facts();
        let expected = CallerKind::ALL.len() * CallerOutcome::ALL.len();
        assert_eq!((facts.scope(), facts.counters()), (Scope::Process, expected));
        assert_eq!(Family::Requests.facts().counters(), Class::ALL.len());
        assert_eq!(Family::JwksFetches.facts().counters(), 0, "an issuer counts by itself");
    }
}

//! Foreign words of backends, their endpoints and their guards.

use super::{Of, Section, noted, with_value, word};

pub(super) const SECTIONS: &[Section] = &[
    // A backend.
    Section {
        has: &["endpoints", "bulkhead", "attempt_limit"],
        words: &[
            word(
                "url urls uri uris host hosts hostname server servers targets target nodes node upstream upstreams address addresses origin origins instances load_assignment lb_endpoints port",
                r#"endpoints: [{ url: "http://10.0.0.5:8080" }]"#,
            ),
            word(
                "discovery service_discovery dns srv kubernetes k8s consul",
                "endpoints: { dns: users.internal, port: 8080 }",
            ),
            word(
                "timeout timeouts request_timeout read_timeout proxy_read_timeout response_timeout deadline total_timeout",
                "time_limit: 10s",
            ),
            word(
                "per_try_timeout attempt_timeout per_attempt_timeout try_timeout",
                "attempt_limit: 3s",
            ),
            noted(
                "connect_timeout proxy_connect_timeout dial_timeout",
                "",
                "it holds for all backends: `time_limits: { connect: 5s }` at the top",
            ),
            noted(
                "retries retry_policy retry_on max_retries num_retries proxy_next_upstream next_upstream redispatch",
                "retry: { attempts: 3 }",
                "the first attempt is one of them",
            ),
            word(
                "circuit_breaker circuitbreaker circuit_breakers circuit_breaking fuse",
                "breaker: { min_calls: 10, failure_ratio: 0.6 }",
            ),
            word(
                "outlier_detection passive_health_check passive_health_checks max_fails fail_timeout",
                "ejection: { consecutive: 5 }",
            ),
            word(
                "health_check healthcheck health_checks healthchecks active_health_check active_health_checks probe probes check",
                "health: { path: /ready }",
            ),
            word(
                "panic_threshold healthy_panic_threshold fail_traffic_on_panic",
                "when_none_is_up: refuse",
            ),
            word(
                "max_connections maxconn max_conns concurrency max_concurrency max_concurrent max_requests limit limits semaphore max_pending_requests",
                "bulkhead: { limit: 100, queue: 100 }",
            ),
            with_value(
                "keepalive",
                Of::Number,
                "connections: { limit: $ }",
                "these are all connections at once; nginx counts the idle ones alone",
            ),
            word(
                "keepalive keep_alive idle_timeout pool pool_size connection_pool keepalive_timeout max_idle_conns",
                "connections: { idle: 30s }",
            ),
            with_value(
                "load_balancing load_balancer lb lb_policy lb_method balancer balancing algorithm strategy",
                Of::Words("round_robin roundrobin rr wrr weighted_round_robin weighted static turn"),
                "balance: { by: turn }",
                "",
            ),
            with_value(
                "load_balancing load_balancer lb lb_policy lb_method balancer balancing algorithm strategy",
                Of::Words("ip_hash source consistent consistent_hash ring_hash maglev sticky hash ketama"),
                "balance: { by: hash, key: client_address }",
                "",
            ),
            word(
                "load_balancing load_balancer lb lb_policy lb_method balancer balancing algorithm strategy",
                "balance: { by: load }",
            ),
            noted("scheme http2 grpc http_version version", "protocol: h2c", "`h2` in TLS"),
            noted(
                "ssl https ca verify tls_verify skip_verify insecure insecure_skip_verify proxy_ssl_verify",
                r#"endpoints: [{ url: "https://users.internal" }], tls: { ca_file: ca.pem }"#,
                "a certificate is always verified",
            ),
            word(
                "host_header pass_host pass_host_header preserve_host_header keep_host",
                "preserve_host: true",
            ),
            noted("name id", "", "a backend goes by the key that it stands under"),
            noted(
                "path prefix rewrite headers",
                "",
                "it belongs to the routes that use this backend",
            ),
        ],
    },
    // An endpoint.
    Section {
        has: &["url", "weight"],
        words: &[word(
            "host hostname address addr uri target server ip port endpoint scheme",
            r#"url: "http://10.0.0.5:8080""#,
        )],
    },
    // A source of endpoints.
    Section {
        has: &["dns", "srv", "keep"],
        words: &[
            word("name host hostname domain address fqdn", "dns: users.internal"),
            word(
                "interval ttl valid every poll_interval refresh_interval dns_refresh_rate resolve_interval refresh_period",
                "refresh: 10s",
            ),
            noted(
                "resolver resolvers nameservers dns_server dns_servers server",
                "",
                r#"the resolver of the system is asked: leave it out; with `srv` in place of `dns`, and without `refresh`, `name_server: "10.0.0.2:53"` asks another"#,
            ),
            word("tls ssl https secure protocol", "scheme: https"),
            word("path filename file_path", "file: endpoints.yaml"),
            word(
                "k8s kube endpoint_slices service",
                "kubernetes: { namespace: default, service: users, port: http }",
            ),
            word("stale max_stale hold keep_for", "keep: 10m"),
            noted(
                "url",
                "",
                "leave it out, or write `endpoints: [{ url: ... }]` in place of all that: a backend has a list or a source",
            ),
            noted(
                "weight",
                "",
                "the addresses of a name weigh the same: `srv` and `file` have weights",
            ),
        ],
    },
    // TLS towards a backend.
    Section {
        has: &["ca_file", "server_name", "minimum_version"],
        words: &[
            word(
                "ca cacert ca_cert ca_certificate trusted_ca trust root_ca root_cas trusted_certificate",
                "ca_file: ca.pem",
            ),
            noted(
                "cert certificate client_cert client_certificate key client_key private_key",
                "cert_file: edge.pem, key_file: edge.key",
                "the two go together",
            ),
            word(
                "sni server_names hostname host verify_name",
                "server_name: users.internal",
            ),
            noted(
                "verify insecure skip_verify insecure_skip_verify tls_verify verify_certificate",
                "",
                "a certificate is always verified: name its authority with `ca_file`",
            ),
            word(
                "min_version min_tls_version protocols version",
                r#"minimum_version: "1.2""#,
            ),
        ],
    },
    // A bulkhead.
    Section {
        has: &["limit", "queue", "tenant_share"],
        words: &[
            word(
                "max max_concurrent max_concurrent_calls max_connections max_requests concurrency max_concurrency size permits maxconn",
                "limit: 100",
            ),
            word(
                "queue_size max_queue queue_limit pending max_pending max_pending_requests backlog",
                "queue: 100",
            ),
            word(
                "timeout max_wait max_wait_duration queue_timeout wait_time wait_timeout",
                "wait: 1s",
            ),
            word("per_tenant fairness fair_share share", "tenant_share: 0.5"),
        ],
    },
    // A breaker.
    Section {
        has: &["min_calls", "failure_ratio", "open_for"],
        words: &[
            word(
                "threshold failure_threshold error_threshold max_failures max_errors failures consecutive_failures consecutive_errors consecutive_5xx",
                "consecutive: 5",
            ),
            word(
                "failure_rate failure_rate_threshold error_rate error_ratio error_percent error_percentage error_threshold_percentage failure_percentage",
                "failure_ratio: 0.6",
            ),
            word(
                "timeout reset_timeout wait_duration_in_open_state sleep_window recovery_time recovery_timeout cooldown cool_down open_duration open_time break_duration break_for fallback_duration",
                "open_for: 30s",
            ),
            word(
                "half_open_requests half_open_max_calls max_requests permitted_number_of_calls_in_half_open_state success_threshold successes half_open trial_requests",
                "probes: 3",
            ),
            word(
                "interval window_size sliding_window_size sliding_window period check_period sampling_duration rolling_window time_window",
                "window: 60s",
            ),
            word(
                "min_requests minimum_number_of_calls minimum_throughput volume_threshold request_volume_threshold min_request_amount",
                "min_calls: 10",
            ),
            word(
                "slow_call_duration_threshold slow_call_rate_threshold slow_calls slow_call latency_threshold latency",
                "slow: { over: 2s, ratio: 0.8 }",
            ),
            word(
                "statuses status_codes errors error_codes unhealthy_statuses http_statuses failure_codes",
                "failure_statuses: [500, 502, 503, 504]",
            ),
            noted("enabled", "", "it is on unless `breaker: off`"),
        ],
    },
    // Ejection of endpoints.
    Section {
        has: &["consecutive", "eject_for"],
        words: &[
            word(
                "consecutive_5xx consecutive_errors consecutive_gateway_failure consecutive_failures max_fails failures threshold errors",
                "consecutive: 5",
            ),
            word(
                "base_ejection_time ejection_time fail_timeout duration eject_time timeout",
                "eject_for: 30s",
            ),
            word("max_ejection_time max_eject_for max_duration", "eject_for_max: 300s"),
            noted("interval", "", "failures are counted as they come"),
        ],
    },
    // Health checks.
    Section {
        has: &["fall", "rise", "expect"],
        words: &[
            word(
                "uri url http_path request_path endpoint http http_get http_health_check",
                "path: /ready",
            ),
            word("tcp_health_check tcp_socket connect", "tcp: true"),
            word("grpc_health_check service_name service", "grpc: shop.Prices"),
            word(
                "status statuses expected_statuses expected_status expected_codes match_status http_statuses matcher",
                "expect: 200-299",
            ),
            word(
                "interval period period_seconds inter check_interval frequency",
                "every: 5s",
            ),
            word("timeout timeout_seconds check_timeout deadline", "time_limit: 1s"),
            word(
                "unhealthy_threshold fails failures failure_threshold max_fails unhealthy retries",
                "fall: 3",
            ),
            word(
                "healthy_threshold passes successes success_threshold healthy",
                "rise: 2",
            ),
            noted(
                "fast_interval fastinter downinter unhealthy_interval unhealthy_edge_interval jitter interval_jitter",
                "",
                "it is one second while the next probe may change something, and varies by 10 %",
            ),
            noted("port", "", "the endpoint's own port is probed"),
            noted(
                "host headers method body",
                "",
                "a probe is a GET with the endpoint's `Host`",
            ),
            noted("enabled", "", "it is on if it is written"),
        ],
    },
    // Retries.
    Section {
        has: &["attempts", "backoff", "share"],
        words: &[
            noted(
                "max count max_attempts tries retries max_retries num_retries times limit number",
                "attempts: 3",
                "the first attempt is one of them",
            ),
            word(
                "delay interval wait initial_delay initial_interval initial_backoff base base_interval wait_duration retry_back_off max_delay max_interval max_backoff cap",
                "backoff: 100ms..1s",
            ),
            word(
                "multiplier exponent backoff_factor backoff_multiplier exponential",
                "factor: 2",
            ),
            word("budget retry_budget budget_percent ratio", "share: 0.2"),
            word(
                "status_codes statuses status retry_on conditions codes errors retriable_status_codes http_codes",
                "on: [unreached, broken, timed_out, 502, 503, 504]",
            ),
            word("method verbs http_methods", "methods: [GET, HEAD, OPTIONS]"),
            word(
                "idempotency idempotent idempotency_key non_idempotent",
                "with_idempotency_key: true",
            ),
            noted(
                "per_try_timeout timeout attempt_timeout",
                "",
                "it is the backend's `attempt_limit: 3s`",
            ),
        ],
    },
    // Connections to a backend.
    Section {
        has: &["idle", "age", "ping"],
        words: &[
            word(
                "max max_connections pool_size size max_idle max_idle_conns per_host",
                "limit: 100",
            ),
            word(
                "idle_timeout keepalive keep_alive keepalive_timeout idle_conn_timeout",
                "idle: 30s",
            ),
            word(
                "max_age max_lifetime lifetime ttl max_connection_duration keepalive_time",
                "age: 10m",
            ),
            word(
                "max_streams max_concurrent_streams concurrent_streams max_requests",
                "streams: 100",
            ),
            word("keepalive_interval ping_interval heartbeat", "ping: 30s"),
        ],
    },
];

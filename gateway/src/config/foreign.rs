//! Translates words of other products into the words of this config, for hints.
//!
//! A key of nginx, Envoy, Kong, Traefik, KrakenD or Spring Cloud Gateway is not a typing error, so similar spelling
//! does not show what was meant. This table lists, for each section, such words and what to write instead.
//!
//! Invariant: what a hint suggests is valid, as it stands, in the section of the foreign word.

/// Foreign words of one section.
struct Section {
    /// Keys that identify the section: no other section has all of them.
    has: &'static [&'static str],
    words: &'static [Word],
}

/// Foreign words with the same meaning.
struct Word {
    /// Words separated by spaces, in `snake_case`; all spellings are compared in that form.
    foreign: &'static str,
    /// Text to write instead; empty if the config has nothing for it.
    ours: &'static str,
    /// Additional note.
    note: &'static str,
}

const fn word(foreign: &'static str, ours: &'static str) -> Word {
    Word {
        foreign,
        ours,
        note: "",
    }
}

const fn noted(foreign: &'static str, ours: &'static str, note: &'static str) -> Word {
    Word { foreign, ours, note }
}

/// Returns a hint for `key` in a section that has the keys `known`.
pub(super) fn meant_by(key: &str, known: &[&str]) -> Option<String> {
    let key = snake_case(key);
    let section = SECTIONS
        .iter()
        .find(|section| section.has.iter().all(|key| known.contains(key)))?;
    let is_meant = |word: &&Word| word.foreign.split(' ').any(|foreign| foreign == key);
    let Word { ours, note, .. } = section.words.iter().find(is_meant)?;
    Some(match (*ours, *note) {
        ("", note) => note.to_owned(),
        (ours, "") => format!("here it is `{ours}`"),
        (ours, note) => format!("here it is `{ours}`: {note}"),
    })
}

/// Returns the word of `ours` that `word` means in another product.
pub(super) fn value_meant_by(word: &str, ours: &[&str]) -> Option<&'static str> {
    let word = snake_case(word);
    let is_meant = |(meant, foreign): &&(&str, &str)| ours.contains(meant) && foreign.split(' ').any(|one| one == word);
    VALUES.iter().find(is_meant).map(|(meant, _)| *meant)
}

/// Values of this config, each with its names in other products.
const VALUES: &[(&str, &str)] = &[
    ("h2", "http2 http/2 http_2 h2c https grpc grpcs"),
    ("http1", "http http/1 http/1_1 http1_1 http_1_1 1_1"),
    ("api_key", "key apikey keys key_auth x_api_key"),
    ("jwt", "oauth oauth2 oidc openid bearer token tokens id_token"),
    ("anonymous", "none public guest open no everyone any"),
    (
        "mtls",
        "tls certificate certificates client_cert client_certificate x509 spiffe",
    ),
    ("basic", "basic_auth basicauth password passwords"),
    (
        "client_address",
        "ip client_ip address remote_addr remote_address source_ip source",
    ),
    (
        "caller",
        "user users consumer key api_key sub subject credential client",
    ),
    ("tenant", "organization organisation org account customer group"),
    ("route", "service endpoint path api"),
    ("global", "all everyone total"),
    ("minute", "minutely 1m 60s min"),
    ("hour", "hourly 1h 60m"),
    ("day", "daily 1d 24h"),
    ("week", "weekly 1w 7d"),
    ("month", "monthly 30d 1mo"),
    ("shadow", "dry_run report report_only log monitor audit observe"),
    ("enforce", "block active deny"),
    (
        "sliding_window",
        "fixed_window sliding window rolling_window sliding_log",
    ),
    ("token_bucket", "leaky_bucket bucket gcra"),
    (
        "unreached",
        "connect_failure connection_error connect_error refused_stream refused error",
    ),
    ("broken", "reset reset_before_request disconnect http_502"),
    ("timed_out", "timeout deadline deadline_exceeded"),
    ("deny", "fail fail_fast strict"),
    ("allow", "continue best_effort optional"),
    ("query", "query_param query_parameter param parameter url"),
    ("header", "headers http_header"),
    ("authorization", "authorization_header bearer"),
    ("websocket", "websockets ws wss"),
    ("stdout", "console std_out"),
    ("required", "require mandatory verify"),
    ("optional", "request want"),
    ("fail", "error abort"),
    ("skip", "ignore omit"),
    ("deep", "merge recursive"),
    ("concat", "append"),
    ("JWT", "jwt id_token"),
    ("at+jwt", "access_token at"),
];

/// Converts `pathPrefix`, `path-prefix` and `PathPrefix` to `path_prefix`.
fn snake_case(key: &str) -> String {
    let mut out = String::with_capacity(key.len() + 4);
    let mut after_lower = false;
    for letter in key.chars() {
        if letter.is_uppercase() && after_lower {
            out.push('_');
        }
        after_lower = letter.is_lowercase() || letter.is_ascii_digit();
        match letter {
            '-' | ' ' | '.' => out.push('_'),
            letter => out.extend(letter.to_lowercase()),
        }
    }
    out
}

const SECTIONS: &[Section] = &[
    // The whole config.
    Section {
        has: &["routes", "listeners", "backends"],
        words: &[
            noted(
                "services service upstreams upstream clusters cluster targets pools origins destinations",
                r#"backends: { users: { endpoints: [{ url: "http://10.0.0.5:8080" }] } }"#,
                "one for each service",
            ),
            word(
                "server servers listen listener entrypoints entry_points bind port ports host address addresses http https gateway gateways",
                "listeners: { public: { address: 0.0.0.0:8080 } }",
            ),
            word(
                "endpoints endpoint apis api paths path routers router locations location virtual_hosts virtual_host vhosts rules mappings mapping match proxies",
                r#"routes: { users: { match: { path: "/users/{id}" }, backend: users } }"#,
            ),
            word(
                "timeout timeouts request_timeout read_timeout proxy_read_timeout global_timeout time_limit deadline idle_timeout keepalive_timeout",
                "time_limits: { request: 30s }",
            ),
            noted(
                "rate_limit rate_limits ratelimit ratelimits rate_limiting throttle throttling quota quotas limits limit",
                "tiers: { free: { rate: 10/s, burst: 20 } }",
                "a tier's limit holds for each tenant, those of one route are its `limits`",
            ),
            word(
                "plans plan tier usage_plans usage_plan products subscriptions",
                "tiers: { gold: { rate: 500/s, burst: 1000 } }",
            ),
            word(
                "consumers consumer clients customers accounts organizations organisations tenant",
                "tenants: { acme: { tier: premium } }",
            ),
            word(
                "auth authentication authenticators security credentials identity api_keys api_key apikeys keys key_auth",
                "callers: { api_keys: { file: keys.yaml } }",
            ),
            word(
                "jwt jwks jwks_url jwks_uri oidc oauth oauth2 openid issuers issuer providers identity_providers",
                r#"callers: { jwt: { main: { issuer: "https://id.example.com", audience: [edge], algorithms: [RS256], keys: { url: "https://id.example.com/jwks.json" }, tenant: /tenant } } }"#,
            ),
            word(
                "log logs logging logger access_logs access_log_path",
                "access_log: stdout",
            ),
            word(
                "metrics prometheus dashboard management admin_api monitoring observability health healthcheck health_check status_page",
                "admin: { address: 127.0.0.1:9900 }",
            ),
            word(
                "threads worker_processes worker_threads concurrency worker_connections",
                "workers: auto",
            ),
            word(
                "max_connections maxconn connections connection_limit",
                "connection_limits: { total: 10000 }",
            ),
            word(
                "client_max_body_size max_body_size body_limit max_request_size max_request_body_size body_size",
                "request_limits: { body: 10MiB }",
            ),
            word(
                "trusted_proxies real_ip set_real_ip_from forwarded_headers proxy_headers trusted_ips",
                "client_address: { trusted_proxies: [10.0.0.0/8] }",
            ),
            noted(
                "circuit_breaker circuit_breakers breaker breakers bulkhead bulkheads retry retries retry_policy outlier_detection",
                "",
                "it belongs to a backend: `backends: { users: { retry: { attempts: 3 } } }`, or `breaker`, `bulkhead`, `ejection`",
            ),
            noted(
                "plugins plugin middleware middlewares filters http_filters handlers interceptors extensions extra_config policies",
                "",
                "there are no plugins: what they do elsewhere are keys of routes, backends, tiers and `callers`",
            ),
            noted(
                "tls ssl certificates certificate certs",
                "",
                "it belongs to a listener: `tls: { certificates: [{ cert_file: edge.pem, key_file: edge.key }] }`",
            ),
            noted(
                "cache caching",
                "",
                "there is no cache; a `fallback: [{ stale: 10m }]` of a route keeps the last good answer for when its backend fails",
            ),
            noted(
                "version name id kind api_version metadata",
                "",
                "a config has no such key: take it out",
            ),
            word("hot_reload reload auto_reload", "watch: true"),
            word(
                "cors_origins allowed_origins allow_origins origins_allowed",
                r#"cors: { origins: ["https://app.example.com"] }"#,
            ),
        ],
    },
    // A listener.
    Section {
        has: &["address", "protocols", "proxy_protocol"],
        words: &[
            word("port bind listen host addr ip interface", "address: 0.0.0.0:8080"),
            word(
                "ssl https certificate certificates cert certs cert_file key_file",
                "tls: { certificates: [{ cert_file: edge.pem, key_file: edge.key }] }",
            ),
            word(
                "http2 http2_enabled h2 h2c alpn protocol http_version",
                "protocols: [http1, h2]",
            ),
            word(
                "proxy_proto accept_proxy_protocol proxy_protocol_enabled",
                "proxy_protocol: required",
            ),
            noted("name", "", "a listener goes by the key that it stands under"),
            noted(
                "timeout timeouts idle_timeout read_timeout keepalive",
                "",
                "it holds for all listeners: `time_limits` at the top",
            ),
        ],
    },
    // TLS of a listener.
    Section {
        has: &["certificates", "client_ca_file", "client"],
        words: &[
            word(
                "cert cert_file certificate certificate_file key key_file private_key keys",
                "certificates: [{ cert_file: edge.pem, key_file: edge.key }]",
            ),
            word(
                "ca ca_file ca_cert client_ca client_cas trusted_ca",
                "client_ca_file: ca.pem",
            ),
            noted(
                "client_auth verify_client ssl_verify_client mutual mtls verify",
                "client: required, client_ca_file: ca.pem",
                "or `optional`",
            ),
            word(
                "min_version min_tls_version protocols ssl_protocols version",
                r#"minimum_version: "1.2""#,
            ),
            noted(
                "ciphers cipher_suites ssl_ciphers",
                "",
                "the cipher suites are chosen for you",
            ),
        ],
    },
    // The admin address.
    Section {
        has: &["address", "token_file"],
        words: &[
            word("port bind listen host addr", "address: 127.0.0.1:9900"),
            noted(
                "token api_key secret password auth",
                "token_file: admin.token",
                "a file that holds it",
            ),
            noted("enabled disable disabled", "", "`admin: off` turns it off"),
        ],
    },
    // Time limits of every request.
    Section {
        has: &["request", "reserve", "keep_alive"],
        words: &[
            word(
                "timeout total global global_timeout request_timeout response response_timeout read_write",
                "request: 30s",
            ),
            word(
                "idle idle_timeout keepalive_timeout keep_alive_timeout client_idle",
                "keep_alive: 75s",
            ),
            word(
                "read read_timeout header headers header_timeout read_header_timeout client_header_timeout",
                "head: 10s",
            ),
            word("send send_timeout write_timeout client_write", "write: 60s"),
            word(
                "shutdown shutdown_timeout grace grace_period graceful graceful_timeout graceful_shutdown termination",
                "drain: 10s",
            ),
            word("connect_timeout dial dial_timeout proxy_connect_timeout", "connect: 5s"),
            word(
                "stream stream_idle stream_idle_timeout websocket websocket_timeout",
                "idle_stream: 60s",
            ),
            word("pre_stop delay shutdown_delay lame_duck", "drain_notice: 5s"),
            word("tls_handshake handshake handshake_timeout accept", "first_byte: 10s"),
        ],
    },
    // Size limits of a request.
    Section {
        has: &["head", "uri", "body"],
        words: &[
            word(
                "max_body body_size max_body_size client_max_body_size max_request_size body_limit size",
                "body: 10MiB",
            ),
            word(
                "header header_size headers_size max_header_size max_header_bytes large_client_header_buffers",
                "head: 64KiB",
            ),
            word("max_headers header_count max_header_count", "headers: 100"),
            word("url url_length uri_length max_uri max_url path", "uri: 8KiB"),
        ],
    },
    // Connections of callers.
    Section {
        has: &["total", "per_address", "requests"],
        words: &[
            word("max max_connections maxconn limit connections", "total: 10000"),
            word("per_ip per_client max_per_ip limit_conn per_source", "per_address: 200"),
            word(
                "max_requests keepalive_requests requests_per_connection max_requests_per_connection",
                "requests: 100000",
            ),
            word("max_streams max_concurrent_streams concurrent_streams", "streams: 100"),
        ],
    },
    // Client addresses.
    Section {
        has: &["trusted_proxies", "ipv6_prefix"],
        words: &[word(
            "trusted proxies trusted_ips real_ip_from set_real_ip_from xff_num_trusted_hops num_trusted_proxies trusted_hops forwarded_for x_forwarded_for",
            "trusted_proxies: [10.0.0.0/8]",
        )],
    },
    // Callers.
    Section {
        has: &["api_keys", "jwt", "failures"],
        words: &[
            word(
                "api_key apikey key_auth keys consumers key",
                "api_keys: { file: keys.yaml }",
            ),
            word(
                "jwks jwks_url jwks_uri oidc oauth oauth2 openid bearer tokens token issuers issuer providers",
                r#"jwt: { main: { issuer: "https://id.example.com", audience: [edge], algorithms: [RS256], keys: { url: "https://id.example.com/jwks.json" }, tenant: /tenant } }"#,
            ),
            word(
                "tls client_certificates client_cert certificates mutual_tls x509 spiffe",
                "mtls: { identities: [{ dns: billing.internal, tenant: acme }] }",
            ),
            word(
                "users user basic_auth basicauth passwords htpasswd",
                "basic: { file: users.yaml }",
            ),
            word(
                "guest guests public none unauthenticated",
                "anonymous: { by: client_address, tier: free }",
            ),
            word(
                "bruteforce brute_force lockout failed_logins fail2ban",
                "failures: { rate: 5/s, burst: 50 }",
            ),
            word(
                "revoked revocation revocation_list blacklist blocklist denylist",
                "revocations: { file: revoked.yaml }",
            ),
        ],
    },
    // API keys.
    Section {
        has: &["header", "file", "in"],
        words: &[
            word("name header_name key_name key_names", "header: x-api-key"),
            word(
                "query_param query_name param parameter key_in_query",
                "in: [header, query]",
            ),
            word("places location locations from", "in: [header, authorization]"),
            noted(
                "keys key list values",
                "file: keys.yaml",
                "`gateway key new` writes its lines",
            ),
        ],
    },
    // An issuer of tokens.
    Section {
        has: &["issuer", "audience", "algorithms"],
        words: &[
            word(
                "jwks jwks_url jwks_uri jwk_url jwk_uri remote_jwks key_set keyset discovery discovery_url well_known url",
                r#"keys: { url: "https://id.example.com/jwks.json" }"#,
            ),
            word(
                "public_key public_keys key certificate pem jwks_file local_jwks",
                "keys: { file: jwks.json }",
            ),
            word(
                "secret secret_key shared_secret hmac secret_file",
                "keys: { secret_file: jwt.secret }, algorithms: [HS256]",
            ),
            word("aud audiences", "audience: [edge]"),
            word("iss issuers", r#"issuer: "https://id.example.com""#),
            word(
                "alg algs algorithm signing_method signing_algorithm",
                "algorithms: [RS256]",
            ),
            word("clock_skew skew clock_tolerance", "leeway: 30s"),
            word("tenant_claim org organization organisation account", "tenant: /tenant"),
            word("tier_claim plan plan_claim", "tier: /plan"),
            word(
                "scope scope_claim scopes_claim roles roles_claim permissions",
                "scopes: /scope",
            ),
            word(
                "sub subject user user_claim username username_claim user_id",
                "caller: /sub",
            ),
            word("claims claims_to_verify require required", "required_claims: [/jti]"),
            noted(
                "header headers from from_headers cookie query token_header",
                "",
                "tokens come as `Authorization: Bearer`",
            ),
            noted("name", "", "an issuer goes by the key that it stands under"),
        ],
    },
    // The source of an issuer's keys.
    Section {
        has: &["url", "secret_file", "cool_down"],
        words: &[
            word(
                "uri jwks jwks_url jwks_uri jwk_url remote endpoint",
                r#"url: "https://id.example.com/jwks.json""#,
            ),
            word("path local jwks_file inline", "file: jwks.json"),
            word(
                "cache ttl cache_ttl cache_duration refresh_interval interval period",
                "refresh: 5m",
            ),
            word("timeout request_timeout", "time_limit: 5s"),
        ],
    },
    // A backend.
    Section {
        has: &["endpoints", "bulkhead", "attempt_limit"],
        words: &[
            word(
                "url urls uri uris host hosts hostname server servers targets target nodes node upstream upstreams address addresses origin origins instances load_assignment lb_endpoints port",
                r#"endpoints: [{ url: "http://10.0.0.5:8080" }]"#,
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
            word(
                "keepalive keep_alive idle_timeout pool pool_size connection_pool keepalive_timeout max_idle_conns",
                "connections: { idle: 30s }",
            ),
            noted(
                "load_balancing load_balancer lb lb_policy lb_method balancer balancing algorithm strategy balance",
                "",
                "there is no choice yet: calls are shared out by the `weight` of each endpoint",
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
    // A route.
    Section {
        has: &["match", "access", "backend"],
        words: &[
            word(
                "path paths url uri url_pattern pattern location route rule endpoint",
                r#"match: { path: "/users/{id}" }"#,
            ),
            word(
                "prefix path_prefix prefixes starts_with base_path",
                "match: { prefix: /users }",
            ),
            word(
                "methods method verb verbs http_method http_methods",
                r#"match: { path: "/users/{id}", methods: [GET] }"#,
            ),
            word(
                "host hosts hostname hostnames domain domains server_name sni",
                r#"match: { host: api.example.com, path: "/users/{id}" }"#,
            ),
            word(
                "query query_params query_parameters querystring",
                r#"match: { path: /users, query: { view: full } }"#,
            ),
            word(
                "service services upstream upstreams cluster to proxy_pass destination destinations target targets forward_to backend_url backend_ref backend_refs upstream_url load_balancer",
                "backend: users",
            ),
            noted(
                "strip strip_prefix strip_path strip_path_prefix",
                "match: { prefix: /users, strip: true }",
                "the backend then gets the path without `/users`",
            ),
            noted(
                "rewrite_path path_rewrite replace_prefix prefix_rewrite regex_rewrite rewrite_target replace_path url_rewrite set_path upstream_path mapping",
                r#"rewrite: "/{path.rest}""#,
                "with a `prefix` such as `/users`",
            ),
            word(
                "timeout timeouts request_timeout deadline proxy_read_timeout read_timeout response_timeout total_timeout",
                "time_limit: 5s",
            ),
            word(
                "rate_limit rate_limits ratelimit rate_limiting rate throttle throttling max_rate rps quota quotas in_flight limit",
                "limits: { search: { rate: 5/s, burst: 10 } }",
            ),
            word(
                "auth authentication authorization authn authz security jwt api_key api_keys auth_validator require requires protected credentials",
                "access: { any_of: [api_key, jwt] }",
            ),
            word(
                "public anonymous no_auth skip_auth unauthenticated allow_anonymous open",
                "access: { any_of: [anonymous] }",
            ),
            word(
                "scope scopes roles role permissions required_scopes",
                "access: { scopes: [users.read] }",
            ),
            word("plans tier tiers", "access: { tiers: [premium] }"),
            word(
                "allow deny ip_whitelist ip_allowlist ip_allow_list ip_restriction whitelist allowlist blacklist denylist source_ip addresses",
                "access: { addresses: { allow: [10.0.0.0/8] } }",
            ),
            noted(
                "retry retries retry_policy circuit_breaker breaker bulkhead health_check health_checks load_balancing outlier_detection",
                "",
                "it belongs to the backend, for all routes that use it",
            ),
            noted(
                "websocket websockets ws upgrades use_websocket websocket_upgrade upgrade_configs",
                "upgrade: websocket",
                "it is off unless it is written",
            ),
            noted(
                "plugins plugin filters middlewares middleware policies predicates extra_config handlers",
                "",
                "there are no plugins: what they do elsewhere are keys of the route, its backend, and `callers`",
            ),
            word(
                "aggregation compose composite merge backends requests parts steps",
                r#"aggregate: { parts: { user: { backend: users, path: "/users/{path.id}" } } }"#,
            ),
            word(
                "return static response direct_response mock status fixed_response",
                "respond: { status: 204 }",
            ),
            word(
                "redirects redirect_to redirect_url return_301 https_redirect force_https ssl_redirect request_redirect",
                r#"redirect: { to: "https://{host}/" }"#,
            ),
            word(
                "max_body_size client_max_body_size request_size_limit max_request_size body_size",
                "body_limit: 1MiB",
            ),
            word(
                "request_headers add_header add_headers set_header set_headers header request_headers_to_add headers_to_add proxy_set_header request_transformer remove_headers hide_headers input_headers",
                "headers: { request: { set: { x-edge: eu-1 } } }",
            ),
            word(
                "response_headers response_headers_to_add response_transformer more_set_headers",
                "headers: { response: { set: { x-frame-options: DENY } } }",
            ),
            noted(
                "cache caching cache_ttl",
                "",
                "there is no cache; `fallback: [{ stale: 10m }]` keeps the last good answer for when the backend fails",
            ),
            word(
                "traffic_split traffic_splits splits canary weighted_backends weighted_clusters weighted_services",
                "split: [{ backend: v2, percent: 5 }, { backend: v1 }]",
            ),
            noted(
                "compression compress gzip mirror shadow",
                "",
                "there is nothing like it yet",
            ),
            noted(
                "priority order weight precedence",
                "",
                "of two routes the more specific wins, in whatever order they stand",
            ),
            noted(
                "name id description tags",
                "",
                "a route goes by the key that it stands under; comments begin with `#`",
            ),
            word("streaming sse buffering proxy_buffering event_stream", "stream: true"),
            word(
                "allow_origin allow_origins allowed_origins origins cross_origin",
                r#"cors: { origins: ["https://app.example.com"] }"#,
            ),
            word(
                "preserve_path normalize normalize_path merge_slashes",
                "path_policy: { double_slash: decode }",
            ),
        ],
    },
    // An entry of a split.
    Section {
        has: &["percent", "key", "when"],
        words: &[
            word(
                "to target service name cluster upstream destination backend_ref",
                "backend: v2",
            ),
            word("weight share ratio percentage portion fraction", "percent: 5"),
            word("hash hash_on hash_by sticky sticky_by by cookie_name", "key: tenant"),
            noted(
                "if match condition conditions headers header cookie tier tenant",
                r#"when: { header: { x-canary: "1" } }"#,
                "or `tier`, `tenant`, `cookie`",
            ),
        ],
    },
    // The match of a route.
    Section {
        has: &["path", "methods", "query"],
        words: &[
            word(
                "prefixes path_prefix starts_with base_path path_separated_prefix",
                "prefix: /users",
            ),
            word(
                "strip_prefix strip_path strip_path_prefix",
                "prefix: /users, strip: true",
            ),
            noted(
                "regex regexp path_regex path_regexp safe_regex regular_expression",
                r#"parameters: { id: { regex: "[0-9]+" } }"#,
                "for a parameter of the path, a header field or a query parameter",
            ),
            word(
                "url uri url_pattern paths pattern exact path_exact template path_template location route endpoint",
                r#"path: "/users/{id}""#,
            ),
            word("method verb verbs http_method http_methods", "methods: [GET]"),
            word(
                "hosts hostname hostnames domain domains authority server_name sni",
                "host: api.example.com",
            ),
            word("header", r#"headers: { x-version: "2" }"#),
            word(
                "query_params query_parameters querystring query_string args",
                "query: { view: full }",
            ),
            word(
                "params path_params path_parameters",
                r#"parameters: { id: { regex: "[0-9]+" } }"#,
            ),
        ],
    },
    // Access to a route.
    Section {
        has: &["any_of", "all_of", "scopes"],
        words: &[
            word(
                "type types kind kinds method methods auth required require credentials any or one_of allow_credentials api_key jwt mtls basic",
                "any_of: [api_key, jwt]",
            ),
            word(
                "public anonymous allow_anonymous unauthenticated open",
                "any_of: [anonymous]",
            ),
            word("all and every", "all_of: [mtls, jwt]"),
            word(
                "scope roles role permissions permission authorities",
                "scopes: [users.read]",
            ),
            word("plans plan", "tiers: [premium]"),
            word("consumers consumer groups acl clients", "tenants: [acme]"),
            word(
                "allow ips ip ip_whitelist whitelist allowlist networks cidr cidrs source_ip",
                "addresses: { allow: [10.0.0.0/8] }",
            ),
            word(
                "deny blacklist blocklist denylist",
                "addresses: { deny: [10.6.6.0/24] }",
            ),
        ],
    },
    // Addresses that may use a route.
    Section {
        has: &["allow", "deny"],
        words: &[
            word("whitelist allowlist allowed only from ips cidrs", "allow: [10.0.0.0/8]"),
            word(
                "blacklist blocklist denylist denied block except",
                "deny: [10.6.6.0/24]",
            ),
        ],
    },
    // A tier.
    Section {
        has: &["rate", "burst", "weight", "quotas"],
        words: &[
            word(
                "limit requests rps qps requests_per_second rate_limit max_rate average",
                "rate: 10/s",
            ),
            word("burst_size capacity bucket bucket_size max_burst", "burst: 20"),
            word(
                "concurrency max_concurrent max_concurrency concurrent parallel max_in_flight",
                "in_flight: 10",
            ),
            word(
                "quota monthly daily quota_limit",
                "quotas: { monthly: { limit: 100000, every: month } }",
            ),
            word("priority share", "weight: 2"),
            word("delay nodelay queue max_wait", "wait: 50ms"),
            word("algorithm strategy type policy", "kind: token_bucket"),
            word("dry_run shadow report_only", "mode: shadow"),
            noted("name id", "", "a tier goes by the key that it stands under"),
        ],
    },
    // A tenant.
    Section {
        has: &["tier", "rate", "quotas", "burst"],
        words: &[
            word("plan usage_plan subscription product", "tier: premium"),
            word("limit requests rps rate_limit", "rate: 100/s"),
            word(
                "quota monthly daily",
                "quotas: { monthly: { limit: 100000, every: month } }",
            ),
            word("concurrency max_concurrent", "in_flight: 10"),
            noted(
                "keys key api_keys api_key credentials",
                "",
                "keys stand in the file of `callers.api_keys`, each with its tenant",
            ),
            noted("name id", "", "a tenant goes by the key that it stands under"),
        ],
    },
    // A limit of a route.
    Section {
        has: &["per", "mode", "cost"],
        words: &[
            word(
                "requests rps qps requests_per_second rate_limit average",
                "rate: 10/s, burst: 20",
            ),
            word(
                "window interval period unit time_window second minute hour",
                "rate: 10/s, burst: 20",
            ),
            noted(
                "key by limit_by scope group_by aggregate_by policy for client",
                "per: client_address",
                "or `tenant`, `caller`, `route`, `global`",
            ),
            word("burst_size capacity max_burst bucket_size", "rate: 10/s, burst: 20"),
            word("action dry_run shadow report_only enforce", "mode: shadow"),
            word("concurrency max_concurrent connections", "in_flight: 50"),
            word("algorithm strategy type", "kind: token_bucket"),
            word("quota count max", "limit: 10000, every: day"),
        ],
    },
    // A quota.
    Section {
        has: &["limit", "every"],
        words: &[
            word("period window interval reset per unit", "limit: 10000, every: day"),
            word("max requests count amount quota", "limit: 10000, every: day"),
        ],
    },
    // An aggregate.
    Section {
        has: &["parts", "partial", "conflict"],
        words: &[
            word(
                "backends calls requests steps sources services components fragments endpoints",
                r#"parts: { user: { backend: users, path: "/users/{path.id}" } }"#,
            ),
            word("merge strategy merge_strategy on_conflict", "conflict: deep"),
            word("root envelope key target group", "wrap: data"),
            noted(
                "optional fail_fast allow_partial on_error continue_on_error",
                "partial: allow",
                "a part that the answer needs is `required: true`",
            ),
            word("error show_errors include_errors", "errors: true"),
            word("error_details return_error_details backend_errors", "errors: details"),
            noted(
                "timeout time_limit deadline",
                "",
                "the whole has the route's `time_limit`, each part may have its own",
            ),
            noted(
                "concurrent_calls sequential parallel mode",
                "",
                "parts run at once unless one `needs` another",
            ),
        ],
    },
    // A part of an aggregate.
    Section {
        has: &["backend", "path", "needs"],
        words: &[
            word(
                "url uri url_pattern endpoint pattern rewrite",
                r#"path: "/users/{path.id}""#,
            ),
            word("service upstream host hosts cluster sd", "backend: users"),
            word("verb http_method", "method: GET"),
            word(
                "params query_params querystring query_parameters input_query_strings",
                r#"query: { user: "{path.id}" }"#,
            ),
            word(
                "input_headers request_headers header set_headers",
                r#"headers: { x-locale: "{header.accept-language}" }"#,
            ),
            word("depends_on after depends dependencies sequence", "needs: [user]"),
            word(
                "if condition unless only_if",
                r#"when: { value: "{query.full}", is: "1" }"#,
            ),
            word("timeout deadline request_timeout", "time_limit: 2s"),
            word("mapping map alias renames", "rename: { items: orders }"),
            word(
                "allow whitelist allowlist fields include select pick",
                "keep: [id, name]",
            ),
            word("deny blacklist denylist exclude remove omit", "drop: [secret]"),
            noted(
                "optional mandatory critical",
                "required: true",
                "a part is optional unless it says so",
            ),
            word("is_collection array list", "collection: list"),
            word(
                "default defaults static on_error stale",
                "fallback: [{ value: { items: [] } }]",
            ),
            word("loop each iterate for", r#"for_each: { in: "{part.user.items}" }"#),
            word("data root extract json_path response_path", "target: data"),
            word("name key as into", "group: user"),
            word("max_body_size max_size size", "body_limit: 1MiB"),
            noted("encoding", "", "answers are JSON"),
            noted(
                "retry retries circuit_breaker breaker bulkhead cache",
                "",
                "it belongs to the backend",
            ),
        ],
    },
    // The fallback of a part.
    Section {
        has: &["value", "stale", "backend"],
        words: &[
            word("static default body response json", "value: { items: [] }"),
            word("cache cached stale_if_error max_age ttl", "stale: 10m"),
            word("service upstream cluster to", "backend: users"),
        ],
    },
    // The condition of a part.
    Section {
        has: &["status", "exists", "is_not"],
        words: &[
            noted("equals eq equal", "is: gold", "with the `value` that it is about"),
            noted(
                "not ne not_equal not_equals",
                "is_not: gold",
                "with the `value` that it is about",
            ),
            noted(
                "present defined not_null",
                "exists: true",
                "with the `value` that it is about",
            ),
            noted(
                "one_of any_of contains",
                "in: [gold, silver]",
                "with the `value` that it is about",
            ),
        ],
    },
    // One call for each element.
    Section {
        has: &["in", "at_once", "on_failure"],
        words: &[
            word("items array over each list of collection", r#"in: "{part.user.items}""#),
            word("max maximum size max_items", "limit: 20"),
            word("concurrency parallel parallelism max_parallel batch_size", "at_once: 4"),
            word("on_error error continue_on_error", "on_failure: omit"),
        ],
    },
    // CORS.
    Section {
        has: &["origins", "expose", "request_headers"],
        words: &[
            word(
                "allow_origins allowed_origins allow_origin origin access_control_allow_origin allow_origin_string_match allow_origin_list",
                r#"origins: ["https://app.example.com"]"#,
            ),
            word(
                "allow_methods allowed_methods method access_control_allow_methods",
                "methods: [GET, POST]",
            ),
            word(
                "allow_headers allowed_headers headers access_control_allow_headers",
                "request_headers: [authorization, content-type]",
            ),
            word(
                "expose_headers exposed_headers access_control_expose_headers",
                "expose: [x-request-id]",
            ),
            word(
                "allow_credentials access_control_allow_credentials supports_credentials",
                "credentials: true",
            ),
            word("age ttl preflight_max_age access_control_max_age", "max_age: 10m"),
            noted("enabled", "", "it is on if it is written"),
        ],
    },
    // Changes of header fields, in both directions.
    Section {
        has: &["request", "response"],
        words: &[
            word(
                "add set remove rename append req upstream to_backend requests override",
                "request: { set: { x-edge: eu-1 } }",
            ),
            word(
                "resp res downstream to_client responses",
                "response: { set: { x-frame-options: DENY } }",
            ),
        ],
    },
    // Changes of header fields, in one direction.
    Section {
        has: &["remove", "rename", "set", "add"],
        words: &[
            word("delete del unset hide strip drop discard", "remove: [x-debug]"),
            word("override replace upsert overwrite put", "set: { x-edge: eu-1 }"),
            word("append", "add: { x-seen-by: edge }"),
            word("move copy map", "rename: { x-old-name: x-new-name }"),
        ],
    },
    // A fixed answer.
    Section {
        has: &["status", "headers", "body"],
        words: &[
            word("code status_code http_status", "status: 204"),
            word("content text message json data", "body: hello"),
            word("header", "headers: { cache-control: no-store }"),
            noted(
                "location redirect url to",
                r#"status: 302, headers: { location: "https://example.com/" }"#,
                "or 301, 307, 308",
            ),
            word("content_type mime type", "headers: { content-type: text/html }"),
        ],
    },
    // A redirect.
    Section {
        has: &["to", "status"],
        words: &[
            word("code status_code http_status", "status: 308"),
            word("permanent", "status: 301"),
            word(
                "location url uri target destination path",
                r#"to: "https://www.example.com/""#,
            ),
            noted(
                "scheme host hostname https port",
                r#"to: "https://{host}/""#,
                "`{host}` is the host of the request",
            ),
        ],
    },
];

#[cfg(test)]
mod tests;

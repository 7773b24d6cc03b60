//! Foreign words of listeners, limits of connections and requests, and the admin API.

use super::{Of, Section, noted, with_value, word};

pub(super) const SECTIONS: &[Section] = &[
    // The whole config.
    Section {
        has: &["routes", "listeners", "backends"],
        words: &[
            with_value(
                "http",
                Of::MapWith("routers services middlewares"),
                r#"routes: { users: { match: { host: api.example.com, prefix: / }, backend: users } }"#,
                r#"each router is one of `routes`, and each service one of `backends: { users: { endpoints: [{ url: "http://10.0.0.5:8080" }] } }`"#,
            ),
            noted(
                "static_resources dynamic_resources",
                "",
                "this looks like a config of Envoy: `gateway init` writes one of ours to begin with",
            ),
            noted(
                "_format_version",
                "",
                "this looks like a config of Kong: `gateway init` writes one of ours to begin with",
            ),
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
                "prometheus dashboard management admin_api monitoring observability health healthcheck health_check status_page",
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
            word(
                "compress gzip brotli br zstd compressor content_encoding",
                "compression: { codings: [gzip] }",
            ),
            noted(
                "tls ssl certificates certificate certs",
                "",
                "it belongs to a listener: `tls: { certificates: [{ cert_file: edge.pem, key_file: edge.key }] }`",
            ),
            word("caching response_cache proxy_cache", "cache: { max_bytes: 64MiB }"),
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
            with_value(
                "protocol scheme",
                Of::Words("https tls ssl grpcs"),
                "tls: { certificates: [{ cert_file: edge.pem, key_file: edge.key }] }",
                "that is what makes it TLS",
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
];

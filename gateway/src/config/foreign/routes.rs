//! Foreign words of routes: matches, access and targets.

use super::{Of, Section, noted, with_value, word};

pub(super) const SECTIONS: &[Section] = &[
    // A route.
    Section {
        has: &["match", "access", "backend"],
        words: &[
            with_value("backends", Of::Single, "backend: $", ""),
            noted(
                "rule",
                "match: { host: api.example.com, prefix: / }",
                "`Host` is `host`, `PathPrefix` is `prefix`, `Path` is `path`",
            ),
            with_value("location", Of::Single, "match: { prefix: $ }", ""),
            noted(
                "paths",
                "match: { prefix: /users }",
                "it takes all paths below; `path` takes one",
            ),
            word(
                "path url uri url_pattern pattern route endpoint location",
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
            word("caching cache_ttl response_cache proxy_cache", "cache: {}"),
            word(
                "idempotency_key idempotent idempotency_keys deduplicate deduplication",
                "idempotency: {}",
            ),
            word(
                "traffic_split traffic_splits splits canary weighted_backends weighted_clusters weighted_services",
                "split: [{ backend: v2, percent: 5 }, { backend: v1 }]",
            ),
            word(
                "mirroring mirrors shadow shadowing shadow_traffic traffic_mirror request_mirror request_mirror_policies request_mirror_policy http_request_mirror proxy_mirror",
                "mirror: { to: v2, percent: 5 }",
            ),
            noted(
                "compress gzip brotli br zstd content_encoding compressor",
                "compression: { codings: [gzip] }",
                "`compression` at the top holds for every route",
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
    // A mirror.
    Section {
        has: &["to", "percent", "compare"],
        words: &[
            word(
                "backend target service name cluster upstream destination backend_ref",
                "to: v2",
            ),
            word(
                "weight share ratio percentage portion fraction runtime_fraction sample sampling",
                "percent: 5",
            ),
            word("hash hash_on hash_by sticky sticky_by by cookie_name", "key: tenant"),
            word("method verbs", "methods: [GET, POST]"),
            word(
                "mirror_body with_body request_body max_body max_body_size body_limit proxy_mirror_request_body mirror_request_body",
                "body: 64KiB",
            ),
            word(
                "max_in_flight concurrency max_concurrent in_flight bulkhead",
                "limit: 16",
            ),
            word("diff compare_response comparison", "compare: status"),
        ],
    },
    // The match of a route.
    Section {
        has: &["path", "methods", "query"],
        words: &[
            word(
                "prefixes path_prefix starts_with base_path path_separated_prefix paths",
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
                "url uri url_pattern pattern exact path_exact template path_template location route endpoint",
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

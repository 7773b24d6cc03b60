//! Example configs for tests, one for each section of the language.

/// A config with a gap for the entries of one section.
pub(super) struct SectionExample {
    /// Text of the config, with `@` for the gap.
    pub config: &'static str,
    /// Required entries of the section.
    pub needs: &'static [(&'static str, &'static str)],
    /// Keys that exclude each other.
    pub either: &'static [&'static str],
}

const fn place(config: &'static str, needs: &'static [(&'static str, &'static str)]) -> SectionExample {
    SectionExample {
        config,
        needs,
        either: &[],
    }
}

const fn either(
    config: &'static str,
    needs: &'static [(&'static str, &'static str)],
    either: &'static [&'static str],
) -> SectionExample {
    SectionExample { config, needs, either }
}

impl SectionExample {
    /// Returns the config with `entries` in its section, together with the required entries.
    pub(super) fn with(&self, entries: &str, keys: &[String]) -> String {
        let is_left = |key: &&str| {
            !keys
                .iter()
                .any(|other| other == key || (self.either.contains(&&**other) && self.either.contains(key)))
        };
        let needed = self.needs.iter().filter(|(key, _)| is_left(key)).map(|(_, text)| *text);
        let all: Vec<_> = needed.chain([entries]).filter(|text| !text.is_empty()).collect();
        self.whole(&format!("{{ {} }}", all.join(", ")))
    }

    /// Returns the config with `value` as the section.
    pub(super) fn whole(&self, value: &str) -> String {
        const LISTENERS: &str = "listeners: { public: { address: 0.0.0.0:8080 } }";
        const ROUTES: &str = "routes: { hello: { match: { path: / }, respond: { body: hello } } }";
        const BACKEND: &str = r#"b: { endpoints: [{ url: "http://h" }] }"#;
        self.config
            .replace("LISTENERS", LISTENERS)
            .replace("ROUTES", ROUTES)
            .replace("BACKEND", BACKEND)
            .replace('@', value)
    }
}

const URL: (&str, &str) = ("url", r#"url: "http://h""#);
const RATE: &[(&str, &str)] = &[("rate", "rate: 1/s"), ("burst", "burst: 5")];
const PATH: (&str, &str) = ("path", "path: /x");

pub(super) const SECTION_EXAMPLES: &[SectionExample] = &[
    place(
        "@",
        &[
            ("listeners", "listeners: { public: { address: 0.0.0.0:8080 } }"),
            (
                "routes",
                "routes: { hello: { match: { path: / }, respond: { body: hello } } }",
            ),
        ],
    ),
    place("{ listeners: { p: @ }, ROUTES }", &[("address", "address: 0.0.0.0:80")]),
    place(
        "{ listeners: { p: { address: 0.0.0.0:80, tls: @ } }, ROUTES }",
        &[("certificates", "certificates: [{ cert_file: a, key_file: b }]")],
    ),
    place("{ LISTENERS, ROUTES, admin: @ }", &[]),
    place("{ LISTENERS, ROUTES, time_limits: @ }", &[]),
    place("{ LISTENERS, ROUTES, request_limits: @ }", &[]),
    place("{ LISTENERS, ROUTES, connection_limits: @ }", &[]),
    place("{ LISTENERS, ROUTES, minimum_rates: @ }", &[]),
    place("{ LISTENERS, ROUTES, overload: @ }", &[]),
    place("{ LISTENERS, ROUTES, client_address: @ }", &[]),
    place("{ LISTENERS, ROUTES, path_policy: @ }", &[]),
    place(
        "{ LISTENERS, ROUTES, cors: @ }",
        &[("origins", r#"origins: ["https://a.example"]"#)],
    ),
    place("{ LISTENERS, ROUTES, compression: @ }", &[]),
    place("{ LISTENERS, ROUTES, compression: { levels: @ } }", &[]),
    place("{ LISTENERS, ROUTES, callers: @ }", &[]),
    place(
        "{ LISTENERS, ROUTES, callers: { api_keys: @ } }",
        &[("file", "file: keys.yaml")],
    ),
    place(
        "{ LISTENERS, ROUTES, callers: { basic: @ } }",
        &[("file", "file: users.yaml")],
    ),
    place(
        "{ LISTENERS, ROUTES, callers: { external: @ } }",
        &[("url", r#"url: "http://10.0.0.5:8080/verify""#)],
    ),
    place(
        r#"{ LISTENERS, ROUTES, callers: { external: { url: "http://a/", cache: @ } } }"#,
        &[],
    ),
    place(
        "{ LISTENERS, ROUTES, callers: { revocations: @ } }",
        &[("file", "file: revoked.yaml")],
    ),
    place("{ LISTENERS, ROUTES, callers: { anonymous: @ } }", &[]),
    place("{ LISTENERS, ROUTES, callers: { failures: @ } }", &[]),
    place("{ LISTENERS, ROUTES, callers: { verifications: @ } }", &[]),
    place(
        "{ LISTENERS, ROUTES, callers: { mtls: @ } }",
        &[("identities", "identities: [{ dns: a.internal, tenant: acme }]")],
    ),
    either(
        "{ LISTENERS, ROUTES, callers: { mtls: { identities: [@] } } }",
        &[("dns", "dns: a.internal"), ("tenant", "tenant: acme")],
        &["uri", "dns", "subject"],
    ),
    place(
        "{ LISTENERS, ROUTES, callers: { jwt: { main: @ } } }",
        &[
            ("issuer", "issuer: a"),
            ("audience", "audience: [edge]"),
            ("algorithms", "algorithms: [RS256]"),
            ("keys", "keys: { file: jwks.json }"),
            ("tenant", "tenant: /tenant"),
        ],
    ),
    either(
        "{ LISTENERS, ROUTES, callers: { jwt: { main: { issuer: a, audience: [edge], algorithms: [RS256], tenant: /t, keys: @ } } } }",
        &[("url", r#"url: "https://id.example/jwks.json""#)],
        &["url", "file", "secret", "secret_file"],
    ),
    place("{ LISTENERS, ROUTES, tiers: { gold: @ } }", RATE),
    place(
        "{ LISTENERS, ROUTES, tiers: { gold: { rate: 1/s, burst: 1, quotas: { m: @ } } } }",
        &[("limit", "limit: 5"), ("every", "every: day")],
    ),
    place("{ LISTENERS, ROUTES, tenants: { acme: @ } }", &[]),
    place(
        "{ LISTENERS, ROUTES, backends: { b: @ } }",
        &[("endpoints", r#"endpoints: [{ url: "http://h" }]"#)],
    ),
    place("{ LISTENERS, ROUTES, backends: { b: { endpoints: [@] } } }", &[URL]),
    either(
        "{ LISTENERS, ROUTES, backends: { b: { endpoints: @ } } }",
        &[("dns", "dns: users.internal")],
        &["dns", "srv", "file", "kubernetes"],
    ),
    place(
        "{ LISTENERS, ROUTES, backends: { b: { endpoints: { kubernetes: @ } } } }",
        &[
            ("namespace", "namespace: default"),
            ("service", "service: users"),
            ("port", "port: http"),
        ],
    ),
    place(
        r#"{ LISTENERS, ROUTES, backends: { b: { endpoints: [{ url: "https://h" }], tls: @ } } }"#,
        &[],
    ),
    place(
        r#"{ LISTENERS, ROUTES, backends: { b: { endpoints: [{ url: "http://h" }], bulkhead: @ } } }"#,
        &[],
    ),
    place(
        r#"{ LISTENERS, ROUTES, backends: { b: { endpoints: [{ url: "http://h" }], breaker: @ } } }"#,
        &[],
    ),
    place(
        r#"{ LISTENERS, ROUTES, backends: { b: { endpoints: [{ url: "http://h" }], breaker: { slow: @ } } } }"#,
        &[("over", "over: 2s"), ("ratio", "ratio: 0.5")],
    ),
    place(
        r#"{ LISTENERS, ROUTES, backends: { b: { endpoints: [{ url: "http://h" }], breaker: { adaptive: @ } } } }"#,
        &[("threshold", "threshold: 2s")],
    ),
    place(
        r#"{ LISTENERS, ROUTES, backends: { b: { endpoints: [{ url: "http://h" }], ejection: @ } } }"#,
        &[],
    ),
    either(
        r#"{ LISTENERS, ROUTES, backends: { b: { endpoints: [{ url: "http://h" }], protocol: h2c, health: @ } } }"#,
        &[("path", "path: /ready")],
        &["path", "tcp", "grpc"],
    ),
    place(
        r#"{ LISTENERS, ROUTES, backends: { b: { endpoints: [{ url: "http://h" }], retry: @ } } }"#,
        &[],
    ),
    place(
        r#"{ LISTENERS, ROUTES, backends: { b: { endpoints: [{ url: "http://h" }], protocol: h2c, connections: @ } } }"#,
        &[],
    ),
    either(
        "{ LISTENERS, backends: { BACKEND }, routes: { r: @ } }",
        &[("match", "match: { path: / }"), ("backend", "backend: b")],
        &["backend", "split", "aggregate", "respond", "redirect"],
    ),
    place(
        "{ LISTENERS, backends: { BACKEND }, routes: { r: { match: { path: / }, split: [@] } } }",
        &[("backend", "backend: b")],
    ),
    place(
        "{ LISTENERS, backends: { BACKEND }, routes: { r: { match: { path: / }, split: [{ backend: b, when: @ }] } } }",
        &[("tier", "tier: [free]")],
    ),
    place(
        "{ LISTENERS, backends: { BACKEND }, routes: { r: { match: { path: / }, backend: b, mirror: @ } } }",
        &[("to", "to: b"), ("percent", "percent: 1")],
    ),
    place("{ LISTENERS, ROUTES, cache: @ }", &[]),
    place("{ LISTENERS, ROUTES, idempotency: @ }", &[]),
    place(
        "{ LISTENERS, backends: { BACKEND }, routes: { r: { match: { path: / }, backend: b, idempotency: @ } } }",
        &[],
    ),
    place(
        "{ LISTENERS, backends: { BACKEND }, routes: { r: { match: { path: / }, backend: b, cache: @ } } }",
        &[],
    ),
    place(
        "{ LISTENERS, backends: { BACKEND }, routes: { r: { match: { path: / }, aggregate: { parts: { p: { backend: b, path: /p, hedge: @ } } } } } }",
        &[],
    ),
    place(
        "{ LISTENERS, backends: { BACKEND }, routes: { r: { match: { path: / }, aggregate: { parts: { p: { backend: b, path: /p, cache: @ } } } } } }",
        &[],
    ),
    either(
        "{ LISTENERS, backends: { BACKEND }, routes: { r: { backend: b, match: @ } } }",
        &[PATH],
        &["path", "prefix"],
    ),
    place(
        "{ LISTENERS, backends: { BACKEND }, routes: { r: { backend: b, match: { path: / }, access: @ } } }",
        &[],
    ),
    place(
        "{ LISTENERS, backends: { BACKEND }, routes: { r: { backend: b, match: { path: / }, access: { addresses: @ } } } }",
        &[],
    ),
    place(
        "{ LISTENERS, backends: { BACKEND }, routes: { r: { backend: b, match: { path: / }, headers: @ } } }",
        &[],
    ),
    place(
        "{ LISTENERS, backends: { BACKEND }, routes: { r: { backend: b, match: { path: / }, headers: { request: @ } } } }",
        &[],
    ),
    place(
        "{ LISTENERS, backends: { BACKEND }, routes: { r: { backend: b, match: { path: / }, cors: @ } } }",
        &[("origins", r#"origins: ["https://a.example"]"#)],
    ),
    either(
        "{ LISTENERS, backends: { BACKEND }, routes: { r: { backend: b, match: { path: / }, limits: { x: @ } } } }",
        RATE,
        &["rate", "burst", "limit", "every", "in_flight"],
    ),
    either(
        "{ LISTENERS, backends: { BACKEND }, routes: { r: { backend: b, match: { path: / }, fallback: [@] } } }",
        &[("stale", "stale: 1m")],
        &["value", "stale", "backend"],
    ),
    place("{ LISTENERS, routes: { r: { match: { path: / }, respond: @ } } }", &[]),
    place(
        "{ LISTENERS, routes: { r: { match: { path: / }, redirect: @ } } }",
        &[("to", "to: /new")],
    ),
    place(
        "{ LISTENERS, backends: { BACKEND }, routes: { r: { match: { path: / }, aggregate: @ } } }",
        &[("parts", "parts: { p: { backend: b, path: /p } }")],
    ),
    place(
        "{ LISTENERS, backends: { BACKEND }, routes: { r: { match: { path: / }, aggregate: { parts: { p: @ } } } } }",
        &[("backend", "backend: b"), PATH],
    ),
    either(
        "{ LISTENERS, backends: { BACKEND }, routes: { r: { match: { path: / }, aggregate: { parts: { p: { backend: b, path: /p, when: @ } } } } } }",
        &[("value", r#"value: "{query.x}""#), ("exists", "exists: true")],
        &["exists", "is", "is_not", "in"],
    ),
    place(
        "{ LISTENERS, backends: { BACKEND }, routes: { r: { match: { path: / }, aggregate: { parts: { p: { backend: b, path: /p, for_each: @ } } } } } }",
        &[("in", r#"in: "{part.q.x}""#)],
    ),
    place(
        "{ LISTENERS, backends: { BACKEND }, routes: { r: { match: { path: / }, aggregate: { parts: { p: { backend: b, path: /p, map: @ } } } } } }",
        &[],
    ),
    place(
        "{ LISTENERS, backends: { BACKEND }, routes: { r: { match: { path: / }, aggregate: { fields: @, parts: { p: { backend: b, path: /p } } } } } }",
        &[("allow", "allow: [p]")],
    ),
];

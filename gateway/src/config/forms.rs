//! Shows what may be written where a key is missing.
//!
//! Invariant: each form is valid where it is suggested. A test reads them.

/// Returns how the key `name` may be written in a section that is read into the Rust type `model`.
pub(super) fn of_key(model: &str, name: &str) -> Option<&'static str> {
    let found = KEYS
        .iter()
        .find(|(section, key, _)| *section == plain(model) && *key == name);
    found.map(|(_, _, form)| *form)
}

/// Returns how one of the exclusive keys may be written in a section that is read into the Rust type `model`.
pub(super) fn of_choice(model: &str) -> Option<&'static str> {
    let found = CHOICES.iter().find(|(section, _)| *section == plain(model));
    found.map(|(_, form)| *form)
}

/// Returns what to do if several of the exclusive keys are written in a section that is read into the Rust type `model`.
pub(super) fn of_several(model: &str) -> &'static str {
    let found = EITHER.iter().find(|(section, _)| *section == plain(model));
    found.map_or("take one of the two out", |(_, what)| what)
}

/// Returns the name of a type without its modules, and without the `Option` around it.
fn plain(model: &str) -> &str {
    let model = model.trim_end_matches('>');
    model.rsplit([':', '<']).next().unwrap_or(model)
}

/// Sections, keys, and how a key may be written.
const KEYS: &[(&str, &str, &str)] = &[
    (
        "Config",
        "listeners",
        "write `listeners: { public: { address: 0.0.0.0:8080 } }`; `gateway init` writes a whole config",
    ),
    (
        "Config",
        "routes",
        "write `routes: { hello: { match: { path: / }, access: { any_of: [anonymous] }, respond: { body: hello } } }` with \
         `callers: { anonymous: { by: client_address } }`; `gateway init` writes a whole config",
    ),
    ("Listener", "address", "write `address: 0.0.0.0:8080`"),
    (
        "Tls",
        "certificates",
        "write `certificates: [{ cert_file: edge.pem, key_file: edge.key }]`",
    ),
    (
        "CertificateFiles",
        "cert_file",
        "write `cert_file: edge.pem`, the certificate of this key",
    ),
    (
        "CertificateFiles",
        "key_file",
        "write `key_file: edge.key`, the private key of this certificate",
    ),
    (
        "ApiKeys",
        "file",
        "write `file: keys.yaml`; `gateway key new --tenant NAME --into keys.yaml` makes it",
    ),
    (
        "Basic",
        "file",
        "write `file: users.yaml`, a file with `users: [{ id: NAME, tenant: NAME, password_hash: HASH }]`",
    ),
    (
        "External",
        "url",
        "write `url: \"http://10.0.0.5:8080/verify\"`, where the service is asked",
    ),
    (
        "Revocations",
        "file",
        "write `file: revoked.yaml`, a file that may begin as `revocations: []`",
    ),
    (
        "Jwt",
        "issuer",
        "write `issuer: \"https://id.example.com\"`, the `iss` of its tokens",
    ),
    (
        "Jwt",
        "algorithms",
        "write `algorithms: [RS256]`, what the issuer signs with",
    ),
    (
        "Jwt",
        "keys",
        "write `keys: { url: \"https://id.example.com/jwks.json\" }`",
    ),
    (
        "Jwt",
        "tenant",
        "write `tenant: /tenant`: where in the claims the tenant stands, not its name",
    ),
    (
        "Mtls",
        "identities",
        "write `identities: [{ dns: billing.internal, tenant: acme }]`",
    ),
    ("Identity", "tenant", "write `tenant: NAME`"),
    (
        "Backend",
        "endpoints",
        "write `endpoints: [{ url: \"http://10.0.0.5:8080\" }]`",
    ),
    ("Tier", "burst", "write `burst: 20`, the most at once"),
    ("Limit", "burst", "write `burst: 20`, the most at once"),
    ("Endpoint", "url", "write `url: \"http://10.0.0.5:8080\"`"),
    ("Route", "match", "write `match: { prefix: / }`, or a `path`"),
    ("SplitEntry", "backend", "write `backend: NAME`"),
    ("Mirror", "to", "write `to: NAME`, the backend that gets the copies"),
    (
        "Mirror",
        "percent",
        "write `percent: 5`, the share of requests that is copied",
    ),
    (
        "Aggregate",
        "parts",
        "write `parts: { user: { backend: NAME, path: /users } }`",
    ),
    ("Part", "backend", "write `backend: NAME`"),
    (
        "Part",
        "path",
        "write `path: /users`, or with a parameter `path: \"/users/{path.id}\"`",
    ),
    (
        "OnMissing",
        "default",
        "write `default: { query.page: 1 }`: a value for each placeholder of the part; one without placeholders needs no \
         `missing`",
    ),
    ("ForEach", "in", "write `in: \"{part.NAME.FIELD}\"`"),
    (
        "Quota",
        "every",
        "write `every: month`, or `minute`, `hour`, `day`, `week`",
    ),
    ("Quota", "limit", "write `limit: 100000`"),
    ("LimitsStore", "redis", "write `redis: { url: \"redis://store:6379\" }`"),
    ("Redis", "url", "write `url: \"redis://store:6379\"`"),
    ("KubernetesService", "namespace", "write `namespace: default`"),
    ("KubernetesService", "service", "write `service: NAME`"),
    (
        "KubernetesService",
        "port",
        "write `port: http`, the name or number of the port",
    ),
    ("Slow", "over", "write `over: 2s`"),
    ("Cors", "origins", "write `origins: [\"https://app.example.com\"]`"),
    ("Redirect", "to", "write `to: \"https://www.example.com/\"`"),
    ("Expression", "regex", "write `regex: \"v[0-9]+\"`"),
    ("ApiKey", "digest", "`gateway key hash < FILE` prints it"),
    ("User", "password_hash", "`htpasswd -nB NAME` prints it after the colon"),
];

/// Sections with exclusive keys, and what to do if several are written.
const EITHER: &[(&str, &str)] = &[
    (
        "Fallback",
        "make two entries of it, tried in turn, with the `value` as the last of all",
    ),
    (
        "JwtKeys",
        "take one out: `url` and `file` have public keys, for RS256, ES256, EdDSA and the like; `secret` and `secret_file` \
         are for HS256, HS384 and HS512",
    ),
];

/// Sections with exclusive keys, and how one of these may be written.
const CHOICES: &[(&str, &str)] = &[
    (
        "Route",
        "write for example `backend: NAME`, or `respond: { status: 204 }`",
    ),
    ("Match", "write `prefix: /` for all paths below one, or `path: /users`"),
    ("Identity", "write for example `dns: billing.internal`"),
    ("Fallback", "write for example `stale: 10m`; a `value` comes last"),
    (
        "JwtKeys",
        "write for example `url: \"https://id.example.com/jwks.json\"`",
    ),
    ("Health", "write `path: /ready`, or `tcp: true`"),
    ("When", "write for example `value: \"{query.full}\", exists: true`"),
    ("Limit", "write for example `rate: 10/s, burst: 20`"),
    ("Revocation", "write for example `key: ID`"),
];

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn a_type_has_a_plain_name() {
        for (model, name) in [
            ("gateway::config::model::callers::Jwt", "Jwt"),
            ("core::option::Option<gateway::config::model::callers::Jwt>", "Jwt"),
            ("core::option::Option<core::option::Option<a::B>>", "B"),
        ] {
            assert_eq!(plain(model), name);
        }
    }
}

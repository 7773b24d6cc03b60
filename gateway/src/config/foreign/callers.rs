//! Foreign words of credentials.

use super::{Section, noted, word};

pub(super) const SECTIONS: &[Section] = &[
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
                "ext_authz extauthz forward_auth forwardauth auth_request authrequest authz authorizer external_auth webhook introspection",
                r#"external: { url: "http://10.0.0.5:8080/verify" }"#,
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
                "`gateway key new --tenant NAME --into keys.yaml` writes its lines",
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
];

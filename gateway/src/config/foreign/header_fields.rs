//! Foreign words of the rules for header fields, and of cross-origin rules.

use super::{Section, noted, word};

pub(super) const SECTIONS: &[Section] = &[
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
];

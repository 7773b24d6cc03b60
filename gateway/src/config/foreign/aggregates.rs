//! Foreign words of aggregates, their parts and fallbacks.

use super::{Section, noted, word};

pub(super) const SECTIONS: &[Section] = &[
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
            word("mapping alias renames", "rename: { items: orders }"),
            word("relocate", r#"move: { "user.address.city": city }"#),
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
            word("default static on_error stale", "fallback: [{ value: { items: [] } }]"),
            word("loop each iterate for", r#"for_each: { in: "{part.user.items}" }"#),
            word("data root extract json_path response_path", "target: data"),
            word("name key as", "group: user"),
            word(
                "into graft embed merge_into",
                r#"for_each: { in: "{part.cart.items}", into: "items.*.product" }"#,
            ),
            word("max_body_size max_size size", "body_limit: 1MiB"),
            noted("encoding", "", "answers are JSON"),
            noted(
                "retry retries circuit_breaker breaker bulkhead",
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
];

//! Foreign words of tiers, tenants and limits.

use super::{Section, noted, word};

pub(super) const SECTIONS: &[Section] = &[
    // Overload of a worker.
    Section {
        has: &["delay", "for"],
        words: &[
            noted(
                "tiers tier priority priorities order shed",
                "",
                "leave it out: tiers are refused in the order of their `weight`, the least first",
            ),
            word("latency target target_delay max_delay threshold", "delay: 20ms"),
            word("interval window period duration", "for: 100ms"),
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
];

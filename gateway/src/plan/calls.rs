//! Computes the maximum number of backend calls of a route: per request, and per second for a caller at its tier's
//! rate.
//!
//! The numbers follow from the plan alone. Rates are sustained rates: a burst can exceed them until its tokens are used
//! up, and the limits of a route can lower them.

use std::sync::Arc;

use serde::Serialize;

use crate::plan::route::{Route, Target};

/// The maximum number of calls, per request and per tier.
#[derive(Debug, Serialize)]
pub struct FanOut {
    /// Calls to all backends, including fallback backends. Retries are not included.
    pub calls: u64,
    /// Attempts at all backends, with all retries that their settings allow.
    pub attempts: u64,
    /// Calls per backend, in the order in which the parts name them.
    pub backends: Vec<BackendCalls>,
    /// The tiers that the route admits, in the order of the config.
    pub tiers: Vec<TierCalls>,
}

#[derive(Debug, Serialize)]
pub struct BackendCalls {
    pub backend: Arc<str>,
    /// Calls per request.
    pub calls: u64,
}

/// Rates that one caller of a tier can cause.
#[derive(Debug, Serialize)]
pub struct TierCalls {
    pub tier: Arc<str>,
    pub requests_per_second: f64,
    /// Calls to all backends together.
    pub calls_per_second: f64,
}

impl FanOut {
    /// Returns `None` for a route that is no aggregate: it makes at most one call per request. `tiers` are the admitted
    /// tiers, each with its tokens per second.
    pub fn of(route: &Route, tiers: impl IntoIterator<Item = (Arc<str>, f64)>) -> Option<Self> {
        let Target::Aggregate(aggregate) = &route.target else {
            return None;
        };
        let mut backends: Vec<BackendCalls> = Vec::new();
        let (mut calls, mut attempts) = (0, 0);
        for part in &aggregate.calls {
            let of_part = part.for_each.as_ref().map_or(1, |for_each| for_each.limit as u64);
            for backend in part.backends() {
                calls += of_part;
                attempts += of_part * u64::from(backend.settings.retry.attempts);
                match backends.iter_mut().find(|known| known.backend == backend.name) {
                    Some(known) => known.calls += of_part,
                    None => backends.push(BackendCalls {
                        backend: Arc::clone(&backend.name),
                        calls: of_part,
                    }),
                }
            }
        }
        let of_tier = |(tier, tokens): (Arc<str>, f64)| {
            let requests = tokens / route.cost as f64;
            TierCalls {
                tier,
                requests_per_second: requests,
                calls_per_second: requests * calls as f64,
            }
        };
        Some(Self {
            calls,
            attempts,
            backends,
            tiers: tiers.into_iter().map(of_tier).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::plan::time_budget::properties::plan;

    #[test]
    fn calls_add_up_over_parts_and_elements() {
        let plan = plan(
            r#"
listeners: { public: { address: "127.0.0.1:0" } }
callers: { anonymous: { by: client_address } }
tiers: { slow: { rate: 90/min, burst: 5 } }
backends:
  users: { endpoints: [{ url: "http://nowhere.invalid" }], retry: off }
  spare: { endpoints: [{ url: "http://nowhere.invalid:2" }], retry: off }
  stock: { endpoints: [{ url: "http://nowhere.invalid:1" }], retry: { attempts: 3 } }
routes:
  all:
    match: { path: /all }
    access: { any_of: [anonymous], tiers: [free, slow] }
    cost: 3
    aggregate:
      partial: allow
      parts:
        user: { backend: users, path: /user, fallback: { backend: spare } }
        each: { backend: stock, path: "/stock/{item}", for_each: { in: "{part.user.skus}", limit: 7, at_once: 2 } }
        again: { backend: users, path: /again }
  one: { match: { path: /one }, access: { any_of: [anonymous] }, backend: users }
"#,
        );
        let [all, one] = &plan.outline.routes[..] else {
            panic!("there are two")
        };
        let fan_out = serde_json::to_value(all.fan_out.as_ref().unwrap()).unwrap();
        assert_eq!(
            fan_out,
            json!({
                "calls": 10,
                "attempts": 24,
                "backends": [
                    { "backend": "users", "calls": 2 },
                    { "backend": "spare", "calls": 1 },
                    { "backend": "stock", "calls": 7 },
                ],
                "tiers": [
                    { "tier": "free", "requests_per_second": 10.0 / 3.0, "calls_per_second": 10.0 / 3.0 * 10.0 },
                    { "tier": "slow", "requests_per_second": 0.5, "calls_per_second": 5.0 },
                ],
            })
        );
        assert!(one.fan_out.is_none());
    }
}

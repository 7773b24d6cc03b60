//! What the operator wrote, for whoever asks the running gateway what it goes by and which line says so.
//!
//! Read by the admin API alone; no request meets it.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;

use crate::config::Location;
use crate::plan::calls::FanOut;
use crate::plan::time_budget::TimeBudget;

/// The config behind a plan.
#[derive(Debug, Default)]
pub struct Outline {
    /// In the order written.
    pub routes: Vec<RouteOutline>,
    /// By a setting's path in the config.
    places: HashMap<String, Location>,
}

/// A route as written, defaults filled in.
#[derive(Debug, Serialize)]
pub struct RouteOutline {
    pub name: Arc<str>,
    #[serde(rename = "match")]
    pub matches: MatchOutline,
    pub access: AccessOutline,
    pub limits: Vec<LimitOutline>,
    /// Tokens a request takes from each limit that does not say otherwise.
    pub cost: u64,
    pub time_limit_ms: u64,
    /// The longest wait for the head of an answer.
    pub worst_case_ms: u64,
    pub time_budget: TimeBudget,
    /// Of an aggregate.
    pub fan_out: Option<FanOut>,
    pub stream: bool,
    pub body_limit_bytes: u64,
    /// Whether values are taken from the body.
    pub reads_json: bool,
    pub edge: EdgeOutline,
    pub target: TargetOutline,
}

/// From where the route may be used, and what happens to fields, paths and connections on the way.
#[derive(Debug, Serialize)]
pub struct EdgeOutline {
    /// Networks; `null` is all that are not denied.
    pub allow: Option<Vec<String>>,
    pub deny: Vec<String>,
    /// Whose pages may use it; `null` without CORS.
    pub origins: Option<Vec<String>>,
    pub security_headers: &'static str,
    /// Names of fields that are changed on the way to the backend, and to the caller.
    pub request_fields: Vec<String>,
    pub response_fields: Vec<String>,
    pub method_override: &'static str,
    pub path_policy: PathPolicyOutline,
    pub upgrade: &'static str,
}

#[derive(Debug, Serialize)]
pub struct PathPolicyOutline {
    pub dot_segments: &'static str,
    pub double_slash: &'static str,
    pub encoded_slash: &'static str,
    pub backslash: &'static str,
}

/// Empty lists ask for nothing.
#[derive(Debug, Serialize)]
pub struct MatchOutline {
    pub hosts: Vec<String>,
    pub paths: Vec<String>,
    pub methods: Vec<String>,
    /// `name: value`, as in a header.
    pub headers: Vec<String>,
    /// `name=value`, as in a query.
    pub query: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct AccessOutline {
    pub any_of: Vec<String>,
    /// In place of `any_of`.
    pub all_of: Vec<String>,
    pub scopes: Vec<String>,
    pub tiers: Vec<String>,
    pub tenants: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct LimitOutline {
    pub name: Arc<str>,
    /// `5/s, burst 10`, `1000 every day` or `5 in flight`.
    pub terms: String,
    pub per: &'static str,
    pub mode: &'static str,
    pub cost: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetOutline {
    Backend {
        name: String,
        rewrite: Option<String>,
    },
    Aggregate {
        partial: &'static str,
        parts: Vec<PartOutline>,
    },
    Respond {
        status: u16,
    },
}

#[derive(Debug, Serialize)]
pub struct PartOutline {
    pub name: Arc<str>,
    pub backend: String,
    pub path: String,
    pub required: bool,
    pub time_limit_ms: Option<u64>,
    pub needs: Vec<String>,
    pub method: String,
    /// Whether a condition decides that it is called at all.
    pub conditional: bool,
    pub for_each: Option<ForEachOutline>,
}

/// One call for each element of an array.
#[derive(Debug, Serialize)]
pub struct ForEachOutline {
    pub over: String,
    pub limit: u32,
    pub at_once: u32,
    pub on_failure: &'static str,
}

impl Outline {
    pub(super) fn new(routes: Vec<RouteOutline>, places: HashMap<String, Location>) -> Self {
        Self { routes, places }
    }

    /// Where `setting` stands, or else the nearest one around it; `None` for a default that nothing written is around.
    ///
    /// A setting is named by its path, `backends.users.breaker`; `keys.acme` is a tenant's first key in the key file.
    pub fn place(&self, setting: &str) -> Option<&Location> {
        let around = |inner: &&str| inner.rfind('.').map(|dot| &setting[..dot]);
        std::iter::successors(Some(setting), around).find_map(|setting| self.places.get(setting))
    }

    /// Whether the setting itself stands in the config.
    pub fn is_written(&self, setting: &str) -> bool {
        self.places.contains_key(setting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_is_found_where_what_is_around_it_stands() {
        let at = |line| Location {
            file: "gateway.yaml".into(),
            line,
            column: 1,
        };
        let places = [("backends.users", 3), ("backends.users.breaker", 5), ("tenants.a.b", 7)];
        let places = places.map(|(setting, line)| (setting.to_owned(), at(line))).into();
        let outline = Outline::new(Vec::new(), places);
        for (setting, line) in [
            ("backends.users.breaker", Some(5)),
            ("backends.users.breaker.window", Some(5)),
            ("backends.users.bulkhead.wait", Some(3)),
            ("backends.orders", None),
            ("tenants.a.b", Some(7)),
            ("tiers.free", None),
        ] {
            assert_eq!(outline.place(setting).map(|place| place.line), line, "{setting}");
        }
        assert!(outline.is_written("backends.users.breaker") && !outline.is_written("backends.users.bulkhead"));
    }
}

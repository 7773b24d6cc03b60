//! Which tenants have metrics of their own.

use crate::config::reader::Read;
use crate::config::span::At;
use crate::config::value::Value;

/// Metrics beside those of the config's own names.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metrics {
    /// Tenants with metrics of their own. Left out, none has.
    pub tenants: Option<MetricTenants>,
}

/// Tenants with metrics of their own: the busiest, and those that are named.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricTenants {
    /// Number of tenants with the most requests since the start.
    pub top: At<u32>,
    /// Tenants that have metrics in any case.
    pub names: Vec<At<String>>,
}

impl Read for Metrics {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| Self {
            tenants: f.optional("tenants"),
        })
    }
}

impl Read for MetricTenants {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| Self {
            top: f.within("top", 0, 0..=1000),
            names: f.list("names"),
        })
    }
}

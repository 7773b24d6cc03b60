//! Compiles which tenants have metrics of their own.

use std::sync::Arc;

use crate::config;
use crate::observe::tenants::Shown;

/// Returns the tenants that are on the page of metrics; `None` shows none.
pub(super) fn compile(written: &config::Metrics) -> Option<Shown> {
    let config::Metrics { tenants } = written;
    let config::MetricTenants { top, names } = tenants.as_ref()?;
    Some(Shown {
        top: top.value as usize,
        names: names.iter().map(|name| Arc::from(name.value.as_str())).collect(),
    })
}

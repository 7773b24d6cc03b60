//! Entry of one tenant in the file of tenants.

use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::time::Duration;

use policies::Every;

use crate::limits::Mode;

/// Terms of a tenant that may change while the gateway runs. What is left out comes from the tenant's tier.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct TenantRecord {
    /// Tier, whatever the tenant's credentials say.
    pub tier: Option<Arc<str>>,
    /// Tokens, and the time in which they are earned.
    pub rate: Option<(NonZeroU64, Duration)>,
    pub burst: Option<NonZeroU64>,
    /// Largest number of requests at once.
    pub in_flight: Option<NonZeroU32>,
    /// Quotas by name.
    pub quotas: Box<[(Arc<str>, RecordQuota)]>,
    /// Whether every request is refused.
    pub disabled: bool,
    /// Texts for people and programs, by name.
    pub labels: Box<[(Arc<str>, Arc<str>)]>,
}

/// A calendar quota of one tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RecordQuota {
    pub limit: NonZeroU64,
    pub every: Every,
    pub mode: Mode,
    /// `None` counts it where the quotas of its name are counted.
    pub counted: Option<Counted>,
}

/// Place where a quota is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Counted {
    /// In the store; each process holds some tokens.
    Leased,
    /// In the store, which is asked for each decision.
    Exact,
    /// In each process.
    Local,
}

impl Counted {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Leased => "leased",
            Self::Exact => "exact",
            Self::Local => "local",
        }
    }
}

impl TenantRecord {
    /// Returns the quota of this name.
    pub fn quota(&self, name: &str) -> Option<&RecordQuota> {
        let found = self.quotas.iter().find(|(known, _)| **known == *name);
        found.map(|(_, quota)| quota)
    }

    /// Whether a limit of the tenant differs from that of its tier.
    pub fn has_own_terms(&self) -> bool {
        self.rate.is_some() || self.burst.is_some() || self.in_flight.is_some() || !self.quotas.is_empty()
    }
}

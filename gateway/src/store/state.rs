//! State of the store, as this replica sees it.

use policies::Moment;

use super::trouble::Trouble;

/// State of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreState {
    pub health: Health,
    /// Name of the store's memory as last seen; `None` before the first connection.
    pub epoch: Option<u64>,
    /// What the store does when its memory is full; `None` if it did not tell.
    pub eviction: Option<Eviction>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Up { since: Moment },
    Down { since: Moment, trouble: Trouble },
}

impl StoreState {
    pub const fn is_up(&self) -> bool {
        matches!(self.health, Health::Up { .. })
    }

    /// Whether the store may drop counts when its memory is full. Owners then start with fresh limits.
    pub fn may_evict(&self) -> bool {
        self.eviction.is_some_and(|eviction| eviction != Eviction::Never)
    }
}

/// `maxmemory-policy` of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// `noeviction`.
    Never,
    /// Another policy; its name, or `other` for one that is not known.
    By(&'static str),
}

impl Eviction {
    const POLICIES: [&str; 9] = [
        "volatile-lru",
        "allkeys-lru",
        "volatile-lfu",
        "allkeys-lfu",
        "volatile-lrm",
        "allkeys-lrm",
        "volatile-random",
        "allkeys-random",
        "volatile-ttl",
    ];

    pub(super) fn of(policy: &str) -> Eviction {
        if policy == "noeviction" {
            return Eviction::Never;
        }
        let known = Eviction::POLICIES.into_iter().find(|known| *known == policy);
        Eviction::By(known.unwrap_or("other"))
    }

    /// Name of the policy.
    pub const fn word(self) -> &'static str {
        match self {
            Eviction::Never => "noeviction",
            Eviction::By(policy) => policy,
        }
    }
}

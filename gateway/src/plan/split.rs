//! Chooses the backend of a request on a route whose requests several backends share.
//!
//! Invariant: the choice depends on the route's name, the request's key and the conditions alone, so each replica makes
//! the same one, and so does each restart. Only without a key does chance decide.

use std::sync::Arc;

use http::HeaderName;
use policies::split::{self, Bucket, Share};

use crate::call::backend::Backend;
use crate::headers::cookies::cookie;
use crate::message::FieldMap;
use crate::plan::request_key::KeySources;
use crate::request_key::RequestKey;
use crate::routing::Is;
use crate::tenancy::Principal;

/// The backends that share a route's requests.
pub struct Split {
    /// The route's name and a zero byte, which precede each key.
    pub prefix: Box<[u8]>,
    pub key: RequestKey,
    /// In the order of trial. A target that takes the rest without a condition is the last.
    pub targets: Vec<SplitTarget>,
}

/// One backend, and the requests that it takes of those that the targets before it leave.
pub struct SplitTarget {
    pub backend: Arc<Backend>,
    pub share: Share,
    /// Conditions that must all hold.
    pub when: Vec<SplitCondition>,
}

/// One condition of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SplitCondition {
    Tier(Vec<Box<str>>),
    Tenant(Vec<Box<str>>),
    Header { name: HeaderName, is: Is },
    Cookie { name: Box<str>, is: Is },
}

impl Split {
    /// Chooses the backend. `chance` decides where there is no key.
    ///
    /// A request that lacks its key is in the last bucket, which the last target takes.
    pub fn choose(&self, sources: KeySources<'_>, chance: u64) -> &Arc<Backend> {
        let applying = self
            .targets
            .iter()
            .filter(|target| target.holds(sources.principal, sources.headers))
            .map(|target| (&target.backend, target.share));
        let bucket = self.bucket(sources, chance);
        let chosen = split::choose(bucket, applying);
        // The shares without a condition make up 100 %, or one of them takes the rest. So there is a choice.
        chosen.unwrap_or_else(|| self.last())
    }

    /// Returns the bucket of a request.
    pub fn bucket(&self, sources: KeySources<'_>, chance: u64) -> Bucket {
        sources.bucket(&self.key, &self.prefix, chance)
    }

    /// Returns the backend of the last target.
    pub fn last(&self) -> &Arc<Backend> {
        &self.targets.last().expect("a split has at least one target").backend
    }

    /// Returns each backend once, in the order of trial.
    pub fn backends(&self) -> impl Iterator<Item = &Arc<Backend>> {
        let is_first = |(index, target): &(usize, &SplitTarget)| {
            let mut before = self.targets[..*index].iter();
            before.all(|earlier| earlier.backend.name != target.backend.name)
        };
        let all = self.targets.iter().enumerate().filter(is_first);
        all.map(|(_, target)| &target.backend)
    }
}

impl SplitTarget {
    /// Whether all conditions hold.
    pub fn holds(&self, principal: &Principal, headers: &FieldMap) -> bool {
        self.when.iter().all(|condition| condition.holds(principal, headers))
    }
}

impl SplitCondition {
    fn holds(&self, principal: &Principal, headers: &FieldMap) -> bool {
        match self {
            Self::Tier(names) => names.iter().any(|name| **name == *principal.tier.name),
            Self::Tenant(names) => names.iter().any(|name| **name == *principal.caller.tenant),
            Self::Header { name, is } => headers.get_all(name).iter().any(|value| is.met_by(value.as_bytes())),
            Self::Cookie { name, is } => cookie(headers, name).is_some_and(|value| is.met_by(value)),
        }
    }
}

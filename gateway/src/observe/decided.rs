//! Which setting of the config decided on a refusal, and on which line it stands.
//!
//! The config is the one that was in force for the request: it is asked when the refusal is kept, not when somebody
//! reads of it.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::record::RequestRecord;
use crate::config::Location;
use crate::rejection::{Reason, Setting};

/// A config that can tell where its settings stand.
pub trait Settings: Send + Sync {
    /// The setting that decided on the refusal of `record`; `None` if none would have changed the answer.
    fn that_decided(&self, record: &RequestRecord, reason: Reason, decided: &Decided) -> Option<SettingPlace>;
}

/// What is known of the decision beside its reason.
pub struct Decided {
    /// `None` where the reason alone tells.
    pub setting: Option<Setting>,
    /// The limit that decided, by the key of its state.
    pub limit: Option<Arc<str>>,
    /// The part of an aggregate that the request failed with, and its backend.
    pub part: Option<(Arc<str>, Arc<str>)>,
    pub config: Arc<dyn Settings>,
}

/// A setting by its path in the config. It stands at `at`, or within what does; `null` for a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SettingPlace {
    pub setting: String,
    pub at: Option<Location>,
}

impl Decided {
    pub fn by(setting: Option<Setting>, config: Arc<dyn Settings>) -> Self {
        Self {
            setting,
            limit: None,
            part: None,
            config,
        }
    }
}

impl fmt::Debug for Decided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decided")
            .field("setting", &self.setting)
            .field("limit", &self.limit)
            .field("part", &self.part)
            .finish_non_exhaustive()
    }
}

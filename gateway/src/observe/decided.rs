//! Names the setting of the config that led to a rejection, and the line where it stands.
//!
//! The lookup uses the config that was in force for the request. It is done when the rejection is recorded, not when it
//! is read.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::record::RequestRecord;
use crate::rejection::{Reason, Setting};
use crate::setting::{self, Location, SettingId};

/// A config that can locate its settings.
pub trait Settings: Send + Sync {
    /// Returns the setting that led to the rejection of `record`; `None` if no setting would change the response.
    fn that_decided(&self, record: &RequestRecord, reason: Reason, decided: &Decided) -> Option<SettingPlace>;
}

/// Details of a rejection beside its reason.
pub struct Decided {
    /// The deciding setting; `None` if the reason alone determines it.
    pub setting: Option<Setting>,
    /// The failed part of an aggregate, and its backend.
    pub part: Option<(Arc<str>, Arc<str>)>,
    pub config: Arc<dyn Settings>,
}

/// A setting, by its path in the config. `at` is its location or that of the section around it; `null` for a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SettingPlace {
    pub setting: String,
    pub at: Option<Location>,
}

impl Decided {
    pub fn by(setting: Option<Setting>, config: Arc<dyn Settings>) -> Self {
        Self {
            setting,
            part: None,
            config,
        }
    }
}

impl Settings for setting::Settings {
    fn that_decided(&self, _: &RequestRecord, reason: Reason, decided: &Decided) -> Option<SettingPlace> {
        let id = match (decided.setting, reason) {
            (Some(Setting::At(id)), _) => id,
            (None, Reason::UriTooLong) => SettingId::URI,
            _ => return None,
        };
        let setting = self.get(id)?;
        Some(SettingPlace {
            setting: setting.path.to_string(),
            at: setting.at.clone(),
        })
    }
}

impl fmt::Debug for Decided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decided")
            .field("setting", &self.setting)
            .field("part", &self.part)
            .finish_non_exhaustive()
    }
}

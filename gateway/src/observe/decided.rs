//! Names the setting of the config that led to a rejection, and the line where it stands.
//!
//! The table of settings is that of the config that was in force for the request. The lookup is done when the rejection
//! is recorded, not when it is read.

use std::sync::Arc;

use serde::Serialize;

use crate::setting::{Location, SettingId, Settings};

/// The setting that led to a rejection, with the table that has it.
#[derive(Debug, Clone)]
pub struct Decided {
    pub setting: SettingId,
    pub settings: Arc<Settings>,
}

/// A setting, by its path in the config. `at` is its location or that of the section around it; `null` for a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SettingPlace {
    pub setting: String,
    pub at: Option<Location>,
}

impl Decided {
    /// Returns the path and the location of the setting.
    pub fn place(&self) -> Option<SettingPlace> {
        let setting = self.settings.get(self.setting)?;
        Some(SettingPlace {
            setting: setting.path.to_string(),
            at: setting.at.clone(),
        })
    }
}

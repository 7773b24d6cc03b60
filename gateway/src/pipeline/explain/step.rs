//! One line of an explanation: a fact, and the setting that it comes from.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::plan::Plan;
use crate::plan::own_settings::OwnSettings;
use crate::setting::{Location, SettingId};

/// A fact about a request, with the setting that it comes from.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    /// What the fact is about: `route`, `tier`, `limit`, `breaker` and so on.
    pub topic: &'static str,
    pub text: String,
    /// Path of the setting in the config; `null` where no setting decides.
    pub setting: Option<String>,
    /// Where the setting is written. For a default, where the nearest section around it is written, if one is.
    pub at: Option<Location>,
    /// True if the setting is not written.
    pub is_default: bool,
    /// The same fact in numbers and names.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub facts: Map<String, Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
}

impl Step {
    /// Makes a step that no setting decides.
    pub(super) fn plain(topic: &'static str, text: impl Into<String>) -> Self {
        Self {
            topic,
            text: text.into(),
            setting: None,
            at: None,
            is_default: false,
            facts: Map::new(),
            steps: Vec::new(),
        }
    }

    /// Names the setting.
    #[must_use]
    pub(super) fn by(mut self, plan: &Plan, id: SettingId) -> Self {
        if let Some(setting) = plan.settings.get(id) {
            self.setting = Some(setting.path.to_string());
            self.at.clone_from(&setting.at);
            self.is_default = !setting.is_written;
        }
        self
    }

    /// Names the setting at this path of the config.
    #[must_use]
    pub(super) fn at(mut self, plan: &Plan, path: String) -> Self {
        self.at = plan.outline.place(&path).cloned();
        self.is_default = !plan.outline.is_written(&path);
        self.setting = Some(path);
        self
    }

    /// Gives the setting another path than that of its place.
    #[must_use]
    pub(super) fn called(mut self, path: String) -> Self {
        self.setting = Some(path);
        self
    }

    /// Names the tenant in settings that each tenant of the file has of its own, and looks for their places.
    pub(super) fn name_tenant(&mut self, own: &OwnSettings<'_>, tenant: &str) {
        if let Some((setting, at)) = self.setting.as_ref().and_then(|path| own.find(Some(tenant), path)) {
            (self.setting, self.at) = (Some(setting), at.or(self.at.take()));
            self.is_default = false;
        }
        for step in &mut self.steps {
            step.name_tenant(own, tenant);
        }
    }

    /// Adds a fact.
    #[must_use]
    pub(super) fn fact(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.facts.insert(name.to_owned(), value.into());
        self
    }

    #[must_use]
    pub(super) fn with(mut self, steps: impl IntoIterator<Item = Self>) -> Self {
        self.steps.extend(steps);
        self
    }
}

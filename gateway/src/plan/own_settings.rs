//! Settings of single tenants that stand in the file of tenants.
//!
//! The file may have a million tenants and changes while a plan is in force, so the plan has one setting for each field,
//! `tenants.*.rate`. Whoever shows it names the tenant, and looks for the line in the file as it is then.

use std::cell::OnceCell;

use super::Plan;
use crate::config::tenant_file::EntryPlaces;
use crate::observe::SettingPlace;
use crate::setting::Location;

/// Beginning of the path of a setting that each tenant of the file has of its own.
pub const OF_EACH: &str = "tenants.*.";

/// Looks for settings of tenants in the file of tenants, which is read when the first one is asked for.
pub struct OwnSettings<'p> {
    plan: &'p Plan,
    places: OnceCell<Option<EntryPlaces>>,
}

impl<'p> OwnSettings<'p> {
    pub const fn new(plan: &'p Plan) -> Self {
        Self {
            plan,
            places: OnceCell::new(),
        }
    }

    /// Returns the setting of this tenant, if `setting` is one that each has of its own. Reads the file; `None` for the
    /// place if the tenant or the file is not found.
    pub fn find(&self, tenant: Option<&str>, setting: &str) -> Option<(String, Option<Location>)> {
        let (field, tenant) = (setting.strip_prefix(OF_EACH)?, tenant?);
        Some((format!("tenants.{tenant}.{field}"), self.place(tenant, field)))
    }

    /// Returns the setting of this tenant in place of one that each has of its own; any other is returned as it is.
    pub fn of(&self, tenant: Option<&str>, decided: SettingPlace) -> SettingPlace {
        match self.find(tenant, &decided.setting) {
            Some((setting, at)) => SettingPlace {
                setting,
                at: at.or(decided.at),
            },
            None => decided,
        }
    }

    /// Returns the place of a field of a tenant, or of its entry if the field is left out there.
    pub fn place(&self, tenant: &str, field: &str) -> Option<Location> {
        let read = || EntryPlaces::read(&self.plan.tenants.as_ref()?.path);
        self.places.get_or_init(read).as_ref()?.find(tenant, field)
    }
}

//! Explains in which coding the answer would be sent.

use std::sync::Arc;

use super::Scene;
use super::step::Step;
use super::text::list;
use crate::compression::PendingCompression;
use crate::config;
use crate::plan::Route;

impl Scene<'_> {
    /// Explains the compression of the answer; nothing where the route has none.
    pub(super) fn compression(&self, route: &Route) -> Option<Step> {
        let rules = route.edge.compression.as_ref()?;
        let asked = self.asked;
        let pending = PendingCompression::begin(rules, &asked.method, asked.version, &asked.headers);
        let offered: Vec<_> = rules.codings.iter().map(|coding| coding.as_str()).collect();
        let word = pending.coding().map_or("none", |coding| coding.as_str());
        let text = match pending.coding() {
            Some(coding) => {
                let types: Vec<_> = rules.types.iter().map(ToString::to_string).collect();
                format!(
                    "{}, if the answer has a type of {} and {} or more",
                    coding.as_str(),
                    list(&types, "or"),
                    config::size_text(rules.minimum),
                )
            }
            None => format!("none: the caller asks for none of {}", list(&offered, "or")),
        };
        let is_of_top = self
            .plan
            .edge
            .compression
            .as_ref()
            .is_some_and(|top| Arc::ptr_eq(top, rules));
        let setting = match is_of_top {
            true => "compression".to_owned(),
            false => format!("routes.{}.compression", route.name),
        };
        Some(
            Step::plain("compression", text)
                .at(self.plan, setting)
                .fact("coding", word),
        )
    }
}

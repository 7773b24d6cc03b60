//! Holds the plan in force. Every request reads it; a reload replaces it as a whole.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::plan::Plan;

/// The plan in force. A request keeps the plan that it began with; later requests get the new one.
pub struct LivePlan(ArcSwap<Plan>);

impl LivePlan {
    pub fn new(plan: Arc<Plan>) -> Self {
        Self(ArcSwap::new(plan))
    }

    pub fn load(&self) -> Arc<Plan> {
        self.0.load_full()
    }

    pub(crate) fn replace(&self, plan: Arc<Plan>) {
        self.0.store(plan);
    }
}

//! The plan in force: read by every request, replaced as a whole.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::plan::Plan;

/// A request keeps the plan it began with; the next one gets the new plan.
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

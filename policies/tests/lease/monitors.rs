//! The invariants of each kind of limit.

use super::explorer::Monitor;
use super::world::{Effect, Setting, World};
use policies::lease::Count;
use std::hash::Hash;

/// Checks that in any stretch `t` at most `burst + rate x t + tokens out on lease when it began` are admitted; one
/// burst more for each loss of memory, and what was on lease then if the store went back to an earlier state. Until
/// the first loss it also checks what the store knows of the leases; and when the last tick begins, that the whole
/// rate comes back.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct BucketMonitor {
    /// Most tokens admitted since any moment so far, without those earned and those on lease at that moment.
    excess: i64,
    refunds: u64,
    /// Whether only the sum of what is admitted is checked.
    only_sum: bool,
}

impl BucketMonitor {
    /// Checks only what is admitted, and not what the store knows.
    pub(crate) fn of_the_sum() -> BucketMonitor {
        BucketMonitor {
            only_sum: true,
            ..BucketMonitor::default()
        }
    }
}

impl Monitor for BucketMonitor {
    fn look<C: Count + Clone + Hash + Eq>(
        &mut self,
        setting: &Setting<C>,
        effect: Effect,
        world: &World<C>,
    ) -> Result<(), &'static str> {
        let burst = setting.terms.burst() as i64;
        match effect {
            Effect::None => {}
            Effect::Ticked => self.excess -= 1,
            Effect::Admitted { .. } => self.excess += 1,
            Effect::Refunded => {
                self.excess -= 1;
                self.refunds += 1;
            }
            Effect::Forgot => {
                self.excess -= burst;
                self.only_sum = true;
            }
            // A return that it does not remember is credited again.
            Effect::WentBack => {
                self.excess -= burst + world.out(setting) as i64;
                self.only_sum = true;
            }
        }
        if self.excess > burst {
            return Err("in any stretch t: admitted <= burst + rate x t + on lease when it began");
        }
        self.excess = self.excess.max(-(world.out(setting) as i64));
        if !self.only_sum {
            known_to_the_store(setting, effect, world, self.refunds)?;
        }
        if effect == Effect::Ticked && world.tick == setting.horizon {
            // All leases end within two ticks, and what was lost is earned again in as many as the burst has tokens.
            let settling = 2 + setting.terms.burst();
            if world.clone().recover(setting, settling, 3) < 3 {
                return Err("the whole rate comes back");
            }
        }
        Ok(())
    }
}

/// Checks that the store knows of all tokens that replicas can spend, and that these are no more than it may lease.
fn known_to_the_store<C: Count + Clone + Hash + Eq>(
    setting: &Setting<C>,
    effect: Effect,
    world: &World<C>,
    refunds: u64,
) -> Result<(), &'static str> {
    let now = setting.wall(world.tick);
    if let Effect::Admitted { replica } = effect {
        let ends = world.central.lease_ends(world.replicas[replica].name);
        if ends.is_none_or(|ends| now >= ends) {
            return Err("tokens are spent before the store takes the lease for ended");
        }
    }
    let usable = world.usable(setting);
    if usable > world.central.on_lease(now) + refunds {
        return Err("the store knows of all tokens on lease");
    }
    // Beside the share, each process may wait for one token.
    if usable > setting.terms.most() + world.names() + refunds {
        return Err("no more than the share is on lease");
    }
    Ok(())
}

/// Checks that in any window at most `limit + tokens out on lease when it began` are admitted.
#[derive(Clone, Debug, Hash)]
pub(crate) struct WindowMonitor {
    /// For each tick in which a window began that has not ended: the most tokens admitted since any moment in it,
    /// without those on lease at that moment. The last tick comes last.
    excess: Vec<i64>,
    ticks: usize,
}

impl WindowMonitor {
    /// Begins to watch windows of so many ticks.
    pub(crate) fn new(ticks: usize) -> WindowMonitor {
        WindowMonitor { excess: vec![0], ticks }
    }
}

impl Monitor for WindowMonitor {
    fn look<C: Count + Clone + Hash + Eq>(
        &mut self,
        setting: &Setting<C>,
        effect: Effect,
        world: &World<C>,
    ) -> Result<(), &'static str> {
        let out = -(world.out(setting) as i64);
        match effect {
            Effect::Ticked => {
                self.excess.push(out);
                if self.excess.len() > self.ticks {
                    self.excess.remove(0);
                }
            }
            Effect::Admitted { .. } => self.excess.iter_mut().for_each(|excess| *excess += 1),
            Effect::Refunded => self.excess.iter_mut().for_each(|excess| *excess -= 1),
            Effect::None | Effect::Forgot | Effect::WentBack => {}
        }
        if self.excess.iter().any(|excess| *excess > setting.terms.burst() as i64) {
            return Err("in any window: admitted <= limit + on lease when it began");
        }
        if let Some(last) = self.excess.last_mut() {
            *last = (*last).max(out);
        }
        Ok(())
    }
}

/// Checks that in each minute no more than the quota is admitted.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct QuotaMonitor {
    minute: u64,
    admitted: i64,
}

impl Monitor for QuotaMonitor {
    fn look<C: Count + Clone + Hash + Eq>(
        &mut self,
        setting: &Setting<C>,
        effect: Effect,
        world: &World<C>,
    ) -> Result<(), &'static str> {
        let minute = setting.wall(world.tick).elapsed().as_secs() / 60;
        if minute != self.minute {
            (self.minute, self.admitted) = (minute, 0);
        }
        self.admitted += i64::from(matches!(effect, Effect::Admitted { .. }));
        self.admitted -= i64::from(effect == Effect::Refunded);
        if self.admitted > setting.terms.burst() as i64 {
            return Err("a quota is never exceeded");
        }
        known_to_the_store(setting, effect, world, 0)
    }
}

//! How many slots each tenant holds, where no tenant may hold them all.
//!
//! Fair turns divide a backend between those who ask at the same time; they do not keep a lone tenant from
//! taking all of it with slow calls, just before the others come. A cap on the share of one does, at the
//! price of slots that stay idle while only one asks.
//!
//! Invariant: what is counted when it is handed out is counted out when it comes back. Without a cap
//! nothing is counted, and slots from before there was one are not.

use crate::ratio::Ratio;
use std::collections::BTreeMap;
use std::num::NonZeroU32;

#[derive(Default)]
pub(super) struct Shares {
    /// Only tenants with a counted slot: as many as there are slots, at most.
    held: BTreeMap<u64, u32>,
}

/// Goes with a slot that is counted, and says for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) tenant: u64,
}

/// The slots that one tenant may hold: its share, rounded down, but at least one. `None` if that is all.
pub(super) fn tenant_cap(limit: NonZeroU32, share: Ratio) -> Option<NonZeroU32> {
    let slots = u64::from(limit.get()) * u64::from(share.millionths()) / u64::from(Ratio::ONE.millionths());
    let cap = NonZeroU32::new(slots as u32).unwrap_or(NonZeroU32::MIN);
    (cap < limit).then_some(cap)
}

impl Shares {
    pub(super) fn has_room(&self, tenant: u64, cap: Option<NonZeroU32>) -> bool {
        cap.is_none_or(|cap| self.held.get(&tenant).is_none_or(|held| *held < cap.get()))
    }

    pub(super) fn count_in(&mut self, tenant: u64) -> Counted {
        *self.held.entry(tenant).or_default() += 1;
        Counted { tenant }
    }

    pub(super) fn count_out(&mut self, Counted { tenant }: Counted) {
        let held = self.held.get_mut(&tenant).expect("what is counted out was counted in");
        *held -= 1;
        if *held == 0 {
            self.held.remove(&tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_down_to_at_least_one_slot() {
        let check = |limit, share, expected| {
            let limit = NonZeroU32::new(limit).unwrap();
            let cap = tenant_cap(limit, Ratio::new(share).unwrap());
            assert_eq!(cap.map(NonZeroU32::get), expected, "{share} of {limit}");
        };
        check(10, 0.5, Some(5));
        check(10, 0.3, Some(3));
        check(9, 0.5, Some(4));
        check(10, 0.01, Some(1));
        check(10, 0.0, Some(1));
        check(10, 0.999_999, Some(9));
        check(10, 1.0, None);
        check(1, 0.5, None);
        check(u32::MAX, 0.5, Some(u32::MAX / 2));
        check(u32::MAX, 1.0, None);
    }
}

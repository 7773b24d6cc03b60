//! Keeps the state of encoders for the next body: to allocate and clear it takes up to half of the time of a short one.

use std::cell::RefCell;

/// States that each thread keeps of a coding.
const MOST: usize = 2;

/// States of one coding that nobody uses now, with their levels.
pub(super) struct Spare<T>(RefCell<Vec<(u32, T)>>);

impl<T> Spare<T> {
    pub(super) const fn new() -> Self {
        Self(RefCell::new(Vec::new()))
    }

    pub(super) fn take(&self, level: u32) -> Option<T> {
        let mut kept = self.0.borrow_mut();
        let place = kept.iter().position(|(of, _)| *of == level)?;
        Some(kept.swap_remove(place).1)
    }

    /// Keeps a state, in place of the oldest one if there are enough.
    pub(super) fn give(&self, level: u32, state: T) {
        let mut kept = self.0.borrow_mut();
        if kept.len() == MOST {
            kept.remove(0);
        }
        kept.push((level, state));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_kept_for_its_level_and_few_are() {
        let spare = Spare::new();
        for (level, state) in [(1, "a"), (2, "b"), (1, "c")] {
            spare.give(level, state);
        }
        assert_eq!(spare.take(3), None);
        assert_eq!(spare.take(1), Some("c"));
        assert_eq!(spare.take(1), None);
        assert_eq!(spare.take(2), Some("b"));
    }
}

//! Computes the longest time that dependent parts can take: the longest chain of parts that await each other.
//!
//! Knows nothing of deadlines. A caller with a deadline limits the result itself.

use std::time::Duration;

use super::recipe::Recipe;

/// Longest chain of a recipe, and the latest start of each part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CriticalPath {
    pub time: Duration,
    /// Part indexes in the order of their calls. Of several chains of the same length, the one declared first.
    pub parts: Vec<usize>,
    /// Latest start of each part, counted from the start of the aggregate.
    pub starts: Vec<Duration>,
}

impl Recipe {
    /// Computes the longest chain. `limit` returns the time limit of each part.
    pub fn critical_path(&self, limit: impl Fn(usize) -> Duration) -> CriticalPath {
        let parts = self.parts();
        let mut starts = vec![None; parts.len()];
        let end = |starts: &[Option<Duration>], part: usize| Some(starts[part]?.saturating_add(limit(part)));
        // The dependencies have no cycles, so every round settles at least one part.
        while starts.contains(&None) {
            for part in 0..parts.len() {
                starts[part] = parts[part]
                    .awaits()
                    .iter()
                    .try_fold(Duration::ZERO, |latest, need| Some(latest.max(end(&starts, *need)?)));
            }
        }
        let last = |among: &mut dyn Iterator<Item = usize>| {
            among.reduce(|longest, part| {
                if end(&starts, part) > end(&starts, longest) {
                    part
                } else {
                    longest
                }
            })
        };
        let mut chain: Vec<_> = std::iter::successors(last(&mut (0..parts.len())), |part| {
            last(&mut parts[*part].awaits().iter().copied())
        })
        .collect();
        chain.reverse();
        CriticalPath {
            time: chain.last().and_then(|part| end(&starts, *part)).unwrap_or_default(),
            parts: chain,
            starts: starts.into_iter().flatten().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::draft::{PartDraft, RecipeDraft};
    use super::*;

    #[test]
    fn the_longest_chain_is_found() {
        let check = |parts: &[(&str, &[&str], u64)], time: u64, chain: &[usize], starts: &[u64]| {
            let drafts = parts.iter().map(|(name, needs, _)| PartDraft {
                name: (*name).into(),
                needs: needs.iter().map(ToString::to_string).collect(),
                ..PartDraft::default()
            });
            let recipe = Recipe::compile(RecipeDraft {
                parts: drafts.collect(),
                ..RecipeDraft::default()
            });
            let path = recipe
                .unwrap()
                .critical_path(|part| Duration::from_millis(parts[part].2));
            assert_eq!(
                path,
                CriticalPath {
                    time: Duration::from_millis(time),
                    parts: chain.to_vec(),
                    starts: starts.iter().copied().map(Duration::from_millis).collect(),
                },
                "{parts:?}"
            );
        };
        check(&[("a", &[], 7)], 7, &[0], &[0]);
        check(&[("a", &[], 7), ("b", &[], 7)], 7, &[0], &[0, 0]);
        let diamond: [(&str, &[&str], u64); 4] =
            [("c", &["a", "b"], 5), ("a", &[], 10), ("b", &["a"], 20), ("d", &[], 34)];
        check(&diamond, 35, &[1, 2, 0], &[30, 0, 10, 0]);
        check(
            &[("a", &[], 10), ("b", &["a"], 0), ("c", &[], 11)],
            11,
            &[2],
            &[0, 10, 0],
        );
    }

    #[test]
    fn limits_without_end_are_no_trouble() {
        let part = |name: &str, needs: &[&str]| PartDraft {
            name: name.into(),
            needs: needs.iter().map(ToString::to_string).collect(),
            ..PartDraft::default()
        };
        let parts = vec![part("a", &[]), part("b", &["a"])];
        let recipe = Recipe::compile(RecipeDraft {
            parts,
            ..RecipeDraft::default()
        });
        assert_eq!(recipe.unwrap().critical_path(|_| Duration::MAX).time, Duration::MAX);
    }
}

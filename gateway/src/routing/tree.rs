//! Finds the patterns that a path matches, most specific first, without looking at any pattern twice.
//!
//! A tree of segments rather than a general router, because a parameter and a wildcard may stand at one place
//! (`/files/{id}` beside `/files/{*rest}`), and because a match may be declined (its conditions do not hold) and the
//! search goes on from there. Each node is reached by one way only, so a search costs at most one visit to each,
//! whatever the path. It recurses as deep as the longest pattern, which has [`MOST_SEGMENTS`](super::pattern::MOST_SEGMENTS)
//! segments at most, and not as deep as the path.

use super::pattern::Segment;
use crate::template::captures::Ranges;

/// Patterns by their segments; `L` is what is kept where a pattern ends.
#[derive(Debug)]
pub(super) struct Tree<L> {
    /// Sorted by text.
    literals: Vec<(Box<str>, Tree<L>)>,
    parameter: Option<Box<Tree<L>>>,
    /// Of the pattern that ends here.
    end: L,
    /// Of the pattern that has a wildcard next.
    wildcard: L,
}

impl<L: Default> Default for Tree<L> {
    fn default() -> Self {
        Self {
            literals: Vec::new(),
            parameter: None,
            end: L::default(),
            wildcard: L::default(),
        }
    }
}

impl<L: Default> Tree<L> {
    /// What is kept for the pattern of these segments, made if there is none yet.
    pub(super) fn leaf(&mut self, segments: &[Segment]) -> &mut L {
        match segments.split_first() {
            None => &mut self.end,
            Some((Segment::Wildcard, _)) => &mut self.wildcard,
            Some((Segment::Parameter, rest)) => self.parameter.get_or_insert_default().leaf(rest),
            Some((Segment::Literal(text), rest)) => {
                let at = self
                    .literals
                    .binary_search_by(|(known, _)| known.cmp(text))
                    .unwrap_or_else(|at| {
                        self.literals.insert(at, (text.clone(), Self::default()));
                        at
                    });
                self.literals[at].1.leaf(rest)
            }
        }
    }

    /// Everything that is kept.
    pub(super) fn each_leaf(&mut self, visit: &mut impl FnMut(&mut L)) {
        visit(&mut self.end);
        visit(&mut self.wildcard);
        let literals = self.literals.iter_mut().map(|(_, tree)| tree);
        for tree in literals.chain(self.parameter.as_deref_mut()) {
            tree.each_leaf(visit);
        }
    }

    /// Offers what is kept for each pattern that `path` matches to `judge`, until it takes one.
    ///
    /// Order: segment by segment from the left, a literal before a parameter before a wildcard. `path` is canonical;
    /// the ranges are what the parameters stand for in it.
    pub(super) fn search<'t, R>(
        &'t self,
        path: &str,
        mut judge: impl FnMut(&'t L) -> Option<R>,
    ) -> Option<(R, Ranges)> {
        let mut ranges = Ranges::new();
        let found = self.visit(path, 1, &mut ranges, &mut judge)?;
        Some((found, ranges))
    }

    /// `at` is where the next segment begins; past the end of the path, there is none.
    fn visit<'t, R>(
        &'t self,
        path: &str,
        at: usize,
        ranges: &mut Ranges,
        judge: &mut impl FnMut(&'t L) -> Option<R>,
    ) -> Option<R> {
        let Some(rest) = path.get(at..) else {
            return judge(&self.end);
        };
        let end = rest.find('/').map_or(path.len(), |length| at + length);
        let segment = &path[at..end];
        if let Ok(index) = self.literals.binary_search_by(|(text, _)| (**text).cmp(segment))
            && let Some(found) = self.literals[index].1.visit(path, end + 1, ranges, judge)
        {
            return Some(found);
        }
        if let (Some(next), false) = (&self.parameter, segment.is_empty()) {
            ranges.push(at..end);
            if let Some(found) = next.visit(path, end + 1, ranges, judge) {
                return Some(found);
            }
            ranges.pop();
        }
        if rest.is_empty() {
            return None;
        }
        ranges.push(at..path.len());
        judge(&self.wildcard).or_else(|| {
            ranges.pop();
            None
        })
    }
}

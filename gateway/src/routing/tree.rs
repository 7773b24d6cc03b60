//! Finds the patterns that a path matches, most specific first, and looks at no pattern twice.
//!
//! This is a tree of segments and not a general router, because a parameter and a wildcard may stand at the same place
//! (`/files/{id}` beside `/files/{*rest}`), and because the search must go on if a match is declined for its
//! conditions. Each node can be reached in one way only, so a search visits each node at most once, whatever the path.
//! The recursion is as deep as the longest pattern, at most [`MOST_SEGMENTS`](super::pattern::MOST_SEGMENTS) segments,
//! and not as deep as the path.

use super::pattern::Segment;
use crate::template::captures::Ranges;

/// A tree of patterns by their segments; `L` is the value that is kept for each pattern.
#[derive(Debug)]
pub(super) struct Tree<L> {
    /// Subtrees of literal segments, sorted by text.
    literals: Vec<(Box<str>, Tree<L>)>,
    parameter: Option<Box<Tree<L>>>,
    /// Value of the pattern that ends at this node.
    end: L,
    /// Value of the pattern whose next segment is a wildcard.
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
    /// Returns the value for the pattern of these segments; makes one if there is none.
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

    /// Calls `visit` with all values.
    pub(super) fn each_leaf(&mut self, visit: &mut impl FnMut(&mut L)) {
        visit(&mut self.end);
        visit(&mut self.wildcard);
        let literals = self.literals.iter_mut().map(|(_, tree)| tree);
        for tree in literals.chain(self.parameter.as_deref_mut()) {
            tree.each_leaf(visit);
        }
    }

    /// Calls `visit` with every pattern and its value, in the order of precedence where patterns match the same path.
    pub(super) fn each<'t>(&'t self, visit: &mut impl FnMut(&[Segment], &'t L)) {
        self.each_below(&mut Vec::new(), visit);
    }

    fn each_below<'t>(&'t self, above: &mut Vec<Segment>, visit: &mut impl FnMut(&[Segment], &'t L)) {
        visit(above, &self.end);
        let literals = self
            .literals
            .iter()
            .map(|(text, tree)| (Segment::Literal(text.clone()), tree));
        let parameter = self.parameter.as_deref().map(|tree| (Segment::Parameter, tree));
        for (segment, tree) in literals.chain(parameter) {
            above.push(segment);
            tree.each_below(above, visit);
            above.pop();
        }
        above.push(Segment::Wildcard);
        visit(above, &self.wildcard);
        above.pop();
    }

    /// Calls `judge` with the value of each pattern that `path` matches, until it returns a result.
    ///
    /// Order: segment by segment from the left, a literal before a parameter before a wildcard. `path` is canonical.
    /// The ranges are the parts of it that the parameters match.
    pub(super) fn search<'t, R>(
        &'t self,
        path: &str,
        mut judge: impl FnMut(&'t L, &Ranges) -> Option<R>,
    ) -> Option<(R, Ranges)> {
        let mut ranges = Ranges::new();
        let found = self.visit(path, 1, &mut ranges, &mut judge)?;
        Some((found, ranges))
    }

    /// Visits a node. `at` is the beginning of the next segment, or past the end of the path if there is none.
    fn visit<'t, R>(
        &'t self,
        path: &str,
        at: usize,
        ranges: &mut Ranges,
        judge: &mut impl FnMut(&'t L, &Ranges) -> Option<R>,
    ) -> Option<R> {
        let Some(rest) = path.get(at..) else {
            return judge(&self.end, ranges);
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
        judge(&self.wildcard, ranges).or_else(|| {
            ranges.pop();
            None
        })
    }
}

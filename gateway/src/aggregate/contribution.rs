//! The contribution of one part to the answer, with the answers to the calls of `for_each` parts put into its lists.
//!
//! Invariant: what is put where depends on the recipe and the outcomes alone. Answers are put into a list as it was
//! received, before its part is cut to shape, so the elements are those that the calls were made for.

use super::fan_out::Outcome;
use super::placed_member::PlacedMember;
use super::recipe::Recipe;
use crate::json::Document;

/// Data of a part that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contribution {
    /// Members of the answer.
    Placed(PlacedMember),
    /// Answer as it was received, into which other parts' answers are put. It is cut to shape after that.
    Unshaped(Document),
    /// Array of shaped values, one for each element of another part's list, into which they are put.
    OfElements(Document),
    /// Answer of which only other parts take values.
    Unplaced,
}

impl Contribution {
    /// Size in bytes.
    pub fn size(&self) -> usize {
        match self {
            Self::Placed(placed) => placed.size(),
            Self::Unshaped(document) | Self::OfElements(document) => document.bytes().len(),
            Self::Unplaced => 0,
        }
    }
}

/// Puts answers into the lists that they belong to, and cuts the lists' parts to shape. A part that becomes too long has
/// failed.
pub(super) fn embed(recipe: &Recipe, outcomes: &mut [Outcome]) {
    // The innermost first: an answer is complete before it is put somewhere itself.
    for index in recipe.embedded_first.iter().copied() {
        let part = &recipe.parts()[index];
        let Some((host, place)) = &part.into else { continue };
        settle(recipe, outcomes, index);
        let Some(Contribution::OfElements(values)) = contribution(&mut outcomes[index]).cloned() else {
            continue;
        };
        if let Some(Contribution::Unshaped(answer)) = contribution(&mut outcomes[*host]) {
            *answer = Document::from_checked(place.embed(answer.value(), values.value()).into());
        }
    }
    for index in 0..outcomes.len() {
        settle(recipe, outcomes, index);
    }
}

/// Cuts a part to shape that was waiting for what is put into it.
fn settle(recipe: &Recipe, outcomes: &mut [Outcome], index: usize) {
    let part = &recipe.parts()[index];
    let Some(found) = contribution(&mut outcomes[index]) else {
        return;
    };
    let Contribution::Unshaped(answer) = found else { return };
    match part.contribution(answer) {
        Ok(settled) => *found = settled,
        Err(cause) => {
            outcomes[index] = Outcome::Failed(part.shape_fault(cause));
        }
    }
}

fn contribution(outcome: &mut Outcome) -> Option<&mut Contribution> {
    match outcome {
        Outcome::Data(found) | Outcome::Incomplete(found, _) => Some(found),
        Outcome::Absent | Outcome::Skipped | Outcome::Failed(_) | Outcome::Cancelled => None,
    }
}

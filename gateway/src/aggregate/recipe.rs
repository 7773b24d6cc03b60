//! Compiled form of an aggregate: its parts in declared order, their dependencies, and the rules for merging them.
//!
//! Invariant: part names are unique, dependencies exist and have no cycles, paths are valid, and every fallback can be
//! used. Requests are not stored here: a part's index is the key to the code that makes its request.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::draft::{Conflict, Errors, PartDraft, Partial, RecipeDraft};
use super::grouped::GroupPrefixes;
use super::part::{Part, Placement};
use super::path::{Path, PathMistake, Segment};
use super::placed_member::MemberName;
use super::shape::{Shape, ShapeMistake};
use crate::json::Paths;
use crate::setting::Configured;

/// Compiled aggregate.
#[derive(Debug, Clone)]
pub struct Recipe {
    parts: Vec<Arc<Part>>,
    pub(super) conflict: Conflict,
    pub(super) errors: Errors,
    /// Path under which everything except the list of errors is placed.
    pub(super) wrap: Option<Arc<[MemberName]>>,
    /// Places on the way of group paths.
    pub(super) passages: GroupPrefixes,
    pub(super) body_limit: Option<Configured<usize>>,
}

/// Error in the config of an aggregate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mistake {
    NoParts,
    DuplicatePart {
        part: String,
    },
    UnknownNeed {
        part: String,
        need: String,
    },
    /// Each part needs the next one, and the last needs the first.
    Cycle {
        parts: Vec<String>,
    },
    BadPath {
        part: String,
        path: String,
        mistake: PathMistake,
    },
    /// Fallback of a required part, which is never used.
    UselessFallback {
        part: String,
        partial: Partial,
    },
    /// Fallback that would be merged at the root but has no name there.
    UnplacedFallback {
        part: String,
    },
    BadWrap {
        path: String,
        mistake: PathMistake,
    },
    /// `wrap` path that collides with the list of errors.
    ReservedWrap,
    /// Part whose place in the answer is the one of the list of errors.
    ReservedName {
        part: String,
    },
}

impl Recipe {
    /// Name of the list of failed parts in the body, if the recipe asks for one.
    pub const ERRORS: &str = "_errors";

    /// Compiles a recipe. Returns all mistakes at once.
    pub fn compile(draft: RecipeDraft) -> Result<Self, Vec<Mistake>> {
        let RecipeDraft {
            parts: drafts,
            partial,
            conflict,
            errors,
            wrap,
            body_limit,
        } = draft;
        let list_errors = errors != Errors::Unlisted;
        let mut mistakes = Vec::new();
        let wrap = wrap.map(|path| {
            place_in_answer(&path).unwrap_or_else(|mistake| {
                mistakes.push(Mistake::BadWrap { path, mistake });
                [MemberName::from("")].into()
            })
        });
        let errors_name = MemberName::from(Self::ERRORS);
        if list_errors && wrap.as_ref().is_some_and(|path| path[0] == errors_name) {
            mistakes.push(Mistake::ReservedWrap);
        }
        let mut passages = GroupPrefixes::default();
        if drafts.is_empty() {
            mistakes.push(Mistake::NoParts);
        }

        let mut indexes = HashMap::<String, usize>::new();
        for (index, draft) in drafts.iter().enumerate() {
            if indexes.insert(draft.name.clone(), index).is_some() {
                mistakes.push(Mistake::DuplicatePart {
                    part: draft.name.clone(),
                });
            }
        }
        let (needs, awaits) = resolve_needs(&drafts, &indexes, &mut mistakes);
        for cycle in find_cycles(&awaits) {
            let parts = cycle.into_iter().map(|index| drafts[index].name.clone()).collect();
            mistakes.push(Mistake::Cycle { parts });
        }

        let splices = || drafts.iter().flat_map(|draft| &draft.splices);
        let spliced_of = |name: &String| {
            Paths::new(
                splices()
                    .filter(|splice| splice.part == *name)
                    .map(|splice| &*splice.steps),
            )
        };
        let mut parts = Vec::with_capacity(drafts.len());
        for (index, draft) in drafts.iter().enumerate() {
            let awaited_by = (0..drafts.len())
                .filter(|other| awaits[*other].contains(&index))
                .collect();
            let shape = Shape::compile(&draft.shape).unwrap_or_else(|found| {
                mistakes.extend(
                    found
                        .into_iter()
                        .map(|ShapeMistake { path, mistake }| Mistake::BadPath {
                            part: draft.name.clone(),
                            path,
                            mistake,
                        }),
                );
                Shape::default()
            });
            let mut path_of = |path: &String| {
                place_in_answer(path).unwrap_or_else(|mistake| {
                    mistakes.push(Mistake::BadPath {
                        part: draft.name.clone(),
                        path: path.clone(),
                        mistake,
                    });
                    [MemberName::from("")].into()
                })
            };
            let place = match &draft.group {
                Some(group) if group == "." => Placement::Root,
                Some(group) => Placement::Group(path_of(group)),
                None => Placement::Group([MemberName::from(&*draft.name)].into()),
            };
            let collection = draft.collection.as_ref().map(&mut path_of);
            match (&place, &collection) {
                (Placement::Group(path), _) | (Placement::Root, Some(path)) => passages.add(path),
                (Placement::Root, None) => {}
            }
            if list_errors && wrap.is_none() && matches!(&place, Placement::Group(path) if path[0] == errors_name) {
                mistakes.push(Mistake::ReservedName {
                    part: draft.name.clone(),
                });
            }
            let mut part = Part {
                name: draft.name.as_str().into(),
                required: draft.required || partial == Partial::Deny,
                on_missing: draft.on_missing,
                each: draft.each,
                needs: needs[index].clone(),
                awaits: awaits[index].clone(),
                awaited_by,
                spliced: Arc::new(spliced_of(&draft.name)),
                shape,
                place,
                own_name: MemberName::from(&*draft.name),
                collection,
                fallback: None,
            };
            if let Some(value) = &draft.fallback {
                if part.required {
                    mistakes.push(Mistake::UselessFallback {
                        part: draft.name.clone(),
                        partial,
                    });
                }
                match part.placed(value) {
                    Ok(placed) => part.fallback = Some(placed),
                    Err(_) => mistakes.push(Mistake::UnplacedFallback {
                        part: draft.name.clone(),
                    }),
                }
            }
            parts.push(Arc::new(part));
        }
        if mistakes.is_empty() {
            Ok(Self {
                parts,
                conflict,
                errors,
                wrap,
                passages,
                body_limit,
            })
        } else {
            Err(mistakes)
        }
    }

    pub fn parts(&self) -> &[Arc<Part>] {
        &self.parts
    }

    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.parts.iter().position(|part| *part.name == *name)
    }
}

/// Parses a path to a place in the answer into its names.
fn place_in_answer(path: &str) -> Result<Arc<[MemberName]>, PathMistake> {
    /// Limit that keeps the whole answer within a nesting depth that common JSON parsers accept.
    const MOST_NAMES: usize = 16;
    if path.is_empty() {
        // Reported elsewhere as an empty name.
        return Ok([MemberName::from("")].into());
    }
    let path = Path::parse(path)?;
    let names = path.segments().iter().map(|segment| match segment {
        Segment::Name(name) => Ok(MemberName::from(&**name)),
        Segment::Every => Err(PathMistake::Star),
    });
    let names: Arc<[MemberName]> = names.collect::<Result<_, _>>()?;
    if names.len() > MOST_NAMES {
        return Err(PathMistake::TooLong);
    }
    Ok(names)
}

/// Resolves the names of the parts that each part needs and of those that it awaits.
fn resolve_needs(
    drafts: &[PartDraft],
    indexes: &HashMap<String, usize>,
    mistakes: &mut Vec<Mistake>,
) -> (Vec<Vec<usize>>, Vec<Vec<usize>>) {
    let mut resolve = |draft: &PartDraft, names: &mut dyn Iterator<Item = &String>| {
        let mut resolved = Vec::new();
        for need in names {
            match indexes.get(need) {
                Some(index) => resolved.push(*index),
                None => mistakes.push(Mistake::UnknownNeed {
                    part: draft.name.clone(),
                    need: need.clone(),
                }),
            }
        }
        resolved.sort_unstable();
        resolved.dedup();
        resolved
    };
    let both = |draft: &PartDraft| {
        let spliced = draft.splices.iter().map(|splice| &splice.part);
        let needs = resolve(draft, &mut draft.needs.iter().chain(spliced));
        let mut awaits = resolve(draft, &mut draft.after.iter());
        awaits.extend(&needs);
        awaits.sort_unstable();
        awaits.dedup();
        (needs, awaits)
    };
    drafts.iter().map(both).unzip()
}

/// Returns the circles among parts that need each other. A part is in one of them at most, so no circle is told twice.
fn find_cycles(needs: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut settled = vec![false; needs.len()];
    let mut cycles = Vec::new();
    loop {
        while let Some(next) =
            (0..needs.len()).find(|part| !settled[*part] && needs[*part].iter().all(|need| settled[*need]))
        {
            settled[next] = true;
        }
        let Some(first) = settled.iter().position(|settled| !settled) else {
            return cycles;
        };
        // Each remaining part needs another remaining part, so following the needs must return to a visited part.
        let mut trail = vec![first];
        let cycle = loop {
            let last = trail[trail.len() - 1];
            let Some(next) = needs[last].iter().find(|need| !settled[**need]) else {
                break Vec::new();
            };
            if let Some(start) = trail.iter().position(|part| part == next) {
                break trail.split_off(start);
            }
            trail.push(*next);
        };
        if cycle.is_empty() {
            return cycles;
        }
        cycle.iter().for_each(|part| settled[*part] = true);
        cycles.push(cycle);
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoParts => f.write_str("an aggregate has at least one part"),
            Self::DuplicatePart { part } => write!(f, "part `{part}` is there twice"),
            Self::UnknownNeed { part, need } => {
                write!(f, "part `{part}` needs `{need}`, which is no part of this aggregate")
            }
            Self::Cycle { parts } => write!(
                f,
                "parts need each other in a circle: {} -> {}",
                parts.join(" -> "),
                parts[0]
            ),
            Self::BadPath { part, path, mistake } => write!(f, "part `{part}`: path `{path}`: {}", mistake.hint()),
            Self::UselessFallback {
                part,
                partial: Partial::Deny,
            } => {
                write!(
                    f,
                    "part `{part}` has a fallback, which `partial: deny` never uses; write `partial: allow`"
                )
            }
            Self::UselessFallback {
                part,
                partial: Partial::Allow,
            } => {
                write!(
                    f,
                    "part `{part}` is required, so its fallback is never used; drop one of the two"
                )
            }
            Self::UnplacedFallback { part } => {
                write!(
                    f,
                    "the fallback of part `{part}` is neither object nor array, so it cannot be merged at the root"
                )
            }
            Self::BadWrap { path, mistake } => write!(f, "`wrap`: path `{path}`: {}", mistake.hint()),
            Self::ReservedWrap => write!(
                f,
                "everything would stand where the list of errors goes (`{}`)",
                Recipe::ERRORS
            ),
            Self::ReservedName { part } => {
                write!(
                    f,
                    "part `{part}` would stand where the list of errors goes (`{}`)",
                    Recipe::ERRORS
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::shape::ShapeDraft;
    use super::*;
    use crate::json::Document;

    fn part(name: &str, needs: &[&str]) -> PartDraft {
        let needs = needs.iter().map(ToString::to_string).collect();
        PartDraft {
            name: name.into(),
            needs,
            ..PartDraft::default()
        }
    }

    fn compile(parts: Vec<PartDraft>) -> Result<Recipe, Vec<Mistake>> {
        Recipe::compile(RecipeDraft {
            parts,
            partial: Partial::Allow,
            ..RecipeDraft::default()
        })
    }

    #[test]
    fn needs_are_what_is_written_and_what_is_spliced() {
        let c = PartDraft {
            splices: vec!["b".into(), "a".into()],
            ..part("c", &["b"])
        };
        let recipe = compile(vec![part("a", &[]), part("b", &[]), c]).unwrap();
        assert_eq!(recipe.parts()[2].needs(), [0, 1]);
        assert_eq!(recipe.parts()[0].awaited_by, [2]);
        assert_eq!(recipe.index_of("b"), Some(1));
        assert_eq!(recipe.index_of("z"), None);
    }

    #[test]
    fn a_need_may_be_declared_later() {
        assert!(compile(vec![part("a", &["b"]), part("b", &[])]).is_ok());
    }

    #[test]
    fn circles_are_found() {
        let check = |parts: Vec<PartDraft>, expected: &[&str]| {
            let parts: Vec<_> = compile(parts).unwrap_err();
            let expected = expected.iter().map(ToString::to_string).collect();
            assert_eq!(parts, [Mistake::Cycle { parts: expected }]);
        };
        let two = compile(vec![
            part("a", &["b"]),
            part("b", &["a"]),
            part("c", &["d", "a"]),
            part("d", &["c"]),
        ]);
        let circle = |parts: [&str; 2]| Mistake::Cycle {
            parts: parts.map(str::to_owned).to_vec(),
        };
        assert_eq!(two.unwrap_err(), [circle(["a", "b"]), circle(["c", "d"])]);
        check(vec![part("a", &["a"])], &["a"]);
        check(vec![part("a", &["b"]), part("b", &["a"])], &["a", "b"]);
        check(
            vec![
                part("x", &["b"]),
                part("a", &["c"]),
                part("b", &["a"]),
                part("c", &["b"]),
            ],
            &["b", "a", "c"],
        );
    }

    #[test]
    fn partial_deny_requires_every_part() {
        let draft = RecipeDraft {
            parts: vec![part("a", &[])],
            ..RecipeDraft::default()
        };
        assert!(Recipe::compile(draft).unwrap().parts()[0].is_required());
        assert!(!compile(vec![part("a", &[])]).unwrap().parts()[0].is_required());
    }

    #[test]
    fn every_mistake_is_reported() {
        let shape = ShapeDraft {
            keep: vec!["a..b".into()],
            ..ShapeDraft::default()
        };
        let parts = vec![
            PartDraft {
                shape,
                ..part("a", &["nobody"])
            },
            part("a", &[]),
            PartDraft {
                required: true,
                fallback: Some(Document::of(&json!({}))),
                ..part("b", &[])
            },
            PartDraft {
                group: Some(".".into()),
                fallback: Some(Document::of(&json!(1))),
                ..part("c", &[])
            },
            part(Recipe::ERRORS, &[]),
        ];
        let draft = RecipeDraft {
            parts,
            partial: Partial::Allow,
            errors: Errors::Listed,
            ..RecipeDraft::default()
        };
        let mistakes = Recipe::compile(draft).unwrap_err();
        let messages: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
        let expected = [
            "part `a` is there twice",
            "part `a` needs `nobody`, which is no part of this aggregate",
            "part `a`: path `a..b`: a path has one dot between names and none at its ends",
            "part `b` is required, so its fallback is never used; drop one of the two",
            "the fallback of part `c` is neither object nor array, so it cannot be merged at the root",
            "part `_errors` would stand where the list of errors goes (`_errors`)",
        ];
        assert_eq!(messages, expected);
        assert_eq!(compile(Vec::new()).unwrap_err(), [Mistake::NoParts]);
    }
}

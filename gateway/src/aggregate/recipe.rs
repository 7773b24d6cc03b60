//! Compiled form of an aggregate: its parts in declared order, their dependencies, and the rules for merging them.
//!
//! Invariant: part names are unique, dependencies exist and have no cycles, paths are valid, and every fallback can be
//! used. Requests are not stored here: a part's index is the key to the code that makes its request.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::draft::{Conflict, Errors, IntoDraft, PartDraft, Partial, RecipeDraft};
use super::embed::{ElementPlace, PlaceMistake};
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
    /// Part whose document is the answer, by index.
    pub(super) document: Option<usize>,
    /// Parts whose answers are put into another part's list. A part comes before the one that has its list.
    pub(super) embedded_first: Vec<usize>,
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
        /// Key that the path is written under; empty for `group` and `collection`.
        key: &'static str,
        path: String,
        mistake: PathMistake,
    },
    /// Answers are put into a list that does not come from another part.
    IntoWithoutList {
        part: String,
    },
    /// The path does not lead into the elements of the list.
    IntoElsewhere {
        part: String,
        path: String,
        /// Path of the list.
        list: String,
    },
    /// The part has another place, too.
    IntoAndPlace {
        part: String,
    },
    /// The value cannot be told apart into elements.
    IntoAndFallback {
        part: String,
        host: String,
        path: String,
    },
    /// Two parts put their answers at one place, or one inside the other.
    IntoTaken {
        part: String,
        other: String,
    },
    /// The part with the list does not show the place.
    IntoHidden {
        part: String,
        host: String,
        path: String,
        /// Key of that part that hides it.
        by: &'static str,
    },
    UnknownDocument {
        part: String,
    },
    /// The part's answers are put into another part's, so it is no document.
    DocumentIsPutElsewhere {
        part: String,
    },
    /// The part has a place in the answer that it is not in.
    PlaceBesideDocument {
        part: String,
        document: String,
    },
    /// The document may be anything, so it has no place for the list of errors.
    ErrorsBesideDocument,
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
            document,
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
        if document.is_some() && wrap.is_none() && list_errors {
            mistakes.push(Mistake::ErrorsBesideDocument);
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

        let document = document.and_then(|part| {
            let index = indexes.get(&part).copied();
            match index {
                None => mistakes.push(Mistake::UnknownDocument { part }),
                Some(index) if drafts[index].into.is_some() => {
                    mistakes.push(Mistake::DocumentIsPutElsewhere { part });
                }
                Some(_) => {}
            }
            index
        });
        let intos = resolve_intos(&drafts, &indexes, &mut mistakes);
        let embedded_first = innermost_first(&intos);

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
            let is_host = intos.iter().flatten().any(|(host, _)| *host == index);
            let shape = Shape::compile(&draft.shape).unwrap_or_else(|found| {
                mistakes.extend(
                    found
                        .into_iter()
                        .map(|ShapeMistake { key, path, mistake }| Mistake::BadPath {
                            part: draft.name.clone(),
                            key,
                            path,
                            mistake,
                        }),
                );
                Shape::default()
            });
            let shape = match is_host {
                true => {
                    let all = intos.iter().enumerate();
                    let own = all.filter_map(|(from, into)| {
                        let (host, place) = into.as_ref()?;
                        (*host == index).then_some((&drafts[from], place))
                    });
                    host_shape(draft, own, &mut mistakes).unwrap_or(shape)
                }
                false => shape,
            };
            let has_place = draft.group.is_some() || draft.collection.is_some();
            if draft.into.is_some() && has_place {
                mistakes.push(Mistake::IntoAndPlace {
                    part: draft.name.clone(),
                });
            } else if let (Some(document), true) = (document, has_place) {
                mistakes.push(Mistake::PlaceBesideDocument {
                    part: draft.name.clone(),
                    document: drafts[document].name.clone(),
                });
            }
            let mut path_of = |path: &String| {
                place_in_answer(path).unwrap_or_else(|mistake| {
                    mistakes.push(Mistake::BadPath {
                        part: draft.name.clone(),
                        key: "",
                        path: path.clone(),
                        mistake,
                    });
                    [MemberName::from("")].into()
                })
            };
            let place = match &draft.group {
                _ if draft.into.is_some() => Placement::Nowhere,
                _ if document.is_some_and(|document| document != index) => Placement::Nowhere,
                _ if document.is_some() => wrap.clone().map_or(Placement::Whole, Placement::Group),
                Some(group) if group == "." => Placement::Root,
                Some(group) => Placement::Group(path_of(group)),
                None => Placement::Group([MemberName::from(&*draft.name)].into()),
            };
            let collection = draft.collection.as_ref().map(&mut path_of);
            match (&place, &collection) {
                (Placement::Group(path), _) | (Placement::Root, Some(path)) => passages.add(path),
                (Placement::Root, None) | (Placement::Whole | Placement::Nowhere, _) => {}
            }
            if list_errors && wrap.is_none() && matches!(&place, Placement::Group(path) if path[0] == errors_name) {
                mistakes.push(Mistake::ReservedName {
                    part: draft.name.clone(),
                });
            }
            let mut part = Part {
                name: draft.name.as_str().into(),
                required: draft.required
                    || partial == Partial::Deny
                    || (document == Some(index) && draft.fallback.is_none()),
                on_missing: draft.on_missing,
                each: draft.each,
                needs: needs[index].clone(),
                awaits: awaits[index].clone(),
                awaited_by,
                spliced: Arc::new(spliced_of(&draft.name)),
                shape,
                room: draft.room,
                place,
                into: intos[index].clone(),
                is_host,
                own_name: MemberName::from(&*draft.name),
                collection,
                fallback: None,
            };
            if let (Some(_), Some(into), Some((host, _))) = (&draft.fallback, &draft.into, &part.into) {
                mistakes.push(Mistake::IntoAndFallback {
                    part: draft.name.clone(),
                    host: drafts[*host].name.clone(),
                    path: below_target(&into.path, drafts[*host].shape.target.as_deref()).to_owned(),
                });
            } else if let Some(value) = &draft.fallback {
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
                // Of a document, the wrap is its place.
                wrap: wrap.filter(|_| document.is_none()),
                passages,
                body_limit,
                document,
                embedded_first,
            })
        } else {
            Err(mistakes)
        }
    }

    pub fn parts(&self) -> &[Arc<Part>] {
        &self.parts
    }

    /// Returns whether a part's answers are put into another part's.
    pub(super) fn embeds(&self) -> bool {
        !self.embedded_first.is_empty()
    }

    /// Path that the document is put under, if there is one and it is not the whole answer.
    pub(super) fn wrap_of_document(&self) -> Option<&Arc<[MemberName]>> {
        match &self.document()?.place {
            Placement::Group(path) => Some(path),
            Placement::Root | Placement::Whole | Placement::Nowhere => None,
        }
    }

    /// Part whose document is the answer, if there is one.
    pub fn document(&self) -> Option<&Arc<Part>> {
        self.document.map(|index| &self.parts[index])
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

/// Resolves where the answers of each part are put in another part's list: the index of that part, and the place.
fn resolve_intos(
    drafts: &[PartDraft],
    indexes: &HashMap<String, usize>,
    mistakes: &mut Vec<Mistake>,
) -> Vec<Option<(usize, ElementPlace)>> {
    let mut found: Vec<Option<(usize, ElementPlace)>> = Vec::with_capacity(drafts.len());
    for draft in drafts {
        let resolved = draft.into.as_ref().and_then(|into| {
            let part = || draft.name.clone();
            let IntoDraft {
                path,
                list,
                leaves_out_null,
            } = into;
            let Some(list) = list else {
                mistakes.push(Mistake::IntoWithoutList { part: part() });
                return None;
            };
            // A part that does not exist is told as a need.
            let host = *indexes.get(&list.part)?;
            match ElementPlace::parse(path, &list.steps, *leaves_out_null) {
                Ok(place) => Some((host, place)),
                Err(PlaceMistake::Path(mistake)) => {
                    mistakes.push(Mistake::BadPath {
                        part: part(),
                        key: "into",
                        path: path.clone(),
                        mistake,
                    });
                    None
                }
                Err(PlaceMistake::Elsewhere) => {
                    mistakes.push(Mistake::IntoElsewhere {
                        part: part(),
                        path: path.clone(),
                        list: list.steps.join("."),
                    });
                    None
                }
            }
        });
        let taken = resolved.as_ref().and_then(|(host, place)| {
            let earlier = found.iter().position(|other| {
                other
                    .as_ref()
                    .is_some_and(|(other, taken)| other == host && taken.overlaps(place))
            });
            Some(&drafts[earlier?])
        });
        if let Some(other) = taken {
            mistakes.push(Mistake::IntoTaken {
                part: draft.name.clone(),
                other: other.name.clone(),
            });
        }
        found.push(resolved);
    }
    found
}

/// Returns what is left of a path when a sub-document has been taken.
fn below_target<'p>(path: &'p str, target: Option<&str>) -> &'p str {
    let below = target.and_then(|target| path.strip_prefix(target)?.strip_prefix('.'));
    below.unwrap_or(path)
}

/// Orders the parts whose answers are put into another part's list, so that what is put into a part's own answers comes
/// before it. Parts of one list stay in declared order.
fn innermost_first(intos: &[Option<(usize, ElementPlace)>]) -> Vec<usize> {
    // In a circle, which is a mistake of its own, the number of steps is cut off.
    let depth = |index: usize| {
        let hosts = std::iter::successors(Some(index), |index| intos[*index].as_ref().map(|(host, _)| *host));
        hosts.take(intos.len()).count()
    };
    let mut order: Vec<_> = (0..intos.len()).filter(|index| intos[*index].is_some()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(depth(*index)));
    order
}

/// Compiles the shape of a part with a list that other parts' answers are put into: the places are kept, whatever is
/// kept else. Reports places that it does not show.
fn host_shape<'d>(
    host: &PartDraft,
    embedded: impl Iterator<Item = (&'d PartDraft, &'d ElementPlace)>,
    mistakes: &mut Vec<Mistake>,
) -> Option<Shape> {
    let mut shape = host.shape.clone();
    let text = |segments: &[Segment]| {
        let word = |segment: &Segment| match segment {
            Segment::Name(name) => name.to_string(),
            Segment::Every => "*".to_owned(),
        };
        segments.iter().map(word).collect::<Vec<_>>().join(".")
    };
    let parsed = |text: &String| Path::parse(text).ok();
    for (part, place) in embedded {
        let all = place.segments();
        let hidden = |by| Mistake::IntoHidden {
            part: part.name.clone(),
            host: host.name.clone(),
            path: text(&all),
            by,
        };
        // Each element of its answer is shaped by itself.
        let within = if host.each { &all[1..] } else { &all[..] };
        let target = shape.target.as_ref().and_then(parsed);
        let target = target.as_ref().map_or(&[][..], Path::segments);
        let Some(rest) = within.strip_prefix(target) else {
            mistakes.push(hidden("target"));
            continue;
        };
        // A path goes through arrays without naming their indexes.
        let is_index = |segment: &&Segment| matches!(segment, Segment::Name(name) if name.parse::<usize>().is_ok());
        let rest: Vec<_> = rest.iter().filter(|segment| !is_index(segment)).cloned().collect();
        let named = |segments: &[Segment]| -> Vec<Segment> {
            segments
                .iter()
                .filter(|segment| **segment != Segment::Every)
                .cloned()
                .collect()
        };
        let is_dropped = shape
            .drop
            .iter()
            .filter_map(parsed)
            .any(|dropped| named(&rest).starts_with(&named(dropped.segments())));
        if is_dropped {
            mistakes.push(hidden("drop"));
        }
        if !host.shape.keep.is_empty() && !rest.is_empty() {
            shape.keep.push(text(&rest));
        }
    }
    Shape::compile(&shape).ok()
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

impl Mistake {
    /// Returns what is probably meant.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Cycle { .. } => {
                "let one of them go without the other: drop its `needs`, its `when`, or the placeholder".to_owned()
            }
            Self::IntoWithoutList { .. } => "write `in` as the list of a part, as in `{part.cart.items}`".to_owned(),
            Self::IntoElsewhere { path, list, .. } => {
                let last = path.rsplit(['.', '*']).find(|name| !name.is_empty()).unwrap_or("answer");
                let dot = if list.is_empty() { "" } else { "." };
                format!("write `into: \"{list}{dot}*.{last}\"`")
            }
            Self::IntoAndPlace { .. } => "drop `group` and `collection`, or `into`".to_owned(),
            Self::IntoAndFallback { host, path, .. } => {
                format!("write `defaults: {{ \"{path}\": ... }}` at part `{host}`, which counts for each element")
            }
            Self::IntoTaken { .. } => "let each have a name of its own in the element".to_owned(),
            Self::IntoHidden { by: "target", .. } => {
                "let `target` lead to the list or to what it is in, or put the answers elsewhere".to_owned()
            }
            Self::IntoHidden { .. } => "drop other fields, or put the answers elsewhere".to_owned(),
            Self::DocumentIsPutElsewhere { .. } => "name the part that has the list".to_owned(),
            Self::PlaceBesideDocument { .. } => {
                "drop `group` and `collection`, or `document`; what other parts find can be put into the document by `for_each` and `into`".to_owned()
            }
            Self::ErrorsBesideDocument => {
                "drop `errors`, or put the document under a name with `wrap`; `Proxy-Status` tells of failed parts anyway".to_owned()
            }
            _ => return None,
        })
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
            Self::BadPath {
                part, path, mistake, ..
            } => write!(f, "part `{part}`: path `{path}`: {}", mistake.hint()),
            Self::IntoWithoutList { part } => {
                write!(f, "part `{part}` puts its answers into a list that comes from no part")
            }
            Self::IntoElsewhere { part, path, .. } => {
                write!(f, "part `{part}`: `{path}` does not lead into the elements of its list")
            }
            Self::IntoAndPlace { part } => {
                write!(
                    f,
                    "part `{part}` puts its answers into a list, and has another place, too"
                )
            }
            Self::IntoAndFallback { part, .. } => {
                write!(
                    f,
                    "the fallback value of part `{part}` belongs to no element of its list"
                )
            }
            Self::IntoTaken { part, other } => {
                write!(
                    f,
                    "parts `{other}` and `{part}` put their answers at the same place, or one inside the other"
                )
            }
            Self::IntoHidden { part, host, path, by } => {
                write!(
                    f,
                    "part `{part}` puts its answers at `{path}`, which `{by}` of part `{host}` takes away"
                )
            }
            Self::UnknownDocument { part } => write!(f, "there is no part `{part}` that could be the document"),
            Self::DocumentIsPutElsewhere { part } => {
                write!(
                    f,
                    "the answers of part `{part}` are put into a list, so they are no document"
                )
            }
            Self::PlaceBesideDocument { part, document } => {
                write!(
                    f,
                    "part `{part}` has a place in an answer that is part `{document}` alone"
                )
            }
            Self::ErrorsBesideDocument => {
                write!(f, "a part that is the whole answer has no place for the list of errors")
            }
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

//! Suggests what an unknown key was meant to be: a key of another product, a key in the wrong place, or a misspelt key.

use std::collections::BTreeMap;

use super::asked::{Asked, Shape};
use super::hint;
use super::key_path::join;
use super::mistake::{Code, Mistake};
use super::tree::{Key, Kind, Node};

/// A key that no section asked for.
#[derive(Debug)]
pub(super) struct Unknown {
    /// Path of the section that contains the key.
    pub path: String,
    /// What that section is called in messages.
    pub owner: String,
    pub key: Key,
    pub known: Vec<&'static str>,
    /// Hint for a word of another product.
    pub foreign: Option<String>,
    /// Kind of its value.
    pub written: Written,
    /// Section that the word means in another product, if the value may be one.
    pub section: Option<&'static str>,
    /// Keys that are written in the same section.
    pub beside: Vec<String>,
    /// Key above it that has no value.
    pub under: Option<String>,
}

/// Keys of each section that was read, by path.
#[derive(Debug, Default)]
pub(super) struct Sections(BTreeMap<String, Vec<(&'static str, Option<Shape>)>>);

impl From<Asked> for Sections {
    fn from(asked: Asked) -> Self {
        let mut sections = Self::default();
        for key in asked.keys {
            let known = sections.0.entry(key.section).or_default();
            match known.iter_mut().find(|(name, _)| *name == key.name) {
                Some((_, shape)) => *shape = shape.or(key.shape),
                None => known.push((key.name, key.shape)),
            }
        }
        sections
    }
}

impl Sections {
    /// Returns the nearest section that has the key with such a value: around the section at `path`, within it, or beside it.
    fn having<'s>(&'s self, key: &str, kind: Written, path: &str) -> Option<Nearest<'s>> {
        let has = |known: &Vec<(&'static str, Option<Shape>)>| {
            let found = known.iter().find(|(name, _)| *name == key);
            found.is_some_and(|(_, shape)| shape.is_none_or(|shape| kind.fits(&shape)))
        };
        let mut around = path;
        while !around.is_empty() {
            around = around.rfind('.').map_or("", |dot| &around[..dot]);
            if let Some((found, _)) = self.0.get_key_value(around).filter(|(_, known)| has(known)) {
                return Some(Nearest::Around(found));
            }
        }
        self.below(path, has).map(Nearest::Within).or_else(|| {
            let beside = &path[..path.rfind('.')?];
            self.below(beside, has)
                .filter(|found| *found != path)
                .map(Nearest::Within)
        })
    }

    /// Returns the section nearest to `path` among those within it for which `has` is true.
    fn below<'s>(&'s self, path: &str, has: impl Fn(&Vec<(&'static str, Option<Shape>)>) -> bool) -> Option<&'s str> {
        let begin = if path.is_empty() {
            String::new()
        } else {
            format!("{path}.")
        };
        let within = self
            .0
            .range(begin.clone()..)
            .take_while(|(other, _)| other.starts_with(&begin));
        within
            .filter(|(other, known)| !other.is_empty() && has(known))
            .min_by_key(|(other, _)| other.matches('.').count())
            .map(|(found, _)| found.as_str())
    }
}

/// Kind of value that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    Single,
    List,
    /// A map, and whether all of its values are maps.
    Map {
        of_maps: bool,
    },
}

impl Written {
    pub(super) fn of(node: &Node) -> Self {
        match &node.kind {
            Kind::Scalar { .. } => Self::Single,
            Kind::List(_) => Self::List,
            Kind::Map(entries) => Self::Map {
                of_maps: entries.iter().all(|(_, node)| matches!(node.kind, Kind::Map(_))),
            },
        }
    }

    fn fits(self, shape: &Shape) -> bool {
        match shape {
            Shape::Value(_) => self == Self::Single,
            Shape::Section => matches!(self, Self::Map { .. }),
            Shape::Named(Shape::Section) => self == Self::Map { of_maps: true },
            Shape::Named(_) => matches!(self, Self::Map { .. }),
            Shape::List(_) | Shape::Either(_) | Shape::Anything => true,
        }
    }
}

enum Nearest<'s> {
    Around(&'s str),
    Within(&'s str),
}

impl Unknown {
    /// Returns the key that was meant, if that is certain: another spelling, one typing error (two in a long word), or a
    /// section's name in another product. A key that the section has already cannot have been meant.
    pub(super) fn certain(&self) -> Option<&'static str> {
        let free = || {
            self.known
                .iter()
                .filter(|known| !self.beside.iter().any(|key| key == **known))
        };
        if let Some(exact) = free().find(|known| hint::is_spelling_of(&self.key.text, known)) {
            return Some(exact);
        }
        if self.under.is_some() {
            return None;
        }
        if self.foreign.is_some() {
            let section = self.section?;
            return free().find(|known| **known == section).copied();
        }
        let only = |is_slip: fn(&str, &str) -> bool| {
            let mut slips = free().filter(|known| is_slip(&self.key.text, known));
            slips.next().filter(|_| slips.next().is_none()).copied()
        };
        only(hint::is_one_slip).or_else(|| only(hint::are_two_slips))
    }

    pub(super) fn mistake(self, sections: &Sections) -> Mistake {
        let Self { owner, key, known, .. } = &self;
        let mut mistake = Mistake::new(Code::UnknownKey, key.span, format!("{owner} has no key `{}`", key.text));
        mistake.hint = Some(self.hint(sections)).filter(|hint| !hint.is_empty());
        debug_assert!(!known.contains(&key.text.as_str()));
        mistake
    }

    fn hint(&self, sections: &Sections) -> String {
        let Self {
            path,
            key,
            known,
            foreign,
            under,
            owner: _,
            section: _,
            beside,
            written,
        } = self;
        let words = || known.iter().copied();
        let text = &key.text;
        if let Some(exact) = known.iter().find(|known| hint::is_spelling_of(text, known)) {
            if beside.iter().any(|key| key == exact) {
                return format!("`{exact}` is written already: move what stands here there");
            }
            return format!("did you mean `{exact}`?");
        }
        if path.is_empty() && text.starts_with(['x', '.', '_']) && text.contains(['-', '.']) {
            return "keys of one's own are not allowed, also not for anchors: put `&NAME` at its first use".to_owned();
        }
        if let Some((name, value)) = text
            .split_once(':')
            .filter(|(name, _)| words().any(|word| word == *name))
        {
            return format!("write a space after the colon: `{name}: {}`", value.trim());
        }
        let elsewhere = sections.having(text, *written, path);
        if let Some(above) = under {
            let fits = sections
                .0
                .get(&join(path, above))
                .is_none_or(|known| known.iter().any(|(name, _)| name == text));
            if fits {
                return format!("`{above}` above it has nothing under it: indent `{text}` if it belongs there");
            }
        }
        if let Some(foreign) = foreign {
            return foreign.clone();
        }
        let near = hint::did_you_mean(text, words());
        if let Some(taken) = beside
            .iter()
            .find(|key| words().any(|word| word == **key) && hint::is_slip(text, std::iter::once(key.as_str())))
        {
            return format!("did you mean `{taken}`? It is written already: move what stands here there");
        }
        if near.is_some() && hint::is_slip(text, words()) {
            return near.unwrap_or_default();
        }
        match elsewhere {
            Some(Nearest::Around(around)) => {
                format!("`{text}` is a key of {}: indent it less", called(around))
            }
            Some(Nearest::Within(within)) => format!("`{text}` is a key of {}", called(within)),
            None => near.or_else(|| hint::one_of(words())).unwrap_or_default(),
        }
    }
}

/// Returns the name of a section in messages.
fn called(path: &str) -> String {
    if path.is_empty() {
        "the config".to_owned()
    } else {
        format!("`{path}`")
    }
}

//! Dot paths into a JSON document: `items.price`, `users.*.name`.
//!
//! A path goes through arrays without naming them: `items.price` is the price of every item. `*` stands for any one
//! name, or for every element of an array, so that `items.*.price` says the same. Numbers are not special here, and
//! a name that itself holds a dot cannot be addressed.

use smallvec::SmallVec;

/// Names to follow from the top of a document; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path(Vec<Segment>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    Name(Box<str>),
    /// `*`
    Every,
}

/// What is left of each path that leads through the place at hand; each holds at least one segment.
pub(super) type RemainingPaths<'a> = SmallVec<[&'a [Segment]; 8]>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathMistake {
    Empty,
    /// Two dots in a row, or one at an end.
    EmptyName,
    /// `*` where the path has to lead to one place.
    Star,
    /// Two fields of one object would get the same name.
    SameName,
    /// More names than a place in the answer may have.
    TooLong,
}

impl PathMistake {
    pub const fn hint(self) -> &'static str {
        match self {
            Self::Empty => "a path names at least one field",
            Self::EmptyName => "a path has one dot between names and none at its ends",
            Self::Star => "`*` cannot stand here: this has to lead to one place",
            Self::TooLong => "a place in the answer has 16 names at most",
            Self::SameName => "two fields of one object cannot get the same name",
        }
    }
}

impl Path {
    pub(super) fn parse(text: &str) -> Result<Self, PathMistake> {
        if text.is_empty() {
            return Err(PathMistake::Empty);
        }
        let segments = text.split('.').map(|name| match name {
            "" => Err(PathMistake::EmptyName),
            "*" => Ok(Segment::Every),
            name => Ok(Segment::Name(name.into())),
        });
        segments.collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// Whether `other` leads to the same place or to one above it.
    pub(super) fn is_within(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }
}

impl Segment {
    pub(super) fn admits(&self, name: &str) -> bool {
        match self {
            Self::Name(own) => **own == *name,
            Self::Every => true,
        }
    }
}

/// Follows `paths` into the field `name`. An empty slice among the result is a path that ends there.
pub(super) fn into_field<'a>(paths: &[&'a [Segment]], name: &str) -> RemainingPaths<'a> {
    let step = |path: &&'a [Segment]| {
        path.split_first()
            .filter(|(first, _)| first.admits(name))
            .map(|(_, rest)| rest)
    };
    paths.iter().filter_map(step).collect()
}

/// Follows `paths` into the elements of an array. An empty slice among the result is a path that ends there.
pub(super) fn into_elements<'a>(paths: &[&'a [Segment]]) -> RemainingPaths<'a> {
    paths
        .iter()
        .map(|path| match path.split_first() {
            Some((Segment::Every, rest)) => rest,
            _ => path,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_names_between_single_dots() {
        let name = |name: &str| Segment::Name(name.into());
        assert_eq!(Path::parse("a").unwrap().segments(), [name("a")]);
        assert_eq!(
            Path::parse("a.*.0").unwrap().segments(),
            [name("a"), Segment::Every, name("0")]
        );
        assert_eq!(Path::parse(""), Err(PathMistake::Empty));
        for text in [".", ".a", "a.", "a..b"] {
            assert_eq!(Path::parse(text), Err(PathMistake::EmptyName), "{text}");
        }
    }

    #[test]
    fn a_path_is_within_itself_and_what_is_above() {
        let within = |inner, outer| Path::parse(inner).unwrap().is_within(&Path::parse(outer).unwrap());
        assert!(within("a.b", "a.b"));
        assert!(within("a.b", "a"));
        assert!(!within("a", "a.b"));
        assert!(!within("ab", "a"));
    }
}

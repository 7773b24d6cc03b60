//! Parses and follows dotted paths in a JSON document, such as `items.price` and `users.*.name`.
//!
//! A path passes through arrays without naming them: `items.price` is the price of every item. `*` matches any one
//! member name, or every element of an array, so `items.*.price` means the same. A number in a path is an ordinary
//! name. A name that contains a dot cannot be addressed.

use smallvec::SmallVec;

/// Names to follow from the top of a document. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path(Vec<Segment>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    Name(Box<str>),
    /// `*`
    Every,
}

/// Remaining segments of each path that leads through the current value.
pub(super) type RemainingPaths<'a> = SmallVec<[&'a [Segment]; 8]>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathMistake {
    Empty,
    /// Two dots in a row, or a dot at either end.
    EmptyName,
    /// `*` in a path that must lead to exactly one place.
    Star,
    /// Two fields of one object that get the same name.
    SameName,
    /// Path with more names than a place in the answer may have.
    TooLong,
    /// Value that is put where it is.
    Itself,
    /// Two paths of which one has `*` where the other has none.
    UnequalStars,
    /// Value that is not kept.
    NotKept,
    /// Value that is dropped.
    Dropped,
}

impl PathMistake {
    pub const fn hint(self) -> &'static str {
        match self {
            Self::Empty => "a path names at least one field",
            Self::EmptyName => "a path has one dot between names and none at its ends",
            Self::Star => "`*` cannot stand here: this has to lead to one place",
            Self::TooLong => "a place in the answer has 16 names at most",
            Self::SameName => "two fields of one object cannot get the same name",
            Self::Itself => "the value is there already",
            Self::UnequalStars => {
                "the value stays in its element: both paths begin alike, up to and including the last `*`"
            }
            Self::NotKept => "`keep` leaves it out before; name it there, too",
            Self::Dropped => "`drop` takes it away before",
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

    pub(super) fn has_names_alone(&self) -> bool {
        !self.0.contains(&Segment::Every)
    }

    /// Returns whether `other` leads to the same place or to a place above it.
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

/// Follows `paths` into the field `name`. An empty slice in the result is a path that ends at that field.
pub(super) fn into_field<'a>(paths: &[&'a [Segment]], name: &str) -> RemainingPaths<'a> {
    let step = |path: &&'a [Segment]| {
        path.split_first()
            .filter(|(first, _)| first.admits(name))
            .map(|(_, rest)| rest)
    };
    paths.iter().filter_map(step).collect()
}

/// Follows `paths` into the elements of an array. An empty slice in the result is a path that ends at the elements.
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

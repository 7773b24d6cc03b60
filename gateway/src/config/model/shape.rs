//! How a JSON document is cut to shape beyond choosing its fields.

use crate::config::asked::Shape;
use crate::config::fields::Fields;
use crate::config::mistake::{Code, Mistake};
use crate::config::named::NamedMap;
use crate::config::reader::{Read, any_name, keyed};
use crate::config::single::Single;
use crate::config::span::At;
use crate::config::value::Value;
use crate::json::Document;

/// Shapes each element of an array.
#[derive(Debug, Clone, PartialEq)]
pub struct ElementShape {
    /// Path of the array. Left out: the document itself is the array.
    pub at: Option<At<String>>,
    /// Path in an element to the value that is taken in place of it.
    pub target: Option<At<String>>,
    /// Paths in an element of which all else is dropped.
    pub keep: Vec<At<String>>,
    /// Paths in an element that are dropped.
    pub drop: Vec<At<String>>,
    /// Old name to new name in an element.
    pub rename: NamedMap<At<String>>,
    /// Path to the path that its value is copied to, both in an element.
    pub copy: NamedMap<At<String>>,
    /// Path to the path that its value is moved to, both in an element.
    pub moves: NamedMap<At<String>>,
    /// Values for paths in an element that have none.
    pub defaults: NamedMap<At<Document>>,
}

impl Read for ElementShape {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ at: $ }"],
        sample: "{ at: items, keep: [sku, price] }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| Self {
            at: f.optional("at"),
            target: f.optional("target"),
            keep: f.list("keep"),
            drop: f.list("drop"),
            rename: paths(f, "rename"),
            copy: paths(f, "copy"),
            moves: paths(f, "move"),
            defaults: defaults(f),
        })
    }
}

/// Reads a map from a path to a name or to another path.
pub(super) fn paths(f: &mut Fields<'_>, key: &'static str) -> NamedMap<At<String>> {
    let mut found = NamedMap::default();
    if let Some(value) = f.value_of(key, Shape::Named(&Shape::Value("text"))) {
        keyed(&value, &mut found, any_name, |_, value| value.scalar());
    }
    found
}

/// Reads values by path.
pub(super) fn defaults(f: &mut Fields<'_>) -> NamedMap<At<Document>> {
    let mut found = NamedMap::default();
    if let Some(value) = f.value_of("defaults", Shape::Named(&Shape::Anything)) {
        keyed(&value, &mut found, any_name, |_, value| Read::read(value));
    }
    found
}

/// Fields of the document that a caller may choose.
#[derive(Debug, Clone, PartialEq)]
pub struct CallersFields {
    /// Parameter of the query that names them, separated by commas, as in `?fields=user.name,orders`.
    pub parameter: At<String>,
    /// Paths that a caller may name. What is below them may be named, too.
    pub allow: Vec<At<String>>,
}

impl Read for CallersFields {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ allow: $ }"],
        sample: "{ allow: [user, orders.items] }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let parameter: At<String> = f.or("parameter", "fields".to_owned());
            let is_name = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
            if parameter.is_empty() || !parameter.chars().all(is_name) {
                let message = format!("`{}.parameter` is not the name of a parameter", f.path);
                f.push(
                    Mistake::new(Code::BadValue, parameter.span(), message)
                        .hint("it has letters, digits and `-`, `.`, `_`, `~`, as in `fields`"),
                );
            }
            Some(Self {
                allow: f.required_list("allow")?,
                parameter,
            })
        })?
    }
}

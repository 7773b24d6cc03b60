//! Reads a tree into the model and collects every mistake on the way.
//!
//! A wrong value is reported at once and yields `None`, and reading continues. The owner of the collected mistakes
//! decides that the config is invalid. Where a single value or a list is written instead of a map, a map is suggested
//! that contains what is written, and only if it can be read without a mistake.

use std::sync::Arc;

use super::asked::Shape;
use super::indentation;
use super::key_path::join;
use super::mistake::{Code, Mistake};
use super::named::NamedMap;
use super::scalar::Scalar;
use super::single::{self, MOST_ITEMS, Single, is_switch, put, texts};
use super::span::{At, Span};
use super::tree::{self, Kind, Node};
use super::value::{Context, NAMED, Value};

/// Longest suggestion, in bytes.
const LONGEST: usize = 200;

/// A type that can be read from a value. Reading returns `None` after it has reported a mistake.
pub(super) trait Read: Sized {
    /// Map that a single value probably means; `None` if this type is not a map.
    const SINGLE: Option<Single> = None;
    /// Kind of value that may be written; a section by default.
    const SHAPE: Shape = Shape::Section;
    /// How a file of this type begins, as a hint; `None` for the config and for what is no file.
    const BEGINNING: Option<&'static str> = None;
    /// Whether `off` is allowed instead of the map.
    const OFF: bool = false;

    fn read(value: &Value<'_>) -> Option<Self>;

    /// Returns whether this type is written as a map.
    fn is_map() -> bool {
        Self::SINGLE.is_some()
    }

    /// Changes what stands for one item of a list that was probably meant. `left` items come after it, of `all`.
    fn as_item(filled: String, _all: usize, _left: usize) -> String {
        filled
    }

    /// Returns the text that was probably meant by a value of the wrong kind.
    fn filled(value: &Value<'_>) -> Option<String> {
        filled::<Self>(value)
    }
}

/// Reads a `T`. If the value is not the map that is needed, the mistake suggests the map that was meant.
pub(super) fn read_as<T: Read>(value: &Value<'_>) -> Option<T> {
    T::read(&Value {
        filled: Some(T::filled),
        ..value.clone()
    })
}

impl Value<'_> {
    /// Reads a section as if it were absent.
    pub(super) fn default<T: Read>(&self) -> Option<T> {
        default_of(self.key, self.path.clone(), self.cx)
    }
}

impl<T: Scalar> Read for At<T> {
    const SHAPE: Shape = Shape::Value(T::EXPECTED);

    fn read(value: &Value<'_>) -> Option<Self> {
        value.scalar()
    }
}

/// A single value counts as a list of one.
impl<T: Read> Read for Vec<T> {
    const SHAPE: Shape = Shape::List(&T::SHAPE);

    fn read(value: &Value<'_>) -> Option<Self> {
        let mut items = value.items();
        if let (Some(whole), Some(first)) = (filled_list::<T>(&items), items.first_mut()) {
            first.hint = Some(format!("did you mean `{whole}`?"));
        }
        let read: Self = items.iter().filter_map(read_as::<T>).collect();
        (read.len() == items.len()).then_some(read)
    }
}

impl<T: Read> Read for NamedMap<T> {
    const SHAPE: Shape = Shape::Named(&T::SHAPE);

    fn read(value: &Value<'_>) -> Option<Self> {
        let mut map = Self::default();
        named_with(value, &mut map, |_, entry| read_as::<T>(entry))?;
        Some(map)
    }

    fn is_map() -> bool {
        true
    }

    fn filled(value: &Value<'_>) -> Option<String> {
        filled_named::<T>(value)
    }
}

/// Reads a map keyed by name into `map`. An entry may replace an existing one.
pub(super) fn named_with<T>(
    value: &Value<'_>,
    map: &mut NamedMap<T>,
    read: impl Fn(&str, &Value<'_>) -> Option<T>,
) -> Option<()> {
    keyed(value, map, check_name, read)
}

/// Reads a map keyed by other names. `check` returns the name to use, or what is wrong with it.
pub(super) fn keyed<T>(
    value: &Value<'_>,
    map: &mut NamedMap<T>,
    check: fn(&str) -> Result<String, &'static str>,
    read: impl Fn(&str, &Value<'_>) -> Option<T>,
) -> Option<()> {
    let value = &Value {
        filled: value.filled.or(Some(|value| single::filled_pairs(value.node))),
        ..value.clone()
    };
    let entries = value.entries(NAMED)?;
    if let Some(asked) = &value.cx.asked {
        asked.borrow_mut().named.insert(value.path.clone());
    }
    map.reserve(entries.len());
    for (place, (key, node)) in entries.iter().enumerate() {
        let path = join(&value.path, &key.text);
        let name = check(&key.text).unwrap_or_else(|why| {
            let message = format!("`{path}` cannot be called that");
            value.push(Mistake::new(Code::BadValue, key.span, message).label(why));
            key.text.clone()
        });
        if let Some(first) = map.entry(&name).and_then(|(first, _)| first.span()) {
            let message = format!("`{name}` is written twice");
            let mistake = Mistake::new(Code::DuplicateKey, key.span, message).related(first, "first here");
            value.push(mistake.hint("merge the two, or take one out"));
        }
        let entry = Value {
            hint: indentation::under_empty(entries, place),
            ..Value::new(node, key.span, path, value.cx)
        };
        let before = value.cx.mistakes.borrow().len();
        let readable = read(&name, &entry);
        let name = At::written(Arc::from(name), key.span);
        match readable {
            Some(entry) if value.cx.mistakes.borrow().len() == before => map.set(name, entry),
            readable => map.leave_out(name, readable),
        }
    }
    Some(())
}

/// Accepts any text, for names that are used only within the config.
pub(super) fn any_name(name: &str) -> Result<String, &'static str> {
    Ok(name.to_owned())
}

/// Checks a name: names appear in logs, metric labels and header fields, so only characters valid in all of them are
/// allowed.
fn check_name(name: &str) -> Result<String, &'static str> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if name.is_empty() || name.len() > 64 || !name.bytes().all(good) {
        return Err("a name has 1 to 64 letters, digits, `_`, `-` or `.`");
    }
    Ok(name.to_owned())
}

pub(super) fn default_of<T: Read>(at: Span, path: String, cx: &Context<'_>) -> Option<T> {
    T::read(&Value::new(&Node::map(at, Vec::new()), at, path, cx))
}

/// Returns the map that was probably meant by a value of another kind.
fn filled<T: Read>(value: &Value<'_>) -> Option<String> {
    let Single { maps, sample } = T::SINGLE?;
    let written = match &value.node.kind {
        Kind::Scalar { text, .. } if is_switch(text) => None,
        Kind::Scalar { .. } | Kind::List(_) => texts(value.node),
        Kind::Map(_) => return None,
    };
    let candidates = maps.iter().filter_map(|map| Some(put(map, written.as_deref()?)));
    candidates
        .chain([sample.to_owned()])
        .find(|candidate| candidate.len() <= LONGEST && reads_as::<T>(candidate, value))
}

/// Returns the list of maps that was probably meant by items that are not maps.
fn filled_list<T: Read>(items: &[Value<'_>]) -> Option<String> {
    T::SINGLE?;
    if items.len() > MOST_ITEMS || items.iter().any(|item| item.text().is_none()) {
        return None;
    }
    let all = items.len();
    let filled = |(index, item)| Some(T::as_item(T::filled(item)?, all, all - 1 - index));
    let filled: Option<Vec<_>> = items.iter().enumerate().map(filled).collect();
    Some(format!("[{}]", filled.filter(|filled| !filled.is_empty())?.join(", ")))
}

/// Returns the map keyed by name that was probably meant by a single value, or by a list of maps with names.
fn filled_named<T: Read>(value: &Value<'_>) -> Option<String> {
    if let Kind::List(items) = &value.node.kind
        && matches!(items.first().map(|first| &first.kind), Some(Kind::List(_)))
    {
        return None;
    }
    if let Kind::List(items) = &value.node.kind
        && let Some(first) = items.first()
        && let Kind::Map(entries) = &first.kind
    {
        let called = entries
            .iter()
            .find(|(key, _)| matches!(key.text.as_str(), "name" | "id"));
        let name = match called.map(|(_, node)| &node.kind) {
            Some(Kind::Scalar { text, .. }) => text.as_str(),
            _ => "NAME",
        };
        return Some(format!("{{ {name}: {{ ... }} }}"));
    }
    let one = T::filled(value)?;
    let candidate = format!("{{ main: {one} }}");
    reads_as::<NamedMap<T>>(&candidate, value).then_some(candidate)
}

fn reads_as<T: Read>(text: &str, place: &Value<'_>) -> bool {
    let cx = place.cx.scratch();
    let mut mistakes = super::Mistakes::default();
    let Ok(root) = tree::parse(place.node.span.source, text, &mut mistakes) else {
        return false;
    };
    let value = Value::new(&root, root.span, place.path.clone(), &cx);
    T::read(&value).is_some() && mistakes.is_empty() && cx.is_clean()
}

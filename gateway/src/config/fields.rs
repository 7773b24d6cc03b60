//! Reads the keys of one map, each at most once and by name.
//!
//! Every key that is read counts as known. Each key of the map that was not read is reported as unknown, so no separate
//! list of keys is needed.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::rc::Rc;

use super::asked::{self, Shape};
use super::key_path::join;
use super::mistake::{Code, Mistake};
use super::named::NamedMap;
use super::reader::{Read, default_of, read_as};
use super::scalar::Scalar;
use super::span::{At, Span};
use super::tree::{Key, Kind, Node};
use super::unknown::{Unknown, Written};
use super::value::{Context, NAMED, Value};
use super::{foreign, forms, hint, indentation};

/// Entries of the map that is being read.
pub(super) struct Fields<'a> {
    entries: &'a [(Key, Rc<Node>)],
    pub at: Span,
    pub path: &'a str,
    pub cx: &'a Context<'a>,
    /// Whether nothing was written, not even braces.
    is_empty: bool,
    known: Vec<&'static str>,
    /// Rust type that the section is read into.
    model: &'static str,
    /// Keys of the language that have no effect yet.
    not_built: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(entries: &'a [(Key, Rc<Node>)], owner: &'a Value<'_>, model: &'static str) -> Self {
        let (known, not_built) = (Vec::new(), Vec::new());
        Self {
            entries,
            at: owner.key,
            path: &owner.path,
            cx: owner.cx,
            is_empty: owner.node.is_null(),
            known,
            model,
            not_built,
        }
    }

    /// Records the key `name` for [`asked::Asked`], if reading collects it. `asked` fills in the details.
    fn note(&self, name: &'static str, asked: impl FnOnce(&mut asked::Key)) {
        if let Some(all) = &self.cx.asked {
            let mut key = asked::Key {
                section: self.path.to_owned(),
                model: self.model,
                name,
                shape: None,
                default: None,
                range: None,
                required: false,
                off: false,
            };
            asked(&mut key);
            all.borrow_mut().keys.push(key);
        }
    }

    /// Returns the value of a key, and marks the key as known.
    pub(super) fn value(&mut self, name: &'static str) -> Option<Value<'a>> {
        if !self.known.contains(&name) {
            self.known.push(name);
            self.note(name, |_| ());
        }
        let (key, node) = self.entries.iter().find(|(key, _)| key.text == name)?;
        Some(Value::new(node, key.span, join(self.path, name), self.cx))
    }

    /// Returns the value of a key that the caller reads itself. `shape` is the kind of value.
    pub(super) fn value_of(&mut self, name: &'static str, shape: Shape) -> Option<Value<'a>> {
        self.note(name, |key| key.shape = Some(shape));
        self.value(name)
    }

    /// Returns the value of a required key that the caller reads itself.
    pub(super) fn required_value_of(&mut self, name: &'static str, shape: Shape) -> Option<Value<'a>> {
        self.note(name, |key| (key.shape, key.required) = (Some(shape), true));
        match self.value(name) {
            Some(value) => Some(value),
            None => self.missing(name),
        }
    }

    pub(super) fn optional<T: Read>(&mut self, name: &'static str) -> Option<T> {
        self.note(name, |key| (key.shape, key.off) = (Some(T::SHAPE), T::OFF));
        let value = self.value(name)?;
        read_as(&Value {
            hint: (value.is_off() && T::is_map()).then(|| "it is off unless it is written: leave it out".to_owned()),
            ..value
        })
    }

    pub(super) fn required<T: Read>(&mut self, name: &'static str) -> Option<T> {
        self.note(name, |key| (key.shape, key.required) = (Some(T::SHAPE), true));
        match self.value(name) {
            Some(value) => read_as(&value),
            None => self.missing(name),
        }
    }

    /// Reads a required list with at least one element.
    pub(super) fn required_list<T: Read>(&mut self, name: &'static str) -> Option<Vec<T>> {
        self.note(name, |key| key.required = true);
        match self.value(name) {
            Some(_) => self.nonempty(name),
            None => self.missing(name),
        }
    }

    /// Reads a map keyed by name; empty if it is absent.
    pub(super) fn named<T: Read>(&mut self, name: &'static str) -> NamedMap<T> {
        let map = self.optional(name);
        let is_written = self.value(name).is_some();
        map.unwrap_or_else(|| {
            if is_written {
                NamedMap::unreadable()
            } else {
                NamedMap::default()
            }
        })
    }

    /// Reads a section. One that is absent or has mistakes has its defaults; the mistakes are reported.
    pub(super) fn section_anyway<T: Read>(&mut self, name: &'static str) -> Option<T> {
        self.sound(|f| f.section(name)).or_else(|| self.default_section(name))
    }

    /// Reads a section as if it were absent, and without a trace.
    pub(super) fn default_section<T: Read>(&self, name: &'static str) -> Option<T> {
        default_of(self.at, join(self.path, name), &self.cx.scratch())
    }

    /// Returns what `read` returns, unless it reports a mistake.
    pub(super) fn sound<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let before = self.cx.mistakes.borrow().len();
        let value = read(self);
        value.filter(|_| self.cx.mistakes.borrow().len() == before)
    }

    /// Reads a required map keyed by name with at least one entry.
    pub(super) fn required_map<T: Read>(&mut self, name: &'static str) -> Option<NamedMap<T>> {
        let map: NamedMap<T> = self.required(name)?;
        let value = self.value(name)?;
        if value.entries(NAMED)?.is_empty() {
            let message = format!("`{}` must have at least one entry", value.path);
            self.push(Mistake::new(Code::OutOfRange, value.key, message));
        }
        Some(map)
    }

    fn missing<T>(&self, name: &str) -> Option<T> {
        let owner = self.name();
        let mut mistake = Mistake::new(Code::MissingKey, self.at, format!("{owner} needs the key `{name}`"));
        mistake.hint = if self.is_empty && !self.path.is_empty() {
            Some("nothing stands under it: indent what belongs to it".to_owned())
        } else if let Some((around, key)) = indentation::stands_within(self.entries, name) {
            mistake = mistake.related(key, "is written here");
            Some(format!("`{name}` stands within `{around}`: indent it less"))
        } else if let ("", Some(beginning)) = (self.path, self.cx.beginning) {
            Some(beginning.to_owned())
        } else {
            forms::of_key(self.model, name).map(str::to_owned)
        };
        self.push(mistake);
        None
    }

    /// Reads a value, or returns the default if it is absent.
    pub(super) fn or<T: Scalar>(&mut self, name: &'static str, default: T) -> At<T> {
        self.note(name, |key| key.default = Some(default.show()));
        self.optional(name).unwrap_or(At::unwritten(default))
    }

    /// Reads a value that must lie in a range, or returns the default if it is absent.
    pub(super) fn within<T: Scalar + PartialOrd>(
        &mut self,
        name: &'static str,
        default: T,
        range: RangeInclusive<T>,
    ) -> At<T> {
        if let Some(value) = self.value(name)
            && let Some(text) = value.text()
            && T::UNQUOTED
            && value.is_plain()
            && T::parse(text).is_err_and(|wrong| wrong.code == Code::OutOfRange)
        {
            self.note(name, |key| key.default = Some(default.show()));
            self.note(name, |key| key.range = Some((range.start().show(), range.end().show())));
            let message = format!("`{}` {}", value.path, between(&range));
            let label = match text {
                text if text.starts_with('-') => "is negative",
                text if text.contains('.') => "is not a whole number",
                text if text.bytes().all(|byte| byte == b'0') => "is too small",
                _ => "is too large",
            };
            self.push(Mistake::new(Code::OutOfRange, value.node.span, message).label(label));
            return At::unwritten(default);
        }
        let before = self.cx.mistakes.borrow().len();
        let value = self.or(name, default);
        let mut mistakes = self.cx.mistakes.borrow_mut();
        if mistakes.len() > before
            && let Some(hint) = mistakes.last_mut().and_then(|mistake| mistake.hint.as_mut())
        {
            *hint = hint::within(hint, |text| T::parse(text).is_ok_and(|value| range.contains(&value)));
        }
        drop(mistakes);
        self.held_to(name, value, range)
    }

    /// Reports a value that lies outside the range. Returns the value.
    pub(super) fn held_to<T: Scalar + PartialOrd>(
        &self,
        name: &'static str,
        value: At<T>,
        range: RangeInclusive<T>,
    ) -> At<T> {
        self.note(name, |key| key.range = Some((range.start().show(), range.end().show())));
        if let Some(at) = value.span().filter(|_| !range.contains(&value)) {
            let path = join(self.path, name);
            let message = format!("`{path}` {}", between(&range));
            let label = if *value < *range.start() {
                "is too small"
            } else {
                "is too large"
            };
            self.push(Mistake::new(Code::OutOfRange, at, message).label(label));
        }
        value
    }

    /// Reads a list; empty if it is absent.
    pub(super) fn list<T: Read>(&mut self, name: &'static str) -> Vec<T> {
        self.optional(name).unwrap_or_default()
    }

    /// Reads a list, or returns the default if it is absent. A written list must have at least one element.
    pub(super) fn list_or<T: Scalar + Clone>(&mut self, name: &'static str, default: &[T]) -> Vec<At<T>> {
        self.note(name, |key| {
            let shown: Vec<_> = default.iter().map(Scalar::show).collect();
            key.default = Some(format!("[{}]", shown.join(", "))).filter(|_| !default.is_empty());
        });
        match self.nonempty(name) {
            Some(list) => list,
            None => default.iter().cloned().map(At::unwritten).collect(),
        }
    }

    /// Reads an optional list that must have at least one element if it is written.
    pub(super) fn nonempty<T: Read>(&mut self, name: &'static str) -> Option<Vec<T>> {
        self.note(name, |key| key.shape = Some(Vec::<T>::SHAPE));
        let value = self.value(name)?;
        if matches!(&value.node.kind, Kind::List(items) if items.is_empty()) {
            let message = format!("`{}` must have at least one element", value.path);
            let mistake = Mistake::new(Code::OutOfRange, value.node.span, message);
            value.push(mistake.hint(match name {
                "host" => "name one, or leave it out: any host",
                "endpoints" => "name one, as in `[{ url: \"http://10.0.0.5:8080\" }]`",
                "split" => "name one, as in `[{ backend: NAME }]`, or write `backend: NAME` in its place",
                _ => "name one, or leave the key out",
            }));
            return None;
        }
        read_as(&value)
    }

    /// Reads a section. An absent section is read from an empty map and so has its defaults.
    pub(super) fn section<T: Read>(&mut self, name: &'static str) -> Option<T> {
        self.note(name, |key| (key.shape, key.off) = (Some(T::SHAPE), T::OFF));
        match self.value(name) {
            Some(value) => read_as(&value),
            None => default_of(self.at, join(self.path, name), self.cx),
        }
    }

    /// Reads a section that can be switched off. Returns `None` for `off`, and for an invalid section.
    pub(super) fn section_or_off<T: Read>(&mut self, name: &'static str) -> Option<T> {
        self.note(name, |key| (key.shape, key.off) = (Some(T::SHAPE), true));
        let Some(value) = self.value(name) else {
            return self.section(name);
        };
        if value.is_off() {
            return None;
        }
        read_as(&value.switchable(hint::for_switch))
    }

    /// Reads the path of a file that is read with the config, relative to the config's folder.
    pub(super) fn path(&mut self, name: &'static str) -> Option<At<PathBuf>> {
        let file = self.other_path(name)?;
        self.cx.files.borrow_mut().push(file.clone());
        Some(file)
    }

    /// Like [`Fields::path`]; it is a mistake if there is none.
    pub(super) fn required_path(&mut self, name: &'static str) -> Option<At<PathBuf>> {
        let file = self.required_other_path(name)?;
        self.cx.files.borrow_mut().push(file.clone());
        Some(file)
    }

    /// Reads the path of a file or folder that is written, or read later.
    pub(super) fn other_path(&mut self, name: &'static str) -> Option<At<PathBuf>> {
        let file = self.optional(name)?;
        self.resolve(name, file)
    }

    /// Like [`Fields::other_path`]; it is a mistake if there is none.
    pub(super) fn required_other_path(&mut self, name: &'static str) -> Option<At<PathBuf>> {
        let file = self.required(name)?;
        self.resolve(name, file)
    }

    fn resolve(&self, name: &str, file: At<String>) -> Option<At<PathBuf>> {
        if file.is_empty() {
            let message = format!("`{}` must name a file", join(self.path, name));
            self.push(Mistake::new(Code::BadValue, file.span(), message));
            return None;
        }
        Some(file.map(|file| self.cx.base_dir.join(file)))
    }

    /// Returns the one of several exclusive keys that is written. None or several are a mistake.
    pub(super) fn exactly_one(&mut self, names: &[&'static str]) -> Option<&'static str> {
        let written: Vec<_> = names
            .iter()
            .filter_map(|name| Some((*name, self.value(name)?.key)))
            .collect();
        let subject = self.name();
        match written.as_slice() {
            [(name, _)] => Some(name),
            [] => {
                let choice = hint::one_of(names.iter().copied()).unwrap_or_default();
                let mut mistake = Mistake::new(Code::MissingKey, self.at, format!("{subject} needs {choice}"));
                mistake.hint = forms::of_choice(self.model).map(str::to_owned);
                self.push(mistake);
                None
            }
            [(first, at), others @ ..] => {
                for (other, key) in others {
                    let message = format!("{subject} cannot have both `{first}` and `{other}`");
                    self.push(
                        Mistake::new(Code::Conflict, *key, message)
                            .related(*at, "and this one")
                            .hint(forms::of_several(self.model)),
                    );
                }
                None
            }
        }
    }

    /// Declares keys of the language that have no effect yet. They are refused rather than ignored.
    pub(super) fn not_built(&mut self, names: &[&'static str]) {
        self.not_built.extend(names);
    }

    pub(super) fn push(&self, mistake: Mistake) {
        self.cx.mistakes.borrow_mut().push(mistake);
    }

    pub(super) fn warn(&self, warning: Mistake) {
        self.cx.warnings.borrow_mut().push(warning);
    }

    /// Returns the name of the map in messages.
    fn name(&self) -> String {
        self.cx.called(self.path)
    }

    /// Reports the keys that were not read.
    pub(super) fn finish(self) {
        let is_unknown = |(_, (key, _)): &(usize, &(Key, Rc<Node>))| !self.known.contains(&key.text.as_str());
        for (place, (key, node)) in self.entries.iter().enumerate().filter(is_unknown) {
            let foreign = foreign::meant_by(&key.text, node, &self.known);
            if self.not_built.contains(&key.text.as_str()) {
                let message = format!("`{}` is not built yet", join(self.path, &key.text));
                let hint = foreign.unwrap_or_else(|| "remove it: a key is refused rather than ignored".to_owned());
                self.push(
                    Mistake::new(Code::NotBuilt, key.span, message)
                        .label("nothing would act on it")
                        .hint(hint),
                );
                continue;
            }
            self.cx.unknown.borrow_mut().push(Unknown {
                path: self.path.to_owned(),
                owner: self.name(),
                key: key.clone(),
                known: self.known.clone(),
                foreign,
                written: Written::of(node),
                section: foreign::section_meant_by(&key.text, node, &self.known),
                beside: self.entries.iter().map(|(key, _)| key.text.clone()).collect(),
                under: indentation::empty_before(self.entries, place, &self.known).map(str::to_owned),
            });
        }
    }
}

fn between<T: Scalar>(range: &RangeInclusive<T>) -> String {
    format!("must be between {} and {}", range.start().show(), range.end().show())
}

impl Value<'_> {
    /// Reads a map; an absent value counts as an empty map. Keys that `read` does not ask for are mistakes.
    pub(super) fn fields<T>(&self, read: impl FnOnce(&mut Fields<'_>) -> T) -> Option<T> {
        let entries = self.entries("a map of keys")?;
        let mut fields = Fields::new(entries, self, std::any::type_name::<T>());
        let result = read(&mut fields);
        fields.finish();
        Some(result)
    }
}

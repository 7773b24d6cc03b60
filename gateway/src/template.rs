//! Fills text templates with values from a request: rewrites, part paths, header values, bodies.
//!
//! Invariant: a value stays at its place. It cannot add a segment, a query parameter, a header line or JSON structure,
//! because every value is decoded once and encoded once for its place. If a place has no encoding for the value,
//! rendering fails. There is one exception: a capture spliced into a path is inserted raw. This is safe, because it is
//! a piece of a path that has already been checked.

pub mod captures;
pub mod percent;
mod query;

mod parse;
mod placeholder;
mod suggest;

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::message::FieldMap;

use crate::json::{Document, Kind, Selection, Value};

pub use captures::Captures;
pub use parse::{TemplateError, Why};
pub use placeholder::Placeholder;
pub use query::{MOST_PARAMETERS, Query, TooManyParameters};
pub use suggest::taken_literally;

/// Syntax of the text that is rendered. It decides how values are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// Request target: a path that begins with `/`, and after the first `?` a query.
    Path,
    /// Query of a request target, after the `?`.
    Query,
    /// Value of a header field.
    Header,
    /// JSON text. Within quotes a value is escaped; elsewhere it becomes a whole JSON value of its own kind.
    Json,
}

/// Parsed text with placeholders.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    pieces: Box<[Piece]>,
}

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Literal(Box<str>),
    Value(Placeholder, Spelling),
}

/// Encoding of a value at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spelling {
    Segment,
    Parameter,
    HeaderText,
    JsonText,
    JsonValue,
}

/// Sources of the values of a template.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    pub captures: &'a Captures<'a>,
    pub query: &'a Query<'a>,
    pub headers: &'a FieldMap,
    /// Verified claims of the caller's token.
    pub claims: Option<&'a Document>,
    /// Finds the selected values of another part's answer in the same aggregate.
    pub parts: &'a dyn Fn(&str) -> Option<&'a Selection>,
    /// Selected values of the request's own body.
    pub body: Option<&'a Selection>,
    /// Selected values of the element that a part is called for.
    pub item: Option<&'a Selection>,
    /// Values used in place of an absent value, or of a null where a null has no spelling.
    pub defaults: &'a [(Placeholder, Document)],
}

/// Placeholder that could not be filled, and the reason for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Placeholder as written, without its braces.
    pub placeholder: String,
    pub why: &'static str,
}

/// Longest JSON value, in bytes as written, that is spliced into a path or a header. A request with a longer value
/// could not be sent.
const MAX_LINE: usize = 64 << 10;

const ABSENT: &str = "there is no such value";
const NOT_TEXT: &str = "the value is null, a list, an object, or not Unicode";
const TOO_MANY: &str = "the query has more parameters than are looked at";
const NOT_A_SEGMENT: &str = "the value cannot stand in a path: it is empty, has a dot segment, or a control character";
const TOO_LONG: &str = "the value is too long for a path or a header";
const NOT_A_LINE: &str = "the value cannot stand in a header: it has a control character";

impl Template {
    /// Parses `text`. `{source.name}` is a placeholder; `{{` and `}}` are literal braces.
    ///
    /// # Errors
    /// A placeholder is malformed or unknown, or a literal is not allowed at its place.
    pub fn parse(text: &str, syntax: Syntax) -> Result<Self, TemplateError> {
        parse::parse(text, syntax)
    }

    /// Returns the text if it has no placeholders, with doubled braces replaced by single ones.
    pub fn as_literal(&self) -> Option<&str> {
        match &*self.pieces {
            [] => Some(""),
            [Piece::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// Placeholders in order of appearance. Allows checking the names before anything runs.
    pub fn uses(&self) -> impl Iterator<Item = &Placeholder> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Value(placeholder, _) => Some(placeholder),
            Piece::Literal(_) => None,
        })
    }

    /// Appends the rendered text to `out`.
    ///
    /// # Errors
    /// A value is absent or cannot be encoded safely at its place. `out` is then unchanged.
    pub fn render(&self, sources: &Sources<'_>, out: &mut String) -> Result<(), Missing> {
        let before = out.len();
        let mut last: Option<&Piece> = None;
        // Last value that shares its path segment with other text.
        let mut shared = None;
        for piece in &self.pieces {
            match (last, piece) {
                (Some(_), Piece::Value(value, Spelling::Segment)) if !out.ends_with('/') => shared = Some(value),
                (Some(Piece::Value(value, Spelling::Segment)), Piece::Literal(text))
                    if !text.starts_with(['/', '?']) =>
                {
                    shared = Some(value);
                }
                _ => {}
            }
            let spliced = match (piece, last) {
                // A wildcard's capture may end in a slash, but only at the end of the whole path.
                (Piece::Literal(text), Some(Piece::Value(value, Spelling::Segment)))
                    if text.starts_with('/') && out.ends_with('/') =>
                {
                    Err((value, NOT_A_SEGMENT))
                }
                (Piece::Literal(text), _) => {
                    out.push_str(text);
                    Ok(())
                }
                (Piece::Value(value, spelling), _) => {
                    splice(value, *spelling, sources, out).map_err(|why| (value, why))
                }
            };
            if let Err((value, why)) = spliced {
                out.truncate(before);
                return Err(Missing {
                    placeholder: value.to_string(),
                    why,
                });
            }
            last = Some(piece);
        }
        // A slash at an end of a value may turn dots beside the value into a dot segment.
        if let Some(value) = shared
            && leads_upwards(&out[before..])
        {
            out.truncate(before);
            return Err(Missing {
                placeholder: value.to_string(),
                why: NOT_A_SEGMENT,
            });
        }
        Ok(())
    }
}

/// Returns whether a segment of the path contains a dot segment after one more decoding.
fn leads_upwards(target: &str) -> bool {
    let path = target.split('?').next().unwrap_or_default();
    let mut segments = path.split('/');
    segments.any(|segment| percent::decode(segment).is_none_or(|decoded| has_dot_segment(&decoded)))
}

fn splice(
    placeholder: &Placeholder,
    spelling: Spelling,
    sources: &Sources<'_>,
    out: &mut String,
) -> Result<(), &'static str> {
    if let (Placeholder::Path(name), Spelling::Segment) = (placeholder, spelling)
        && let Some(raw) = sources.captures.get(name)
    {
        if raw.is_empty() {
            // Nothing follows the prefix of the route.
            return Ok(());
        }
        let decoded = percent::decode(raw).ok_or(NOT_TEXT)?;
        let path = decoded.strip_suffix('/').unwrap_or(&decoded);
        return if path.split('/').any(is_unfit_segment) {
            Err(NOT_A_SEGMENT)
        } else {
            out.push_str(raw);
            Ok(())
        };
    }
    let nullable = spelling == Spelling::JsonValue;
    let value = match placeholder.find(sources) {
        Err(ABSENT) => sources.default_for(placeholder)?,
        Ok(Found::Json(value)) if value.is_null() && !nullable => sources.default_for(placeholder)?,
        found => found?,
    };
    match (&value, spelling) {
        (Found::Json(value), Spelling::JsonValue) => {
            write!(out, "{value}").expect("writing to a String cannot fail");
            return Ok(());
        }
        // The JSON text is already escaped for a JSON string.
        (Found::Json(value), Spelling::JsonText) if value.kind() == Kind::String => {
            let quoted = value.to_string();
            out.push_str(&quoted[1..quoted.len() - 1]);
            return Ok(());
        }
        (Found::Json(value), Spelling::Segment | Spelling::Parameter | Spelling::HeaderText)
            if value.raw().len() > MAX_LINE =>
        {
            return Err(TOO_LONG);
        }
        _ => {}
    }
    let text = value.text()?;
    match spelling {
        Spelling::Segment if is_unfit_segment(&text) => return Err(NOT_A_SEGMENT),
        Spelling::Segment | Spelling::Parameter => percent::encode(&text, out),
        Spelling::HeaderText if text.chars().any(|char| char.is_control() && char != '\t') => return Err(NOT_A_LINE),
        // A header value is already valid in a header field and is passed on unchanged.
        Spelling::HeaderText if matches!(placeholder, Placeholder::Header(_)) => out.push_str(&text),
        Spelling::HeaderText => percent::encode_field(&text, out),
        Spelling::JsonText => push_json_text(&text, out),
        Spelling::JsonValue => {
            out.push('"');
            push_json_text(&text, out);
            out.push('"');
        }
    }
    Ok(())
}

fn is_unfit_segment(decoded: &str) -> bool {
    decoded.is_empty() || decoded.chars().any(char::is_control) || has_dot_segment(decoded)
}

/// Returns whether a server could go up a directory because of this segment. A server that decodes once too often sees
/// a slash where this gateway wrote `%2F`, and some servers treat a backslash as a slash.
fn has_dot_segment(decoded: &str) -> bool {
    let segments = decoded.split(['/', '\\']);
    segments.map(str::as_bytes).any(percent::is_dot_segment)
}

/// Appends text escaped for the inside of a JSON string (RFC 8259 section 7).
fn push_json_text(text: &str, out: &mut String) {
    for char in text.chars() {
        match char {
            '"' | '\\' => out.extend(['\\', char]),
            control if control.is_control() => {
                write!(out, "\\u{:04x}", u32::from(control)).expect("writing to a String cannot fail");
            }
            plain => out.push(plain),
        }
    }
}

/// Decoded value found in a source.
#[derive(Debug, Clone)]
pub enum Found<'a> {
    Text(Cow<'a, str>),
    Json(Value<'a>),
}

impl Found<'_> {
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Json(value) if value.is_null())
    }

    /// Returns the value as plain text. Numbers keep their digits.
    fn text(&self) -> Result<Cow<'_, str>, &'static str> {
        match self {
            Self::Text(text) => Ok(Cow::Borrowed(text)),
            Self::Json(value) => match value.kind() {
                Kind::String => value.text().ok_or(NOT_TEXT),
                Kind::Number | Kind::Bool => Ok(Cow::Owned(value.to_string())),
                Kind::Null | Kind::Array | Kind::Object => Err(NOT_TEXT),
            },
        }
    }
}

impl<'a> Sources<'a> {
    /// Makes the sources of a request before any backend has been called.
    pub fn of_request(
        captures: &'a Captures<'a>,
        query: &'a Query<'a>,
        headers: &'a FieldMap,
        claims: Option<&'a Document>,
    ) -> Self {
        Self {
            captures,
            query,
            headers,
            claims,
            parts: &|_| None,
            body: None,
            item: None,
            defaults: &[],
        }
    }

    fn default_for(&self, placeholder: &Placeholder) -> Result<Found<'a>, &'static str> {
        let found = self.defaults.iter().find(|(name, _)| name == placeholder);
        found.map(|(_, value)| Found::Json(value.value())).ok_or(ABSENT)
    }

    /// Returns the value found for a placeholder as a document.
    pub fn share(&self, placeholder: &Placeholder, value: Value<'_>) -> Document {
        let selection = match placeholder {
            Placeholder::Body(_) => self.body,
            Placeholder::Item(_) => self.item,
            Placeholder::Part { part, .. } => (self.parts)(part),
            _ => None,
        };
        match selection.filter(|selection| selection.holds(value)) {
            Some(selection) => selection.share(value),
            None => Document::from_checked(value.raw().to_vec().into()),
        }
    }
}

#[cfg(test)]
mod tests;

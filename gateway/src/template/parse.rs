//! Parses a template and decides once how each of its values is encoded.

use std::fmt;

use super::{Piece, Placeholder, Spelling, Syntax, Template, percent};

/// Error in a template and its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateError {
    /// Offset in bytes from the start of the text.
    pub at: usize,
    pub why: Why,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// `{` that is neither closed nor doubled.
    Unclosed,
    /// `}` that closes nothing.
    Unopened,
    /// Text between braces that names no source.
    Unknown(String),
    /// Path that does not begin with `/`.
    NotAbsolute,
    /// Literal with a character that must be percent-encoded, or with a malformed encoding.
    Unencoded,
    /// Path segment that is `.` or `..`, or could become one with some value.
    DotSegment,
    /// Path segment without any character.
    EmptySegment,
    /// Header value with a control character.
    NotALine,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.why {
            Why::Unclosed => write!(f, "`{{` has no matching `}}` (write `{{{{` for a literal brace)"),
            Why::Unopened => write!(f, "`}}` closes nothing (write `}}}}` for a literal brace)"),
            Why::Unknown(text) => write!(
                f,
                "`{{{text}}}` is no placeholder; there are `{{path.NAME}}`, `{{query.NAME}}`, `{{header.NAME}}`, \
                 `{{claim.NAME}}`, and in a part of an aggregate `{{part.NAME.FIELD}}`, `{{body.FIELD}}` and `{{item.FIELD}}`"
            ),
            Why::NotAbsolute => write!(f, "a path begins with `/`"),
            Why::Unencoded => write!(f, "this character has to be percent-encoded here"),
            Why::DotSegment => write!(
                f,
                "`.` and `..` cannot be path segments, nor can a value be put behind them"
            ),
            Why::EmptySegment => write!(f, "a path has no empty segments"),
            Why::NotALine => write!(f, "a header value has no control characters"),
        }
    }
}

impl std::error::Error for TemplateError {}

pub(super) fn parse(text: &str, syntax: Syntax) -> Result<Template, TemplateError> {
    let mut reader = Reader {
        syntax,
        pieces: Vec::new(),
        literal: String::new(),
        quoted: false,
        escaped: false,
    };
    if syntax == Syntax::Path && !text.starts_with('/') {
        return Err(TemplateError {
            at: 0,
            why: Why::NotAbsolute,
        });
    }
    let mut at = 0;
    while let Some(char) = text[at..].chars().next() {
        let rest = &text[at + char.len_utf8()..];
        at += match char {
            '{' | '}' if rest.starts_with(char) => {
                reader.literal(char, rest).map_err(|why| TemplateError { at, why })?;
                2
            }
            '}' => return Err(TemplateError { at, why: Why::Unopened }),
            '{' => {
                let end = rest.find('}').ok_or(TemplateError { at, why: Why::Unclosed })?;
                let inner = &rest[..end];
                let unknown = || TemplateError {
                    at,
                    why: Why::Unknown(inner.to_owned()),
                };
                reader.value(Placeholder::parse(inner).ok_or_else(unknown)?);
                inner.len() + 2
            }
            _ => {
                reader.literal(char, rest).map_err(|why| TemplateError { at, why })?;
                char.len_utf8()
            }
        };
    }
    reader.flush();
    if syntax == Syntax::Path {
        check_segments(&reader.pieces).map_err(|why| TemplateError { at: 0, why })?;
    }
    Ok(Template {
        pieces: reader.pieces.into(),
    })
}

struct Reader {
    /// Current syntax. Changes from path to query at the first `?`.
    syntax: Syntax,
    pieces: Vec<Piece>,
    literal: String,
    /// True within a JSON string.
    quoted: bool,
    /// True after a backslash in a JSON string.
    escaped: bool,
}

impl Reader {
    /// Reads one literal character. `rest` is the text after it.
    fn literal(&mut self, char: char, rest: &str) -> Result<(), Why> {
        match self.syntax {
            Syntax::Path if char == '?' => self.syntax = Syntax::Query,
            Syntax::Path | Syntax::Query if char == '%' => {
                percent::decode_pair(rest.as_bytes()).ok_or(Why::Unencoded)?;
            }
            Syntax::Path | Syntax::Query => {
                let also = char == '/' || (self.syntax == Syntax::Query && char == '?');
                let allowed = u8::try_from(char).is_ok_and(percent::is_segment_byte) || also;
                allowed.then_some(()).ok_or(Why::Unencoded)?;
            }
            Syntax::Header if char.is_control() && char != '\t' => return Err(Why::NotALine),
            Syntax::Header => {}
            Syntax::Json if self.escaped => self.escaped = false,
            Syntax::Json => {
                self.escaped = self.quoted && char == '\\';
                self.quoted ^= char == '"';
            }
        }
        self.literal.push(char);
        Ok(())
    }

    fn value(&mut self, placeholder: Placeholder) {
        self.flush();
        let spelling = match self.syntax {
            Syntax::Path => Spelling::Segment,
            Syntax::Query => Spelling::Parameter,
            Syntax::Header => Spelling::HeaderText,
            Syntax::Json if self.quoted => Spelling::JsonText,
            Syntax::Json => Spelling::JsonValue,
        };
        self.pieces.push(Piece::Value(placeholder, spelling));
    }

    fn flush(&mut self) {
        if !self.literal.is_empty() {
            self.pieces
                .push(Piece::Literal(std::mem::take(&mut self.literal).into()));
        }
    }
}

/// Checks that no segment is a dot segment or empty, or can become one.
///
/// A value alone is never empty, `.` or `..` (see `render`), so only literal dots beside a value are a risk.
fn check_segments(pieces: &[Piece]) -> Result<(), Why> {
    // `{` represents a value, because no literal of a path contains it.
    let mut outline = String::new();
    for piece in pieces {
        match piece {
            Piece::Literal(text) => outline.push_str(text),
            Piece::Value(..) => outline.push('{'),
        }
    }
    let path = outline.split('?').next().unwrap_or_default();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() && segments.peek().is_some() {
            return Err(Why::EmptySegment);
        }
        let literal: String = segment.chars().filter(|&char| char != '{').collect();
        if percent::is_dot_segment(&percent_encoding::percent_decode_str(&literal).collect::<Vec<_>>()) {
            return Err(Why::DotSegment);
        }
    }
    Ok(())
}

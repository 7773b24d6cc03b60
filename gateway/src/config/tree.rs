//! Parses YAML into a tree in which every key and value has its place.
//!
//! No other file uses the YAML crate. It is read by events rather than through serde, because serde stops at the first
//! error and an operator wants all of them. Only a syntax error ends the reading, because nothing after it can be
//! trusted.
//!
//! Limits: one document, [`MAX_DEPTH`] levels and [`MAX_NODES`] values. Every alias counts as what it stands for, so
//! that a few lines of aliases cannot become gigabytes.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::rc::Rc;

use serde_yaml::granit_parser::{self, Event, Marker, Parser, ScalarStyle, ScanError, Tag};

use super::line_indentation;
use super::mistake::{Code, Mistake, Mistakes};
use super::span::Span;

pub(super) const MAX_DEPTH: usize = 32;
/// Largest number of values; enough for the longest list of keys or revocations.
pub(super) const MAX_NODES: usize = 1_000_000;

#[derive(Debug)]
pub(super) struct Node {
    pub span: Span,
    pub kind: Kind,
    /// Number of values in this subtree, including itself, with aliases expanded.
    weight: usize,
    /// Number of levels in this subtree, including itself.
    height: usize,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// `plain` means without quotes, so that words such as `off` and `${VAR}` have a meaning.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Rc<Node>>),
    /// Entries with distinct keys.
    Map(Vec<(Key, Rc<Node>)>),
}

#[derive(Debug, Clone)]
pub(super) struct Key {
    pub text: String,
    pub span: Span,
}

/// Parses one document. A duplicate key is added to `mistakes`, and its first value counts. Fails for a syntax error.
pub(super) fn parse(source: u16, text: &str, mistakes: &mut Mistakes) -> Result<Rc<Node>, Mistake> {
    let options = granit_parser::options! { emit_comments: false };
    let mut builder = Builder::new(source, text, mistakes);
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| builder.syntax_error(&error))?;
        builder.take(event, builder.span(&span.start, &span.end))?;
    }
    Ok(builder.root.unwrap_or_else(|| {
        Rc::new(Node::map(
            Span {
                source,
                start: 0,
                end: 0,
            },
            Vec::new(),
        ))
    }))
}

/// A text that can be read although it is not valid YAML.
pub(super) struct Repaired {
    pub root: Rc<Node>,
    /// Places whose values are not what is written.
    pub lossy: Vec<Span>,
}

/// Largest number of syntax errors that are read over.
const MOST_REPAIRS: usize = 20;

/// Parses one document. Reads over syntax errors whose meaning is certain, so that other mistakes are found too. Returns
/// `None` after one that is not.
pub(super) fn parse_on(source: u16, text: &str, mistakes: &mut Mistakes) -> Option<Repaired> {
    let (mut text, mut lossy) = (Cow::Borrowed(text), Vec::new());
    for _ in 0..=MOST_REPAIRS {
        let mut found = Mistakes::default();
        match parse(source, &text, &mut found) {
            Ok(root) => {
                mistakes.append(found);
                return Some(Repaired { root, lossy });
            }
            Err(mistake) => {
                let at = mistake.at.filter(|_| mistake.code == Code::Syntax);
                // An open bracket is reported together with the place up to which it is open.
                let is_open = !mistake.related.is_empty();
                mistakes.push(mistake);
                let at = at?;
                let start = at.start as usize;
                let repaired = if is_open {
                    closed(&text, start)
                } else {
                    repaired(&text, start)
                }?;
                lossy.extend(Some(at).filter(|_| repaired.is_lossy));
                text = Cow::Owned(repaired.text);
            }
        }
    }
    None
}

/// Text of the same length in which a syntax error is repaired.
struct Repair {
    text: String,
    is_lossy: bool,
}

/// Repairs tabs, and braces and stars in values without quotes.
fn repaired(text: &str, at: usize) -> Option<Repair> {
    let line = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let (so_far, rest) = (&text[line..at], &text[at..]);
    let mut bytes = text.as_bytes().to_vec();
    if so_far.bytes().all(|byte| byte == b' ' || byte == b'\t') && (rest.starts_with('\t') || so_far.ends_with('\t')) {
        let mut leads = true;
        for byte in &mut bytes {
            match *byte {
                b'\n' => leads = true,
                b'\t' if leads => *byte = b' ',
                b' ' => {}
                _ => leads = false,
            }
        }
        return String::from_utf8(bytes)
            .ok()
            .map(|text| Repair { text, is_lossy: false });
    }
    if rest.starts_with('*') {
        bytes[at] = b'_';
    } else {
        let open = if rest.starts_with('{') {
            at
        } else {
            line + so_far.rfind('{')?
        };
        let before = text[line..open].chars().next_back()?;
        if before.is_whitespace() || matches!(before, '[' | '{' | ',' | ':') {
            return None;
        }
        let close = open + text[open..].lines().next()?.find('}')?;
        (bytes[open], bytes[close]) = (b'_', b'_');
    }
    String::from_utf8(bytes)
        .ok()
        .map(|text| Repair { text, is_lossy: true })
}

/// Closes a bracket that is the only open one of its line, at the end of the line.
fn closed(text: &str, open: usize) -> Option<Repair> {
    let begin = text[..open].rfind('\n').map_or(0, |newline| newline + 1);
    let length = text[begin..].find('\n').unwrap_or(text.len() - begin);
    let mut within = Vec::new();
    let mut quote = None;
    for (at, letter) in text[begin..begin + length].char_indices() {
        match (quote, letter) {
            (Some(mark), _) => quote = quote.filter(|_| letter != mark),
            (None, '"' | '\'') => quote = Some(letter),
            (None, '{' | '[') => within.push(begin + at),
            (None, '}' | ']') => within.pop().map(drop)?,
            _ => {}
        }
    }
    let bracket = text.as_bytes()[open];
    let line = text[begin..begin + length].trim_end();
    if quote.is_some() || within != [open] || line.contains(" #") {
        return None;
    }
    // The text keeps its length: a space takes the bracket, or else the last of at least two letters.
    let mut end = line.bytes().rev();
    let is_spaced = line.len() < length && text.as_bytes()[begin + line.len()] == b' ';
    let at = if is_spaced {
        end.next().filter(|last| !matches!(last, b',' | b':' | b'{' | b'['))?;
        begin + line.len()
    } else {
        let mut letters = end.by_ref().take(2);
        let are_letters = letters.by_ref().all(|letter| letter.is_ascii_alphanumeric());
        are_letters.then_some(begin + line.len() - 1)?
    };
    let mut bytes = text.as_bytes().to_vec();
    bytes[at] = if bracket == b'{' { b'}' } else { b']' };
    let text = String::from_utf8(bytes).ok()?;
    Some(Repair {
        text,
        is_lossy: !is_spaced,
    })
}

impl Node {
    pub(super) fn map(span: Span, entries: Vec<(Key, Rc<Self>)>) -> Self {
        let weight = entries
            .iter()
            .fold(1, |sum: usize, (_, node)| sum.saturating_add(node.weight));
        let height = 1 + entries.iter().map(|(_, node)| node.height).max().unwrap_or(0);
        Self {
            span,
            kind: Kind::Map(entries),
            weight,
            height,
        }
    }

    fn list(span: Span, items: Vec<Rc<Self>>) -> Self {
        let weight = items.iter().fold(1, |sum: usize, node| sum.saturating_add(node.weight));
        let height = 1 + items.iter().map(|node| node.height).max().unwrap_or(0);
        Self {
            span,
            kind: Kind::List(items),
            weight,
            height,
        }
    }

    fn scalar(span: Span, text: String, plain: bool) -> Self {
        Self {
            span,
            kind: Kind::Scalar { text, plain },
            weight: 1,
            height: 1,
        }
    }

    /// Returns what stands for a value that is left out.
    fn absent(span: Span) -> Rc<Self> {
        Rc::new(Self::scalar(span, String::new(), true))
    }

    /// Returns the tree with other names for the keys at these places. A name that its map has already is not given.
    pub(super) fn renamed(&self, names: &HashMap<Span, &'static str>) -> Self {
        let kind = match &self.kind {
            Kind::Scalar { text, plain } => Kind::Scalar {
                text: text.clone(),
                plain: *plain,
            },
            Kind::List(items) => Kind::List(items.iter().map(|item| Rc::new(item.renamed(names))).collect()),
            Kind::Map(entries) => {
                let mut renamed: Vec<(Key, Rc<Self>)> = Vec::with_capacity(entries.len());
                for (key, node) in entries {
                    let name = names.get(&key.span).filter(|name| {
                        let is_taken = |(other, _): &(Key, Rc<Self>)| other.text == **name;
                        !entries.iter().any(is_taken) && !renamed.iter().any(is_taken)
                    });
                    let text = name.map_or_else(|| key.text.clone(), |name| (*name).to_owned());
                    let node = Rc::new(node.renamed(names));
                    renamed.push((Key { text, span: key.span }, node));
                }
                Kind::Map(renamed)
            }
        };
        Self { kind, ..*self }
    }

    /// Returns whether the value is YAML's `null`: empty, `~` or the word.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null"))
    }
}

/// A collection that is not yet complete.
struct Open {
    span: Span,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Rc<Node>>),
    Map {
        entries: Entries,
        /// Key that waits for its value.
        key: Option<Key>,
        /// Values of `<<` keys, in order.
        merges: Vec<Rc<Node>>,
    },
}

/// Entries of a map, with distinct keys.
#[derive(Default)]
struct Entries {
    all: Vec<(Key, Rc<Node>)>,
    /// Place where each key was first written, from [`MANY`] entries on. In a short list, looking is quicker.
    places: HashMap<String, Span>,
}

/// Number of entries from which keys are found by their hash.
const MANY: usize = 16;

impl Entries {
    /// Returns the place where a key was first written.
    fn first(&self, text: &str) -> Option<Span> {
        if self.all.len() >= MANY {
            return self.places.get(text).copied();
        }
        let found = self.all.iter().find(|(key, _)| key.text == text);
        found.map(|(key, _)| key.span)
    }

    /// Appends an entry whose key is new.
    fn push(&mut self, key: Key, node: Rc<Node>) {
        self.all.push((key, node));
        let place = |(key, _): &(Key, Rc<Node>)| (key.text.clone(), key.span);
        match self.all.len().cmp(&MANY) {
            Ordering::Less => {}
            Ordering::Equal => self.places = self.all.iter().map(place).collect(),
            Ordering::Greater => self.places.extend(self.all.last().map(place)),
        }
    }
}

struct Builder<'a> {
    source: u16,
    text: &'a str,
    mistakes: &'a mut Mistakes,
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Node>>,
    documents: usize,
    root: Option<Rc<Node>>,
    /// Collections that are too deep and are left out, the outermost with its place.
    skipped: Option<(usize, Span)>,
}

impl<'a> Builder<'a> {
    fn new(source: u16, text: &'a str, mistakes: &'a mut Mistakes) -> Self {
        let (open, anchors) = (Vec::new(), HashMap::new());
        Self {
            source,
            text,
            mistakes,
            open,
            anchors,
            documents: 0,
            root: None,
            skipped: None,
        }
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Mistake> {
        if let Some((depth, begin)) = &mut self.skipped {
            match event {
                Event::SequenceStart(..) | Event::MappingStart(..) => *depth += 1,
                Event::SequenceEnd | Event::MappingEnd => *depth -= 1,
                _ => {}
            }
            let (depth, begin) = (*depth, *begin);
            if depth > 0 {
                return Ok(());
            }
            self.skipped = None;
            return self.put(Node::absent(begin));
        }
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents == 1 {
                    return Ok(());
                }
                let mistake = Mistake::new(Code::Syntax, span, "a second YAML document begins here")
                    .hint("a config is one document: remove the `---`, and merge what follows into the sections above");
                if self.documents > 2 {
                    return Err(mistake);
                }
                self.mistakes.push(mistake);
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && !forces_text(tag.as_deref(), span)?;
                self.place(Rc::new(Node::scalar(span, text.into_owned(), plain)), anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                forces_text(tag.as_deref(), span)?;
                self.begin(span, anchor, Content::List(Vec::new()))
            }
            Event::MappingStart(_, anchor, tag) => {
                forces_text(tag.as_deref(), span)?;
                let map = Content::Map {
                    entries: Entries::default(),
                    key: None,
                    merges: Vec::new(),
                };
                self.begin(span, anchor, map)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(id) => match self.anchors.get(&id) {
                Some(node) => self.place(Rc::clone(node), 0),
                None => Err(Mistake::new(
                    Code::Syntax,
                    span,
                    "this alias stands inside what it names",
                )),
            },
            _ => Ok(()),
        }
    }

    fn begin(&mut self, span: Span, anchor: usize, content: Content) -> Result<(), Mistake> {
        if self.open.len() >= MAX_DEPTH {
            self.mistakes.push(too_deep(span));
            self.skipped = Some((1, span));
            return Ok(());
        }
        if let Some(Open {
            content: Content::Map { key: None, .. },
            ..
        }) = self.open.last()
        {
            return Err(
                Mistake::new(Code::Syntax, span, "a key must be a single word, not a list or a map")
                    .hint("if this is a `{placeholder}`, put quotes around it"),
            );
        }
        self.open.push(Open { span, anchor, content });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Mistake> {
        let Some(Open { span, anchor, content }) = self.open.pop() else {
            return Ok(());
        };
        let node = match content {
            Content::List(items) => Node::list(span, items),
            Content::Map {
                mut entries, merges, ..
            } => {
                merge(&mut entries, &merges)?;
                Node::map(span, entries.all)
            }
        };
        self.place(Rc::new(node), anchor)
    }

    /// Adds a complete value: to the open list, as a key, as the value of a key, or as the root.
    fn place(&mut self, node: Rc<Node>, anchor: usize) -> Result<(), Mistake> {
        let too_large = if node.weight > MAX_NODES {
            let message = format!("more than {MAX_NODES} values");
            Some(Mistake::new(Code::Syntax, node.span, message).label("once its aliases are written out"))
        } else {
            (self.open.len() + node.height > MAX_DEPTH).then(|| too_deep(node.span))
        };
        let node = match too_large {
            Some(mistake) => {
                self.mistakes.push(mistake);
                Node::absent(node.span)
            }
            None => node,
        };
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.put(node)
    }

    fn put(&mut self, node: Rc<Node>) -> Result<(), Mistake> {
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.root = Some(self.joined(node)),
            Some(Content::List(items)) => items.push(node),
            Some(Content::Map { key: slot @ None, .. }) => *slot = Some(key_of(&node)?),
            Some(Content::Map {
                entries,
                key: slot @ Some(_),
                merges,
            }) => {
                let key = slot.take().expect("the pattern says it is there");
                if key.text == "<<" {
                    merges.push(node);
                } else if let Some(first) = entries.first(&key.text) {
                    let message = format!("`{}` is written twice", key.text);
                    let mistake = Mistake::new(Code::DuplicateKey, key.span, message).label("and again here");
                    let mistake = mistake.related(first, "first here");
                    self.mistakes.push(mistake.hint("merge the two, or take one out"));
                } else {
                    entries.push(key, node);
                }
            }
        }
        Ok(())
    }

    /// Adds the entries of a further document to those of the first, so that all mistakes are found.
    fn joined(&mut self, node: Rc<Node>) -> Rc<Node> {
        let Some(root) = &self.root else { return node };
        let (Kind::Map(first), Kind::Map(further)) = (&root.kind, &node.kind) else {
            return Rc::clone(root);
        };
        let mut all = Entries::default();
        for (key, value) in first.iter().chain(further) {
            match all.first(&key.text) {
                None => all.push(key.clone(), Rc::clone(value)),
                Some(first) => {
                    let message = format!("`{}` is written twice", key.text);
                    let mistake = Mistake::new(Code::DuplicateKey, key.span, message).label("and again here");
                    let mistake = mistake.related(first, "first here");
                    self.mistakes.push(mistake.hint("merge the two, or take one out"));
                }
            }
        }
        Rc::new(Node::map(node.span, all.all))
    }

    /// Converts markers to a span, limited to the text and to whole characters, whatever the parser reports.
    fn span(&self, start: &Marker, end: &Marker) -> Span {
        let clamp = |marker: &Marker| {
            let mut offset = marker.byte_offset().unwrap_or(0).min(self.text.len());
            while !self.text.is_char_boundary(offset) {
                offset -= 1;
            }
            u32::try_from(offset).unwrap_or(u32::MAX)
        };
        let start = clamp(start);
        Span {
            source: self.source,
            start,
            end: clamp(end).max(start),
        }
    }

    fn syntax_error(&self, error: &ScanError) -> Mistake {
        let at = self.span(error.marker(), error.marker());
        let mistake = Mistake::new(Code::Syntax, at, format!("not valid YAML: {}", error.info()));
        let line = self.text[..at.start as usize]
            .rfind('\n')
            .map_or(0, |newline| newline + 1);
        let so_far = &self.text[line..at.start as usize];
        let rest = &self.text[at.start as usize..];
        let brace = if rest.starts_with('{') {
            Some(so_far.len())
        } else {
            so_far.rfind('{')
        };
        let before_brace = brace.and_then(|brace| so_far[..brace].chars().next_back());
        let told = error.info();
        let unclosed = self.open.last().map(|open| open.span).filter(|span| {
            let begins = self.text[span.start as usize..].starts_with(['{', '[']);
            let between = self.text.get(span.start as usize..at.start as usize);
            begins && between.is_some_and(|between| between.contains('\n')) && told.contains("did not find expected")
        });
        if let Some(begin) = unclosed {
            let bracket = &self.text[begin.start as usize..=begin.start as usize];
            let begin = Span {
                end: begin.start + 1,
                ..begin
            };
            return Mistake::new(
                Code::Syntax,
                begin,
                format!("not valid YAML: this `{bracket}` is not closed"),
            )
            .related(at, "here something else begins")
            .hint(if bracket == "{" {
                "write the `}` that belongs to it"
            } else {
                "write the `]` that belongs to it"
            });
        }
        if told.contains("unknown anchor") {
            mistake.hint("put quotes around a value that begins with `*`")
        } else if told.contains("may not precede") {
            mistake.hint("write a space after the colon")
        } else if told.contains("unclosed quote") {
            mistake.hint("close the quote that begins here")
        } else if told.contains("unexpected character") && rest.starts_with(['%', '@', '`', '|', '>']) {
            mistake.hint("put quotes around the value")
        } else if rest.starts_with(':') && so_far.ends_with(']') {
            mistake.hint("put quotes around an address with brackets, as in `\"[::]:8080\"`")
        } else if rest.starts_with('\t') || so_far.trim_end_matches(' ').ends_with('\t') {
            mistake.hint("indent with spaces: YAML does not take tabs")
        } else if before_brace == Some('$') {
            mistake
                .hint("within `{ }` a word ends at a brace: write the key with its `${VARIABLE}` on a line of its own")
        } else if before_brace.is_some_and(|c| !c.is_whitespace() && !matches!(c, '[' | '{' | ',' | ':')) {
            mistake.hint("put quotes around a value that holds a `{placeholder}`")
        } else {
            let hint = line_indentation::of_line(self.text, at.start as usize);
            Mistake { hint, ..mistake }
        }
    }
}

/// Appends the entries of merged maps after the written ones; they never replace an entry.
fn merge(entries: &mut Entries, merges: &[Rc<Node>]) -> Result<(), Mistake> {
    for merged in merges {
        match &merged.kind {
            Kind::Map(others) => {
                for (key, node) in others {
                    if entries.first(&key.text).is_none() {
                        entries.push(key.clone(), Rc::clone(node));
                    }
                }
            }
            Kind::List(maps) => merge(entries, maps)?,
            Kind::Scalar { .. } => {
                return Err(Mistake::new(
                    Code::Syntax,
                    merged.span,
                    "`<<` takes a map, as in `<<: *name`",
                ));
            }
        }
    }
    Ok(())
}

fn key_of(node: &Node) -> Result<Key, Mistake> {
    match &node.kind {
        Kind::Scalar { text, .. } => Ok(Key {
            text: text.clone(),
            span: node.span,
        }),
        Kind::List(_) | Kind::Map(_) => Err(Mistake::new(
            Code::Syntax,
            node.span,
            "a key must be a single word, not a list or a map",
        )),
    }
}

/// Returns whether the tag is `!!str`, which makes text of any value. Tags outside YAML's core schema are mistakes.
fn forces_text(tag: Option<&Tag>, span: Span) -> Result<bool, Mistake> {
    match tag {
        None => Ok(false),
        Some(tag) if tag.is_yaml_core_schema() => Ok(tag.suffix() == "str"),
        Some(tag) => Err(Mistake::new(
            Code::Syntax,
            span,
            format!("the tag `{}` has no meaning in a config", tag.original()),
        )),
    }
}

fn too_deep(span: Span) -> Mistake {
    Mistake::new(Code::Syntax, span, format!("nested more than {MAX_DEPTH} levels deep"))
        .hint("no section of a config is that deep: take brackets out")
}

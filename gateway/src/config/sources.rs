//! The texts a config was read from, kept so that a mistake can be shown where it stands.
//!
//! Spans point into a source by number; no source is ever taken away, so a span stays good for as long as its
//! `Sources` does.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde::Serialize;

use super::mistake::{Code, Mistake, Mistakes};
use super::span::Span;
use crate::files::FileReader;

/// Every file read so far, in order of reading.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    files: Vec<File>,
    reader: FileReader,
}

#[derive(Debug, Clone)]
struct File {
    name: Arc<str>,
    text: String,
    /// Where each line begins, in bytes.
    lines: Vec<u32>,
}

/// A place as people and editors name it; line and column count from one, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Location {
    pub file: Arc<str>,
    pub line: usize,
    pub column: usize,
}

/// A config that must not be used, with everything that is wrong with it.
pub struct Invalid {
    pub sources: Sources,
    pub mistakes: Mistakes,
}

/// The largest file that is read: spans are 32 bits wide, and a config of this size is a mistake anyway.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// The most mistakes shown at once; whoever has more will come back for the rest.
const MAX_SHOWN: usize = 100;

impl Sources {
    /// Of files that are read in this way.
    pub fn read_by(reader: FileReader) -> Self {
        let files = Vec::new();
        Self { files, reader }
    }

    /// What the files are read by.
    pub fn reader(&mut self) -> &mut FileReader {
        &mut self.reader
    }

    /// Takes in a text under the name that mistakes will show.
    pub(super) fn add(&mut self, name: &str, text: &str) -> Result<u16, Mistake> {
        let Ok(number) = u16::try_from(self.files.len()) else {
            return Err(Mistake::new(Code::Unreadable, None, format!("{name}: too many files")));
        };
        if text.len() > MAX_BYTES {
            return Err(Mistake::new(
                Code::Unreadable,
                None,
                format!("{name}: larger than {MAX_BYTES} bytes"),
            ));
        }
        let after_breaks = text.match_indices('\n').map(|(newline, _)| newline as u32 + 1);
        self.files.push(File {
            name: name.into(),
            text: text.to_owned(),
            lines: std::iter::once(0).chain(after_breaks).collect(),
        });
        Ok(number)
    }

    /// Reads a file and takes it in.
    pub(super) fn read(&mut self, path: &Path) -> Result<u16, Mistake> {
        let unreadable =
            |why: String| Mistake::new(Code::Unreadable, None, format!("cannot read {}: {why}", path.display()));
        let bytes = self.reader.read(path).map_err(|error| unreadable(error.to_string()))?;
        let text = std::str::from_utf8(&bytes).map_err(|_| unreadable("it is not UTF-8".to_owned()))?;
        self.add(&path.display().to_string(), text)
    }

    /// What the text that was read first goes by.
    pub fn first_name(&self) -> &str {
        self.files.first().map_or("", |file| &*file.name)
    }

    /// The text that was read first: the config's own.
    pub fn first(&self) -> &str {
        self.files.first().map_or("", |file| &*file.text)
    }

    pub(super) fn text(&self, source: u16) -> &str {
        &self.files[usize::from(source)].text
    }

    pub fn locate(&self, span: Span) -> Location {
        let file = &self.files[usize::from(span.source)];
        let line = file.lines.partition_point(|start| *start <= span.start);
        let start = file.lines[line - 1] as usize;
        Location {
            file: Arc::clone(&file.name),
            line,
            column: file.text[start..span.start as usize].chars().count() + 1,
        }
    }

    /// Mistakes as errors, for a terminal or a log: one block each, in the order of the file.
    pub fn render(&self, mistakes: &Mistakes, colour: bool) -> String {
        self.render_as(&Level::ERROR, mistakes, colour)
    }

    /// The same for what need not stop anyone.
    pub fn render_warnings(&self, warnings: &Mistakes, colour: bool) -> String {
        self.render_as(&Level::WARNING, warnings, colour)
    }

    fn render_as(&self, level: &Level<'_>, mistakes: &Mistakes, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() }.decor_style(DecorStyle::Ascii);
        let mut page = String::new();
        for mistake in mistakes.sorted().into_iter().take(MAX_SHOWN) {
            page.push_str(&renderer.render(&[self.group(level, mistake)]));
            page.push_str("\n\n");
        }
        page
    }

    fn group<'a>(&'a self, level: &Level<'a>, mistake: &'a Mistake) -> Group<'a> {
        let title = level.clone().primary_title(&*mistake.message).id(mistake.code.as_str());
        let mut group = Group::with_title(title);
        if let Some(at) = mistake.at.filter(|_| mistake.secret) {
            let Location { file, line, column } = self.locate(at);
            group = group.element(Origin::path(file.to_string()).line(line).char_column(column));
            if let Some(label) = &mistake.label {
                group = group.element(Level::NOTE.message(format!("it {label}")));
            }
        } else if let Some(at) = mistake.at {
            group = group.element(self.snippet(at, mistake));
            for (other, label) in mistake.related.iter().filter(|(other, _)| other.source != at.source) {
                let annotation = AnnotationKind::Context.span(other.range()).label(&**label);
                group = group.element(self.source(other.source).annotation(annotation));
            }
        }
        match &mistake.hint {
            Some(hint) => group.element(Level::HELP.message(&**hint)),
            None => group,
        }
    }

    fn snippet<'a>(&'a self, at: Span, mistake: &'a Mistake) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
        let near = mistake.related.iter().filter(|(other, _)| other.source == at.source);
        self.source(at.source)
            .annotation(AnnotationKind::Primary.span(at.range()).label(mistake.label.as_deref()))
            .annotations(near.map(|(other, label)| AnnotationKind::Context.span(other.range()).label(&**label)))
    }

    fn source(&self, number: u16) -> Snippet<'_, annotate_snippets::Annotation<'_>> {
        let file = &self.files[usize::from(number)];
        Snippet::source(&*file.text).path(&*file.name)
    }
}

impl Span {
    fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

impl Invalid {
    /// All mistakes with their excerpts, and how many there are.
    pub fn render(&self, colour: bool) -> String {
        let count = self.mistakes.len();
        let noun = if count == 1 { "mistake" } else { "mistakes" };
        format!("{}{count} {noun}\n", self.sources.render(&self.mistakes, colour))
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl fmt::Debug for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Invalid {}

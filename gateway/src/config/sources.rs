//! Keeps the texts of a config, so that a mistake can be shown with its line.
//!
//! A span refers to a source by number. Sources are never removed, so a span is valid as long as its `Sources`.

use std::fmt;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::hint::for_missing_file;
use super::mistake::{Code, Mistake, Mistakes};
use super::span::Span;
use crate::files::FileReader;
use crate::setting::Location;

/// All files read so far, in the order of reading.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    files: Vec<File>,
    reader: FileReader,
}

#[derive(Debug, Clone)]
struct File {
    name: Arc<str>,
    text: String,
    /// Offset of the start of each line, in bytes.
    lines: Vec<u32>,
}

/// An invalid config, with all of its mistakes.
pub struct Invalid {
    pub sources: Sources,
    pub mistakes: Mistakes,
}

/// Largest file that is read, in bytes. Spans are 32 bits wide, and a config of this size is a mistake anyway.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Largest number of mistakes that are shown at once.
const MAX_SHOWN: usize = 100;

impl Sources {
    /// Creates an empty set whose files are read with `reader`.
    pub fn read_by(reader: FileReader) -> Self {
        let files = Vec::new();
        Self { files, reader }
    }

    /// Returns the reader for further files.
    pub fn reader(&mut self) -> &mut FileReader {
        &mut self.reader
    }

    /// Adds a text under the name that mistakes show.
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

    /// Adds some lines of a long file, of which the first has this number. Its name is that of the file.
    pub(super) fn add_lines(&mut self, name: &str, first: usize, lines: &str) -> Result<u16, Mistake> {
        self.add(name, &format!("{}{lines}", "\n".repeat(first.saturating_sub(1))))
    }

    /// Reads a file and adds its text.
    pub(super) fn read(&mut self, path: &Path) -> Result<u16, Mistake> {
        let unreadable =
            |why: String| Mistake::new(Code::Unreadable, None, format!("cannot read {}: {why}", path.display()));
        let bytes = self.reader.read(path).map_err(|error| {
            let mistake = unreadable(error.to_string());
            match error.kind() {
                ErrorKind::NotFound => mistake.hint(for_missing_file(path)),
                _ => mistake,
            }
        })?;
        let text = std::str::from_utf8(&bytes).map_err(|_| unreadable("it is not UTF-8".to_owned()))?;
        self.add(&path.display().to_string(), text)
    }

    /// Returns the name of the first text.
    pub fn first_name(&self) -> &str {
        self.files.first().map_or("", |file| &*file.name)
    }

    /// Returns the first text, which is the config itself.
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

    /// Renders mistakes as errors for a terminal or a log: one block each, in the order of the file.
    pub fn render(&self, mistakes: &Mistakes, colour: bool) -> String {
        self.render_as(&Level::ERROR, mistakes, colour)
    }

    /// Renders mistakes as warnings.
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
    /// Renders all mistakes with excerpts, and their number.
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

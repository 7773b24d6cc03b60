//! Reads the data of server-sent events while they pass (WHATWG HTML section 9.2.6).
//!
//! The data of an event is given on as it comes, with a line feed between its lines. Other fields and comments are
//! skipped. A line may have any length.

use super::json_reader::{Findings, JsonReader};
use super::path::Paths;

const FIELD: &[u8] = b"data";
const MARK: &[u8] = "\u{feff}".as_bytes();

#[derive(Debug)]
pub(super) struct EventReader {
    json: JsonReader,
    line: Line,
    /// Whether the last byte was a carriage return, so that a line feed belongs to it.
    was_return: bool,
    /// Number of bytes of a byte order mark that may still come.
    mark_left: usize,
    /// Whether the event has data.
    has_data: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// So many letters of the field's name have come.
    Name(usize),
    /// After the colon, where one space is left out.
    Colon,
    Data,
    /// Another field, or a comment.
    Other,
}

/// Takes the ends of events.
pub(super) trait Events: Findings {
    /// The end of an event with data, which was JSON or not.
    fn end_event(&mut self, is_json: bool);
}

impl EventReader {
    pub(super) fn new(paths: &Paths) -> Self {
        Self {
            json: JsonReader::new(paths),
            line: Line::Name(0),
            was_return: false,
            mark_left: MARK.len(),
            has_data: false,
        }
    }

    /// Reads the next piece of the stream.
    pub(super) fn read(&mut self, piece: &[u8], paths: &Paths, found: &mut impl Events) {
        let mut at = 0;
        while let Some(&byte) = piece.get(at) {
            if self.mark_left > 0 {
                if byte == MARK[MARK.len() - self.mark_left] {
                    self.mark_left -= 1;
                    at += 1;
                    continue;
                }
                self.mark_left = 0;
            }
            let was_return = std::mem::replace(&mut self.was_return, byte == b'\r');
            if byte == b'\n' && was_return {
                at += 1;
                continue;
            }
            if matches!(byte, b'\r' | b'\n') {
                self.end_line(paths, found);
                at += 1;
                continue;
            }
            match self.line {
                Line::Data | Line::Other => {
                    let rest = &piece[at..];
                    let length = memchr::memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
                    if self.line == Line::Data {
                        self.json.read(&rest[..length], paths, found);
                    }
                    at += length;
                    continue;
                }
                Line::Name(matched) if FIELD.get(matched) == Some(&byte) => self.line = Line::Name(matched + 1),
                Line::Name(matched) if matched == FIELD.len() && byte == b':' => {
                    self.begin_data(paths, found);
                    self.line = Line::Colon;
                }
                Line::Name(_) => self.line = Line::Other,
                Line::Colon => {
                    self.line = Line::Data;
                    if byte != b' ' {
                        continue;
                    }
                }
            }
            at += 1;
        }
    }

    fn begin_data(&mut self, paths: &Paths, found: &mut impl Events) {
        if std::mem::replace(&mut self.has_data, true) {
            self.json.read(b"\n", paths, found);
        }
    }

    fn end_line(&mut self, paths: &Paths, found: &mut impl Events) {
        match std::mem::replace(&mut self.line, Line::Name(0)) {
            // An empty line ends the event.
            Line::Name(0) => {
                if std::mem::take(&mut self.has_data) {
                    self.json.finish(paths, found);
                    let is_json = self.json.restart(paths);
                    found.end_event(is_json);
                }
            }
            // The name of the field alone stands for an empty value.
            Line::Name(matched) if matched == FIELD.len() => self.begin_data(paths, found),
            Line::Name(_) | Line::Colon | Line::Data | Line::Other => {}
        }
    }
}

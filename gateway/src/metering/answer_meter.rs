//! Reads an answer while it passes, and says what the request costs when the answer ends.

use std::sync::Arc;

use http::StatusCode;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};

use super::event_reader::EventReader;
use super::json_reader::JsonReader;
use super::tally::Form;
use super::{AnswerEnd, Metering, Reserved, Settlement, Tally};
use crate::message::FieldMap;

/// Meter of one answer.
#[derive(Debug)]
pub struct AnswerMeter {
    metering: Arc<Metering>,
    reserved: Reserved,
    is_good: bool,
    reader: Reader,
    tally: Tally,
}

#[derive(Debug)]
enum Reader {
    Events(Box<EventReader>),
    Json(Box<JsonReader>),
    /// The answer is encoded, though nobody has asked for that.
    None,
}

impl AnswerMeter {
    /// Begins to read the answer with this head.
    pub fn begin(metering: Arc<Metering>, reserved: Reserved, status: StatusCode, headers: &FieldMap) -> Self {
        let form = form(headers);
        let reader = match form {
            _ if is_encoded(headers) => Reader::None,
            Form::Events => Reader::Events(Box::new(EventReader::new(&metering.paths))),
            Form::Lines | Form::Whole(_) => Reader::Json(Box::new(JsonReader::new(&metering.paths))),
        };
        Self {
            tally: Tally::new(&metering, form),
            is_good: status.is_success(),
            metering,
            reserved,
            reader,
        }
    }

    /// Reads the next piece of the body.
    pub fn read(&mut self, piece: &[u8]) {
        let paths = &self.metering.paths;
        self.tally.pass(piece.len());
        match &mut self.reader {
            Reader::Events(reader) => reader.read(piece, paths, &mut self.tally),
            Reader::Json(reader) => reader.read(piece, paths, &mut self.tally),
            Reader::None => {}
        }
    }

    /// Decides what the request costs, now that its answer has ended. To be called once.
    pub fn settle(&mut self, end: AnswerEnd) -> Settlement {
        if let (Reader::Json(reader), AnswerEnd::Complete) = (&mut self.reader, end) {
            reader.finish(&self.metering.paths, &mut self.tally);
        }
        if self.is_good && matches!(self.reader, Reader::None) {
            return Settlement::in_full(self.reserved);
        }
        self.tally.settle(self.reserved, self.is_good, end)
    }

    pub const fn reserved(&self) -> Reserved {
        self.reserved
    }
}

fn form(headers: &FieldMap) -> Form {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = media_type.and_then(|value| value.split(';').next()).unwrap_or_default();
    let is = |name: &&str| media_type.trim().eq_ignore_ascii_case(name);
    if is(&"text/event-stream") {
        return Form::Events;
    }
    let lines = [
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/x-jsonlines",
        "application/json-seq",
    ];
    if lines.iter().any(is) {
        return Form::Lines;
    }
    let length = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    Form::Whole(length)
}

fn is_encoded(headers: &FieldMap) -> bool {
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    codings.any(|coding| !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity"))
}

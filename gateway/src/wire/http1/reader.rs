//! Reads one direction of a connection, message after message.
//!
//! | state | what comes | event | next state |
//! |---|---|---|---|
//! | between | first byte of a message that may come | | head |
//! | between | any byte of an answer that was not asked for | | refused |
//! | head | complete head, a body follows | head | body |
//! | head | complete head, no body | head | ending |
//! | head | complete interim answer (1xx) | interim | between |
//! | head | complete head that switches protocols | head | switched |
//! | body | content | data | body |
//! | body | last byte | trailers, if there are any | ending |
//! | body that ends with the connection | close | end | over |
//! | ending | | end | between, or over after the last message |
//! | head, body | bytes that are not valid | | refused |
//! | head, body | close | cut | over |
//!
//! Nothing is read in the states over, switched and refused.

use std::mem;

use bytes::{Buf, Bytes, BytesMut};

use super::body::{Body, BodyLength, Found};
use super::fields::{Fields, Place};
use super::head::{Asked, Follows, Head, HeadReader, Kind};
use super::kind::FieldKind;
use super::{Limits, Refusal, Result, field, malformed};

/// Reader of the messages that come from the other side of a connection.
#[derive(Debug)]
pub struct Reader {
    side: Side,
    limits: Limits,
    state: State,
    /// Number of interim answers to the current request.
    interim: u32,
    /// Memory for the places of the next head's fields.
    places: Vec<Place>,
}

#[derive(Debug)]
enum Side {
    Requests,
    /// Answers, of which only those are read that are awaited.
    Answers {
        awaited: Option<Asked>,
    },
}

#[derive(Debug)]
enum State {
    /// Position between two messages.
    Between,
    Head(HeadReader),
    Body {
        body: Body,
        last: bool,
    },
    /// Position after the last byte of a message, whose end has not been told yet.
    Ending {
        last: bool,
    },
    /// The last message is complete or cut; later bytes belong to no message.
    Over,
    /// Another protocol is in use.
    Switched,
    Refused(Refusal),
}

/// Part of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Head of a request or of a final answer.
    Head(Head),
    /// Head of an interim answer (1xx); the final answer follows.
    Interim(Head),
    /// Content of a body, without its framing.
    Data(Bytes),
    Trailers(Fields),
    /// The message is complete.
    End,
}

/// Place at which the other side closed too early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Before the first byte of an answer that is awaited.
    BeforeHead,
    WithinHead,
    WithinBody,
}

impl Reader {
    /// Creates the reader of a caller's requests.
    pub const fn requests(limits: Limits) -> Self {
        Self::new(Side::Requests, limits)
    }

    /// Creates the reader of a backend's answers.
    pub const fn answers(limits: Limits) -> Self {
        Self::new(Side::Answers { awaited: None }, limits)
    }

    const fn new(side: Side, limits: Limits) -> Self {
        Self {
            side,
            limits,
            state: State::Between,
            interim: 0,
            places: Vec::new(),
        }
    }

    /// Sets the bounds of the messages from the next one on.
    pub const fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Notes that a request is about to be sent, whose answer is awaited from now on.
    pub const fn expect(&mut self, asked: Asked) {
        self.side = Side::Answers { awaited: Some(asked) };
    }

    /// Takes the next event from the front of `bytes`. Returns `None` until more bytes have come, and once nothing more
    /// is read. Bytes that are not part of the event stay.
    ///
    /// # Errors
    /// Returns the refusal of bytes that are not a message, again and again from then on.
    pub fn read(&mut self, bytes: &mut BytesMut) -> Result<Option<Event>> {
        let read = self.next(bytes);
        if let Err(refusal) = read {
            self.state = State::Refused(refusal);
        }
        read
    }

    fn next(&mut self, bytes: &mut BytesMut) -> Result<Option<Event>> {
        loop {
            match &mut self.state {
                State::Between if bytes.is_empty() => return Ok(None),
                State::Between => {
                    let kind = match self.side {
                        Side::Requests => Kind::Request,
                        Side::Answers { awaited: Some(asked) } => Kind::Answer(asked),
                        Side::Answers { awaited: None } => return malformed("nothing was asked"),
                    };
                    self.places.clear();
                    self.state = State::Head(HeadReader::new(kind));
                }
                State::Head(head) => {
                    let Some(length) = head.read(bytes, &self.limits, &mut self.places)? else {
                        return Ok(None);
                    };
                    let section = bytes.split_to(length).freeze();
                    let head = head.complete(section, mem::take(&mut self.places));
                    return self.after_head(head).map(Some);
                }
                State::Body { body, last } => {
                    let (framing, found) = body.read(bytes, &self.limits);
                    bytes.advance(framing);
                    match found? {
                        Found::More => return Ok(None),
                        Found::Content(length) => {
                            if body.has_all() {
                                self.state = State::Ending { last: *last };
                            }
                            return Ok(Some(Event::Data(bytes.split_to(length).freeze())));
                        }
                        Found::End => {
                            let trailers = body.take_trailers();
                            self.state = State::Ending { last: *last };
                            if !trailers.is_empty() {
                                return Ok(Some(Event::Trailers(fields_of(trailers.into())?)));
                            }
                        }
                    }
                }
                State::Ending { last } => {
                    let last = *last;
                    self.end(last);
                    return Ok(Some(Event::End));
                }
                State::Over | State::Switched => return Ok(None),
                State::Refused(refusal) => return Err(*refusal),
            }
        }
    }

    fn after_head(&mut self, head: Head) -> Result<Event> {
        let last = head.last;
        self.state = match head.follows {
            Follows::Nothing | Follows::Body(BodyLength::Exact(0)) => State::Ending { last },
            Follows::Body(length) => State::Body {
                body: Body::new(length),
                last,
            },
            Follows::Switch => State::Switched,
            Follows::AnotherHead => {
                if self.interim == self.limits.interim {
                    return malformed("there are too many interim answers");
                }
                self.interim += 1;
                self.state = State::Between;
                return Ok(Event::Interim(head));
            }
        };
        Ok(Event::Head(head))
    }

    fn end(&mut self, last: bool) {
        self.interim = 0;
        if let Side::Answers { awaited } = &mut self.side {
            *awaited = None;
        }
        self.state = if last { State::Over } else { State::Between };
    }

    /// Notes that the other side has closed, after everything that came was read. Returns the end of a body that ends
    /// with the connection.
    ///
    /// # Errors
    /// Returns the place where a message was cut, and the refusal if there was one.
    pub fn close(&mut self) -> std::result::Result<Option<Event>, Cut> {
        let is_awaited = matches!(self.side, Side::Answers { awaited: Some(_) });
        let closed = match &self.state {
            State::Between if is_awaited => Err(Cut::BeforeHead),
            State::Head(_) => Err(Cut::WithinHead),
            State::Body { body, .. } if body.ends_with_connection() => Ok(Some(Event::End)),
            State::Body { .. } => Err(Cut::WithinBody),
            State::Ending { .. } => Ok(Some(Event::End)),
            State::Between | State::Over | State::Switched | State::Refused(_) => Ok(None),
        };
        if !matches!(self.state, State::Switched | State::Refused(_)) {
            self.end(true);
        }
        closed
    }

    /// Notes that the connection now carries another protocol.
    pub fn switch(&mut self) {
        self.state = State::Switched;
    }

    /// Gives back the memory of a head that is not needed any more.
    pub fn recycle(&mut self, fields: Fields) {
        self.places = fields.into_places();
    }

    /// Gives back the memory that is kept for the next head.
    pub fn release(&mut self) {
        self.places = Vec::new();
    }

    /// Whether no byte of the current message is missing, although its end may not have been told yet.
    pub const fn is_complete(&self) -> bool {
        match self.state {
            State::Between => !matches!(self.side, Side::Answers { awaited: Some(_) }),
            State::Ending { .. } | State::Over => true,
            State::Head(_) | State::Body { .. } | State::Switched | State::Refused(_) => false,
        }
    }

    /// Whether the connection may carry another message.
    pub const fn is_between_messages(&self) -> bool {
        matches!(self.state, State::Between)
    }

    pub const fn has_switched(&self) -> bool {
        matches!(self.state, State::Switched)
    }

    /// Returns the number of bytes of content that must still come, if the body states its length.
    pub const fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Body {
                body: Body::Length(left),
                ..
            } => Some(left),
            State::Body { .. } => None,
            _ => Some(0),
        }
    }
}

/// Returns the fields of a trailer section, whose lines have been judged.
fn fields_of(section: Bytes) -> Result<Fields> {
    let mut places = Vec::new();
    let mut at = 0;
    for line in section.split_inclusive(|&byte| byte == b'\n') {
        let end = line.len().saturating_sub(2);
        let (name_length, value) = field::split(&line[..end])?;
        let offset = |place: usize| u32::try_from(at + place).map_err(|_| Refusal::HeadTooLarge);
        places.push(Place {
            name: offset(0)?,
            value: offset(value.start)?,
            value_end: offset(value.end)?,
            name_length: u16::try_from(name_length).map_err(|_| Refusal::HeadTooLarge)?,
            kind: FieldKind::of(&line[..name_length]),
        });
        at += line.len();
    }
    Ok(Fields::new(section, places))
}

//! What a backend answers, in phases: `500 for 10s`, `200 after 30ms`, `refuse for 3 calls`.

use std::time::Duration;

use http::StatusCode;

use crate::config::hint;
use crate::config::mistake::{Code, Mistake};
use crate::config::named::NamedMap;
use crate::config::reader::Read;
use crate::config::scalar::{Scalar, Wrong};
use crate::config::single::Single;
use crate::config::span::At;
use crate::config::value::Value;
use crate::json::Document;

/// Answers of a backend for a while. After the last phase it answers 200 at once.
#[derive(Debug, Clone, PartialEq)]
pub struct Phase {
    /// A status, or `refuse`, `unreachable`, `hang`, `break`.
    pub answer: At<Behaviour>,
    /// Time from the request to the answer.
    pub after: Duration,
    /// Header fields of the answer.
    pub headers: NamedMap<At<String>>,
    /// JSON body of the answer; `{}` if it is left out.
    pub body: Option<At<Document>>,
    /// How long the phase lasts.
    pub lasts: Lasts,
}

/// What a backend does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers with this status.
    Status(StatusCode),
    /// Refuses connections, and closes those that are open.
    Refuse,
    /// Lets connecting take for ever.
    Unreachable,
    /// Takes the request and never answers.
    Hang,
    /// Takes the request and closes the connection.
    Break,
}

/// How long a phase lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasts {
    Always,
    For(Duration),
    /// For this number of calls.
    Calls(u64),
}

const WORDS: [&str; 4] = ["refuse", "unreachable", "hang", "break"];

impl Scalar for Behaviour {
    const EXPECTED: &'static str = "a status such as `500`, `refuse`, `unreachable`, `hang` or `break`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        Ok(match text {
            "refuse" => Self::Refuse,
            "unreachable" => Self::Unreachable,
            "hang" => Self::Hang,
            "break" => Self::Break,
            status => match status
                .parse()
                .ok()
                .and_then(|number: u16| StatusCode::from_u16(number).ok())
            {
                Some(status) if (200..600).contains(&status.as_u16()) => Self::Status(status),
                _ => {
                    let wrong = Wrong::new(Code::BadValue, "is not what a backend can do");
                    return Err(match hint::did_you_mean(text, WORDS.into_iter()) {
                        Some(hint) => wrong.hint(hint),
                        None => wrong,
                    });
                }
            },
        })
    }

    fn show(&self) -> String {
        match self {
            Self::Status(status) => status.as_u16().to_string(),
            Self::Refuse => "refuse".to_owned(),
            Self::Unreachable => "unreachable".to_owned(),
            Self::Hang => "hang".to_owned(),
            Self::Break => "break".to_owned(),
        }
    }
}

/// A phase written in one line.
#[derive(Debug)]
struct Line {
    answer: Behaviour,
    after: Duration,
    lasts: Lasts,
}

impl Scalar for Line {
    const EXPECTED: &'static str = "a phase such as `500 for 10s`, `200 after 30ms` or `refuse for 3 calls`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let wrong = |label: String| Wrong::new(Code::BadValue, label);
        let mut words = text.split_whitespace();
        let answer = Behaviour::parse(words.next().unwrap_or_default())?;
        let mut line = Self {
            answer,
            after: Duration::ZERO,
            lasts: Lasts::Always,
        };
        while let Some(word) = words.next() {
            let value = words.next().ok_or_else(|| wrong(format!("ends after `{word}`")));
            match word {
                "after" => line.after = Duration::parse(value?)?,
                "for" => {
                    let value = value?;
                    line.lasts = match value.parse::<u64>() {
                        Ok(count) if count > 0 && matches!(words.clone().next(), Some("call" | "calls")) => {
                            words.next();
                            Lasts::Calls(count)
                        }
                        _ => Lasts::For(Duration::parse(value).map_err(|why| match value.parse::<u64>() {
                            Ok(_) => why.hint(format!("`for {value}s`, or `for {value} calls`?")),
                            Err(_) => why,
                        })?),
                    };
                }
                other => {
                    let known = ["after", "for"].into_iter();
                    let hint = hint::did_you_mean(other, known.clone()).or_else(|| hint::one_of(known));
                    return Err(wrong(format!("`{other}` has no meaning here")).hint(hint.unwrap_or_default()));
                }
            }
        }
        Ok(line)
    }

    fn show(&self) -> String {
        self.answer.show()
    }
}

impl Read for Phase {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ answer: $ }"],
        sample: "{ answer: 500, for: 10s }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        if !value.is_map() {
            let line: At<Line> = value.scalar()?;
            let Line { after, lasts, .. } = line.value;
            return Some(Self {
                after,
                lasts,
                headers: NamedMap::default(),
                body: None,
                answer: line.map(|line| line.answer),
            });
        }
        value.fields(|f| {
            let answer = f.or("answer", Behaviour::Status(StatusCode::OK));
            let (time, calls): (Option<At<Duration>>, Option<At<u64>>) = (f.optional("for"), f.optional("calls"));
            if let (Some(time), Some(calls)) = (&time, &calls) {
                let message = format!("`{}` cannot have both `for` and `calls`", f.path);
                f.push(Mistake::new(Code::Conflict, calls.span(), message).related(time.span(), "and this one"));
            }
            let after = f
                .optional("after")
                .map_or(Duration::ZERO, |after: At<Duration>| after.value);
            Some(Self {
                answer,
                after,
                headers: f.optional("headers").unwrap_or_default(),
                body: f.optional("body"),
                lasts: match (time, calls) {
                    (Some(time), _) => Lasts::For(time.value),
                    (None, Some(calls)) => Lasts::Calls(calls.value),
                    (None, None) => Lasts::Always,
                },
            })
        })?
    }
}

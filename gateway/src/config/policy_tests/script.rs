//! What a backend answers, in phases: `500 for 10s`, `200 after 30ms`, `refuse for 3 calls`; to all calls, or by path.

use std::time::Duration;

use http::{Method, StatusCode};

use crate::config::hint;
use crate::config::mistake::{Code, Mistake};
use crate::config::named::NamedMap;
use crate::config::reader::{Read, keyed, read_as};
use crate::config::scalar::{Scalar, Wrong};
use crate::config::single::Single;
use crate::config::span::At;
use crate::config::value::Value;
use crate::json::Document;

/// Answers of a backend.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BackendScript {
    /// Answers to calls that no pattern fits.
    pub phases: Vec<Phase>,
    /// Answers to calls of some paths; the first pattern that fits counts.
    pub by_path: Vec<(PathPattern, Vec<Phase>)>,
}

/// Which calls a script is for: `/orders/*`, or `POST /orders`.
#[derive(Debug, Clone, PartialEq)]
pub struct PathPattern {
    method: Option<Method>,
    /// Path, in which each `*` stands for any text.
    path: String,
}

impl PathPattern {
    /// Reads a pattern; `None` if it is none.
    fn parse(text: &str) -> Option<Self> {
        let (method, path) = match text.split_once(' ') {
            Some((method, path)) => (Some(<Method as Scalar>::parse(method).ok()?), path.trim_start()),
            None => (None, text),
        };
        let is_path = path.starts_with('/') && !path.contains(|c: char| c.is_whitespace() || matches!(c, '?' | '#'));
        is_path.then(|| Self {
            method,
            path: path.to_owned(),
        })
    }

    /// Whether a key is meant as a pattern.
    fn is_meant(key: &str) -> bool {
        key.starts_with('/') || key.contains(" /")
    }

    /// Returns whether the pattern fits a call, whose path is the one that the backend gets.
    pub fn fits(&self, method: &Method, path: &str) -> bool {
        self.method.as_ref().is_none_or(|own| own == method) && fits(&self.path, path)
    }
}

fn fits(pattern: &str, path: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = path.strip_prefix(first) else {
        return false;
    };
    let Some(last) = pieces.next_back() else {
        return rest.is_empty();
    };
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

impl Read for BackendScript {
    fn read(value: &Value<'_>) -> Option<Self> {
        let keys = value.is_map().then(|| value.entries("a map of paths")).flatten();
        if !keys.is_some_and(|keys| keys.iter().any(|(key, _)| PathPattern::is_meant(&key.text))) {
            let phases = read_as(value)?;
            let by_path = Vec::new();
            return Some(Self { phases, by_path });
        }
        let mut written = NamedMap::default();
        keyed(value, &mut written, pattern_text, |_, phases| {
            read_as::<Vec<Phase>>(phases)
        })?;
        let phases_of = |(_, phases)| -> &Vec<Phase> { phases };
        for phase in written.iter().flat_map(phases_of) {
            if matches!(*phase.answer, Behaviour::Refuse | Behaviour::Unreachable) {
                let message = format!("`{}` is about connections, which have no path", phase.answer.show());
                let hint = "write `break` or `hang` here, or script the whole backend";
                value.push(Mistake::new(Code::Conflict, phase.answer.span(), message).hint(hint));
            }
        }
        let by_path = written
            .iter()
            .filter_map(|(pattern, phases)| Some((PathPattern::parse(pattern)?, phases.clone())));
        Some(Self {
            phases: Vec::new(),
            by_path: by_path.collect(),
        })
    }
}

/// Returns the text of a pattern, or what is wrong with it.
fn pattern_text(text: &str) -> Result<String, &'static str> {
    match PathPattern::parse(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err("is not a path such as `/orders/*` or `POST /orders`; the query is left out"),
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        let check = |pattern: &str, fitting: &[&str], others: &[&str]| {
            let pattern = PathPattern::parse(pattern).expect("a pattern");
            for path in fitting {
                assert!(pattern.fits(&Method::GET, path), "{pattern:?} {path}");
            }
            for path in others {
                assert!(!pattern.fits(&Method::GET, path), "{pattern:?} {path}");
            }
        };
        check("/orders", &["/orders"], &["/orders/", "/order", "/a/orders"]);
        check("/orders/*", &["/orders/", "/orders/7", "/orders/7/lines"], &["/orders"]);
        check("/*/lines", &["/a/lines", "/a/b/lines"], &["/lines", "/a/lines/1"]);
        check("/a*b*c", &["/abc", "/aXbYc", "/abbc"], &["/acb", "/ab"]);
        check("/*", &["/", "/a"], &[]);
        check("GET /a", &["/a"], &["/b"]);
        check("POST /a", &[], &["/a"]);
        for wrong in ["orders", "", "get /a", "/a?b=1", "/a b", "GET", "TRACE /a"] {
            assert_eq!(PathPattern::parse(wrong), None, "{wrong}");
        }
    }
}

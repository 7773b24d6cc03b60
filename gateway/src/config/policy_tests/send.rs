//! Requests of a step, written as `[NUMBER] METHOD TARGET [at TIME] [over TIME] [as CALLER] [from ADDRESS]`.

use std::net::IpAddr;
use std::time::Duration;

use http::{Method, Uri};

use crate::config::hint;
use crate::config::mistake::Code;
use crate::config::scalar::{Scalar, Wrong};

/// Largest number of requests of one step.
pub const MOST_REQUESTS: u32 = 100_000;

/// Requests that are alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requests {
    pub count: u32,
    pub method: Method,
    /// A path with its query, or a URL.
    pub target: Uri,
    /// Time of the first one, from the start of the test.
    pub at: Option<Duration>,
    /// Time over which they are spread evenly; zero sends all at once.
    pub over: Duration,
    /// Name of the caller; `None` sends no credential.
    pub caller: Option<String>,
    pub from: Option<IpAddr>,
}

impl Scalar for Requests {
    const EXPECTED: &'static str = "requests such as `25 GET /users/7 at 0s as NAME`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let wrong = |label: String| Wrong::new(Code::BadValue, label);
        let mut words = text.split_whitespace();
        let mut first = words.next().unwrap_or_default();
        let mut count = 1;
        if first.bytes().next().is_some_and(|byte| byte.is_ascii_digit()) {
            count = first
                .replace('_', "")
                .parse()
                .ok()
                .filter(|count| (1..=MOST_REQUESTS).contains(count))
                .ok_or_else(|| Wrong::new(Code::OutOfRange, format!("sends from 1 to {MOST_REQUESTS} requests")))?;
            first = words.next().unwrap_or_default();
        }
        let method = Method::parse(first)?;
        let target = words
            .next()
            .ok_or_else(|| wrong("has no path after the method".to_owned()))?;
        let is_path = |uri: &Uri| uri.authority().is_none() && uri.path().starts_with('/');
        let is_url = |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https"));
        let parsed = target.parse().ok().filter(|uri| is_url(uri) || is_path(uri));
        let mut requests = Self {
            count,
            method,
            target: parsed.ok_or_else(|| {
                let wrong = wrong("has neither a path that begins with `/` nor a URL".to_owned());
                match target.starts_with(|letter: char| letter.is_ascii_alphanumeric()) {
                    true => wrong.hint(format!("did you mean `/{target}`?")),
                    false => wrong,
                }
            })?,
            at: None,
            over: Duration::ZERO,
            caller: None,
            from: None,
        };
        let mut seen = Vec::new();
        while let Some(word) = words.next() {
            const WORDS: [&str; 4] = ["at", "over", "as", "from"];
            if !WORDS.contains(&word) {
                let hint = hint::did_you_mean(word, WORDS.into_iter()).or_else(|| hint::one_of(WORDS.into_iter()));
                return Err(wrong(format!("`{word}` has no meaning here")).hint(hint.unwrap_or_default()));
            }
            if seen.contains(&word) {
                return Err(wrong(format!("says `{word}` twice")));
            }
            seen.push(word);
            let value = words.next().ok_or_else(|| wrong(format!("ends after `{word}`")))?;
            let duration = || {
                Duration::parse(value).map_err(|why| Wrong {
                    label: format!("{word} {value}: {}", why.label),
                    ..why
                })
            };
            match word {
                "at" => requests.at = Some(duration()?),
                "over" => requests.over = duration()?,
                "as" => requests.caller = Some(value.to_owned()),
                _ => requests.from = Some(IpAddr::parse(value)?),
            }
        }
        Ok(requests)
    }

    fn show(&self) -> String {
        format!("{} {} {}", self.count, self.method, self.target)
    }
}

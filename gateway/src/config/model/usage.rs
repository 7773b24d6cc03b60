//! Counts of what tenants use, and their delivery.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::ranges::MS;
use crate::config::mistake::{Code, Mistake};
use crate::config::reader::Read;
use crate::config::scalar::{Scalar, Wrong};
use crate::config::span::At;
use crate::config::value::Value;

/// What tenants use, counted by route, key and minute. It is off unless it is written.
#[derive(Debug, Clone, PartialEq)]
pub struct Usage {
    /// Folder that keeps it over a restart: each process writes a file of its own there. Left out, each start begins
    /// anew.
    pub folder: Option<At<PathBuf>>,
    /// Name of this process among those that deliver to one receiver. Left out: the host's name.
    pub replica: Option<At<String>>,
    /// Largest number of series (a tenant, a route and a key) of one day. Further ones are counted together, by route.
    pub series: At<u32>,
    /// Largest number of series by minute, hour and day that are kept. The oldest minutes go first, then the oldest hours;
    /// at last the series of the oldest day are added up by route.
    pub records: At<u32>,
    /// Receiver that each minute is delivered to. Left out, nothing is delivered.
    pub push: Option<UsagePush>,
}

/// Delivery of usage as batches of CloudEvents. What the receiver does not take (2xx) is sent again.
#[derive(Debug, Clone, PartialEq)]
pub struct UsagePush {
    /// Whole address of the receiver, such as `https://billing:8443/events`.
    pub url: At<String>,
    /// File with header fields for the receiver, one `name: value` a line.
    pub headers_file: Option<At<PathBuf>>,
    /// Token that is sent as `authorization: Bearer`; from the environment, as in `${USAGE_TOKEN}`.
    pub token: Option<At<PushToken>>,
    /// Largest number of events in one request.
    pub batch: At<u32>,
    /// Largest number of events that wait. The oldest are dropped and counted.
    pub waiting: At<u32>,
    /// Longest time of one request.
    pub time_limit: At<Duration>,
}

/// A token that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct PushToken(String);

impl PushToken {
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PushToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PushToken(..)")
    }
}

impl Scalar for PushToken {
    const EXPECTED: &'static str = "a token of visible ASCII";
    const SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Wrong::new(Code::BadValue, "is empty, or not of visible ASCII"));
        }
        Ok(Self(text.to_owned()))
    }

    fn show(&self) -> String {
        "(token)".to_owned()
    }
}

impl Read for Usage {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| Self {
            folder: f.other_path("folder"),
            replica: f.optional("replica"),
            series: f.within("series", 10_000, 1..=1_000_000),
            records: f.within("records", 200_000, 1000..=20_000_000),
            push: f.optional("push"),
        })
    }
}

impl Read for UsagePush {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let url = f.required("url");
            let token = f.optional("token");
            if f.value("token").is_some_and(|token| !token.mentions_variable()) {
                let message = format!("`{}.token` is written into the config", f.path);
                let mistake = Mistake::new(Code::Doubtful, f.at, message);
                f.warn(mistake.hint("use a variable, `${NAME}`, or `headers_file`"));
            }
            let push = Self {
                headers_file: f.path("headers_file"),
                token,
                batch: f.within("batch", 500, 1..=10_000),
                waiting: f.within("waiting", 100_000, 100..=10_000_000),
                time_limit: f.within(
                    "time_limit",
                    Duration::from_secs(10),
                    100 * MS..=Duration::from_secs(60),
                ),
                url: url?,
            };
            Some(push)
        })?
    }
}

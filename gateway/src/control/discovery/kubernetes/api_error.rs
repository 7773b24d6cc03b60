//! Reasons why the Kubernetes API server gave no answer that can be used.

use std::fmt;
use std::time::Duration;

/// Maximum length of the API server's own explanation, in bytes.
const MAX_MESSAGE: usize = 300;

/// Reason why the API server gave no answer that can be used.
#[derive(Debug)]
pub(super) enum ApiError {
    /// The request could not be made, because of the settings or of a file.
    Unprepared(String),
    Unreached(String),
    /// The version or the position in a list is too old (410 Gone).
    Expired,
    /// The API server answered with another status.
    Status {
        code: u16,
        message: String,
        retry_after: Option<Duration>,
    },
    Unreadable(String),
}

impl ApiError {
    /// Returns the time after which the API server asks to be asked again.
    pub(super) const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unprepared(why) => f.write_str(why),
            Self::Unreached(why) => write!(f, "the API server is not reached: {why}"),
            Self::Expired => f.write_str("the API server has forgotten this version"),
            Self::Status { code, message, .. } => {
                write!(f, "the API server answers {code}")?;
                match code {
                    401 => f.write_str(": the token is not accepted")?,
                    404 => f.write_str(": it has no EndpointSlices of version discovery.k8s.io/v1")?,
                    _ => {}
                }
                match printable(message) {
                    message if message.is_empty() => Ok(()),
                    message => write!(f, ": {message}"),
                }
            }
            Self::Unreadable(why) => write!(f, "the answer of the API server cannot be read: {why}"),
        }
    }
}

/// Returns the beginning of a foreign text as one printable line.
fn printable(text: &str) -> String {
    let end = text.floor_char_boundary(MAX_MESSAGE);
    let clean = text[..end].chars().map(|c| if c.is_control() { ' ' } else { c });
    clean.collect()
}

//! Holds a whole answer, and checks what every answer of its kind must contain.

use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;

/// Answer with its whole body.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// Returns the first value of a field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns the gateway's reason code of a rejection.
    pub fn reason(&self) -> Option<&str> {
        self.header("x-gateway-reason")
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// # Panics
    /// The body is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:#?}"))
    }

    /// Returns the answer if it has this status.
    ///
    /// # Panics
    /// It has another one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:#?}");
        self
    }

    /// Returns the problem document of a rejection with this status and reason, after checking that head and document
    /// agree.
    ///
    /// # Panics
    /// The answer is not such a rejection.
    #[track_caller]
    pub fn refusal(&self, status: u16, reason: &str) -> Value {
        assert_eq!((self.status, self.reason()), (status, Some(reason)), "{self:#?}");
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:#?}"
        );
        let problem = self.json();
        assert_eq!(problem["status"], status, "{problem:#}");
        assert_eq!(problem["reason"], reason, "{problem:#}");
        assert_eq!(problem["request_id"].as_str(), self.header("x-request-id"), "{self:#?}");
        for member in ["type", "title", "detail"] {
            assert!(
                problem[member].as_str().is_some_and(|text| !text.is_empty()),
                "{problem:#}"
            );
        }
        if [429, 503].contains(&status) {
            assert!(self.retry_after() >= 1, "{self:#?}");
        }
        problem
    }

    /// Returns the value of a request field as a backend received it, according to `/echo`; `None` if the field was
    /// missing.
    ///
    /// # Panics
    /// The answer is not an answer of `/echo`.
    pub fn echoed(&self, field: &str) -> Option<String> {
        let echo = self.json();
        let headers = echo["headers"]
            .as_object()
            .unwrap_or_else(|| panic!("no echo: {self:#?}"));
        headers.get(field)?.as_str().map(str::to_owned)
    }

    /// Returns `Retry-After` in whole seconds.
    ///
    /// # Panics
    /// There is no `Retry-After` or it is not a number.
    #[track_caller]
    pub fn retry_after(&self) -> u64 {
        let after = self.header("retry-after").and_then(|value| value.parse().ok());
        after.unwrap_or_else(|| panic!("no Retry-After in seconds: {self:#?}"))
    }
}

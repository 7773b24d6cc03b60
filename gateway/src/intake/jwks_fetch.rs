//! Keeps an issuer's keys fresh from its JWKS URL, through the identity provider's bad days.
//!
//! Runs on the control runtime, one task per issuer; workers ask for a renewal and never wait for one. A failure
//! changes nothing until the keys in use reach their greatest age; then they are withdrawn, and
//! every token of the issuer is refused. Caching headers of the answer are not followed: they are made for
//! browsers, and an hour of `max-age` would keep a withdrawn key alive.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use policies::Moment;
use reqwest::Url;

use super::jwks::{KeySet, KeySetMistake, Origin};
use super::jws::Algorithm;
use super::live_keys::LiveKeys;
use crate::clock;

/// A longer answer is not read to its end, in bytes.
pub const MAX_BODY: usize = 256 * 1024;

/// How long keys are used, and how often they are asked for. None of the times is zero.
#[derive(Debug, Clone, Copy)]
pub struct Freshness {
    /// From one successful fetch to the next.
    pub refresh: Duration,
    /// After a failure; doubled with each further one.
    pub retry: Duration,
    pub longest_retry: Duration,
    /// Keys that were not confirmed for so long are withdrawn.
    pub max_age: Duration,
    /// The least time between two fetches that unknown key ids bring about.
    pub cool_down: Duration,
    /// For one fetch, from the connection to the last byte.
    pub timeout: Duration,
}

impl Default for Freshness {
    fn default() -> Self {
        Self {
            refresh: Duration::from_secs(5 * 60),
            retry: Duration::from_secs(1),
            longest_retry: Duration::from_secs(60),
            max_age: Duration::from_secs(24 * 3600),
            cool_down: Duration::from_secs(30),
            timeout: Duration::from_secs(5),
        }
    }
}

/// An address that keys may be read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwksUrl(Url);

/// Why an address is not one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwksUrlMistake {
    NotAUrl(String),
    NotHttps,
    HasCredentials,
}

impl JwksUrl {
    /// # Errors
    /// If it is not `https`; `http` is taken for loopback addresses and `localhost` alone.
    pub fn parse(text: &str) -> Result<Self, JwksUrlMistake> {
        let url = Url::parse(text).map_err(|e| JwksUrlMistake::NotAUrl(e.to_string()))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(JwksUrlMistake::HasCredentials);
        }
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let is_loopback = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        match url.scheme() {
            "https" => Ok(Self(url)),
            "http" if is_loopback => Ok(Self(url)),
            _ => Err(JwksUrlMistake::NotHttps),
        }
    }

    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// The client for all fetches: no redirects, which could lead away from the address that was checked, and no
/// proxy from the environment.
///
/// # Errors
/// If the system's certificates cannot be used.
pub fn client() -> reqwest::Result<reqwest::Client> {
    install_crypto();
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .user_agent(concat!("gateway/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Makes aws-lc the process's TLS cryptography; calling it again changes nothing.
pub fn install_crypto() {
    // Failing means that it is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Renews `live` until `shutdown` is ready.
pub async fn keep_fresh(
    live: &LiveKeys,
    url: &JwksUrl,
    algorithms: &[Algorithm],
    client: &reqwest::Client,
    freshness: Freshness,
    shutdown: impl Future<Output = ()>,
) {
    let renew_for_ever = async {
        let mut schedule = Schedule::new(freshness, clock::now());
        loop {
            match fetch(url, algorithms, client, freshness.timeout).await {
                Ok(keys) => {
                    schedule.succeeded(clock::now());
                    live.replace(keys, clock::unix_seconds());
                }
                Err(error) => {
                    schedule.failed(clock::now());
                    tracing::warn!(url = url.as_str(), %error, "fetching keys failed; those in use stay");
                    live.note_failure(error.to_string(), clock::unix_seconds());
                }
            }
            wait_for_next(live, &schedule, url).await;
        }
    };
    tokio::select! {
        () = renew_for_ever => {}
        () = shutdown => {}
    }
}

/// Returns when the next fetch is due, withdrawing the keys if they grow too old meanwhile.
async fn wait_for_next(live: &LiveKeys, schedule: &Schedule, url: &JwksUrl) {
    let mut due = schedule.due();
    let mut asked = false;
    while clock::now() < due {
        let too_old = schedule.too_old();
        let is_current = !live.current().is_empty();
        tokio::select! {
            () = tokio::time::sleep_until(clock::instant(due)) => {}
            () = tokio::time::sleep_until(clock::instant(too_old)), if is_current => {
                tracing::error!(url = url.as_str(), "keys have reached their greatest age and are withdrawn");
                live.withdraw();
            }
            () = live.renewal_asked(), if !asked => {
                asked = true;
                due = due.min(schedule.due_if_asked());
            }
        }
    }
}

/// When to fetch next. Knows nothing of fetching.
#[derive(Debug)]
struct Schedule {
    freshness: Freshness,
    last_attempt: Moment,
    last_success: Moment,
    failures: u32,
}

impl Schedule {
    fn new(freshness: Freshness, now: Moment) -> Self {
        Self {
            freshness,
            last_attempt: now,
            last_success: now,
            failures: 0,
        }
    }

    fn succeeded(&mut self, now: Moment) {
        (self.last_attempt, self.last_success, self.failures) = (now, now, 0);
    }

    fn failed(&mut self, now: Moment) {
        self.last_attempt = now;
        self.failures = self.failures.saturating_add(1);
    }

    fn due(&self) -> Moment {
        let pause = match self.failures {
            0 => self.freshness.refresh,
            n => self
                .freshness
                .retry
                .saturating_mul(1 << (n - 1).min(16))
                .min(self.freshness.longest_retry),
        };
        self.last_attempt + pause
    }

    fn due_if_asked(&self) -> Moment {
        self.last_attempt + self.freshness.cool_down
    }

    fn too_old(&self) -> Moment {
        self.last_success + self.freshness.max_age
    }
}

#[derive(Debug)]
enum FetchError {
    Http(reqwest::Error),
    Status(u16),
    TooLarge,
    Keys(KeySetMistake),
}

async fn fetch(
    url: &JwksUrl,
    algorithms: &[Algorithm],
    client: &reqwest::Client,
    timeout: Duration,
) -> Result<KeySet, FetchError> {
    let mut response = client
        .get(url.0.clone())
        .timeout(timeout)
        .send()
        .await
        .map_err(FetchError::Http)?;
    if response.status() != http::StatusCode::OK {
        return Err(FetchError::Status(response.status().as_u16()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(FetchError::Http)? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err(FetchError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    KeySet::from_jwks(&body, algorithms, Origin::Url).map_err(FetchError::Keys)
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The innermost cause says what happened; the outer ones repeat the address.
            Self::Http(error) if error.is_timeout() => f.write_str("no complete answer within the time limit"),
            Self::Http(error) => {
                let mut cause: &dyn std::error::Error = error;
                while let Some(inner) = cause.source() {
                    cause = inner;
                }
                write!(f, "{cause}")
            }
            Self::Status(status) => write!(f, "the answer has status {status}, not 200"),
            Self::TooLarge => write!(f, "the answer is longer than {MAX_BODY} bytes"),
            Self::Keys(mistake) => mistake.fmt(f),
        }
    }
}

impl fmt::Display for JwksUrlMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAUrl(why) => write!(f, "this is not a URL: {why}"),
            Self::NotHttps => f.write_str("keys are read over https alone, or over http from a loopback address"),
            Self::HasCredentials => f.write_str("a JWKS is public: remove the user name and password"),
        }
    }
}

impl std::error::Error for JwksUrlMistake {}

#[cfg(test)]
mod tests;

//! Keeps an issuer's keys current by fetching its JWKS URL, and tolerates failures of the identity provider.
//!
//! One task per issuer runs on the control runtime. A request that lacks a key brings a fetch forward and waits for it
//! ([`crate::auth::jwt::key_wait`]). A failed fetch changes nothing until the keys in use reach their maximum age. Then
//! they are dropped, and no token of the issuer can be verified. A `max-age` in the response (RFC 9111 section 5.2.2.1)
//! brings the next fetch forward and never delays it: a `max-age` of a day, made for browsers, would keep a key in use
//! that the issuer has withdrawn.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use http::header::{AGE, CACHE_CONTROL};
use policies::Moment;
use reqwest::Url;

use crate::auth::jwt::jwk::Origin;
use crate::auth::jwt::jws::Algorithm;
use crate::auth::jwt::key_set::{KeySet, KeySetMistake};
use crate::auth::jwt::live_keys::LiveKeys;
use crate::message::FieldMap;
use crate::observe::FetchOutcome;
use crate::wire::content_encoding::{Codings, DecodeError};
use crate::{clock, json};

/// Longest response body that is read, in bytes.
pub const MAX_BODY: usize = crate::auth::jwt::key_set::MAX_LENGTH;

/// Source of an issuer's keys, and how they are kept current.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub url: JwksUrl,
    /// Algorithms that the keys may be used with.
    pub algorithms: Vec<Algorithm>,
    pub freshness: Freshness,
}

/// Times that govern how long keys are used and how often they are fetched. None is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// Longest time from one successful fetch to the next.
    pub refresh: Duration,
    /// Time until a retry after a failure. It doubles with each further failure.
    pub retry: Duration,
    pub longest_retry: Duration,
    /// Age at which keys that no fetch has confirmed are dropped.
    pub max_age: Duration,
    /// Time in which requests that lack a key may start [`FETCHES`](crate::auth::jwt::fetch_state::FETCHES) at most. Also
    /// the shortest time between two fetches that a short `max-age` causes.
    pub cool_down: Duration,
    /// Time limit of one fetch, from the connection to the last byte.
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

/// URL that keys may be fetched from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwksUrl(Url);

/// Reason why a URL is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwksUrlMistake {
    NotAUrl(String),
    NotHttps,
    HasCredentials,
}

impl JwksUrl {
    /// # Errors
    /// If the URL is not `https`. `http` is accepted only for loopback addresses and `localhost`.
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

/// Builds the client for all fetches. It follows no redirects, which could lead away from the checked URL, and uses no
/// proxy from the environment. Each fetch has its own connection: they are rare, and one that was kept may just be
/// closed by the server, which would make a fetch fail.
///
/// # Errors
/// If the system's certificates cannot be used.
pub fn client() -> reqwest::Result<reqwest::Client> {
    install_crypto();
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .pool_max_idle_per_host(0)
        .user_agent(concat!("gateway/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Installs aws-lc as the process's TLS cryptography. Further calls change nothing.
pub fn install_crypto() {
    // An error means that a provider is already installed.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Renews `live` forever.
pub async fn keep_fresh(live: &LiveKeys, source: &Source, client: &reqwest::Client) {
    let url = source.url.as_str();
    let mut schedule = Schedule::new(source.freshness, clock::now(), live.status().confirmed);
    loop {
        live.demand().begin();
        let fetched = withdrawing_at(schedule.too_old(), live, url, fetch(source, client)).await;
        let was_good = fetched.is_ok();
        match fetched {
            Ok(Fetched { keys, fresh_for }) => {
                schedule.succeeded(clock::now(), fresh_for);
                live.replace(keys, clock::now(), clock::unix_seconds());
            }
            Err(error) => {
                schedule.failed(clock::now());
                tracing::warn!(url, %error, "fetching keys failed; those in use stay");
                live.note_failure(error.outcome(), error.to_string(), clock::unix_seconds());
            }
        }
        live.demand().end(was_good, schedule.due());
        let wait = schedule.due().since(clock::now());
        live.note_next_fetch((clock::unix_time() + wait).as_secs());
        withdrawing_at(schedule.too_old(), live, url, wait_for_next(live, &schedule)).await;
    }
}

/// Fetches the keys once, without keeping them current.
///
/// # Errors
/// The reason why the fetch failed.
pub async fn fetch_once(live: &LiveKeys, source: &Source, client: &reqwest::Client) -> Result<(), String> {
    let fetched = fetch(source, client).await.map_err(|error| error.to_string())?;
    live.replace(fetched.keys, clock::now(), clock::unix_seconds());
    Ok(())
}

/// Runs `work`, and drops the keys if they reach their maximum age meanwhile.
async fn withdrawing_at<T>(too_old: Moment, live: &LiveKeys, url: &str, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let in_use = !live.current().is_empty();
    tokio::select! {
        biased;
        done = &mut work => return done,
        () = clock::wait_until(too_old), if in_use => {}
    }
    tracing::error!(url, "keys have reached their greatest age and are withdrawn");
    live.withdraw();
    work.await
}

/// Returns when the next fetch is due or a request asks for one.
async fn wait_for_next(live: &LiveKeys, schedule: &Schedule) {
    tokio::select! {
        () = clock::wait_until(schedule.due()) => {}
        () = live.demand().asked() => {}
    }
}

/// Decides when to fetch next. Knows nothing of fetching.
#[derive(Debug)]
struct Schedule {
    freshness: Freshness,
    last_attempt: Moment,
    last_success: Moment,
    /// Remaining `max-age` of the last successful response.
    fresh_for: Option<Duration>,
    failures: u32,
}

impl Schedule {
    /// Starts a schedule. `confirmed` is when the keys in use were last fetched, if there are any.
    fn new(freshness: Freshness, now: Moment, confirmed: Option<Moment>) -> Self {
        Self {
            freshness,
            last_attempt: now,
            last_success: confirmed.unwrap_or(now),
            fresh_for: None,
            failures: 0,
        }
    }

    fn succeeded(&mut self, now: Moment, fresh_for: Option<Duration>) {
        (self.last_attempt, self.last_success, self.failures) = (now, now, 0);
        self.fresh_for = fresh_for;
    }

    fn failed(&mut self, now: Moment) {
        self.last_attempt = now;
        self.failures = self.failures.saturating_add(1);
    }

    fn due(&self) -> Moment {
        let pause = match self.failures {
            0 => {
                let Freshness { refresh, cool_down, .. } = self.freshness;
                self.fresh_for.map_or(refresh, |told| told.max(cool_down).min(refresh))
            }
            n => self
                .freshness
                .retry
                .saturating_mul(1 << (n - 1).min(16))
                .min(self.freshness.longest_retry),
        };
        self.last_attempt + pause
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
    Encoding(DecodeError),
    Keys(KeySetMistake),
}

struct Fetched {
    keys: KeySet,
    fresh_for: Option<Duration>,
}

async fn fetch(source: &Source, client: &reqwest::Client) -> Result<Fetched, FetchError> {
    let mut response = client
        .get(source.url.0.clone())
        .timeout(source.freshness.timeout)
        .send()
        .await
        .map_err(FetchError::Http)?;
    if response.status() != http::StatusCode::OK {
        return Err(FetchError::Status(response.status().as_u16()));
    }
    let headers = FieldMap::from(std::mem::take(response.headers_mut()));
    let fresh_for = fresh_for(&headers);
    let codings = Codings::read(&headers).map_err(FetchError::Encoding)?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(FetchError::Http)? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err(FetchError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    let body = codings.undo(body.into(), MAX_BODY).map_err(FetchError::Encoding)?;
    let body = json::without_mark(body);
    let keys = KeySet::from_jwks(&body, &source.algorithms, Origin::Url).map_err(FetchError::Keys)?;
    Ok(Fetched { keys, fresh_for })
}

/// Returns the remaining time of a response's `max-age`. Zero if the response must not be stored or reused.
pub(in crate::auth) fn fresh_for(headers: &FieldMap) -> Option<Duration> {
    let lines = headers
        .get_all(CACHE_CONTROL)
        .iter()
        .filter_map(|line| line.to_str().ok());
    let directives = lines.flat_map(|line| line.split(',')).map(str::trim);
    let told = directives.filter_map(|directive| {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        match name.to_ascii_lowercase().as_str() {
            "no-store" | "no-cache" => Some(0_u64),
            "max-age" => value.trim_matches('"').parse().ok(),
            _ => None,
        }
    });
    let age = headers.get(AGE).and_then(|age| age.to_str().ok()?.parse::<u64>().ok());
    told.min()
        .map(|told| Duration::from_secs(told.saturating_sub(age.unwrap_or(0))))
}

impl FetchError {
    fn outcome(&self) -> FetchOutcome {
        match self {
            Self::Http(error) if error.is_timeout() => FetchOutcome::TimedOut,
            Self::Http(_) => FetchOutcome::Unreached,
            Self::Status(_) => FetchOutcome::Status,
            Self::TooLarge | Self::Encoding(DecodeError::TooLarge) => FetchOutcome::TooLarge,
            Self::Encoding(_) | Self::Keys(_) => FetchOutcome::Invalid,
        }
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The innermost cause says what happened; the outer errors repeat the URL.
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
            Self::Encoding(undecodable) => undecodable.fmt(f),
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

//! Asks the Kubernetes API server for the EndpointSlices of a service.
//!
//! The bearer token is sent over TLS, or to an address of this machine, and is never logged.

use std::env;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use reqwest::{Client, Response, Url};
use rustls::RootCertStore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::api_error::ApiError;
use super::lines::Lines;
use super::slices::{self, Page, Slices};
use crate::call::endpoints::{KubernetesApi, KubernetesSettings, SlicePort};
use crate::call::tls;
use crate::tls::listener;
use crate::{clock, files, json};

/// Folder with the service account of a pod: `token` and `ca.crt`.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Time limit from a request to the head of its answer.
const HEAD_LIMIT: Duration = Duration::from_secs(15);
/// Time limit of the body of a page or of an error.
const BODY_LIMIT: Duration = Duration::from_secs(30);
/// Number of slices that a page may have.
const PER_PAGE: usize = 16;
/// Maximum size of a page in bytes.
const MAX_PAGE: usize = 16 << 20;
/// Maximum number of pages.
const MOST_PAGES: usize = slices::MOST_SLICES / PER_PAGE;
/// Maximum size in bytes of an answer that says why there is no other.
const MAX_REFUSAL: usize = 64 << 10;
/// Range of the duration of a watch in seconds, as asked of the API server. It is chosen at random, so that the watches
/// of many replicas do not end at the same time.
const WATCH_SECONDS: std::ops::Range<u64> = 180..300;
/// Time after which a watch is ended that the API server has not ended.
const WATCH_GRACE: Duration = Duration::from_secs(30);
/// Interval of the probes of TCP that find out whether the API server still exists.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Number of such probes without an answer after which a watch is cut.
const KEEP_ALIVE_PROBES: u32 = 3;
/// Longest time that is waited because the API server says so.
const MOST_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Access to the EndpointSlices of a service.
pub(super) struct Api {
    client: Client,
    /// URL of the slices, without a query.
    slices: Url,
    service: Arc<str>,
    token_file: Option<PathBuf>,
}

impl Api {
    /// Prepares requests. Reads the certificate authorities, so that replaced ones take effect.
    pub(super) async fn new(settings: &KubernetesSettings) -> Result<Self, ApiError> {
        let KubernetesApi {
            url: server,
            token_file,
            ca_file,
        } = &settings.api;
        let of_account = |file: &str| server.is_none().then(|| Path::new(ACCOUNT).join(file));
        let server = match server {
            Some(server) => server.to_string(),
            None => server_of_cluster()?,
        };
        let url = Url::parse(&server).map_err(|error| unprepared(format!("`{server}` is not a URL: {error}")))?;
        let token_file = token_file.clone().or_else(|| of_account("token"));
        if token_file.is_some() && url.scheme() != "https" && !is_local(&url) {
            return Err(unprepared(format!("a token is not sent to {url} without TLS")));
        }
        let ca_file = ca_file.clone().or_else(|| of_account("ca.crt"));
        let tls = tls::terms(authorities(ca_file).await?, None, false, false);
        let client = Client::builder()
            .tls_backend_preconfigured(tls.map_err(|error| unprepared(error.to_string()))?)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_LIMIT)
            .tcp_keepalive(KEEP_ALIVE)
            .tcp_keepalive_interval(KEEP_ALIVE)
            .tcp_keepalive_retries(KEEP_ALIVE_PROBES)
            .user_agent(concat!("gateway/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| unprepared(cause(&error)))?;
        Ok(Self {
            client,
            slices: slices_of(url, &settings.namespace).ok_or_else(|| unprepared(format!("`{server}` has no host")))?,
            service: Arc::clone(&settings.service),
            token_file,
        })
    }

    /// Returns all slices, and their version.
    pub(super) async fn list(&self, port: &SlicePort) -> Result<(Slices, String), ApiError> {
        let mut slices = Slices::new(port.clone());
        let mut position = String::new();
        let mut version = None;
        for _ in 0..MOST_PAGES {
            let page = self.page(&position).await?;
            // All pages are of the version of the first.
            version.get_or_insert(page.version);
            page.slices.into_iter().for_each(|slice| slices.put(slice));
            position = page.rest;
            if position.is_empty() {
                break;
            }
        }
        if !position.is_empty() {
            slices.note_rest();
        }
        Ok((slices, version.unwrap_or_default()))
    }

    async fn page(&self, position: &str) -> Result<Page, ApiError> {
        let limit = PER_PAGE.to_string();
        let mut query = vec![("limit", &*limit)];
        if !position.is_empty() {
            query.push(("continue", position));
        }
        let mut answer = self.ask(&query).await?;
        let text = body(&mut answer, MAX_PAGE).await?;
        let read = move || Page::read(&text.into(), MAX_PAGE).map_err(ApiError::Unreadable);
        // A long text would keep the thread from its other work.
        match answer.content_length() {
            Some(length) if length <= json::LONG as u64 => read(),
            _ => match spawn_blocking(read).await {
                Ok(page) => page,
                Err(error) => Err(ApiError::Unreadable(error.to_string())),
            },
        }
    }

    /// Begins a watch of the changes since `version`.
    pub(super) async fn watch(&self, version: &str) -> Result<Lines, ApiError> {
        let seconds = fastrand::u64(WATCH_SECONDS);
        let query = [
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", version),
            ("timeoutSeconds", &seconds.to_string()),
        ];
        let answer = self.ask(&query).await?;
        let ends = clock::now() + Duration::from_secs(seconds) + WATCH_GRACE;
        Ok(Lines::new(answer, ends))
    }

    /// Sends a request. Returns the answer if its status is 200.
    async fn ask(&self, query: &[(&str, &str)]) -> Result<Response, ApiError> {
        let mut url = self.slices.clone();
        let selector = format!("kubernetes.io/service-name={}", self.service);
        url.query_pairs_mut()
            .append_pair("labelSelector", &selector)
            .extend_pairs(query);
        let mut request = self.client.get(url).header(ACCEPT, "application/json");
        if let Some(file) = &self.token_file {
            request = request.header(AUTHORIZATION, credentials(&text(file).await?, file)?);
        }
        let mut answer = match timeout(HEAD_LIMIT, request.send()).await {
            Ok(sent) => sent.map_err(|error| ApiError::Unreached(cause(&error)))?,
            Err(_) => return Err(ApiError::Unreached(format!("no answer within {HEAD_LIMIT:?}"))),
        };
        match answer.status() {
            StatusCode::OK => Ok(answer),
            StatusCode::GONE => Err(ApiError::Expired),
            status => {
                let text = body(&mut answer, MAX_REFUSAL).await.unwrap_or_default();
                Err(ApiError::Status {
                    code: status.as_u16(),
                    message: slices::refusal(&text.into(), MAX_REFUSAL).unwrap_or_default(),
                    retry_after: retry_after(answer.headers()),
                })
            }
        }
    }
}

const fn unprepared(why: String) -> ApiError {
    ApiError::Unprepared(why)
}

/// Returns the URL of the API server, as a pod is told it.
fn server_of_cluster() -> Result<String, ApiError> {
    let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let (Some(host), Some(port)) = (variable("KUBERNETES_SERVICE_HOST"), variable("KUBERNETES_SERVICE_PORT")) else {
        let why = "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set, as they are in a pod: write the URL of the API server as `api`";
        return Err(unprepared(why.to_owned()));
    };
    Ok(match host.contains(':') {
        true => format!("https://[{host}]:{port}"),
        false => format!("https://{host}:{port}"),
    })
}

/// Whether a URL leads to this machine.
fn is_local(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// Returns the URL of the slices in a namespace. The URL of the API server may have a path.
fn slices_of(mut server: Url, namespace: &str) -> Option<Url> {
    let path = [
        "apis",
        "discovery.k8s.io",
        "v1",
        "namespaces",
        namespace,
        "endpointslices",
    ];
    server.set_query(None);
    server.set_fragment(None);
    server.path_segments_mut().ok()?.pop_if_empty().extend(path);
    Some(server)
}

async fn authorities(ca_file: Option<PathBuf>) -> Result<Arc<RootCertStore>, ApiError> {
    let Some(file) = ca_file else {
        let system = spawn_blocking(|| {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            Arc::new(roots)
        });
        return system.await.map_err(|error| unprepared(error.to_string()));
    };
    let pem = content(&file).await?;
    listener::authorities(&pem).map_err(|mistake| unprepared(format!("{} {mistake}", file.display())))
}

async fn text(file: &Path) -> Result<String, ApiError> {
    let bytes = content(file).await?;
    let text = String::from_utf8(bytes).map_err(|_| unprepared(format!("{} is not text", file.display())))?;
    Ok(text.trim().to_owned())
}

async fn content(file: &Path) -> Result<Vec<u8>, ApiError> {
    let path = file.to_owned();
    let read = match spawn_blocking(move || files::read(&path)).await {
        Ok(read) => read,
        Err(error) => return Err(unprepared(error.to_string())),
    };
    read.map(|content| content.bytes)
        .map_err(|error| unprepared(format!("cannot read {}: {error}", file.display())))
}

fn credentials(token: &str, file: &Path) -> Result<HeaderValue, ApiError> {
    let value = HeaderValue::try_from(format!("Bearer {token}")).ok();
    let mut value = value
        .filter(|_| !token.is_empty() && !token.contains(char::is_whitespace))
        .ok_or_else(|| unprepared(format!("{} holds no token", file.display())))?;
    value.set_sensitive(true);
    Ok(value)
}

async fn body(answer: &mut Response, limit: usize) -> Result<Vec<u8>, ApiError> {
    let mut body = Vec::new();
    let read = async {
        while let Some(chunk) = answer
            .chunk()
            .await
            .map_err(|error| ApiError::Unreached(cause(&error)))?
        {
            if body.len() + chunk.len() > limit {
                return Err(ApiError::Unreadable(format!("it is longer than {limit} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(())
    };
    match timeout(BODY_LIMIT, read).await {
        Ok(read) => read.map(|()| body),
        Err(_) => Err(ApiError::Unreached(format!("no complete answer within {BODY_LIMIT:?}"))),
    }
}

/// Returns the seconds of a `Retry-After`, at most [`MOST_RETRY_AFTER`]. A date is ignored.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(MOST_RETRY_AFTER))
}

/// Returns the innermost cause of an error. It says what happened; the outer ones repeat the URL.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

//! The admin address: health, metrics, what the gateway knows of itself, and the few things that can be changed.
//!
//! Runs on the control thread and only reads what workers publish. Everything is answered from the plan in force, so an
//! answer after a reload is about the new config.
//!
//! Invariant: GET never changes anything, and a change needs the token. No answer holds a secret, a key or a digest.

mod backends;
mod breaker;
mod changes;
mod connections;
mod dashboard;
mod decided;
mod events;
mod health;
mod host;
mod keys;
mod list_query;
mod problem;
mod quotas;
mod rejections;
mod revocations;
mod routes;
mod samplers;
mod status;
mod tenants;
#[cfg(test)]
mod tests;
mod token;
mod traffic;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use axum::{Router, middleware};

use self::events::Streams;
use self::token::Token;
use crate::plan::reload::Reloader;
use crate::plan::{LivePlan, State};
use crate::server::Lifecycle;

/// Bytes of a request's body, at most.
const MAX_BODY: usize = 2 << 20;

/// What the admin API looks at.
pub struct Gateway {
    pub live: Arc<LivePlan>,
    pub state: Arc<State>,
    pub lifecycle: Arc<Lifecycle>,
    pub reloader: Arc<Reloader>,
    /// The addresses that are served, by listener.
    pub listeners: Vec<(String, SocketAddr)>,
}

/// The admin socket, before it serves.
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    token: Option<Token>,
}

/// What every handler is given.
struct Admin {
    gateway: Gateway,
    address: SocketAddr,
    /// `None`: nothing can be changed.
    token: Option<Token>,
    streams: Streams,
}

/// Binds the admin address. Without a token, nothing can be changed through it.
///
/// # Errors
/// The address is taken, or the token cannot be read or is too short.
pub fn bind(address: SocketAddr, token_file: Option<&Path>) -> io::Result<Bound> {
    let token = token_file.map(Token::read).transpose()?;
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(Bound {
        address: listener.local_addr()?,
        listener,
        token,
    })
}

impl Bound {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until it is dropped.
    pub async fn serve(self, gateway: Gateway) {
        let Self {
            listener,
            address,
            token,
        } = self;
        let admin = Arc::new(Admin {
            gateway,
            address,
            token,
            streams: Streams::default(),
        });
        samplers::register(&admin);
        match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => connections::serve(listener, router(admin)).await,
            Err(error) => tracing::error!(%error, "the admin address is not served"),
        }
    }
}

fn router(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/api/v1/status", get(status::show))
        .route("/api/v1/routes", get(routes::show))
        .route("/api/v1/backends", get(backends::show))
        .route("/api/v1/tenants", get(tenants::show))
        .route("/api/v1/keys", get(keys::show))
        .route("/api/v1/rejections", get(rejections::show))
        .route("/api/v1/events", get(events::stream))
        .route(
            "/api/v1/revocations",
            get(revocations::show)
                .post(revocations::add)
                .delete(revocations::remove),
        )
        .route("/api/v1/tenants/{tenant}/quotas/{quota}", post(quotas::set))
        .route("/api/v1/reload", post(changes::reload))
        .route("/api/v1/drain", post(changes::drain))
        .route("/api/v1/backends/{name}/breaker", post(changes::force_breaker))
        .route("/", get(dashboard::page))
        .route("/dashboard.css", get(dashboard::style))
        .route("/dashboard.js", get(dashboard::script))
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn(host::check))
        .with_state(admin)
}

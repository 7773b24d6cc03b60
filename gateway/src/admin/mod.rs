//! Serves the admin address: health, metrics, the state of the gateway, and a few changes.
//!
//! It runs on the control thread and only reads what workers publish. Every answer comes from the plan in force, so
//! after a reload it describes the new config.
//!
//! Invariant: GET never changes anything, and a change needs the token. No answer holds a secret, a key or a digest.
//! `/livez` and `/readyz` are answered whatever other connections do.

mod backends;
#[cfg(test)]
mod bench;
mod body_limit;
mod breaker;
mod cache;
mod change;
mod changes;
mod connection_table;
mod connections;
mod dashboard;
mod diff;
mod documents;
mod events;
mod explain;
mod external;
mod health;
mod history;
mod host;
mod idempotency;
mod key;
mod keys;
mod list_query;
mod mirrored;
mod numbers;
mod openapi;
mod problem;
mod quotas;
mod refusal_groups;
mod rejections;
mod request_slots;
mod revocations;
mod routes;
mod samplers;
mod shared_store;
mod slot_layer;
mod state;
mod status;
mod stream_slots;
mod tenant;
mod tenant_metrics;
mod tenants;
mod timed_io;
mod token;
mod tokens;
mod traffic;
mod usage;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use axum::{Router, middleware};
use tokio::sync::Semaphore;

use self::body_limit::MAX_BODY;
use self::history::History;
use self::state::Admin;
pub use self::state::Gateway;
use self::stream_slots::Streams;
use self::tokens::Tokens;
use crate::config::{self, At};
use crate::pipeline::explain::LINK;
use crate::plan::admin_token::AdminToken;

/// Bound admin sockets that do not serve yet.
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    health: Option<(TcpListener, SocketAddr)>,
    tokens: Tokens,
}

/// Sockets of the admin address and of the address for probes that this process has not bound itself.
#[derive(Debug, Default)]
pub struct InheritedAdmin {
    pub admin: Option<TcpListener>,
    pub probes: Option<TcpListener>,
}

/// Binds the admin address, and the address for probes if there is one; uses the inherited sockets instead if there are
/// some. Without a token, nothing can be changed.
///
/// # Errors
/// Fails if an address is in use, or if a token cannot be read or is too short.
pub fn bind(written: &config::Admin, inherited: InheritedAdmin) -> io::Result<Bound> {
    let token = |file: &Option<At<PathBuf>>| {
        let read = file.as_ref().map(|file| {
            AdminToken::read(file).map_err(|why| io::Error::other(format!("cannot use {}: {why}", file.display())))
        });
        read.transpose()
    };
    let tokens = Tokens {
        change: token(&written.token_file)?,
        read: token(&written.read_token_file)?,
    };
    let (listener, address) = listen(*written.address, inherited.admin)?;
    let health = written
        .health_address
        .as_ref()
        .map(|address| listen(**address, inherited.probes))
        .transpose()?;
    Ok(Bound {
        listener,
        address,
        health,
        tokens,
    })
}

fn listen(address: SocketAddr, inherited: Option<TcpListener>) -> io::Result<(TcpListener, SocketAddr)> {
    let failed = |error: io::Error| io::Error::new(error.kind(), format!("{address}: {error}"));
    let listener = match inherited {
        Some(listener) => listener,
        None => TcpListener::bind(address).map_err(failed)?,
    };
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

impl Bound {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns further descriptors of the sockets, for a process that takes over.
    ///
    /// # Errors
    /// If no more descriptors may be open.
    pub fn descriptors(&self) -> io::Result<InheritedAdmin> {
        let probes = self.health.as_ref().map(|(listener, _)| listener.try_clone());
        Ok(InheritedAdmin {
            admin: Some(self.listener.try_clone()?),
            probes: probes.transpose()?,
        })
    }

    /// Address that answers only probes, if there is one.
    pub fn health_address(&self) -> Option<SocketAddr> {
        self.health.as_ref().map(|(_, address)| *address)
    }

    /// Serves until the future is dropped.
    pub async fn serve(self, gateway: Gateway) {
        let health_address = self.health_address();
        let Self {
            listener,
            address,
            health,
            tokens,
        } = self;
        let admin = Arc::new(Admin {
            gateway,
            address,
            health_address,
            tokens,
            streams: Streams::default(),
            history: History::default(),
            scrapes: Semaphore::new(1),
        });
        samplers::register(&admin);
        let probes = health.map(|(listener, _)| serve(listener, probe_router(Arc::clone(&admin))));
        let probes = async {
            if let Some(probes) = probes {
                probes.await;
            }
        };
        let kept = Arc::clone(&admin);
        tokio::join!(serve(listener, router(admin)), probes, history::keep_up(&kept));
    }
}

async fn serve(listener: TcpListener, router: Router) {
    match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => connections::serve(listener, router).await,
        Err(error) => tracing::error!(%error, "an admin address is not served"),
    }
}

/// Serves only probes, under any host name, because the answers hold nothing that a page of another origin could want.
fn probe_router(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .with_state(admin)
}

fn router(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/api/v1/openapi.json", get(openapi::show))
        .route("/api/v1/status", get(status::show))
        .route("/api/v1/replicas", get(shared_store::replicas))
        .route("/api/v1/routes", get(routes::show))
        .route("/api/v1/backends", get(backends::show))
        .route("/api/v1/tenants", get(tenants::show))
        .route(
            "/api/v1/tenants/{tenant}",
            get(tenant::show)
                .put(tenant::put)
                .patch(tenant::patch)
                .delete(tenant::delete),
        )
        .route("/api/v1/tenants/{tenant}/keys", get(tenant::keys).post(key::add))
        .route("/api/v1/usage", get(usage::show))
        .route("/api/v1/keys", get(keys::show))
        .route(
            "/api/v1/keys/{key}",
            get(key::show).patch(key::patch).delete(key::delete),
        )
        .route("/api/v1/rejections", get(rejections::show))
        .route("/api/v1/rejections/groups", get(refusal_groups::show))
        .route("/api/v1/history", get(history::show))
        .route(events::PATH, get(events::stream))
        .route(LINK, get(explain::get).post(explain::post))
        .route(diff::LINK, post(diff::post))
        .route(
            "/api/v1/revocations",
            get(revocations::show)
                .post(revocations::add)
                .delete(revocations::remove),
        )
        .route("/api/v1/tenants/{tenant}/quotas/{quota}", post(quotas::set))
        .route("/api/v1/reload", post(changes::reload))
        .route("/api/v1/drain", post(changes::drain))
        .route("/api/v1/cache/purge", post(cache::purge))
        .route("/api/v1/idempotency", get(idempotency::show))
        .route("/api/v1/idempotency/find", post(idempotency::find))
        .route("/api/v1/idempotency/release", post(idempotency::release))
        .route("/api/v1/external/purge", post(external::purge))
        .route("/api/v1/backends/{name}/breaker", post(changes::force_breaker))
        .route("/api/v1/backends/{name}/endpoints", post(changes::drain_endpoint))
        .route("/", get(dashboard::page))
        .route("/dashboard/{file}", get(dashboard::part))
        .route("/docs/{page}", get(documents::page))
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn(slot_layer::hold))
        .layer(middleware::from_fn_with_state(Arc::clone(&admin), token::check))
        .layer(middleware::from_fn(host::check))
        .with_state(admin)
}

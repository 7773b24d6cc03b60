//! State that is shared by all handlers of the admin API.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::history::History;
use super::stream_slots::Streams;
use super::tokens::Tokens;
use crate::control::reload::Reloader;
use crate::plan::{LivePlan, State};
use crate::server::Lifecycle;

/// Parts of the gateway that the admin API reads and changes.
pub struct Gateway {
    pub live: Arc<LivePlan>,
    pub state: Arc<State>,
    pub lifecycle: Arc<Lifecycle>,
    pub reloader: Arc<Reloader>,
    /// Name and bound address of each listener.
    pub listeners: Vec<(String, SocketAddr)>,
}

/// State that every handler receives.
pub(super) struct Admin {
    pub(super) gateway: Gateway,
    pub(super) address: SocketAddr,
    pub(super) health_address: Option<SocketAddr>,
    pub(super) tokens: Tokens,
    pub(super) streams: Streams,
    pub(super) history: History,
    /// Held while a page of metrics is rendered.
    pub(super) scrapes: Semaphore,
}

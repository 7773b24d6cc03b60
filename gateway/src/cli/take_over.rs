//! The part of serving that `--take-over` adds: the state of the process before, and answering the next one.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::service_manager;
use crate::admin::{self, InheritedAdmin};
use crate::control::reload;
use crate::hand_over::{self, Descriptors, Offer, Offering, Passed, Predecessor};
use crate::plan::{LivePlan, State};
use crate::server::sockets::Bound;

/// Socket of the hand-over, and the process to replace with the socket that it listens at, if one answers there.
pub(super) struct TakeOver {
    path: PathBuf,
    from: Option<(Predecessor, UnixListener)>,
}

impl TakeOver {
    pub(super) fn new(path: &Path, from: Option<(Predecessor, Passed)>) -> Self {
        Self {
            path: path.to_owned(),
            from: from.map(|(predecessor, passed)| (predecessor, passed.into_socket())),
        }
    }

    pub(super) const fn has_predecessor(&self) -> bool {
        self.from.is_some()
    }

    /// Takes the state of the process before, and puts the plan in force over it. Does nothing if there is none.
    ///
    /// # Errors
    /// If the process before refuses, or the keys of an issuer do not come. Then it serves on.
    pub(super) async fn take_state(
        &mut self,
        served: Vec<SocketAddr>,
        state: &Arc<State>,
        live: &Arc<LivePlan>,
    ) -> io::Result<()> {
        let Some((mut predecessor, socket)) = self.from.take() else {
            return Ok(());
        };
        if let Err(error) = predecessor.keys(&live.load()).await {
            predecessor.refuse(&error.to_string());
            return Err(error);
        }
        let (state, live) = (Arc::clone(state), Arc::clone(live));
        let take = move || {
            let guards = predecessor.counts(&state, &served)?;
            let plan = live.load();
            reload::take_effect(&plan, &state);
            guards.restore(&plan);
            Ok::<_, io::Error>(predecessor)
        };
        let predecessor = tokio::task::spawn_blocking(take).await.map_err(io::Error::other)??;
        self.from = Some((predecessor, socket));
        Ok(())
    }

    /// Replaces the process before, if there is one, and answers the next one from now on.
    ///
    /// # Errors
    /// If the socket cannot be bound, or a thread cannot be started.
    pub(super) async fn answer(self, offer: Offer) -> io::Result<Offering> {
        let Self { path, from } = self;
        let answer = move || match from {
            None => hand_over::begin(&path, offer),
            Some((predecessor, socket)) => {
                let pid = predecessor.pid();
                let offering = hand_over::replace(predecessor, socket, offer, service_manager::has_taken_over);
                tracing::info!(pid, "has taken over");
                offering
            }
        };
        tokio::task::spawn_blocking(answer).await.map_err(io::Error::other)?
    }
}

/// Returns further descriptors of all listening sockets, for a process that takes over.
pub(super) fn descriptors(bound: &[Bound], admin: Option<&admin::Bound>) -> io::Result<Descriptors> {
    let listeners = bound.iter().map(|bound| {
        let sockets = bound.descriptors()?;
        Ok((bound.name.clone(), bound.address, sockets))
    });
    let InheritedAdmin { admin, probes } = admin.map(admin::Bound::descriptors).transpose()?.unwrap_or_default();
    Ok(Descriptors {
        listeners: listeners.collect::<io::Result<_>>()?,
        admin,
        probes,
    })
}

//! Follows the EndpointSlices of a Kubernetes service by list and watch (`discovery.k8s.io/v1`).
//!
//! A list gives all slices and a version; a watch that begins at this version gives each later change. A watch that is
//! cut goes on from the last version. When the API server has forgotten that version (410 Gone), or a watch fails in
//! another way, all slices are listed again. So no change is missed.

mod api;
mod api_error;
mod lines;
mod slices;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use self::api::Api;
use self::api_error::ApiError;
use self::slices::{Event, Slices};
use super::{Found, look_pause};
use crate::call::endpoints::{KubernetesSettings, Member};
use crate::clock;

/// Time limit of a list, with all its pages.
const LIST_LIMIT: Duration = Duration::from_secs(60);
/// Duration of a watch that counts as a success although nothing changed.
const SETTLED: Duration = Duration::from_secs(5);

/// Reports the members of a service, forever.
pub(super) async fn follow(settings: &KubernetesSettings, wake: &Notify, report: impl FnMut(Found)) {
    let mut follower = Follower {
        settings,
        slices: Slices::new(settings.port.clone()),
        version: None,
        has_news: false,
        left_out: 0,
        report,
    };
    let mut failures = 0;
    loop {
        let began = clock::now();
        let ended = follower.round().await;
        let has_settled = ended.is_ok() && clock::now().since(began) >= SETTLED;
        let is_good = std::mem::take(&mut follower.has_news) || has_settled;
        failures = if is_good { 0 } else { failures + 1 };
        let mut pause = match failures {
            0 => Duration::ZERO,
            failures => look_pause::after_failures(failures, fastrand::f64()),
        };
        if let Err(error) = ended {
            let told = error.retry_after().unwrap_or_default();
            pause = pause.max(look_pause::after_failures(1, fastrand::f64())).max(told);
            (follower.report)(Found::Failed(error.to_string()));
        }
        look_pause::wait(began, pause, wake).await;
    }
}

/// State of a service from one request to the next.
struct Follower<'s, R> {
    settings: &'s KubernetesSettings,
    slices: Slices,
    /// Version of `slices`. `None`: the slices must be listed.
    version: Option<String>,
    /// Whether a watch has brought an event since this was last read.
    has_news: bool,
    /// Number of endpoints that were left out when this was last logged.
    left_out: usize,
    report: R,
}

impl<R: FnMut(Found)> Follower<'_, R> {
    /// Lists the slices unless they are known, and watches them until the watch ends.
    async fn round(&mut self) -> Result<(), ApiError> {
        match self.list_and_watch().await {
            Err(ApiError::Expired) => {
                self.version = None;
                Ok(())
            }
            Err(error) => {
                // The slices are those of the version still if the API server was not reached.
                self.version.take_if(|_| !matches!(error, ApiError::Unreached(_)));
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }

    async fn list_and_watch(&mut self) -> Result<(), ApiError> {
        let api = Api::new(self.settings).await?;
        let version = match &self.version {
            Some(version) => version.clone(),
            None => {
                let listed = tokio::time::timeout(LIST_LIMIT, api.list(&self.settings.port)).await;
                let late = || Err(ApiError::Unreached(format!("no complete list within {LIST_LIMIT:?}")));
                let (slices, version) = listed.unwrap_or_else(|_| late())?;
                self.slices = slices;
                self.version = Some(version.clone());
                self.tell();
                version
            }
        };
        let mut lines = api.watch(&version).await?;
        // A watch that begins confirms what is known, and so does each event.
        self.tell();
        loop {
            let mut has_news = false;
            while let Some(line) = lines.next()? {
                self.apply(Event::read(&line).map_err(ApiError::Unreadable)?)?;
                has_news = true;
            }
            if has_news {
                self.has_news = true;
                self.tell();
            }
            if !lines.read_more().await {
                return Ok(());
            }
        }
    }

    /// Applies an event of the watch.
    fn apply(&mut self, event: Event) -> Result<(), ApiError> {
        match event {
            Event::Put(slice) => {
                self.version = Some(slice.version.clone());
                self.slices.put(slice);
            }
            Event::Deleted { name, version } => {
                self.version = Some(version);
                self.slices.remove(&name);
            }
            Event::Bookmark { version } => self.version = Some(version),
            Event::Error { code: 410, .. } => return Err(ApiError::Expired),
            Event::Error { code, message } => {
                return Err(ApiError::Status {
                    code,
                    message,
                    retry_after: None,
                });
            }
            Event::Unknown => {}
        }
        Ok(())
    }

    /// Reports the members, or why there are none.
    fn tell(&mut self) {
        let left_out = self.slices.left_out();
        if std::mem::replace(&mut self.left_out, left_out) != left_out && left_out > 0 {
            tracing::warn!(service = %self.settings.service, left_out, "endpoints left out: too many");
        }
        let mut origins = HashMap::new();
        let members = self.slices.members().into_iter().filter_map(|(address, readiness)| {
            let origin = origins.entry(address.port());
            // A host that is no part of a URL is refused with the config.
            let origin = origin.or_insert_with_key(|port| self.settings.naming.origin(*port));
            Some(Member {
                readiness,
                ..Member::new(Arc::clone(origin.as_ref()?), address, 1)
            })
        });
        let members: Vec<_> = members.collect();
        (self.report)(match members.is_empty() {
            true => Found::Failed(self.slices.why_none()),
            false => Found::Members(members),
        });
    }
}

#[cfg(test)]
mod tests;

//! Reads a file of endpoints again whenever it changes.
//!
//! A version is taken once two looks in a row find it, and as a whole or not at all. What may never end, because a file
//! system does not answer, runs on threads of its own: at most one for each file.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::{Found, dns, slow_lookup};
use crate::call::endpoints::{FileSettings, Registry, WrittenEndpoints};
use crate::clock;
use crate::files::Stamp;
use crate::files::watch::{FileWatch, Look};
use crate::plan::endpoint_file;

/// Interval between looks at the file.
const LOOK: Duration = Duration::from_millis(200);
/// Interval between lookups of the names in it.
const RESOLVE: Duration = Duration::from_secs(30);

/// Reads the file at once, and whenever it changes, forever.
pub(super) async fn follow(settings: &FileSettings, registry: &Registry, mut report: impl FnMut(Found)) {
    let mut round = tokio::time::interval(LOOK);
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watch = FileWatch::default();
    // Version that is in force.
    let mut in_force: Option<Version> = None;
    let mut resolves_at = clock::now();
    // At the start there is nothing to compare with: the file is read at the first look.
    let mut is_first = true;
    loop {
        round.tick().await;
        let path = settings.path.clone();
        let found = blocking(settings, &mut report, move || Stamp::of(&path)).await;
        let stamp = in_force.as_ref().and_then(|version| version.stamp);
        let was_refused = watch.is_refused();
        let look = if is_first {
            Look::Due
        } else {
            watch.look(stamp, found, clock::now())
        };
        if was_refused && look == Look::Same && !watch.is_refused() {
            // The version in force is back.
            resolves_at = clock::now();
        }
        if look == Look::Due {
            is_first = false;
            let theirs = settings.clone();
            match blocking(settings, &mut report, move || endpoint_file::read(&theirs)).await {
                Ok(written) => {
                    watch = FileWatch::default();
                    in_force = Some(Version {
                        // It may have changed since, which the next look finds.
                        stamp: found,
                        written,
                    });
                    resolves_at = clock::now();
                }
                Err(error) => {
                    watch.refuse(found);
                    report(Found::Failed(error));
                }
            }
        }
        if let Some(Version { written, .. }) = &in_force
            && resolves_at <= clock::now()
            && !watch.is_refused()
        {
            resolves_at = clock::now() + RESOLVE;
            report(resolved(written, registry).await);
        }
    }
}

/// File as it was read.
struct Version {
    stamp: Option<Stamp>,
    written: WrittenEndpoints,
}

/// Returns the endpoints of the file. A name has all its addresses; one that does not resolve keeps those it has.
async fn resolved(written: &WrittenEndpoints, registry: &Registry) -> Found {
    if !written.have_names() {
        return Found::Members(written.members(registry));
    }
    let (members, failed) = written.resolve(registry, lookup).await;
    for (origin, error) in &failed {
        tracing::warn!(endpoint = %origin.url, %error, "cannot resolve");
    }
    match failed.first() {
        Some((origin, error)) if members.is_empty() => Found::Failed(format!("cannot resolve {}: {error}", origin.url)),
        _ => Found::Members(members),
    }
}

async fn lookup(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    dns::of_system(host.to_owned(), port).await
}

/// Runs work that may wait for a file system on another thread.
async fn blocking<T: Send + 'static>(
    settings: &FileSettings,
    report: &mut impl FnMut(Found),
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let late = || {
        let path = settings.path.display();
        report(Found::Failed(format!("{path}: its file system does not answer")));
    };
    match slow_lookup::wait_for(tokio::task::spawn_blocking(work), late).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends.
            Err(_) => std::future::pending().await,
        },
    }
}

//! Tells a service manager about the life of the process, as `sd_notify(3)` describes.
//!
//! Without `NOTIFY_SOCKET` nothing is sent. A message that cannot be sent changes nothing here.

use std::env;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::MissedTickBehavior;

/// Tells that the process serves.
pub(super) fn serving() {
    send(&[NotifyState::Ready, NotifyState::Status("serving")]);
}

/// Tells that this process is the gateway in place of the one that the service manager knows.
pub(super) fn has_taken_over() {
    send(&[
        NotifyState::MainPid(std::process::id()),
        NotifyState::Ready,
        NotifyState::Status("serving, has taken over"),
    ]);
}

/// Tells that the config is read again. [`reloaded`] must follow.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now, NotifyState::Status("reading the config")]),
        Err(error) => tracing::debug!(%error, "the service manager is not told of a reload"),
    }
}

/// Tells that the config has been read, and whether it is in force.
pub(super) fn reloaded(is_in_force: bool) {
    let status = if is_in_force {
        "serving"
    } else {
        "serving with the config before: the new one has mistakes"
    };
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Tells that the process stops.
pub(super) fn stopping() {
    send(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

/// Tells the watchdog twice in each of its periods that the control thread runs, forever. `has_taken_over` tells that the
/// variables are those of the process before.
pub(super) async fn watch(has_taken_over: bool) {
    let is_ours = env::var("WATCHDOG_PID").map_or(true, |pid| pid.parse() == Ok(std::process::id()));
    let micros = env::var("WATCHDOG_USEC").ok().and_then(|micros| micros.parse().ok());
    let Some(period) = micros.map(Duration::from_micros).filter(|period| !period.is_zero()) else {
        return;
    };
    if !is_ours && !has_taken_over {
        return;
    }
    let mut round = tokio::time::interval((period / 2).max(Duration::from_millis(1)));
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        round.tick().await;
        send(&[NotifyState::Watchdog]);
    }
}

fn send(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}

//! Limits what all JSON documents of the process may use: bytes of memory, and threads for long documents.
//!
//! Each request reserves bytes as they arrive, and releases them when it no longer holds them. Two limits prevent one
//! user from taking all memory. Long texts may use at most three quarters of the budget, so that ordinary ones still
//! fit. One tenant may use at most half. A request of a cheap tier may find less room than one of a dear tier.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use policies::Moment;

use super::LONG;
use super::threads::{JobError, Threads};
use crate::clock;
use crate::rejection::Rejection;
use crate::setting::SettingId;

/// Number of tenant counters. Tenants whose numbers are equal modulo this share one counter and its limit.
const TENANTS: usize = 1024;

/// Time after which a refused request should retry.
const SOON: Duration = Duration::from_secs(1);

/// Reason why a text cannot be stored or read now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkspaceError {
    /// The memory budget is used up.
    Overloaded,
    /// The queue for the threads is full.
    NoThread,
    /// The request's time has ended. Holds the setting that it comes from; `None` if the caller set it.
    OutOfTime(Option<SettingId>),
}

impl From<WorkspaceError> for Rejection {
    fn from(hindrance: WorkspaceError) -> Self {
        match hindrance {
            WorkspaceError::Overloaded => Self::Overloaded {
                retry_after: SOON,
                by: Some(SettingId::JSON_TOTAL),
            },
            // No setting controls the number of threads or the length of their queue.
            WorkspaceError::NoThread => Self::Overloaded {
                retry_after: SOON,
                by: None,
            },
            WorkspaceError::OutOfTime(by) => Self::OutOfTime(by),
        }
    }
}

pub struct Workspace {
    /// Reserved bytes of all requests.
    reserved: AtomicU64,
    by_tenant: Box<[AtomicU64]>,
    /// Number of refused reservations.
    refused: AtomicU64,
    threads: Threads,
}

/// Memory reserved by one request. Released on drop.
#[must_use = "what is dropped is given back"]
pub struct Reservation {
    workspace: Arc<Workspace>,
    /// Budget of all requests together, in bytes.
    limit: u64,
    /// Part of it that this request may help to fill, in bytes.
    room: u64,
    tenant: usize,
    /// End of the request's time, with the setting that it comes from.
    until: (Moment, Option<SettingId>),
    bytes: AtomicU64,
}

impl Workspace {
    /// Makes a workspace with this number of threads for long texts.
    pub fn new(threads: usize) -> Self {
        Self {
            reserved: AtomicU64::new(0),
            by_tenant: (0..TENANTS).map(|_| AtomicU64::new(0)).collect(),
            refused: AtomicU64::new(0),
            threads: Threads::new(threads),
        }
    }

    /// Starts the reservation of one request. `tenant` is a number that all requests of a tenant share. `limit` is the
    /// budget of all requests together, in bytes. `until` limits every wait; it comes with its setting,
    /// which is `None` if the caller set it.
    pub fn reserve(self: &Arc<Self>, limit: u64, tenant: u64, until: (Moment, Option<SettingId>)) -> Reservation {
        Reservation {
            workspace: Arc::clone(self),
            limit,
            room: limit,
            tenant: (tenant % TENANTS as u64) as usize,
            until,
            bytes: AtomicU64::new(0),
        }
    }

    /// Bytes that are reserved now.
    pub fn reserved(&self) -> u64 {
        self.reserved.load(Relaxed)
    }

    /// Number of refusals since the start.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }
}

impl Reservation {
    /// Lets the request fill only this part of the budget, in bytes, so that others find the rest free.
    pub fn up_to(mut self, room: u64) -> Self {
        self.room = room;
        self
    }

    /// Returns an empty reservation for work that outlives the request: of the same tenant, until another time.
    pub fn another(&self, until: Moment) -> Self {
        self.workspace
            .reserve(self.limit, self.tenant as u64, (until, None))
            .up_to(self.room)
    }

    /// Checks whether `bytes` could be reserved now for a text of length `text`, both in bytes. Reserves nothing.
    ///
    /// # Errors
    /// There is not enough room.
    pub fn has_room(&self, bytes: usize, text: usize) -> Result<(), WorkspaceError> {
        let bytes = bytes as u64;
        let fits = |counter: &AtomicU64, limit| counter.load(Relaxed).saturating_add(bytes) <= limit;
        let of_tenant = &self.workspace.by_tenant[self.tenant];
        if fits(&self.workspace.reserved, self.limit_of(text)) && fits(of_tenant, self.limit / 2) {
            return Ok(());
        }
        self.workspace.refused.fetch_add(1, Relaxed);
        Err(WorkspaceError::Overloaded)
    }

    /// Reserves `bytes` more. `text` is the length in bytes of the text they are for, as far as it is known.
    ///
    /// # Errors
    /// There is not enough room. Nothing has been reserved.
    pub fn grow(&self, bytes: usize, text: usize) -> Result<(), WorkspaceError> {
        let bytes = bytes as u64;
        let taken = take(&self.workspace.reserved, bytes, self.limit_of(text)).and_then(|()| {
            let of_tenant = &self.workspace.by_tenant[self.tenant];
            take(of_tenant, bytes, self.limit / 2).inspect_err(|_| {
                self.workspace.reserved.fetch_sub(bytes, Relaxed);
            })
        });
        if taken.is_err() {
            self.workspace.refused.fetch_add(1, Relaxed);
            return taken;
        }
        self.bytes.fetch_add(bytes, Relaxed);
        Ok(())
    }

    /// Limit in bytes of all reservations together for a text of this length.
    fn limit_of(&self, text: usize) -> u64 {
        let most = if text > LONG { self.limit / 4 * 3 } else { self.limit };
        most.min(self.room)
    }

    /// Releases `bytes` of the reservation, or all of it if it is smaller.
    pub fn shrink(&self, bytes: usize) {
        let held = self.bytes.load(Relaxed);
        self.give_back(held.min(bytes as u64));
    }

    /// Releases everything above `bytes`.
    pub fn shrink_to(&self, bytes: usize) {
        let held = self.bytes.load(Relaxed);
        self.give_back(held.saturating_sub(bytes as u64));
    }

    /// Runs `work` on a text of this length in bytes: in place if the text is short, otherwise on another thread.
    ///
    /// # Errors
    /// The thread queue is full, or the request's time ends first.
    pub async fn read<T: Send + 'static>(
        &self,
        text: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, WorkspaceError> {
        if text <= LONG {
            return Ok(work());
        }
        let until = clock::instant(self.until.0);
        match tokio::time::timeout_at(until, self.workspace.threads.run(work)).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(JobError::Full)) => {
                self.workspace.refused.fetch_add(1, Relaxed);
                Err(WorkspaceError::NoThread)
            }
            // The panic continues here, as if the work had run in place.
            Ok(Err(JobError::Panicked)) => panic!("reading a long text has panicked"),
            Err(_) => Err(WorkspaceError::OutOfTime(self.until.1)),
        }
    }

    /// Ties the reservation to `text`: shrinks it to the text's length and releases it when the last reference to the
    /// text is dropped. For a short text the reservation is released at once.
    pub fn keep_for(self, text: Bytes) -> Bytes {
        if text.len() <= LONG {
            return text;
        }
        self.shrink_to(text.len());
        Bytes::from_owner(Kept { text, _held: self })
    }

    fn give_back(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Relaxed);
        self.workspace.reserved.fetch_sub(bytes, Relaxed);
        self.workspace.by_tenant[self.tenant].fetch_sub(bytes, Relaxed);
    }
}

/// Text together with its reservation.
struct Kept {
    text: Bytes,
    _held: Reservation,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.give_back(self.bytes.load(Relaxed));
    }
}

/// Adds to the counter if the sum stays within `limit`. A failed addition is undone, so other threads may briefly see
/// too high a value.
fn take(counter: &AtomicU64, bytes: u64, limit: u64) -> Result<(), WorkspaceError> {
    if counter.fetch_add(bytes, Relaxed).saturating_add(bytes) > limit {
        counter.fetch_sub(bytes, Relaxed);
        return Err(WorkspaceError::Overloaded);
    }
    Ok(())
}

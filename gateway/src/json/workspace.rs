//! What all JSON documents of the process may take: bytes of memory, and threads for those that are long.
//!
//! Bytes are reserved as they arrive, by the request that they belong to, and given back when it lets go of them. Two
//! shares keep some from taking all: long texts get no further than three quarters of the budget, so that ordinary ones
//! go on beside them; and one tenant gets no further than half.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use policies::Moment;

use super::LONG;
use super::threads::{JobError, Threads};
use crate::clock;
use crate::rejection::{Rejection, Setting};

/// Tenants are told apart by so many numbers; those of the same number share what is one tenant's.
const TENANTS: usize = 1024;

/// When to come back who finds no room.
const SOON: Duration = Duration::from_secs(1);

/// Why a text cannot be held or read now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkspaceError {
    /// There is no room.
    Overloaded,
    /// There is no thread.
    NoThread,
    OutOfTime,
}

impl From<WorkspaceError> for Rejection {
    fn from(hindrance: WorkspaceError) -> Self {
        match hindrance {
            WorkspaceError::Overloaded => Self::Overloaded {
                retry_after: SOON,
                by: Some(Setting::JsonTotal),
            },
            // How many there are no setting says.
            WorkspaceError::NoThread => Self::Overloaded {
                retry_after: SOON,
                by: None,
            },
            WorkspaceError::OutOfTime => Self::OutOfTime(Setting::RouteTime),
        }
    }
}

pub struct Workspace {
    /// Bytes, in all and by tenant.
    reserved: AtomicU64,
    by_tenant: Box<[AtomicU64]>,
    /// Reservations that were refused.
    refused: AtomicU64,
    threads: Threads,
}

/// What one request holds. Dropped, it is given back.
#[must_use = "what is dropped is given back"]
pub struct Reservation {
    workspace: Arc<Workspace>,
    /// Of all together, in bytes.
    limit: u64,
    tenant: usize,
    /// The end of the request's time.
    until: Moment,
    bytes: AtomicU64,
}

impl Workspace {
    /// With so many threads for long texts.
    pub fn new(threads: usize) -> Self {
        Self {
            reserved: AtomicU64::new(0),
            by_tenant: (0..TENANTS).map(|_| AtomicU64::new(0)).collect(),
            refused: AtomicU64::new(0),
            threads: Threads::new(threads),
        }
    }

    /// Begins a request of `tenant`, a number that is the same for all of its requests. `limit` is the budget for all
    /// requests together, in bytes. Nothing is waited for past `until`.
    pub fn reserve(self: &Arc<Self>, limit: u64, tenant: u64, until: Moment) -> Reservation {
        Reservation {
            workspace: Arc::clone(self),
            limit,
            tenant: (tenant % TENANTS as u64) as usize,
            until,
            bytes: AtomicU64::new(0),
        }
    }

    /// Bytes that are reserved now.
    pub fn reserved(&self) -> u64 {
        self.reserved.load(Relaxed)
    }

    /// How often there was no room, since the start.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }
}

impl Reservation {
    /// Whether there is room now for a text of this length, of which so many bytes are to be reserved.
    ///
    /// # Errors
    /// There is none.
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

    /// Reserves more; `text` is the length of the text that it is for, as far as it is known.
    ///
    /// # Errors
    /// There is no room; nothing has been reserved.
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

    /// How far all together may go for a text of this length.
    fn limit_of(&self, text: usize) -> u64 {
        if text > LONG { self.limit / 4 * 3 } else { self.limit }
    }

    /// Gives back so much of what is held.
    pub fn shrink(&self, bytes: usize) {
        let held = self.bytes.load(Relaxed);
        self.give_back(held.min(bytes as u64));
    }

    /// Holds on to no more than this.
    pub fn shrink_to(&self, bytes: usize) {
        let held = self.bytes.load(Relaxed);
        self.give_back(held.saturating_sub(bytes as u64));
    }

    /// Reads a text of this length: here if it is short, and on another thread otherwise.
    ///
    /// # Errors
    /// There is no thread for it, or none in time.
    pub async fn read<T: Send + 'static>(
        &self,
        text: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, WorkspaceError> {
        if text <= LONG {
            return Ok(work());
        }
        let until = clock::instant(self.until);
        match tokio::time::timeout_at(until, self.workspace.threads.run(work)).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(JobError::Full)) => {
                self.workspace.refused.fetch_add(1, Relaxed);
                Err(WorkspaceError::NoThread)
            }
            // As it would have been had it happened here.
            Ok(Err(JobError::Panicked)) => panic!("reading a long text has panicked"),
            Err(_) => Err(WorkspaceError::OutOfTime),
        }
    }

    /// Goes on with nothing but `text`: what it takes is held until the last of its bytes is let go. A short one is not
    /// worth it.
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

/// A text, with what is reserved for it.
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

/// Adds if the sum is within `limit`; undoes it otherwise, so that others may see too much for an instant.
fn take(counter: &AtomicU64, bytes: u64, limit: u64) -> Result<(), WorkspaceError> {
    if counter.fetch_add(bytes, Relaxed).saturating_add(bytes) > limit {
        counter.fetch_sub(bytes, Relaxed);
        return Err(WorkspaceError::Overloaded);
    }
    Ok(())
}

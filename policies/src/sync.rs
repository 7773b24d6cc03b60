//! The only place that names the atomics and the lock of this crate, so that a checker that explores
//! interleavings can put its own in their stead.
//!
//! Reference counts and what is made once stay those of the standard library: no decision hangs on them.

#[cfg(loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
};
#[cfg(not(loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
};
pub(crate) use std::sync::{OnceLock, PoisonError};

/// Locks, poisoned or not: what the locks here guard is consistent before anything in them can panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

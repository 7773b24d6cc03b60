//! Names the atomics and the lock of this crate in one place, so that an interleaving checker (loom) can replace them.
//!
//! Reference counts and values that are made once stay those of the standard library, because no decision depends on
//! them.

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

/// Locks a mutex, poisoned or not: the values locked here are consistent before anything in them can panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Tells what a task has to do again: one waker for each of its parts, in place of one for all.
//!
//! A connection's task runs the library and its streams in turns, and each wakes the other all the time. A wake during
//! the task's own poll is only noted, because the task looks at the notes before it waits. A wake at any other time also
//! wakes the task.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};

/// One part of a task.
pub(super) struct Part {
    wakes: Arc<Wakes>,
    waker: Waker,
}

struct Wakes {
    is_woken: AtomicBool,
    /// Whether the task is being polled.
    is_polled: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Part {
    /// Creates a part that has something to do.
    pub(super) fn new() -> Self {
        let wakes = Arc::new(Wakes {
            is_woken: AtomicBool::new(true),
            is_polled: AtomicBool::new(false),
            task: Mutex::default(),
        });
        Self {
            waker: Arc::clone(&wakes).into(),
            wakes,
        }
    }

    /// Begins a poll of the task.
    pub(super) fn begin(&self, task: &Waker) {
        self.wakes.is_polled.store(true, SeqCst);
        let mut kept = self.wakes.task.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.as_ref().is_none_or(|kept| !kept.will_wake(task)) {
            *kept = Some(task.clone());
        }
    }

    /// Ends a poll of the task, which is woken again if there is something to do.
    pub(super) fn end(&self) {
        self.wakes.is_polled.store(false, SeqCst);
        if self.wakes.is_woken.load(SeqCst) {
            self.wakes.wake_task();
        }
    }

    /// Returns whether there is something to do since the last call.
    pub(super) fn take(&self) -> bool {
        self.wakes.is_woken.swap(false, SeqCst)
    }

    /// Notes that there is something to do.
    pub(super) fn note(&self) {
        self.wakes.is_woken.store(true, SeqCst);
    }

    pub(super) const fn context(&self) -> Context<'_> {
        Context::from_waker(&self.waker)
    }
}

impl Wakes {
    fn wake_task(&self) {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = &*task {
            task.wake_by_ref();
        }
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_woken.store(true, SeqCst);
        // Another thread may end the poll now; it then sees what was just stored.
        if !self.is_polled.load(SeqCst) {
            self.wake_task();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn a_wake_within_the_poll_is_only_noted() {
        let woken = Arc::new(Woken::default());
        let task = Arc::clone(&woken).into();
        let part = Part::new();
        part.begin(&task);
        assert!(part.take() && !part.take());
        part.context().waker().wake_by_ref();
        assert!(part.take());
        part.end();
        assert_eq!(woken.0.load(SeqCst), 0);
        part.context().waker().wake_by_ref();
        assert_eq!(woken.0.load(SeqCst), 1);
        part.begin(&task);
        assert!(part.take());
        part.end();
        assert_eq!(woken.0.load(SeqCst), 1);
        // What is left when the poll ends wakes the task.
        part.begin(&task);
        part.note();
        part.end();
        assert_eq!(woken.0.load(SeqCst), 2);
    }
}

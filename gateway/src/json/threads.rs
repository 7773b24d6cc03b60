//! Runs work that would block a worker, such as reading long texts, on a few separate threads. These threads serve no
//! requests, so a long text delays only the request that it belongs to.
//!
//! Invariant: the queue is bounded. Work whose result nobody awaits any more is skipped. A panic ends the work, not the
//! thread. The threads start with the first work.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::thread;

use tokio::sync::oneshot;

/// Most jobs in the queue. Each has a long text, so the byte budget is usually the tighter limit.
const MAX_WAITING: usize = 1024;

/// Stack of each thread, in bytes. It is many times what the deepest accepted text needs.
const STACK: usize = 2 << 20;

/// Scheduling priority of the threads as a `nice` value. Workers have precedence.
const NICE: i32 = 10;

type Work = Box<dyn FnOnce() + Send>;

/// Reason why work was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JobError {
    /// The queue is full.
    Full,
    /// The work panicked.
    Panicked,
}

pub(super) struct Threads {
    count: usize,
    queue: Arc<Queue>,
    started: Once,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Work>,
    is_closed: bool,
}

impl Threads {
    pub(super) fn new(count: usize) -> Self {
        Self {
            count,
            queue: Arc::default(),
            started: Once::new(),
        }
    }

    /// Runs `work` on one of the threads. If the future is dropped before the work starts, the work is skipped.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JobError> {
        self.started.call_once(|| self.start());
        let (done, result) = oneshot::channel();
        let work = move || {
            if !done.is_closed() {
                // The receiver may have been dropped in the meantime.
                let _ = done.send(work());
            }
        };
        self.queue.push(Box::new(work))?;
        result.await.map_err(|_| JobError::Panicked)
    }

    fn start(&self) {
        for number in 0..self.count {
            let queue = Arc::clone(&self.queue);
            let started = thread::Builder::new()
                .name(format!("json-{number}"))
                .stack_size(STACK)
                .spawn(move || {
                    // Workers come first. If the priority cannot be set, the threads run with the default one.
                    let _ = rustix::process::setpriority_process(None, NICE);
                    queue.serve();
                });
            if let Err(error) = started {
                tracing::error!(%error, "a thread for long JSON texts could not be started");
            }
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.queue.lock().is_closed = true;
        self.queue.news.notify_all();
    }
}

impl Queue {
    fn push(&self, work: Work) -> Result<(), JobError> {
        let mut state = self.lock();
        if state.waiting.len() >= MAX_WAITING {
            return Err(JobError::Full);
        }
        state.waiting.push_back(work);
        drop(state);
        self.news.notify_one();
        Ok(())
    }

    fn serve(&self) {
        while let Some(work) = self.next() {
            // A panic drops the result's sender, which the receiver notices.
            let _ = std::panic::catch_unwind(AssertUnwindSafe(work));
        }
    }

    fn next(&self) -> Option<Work> {
        let mut state = self.lock();
        loop {
            if let Some(work) = state.waiting.pop_front() {
                return Some(work);
            }
            if state.is_closed {
                return None;
            }
            state = self.news.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::sync::mpsc;

    use futures_util::FutureExt;

    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime")
            .block_on(future)
    }

    #[test]
    fn work_is_done_elsewhere_and_a_panic_ends_only_itself() {
        let threads = Threads::new(1);
        block_on(async {
            let here = thread::current().id();
            let there = threads.run(|| thread::current().id()).await;
            assert!(there.is_ok_and(|there| there != here));
            assert_eq!(
                threads.run(|| panic!("on purpose")).await,
                Err::<(), _>(JobError::Panicked)
            );
            assert_eq!(threads.run(|| 7).await, Ok(7));
        });
    }

    #[test]
    fn the_queue_is_bounded_and_what_nobody_waits_for_is_left_out() {
        let threads = Threads::new(1);
        let (release, held) = mpsc::channel::<()>();
        let done = Arc::new(AtomicUsize::new(0));
        block_on(async {
            let (begun, has_begun) = oneshot::channel();
            let first = threads.run(move || {
                begun.send(()).expect("it is waited for");
                held.recv().expect("it is released");
            });
            let mut first = std::pin::pin!(first);
            tokio::select! {
                biased;
                _ = &mut first => panic!("it waits"),
                begun = has_begun => begun.expect("it begins"),
            }
            let mut waiting = Vec::new();
            for _ in 0..MAX_WAITING {
                let done = Arc::clone(&done);
                let mut work = Box::pin(threads.run(move || done.fetch_add(1, SeqCst)));
                assert!(work.as_mut().now_or_never().is_none());
                waiting.push(work);
            }
            assert_eq!(threads.run(|| ()).await, Err(JobError::Full));
            waiting.truncate(3);
            release.send(()).expect("it is held");
            assert_eq!(first.await, Ok(()));
            for work in waiting {
                assert!(work.await.is_ok());
            }
            assert_eq!(threads.run(|| ()).await, Ok(()));
        });
        assert_eq!(done.load(SeqCst), 3);
    }
}

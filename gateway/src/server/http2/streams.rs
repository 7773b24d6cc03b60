//! Runs each request of an HTTP/2 connection in its own task, which can be aborted without the others.

use std::sync::{Arc, Mutex, PoisonError};

use hyper::rt::Executor;

use crate::wire::slow_caller::Transfer;

/// Links the next task to its request: hyper makes a request's future and executes it before it makes another.
#[derive(Clone, Default)]
pub(super) struct Streams {
    next: Arc<Mutex<Option<Arc<Transfer>>>>,
}

impl Streams {
    /// Sets the request that the next task carries.
    pub(super) fn expect(&self, flow: Arc<Transfer>) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(flow);
    }
}

impl<F> Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, stream: F) {
        let flow = self.next.lock().unwrap_or_else(PoisonError::into_inner).take();
        let task = tokio::spawn(stream);
        if let Some(flow) = flow {
            flow.set_carrier(task.abort_handle());
        }
    }
}

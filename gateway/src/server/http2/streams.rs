//! Gives each request of a shared connection a task of its own, which can be ended without the others.

use std::sync::{Arc, Mutex, PoisonError};

use hyper::rt::Executor;

use crate::wire::slow_caller::Transfer;

/// hyper makes the future of a request first and then has it executed, one after the other.
#[derive(Clone, Default)]
pub(super) struct Streams {
    next: Arc<Mutex<Option<Arc<Transfer>>>>,
}

impl Streams {
    /// The next task carries this request.
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

//! Passes interim answers (1xx) of a backend on to the caller, ahead of the final answer.
//!
//! An HTTP/1.1 connection has one of these, because it serves one request at a time; on HTTP/2 each stream has one.
//! `100` and `101` of a backend never pass: the first is about one connection alone, the second is an answer of its own.
//!
//! Invariant: what is held is bounded. What finds no room is dropped, which costs nothing but a hint.

use std::mem;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::StatusCode;

use crate::message::FieldMap;
use crate::wire::http1::Head;
use crate::wire::slow_caller::Transfer;

/// Maximum number of interim answers that wait to be written.
const MOST: usize = 8;

/// Holder of the interim answers to a request.
#[derive(Debug, Clone)]
pub enum InterimTarget {
    /// HTTP/1.1 connection.
    Connection(Arc<InterimAnswers>),
    /// HTTP/2 stream.
    Stream(Arc<Transfer>),
}

impl Deref for InterimTarget {
    type Target = InterimAnswers;

    fn deref(&self) -> &InterimAnswers {
        match self {
            Self::Connection(answers) => answers,
            Self::Stream(flow) => flow.interim(),
        }
    }
}

/// Interim answers to one request.
#[derive(Debug, Default)]
pub struct InterimAnswers {
    /// Whether the caller knows interim answers.
    is_open: AtomicBool,
    /// Whether any wait to be written.
    waits: AtomicBool,
    answers: Mutex<Vec<(StatusCode, FieldMap)>>,
}

impl InterimAnswers {
    /// Begins a request. Without `is_open` its interim answers are dropped.
    pub fn begin(&self, is_open: bool) {
        self.is_open.store(is_open, Relaxed);
        self.take();
    }

    /// Adds an interim answer of a backend on HTTP/1.1.
    pub fn add_head(&self, head: &Head) {
        if let (Some(status), true) = (head.status(), self.is_open.load(Relaxed))
            && let Ok(fields) = head.fields.to_map()
        {
            self.add(status, fields);
        }
    }

    /// Adds an interim answer of a backend.
    pub fn add(&self, status: StatusCode, fields: FieldMap) {
        if !status.is_informational() || matches!(status.as_u16(), 100 | 101) {
            return;
        }
        let mut answers = self.lock();
        if self.is_open.load(Relaxed) && answers.len() < MOST {
            answers.push((status, fields));
            self.waits.store(true, Relaxed);
        }
    }

    /// Adds the gateway's own `100 Continue`.
    pub fn add_continue(&self) {
        self.lock().push((StatusCode::CONTINUE, FieldMap::new()));
        self.waits.store(true, Relaxed);
    }

    /// Takes what waits to be written.
    pub fn take(&self) -> Vec<(StatusCode, FieldMap)> {
        if !self.waits.load(Relaxed) {
            return Vec::new();
        }
        self.waits.store(false, Relaxed);
        mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(StatusCode, FieldMap)>> {
        // A panic leaves the list valid, because each change is one step.
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
